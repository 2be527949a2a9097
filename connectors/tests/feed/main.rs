//! The Office 365 feed against the simulated service, by the rows of the failure table.
//!
//! A test bears the name of its row.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod blobs;
mod clouds;
mod codes;
mod listings;
mod scene;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod tokens;

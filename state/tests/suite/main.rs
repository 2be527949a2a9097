//! The promises of the state crate, kept by both stores and by the folder on disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may fail loudly"
)]

mod alike;
mod churn;
mod contract;
mod crash;
mod export;
mod outbox;
mod rebuild;
mod support;

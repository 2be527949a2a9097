//! What an analyst asks of the built binary: the archive, the inventory, what a change of rules would
//! do, and what became of a finding. No vendor is needed: the records come from files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by failing"
)]

mod archive;
mod compare;
mod coverage;
mod desk;
mod finding;
mod identity;
mod interrupted;
mod learn;

//! End to end: the real binary against the simulated services, over loopback.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod domains;
mod equality;
mod inventory;
mod jobs;
mod lanes;
mod learn;
mod ledger;
mod login;
mod promises;
mod quota;
mod readme;
mod released_late;
mod reload;
mod scene;
mod secrets;
mod trouble;
mod week;
mod zone;

//! The completeness ledger through the whole line: store, session, lanes, against a scripted vendor on
//! a clock that only the test moves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alarms;
mod completeness;
mod dead_receiver;
mod line;
mod notices;
mod process;
mod reconcile;
mod vendor;

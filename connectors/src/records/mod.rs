//! Records: how the vendors' audit records are read.
//!
//! A record is read twice at most: its *head* (who, when, what; every record) by a lazy scan of
//! its top-level members ([`json`]), and its *body*, turned into flat events, only where some
//! detector wants one of its operations. Everything here is pure, and no member of an odd type
//! makes it fail: what cannot be understood stays in the event as it is.

mod address;
mod flatten;
pub mod google;
pub(crate) mod json;
mod members;
pub mod microsoft;
mod outside;
pub(crate) mod time;

#[cfg(test)]
mod oddities;

pub use google::GoogleRecords;
pub use microsoft::Microsoft365Records;

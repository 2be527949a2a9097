//! Splunk's HTTP Event Collector.
//!
//! One emitter is one token on one deployment, of one address or several
//! (`endpoints`). A batch becomes HEC events (`envelope`, `records`),
//! those become requests within the limits (`request`), every reply is judged by one pure function
//! (`reply`), and the batch counts as delivered only when all of it was taken, by the indexer's
//! acknowledgement where it is on (`ack`). What was taken before a failure is remembered
//! (`crate::progress`), so that a resend does not double it.

mod ack;
mod batch;
mod client;
mod diagnosis;
mod emitter;
mod endpoints;
mod envelope;
mod records;
mod reply;
mod request;

pub use emitter::SplunkHec;
pub use reply::{Action, Rest, decide};

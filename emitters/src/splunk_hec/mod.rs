//! Splunk's HTTP Event Collector.
//!
//! One emitter (`emitter`) is one token on one deployment (`deployment`), of one address or several (`endpoints`), each
//! with a pace (`pace`) and a channel (`session`) of its own. A batch (`batch`) becomes HEC events
//! (`encoded`, `envelope`, `records`), those become requests within the limits (`request`), every reply is judged
//! by one pure function (`reply`) and followed in one place (`line`), and the batch counts as delivered
//! only when all of it was taken, by the indexer's acknowledgement where it is on (`ack`). What was
//! taken before a failure is remembered (`crate::progress`), so that a resend does not double it.

mod ack;
mod batch;
mod client;
mod deployment;
mod diagnosis;
mod emitter;
mod encoded;
mod endpoints;
mod envelope;
mod facts;
mod line;
mod pace;
mod records;
mod reply;
mod request;
mod session;

pub use emitter::SplunkHec;
pub(crate) use emitter::check;
pub use reply::{Action, Near, Rest, Trouble, decide};

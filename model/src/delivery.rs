//! What travels from the outbox to a receiver.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::names::StreamId;

/// What an item of the outbox is; lanes are per kind.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A raw vendor record.
    Events,
    /// A finding that is to be looked at.
    Findings,
    /// A finding of `alert = false`.
    Signals,
    /// Our own state: heartbeats, gaps, losses (`exfilwatch:internal`).
    Internal,
}

impl Kind {
    /// All kinds, in the order lanes are opened.
    pub const ALL: [Self; 4] = [Self::Findings, Self::Signals, Self::Internal, Self::Events];

    /// The name used in configuration, keys and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Findings => "findings",
            Self::Signals => "signals",
            Self::Internal => "internal",
        }
    }
}

/// One item on its way: what a lane hands to an emitter. Sent again after a failure it is the same
/// bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What it is.
    pub kind: Kind,
    /// Tenant and feed it belongs to.
    pub stream: StreamId,
    /// Record id, finding uid or name of the internal item.
    pub id: String,
    /// Event time; `None` where the record has none.
    pub time: Option<DateTime<Utc>>,
    /// When its page was read.
    pub fetched_at: DateTime<Utc>,
    /// Events: the vendor's record, byte for byte. Findings and signals: a [`crate::Finding`] as
    /// JSON. Internal: a JSON object.
    pub payload: Bytes,
}

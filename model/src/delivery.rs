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
    /// Events: the vendor's record, byte for byte, and **one whole JSON object**: emitters lay it into
    /// text of theirs as it is, without reading it. A record is read to its end before it becomes an item
    /// (the step, by its head), and a frame of the outbox bears a checksum; whoever makes an item of bytes
    /// from anywhere else asks [`Envelope::is_whole`] first. Findings and signals: a [`crate::Finding`] as
    /// JSON. Internal: a JSON object.
    pub payload: Bytes,
}

impl Envelope {
    /// Whether the payload is one JSON object and nothing else.
    pub fn is_whole(&self) -> bool {
        let text = std::str::from_utf8(&self.payload).ok();
        let text = text.filter(|text| text.trim_ascii_start().starts_with('{'));
        text.is_some_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_and_nothing_else_is_whole() {
        let is_whole = |payload: &[u8]| {
            let stream = "contoso/office365/dlp".parse().unwrap();
            let envelope = Envelope {
                kind: Kind::Events,
                stream,
                id: "a".to_owned(),
                time: None,
                fetched_at: DateTime::UNIX_EPOCH,
                payload: Bytes::copy_from_slice(payload),
            };
            envelope.is_whole()
        };
        for whole in ["{}", " {\"a\":[{\"b\":\"}\"}]}\r\n", "{\"\":1e999}"] {
            assert!(is_whole(whole.as_bytes()), "{whole:?}");
        }
        for broken in [
            "",
            "[]",
            "1",
            "{\"a\":1}{\"event\":2}",
            "{\"a\":1}},{\"event\":2}",
            "{\"a\":1",
            "{\"a\":\"\n\"}",
        ] {
            assert!(!is_whole(broken.as_bytes()), "{broken:?}");
        }
        assert!(!is_whole(b"{\"a\":\"\xFF\"}"));
    }
}

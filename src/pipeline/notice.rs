//! What the collector says about itself: heartbeats, gaps, losses, degraded streams, malformed
//! records. They go out through the same lanes as everything else (`exfilwatch:internal`), so that
//! the receiver sees our silence and our losses.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_model::{Envelope, Gap, Kind, StreamId, TenantId};
use exfilwatch_state::{Frame, Quarantined};
use serde_json::{Value, json};

/// One such statement.
#[derive(Debug, Clone)]
pub struct Notice {
    /// What it is about.
    pub stream: StreamId,
    /// `collector.heartbeat`, `.gap`, `.loss`, `.degraded`, `.recovered`, `.malformed`, `.rebuilt`,
    /// `.domains`; `finding.closed`.
    pub name: &'static str,
    /// When.
    pub at: DateTime<Utc>,
    /// Its members besides name, stream and time.
    pub facts: Value,
    /// The gap it enters into the ledger.
    pub gap: Option<Gap>,
}

impl Notice {
    /// A stream that works only in part or not at all, why, and what to do.
    pub fn degraded(stream: &StreamId, at: DateTime<Utc>, what: &str, help: &str) -> Self {
        let facts = json!({ "reason": what, "help": help });
        Self {
            stream: stream.clone(),
            name: "collector.degraded",
            at,
            facts,
            gap: None,
        }
    }

    /// A stream that works again.
    pub fn recovered(stream: &StreamId, at: DateTime<Utc>) -> Self {
        Self {
            stream: stream.clone(),
            name: "collector.recovered",
            at,
            facts: json!({}),
            gap: None,
        }
    }

    /// An interval of which something is, or may be, missing.
    pub fn gap(gap: Gap) -> Self {
        let name = match gap.state {
            exfilwatch_model::GapState::Lost => "collector.loss",
            exfilwatch_model::GapState::Open | exfilwatch_model::GapState::Filled => {
                "collector.gap"
            }
        };
        let facts = json!({
            "gap_id": gap.id, "from": gap.window.from(), "until": gap.window.until(),
            "state": gap.state, "cause": gap.cause, "reason": gap.reason,
            "expires": gap.expires, "filled": gap.filled, "acknowledged": gap.acknowledged,
        });
        Self {
            stream: gap.stream.clone(),
            name,
            at: gap.found_at,
            facts,
            gap: Some(gap),
        }
    }

    /// Bytes that are no record.
    pub fn malformed(entry: &Quarantined) -> Self {
        let facts = json!({
            "reason": entry.reason, "origin": entry.origin,
            "quarantine_id": entry.id, "bytes": entry.bytes.len(),
        });
        Self {
            stream: entry.stream.clone(),
            name: "collector.malformed",
            at: entry.at,
            facts,
            gap: None,
        }
    }

    /// A stretch of the outbox that cannot be read.
    pub fn outbox_loss(entry: &Quarantined) -> Self {
        let facts = json!({
            "reason": entry.reason, "origin": entry.origin,
            "help": "read the time around it again: exfilwatch backfill --since … --until …",
        });
        Self {
            stream: entry.stream.clone(),
            name: "collector.loss",
            at: entry.at,
            facts,
            gap: None,
        }
    }

    /// Of two gaps or findings that are found or closed at the same instant each has its own.
    fn id(&self) -> String {
        let at = self.at.timestamp_millis();
        let mut id = format!("{}:{}:{at}", self.name, self.stream);
        let about = ["gap_id", "finding_uid"].map(|fact| self.facts.get(fact));
        if let Some(about) = about.into_iter().flatten().find_map(Value::as_str) {
            id.push(':');
            id.push_str(about);
        }
        id
    }

    /// The frame that carries it.
    pub fn frame(&self, tenant: &TenantId) -> Frame {
        let mut body = json!({
            "type": self.name,
            "time": self.at,
            "tenant": tenant.as_str(),
            "stream": self.stream.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let (Value::Object(body), Value::Object(facts)) = (&mut body, &self.facts) {
            body.extend(facts.clone());
        }
        let item = Envelope {
            kind: Kind::Internal,
            stream: self.stream.clone(),
            id: self.id(),
            time: Some(self.at),
            fetched_at: self.at,
            payload: Bytes::from(body.to_string()),
        };
        Frame {
            kind: Kind::Internal,
            tenant: tenant.clone(),
            items: vec![item],
        }
    }
}

//! The account of a reconciliation: what listing a span again found, in numbers an auditor can read.

use chrono::{DateTime, Utc};
use exfilwatch_model::{StreamId, Window};
use serde::{Deserialize, Serialize};

/// Tries of an item after which a reconciliation no longer waits for it.
pub const TRIES_WAITED_FOR: u32 = 3;

/// What a reconciliation of a stream found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The stream.
    pub stream: StreamId,
    /// Start of the span that was listed again.
    pub from: DateTime<Utc>,
    /// Its end.
    pub until: DateTime<Utc>,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When all of it had been listed, and what was missing fetched or tried; `None` before.
    pub ended: Option<DateTime<Utc>>,
    /// Items the vendor listed (google: windows of time, all read again).
    pub listed: usize,
    /// Of them, fetched before.
    pub done_before: usize,
    /// Of them, fetched since.
    pub fetched: usize,
    /// Of them, still to be fetched: the poller goes on with them.
    pub missing: usize,
    /// Of the missing, failed so often that they are not waited for.
    pub failing: usize,
    /// Of them, given up: the ledger says why.
    pub lost: usize,
    /// Records read.
    pub records: u64,
    /// Of them, not delivered before.
    pub records_new: u64,
    /// Of the new, so old that the ordinary second readings should have found them.
    pub records_late: u64,
    /// Why the stream could not be listed, or nothing of it be fetched.
    pub error: Option<String>,
}

impl Account {
    /// Of a span of which nothing is listed yet.
    pub fn new(stream: &StreamId, span: Window, began: DateTime<Utc>) -> Self {
        Self::between(stream, (span.from(), span.until()), began)
    }

    fn between(
        stream: &StreamId,
        (from, until): (DateTime<Utc>, DateTime<Utc>),
        began: DateTime<Utc>,
    ) -> Self {
        Self {
            stream: stream.clone(),
            from,
            until,
            began,
            ended: None,
            listed: 0,
            done_before: 0,
            fetched: 0,
            missing: 0,
            failing: 0,
            lost: 0,
            records: 0,
            records_new: 0,
            records_late: 0,
            error: None,
        }
    }

    /// Of a stream of which nothing was read yet.
    pub fn nothing(stream: &StreamId, now: DateTime<Utc>) -> Self {
        Self {
            ended: Some(now),
            ..Self::between(stream, (now, now), now)
        }
    }

    /// Adds the numbers of a part of the span.
    pub fn add(&mut self, part: &Self) {
        self.listed += part.listed;
        self.done_before += part.done_before;
        self.fetched += part.fetched;
        self.missing += part.missing;
        self.failing += part.failing;
        self.lost += part.lost;
        self.records += part.records;
        self.records_new += part.records_new;
        self.records_late += part.records_late;
    }

    /// Whether the span was listed and nothing of it is missing or lost.
    pub fn is_whole(&self) -> bool {
        self.ended.is_some() && self.error.is_none() && self.missing == 0 && self.lost == 0
    }
}

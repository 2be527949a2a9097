//! The work list: what is to be fetched, and how far listing has come.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::names::StreamId;

/// Largest cursor or work-item body, in bytes: they are values of the store (4 KiB at most).
pub const CURSOR_BYTES_MAX: usize = 2_048;

/// How far a stream has been listed. Opaque to all but its connector, apart from `covered_until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything that became available before this instant is listed: delivered, or in the work
    /// list. Availability time for office365, event time minus lag for google.
    pub covered_until: DateTime<Utc>,
    /// The connector's own position, as JSON text.
    #[serde(default)]
    pub state: String,
}

/// One thing to fetch: a blob of office365, a frozen time window of google, a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkItem {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// The vendor's or our key; unique within the stream. At most 512 bytes.
    pub key: String,
    /// What the connector needs to fetch it (for a blob the path and query), as it likes.
    pub body: String,
    /// Lower end of what the item may hold, for the low-water: contentCreated or window start.
    pub from: DateTime<Utc>,
    /// When the vendor drops it; `None` if never within our time.
    pub expires: Option<DateTime<Utc>>,
    /// Failed tries so far.
    #[serde(default)]
    pub attempts: u32,
    /// Not to be tried before this instant.
    #[serde(default)]
    pub next_try: Option<DateTime<Utc>>,
    /// Why the last try failed, in one sentence.
    #[serde(default)]
    pub last_error: Option<String>,
}

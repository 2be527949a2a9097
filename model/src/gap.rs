//! The ledger's gaps: intervals of a stream of which something is, was, or may be missing.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Window;
use crate::identity::NAMESPACE;
use crate::names::{JobId, StreamId};

/// Longest reason that is kept, in characters: a gap is one value of the store.
pub const REASON_CHARS_MAX: usize = 500;
/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 12;

/// Whether a gap is still to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapState {
    /// Known, not yet closed.
    Open,
    /// Closed by other means.
    Filled,
    /// The vendor no longer has it.
    Lost,
}

/// What made a gap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The span was not listed while the vendor still listed it.
    #[default]
    NotListed,
    /// The subscription or the log was switched off: the vendor may have kept nothing.
    SwitchedOff,
    /// An item was listed and could not be fetched.
    NotFetched,
    /// The span was listed when it was fresh, and not again after it had settled: what came late
    /// may be missing.
    NotListedAgain,
    /// Our store was lost and rebuilt; the span is being read again.
    StoreLost,
    /// A job could not read the span.
    JobFailed,
}

/// How a gap was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    /// When.
    pub at: DateTime<Utc>,
    /// By which job; `live` is the poller.
    pub by: JobId,
    /// Records that had not been delivered before; `None` where they were not counted apart.
    pub records: Option<u64>,
}

/// Somebody has taken note of a gap that cannot be closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// When.
    pub at: DateTime<Utc>,
    /// What they said of it.
    pub reason: String,
}

/// An interval of a stream of which we know that something may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Content-derived when the gap is made, kept while it grows, shrinks or is closed. Empty in
    /// what an older version wrote: see [`Gap::with_id`].
    #[serde(default)]
    pub id: String,
    /// The stream.
    pub stream: StreamId,
    /// The interval, on the stream's own axis: when content became available (office365), when it
    /// happened (google).
    pub window: Window,
    /// Open, filled or lost.
    pub state: GapState,
    /// What made it.
    #[serde(default)]
    pub cause: GapCause,
    /// Why, in one sentence with what to do. At most [`REASON_CHARS_MAX`].
    pub reason: String,
    /// When it was found.
    pub found_at: DateTime<Utc>,
    /// Findings of the same kind that were joined to it, itself included.
    #[serde(default = "one")]
    pub parts: u32,
    /// When the vendor drops what may be in it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
    /// How it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<Filled>,
    /// Who closes the eyes to it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
}

fn one() -> u32 {
    1
}

impl Gap {
    /// A gap as it is found.
    pub fn new(
        stream: StreamId,
        window: Window,
        (state, cause): (GapState, GapCause),
        reason: &str,
        found_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id: String::new(),
            stream,
            window,
            state,
            cause,
            reason: reason.chars().take(REASON_CHARS_MAX).collect(),
            found_at,
            parts: 1,
            expires: None,
            filled: None,
            acknowledged: None,
        }
        .with_id()
    }

    /// Itself, with an id if it had none.
    pub fn with_id(mut self) -> Self {
        if self.id.is_empty() {
            let name = [
                self.stream.to_string(),
                self.window.from().to_rfc3339(),
                self.window.until().to_rfc3339(),
                self.reason.clone(),
            ]
            .join("\0");
            let digest = Uuid::new_v5(&NAMESPACE, name.as_bytes())
                .simple()
                .to_string();
            self.id = digest.chars().take(ID_DIGITS).collect();
        }
        self
    }

    /// Whether somebody still has to do something about it: it is open, or lost and not
    /// acknowledged.
    pub fn is_due(&self) -> bool {
        match self.state {
            GapState::Open => true,
            GapState::Lost => self.acknowledged.is_none(),
            GapState::Filled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn gap(reason: &str) -> Gap {
        let from = DateTime::UNIX_EPOCH;
        let window = Window::new(from, from + TimeDelta::seconds(1)).unwrap();
        let stream = "contoso/office365/Audit.Exchange".parse().unwrap();
        let found = (GapState::Open, GapCause::NotFetched);
        Gap::new(stream, window, found, reason, from)
    }

    #[test]
    fn two_gaps_of_the_same_instant_have_ids_of_their_own_and_one_found_twice_has_not() {
        assert_ne!(gap("blob a").id, gap("blob b").id);
        assert_eq!(gap("blob a").id, gap("blob a").id);
        assert_eq!(gap("blob a").id.len(), ID_DIGITS);
    }

    #[test]
    fn what_an_older_version_wrote_is_read_and_given_an_id() {
        let old = r#"{"stream":"contoso/office365/Audit.Exchange","window":{"from":"1970-01-01T00:00:00Z",
            "until":"1970-01-01T00:00:01Z"},"state":"open","reason":"blob a","found_at":"1970-01-01T00:00:00Z"}"#;
        let read: Gap = serde_json::from_str(old).unwrap();
        assert!(read.id.is_empty());
        assert_eq!((read.with_id().id, 1), (gap("blob a").id, read_parts(old)));
    }

    fn read_parts(text: &str) -> u32 {
        serde_json::from_str::<Gap>(text).unwrap().parts
    }
}

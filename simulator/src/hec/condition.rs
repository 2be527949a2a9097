//! What the collector goes through: for the next bodies it answers with a code of its own choice, and
//! some events it never takes.

use std::collections::VecDeque;

/// An answer to a body that the collector could read, instead of "taken".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Reply code; status and text follow from it.
    pub code: u16,
    /// What of the body is indexed all the same.
    pub takes: Takes,
    /// `Retry-After`, in seconds.
    pub retry_after_seconds: Option<u32>,
}

/// What of a body is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing; the reply names no event.
    Nothing,
    /// So many events; the reply names the next one.
    First(usize),
    /// Everything, as with codes 24 and 25.
    Everything,
}

impl Condition {
    /// Nothing is taken.
    pub fn refusing(code: u16) -> Self {
        Self {
            code,
            takes: Takes::Nothing,
            retry_after_seconds: None,
        }
    }

    /// Everything is taken.
    pub fn taking(code: u16) -> Self {
        Self {
            takes: Takes::Everything,
            ..Self::refusing(code)
        }
    }

    /// The first events of a body are taken.
    pub fn taking_first(events: usize, code: u16) -> Self {
        Self {
            takes: Takes::First(events),
            ..Self::refusing(code)
        }
    }
}

/// An event the collector never takes, wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// Text in the envelope.
    pub contains: String,
    /// Reply code: 6, 7, 12, 13, or 15 (for that only together with `fields`).
    pub code: u16,
}

/// The conditions of the next bodies, each for one.
pub(super) type Conditions = VecDeque<Condition>;

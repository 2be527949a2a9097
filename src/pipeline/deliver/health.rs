//! How a lane is doing.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use exfilwatch_emitters::Kept;
use exfilwatch_state::Position;

/// How a lane is doing, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneHealth {
    /// Items confirmed since the lane was made.
    pub delivered: u64,
    /// Items its filter left out since the lane was made.
    pub excluded: u64,
    /// Tries that failed since the process began.
    pub retries: u64,
    /// Items refused for good and quarantined since the process began.
    pub quarantined: u64,
    /// Why the lane is held, and what to do.
    pub held: Option<String>,
    /// Why the last try failed; `None` once one has worked.
    pub failing: Option<String>,
    /// What an operator should know of the receiver, though everything is delivered.
    pub remark: Option<String>,
    /// Bytes of the outbox between its mark and the end when last measured, those of others included.
    pub behind_bytes: u64,
    /// Batches on their way.
    pub in_flight: usize,
    /// When the oldest item that waits was fetched.
    pub oldest: Option<DateTime<Utc>>,
    /// First item not yet confirmed.
    pub mark: Position,
    /// All of its items before it are confirmed: the mark follows what is not for the lane in large steps only.
    pub passed: Position,
    /// What the receiver keeps itself, where it does.
    pub kept: Option<Kept>,
}

pub(super) fn note(health: &Mutex<LaneHealth>, change: impl FnOnce(&mut LaneHealth)) {
    change(&mut health.lock().unwrap_or_else(PoisonError::into_inner));
}

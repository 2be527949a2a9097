//! The seam between the pipeline and a detection.

use std::fmt::Debug;
use std::ops::AddAssign;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{Finding, Product};

pub use crate::engine::Shown;
use crate::rules::{Need, Pattern};

/// Which records a detector wants normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// The product; `None` for both.
    pub product: Option<Product>,
    /// Operations, each a name or a pattern with `*` (`*Export*`), compared without case. An empty
    /// list means all.
    pub operations: Vec<String>,
    /// What their events must have, as far as is known.
    pub need: Need,
}

impl Interest {
    /// Whether records of this product with this operation are wanted.
    pub fn wants(&self, product: Product, operation: &str) -> bool {
        let lower = operation.to_lowercase();
        let is_named = |name: &String| Pattern::new(name).matches(&lower);
        self.product.is_none_or(|only| only == product)
            && (self.operations.is_empty() || self.operations.iter().any(is_named))
    }
}

/// A change of a detector's memory, for the commit. Keys begin with nothing of the tenant: the
/// store puts job, tenant and detector in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Key within the detector, at most 512 bytes.
    pub key: Vec<u8>,
    /// New value, at most 4 KiB; `None` takes it away.
    pub value: Option<Vec<u8>>,
}

/// A stored value that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state of detector {detector} cannot be read: {reason}")]
pub struct BadState {
    /// The detector.
    pub detector: String,
    /// Why.
    pub reason: String,
}

/// How much a detector remembers, and which bounds were hit. The counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries in memory now.
    pub entries: u64,
    /// Keys in memory now.
    pub keys: u64,
    /// Events that came after all they could belong to was over: not counted in any finding.
    pub late_events: u64,
    /// Entries left out because one key had too many within an hour.
    pub capped_entries: u64,
    /// Oldest entries let go because all together took too much memory.
    pub shed_entries: u64,
    /// Stored entries let go because their rule has gone or changed.
    pub outdated_entries: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.keys += other.keys;
        self.late_events += other.late_events;
        self.capped_entries += other.capped_entries;
        self.shed_entries += other.shed_entries;
        self.outdated_entries += other.outdated_entries;
    }
}

/// What a detector knows of the past that it measures events against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// The detection, by name.
    pub detection: String,
    /// Distinct values (or keys) whose past is known.
    pub known: u64,
    /// The earliest event seen; `None` where there was none yet.
    pub since: Option<DateTime<Utc>>,
    /// How long it only learns from then on.
    pub learns: TimeDelta,
}

impl Baseline {
    /// From when on events are judged; `None` where nothing was seen yet.
    pub fn judges_from(&self) -> Option<DateTime<Utc>> {
        self.since?.checked_add_signed(self.learns)
    }
}

/// One detection for one tenant and one job. Pure: no clock, no I/O, no randomness. The findings
/// are a function of the set of events observed, whatever their order, while no bound is hit.
pub trait Detector: Send + Debug {
    /// Id of the rule; the detector's part of a state key.
    fn id(&self) -> &str;

    /// Which records it wants.
    fn wants(&self) -> Vec<Interest>;

    /// Takes an event in and marks what it touches. The same event again changes nothing.
    fn observe(&mut self, shown: &Shown<'_>);

    /// Hears a finding of another detector, as it stands now. Most do not listen.
    fn hear(&mut self, _finding: &Finding) {}

    /// Says that everything before an instant has come, but for what is late. What is measured
    /// against the past (first seen, more than usual) is told only of events before it: pages come
    /// newest first, and without their past everything would be new. An instant earlier than one
    /// before changes nothing.
    fn settle(&mut self, until: DateTime<Utc>);

    /// Adds the findings of all that was touched since the last call, whole and as they stand now
    /// (revision 1 and no update reason: the finding table numbers them). Called once per page;
    /// `fetched_at` is the page's.
    fn collect(&mut self, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>);

    /// Adds the findings that no event at or after `watermark` can still change, as they finally
    /// stand, each once. Called before [`Detector::evict`] with the same watermark.
    fn close(&self, watermark: DateTime<Utc>, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>);

    /// Forgets what no event at or after `watermark` can still change. A watermark earlier than
    /// one before changes nothing.
    fn evict(&mut self, watermark: DateTime<Utc>);

    /// The changes of memory since the last call.
    fn drain_changes(&mut self) -> Vec<StateChange>;

    /// The same where nobody stores them.
    fn drop_changes(&mut self) {
        drop(self.drain_changes());
    }

    /// Adds what it knows of the past, as it would be stored: what another line can learn.
    fn past(&self, out: &mut Vec<StateChange>);

    /// What it measures events against; most do not.
    fn baseline(&self) -> Option<Baseline> {
        None
    }

    /// Puts a stored value back. What is measured against the past may be put back at any time,
    /// also from what another line has learned: it is merged with what is known.
    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState>;

    /// Takes in a value that the same detector of another job stored, as if it had observed that
    /// event itself: marks what it touches. What another knows only of itself (how far it had
    /// forgotten) is left out.
    fn absorb(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState>;

    /// What it remembers and which bounds were hit.
    fn counters(&self) -> Counters;

    /// What its entries take of memory, about; 0 where their number has a bound of its own.
    fn bytes(&self) -> usize {
        0
    }

    /// Forgets the oldest of its entries, by whole hours, since there is no room for all. `false` where
    /// it has none.
    fn shed(&mut self) -> bool {
        false
    }
}

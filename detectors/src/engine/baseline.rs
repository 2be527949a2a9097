//! Since when a detector has looked: what happened before it knew the past is not judged by it.

use chrono::{DateTime, TimeDelta};

use crate::contract::{Baseline, StateChange};
use crate::rules::Rule;

/// A day, in milliseconds.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// The key of the origin in the store.
pub(super) const KIND_ORIGIN: u8 = b'o';

/// Number of the UTC day that holds an instant.
pub(crate) fn day_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(DAY_MS)
}

/// The earliest event that a detector has seen.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    at_ms: Option<i64>,
    changed: bool,
}

impl Origin {
    pub(crate) fn note(&mut self, time_ms: i64) {
        if self.at_ms.is_none_or(|known| time_ms < known) {
            self.at_ms = Some(time_ms);
            self.changed = true;
        }
    }

    /// What a rule that learns knows so many values by; `None` for one that does not.
    pub(super) fn baseline(&self, rule: &Rule, known: usize) -> Option<Baseline> {
        Some(Baseline {
            detection: rule.facts.detection.clone(),
            known: known as u64,
            since: self.at_ms.and_then(DateTime::from_timestamp_millis),
            learns: TimeDelta::milliseconds(rule.learns_ms()?),
        })
    }

    #[cfg(test)]
    pub(crate) fn at_ms(&self) -> Option<i64> {
        self.at_ms
    }

    /// Whether so much was seen before an instant that it can be judged.
    pub(crate) fn is_learned(&self, learn_ms: i64, time_ms: i64) -> bool {
        self.at_ms
            .is_some_and(|origin| time_ms.saturating_sub(origin) >= learn_ms)
    }

    pub(crate) fn drain(&mut self, out: &mut Vec<StateChange>) {
        if std::mem::take(&mut self.changed) {
            self.past(out);
        }
    }

    /// The same where nobody stores it.
    pub(crate) fn drop_changes(&mut self) {
        self.changed = false;
    }

    /// The origin as it is stored.
    pub(crate) fn past(&self, out: &mut Vec<StateChange>) {
        out.extend(self.at_ms.map(|at_ms| StateChange {
            key: vec![KIND_ORIGIN],
            value: Some(at_ms.to_be_bytes().to_vec()),
        }));
    }

    pub(crate) fn restore(&mut self, value: &[u8]) -> Option<()> {
        self.note(i64::from_be_bytes(value.try_into().ok()?));
        Some(())
    }
}

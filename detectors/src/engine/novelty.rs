//! Which values were there before: the first and the last event of each value and day.
//!
//! That is enough to say exactly whether an event is the first of its value in so many days,
//! whatever the order of arrival, and small enough to keep for a month.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::baseline::{DAY_MS, Origin, day_of};
use crate::contract::StateChange;
use crate::rules::FirstSeen;

/// First byte of the key of a value's day in the store.
pub(super) const KIND_DAY: u8 = b'n';
/// Most values and days of a detector; the oldest day goes.
const DAYS_MAX: usize = 500_000;

/// What was seen, and since when anything was.
#[derive(Debug, Default)]
pub(crate) struct Novelty {
    /// By day and value: times of the first and the last event.
    days: BTreeMap<(i64, u64), (i64, i64)>,
    pub(crate) origin: Origin,
    changes: BTreeSet<(i64, u64)>,
    /// Days of values let go because there were too many.
    pub(crate) shed: u64,
}

impl Novelty {
    /// Notes an event of a value.
    pub(crate) fn note(&mut self, value: u64, time_ms: i64) {
        self.origin.note(time_ms);
        self.merge((day_of(time_ms), value), (time_ms, time_ms));
    }

    fn merge(&mut self, place: (i64, u64), (first, last): (i64, i64)) {
        match self.days.entry(place) {
            Entry::Vacant(new) => {
                new.insert((first, last));
            }
            Entry::Occupied(mut known) => {
                let (a, b) = *known.get();
                let merged = (a.min(first), b.max(last));
                if merged == (a, b) {
                    return;
                }
                known.insert(merged);
            }
        }
        self.changes.insert(place);
        if self.days.len() > DAYS_MAX
            && let Some((&(oldest, _), _)) = self.days.first_key_value()
        {
            let before = self.days.len();
            self.evict_before(oldest + 1);
            self.shed += (before - self.days.len()) as u64;
        }
    }

    /// Whether no event of the value lies in the days before an instant, but for the time in which it is
    /// still new. Events at the very instant are all first.
    pub(crate) fn is_first(&self, rule: &FirstSeen, value: u64, time_ms: i64) -> bool {
        let from_ms = time_ms.saturating_sub(i64::from(rule.days) * DAY_MS);
        let until_ms = time_ms.saturating_sub(rule.fresh_ms);
        let is_before = |at: i64| (from_ms..until_ms).contains(&at);
        (day_of(from_ms)..=day_of(time_ms)).all(|day| {
            let known = self.days.get(&(day, value));
            known.is_none_or(|(first, last)| !is_before(*first) && !is_before(*last))
        })
    }

    /// Forgets what no event at or after an instant can have in the days before it.
    pub(crate) fn evict(&mut self, rule: &FirstSeen, keep_from_ms: i64) {
        self.evict_before(day_of(keep_from_ms).saturating_sub(i64::from(rule.days)));
    }

    fn evict_before(&mut self, day: i64) {
        let kept = self.days.split_off(&(day, 0));
        let gone = std::mem::replace(&mut self.days, kept);
        self.changes.extend(gone.into_keys());
    }

    pub(crate) fn len(&self) -> usize {
        self.days.len()
    }

    /// Distinct values that are known.
    pub(crate) fn values(&self) -> usize {
        let values = self.days.keys().map(|(_, value)| value);
        values.collect::<HashSet<_>>().len()
    }

    pub(crate) fn drain(&mut self, out: &mut Vec<StateChange>) {
        let changes = std::mem::take(&mut self.changes);
        out.extend(changes.into_iter().map(|place| self.stored(place)));
        self.origin.drain(out);
    }

    /// The same where nobody stores them.
    pub(crate) fn drop_changes(&mut self) {
        self.changes.clear();
        self.origin.drop_changes();
    }

    /// All that is known, as it is stored.
    pub(crate) fn past(&self, out: &mut Vec<StateChange>) {
        out.extend(self.days.keys().map(|place| self.stored(*place)));
        self.origin.past(out);
    }

    fn stored(&self, (day, value): (i64, u64)) -> StateChange {
        let mut key = vec![KIND_DAY];
        key.extend_from_slice(&day.to_be_bytes());
        key.extend_from_slice(&value.to_be_bytes());
        let times = self.days.get(&(day, value)).map(|(first, last)| {
            let mut bytes = first.to_be_bytes().to_vec();
            bytes.extend_from_slice(&last.to_be_bytes());
            bytes
        });
        StateChange { key, value: times }
    }

    /// Puts a stored day back, or one that another line has learned: what is known already stays.
    pub(crate) fn restore(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (day, hash) = key.split_first_chunk::<8>()?;
        let place = (
            i64::from_be_bytes(*day),
            u64::from_be_bytes(hash.try_into().ok()?),
        );
        let (first, last) = value.split_first_chunk::<8>()?;
        let times = (
            i64::from_be_bytes(*first),
            i64::from_be_bytes(last.try_into().ok()?),
        );
        self.merge(place, times);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: FirstSeen = FirstSeen {
        fields: Vec::new(),
        days: 3,
        learn_ms: 0,
        fresh_ms: 0,
        told: None,
    };

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_first_of_some_days_is_as_looking_by_hand_says(
            times in prop::collection::vec((0..200_i64, 0..3_u64), 1..30),
            fresh in 0..48_i64,
        ) {
            let rule = FirstSeen { fresh_ms: fresh * 3_600_000, ..RULE };
            let mut novelty = Novelty::default();
            for (hour, value) in times.iter().rev() {
                novelty.note(*value, hour * 3_600_000);
            }
            for (hour, value) in &times {
                let earlier = |(h, v): &(i64, u64)| v == value && *h < hour - fresh && *h >= hour - 72;
                let first = novelty.is_first(&rule, *value, hour * 3_600_000);
                prop_assert_eq!(first, !times.iter().any(earlier));
            }
        }
    }

    #[test]
    fn what_was_drained_comes_back_and_what_is_old_goes() {
        let mut novelty = Novelty::default();
        novelty.note(7, DAY_MS);
        novelty.note(7, 5 * DAY_MS);
        let mut changes = Vec::new();
        novelty.drain(&mut changes);
        let mut again = Novelty::default();
        for change in &changes {
            let value = change.value.as_deref().unwrap();
            match change.key.split_first().unwrap() {
                (&KIND_DAY, key) => again.restore(key, value).unwrap(),
                _ => again.origin.restore(value).unwrap(),
            }
        }
        assert_eq!((again.len(), again.origin.at_ms()), (2, Some(DAY_MS)));
        again.evict(&RULE, 5 * DAY_MS);
        assert_eq!(again.len(), 1);
        assert!(again.is_first(&RULE, 7, 5 * DAY_MS));
    }
}

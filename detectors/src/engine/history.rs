//! How much of what a window rule counts each key had on each of its past days: what "more than
//! usual" is measured against.
//!
//! Days that can still change are counted from the entries themselves; a day that is over is kept
//! as one number.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::baseline::{Origin, day_of};
use super::series::Moment;
use crate::contract::StateChange;
use crate::rules::{Above, Counted, Usual};

/// First byte of the key of a day's count in the store.
pub(super) const KIND_COUNT: u8 = b'd';
/// The key of the first day that is not yet a number.
pub(super) const KIND_OPEN: u8 = b'u';
/// Most keys and days of a detector; the oldest day goes.
const DAYS_MAX: usize = 500_000;
/// Days of activity without which mean and deviation say nothing.
const SAMPLES_MIN: usize = 7;

/// The past of all keys of a rule.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By day and hash of the key.
    counts: BTreeMap<(i64, u64), u32>,
    /// Days before it are numbers.
    open_from: Option<i64>,
    open_changed: bool,
    pub(crate) origin: Origin,
    changes: BTreeSet<(i64, u64)>,
    /// Days of keys let go because there were too many.
    pub(crate) shed: u64,
}

impl History {
    /// First day that is still counted from entries.
    pub(crate) fn open_from(&self) -> Option<i64> {
        self.open_from
    }

    /// Takes the count of a day that is over.
    pub(crate) fn note(&mut self, day: i64, key: u64, count: u32) {
        let known = self.counts.entry((day, key)).or_default();
        if *known >= count {
            return;
        }
        *known = count;
        self.changes.insert((day, key));
        if self.counts.len() > DAYS_MAX
            && let Some((&(oldest, _), _)) = self.counts.first_key_value()
        {
            let before = self.counts.len();
            self.evict_before(oldest + 1);
            self.shed += (before - self.counts.len()) as u64;
        }
    }

    /// From this day on entries are at hand.
    pub(crate) fn close_before(&mut self, day: i64) {
        if self.open_from.is_none_or(|known| known < day) {
            self.open_from = Some(day);
            self.open_changed = true;
        }
    }

    pub(crate) fn evict_before(&mut self, day: i64) {
        let kept = self.counts.split_off(&(day, 0));
        let gone = std::mem::replace(&mut self.counts, kept);
        self.changes.extend(gone.into_keys());
    }

    /// What a window that ends on a day must hold more than; `None` where that is not known yet.
    /// `recent` are the counts of days that are still open. What lies in the window is no past of
    /// it: of the day on which it starts only `before`, the count up to its start, is taken, and of
    /// later days nothing.
    pub(crate) fn limit(
        &self,
        above: &Above,
        key: u64,
        day: i64,
        recent: &BTreeMap<i64, u32>,
        before: Before,
    ) -> Option<u64> {
        let days = day.saturating_sub(i64::from(above.days))..day;
        let count = |day: i64| {
            if day >= before.day {
                return if day == before.day { before.count } else { 0 };
            }
            let counted = recent.get(&day).copied().unwrap_or(0);
            let noted = self.counts.get(&(day, key)).copied().unwrap_or(0);
            counted.max(noted)
        };
        let counts: Vec<u32> = days.map(count).filter(|count| *count > 0).collect();
        match above.usual {
            Usual::Greatest { times } => {
                let greatest = counts.iter().copied().max().unwrap_or(0);
                Some(u64::from(greatest) * u64::from(times))
            }
            Usual::Deviations { times } => deviations(&counts, times),
        }
    }

    /// Keys that have a day that is over; `and` have some that are open.
    pub(crate) fn keys(&self, and: impl Iterator<Item = u64>) -> usize {
        let closed = self.counts.keys().map(|(_, key)| *key);
        closed.chain(and).collect::<HashSet<_>>().len()
    }

    pub(crate) fn drain(&mut self, out: &mut Vec<StateChange>) {
        for place in std::mem::take(&mut self.changes) {
            out.push(stored(place, self.counts.get(&place).copied()));
        }
        if std::mem::take(&mut self.open_changed)
            && let Some(day) = self.open_from
        {
            out.push(StateChange {
                key: vec![KIND_OPEN],
                value: Some(day.to_be_bytes().to_vec()),
            });
        }
        self.origin.drain(out);
    }

    /// The same where nobody stores them.
    pub(crate) fn drop_changes(&mut self) {
        self.changes.clear();
        self.open_changed = false;
        self.origin.drop_changes();
    }

    /// All days that are numbers, as they are stored.
    pub(crate) fn past(&self, out: &mut Vec<StateChange>) {
        let counts = self.counts.iter();
        out.extend(counts.map(|(place, count)| stored(*place, Some(*count))));
        self.origin.past(out);
    }

    /// Puts a stored count back, or one that another line has learned: the greater stays.
    pub(crate) fn restore_count(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (day, hash) = key.split_first_chunk::<8>()?;
        let day = i64::from_be_bytes(*day);
        let hash = u64::from_be_bytes(hash.try_into().ok()?);
        self.note(day, hash, u32::from_be_bytes(value.try_into().ok()?));
        Some(())
    }

    pub(crate) fn restore_open(&mut self, value: &[u8]) -> Option<()> {
        self.close_before(i64::from_be_bytes(value.try_into().ok()?));
        Some(())
    }
}

/// The count of a key's day in the store.
pub(super) fn stored((day, key): (i64, u64), count: Option<u32>) -> StateChange {
    let mut place = vec![KIND_COUNT];
    place.extend_from_slice(&day.to_be_bytes());
    place.extend_from_slice(&key.to_be_bytes());
    StateChange {
        key: place,
        value: count.map(|count| count.to_be_bytes().to_vec()),
    }
}

/// Mean and standard deviation of the days with activity, upwards to a whole number.
fn deviations(counts: &[u32], times: u32) -> Option<u64> {
    if counts.len() < SAMPLES_MIN {
        return None;
    }
    let n = counts.len() as u64;
    let sum: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    let squares: u64 = counts.iter().map(|c| u64::from(*c) * u64::from(*c)).sum();
    // n² times the variance, in whole numbers: the same on every machine.
    let spread = (n * squares).saturating_sub(sum * sum);
    let deviation = spread.isqrt();
    Some((sum + u64::from(times) * deviation).div_ceil(n))
}

/// How much a key had on the day on which a window starts, up to its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    pub(crate) day: i64,
    pub(crate) count: u32,
}

/// Counts what lies before the starts of windows, which only move on.
pub(crate) struct Earlier<'a> {
    counted: &'a Counted,
    moments: &'a [Moment],
    at: usize,
    day: i64,
    events: u32,
    values: HashSet<u64>,
}

impl<'a> Earlier<'a> {
    /// `moments` are sorted by time and reach back to the day of the first start.
    pub(crate) fn new(counted: &'a Counted, moments: &'a [Moment]) -> Self {
        Self {
            counted,
            moments,
            at: 0,
            day: i64::MIN,
            events: 0,
            values: HashSet::new(),
        }
    }

    /// Up to and including an instant, of its day.
    pub(crate) fn until(&mut self, start_ms: i64) -> Before {
        while let Some(moment) = self.moments.get(self.at)
            && moment.time_ms <= start_ms
        {
            self.enter(day_of(moment.time_ms));
            self.events += 1;
            if let Counted::Values(_) = self.counted {
                self.values.insert(moment.value);
            }
            self.at += 1;
        }
        self.enter(day_of(start_ms));
        let count = match self.counted {
            Counted::Values(_) => u32::try_from(self.values.len()).unwrap_or(u32::MAX),
            Counted::Events | Counted::Bases | Counted::Chain => self.events,
        };
        let day = self.day;
        Before { day, count }
    }

    fn enter(&mut self, day: i64) {
        if day != self.day {
            self.day = day;
            self.events = 0;
            self.values.clear();
        }
    }
}

/// Counts of each day, of what the rule counts.
pub(crate) fn by_day(counted: &Counted, moments: &[Moment]) -> BTreeMap<i64, u32> {
    let mut days: BTreeMap<i64, (u32, HashSet<u64>)> = BTreeMap::new();
    for moment in moments {
        let (events, values) = days.entry(day_of(moment.time_ms)).or_default();
        *events += 1;
        values.insert(moment.value);
    }
    let count = |(events, values): (u32, HashSet<u64>)| match counted {
        Counted::Values(_) => u32::try_from(values.len()).unwrap_or(u32::MAX),
        Counted::Events | Counted::Bases | Counted::Chain => events,
    };
    days.into_iter().map(|(day, of)| (day, count(of))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(usual: Usual) -> Above {
        Above {
            usual,
            days: 30,
            learn_ms: 0,
        }
    }

    #[test]
    fn the_limit_is_times_the_greatest_day_of_the_days_before() {
        let mut history = History::default();
        for (day, count) in [(1, 900), (40, 20), (45, 60), (50, 10)] {
            history.note(day, 7, count);
        }
        let rule = above(Usual::Greatest { times: 3 });
        let none = Before { day: 50, count: 0 };
        let limit = |history: &History, key, recent: &BTreeMap<i64, u32>, before| {
            history.limit(&rule, key, 50, recent, before)
        };
        assert_eq!(limit(&history, 7, &BTreeMap::new(), none), Some(180));
        let recent = BTreeMap::from([(49, 70), (50, 1_000)]);
        let of_today = "not of its own day";
        assert_eq!(limit(&history, 7, &recent, none), Some(210), "{of_today}");
        assert_eq!(limit(&history, 8, &BTreeMap::new(), none), Some(0));
        let across = Before { day: 49, count: 65 };
        assert_eq!(limit(&history, 7, &recent, across), Some(195));
        let long = Before { day: 44, count: 0 };
        assert_eq!(
            limit(&history, 7, &recent, long),
            Some(60),
            "a window of a week"
        );
    }

    #[test]
    fn mean_and_deviation_need_a_week() {
        let mut history = History::default();
        for day in 0..6 {
            history.note(day, 7, 10);
        }
        let rule = above(Usual::Deviations { times: 3 });
        let none = Before { day: 10, count: 0 };
        let limit = |history: &History| history.limit(&rule, 7, 10, &BTreeMap::new(), none);
        assert_eq!(limit(&history), None);
        history.note(6, 7, 24);
        // Mean 12, deviation 4.9: 12 + 3 × 4.9 = 26.7.
        assert_eq!(limit(&history), Some(27));
    }
}

//! Trailing windows over the events of one key, and how much each holds of what a rule counts.

use std::collections::HashMap;

use super::series::Moment;
use crate::rules::{Counted, Tier, WindowBase};

/// A trailing window: places of events, the end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: usize,
    pub(super) end: usize,
    /// How many events, values, bases or links of the chain it holds.
    pub(super) size: u64,
}

/// Trailing windows over sorted events, one for each instant at which there are events.
pub(super) struct Trailing<'a> {
    moments: &'a [Moment],
    span_ms: i64,
    start: usize,
    end: usize,
    holds: Holds,
}

/// What a window holds of what is counted.
enum Holds {
    Events,
    /// How often each value lies in the window.
    Values(HashMap<u64, u32>),
    /// How often each base matched in the window.
    Bases(Vec<u32>),
    /// For each base: the latest start of a chain that has come to it.
    Chain(Vec<i64>),
}

/// How many entries a window has at least that meets a condition. One may be of all bases.
pub(super) fn needed(counted: &Counted, tier: &Tier) -> usize {
    match counted {
        Counted::Events | Counted::Values(_) => {
            usize::try_from(tier.threshold).unwrap_or(usize::MAX)
        }
        Counted::Bases | Counted::Chain => 1,
    }
}

/// Whether some window that ends at or after an instant holds so many events: nearly always none does,
/// and that is soon seen.
pub(super) fn is_dense(moments: &[Moment], needed: usize, span_ms: i64, from_ms: i64) -> bool {
    moments.windows(needed.max(1)).any(|some| {
        let (Some(first), Some(last)) = (some.first(), some.last()) else {
            return false;
        };
        last.time_ms >= from_ms && last.time_ms.saturating_sub(first.time_ms) < span_ms
    })
}

impl<'a> Trailing<'a> {
    pub(super) fn new(
        counted: &Counted,
        bases: &[WindowBase],
        moments: &'a [Moment],
        span_ms: i64,
    ) -> Self {
        let holds = match counted {
            Counted::Events => Holds::Events,
            Counted::Values(_) => Holds::Values(HashMap::new()),
            Counted::Bases => Holds::Bases(vec![0; bases.len()]),
            Counted::Chain => Holds::Chain(vec![i64::MIN; bases.len()]),
        };
        Self {
            moments,
            span_ms,
            start: 0,
            end: 0,
            holds,
        }
    }

    /// The next window. Events at one instant enter together: the window of each of them holds all.
    pub(super) fn next(&mut self) -> Option<Window> {
        let time_ms = self.moments.get(self.end)?.time_ms;
        let first = self.end;
        while let Some(moment) = self.moments.get(self.end)
            && moment.time_ms == time_ms
        {
            self.holds.enter(moment.value);
            self.end += 1;
        }
        let entered = self.moments.get(first..self.end).unwrap_or_default();
        self.holds.link(entered, time_ms);
        let before_ms = time_ms.saturating_sub(self.span_ms);
        while let Some(moment) = self.moments.get(self.start)
            && moment.time_ms <= before_ms
        {
            self.holds.leave(moment.value);
            self.start += 1;
        }
        let events = self.end - self.start;
        Some(Window {
            start: self.start,
            end: self.end,
            size: self.holds.size(events, before_ms),
        })
    }
}

impl Holds {
    fn enter(&mut self, value: u64) {
        match self {
            Self::Events | Self::Chain(_) => {}
            Self::Values(values) => *values.entry(value).or_default() += 1,
            Self::Bases(times) => each(times, value, |times| *times += 1),
        }
    }

    fn leave(&mut self, value: u64) {
        match self {
            Self::Events | Self::Chain(_) => {}
            Self::Values(values) => {
                if let Some(times) = values.get_mut(&value) {
                    *times -= 1;
                    if *times == 0 {
                        values.remove(&value);
                    }
                }
            }
            Self::Bases(times) => each(times, value, |times| *times -= 1),
        }
    }

    /// Lengthens the chains by the events of one instant. Base by base, so that they may stand in
    /// any order within it.
    fn link(&mut self, entered: &[Moment], time_ms: i64) {
        let Self::Chain(starts) = self else { return };
        let matched = entered
            .iter()
            .fold(0, |matched, moment| matched | moment.value);
        let mut before = time_ms;
        for (place, start) in starts.iter_mut().enumerate() {
            if matched >> place & 1 == 1 {
                *start = before.max(*start);
            }
            before = *start;
        }
    }

    fn size(&self, events: usize, before_ms: i64) -> u64 {
        let size = match self {
            Self::Events => events,
            Self::Values(values) => values.len(),
            Self::Bases(times) => times.iter().filter(|times| **times > 0).count(),
            Self::Chain(starts) => starts
                .iter()
                .take_while(|start| **start > before_ms)
                .count(),
        };
        size as u64
    }
}

fn each(times: &mut [u32], matched: u64, change: impl Fn(&mut u32)) {
    let places = times.iter_mut().enumerate();
    places
        .filter(|(place, _)| matched >> place & 1 == 1)
        .for_each(|(_, times)| change(times));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn there_are_so_many_within_a_span_where_a_window_holds_them(
            mut times in prop::collection::vec(0..60_i64, 0..20),
            (needed, span_ms, from_ms) in (1..6_usize, 1..20_i64, 0..60_i64),
        ) {
            times.sort_unstable();
            let moments: Vec<Moment> =
                times.iter().map(|&time_ms| Moment { time_ms, value: 0 }).collect();
            let mut windows = Trailing::new(&Counted::Events, &[], &moments, span_ms);
            let mut holds = false;
            while let Some(Window { end, size, .. }) = windows.next() {
                holds |= size >= needed as u64 && times[end - 1] >= from_ms;
            }
            prop_assert_eq!(is_dense(&moments, needed, span_ms, from_ms), holds);
        }
    }
}

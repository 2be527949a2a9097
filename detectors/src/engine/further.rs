//! Further fields of which a window must hold so many values (`also`), beside what it counts.

use std::collections::HashMap;

use exfilwatch_model::identity::normal_entity;

use super::entry::{Entry, hash_of};
use crate::rules::{Also, Rule};

/// Values of the further fields that a window must hold, by event.
pub(super) struct Further<'a> {
    also: &'a [Also],
    values: Vec<Vec<Option<u64>>>,
}

impl<'a> Further<'a> {
    /// `entries` are unpacked only where something is asked of them.
    pub(super) fn new(
        rule: &Rule,
        also: &'a [Also],
        entries: impl FnOnce() -> Vec<(i64, Entry)>,
    ) -> Self {
        let entries = if also.is_empty() {
            Vec::new()
        } else {
            entries()
        };
        let value = |entry: &Entry, also: &Also| {
            let view = entry.view()?;
            let text = view.field(rule.layout.place(&also.field)?)?;
            Some(hash_of(&normal_entity(text)))
        };
        let of = |also: &Also| entries.iter().map(|(_, e)| value(e, also)).collect();
        Self {
            also,
            values: also.iter().map(of).collect(),
        }
    }
}

/// How often a window holds each value of the further fields, kept up as the window moves on: a key
/// may have very many, and each is looked at twice.
pub(super) struct Held<'a> {
    further: &'a Further<'a>,
    start: usize,
    end: usize,
    counts: Vec<HashMap<u64, u32>>,
}

impl<'a> Held<'a> {
    pub(super) fn of(further: &'a Further<'a>) -> Self {
        Self {
            further,
            start: 0,
            end: 0,
            counts: vec![HashMap::new(); further.also.len()],
        }
    }

    /// Whether the window of these events holds enough of each.
    pub(super) fn is_enough(&mut self, start: usize, end: usize) -> bool {
        if start < self.start || end < self.end {
            *self = Self::of(self.further);
        }
        let (from, until) = (self.end, self.start);
        (self.start, self.end) = (start, end);
        for (counts, values) in self.counts.iter_mut().zip(&self.further.values) {
            for value in values.get(from..end).into_iter().flatten().flatten() {
                *counts.entry(*value).or_default() += 1;
            }
            for value in values.get(until..start).into_iter().flatten().flatten() {
                if let Some(count) = counts.get_mut(value) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(value);
                    }
                }
            }
        }
        let mut pairs = self.further.also.iter().zip(&self.counts);
        pairs.all(|(also, counts)| counts.len() as u64 >= also.least)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_window_that_moves_holds_what_lies_in_it_and_no_more() {
        let also = [("a", 2), ("b", 3)].map(|(field, least)| Also {
            field: field.to_owned(),
            least,
        });
        // Values that repeat at different distances, some absent.
        let value = |by: u64, place: u64| (place % 7 != 3).then_some(place * place % by);
        let values = [5, 11].map(|by| (0..60).map(|place| value(by, place)).collect());
        let further = Further {
            also: &also,
            values: values.to_vec(),
        };
        let naive = |start: usize, end: usize| {
            also.iter().zip(&further.values).all(|(also, values)| {
                let window = values.get(start..end).unwrap_or_default();
                let distinct: BTreeSet<u64> = window.iter().copied().flatten().collect();
                distinct.len() as u64 >= also.least
            })
        };
        let mut outcomes = [0, 0];
        for (span, stride) in [(1, 1), (3, 1), (6, 2), (4, 9), (20, 5)] {
            let mut held = Held::of(&further);
            // Forwards, and once back to the start.
            for end in (span..60).step_by(stride).chain([span]) {
                let start = end - span;
                let is_enough = held.is_enough(start, end);
                assert_eq!(is_enough, naive(start, end), "{start}..{end}");
                outcomes[usize::from(is_enough)] += 1;
            }
        }
        assert!(outcomes.iter().all(|seen| *seen > 10), "{outcomes:?}");
    }
}

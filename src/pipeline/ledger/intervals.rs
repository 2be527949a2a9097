//! The intervals of a stream: worked out from its ledger and its gaps. Disjoint, in order, and
//! without a hole from the first to the present.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Gap, GapState, StreamId};
use serde::{Deserialize, Serialize};

use super::StreamLedger;

/// Reasons that are named of an interval; further ones are counted.
const REASONS_MAX: usize = 3;

/// What is known of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalState {
    /// Everything that the vendor had is committed.
    Complete,
    /// Something may be missing that is still to be had; or it is too early to say.
    Open,
    /// Something was missing and was fetched by other means.
    Filled,
    /// Something is missing and not to be had.
    Lost,
}

/// A stretch of a stream of which the same is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The stream.
    pub stream: StreamId,
    /// Start, inclusive.
    pub from: DateTime<Utc>,
    /// End, exclusive.
    pub until: DateTime<Utc>,
    /// What is known.
    pub state: IntervalState,
    /// Open only because the vendor may still add to it.
    pub settling: bool,
    /// Lost, and somebody has taken note of it.
    pub acknowledged: bool,
    /// Why, at most three of them.
    pub reasons: Vec<String>,
    /// Reasons beyond those.
    pub reasons_more: usize,
    /// Ids of the gaps in it.
    pub gaps: Vec<String>,
    /// Items and spans that are missing in it, or were.
    pub parts: u32,
    /// Records that were found when it was filled, where they were counted.
    pub records: Option<u64>,
    /// When it was filled last.
    pub filled_at: Option<DateTime<Utc>>,
    /// By which jobs.
    pub filled_by: Vec<String>,
    /// When the vendor drops the first of what is missing.
    pub expires: Option<DateTime<Utc>>,
}

impl Interval {
    /// Whether somebody has to do something about it.
    pub fn is_due(&self) -> bool {
        match self.state {
            IntervalState::Open => !self.settling,
            IntervalState::Lost => !self.acknowledged,
            IntervalState::Complete | IntervalState::Filled => false,
        }
    }

    /// Whether it is, or was, a gap.
    pub fn is_gap(&self) -> bool {
        !self.gaps.is_empty()
    }
}

/// Seconds of the intervals in a state that somebody has to do something about.
pub fn seconds_due(intervals: &[Interval], state: IntervalState) -> i64 {
    let due = intervals
        .iter()
        .filter(|one| one.state == state && one.is_due());
    due.map(|one| (one.until - one.from).num_seconds()).sum()
}

/// What decides the state of an instant; the least of what applies to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Open,
    Lost,
    Acknowledged,
    Filled,
    Settling,
    Complete,
}

fn standing(gap: &Gap) -> Standing {
    match gap.state {
        GapState::Open => Standing::Open,
        GapState::Lost if gap.acknowledged.is_some() => Standing::Acknowledged,
        GapState::Lost => Standing::Lost,
        GapState::Filled => Standing::Filled,
    }
}

/// The intervals of a stream until `now`. Gaps of a stream without a ledger (an older version's)
/// stand for themselves.
pub fn intervals(
    stream: &StreamId,
    ledger: Option<&StreamLedger>,
    gaps: &[Gap],
    now: DateTime<Utc>,
) -> Vec<Interval> {
    let first = gaps.iter().map(|gap| gap.window.from()).min();
    let last = gaps.iter().map(|gap| gap.window.until()).max();
    let starts = ledger.map(|ledger| ledger.since).into_iter().chain(first);
    let Some(start) = starts.min() else {
        return Vec::new();
    };
    let begin = ledger.map_or(now, |ledger| ledger.since);
    let complete_until = ledger.map_or(start, |ledger| ledger.complete_until);
    let end = now.max(complete_until).max(last.unwrap_or(now));
    let mut cuts: BTreeSet<DateTime<Utc>> = BTreeSet::from([start, end, complete_until, begin]);
    for gap in gaps {
        cuts.extend([gap.window.from(), gap.window.until()]);
    }
    let cuts: Vec<_> = cuts.into_iter().filter(|at| *at >= start).collect();
    let mut found: Vec<(Standing, Interval, Vec<&Gap>)> = Vec::new();
    for pair in cuts.windows(2) {
        let [from, until] = *pair else { continue };
        // Before the beginning there is only what gaps say.
        let under = if begin <= from && from < complete_until {
            Standing::Complete
        } else {
            Standing::Settling
        };
        let here = || gaps.iter().filter(|gap| gap.window.holds(from));
        let standing = here().map(self::standing).min().unwrap_or(under).min(under);
        let deciding = here().filter(|gap| self::standing(gap) == standing);
        match found.last_mut() {
            Some((last, interval, of)) if *last == standing => {
                interval.until = until;
                of.extend(deciding);
            }
            _ => {
                let interval = bare(stream, (from, until), standing);
                found.push((standing, interval, deciding.collect()));
            }
        }
    }
    let described = found
        .into_iter()
        .map(|(_, interval, of)| describe(interval, &of));
    described.collect()
}

fn bare(
    stream: &StreamId,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
    standing: Standing,
) -> Interval {
    Interval {
        stream: stream.clone(),
        from,
        until,
        state: match standing {
            Standing::Complete => IntervalState::Complete,
            Standing::Open | Standing::Settling => IntervalState::Open,
            Standing::Filled => IntervalState::Filled,
            Standing::Lost | Standing::Acknowledged => IntervalState::Lost,
        },
        settling: standing == Standing::Settling,
        acknowledged: standing == Standing::Acknowledged,
        reasons: Vec::new(),
        reasons_more: 0,
        gaps: Vec::new(),
        parts: 0,
        records: None,
        filled_at: None,
        filled_by: Vec::new(),
        expires: None,
    }
}

/// Adds what the gaps say that decided.
fn describe(mut interval: Interval, of: &[&Gap]) -> Interval {
    if interval.settling {
        let why =
            "too early to say: it is listed again, and all of it fetched, before it is complete";
        interval.reasons.push(why.to_owned());
    }
    for gap in of {
        if interval.gaps.contains(&gap.id) {
            continue;
        }
        interval.gaps.push(gap.id.clone());
        interval.parts = interval.parts.saturating_add(gap.parts);
        interval.expires = interval.expires.into_iter().chain(gap.expires).min();
        let mut reason = gap.reason.clone();
        if let Some(acknowledged) = &gap.acknowledged {
            reason = format!("{reason} (acknowledged: {})", acknowledged.reason);
        }
        if interval.reasons.len() >= REASONS_MAX {
            interval.reasons_more += 1;
        } else if !interval.reasons.contains(&reason) {
            interval.reasons.push(reason);
        }
        if let Some(filled) = &gap.filled {
            interval.filled_at = interval.filled_at.max(Some(filled.at));
            let by = filled.by.to_string();
            if !interval.filled_by.contains(&by) {
                interval.filled_by.push(by);
            }
            if let Some(records) = filled.records {
                interval.records = Some(interval.records.unwrap_or(0).saturating_add(records));
            }
        }
    }
    interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use IntervalState::{Complete, Lost, Open};
    use chrono::TimeDelta;
    use exfilwatch_model::gap::{Acknowledged, Filled};
    use exfilwatch_model::{GapCause, JobId, Window};
    use proptest::prelude::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn stream() -> StreamId {
        "contoso/office365/Audit.Exchange".parse().unwrap()
    }

    fn gap(from: i64, until: i64, state: GapState, reason: &str) -> Gap {
        let window = Window::new(at(from), at(until)).unwrap();
        let found = (state, GapCause::NotFetched);
        Gap::new(stream(), window, found, reason, at(until))
    }

    fn ledger(since: i64, complete_until: i64) -> StreamLedger {
        StreamLedger {
            complete_until: at(complete_until),
            ..StreamLedger::new(at(since), at(since))
        }
    }

    fn shape(intervals: &[Interval]) -> Vec<(i64, i64, IntervalState)> {
        let hours = |at: DateTime<Utc>| at.timestamp() / 3_600;
        intervals
            .iter()
            .map(|one| (hours(one.from), hours(one.until), one.state))
            .collect()
    }

    #[test]
    fn gaps_lie_above_what_is_complete_and_touching_ones_of_a_kind_are_one() {
        let filled = Gap {
            filled: Some(Filled {
                at: at(60),
                by: JobId::new("fill-1").unwrap(),
                records: Some(3),
            }),
            ..gap(2, 4, GapState::Filled, "blob a")
        };
        let gaps = [
            filled,
            gap(10, 12, GapState::Lost, "blob b"),
            gap(12, 13, GapState::Lost, "blob c"),
            gap(11, 12, GapState::Open, "blob d"),
        ];
        let found = intervals(&stream(), Some(&ledger(0, 50)), &gaps, at(100));
        assert_eq!(
            shape(&found),
            [
                (0, 2, Complete),
                (2, 4, IntervalState::Filled),
                (4, 10, Complete),
                (10, 11, Lost),
                (11, 12, Open),
                (12, 13, Lost),
                (13, 50, Complete),
                (50, 100, Open),
            ]
        );
        assert_eq!(found[1].records, Some(3));
        assert_eq!(found[1].filled_by, ["fill-1"]);
        assert!(found[7].settling && !found[7].is_due());
        assert!(found[4].is_due() && found[3].is_due() && !found[1].is_due());
    }

    #[test]
    fn what_lies_before_the_beginning_is_not_called_complete_for_a_gap_in_it() {
        let gaps = [gap(-10, -8, GapState::Lost, "blob")];
        let found = intervals(&stream(), Some(&ledger(0, 5)), &gaps, at(10));
        assert_eq!(
            shape(&found),
            [
                (-10, -8, Lost),
                (-8, 0, Open),
                (0, 5, Complete),
                (5, 10, Open)
            ]
        );
    }

    #[test]
    fn the_acknowledged_is_lost_and_due_no_more() {
        let seen = Gap {
            acknowledged: Some(Acknowledged {
                at: at(20),
                reason: "a test".into(),
            }),
            ..gap(2, 4, GapState::Lost, "blob")
        };
        let found = intervals(&stream(), Some(&ledger(0, 10)), &[seen], at(10));
        assert_eq!(found[1].state, IntervalState::Lost);
        assert!(!found[1].is_due());
        assert!(found[1].reasons[0].contains("a test"));
    }

    fn any_gap() -> impl Strategy<Value = Gap> {
        let state = prop_oneof![
            Just(GapState::Open),
            Just(GapState::Filled),
            Just(GapState::Lost)
        ];
        (-20..120_i64, 1..30_i64, state, 0..2_u8).prop_map(|(from, length, state, seen)| {
            let gap = gap(from, from + length, state, &format!("{from} {length}"));
            let acknowledged = (seen == 1 && state == GapState::Lost).then(|| Acknowledged {
                at: at(0),
                reason: String::new(),
            });
            Gap {
                acknowledged,
                ..gap
            }
        })
    }

    proptest! {
        #[test]
        fn intervals_are_disjoint_cover_everything_and_agree_with_the_gaps(
            gaps in prop::collection::vec(any_gap(), 0..12),
            complete in 0..100_i64,
            now in 0..150_i64,
        ) {
            let ledger = ledger(0, complete);
            let found = intervals(&stream(), Some(&ledger), &gaps, at(now));
            let start = gaps.iter().map(|gap| gap.window.from()).chain([at(0)]).min().unwrap();
            if found.is_empty() {
                prop_assert!(start >= at(now.max(complete)));
                return Ok(());
            }
            prop_assert_eq!(found.first().unwrap().from, start);
            prop_assert!(found.last().unwrap().until >= at(now));
            for pair in found.windows(2) {
                prop_assert_eq!(pair[0].until, pair[1].from);
                let same = |one: &Interval| (one.state, one.settling, one.acknowledged);
                prop_assert!(same(&pair[0]) != same(&pair[1]), "not joined");
            }
            for interval in &found {
                prop_assert!(interval.from < interval.until);
                let here = |gap: &&Gap| gap.window.from() < interval.until && interval.from < gap.window.until();
                let open = gaps.iter().filter(here).any(|gap| gap.state == GapState::Open);
                let any = gaps.iter().any(|gap| here(&gap));
                if open {
                    prop_assert_eq!(interval.state, IntervalState::Open);
                }
                if interval.state == IntervalState::Complete {
                    prop_assert!(!any && interval.until <= at(complete) && interval.from >= at(0));
                }
            }
        }
    }
}

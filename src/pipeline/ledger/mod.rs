//! The completeness ledger: what is known of every instant of a stream, from where it was first
//! read to the present.
//!
//! An instant is **complete** only when it was listed again after the vendor's settle horizon
//! ([`exfilwatch_connectors::Connector::settle`]) had passed, and everything listed so far that
//! may belong to it is committed: all items up to [`LATENESS`] after it. Before that it is open,
//! without anybody's fault (*settling*). Gaps lie above both: open, filled, or lost.
//!
//! Each stream has one [`StreamLedger`] in the store; gaps are kept beside it, each by its id. The
//! intervals are worked out from both ([`intervals`]): disjoint, and without a hole.

mod account;
mod gaps;
mod habit;
mod intervals;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{JobId, StreamId, Window};
use exfilwatch_state::{JobState, StateError, StateStore};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::pipeline::alarm::Raised;
use crate::pipeline::step::LATENESS;

pub use account::{Account, TRIES_WAITED_FOR};
pub use gaps::{Changes, acknowledge, acknowledged, fill, lose, note, worth_filling};
pub use habit::{Habit, SilenceOptions};
pub use intervals::{Interval, IntervalState, intervals, seconds_due};

/// Room at the lower end of what the vendor keeps: connectors ask for a little less than all.
const REACH_MARGIN: TimeDelta = TimeDelta::minutes(10);

/// What is kept of a stream's completeness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamLedger {
    /// From where the stream is read.
    pub since: DateTime<Utc>,
    /// Everything before it was listed again after it had settled, or is a gap.
    pub checked_until: DateTime<Utc>,
    /// Everything before it is complete, or a gap.
    pub complete_until: DateTime<Utc>,
    /// When the whole retention was last listed again.
    pub relisted: DateTime<Utc>,
    /// What the last reconciliation that came to its end found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled: Option<Account>,
    /// When it had content.
    #[serde(default)]
    pub habit: Habit,
    /// Findings about it that are not over, by a name of their own.
    #[serde(default)]
    pub raised: BTreeMap<String, Raised>,
}

impl StreamLedger {
    /// Of a stream that is read from `since` on.
    pub fn new(since: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self {
            since,
            checked_until: since,
            complete_until: since,
            // Its first listing is a listing of all there is.
            relisted: now,
            reconciled: None,
            habit: Habit::default(),
            raised: BTreeMap::new(),
        }
    }

    /// A listing of the window that began at `at` is committed. It settles what it holds without a
    /// hole after what was settled before.
    pub fn listed(&mut self, window: Window, at: DateTime<Utc>, settle: TimeDelta) {
        if window.from() <= self.checked_until {
            let settled = window.until().min(at - settle);
            self.checked_until = self.checked_until.max(settled);
        }
    }

    /// A job has read what lies between `from` and the beginning; what lies before `settled` was
    /// listed after it had settled. What it could not read are gaps.
    pub fn joined(&mut self, from: DateTime<Utc>, settled: DateTime<Utc>) {
        if from >= self.since {
            return;
        }
        if self.since > settled {
            // Read when it was fresh: the daily pass goes back to here.
            self.checked_until = self.checked_until.min(settled.max(from));
        }
        self.since = from;
        // Said again when what came meanwhile is committed.
        self.complete_until = from;
    }

    /// Everything before `low_water` that was listed is committed.
    pub fn proceeded(&mut self, low_water: DateTime<Utc>) {
        let complete = self.checked_until.min(low_water - LATENESS);
        self.complete_until = self.complete_until.max(complete);
    }

    /// What was listed once (up to `covered_until`) and can no longer be listed again, since the
    /// vendor keeps things for `kept`: a gap, after which settling goes on.
    pub fn lapsed(
        &mut self,
        covered_until: DateTime<Utc>,
        now: DateTime<Utc>,
        kept: TimeDelta,
    ) -> Option<Window> {
        let until = lowest(now, kept).min(covered_until);
        let hole = Window::new(self.checked_until, until)?;
        self.checked_until = until;
        Some(hole)
    }
}

/// The oldest instant that the vendor is sure to list now.
pub fn lowest(now: DateTime<Utc>, kept: TimeDelta) -> DateTime<Utc> {
    now - (kept - REACH_MARGIN)
}

/// The job under which a stream's ledger is kept.
fn job_of(stream: &StreamId) -> JobId {
    let (tenant, connector, name) = (stream.tenant(), stream.connector(), stream.name());
    JobId::new(&format!("ledger:{tenant}:{connector}:{name}"))
        .or_else(|_| {
            // Longer than a name may be.
            let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, stream.to_string().as_bytes());
            JobId::new(&format!("ledger:{}", digest.simple()))
        })
        .unwrap_or_else(|_| JobId::live())
}

/// What is stored: the stream's name stands in it, since the job's may be a digest.
#[derive(Serialize, Deserialize)]
struct Stored {
    stream: StreamId,
    #[serde(flatten)]
    ledger: StreamLedger,
}

/// The ledger as it is written.
pub fn stored(stream: &StreamId, ledger: &StreamLedger) -> JobState {
    let entry = Stored {
        stream: stream.clone(),
        ledger: ledger.clone(),
    };
    JobState {
        job: job_of(stream),
        // Plain members: cannot fail.
        state: serde_json::to_string(&entry).unwrap_or_default(),
        finished: false,
    }
}

/// The ledgers of all streams.
pub fn read(store: &dyn StateStore) -> Result<BTreeMap<StreamId, StreamLedger>, StateError> {
    let own = store
        .jobs()?
        .into_iter()
        .filter(|state| state.job.as_str().starts_with("ledger:"));
    let read = own.filter_map(|state| {
        let stored: Stored = serde_json::from_str(&state.state)
            .inspect_err(|error| tracing::warn!(job = %state.job, %error, "a ledger does not read"))
            .ok()?;
        Some((stored.stream, stored.ledger))
    });
    Ok(read.collect())
}

/// Every interval of every stream, as the store knows it.
pub fn all_intervals(
    store: &dyn StateStore,
    now: DateTime<Utc>,
) -> Result<Vec<Interval>, StateError> {
    let ledgers = read(store)?;
    let mut by_stream: BTreeMap<StreamId, Vec<_>> = BTreeMap::new();
    for stream in ledgers.keys() {
        by_stream.entry(stream.clone()).or_default();
    }
    for gap in store.gaps()? {
        by_stream.entry(gap.stream.clone()).or_default().push(gap);
    }
    let each = by_stream
        .iter()
        .map(|(stream, gaps)| intervals(stream, ledgers.get(stream), gaps, now));
    Ok(each.flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn window(from: i64, until: i64) -> Window {
        Window::new(at(from), at(until)).unwrap()
    }

    const SETTLE: TimeDelta = TimeDelta::hours(24);

    #[test]
    fn what_was_listed_when_it_was_fresh_is_not_complete_until_it_was_listed_again() {
        let mut ledger = StreamLedger::new(at(0), at(0));
        for hour in 0..200 {
            ledger.listed(window(hour, hour + 1), at(hour + 1), SETTLE);
            ledger.proceeded(at(hour + 1));
        }
        assert_eq!(ledger.complete_until, at(0), "each hour was fresh");
        ledger.listed(window(32, 200), at(200), SETTLE);
        assert_eq!(ledger.checked_until, at(0), "a hole before it");
        ledger.listed(window(0, 200), at(200), SETTLE);
        ledger.proceeded(at(200));
        assert_eq!(ledger.checked_until, at(176));
        assert_eq!(
            ledger.complete_until,
            at(104),
            "late records may be in what comes"
        );
    }

    #[test]
    fn an_item_that_is_not_fetched_keeps_what_it_may_hold_incomplete() {
        let mut ledger = StreamLedger::new(at(0), at(0));
        ledger.listed(window(0, 300), at(300), SETTLE);
        ledger.proceeded(at(120));
        assert_eq!(ledger.complete_until, at(24));
        ledger.proceeded(at(90));
        assert_eq!(ledger.complete_until, at(24), "it does not go back");
        ledger.proceeded(at(300));
        assert_eq!(ledger.complete_until, at(204));
    }

    #[test]
    fn what_can_no_longer_be_listed_again_is_a_gap_and_settling_goes_on_after_it() {
        let kept = TimeDelta::days(7);
        let mut ledger = StreamLedger::new(at(0), at(0));
        assert_eq!(ledger.lapsed(at(200), at(160), kept), None);
        let hole = ledger.lapsed(at(200), at(200), kept).unwrap();
        assert_eq!(hole.from(), at(0));
        assert_eq!(hole.until(), at(32) + REACH_MARGIN);
        assert_eq!(ledger.lapsed(at(200), at(200), kept), None);
        // What was never listed is the connector's gap, not this one.
        let mut held = StreamLedger::new(at(0), at(0));
        assert_eq!(held.lapsed(at(10), at(300), kept), Some(window(0, 10)));
    }

    #[test]
    fn what_a_first_run_read_joins_the_ledger_as_far_as_it_had_settled() {
        let day = TimeDelta::days(1);
        let mut office = StreamLedger::new(at(144), at(168));
        office.listed(window(144, 168), at(168), day);
        office.joined(at(0), at(168) - day);
        office.proceeded(at(168));
        assert_eq!((office.since, office.checked_until), (at(0), at(144)));
        assert_eq!(office.complete_until, at(72));
        let mut google = StreamLedger::new(at(144), at(168));
        google.joined(at(0), at(168) - day * 4);
        assert_eq!(google.checked_until, at(72), "the rest is listed again");
        google.joined(at(100), at(168));
        assert_eq!(google.since, at(0), "it begins but once");
    }

    proptest! {
        /// The model: a record at hour `h` comes to the listing at hour `h + late`, late below the
        /// settle horizon. Whatever is called complete holds no record that was not listed.
        #[test]
        fn nothing_that_comes_before_its_settle_horizon_is_missing_from_what_is_complete(
            steps in prop::collection::vec((0..12_i64, 0..4_u8), 1..80),
            records in prop::collection::vec((0..400_i64, 0..24_i64), 1..40),
        ) {
            let mut ledger = StreamLedger::new(at(0), at(0));
            let (mut now, mut covered) = (0, 0);
            let mut found = vec![false; records.len()];
            for (passed, what) in steps {
                now += passed;
                let from = match what {
                    0 => covered,
                    1 => (covered - 2).max(0),
                    2 => ((ledger.checked_until - at(0)).num_hours()).min(covered),
                    _ => continue,
                };
                let until = if what == 0 { now } else { covered };
                if let Some(window) = Window::new(at(from), at(until)) {
                    for ((hour, late), found) in records.iter().zip(&mut found) {
                        *found |= window.holds(at(*hour)) && hour + late <= now;
                    }
                    ledger.listed(window, at(now), SETTLE);
                    covered = covered.max(until);
                }
                ledger.proceeded(at(covered));
                for ((hour, _), found) in records.iter().zip(&found) {
                    prop_assert!(*found || at(*hour) >= ledger.complete_until);
                }
            }
        }
    }

    #[test]
    fn a_ledger_comes_back_under_the_longest_names() {
        let long = "n".repeat(128);
        for name in [
            "contoso/office365/DLP.All".to_owned(),
            format!("{long}/{long}/{long}"),
        ] {
            let stream: StreamId = name.parse().unwrap();
            let ledger = StreamLedger::new(at(1), at(2));
            let store = exfilwatch_state::MemoryStore::new([1; 16]).unwrap();
            let commit = exfilwatch_state::Commit {
                jobs: vec![stored(&stream, &ledger)],
                ..exfilwatch_state::Commit::default()
            };
            store
                .apply(&[commit], exfilwatch_state::Position::default())
                .unwrap();
            assert_eq!(read(&store).unwrap().get(&stream), Some(&ledger));
        }
    }
}

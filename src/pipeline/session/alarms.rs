//! When the session raises `x.audit.gap`, and when it is over.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveTime, Utc};
use exfilwatch_model::{Gap, GapCause, GapState, StreamId};
use exfilwatch_state::Commit;

use super::Session;
use crate::pipeline::alarm::{Alarm, AlarmOptions, Raised, Reason};
use crate::pipeline::ledger;

/// Most findings of one stream that are not over; further ones wait until one is.
const RAISED_MAX: usize = 16;
/// Names under which they are kept in the ledger; those of gaps have the day.
const SILENCE: &str = "silence";
const OFF: &str = "off";
const GAP: &str = "gap:";

impl Session<'_> {
    /// A page with records came: what it was listed under was an hour with content.
    pub(super) fn heard(&mut self, stream: &StreamId, listed_at: DateTime<Utc>) {
        let now = self.shared.clock.now();
        let Some(known) = self.ledgers.get_mut(stream) else {
            return;
        };
        if !known.habit.mark(listed_at.min(now)) {
            return;
        }
        let silence = known.raised.get(SILENCE).map(|raised| raised.since);
        let ended = silence.filter(|since| known.habit.last().is_some_and(|last| last > *since));
        if let Some(since) = ended {
            known.habit.forget_silence(since);
            self.over(stream, SILENCE, "there is content again");
        }
        self.store_ledger(stream);
    }

    /// The vendor says that nothing is recorded or given out.
    pub(super) fn switched_off(&mut self, stream: &StreamId, since: DateTime<Utc>, what: &str) {
        let raised = Raised {
            reason: Reason::Off,
            since,
        };
        let message = format!("the audit log {stream} is switched off: {what}");
        self.raise(stream, OFF, raised, message, BTreeMap::new());
    }

    /// The vendor gives content again.
    pub(super) fn switched_on(&mut self, stream: &StreamId) {
        self.over(stream, OFF, "the vendor gives content again");
    }

    /// Looks for silence and for gaps that are about to be lost.
    pub(super) fn look_for_alarms(
        &mut self,
        marks: &BTreeMap<StreamId, DateTime<Utc>>,
        gaps: &[Gap],
    ) {
        let Some(options) = self.config.alarms.get().cloned() else {
            return;
        };
        for (stream, low_water) in marks {
            self.look_for_silence(stream, *low_water, &options);
            self.look_for_losses(stream, gaps, &options);
        }
    }

    fn look_for_silence(
        &mut self,
        stream: &StreamId,
        low_water: DateTime<Utc>,
        options: &AlarmOptions,
    ) {
        let Some(known) = self.ledgers.get(stream) else {
            return;
        };
        let silent = known
            .habit
            .silent_since(stream, low_water, &options.silence);
        let Some((since, allowed)) = silent else {
            return;
        };
        let hours = (low_water - since).num_hours();
        let message = format!(
            "no content in {stream} for {hours} hours, since {}; its habit allows {allowed}",
            since.to_rfc3339()
        );
        let figures = [("silent_hours", hours), ("allowed_hours", allowed)];
        let matched = figures.map(|(name, value)| (name.to_owned(), value.to_string()));
        let raised = Raised {
            reason: Reason::Silence,
            since,
        };
        self.raise(stream, SILENCE, raised, message, matched.into());
    }

    fn look_for_losses(&mut self, stream: &StreamId, gaps: &[Gap], options: &AlarmOptions) {
        let now = self.shared.clock.now();
        let mut by_day: BTreeMap<DateTime<Utc>, Vec<&Gap>> = BTreeMap::new();
        let due = gaps.iter().filter(|gap| {
            // The poller reads this one again by itself.
            gap.stream == *stream && gap.is_due() && gap.cause != GapCause::StoreLost
        });
        for gap in due {
            let day = gap.window.from().with_time(NaiveTime::MIN);
            by_day
                .entry(day.single().unwrap_or(gap.window.from()))
                .or_default()
                .push(gap);
        }
        for (day, gaps) in &by_day {
            let near = |gap: &&&Gap| {
                gap.state == GapState::Lost
                    || gap
                        .expires
                        .is_some_and(|at| at - options.gap_warning <= now)
            };
            let Some(first) = gaps.iter().find(near) else {
                continue;
            };
            let message = match (first.state, first.expires) {
                (GapState::Open, Some(at)) => format!(
                    "{} gaps of {stream} on {} are not filled, and the vendor drops the first at {}",
                    gaps.len(),
                    day.date_naive(),
                    at.to_rfc3339()
                ),
                _ => format!(
                    "{} gaps of {stream} on {} are lost: {}",
                    gaps.len(),
                    day.date_naive(),
                    first.reason
                ),
            };
            let matched = BTreeMap::from([
                ("gap_id".to_owned(), first.id.clone()),
                ("gaps".to_owned(), gaps.len().to_string()),
            ]);
            let raised = Raised {
                reason: Reason::Unfilled,
                since: *day,
            };
            self.raise(
                stream,
                &format!("{GAP}{}", day.date_naive()),
                raised,
                message,
                matched,
            );
        }
        let still: BTreeSet<String> = by_day
            .keys()
            .map(|day| format!("{GAP}{}", day.date_naive()))
            .collect();
        let known = self.ledgers.get(stream).map(|known| known.raised.clone());
        for name in known.unwrap_or_default().into_keys() {
            if name.starts_with(GAP) && !still.contains(&name) {
                self.over(stream, &name, "filled, or acknowledged as lost");
            }
        }
    }

    fn raise(
        &mut self,
        stream: &StreamId,
        name: &str,
        raised: Raised,
        message: String,
        matched: BTreeMap<String, String>,
    ) {
        let Some(known) = self.ledgers.get_mut(stream) else {
            return;
        };
        let full = known.raised.len() >= RAISED_MAX;
        if self.config.alarms.get().is_none() || full || known.raised.contains_key(name) {
            return;
        }
        tracing::error!(%stream, %message, "audit gap");
        known.raised.insert(name.to_owned(), raised);
        self.tell(stream, &raised, message, matched, false);
        self.store_ledger(stream);
    }

    fn over(&mut self, stream: &StreamId, name: &str, why: &str) {
        let Some(raised) = self
            .ledgers
            .get_mut(stream)
            .and_then(|known| known.raised.remove(name))
        else {
            return;
        };
        tracing::info!(%stream, why, "audit gap is over");
        let message = format!("over for {stream} ({}): {why}", raised.reason.as_str());
        self.tell(stream, &raised, message, BTreeMap::new(), true);
        self.store_ledger(stream);
    }

    fn tell(
        &mut self,
        stream: &StreamId,
        raised: &Raised,
        message: String,
        matched: BTreeMap<String, String>,
        is_over: bool,
    ) {
        let Some(connector) = self.by_stream.get(stream) else {
            return;
        };
        let alarm = Alarm {
            stream,
            product: connector.records().product(),
            raised,
            message,
            matched,
        };
        let now = self.shared.clock.now();
        let finding = if is_over {
            alarm.over(now)
        } else {
            alarm.finding(now)
        };
        self.ingest.stage_own(stream, finding);
    }

    /// The ledger of the stream is written with what is staged.
    pub(super) fn store_ledger(&mut self, stream: &StreamId) {
        if let Some(known) = self.ledgers.get(stream) {
            let jobs = vec![ledger::stored(stream, known)];
            self.ingest.stage_commit(Commit {
                jobs,
                ..Commit::default()
            });
        }
    }
}

//! What a job could not read, and what it filled.

use exfilwatch_model::gap::Filled;
use exfilwatch_model::{Gap, GapCause, GapState, StreamId, Window};

use super::account::{SliceAccount, Source};
use super::reader::Reader;
use super::stored::Done;
use super::{JobError, JobKind, common};
use crate::pipeline::ledger;
use crate::pipeline::notice::Notice;

/// Missed spans remembered of a stream; the last takes in what is more.
const MISSED_MAX: usize = 8;
/// Stands between why there is a gap and what became of it.
const AGAIN: &str = " · ";
/// Most characters kept of a listing's reason.
const REASON_CHARS_MAX: usize = 300;

impl Done {
    fn missed(&mut self, window: Window) {
        let is_full = self.missed.len() >= MISSED_MAX;
        let joins = |last: &Window| last.until() >= window.from() && last.from() <= window.from();
        match self.missed.last_mut() {
            Some(last) if is_full || joins(last) => *last = hull(*last, window),
            _ => self.missed.push(window),
        }
    }
}

/// The least span that holds both.
fn hull(a: Window, b: Window) -> Window {
    Window::new(a.from().min(b.from()), a.until().max(b.until())).unwrap_or(a)
}

impl Reader<'_> {
    /// Notes what could not be read. Outside the range it is only said: nobody asked for it.
    pub(super) fn miss(
        &mut self,
        slice: &mut SliceAccount,
        window: Window,
        state: GapState,
        reason: &str,
    ) {
        let stream = slice.stream.clone();
        if let Some(done) = self.streams.get_mut(&stream) {
            done.missed(window);
        }
        // What was published in a gap may have happened in the day before or after it.
        let is_of_gap =
            self.stored.request.kind == JobKind::GapFill && slice.source == Source::Archive;
        let wanted = if is_of_gap {
            window
        } else {
            self.stored.request.window
        };
        let Some(window) = common(window, wanted) else {
            tracing::info!(%stream, from = %window.from(), until = %window.until(), reason, "not to be had; outside the range");
            return;
        };
        slice.gaps += 1;
        tracing::warn!(%stream, from = %window.from(), until = %window.until(), reason, "gap");
        match self.stored.request.kind {
            JobKind::Backfill | JobKind::FirstRun => self.tell(&stream, window, state, reason),
            JobKind::GapFill => {
                self.still_missing.push((window, state, reason.to_owned()));
            }
            // The ledger is about what was delivered. What a reconciliation cannot fetch is the live
            // line's.
            JobKind::DetectOnly | JobKind::Learn | JobKind::Reconcile => {}
        }
    }

    fn tell(&mut self, stream: &StreamId, window: Window, state: GapState, reason: &str) {
        let found = (state, GapCause::JobFailed);
        let now = self.shared.clock.now();
        let gap = Gap::new(stream.clone(), window, found, reason, now);
        self.ingest.stage_notice(&Notice::gap(gap));
    }

    /// The vendor does not list this span any more: its archive is asked later.
    pub(super) fn beyond(
        &mut self,
        stream: &StreamId,
        window: Window,
        state: GapState,
        reason: &str,
    ) {
        if let Some(done) = self.streams.get_mut(stream) {
            done.beyond = Some(done.beyond.map_or(window, |known| hull(known, window)));
            done.beyond_state = Some(state);
            done.beyond_reason = reason.chars().take(REASON_CHARS_MAX).collect();
            done.searched = false;
        }
    }

    /// A gap for which a listing proves nothing is searched in the archive whole.
    pub(super) fn search_what_is_not_listed(&mut self, stream: &StreamId) -> Result<(), JobError> {
        let searched = self.streams.get(stream).is_some_and(|done| done.searched);
        if let Some(gap) = self.gap()?.filter(|gap| !searched && is_unlisted(gap)) {
            self.beyond(stream, gap.window, GapState::Open, original(&gap.reason));
        }
        Ok(())
    }

    /// The gap that the job was made for.
    fn gap(&self) -> Result<Option<Gap>, JobError> {
        let Some(id) = &self.stored.request.gap else {
            return Ok(None);
        };
        let gaps = self.shared.store.gaps()?;
        Ok(gaps.into_iter().find(|gap| gap.id == *id))
    }

    /// Open gaps are filled as far as the range was read.
    pub(super) async fn fill_gaps(&mut self, stream: &StreamId) -> Result<(), JobError> {
        let Some(done) = self.streams.get(stream) else {
            return Ok(());
        };
        let kind = self.stored.request.kind;
        if !matches!(kind, JobKind::Backfill | JobKind::FirstRun) {
            return Ok(());
        }
        let wanted = self.stored.request.window;
        let known = self.shared.store.gaps()?;
        let missed: Vec<Window> = done
            .missed
            .iter()
            .filter_map(|missed| common(*missed, wanted))
            .collect();
        let by_listing: Vec<Gap> = known.into_iter().filter(|gap| !is_unlisted(gap)).collect();
        let filled = self.filled(None);
        for read in without(wanted, missed) {
            for gap in ledger::fill(&by_listing, stream, read, &filled).put {
                self.ingest.stage_notice(&Notice::gap(gap));
            }
        }
        self.flush(Vec::new()).await
    }

    fn filled(&self, records: Option<u64>) -> Filled {
        Filled {
            at: self.shared.clock.now(),
            by: self.job.clone(),
            records,
        }
    }

    /// The gap that the job was made for, as it stands now.
    pub(super) async fn settle_gap(&mut self) -> Result<(), JobError> {
        let Some(gap) = self.gap()? else {
            return Ok(());
        };
        let read = self
            .streams
            .values()
            .map(|done| done.records.saturating_sub(done.seen_before));
        let recovered: u64 = read.sum();
        let (state, reason) = verdict(&gap.reason, recovered, &self.still_missing);
        tracing::info!(stream = %gap.stream, ?state, reason, "a gap was read again");
        let settled = match state {
            GapState::Filled => Gap {
                state,
                filled: Some(self.filled(Some(recovered))),
                ..gap
            },
            GapState::Lost => ledger::lose(&gap, &reason),
            GapState::Open => Gap {
                state,
                ..ledger::lose(&gap, &reason)
            },
        };
        self.ingest.stage_notice(&Notice::gap(settled));
        self.flush(Vec::new()).await
    }
}

/// What is left of a span without some parts of it.
fn without(span: Window, mut parts: Vec<Window>) -> Vec<Window> {
    parts.sort_by_key(Window::from);
    let mut left = Vec::new();
    let mut from = span.from();
    for part in parts {
        left.extend(Window::new(from, part.from()));
        from = from.max(part.until());
    }
    left.extend(Window::new(from, span.until()));
    left
}

/// What was said of a gap before it was read again.
fn original(reason: &str) -> &str {
    reason.split(AGAIN).next().unwrap_or(reason)
}

/// While a subscription or a log is off nothing is published, and what happened then is never listed:
/// that a listing of the span is complete says nothing.
fn is_unlisted(gap: &Gap) -> bool {
    gap.cause == GapCause::SwitchedOff
}

/// What became of a gap: filled where nothing of it is missing, lost where what is missing is lost.
fn verdict(
    was: &str,
    recovered: u64,
    missing: &[(Window, GapState, String)],
) -> (GapState, String) {
    let was = original(was);
    let Some((window, _, why)) = missing.first() else {
        return (GapState::Filled, was.to_owned());
    };
    let why = why
        .strip_prefix(was)
        .unwrap_or(why)
        .trim_start_matches("; ");
    let lost = missing.iter().all(|(_, state, _)| *state == GapState::Lost);
    let state = if lost { GapState::Lost } else { GapState::Open };
    let more = match missing.len() {
        1 => String::new(),
        n => format!(" (and {} spans more)", n - 1),
    };
    let (from, until) = (window.from(), window.until());
    let reason = format!(
        "{was}{AGAIN}{recovered} records could be had; not all from {from} until {until}{more}: {why}"
    );
    (state, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};

    fn window(from: i64, until: i64) -> Window {
        let at = |hours| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        Window::new(at(from), at(until)).unwrap()
    }

    #[test]
    fn a_gap_is_filled_lost_or_stays_open_by_what_is_still_missing() {
        let missing = |state| (window(1, 2), state, "the vendor dropped it".to_owned());
        let (state, _) = verdict("the process was down", 17, &[]);
        assert_eq!(state, GapState::Filled);
        let (state, reason) = verdict("", 0, &[missing(GapState::Lost), missing(GapState::Lost)]);
        assert_eq!(state, GapState::Lost);
        assert!(
            reason.contains("dropped") && reason.contains("1 spans more"),
            "{reason}"
        );
        let mixed = [missing(GapState::Lost), missing(GapState::Open)];
        let (state, once) = verdict("it was off", 3, &mixed);
        assert_eq!(state, GapState::Open);
        assert!(once.starts_with("it was off · 3 records"), "{once}");
        let (_, twice) = verdict(&once, 3, &mixed);
        assert_eq!(once, twice, "it does not grow with every try");
    }

    #[test]
    fn what_was_read_is_the_range_without_what_was_missed() {
        let missed = vec![window(6, 8), window(2, 4), window(7, 9)];
        let read = [window(0, 2), window(4, 6), window(9, 10)];
        assert_eq!(without(window(0, 10), missed), read);
        assert_eq!(without(window(0, 10), vec![]), [window(0, 10)]);
        assert!(without(window(0, 10), vec![window(0, 10)]).is_empty());
    }

    #[test]
    fn missed_spans_are_joined_and_bounded_and_none_is_forgotten() {
        let mut done = Done::default();
        done.missed(window(0, 2));
        done.missed(window(1, 4));
        assert_eq!(done.missed, [window(0, 4)]);
        for hour in 0..100 {
            done.missed(window(10 + 3 * hour, 11 + 3 * hour));
        }
        assert_eq!(done.missed.len(), MISSED_MAX);
        assert_eq!(done.missed.last().unwrap().until(), window(0, 308).until());
    }
}

//! The session's side of the ledger: what each listing and each tick means for completeness, and
//! gaps as they are noted and closed.

use chrono::{DateTime, Utc};
use exfilwatch_model::gap::Filled;
use exfilwatch_model::{Gap, GapCause, GapState, JobId, StreamId, Window};
use exfilwatch_state::{Commit, StateError};

use super::{End, Session};
use crate::pipeline::ledger::{self, StreamLedger};
use crate::pipeline::notice::Notice;

/// Why a span is a gap that was listed only when it was fresh.
const NOT_AGAIN: &str = "listed when it was fresh, and not again before the vendor dropped it: what \
                         came late may be missing; read it again from the vendor's archive";
/// Why a span is a gap after the store was lost.
const STORE_LOST: &str = "the store was lost and is rebuilt from its mirror: read again from here, \
                          no action needed";

impl Session<'_> {
    /// Streams without a ledger get one, and what the loss of the store left unknown becomes a gap,
    /// all before anything else is written.
    pub(super) async fn open_ledgers(&mut self) -> Result<(), End> {
        let now = self.shared.clock.now();
        let mut with = Commit::default();
        for (stream, cursor) in &self.cursors {
            if !self.ledgers.contains_key(stream) {
                let ledger = StreamLedger::new(cursor.covered_until, now);
                with.jobs.push(ledger::stored(stream, &ledger));
                self.ledgers.insert(stream.clone(), ledger);
            }
        }
        self.ingest.stage_commit(with);
        for (stream, from) in std::mem::take(&mut self.restarted) {
            if let Some(window) = Window::new(from, now) {
                let found = (GapState::Open, GapCause::StoreLost);
                self.note_gap(Gap::new(stream, window, found, STORE_LOST, now))?;
            }
        }
        Ok(self.ingest.flush(now).await?)
    }

    /// A listing that is to be committed settles what it listed. What is staged here stands or falls
    /// with it: a session whose commit failed is thrown away.
    pub(super) fn settle(
        &mut self,
        stream: &StreamId,
        span: Option<Window>,
        began: DateTime<Utc>,
    ) -> Result<(), StateError> {
        self.lapse(stream)?;
        let Some(connector) = self.by_stream.get(stream) else {
            return Ok(());
        };
        let (kept, settle) = (connector.kept(stream), connector.settle(stream));
        let Some(known) = self.ledgers.get_mut(stream) else {
            return Ok(());
        };
        let before = known.clone();
        let lowest = ledger::lowest(began, kept);
        let span = span.and_then(|span| Window::new(span.from().max(lowest), span.until()));
        if let Some(span) = span {
            known.listed(span, began, settle);
        }
        if *known != before {
            self.store_ledger(stream);
        }
        Ok(())
    }

    /// What could not be listed again in time becomes a gap.
    fn lapse(&mut self, stream: &StreamId) -> Result<(), StateError> {
        let now = self.shared.clock.now();
        let (Some(connector), Some(cursor)) =
            (self.by_stream.get(stream), self.cursors.get(stream))
        else {
            return Ok(());
        };
        let (kept, covered_until) = (connector.kept(stream), cursor.covered_until);
        let Some(known) = self.ledgers.get_mut(stream) else {
            return Ok(());
        };
        let Some(hole) = known.lapsed(covered_until, now, kept) else {
            return Ok(());
        };
        self.store_ledger(stream);
        let found = (GapState::Open, GapCause::NotListedAgain);
        self.note_gap(Gap::new(stream.clone(), hole, found, NOT_AGAIN, now))
    }

    /// Time has passed: what is committed by now may be complete, and gaps may be closed.
    pub(super) fn proceed(
        &mut self,
        marks: &std::collections::BTreeMap<StreamId, DateTime<Utc>>,
    ) -> Result<(), StateError> {
        let now = self.shared.clock.now();
        for (stream, low_water) in marks {
            self.lapse(stream)?;
            if let Some(known) = self.ledgers.get_mut(stream) {
                let before = known.complete_until;
                known.proceeded(*low_water);
                if known.complete_until != before {
                    self.store_ledger(stream);
                }
            }
        }
        for gap in self.own_gaps()? {
            let read_again = gap.cause == GapCause::StoreLost
                && marks
                    .get(&gap.stream)
                    .is_some_and(|at| *at >= gap.window.until());
            if gap.state != GapState::Open {
                continue;
            }
            let closed = if read_again {
                let by = JobId::live();
                Gap {
                    state: GapState::Filled,
                    filled: Some(Filled {
                        at: now,
                        by,
                        records: None,
                    }),
                    ..gap
                }
            } else if gap.expires.is_some_and(|at| at <= now) {
                let reason = format!("{}; the vendor keeps it no longer", gap.reason);
                ledger::lose(&gap, &reason)
            } else {
                continue;
            };
            self.note_gap(closed)?;
        }
        self.look_for_alarms(marks, &self.own_gaps()?);
        self.show_ledger(now)?;
        // What a job or an operator changes meanwhile is read at the next tick.
        self.gaps = None;
        Ok(())
    }

    /// Enters a gap into the ledger and tells the receivers.
    pub(super) fn note_gap(&mut self, gap: Gap) -> Result<(), StateError> {
        let gap = self.with_expiry(gap);
        let (stream, from, until) = (&gap.stream, gap.window.from(), gap.window.until());
        if gap.state == GapState::Filled {
            tracing::info!(%stream, %from, %until, "gap filled");
        } else {
            tracing::error!(%stream, %from, %until, state = ?gap.state, reason = %gap.reason, "gap");
        }
        self.ingest.stage_notice(&Notice {
            gap: None,
            ..Notice::gap(gap.clone())
        });
        if gap.cause == GapCause::SwitchedOff && gap.state == GapState::Open {
            self.switched_off(&gap.stream, gap.window.from(), &gap.reason);
        }
        let mut known = self.own_gaps()?;
        let changes = ledger::note(&mut known, gap);
        self.gaps = Some(known);
        self.ingest.stage_commit(changes.commit());
        Ok(())
    }

    /// When the vendor drops what is missing. What the listing has dropped is not lost while an
    /// archive keeps it.
    fn with_expiry(&self, gap: Gap) -> Gap {
        let Some(connector) = self.by_stream.get(&gap.stream) else {
            return gap;
        };
        if gap.expires.is_some() || gap.state == GapState::Filled {
            return gap;
        }
        let archive = connector.archive().map(|archive| archive.limits().reach);
        let kept = connector.kept(&gap.stream);
        let reach = archive.as_ref().map_or(kept, |reach| (*reach).max(kept));
        let expires = gap.window.from() + reach;
        let still_there = archive.is_ok() && expires > self.shared.clock.now();
        let state = match gap.state {
            GapState::Lost if still_there && gap.acknowledged.is_none() => GapState::Open,
            state => state,
        };
        Gap {
            state,
            expires: Some(expires),
            ..gap
        }
    }

    /// The gaps of this session's streams, as they will be when all is written that is staged.
    fn own_gaps(&self) -> Result<Vec<Gap>, StateError> {
        if let Some(gaps) = &self.gaps {
            return Ok(gaps.clone());
        }
        let mut gaps = self.shared.store.gaps()?;
        gaps.retain(|gap| self.by_stream.contains_key(&gap.stream));
        Ok(gaps)
    }

    /// Shows how complete the streams are.
    fn show_ledger(&self, now: DateTime<Utc>) -> Result<(), StateError> {
        let gaps = self.own_gaps()?;
        let read = self.ledgers.iter();
        for (stream, known) in read.filter(|(stream, _)| !self.is_withheld(stream)) {
            let of_stream: Vec<Gap> = gaps
                .iter()
                .filter(|gap| gap.stream == *stream)
                .cloned()
                .collect();
            let intervals = ledger::intervals(stream, Some(known), &of_stream, now);
            let seconds = |state| ledger::seconds_due(&intervals, state);
            self.shared.watch.stream(stream, |health| {
                let account = || known.reconciled.clone();
                health.reconciled = health.reconciled.take().or_else(account);
                health.complete_until = Some(known.complete_until);
                health.gap_open_seconds = seconds(ledger::IntervalState::Open);
                health.gap_lost_seconds = seconds(ledger::IntervalState::Lost);
            });
        }
        Ok(())
    }
}

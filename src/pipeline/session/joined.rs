//! What jobs found out that filled a hole in the live line: taken into its windows.

use exfilwatch_model::{JobId, StreamId, Window};
use exfilwatch_state::StateError;

use super::{End, Session};
use crate::pipeline::job::keeper::first_run_span;
use crate::pipeline::job::reconcile;
use crate::pipeline::ledger::Account;
use crate::pipeline::worklist::key_of;

impl Session<'_> {
    /// Stages what the jobs that ended remember, as if it had been seen here. A window that lies over
    /// the edge of what a job read is whole now.
    pub(super) fn join_ended_jobs(&mut self) -> Result<Vec<JobId>, End> {
        let tenant = self.config.step.memory.tenant();
        let ended = self.shared.jobs.ended.take(tenant);
        let mut streams: Vec<StreamId> = match ended[..] {
            [] => Vec::new(),
            _ => self.by_stream.keys().cloned().collect(),
        };
        streams.retain(|stream| !self.is_withheld(stream));
        for job in &ended {
            let windows = self.shared.store.windows(job, tenant)?;
            tracing::debug!(%job, entries = windows.len(), "what a job remembers joins the live line");
            self.ingest
                .stage_absorbed(&windows, self.shared.clock.now());
        }
        for job in &ended {
            if let Some((account, whole)) = reconcile::ended(&*self.shared.store, job)? {
                self.join_reconciled(account, whole)?;
            }
            for stream in &streams {
                if let Some(span) = first_run_span(&*self.shared.store, job, stream)? {
                    self.join_first_run(stream, span);
                }
            }
        }
        Ok(ended)
    }

    /// What lies before the live line was read by a job: the ledger begins with it.
    fn join_first_run(&mut self, stream: &StreamId, span: Window) {
        let Some(connector) = self.by_stream.get(stream) else {
            return;
        };
        let settled = span.until() - connector.settle(stream);
        if let Some(known) = self.ledgers.get_mut(stream) {
            known.joined(span.from(), settled);
            self.store_ledger(stream);
        }
    }

    /// Takes what a reconciliation could not fetch onto this line's list: it lies in the store since its slice
    /// was finished.
    pub(super) fn adopt(&mut self, stream: &StreamId) -> Result<(), StateError> {
        let handed_over = self.shared.store.work(stream)?.into_iter();
        let handed_over: Vec<_> = handed_over
            .filter(|item| !self.work.holds(&key_of(item)))
            .collect();
        self.work.put(handed_over);
        Ok(())
    }

    /// A span was held against what the vendor lists: it is settled, and what could not be fetched is
    /// this line's.
    fn join_reconciled(&mut self, account: Account, whole: bool) -> Result<(), StateError> {
        let stream = account.stream.clone();
        if !self.by_stream.contains_key(&stream) {
            return Ok(());
        }
        self.adopt(&stream)?;
        let span = Window::new(account.from, account.until);
        self.settle(&stream, span, account.began)?;
        if let Some(known) = self.ledgers.get_mut(&stream) {
            if whole {
                known.relisted = account.began;
            }
            known.reconciled = Some(account);
            self.store_ledger(&stream);
        }
        Ok(())
    }

    /// The jobs are over: the live line has what they knew.
    pub(super) fn forget_joined(&self, jobs: &[JobId]) -> Result<(), End> {
        for job in jobs {
            self.shared.store.forget_job_windows(job)?;
        }
        if !jobs.is_empty() {
            self.shared.store.forget_jobs(jobs)?;
        }
        Ok(())
    }
}

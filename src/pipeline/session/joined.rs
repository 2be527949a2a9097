//! What jobs found out that filled a hole in the live line: taken into its windows.

use exfilwatch_model::{JobId, StreamId, Window};

use super::{End, Session};
use crate::pipeline::job::keeper::first_run_span;

impl Session<'_> {
    /// Stages what the jobs that ended remember, as if it had been seen here. A window that lies over
    /// the edge of what a job read is whole now.
    pub(super) fn join_ended_jobs(&mut self) -> Result<Vec<JobId>, End> {
        let tenant = self.config.step.memory.tenant();
        let ended = self.shared.jobs.ended.take(tenant);
        let streams: Vec<StreamId> = match ended[..] {
            [] => Vec::new(),
            _ => self.by_stream.keys().cloned().collect(),
        };
        for job in &ended {
            let windows = self.shared.store.windows(job, tenant)?;
            tracing::debug!(%job, entries = windows.len(), "what a job remembers joins the live line");
            self.ingest
                .stage_absorbed(&windows, self.shared.clock.now());
        }
        for job in &ended {
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

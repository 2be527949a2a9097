//! What jobs found out that filled a hole in the live line: taken into its windows.

use exfilwatch_model::JobId;

use super::{End, Session};

impl Session<'_> {
    /// Stages what the jobs that ended remember, as if it had been seen here. A window that lies over
    /// the edge of what a job read is whole now.
    pub(super) fn join_ended_jobs(&mut self) -> Result<Vec<JobId>, End> {
        let tenant = self.config.step.memory.tenant();
        let ended = self.shared.jobs.ended.take(tenant);
        for job in &ended {
            let windows = self.shared.store.windows(job, tenant)?;
            tracing::debug!(%job, entries = windows.len(), "what a job remembers joins the live line");
            self.ingest
                .stage_absorbed(&windows, self.shared.clock.now());
        }
        Ok(ended)
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

//! The seam behind which the store stands, and its errors by what the caller must do.

use std::fmt::Debug;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, Utc};
use exfilwatch_model::finding::FindingState;
use exfilwatch_model::{Cursor, Gap, JobId, StreamId, TenantId, Verdict, WorkItem};

use crate::commit::{
    Commit, FileMark, JobState, LaneId, LaneMark, Position, Quarantined, Subscription, Watermark,
    WindowChange,
};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process has it: use the control socket, or stop that process.
    #[error("another exfilwatch is using {folder}")]
    Locked {
        /// The state folder.
        folder: PathBuf,
    },
    /// Written by a newer version: do not touch it (exit code 6).
    #[error("the state in {folder} has format {found}, this version reads up to {known}")]
    Version {
        /// The state folder.
        folder: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format this version reads.
        known: u32,
    },
    /// It does not open or does not read: move it aside and rebuild.
    #[error("the store in {folder} is damaged: {reason}")]
    Corrupt {
        /// The state folder.
        folder: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A value or key is larger than allowed: a bug of the caller, nothing was written.
    #[error("{what} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Which value.
        what: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A commit that contradicts the store: a bug of the caller, nothing was written.
    #[error("the commit cannot be right: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// An earlier commit failed after the store may have taken it: open the state anew, which
    /// finds all of that commit or nothing of it.
    #[error("an earlier commit to {folder} failed half way, the state must be opened anew")]
    Halted {
        /// The state folder.
        folder: PathBuf,
    },
    /// The disk failed or is full. Nothing of the commit counts; memory must be rebuilt.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// State that survives: what every store must do. One contract suite runs on all of them.
pub trait StateStore: Send + Sync + Debug {
    /// Writes all of it, atomically and durably, before it returns. `end` is the new end of the
    /// outbox. The frames of the commits are already in the outbox: the store ignores them.
    fn apply(&self, commits: &[Commit], end: Position) -> Result<(), StateError>;

    /// End of the outbox by the last commit.
    fn outbox_end(&self) -> Result<Position, StateError>;
    /// Key of the fingerprints, made when the store was.
    fn hash_key(&self) -> Result<[u8; 16], StateError>;
    /// Listing cursor of a stream.
    fn cursor(&self, stream: &StreamId) -> Result<Option<Cursor>, StateError>;
    /// Where a stream is to be read from because the store was rebuilt; gone as soon as a cursor
    /// of the stream is committed.
    fn restart_from(&self, stream: &StreamId) -> Result<Option<DateTime<Utc>>, StateError>;
    /// Of every stream with a cursor or a restart point: everything before the instant is in the
    /// outbox or delivered.
    fn low_waters(&self) -> Result<Vec<(StreamId, DateTime<Utc>)>, StateError>;
    /// Open items of a stream.
    fn work(&self, stream: &StreamId) -> Result<Vec<WorkItem>, StateError>;
    /// Whether an item of the stream is known: in the work list or done.
    fn is_known(&self, stream: &StreamId, key: &str) -> Result<bool, StateError>;
    /// Whether an item of the stream is done because it was given up.
    fn was_given_up(&self, stream: &StreamId, key: &str) -> Result<bool, StateError>;
    /// Forgets done items whose time has come. Returns how many.
    fn forget_done(&self, now: DateTime<Utc>) -> Result<usize, StateError>;
    /// Calls it with the fingerprints of a tenant, some of one day at a time, oldest day first.
    fn each_seen(
        &self,
        tenant: &TenantId,
        visit: &mut dyn FnMut(NaiveDate, &[u64]),
    ) -> Result<(), StateError>;
    /// All fingerprints of a tenant, oldest day first. For tests and small stores.
    fn seen(&self, tenant: &TenantId) -> Result<Vec<(NaiveDate, u64)>, StateError> {
        let mut seen = Vec::new();
        self.each_seen(tenant, &mut |day, fingerprints| {
            seen.extend(fingerprints.iter().map(|fingerprint| (day, *fingerprint)));
        })?;
        Ok(seen)
    }
    /// Detector memory of a job and tenant.
    fn windows(&self, job: &JobId, tenant: &TenantId) -> Result<Vec<WindowChange>, StateError>;
    /// The tenants that a job has detector memory of.
    fn tenants_with_memory(&self, job: &JobId) -> Result<Vec<TenantId>, StateError>;
    /// Forgets the detector memory and watermarks of a job that is over.
    fn forget_job_windows(&self, job: &JobId) -> Result<(), StateError>;
    /// Watermarks of a job.
    fn watermarks(&self, job: &JobId) -> Result<Vec<Watermark>, StateError>;
    /// The finding table of a tenant.
    fn findings(&self, tenant: &TenantId) -> Result<Vec<FindingState>, StateError>;
    /// The tenants that have findings.
    fn tenants_with_findings(&self) -> Result<Vec<TenantId>, StateError>;
    /// What was said of findings, of all tenants.
    fn verdicts(&self) -> Result<Vec<(TenantId, Verdict)>, StateError>;
    /// Marks of all lanes, retired ones too.
    fn lanes(&self) -> Result<Vec<LaneMark>, StateError>;
    /// Mark of one lane.
    fn lane(&self, lane: &LaneId) -> Result<Option<LaneMark>, StateError>;
    /// All gaps, by stream and start.
    fn gaps(&self) -> Result<Vec<Gap>, StateError>;
    /// What was quarantined, newest last.
    fn quarantined(&self) -> Result<Vec<Quarantined>, StateError>;
    /// Last subscription start of a stream.
    fn subscription(&self, stream: &StreamId) -> Result<Option<Subscription>, StateError>;
    /// Forgets what is stored of jobs.
    fn forget_jobs(&self, jobs: &[JobId]) -> Result<(), StateError>;
    /// Jobs, finished ones too.
    fn jobs(&self) -> Result<Vec<JobState>, StateError>;
    /// A file by the digest of its content.
    fn file(&self, digest: &str) -> Result<Option<FileMark>, StateError>;
}

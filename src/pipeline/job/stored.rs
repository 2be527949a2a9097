//! What is stored of a job: what it is to do under its id, and how far each stream is under an id of
//! its own, so that no value outgrows the store's.

use exfilwatch_model::{GapState, JobId, StreamId, TenantId, Window};
use exfilwatch_state::{JobState, StateError, StateStore};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::account::{SliceAccount, StreamAccount};
use super::{JobRequest, archive, common};
use crate::pipeline::ledger::Account;

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) tenant: TenantId,
    pub(super) request: JobRequest,
    /// The span that is read, fixed when the job was made: slices are counted from its start.
    pub(super) span: Window,
    /// What a reconciliation that has ended found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reconciled: Option<Account>,
}

/// How far a stream is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    /// Finished slices, counted from the start.
    pub(super) slices: usize,
    pub(super) records: u64,
    pub(super) seen_before: u64,
    pub(super) malformed: u64,
    pub(super) gaps: u64,
    /// What the vendor does not list any more: to be searched in the archive.
    pub(super) beyond: Option<Window>,
    /// What the listing called it, and why.
    pub(super) beyond_state: Option<GapState>,
    /// See [`Done::beyond_state`].
    pub(super) beyond_reason: String,
    /// What could not be read, the widening included.
    pub(super) missed: Vec<Window>,
    /// How far the search is.
    pub(super) search: Option<archive::Search>,
    /// Nothing is left to search.
    pub(super) searched: bool,
    /// What a reconciliation has found so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reconciled: Option<Account>,
}

impl Done {
    pub(super) fn add(&mut self, slice: &SliceAccount) {
        self.records += slice.records;
        self.seen_before += slice.seen_before;
        self.malformed += slice.malformed;
        self.gaps += slice.gaps;
    }

    pub(super) fn account(&self, stream: &StreamId, slices: usize) -> StreamAccount {
        StreamAccount {
            slices_done: self.slices.min(slices),
            slices_done_before: self.slices.min(slices),
            records: self.records,
            seen_before: self.seen_before,
            malformed: self.malformed,
            gaps: self.gaps,
            ..StreamAccount::new(stream, slices)
        }
    }
}

/// The id of a job: one for the same words about the same span of the same tenant.
pub(super) fn id_of(stored: &Stored) -> Result<JobId, StateError> {
    let text = serde_json::to_string(stored).unwrap_or_default();
    named(stored.request.kind.as_str(), &text)
}

/// The id under which it is kept how far a stream is.
pub(super) fn stream_id(job: &JobId, stream: &StreamId) -> Result<JobId, StateError> {
    named(&format!("{job}:"), &stream.to_string())
}

fn named(prefix: &str, text: &str) -> Result<JobId, StateError> {
    let digest = Uuid::new_v5(&exfilwatch_model::identity::NAMESPACE, text.as_bytes());
    JobId::new(&format!("{prefix}-{}", digest.simple())).map_err(|error| StateError::Invalid {
        reason: format!("a job cannot be named: {error}"),
    })
}

/// A job as it lies in the store.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) job: JobId,
    pub(super) stored: Stored,
    pub(super) finished: bool,
}

/// All jobs of this machinery.
pub(super) fn known(store: &dyn StateStore) -> Result<Vec<Known>, StateError> {
    let read = |state: JobState| {
        Some(Known {
            stored: serde_json::from_str(&state.state).ok()?,
            job: state.job,
            finished: state.finished,
        })
    };
    Ok(store.jobs()?.into_iter().filter_map(read).collect())
}

/// The unfinished job that was asked for in the same words. The same words may mean another span by now
/// (`30d`): a job whose span has nothing of it is forgotten.
pub(super) fn unfinished(
    store: &dyn StateStore,
    tenant: &TenantId,
    request: &JobRequest,
) -> Result<Option<Known>, StateError> {
    let same = |known: &Known| {
        let other = &known.stored.request;
        !known.finished
            && known.stored.tenant == *tenant
            && other.kind == request.kind
            && other.asked == request.asked
            && other.streams == request.streams
            && other.rules == request.rules
    };
    let Some(known) = known(store)?.into_iter().find(same) else {
        return Ok(None);
    };
    let span = known.stored.request.window;
    if !request.kind.can_be_asked_for() || common(span, request.window).is_some() {
        return Ok(Some(known));
    }
    let (from, until) = (span.from(), span.until());
    tracing::warn!(job = %known.job, %from, %until, "an unfinished job is given up: none of its span is asked for any more");
    let parts = format!("{}:", known.job);
    let mut over: Vec<JobId> = store.jobs()?.into_iter().map(|state| state.job).collect();
    over.retain(|job| *job == known.job || job.as_str().starts_with(&parts));
    store.forget_job_windows(&known.job)?;
    store.forget_jobs(&over)?;
    Ok(None)
}

/// How far a stream is.
pub(super) fn done(store: &dyn StateStore, id: &JobId) -> Result<Done, StateError> {
    let state = store.jobs()?.into_iter().find(|state| state.job == *id);
    Ok(state
        .and_then(|state| serde_json::from_str(&state.state).ok())
        .unwrap_or_default())
}

/// As it is written.
pub(super) fn state(job: &JobId, value: &impl Serialize, finished: bool) -> JobState {
    JobState {
        job: job.clone(),
        state: serde_json::to_string(value).unwrap_or_default(),
        finished,
    }
}

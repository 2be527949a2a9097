//! Jobs: a past range is read again in slices, beside or without the live line.
//!
//! Backfill, a search with detectors only, learning, the filling of gaps, reconciliation and the first
//! run are one machinery.
//! A job has windows of its own and shares the finding table, so ids and revisions agree with the
//! live line's. Records that were seen before are detected again and not delivered again. A job that
//! was interrupted goes on at its first unfinished slice. What the vendor no longer lists is
//! searched in its archive, where it has one ([`archive`]).
//!
//! A job does not poll, and never touches a cursor.

mod account;
mod archive;
mod calls;
mod gaps;
mod items;
pub mod keeper;
mod kept;
pub mod plan;
mod reader;
pub(crate) mod reconcile;
mod stored;
mod submissions;

use chrono::{DurationRound, TimeDelta};
use exfilwatch_connectors::kernel::limit::as_job;
use exfilwatch_model::{StreamId, TenantId, Window};
use exfilwatch_state::StateError;
use serde::{Deserialize, Serialize};

pub use account::{Progress, Reports, SliceAccount, Source, StreamAccount};
pub use kept::KeptArchive;
pub use submissions::{Ended, JobsShared};

use crate::pipeline::ingest::IngestError;
use crate::pipeline::step::{LATENESS, Purpose};
use crate::pipeline::worker::{Shared, WorkerConfig};

/// Records may become available this long after their time: a range is widened so at its end.
const LATE_BY: TimeDelta = TimeDelta::days(1);

/// What has come since an unfinished job was asked for is read only where it is more than this: vendors
/// are late by about as much.
const REST_MIN: TimeDelta = TimeDelta::hours(1);

/// The longest range a job may be asked for: ten years, the longest that a vendor keeps anything.
pub const RANGE_MAX: TimeDelta = TimeDelta::days(3_660);

/// Why a past range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Somebody asked for the range: detects, and delivers what was not delivered before.
    Backfill,
    /// Somebody asked what the detectors find in it: no record is delivered, none counts as seen.
    DetectOnly,
    /// Somebody wants the past to be known that rules measure events against: nothing is told or
    /// delivered.
    Learn,
    /// Something is missing in it.
    GapFill,
    /// A stream is new: what lies before the live line's beginning.
    FirstRun,
    /// What the vendor still lists is held against what was fetched.
    Reconcile,
}

impl JobKind {
    /// As in the id of the job.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::DetectOnly => "detect",
            Self::Learn => "learn",
            Self::GapFill => "gap",
            Self::FirstRun => "first",
            Self::Reconcile => "reconcile",
        }
    }

    /// Whether somebody may ask for such a job; the others are the process's own business.
    pub fn can_be_asked_for(self) -> bool {
        matches!(self, Self::Backfill | Self::DetectOnly | Self::Learn)
    }

    /// Whether what was missing in the live line's windows is handed to it at the end.
    pub fn joins_live(self) -> bool {
        matches!(self, Self::GapFill | Self::FirstRun | Self::Reconcile)
    }
}

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Why.
    pub kind: JobKind,
    /// The span of event times (for a gap: of what the gap is measured in).
    pub window: Window,
    /// The span as it was asked for (`7d now`): asked for again, an unfinished job goes on.
    pub asked: String,
    /// Only this tenant; all where `None`.
    pub tenant: Option<TenantId>,
    /// Only these streams, as `connector/name` or `name`; all where empty.
    #[serde(default)]
    pub streams: Vec<String>,
    /// Only these rules, by id or name; all where empty.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Id of the gap that is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
}

impl JobRequest {
    /// Whether the job is for this stream.
    pub fn is_for(&self, stream: &StreamId) -> bool {
        let whole = || format!("{}/{}", stream.connector(), stream.name());
        self.streams.is_empty()
            || self
                .streams
                .iter()
                .any(|wanted| wanted == stream.name() || *wanted == whole())
    }

    /// Why it is not begun at all.
    pub fn refusal(&self) -> Option<String> {
        let days = self.window.length().num_days();
        let max = RANGE_MAX.num_days();
        (self.window.length() > RANGE_MAX).then(|| {
            format!(
                "a range of {days} days was asked for, and a job reads at most {max}: no vendor keeps more; \
                 name a later start"
            )
        })
    }

    /// What becomes of what is read.
    pub(crate) fn purpose(&self) -> Purpose {
        match self.kind {
            JobKind::DetectOnly => Purpose::Detect,
            JobKind::Learn => Purpose::Learn(Some(self.window)),
            JobKind::Backfill | JobKind::GapFill | JobKind::FirstRun | JobKind::Reconcile => {
                Purpose::Deliver
            }
        }
    }

    /// What is still to be read when an unfinished job of the same words has read a span: what has come
    /// since it was asked for. From the start of a day on, since days are counted whole.
    fn rest_behind(&self, read: Window) -> Option<Window> {
        let asked = self.window;
        if !self.kind.can_be_asked_for() || asked.until() - read.until() < REST_MIN {
            return None;
        }
        let day = read.until().duration_trunc(TimeDelta::days(1)).ok()?;
        Window::new(day.max(asked.from()), asked.until())
    }

    /// Whether the job is for this tenant.
    pub fn is_for_tenant(&self, tenant: &TenantId) -> bool {
        self.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEnd {
    /// All of it is read, apart from the gaps.
    Done,
    /// The process was told to stop.
    Interrupted,
    /// The vendor refuses us: what it said, and what to do.
    Refused(String),
    /// The state could not be written or read.
    State(String),
    /// The request names something that is not there.
    Usage(String),
    /// No tenant that runs is meant.
    NoTenant,
}

/// Why a job stopped.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The process was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// The vendor refuses us.
    #[error("{0}")]
    Refused(String),
    /// A task of the job panicked.
    #[error("a task of the job ended by a panic: {0}")]
    Panicked(String),
    /// The state could not be written or read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl From<StateError> for JobError {
    fn from(error: StateError) -> Self {
        Self::Ingest(error.into())
    }
}

impl From<JobError> for JobEnd {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Interrupted => Self::Interrupted,
            JobError::Refused(why) => Self::Refused(why),
            JobError::Panicked(_) | JobError::Ingest(_) => Self::State(error.to_string()),
        }
    }
}

/// Runs a job for one tenant; after an unfinished one of the same words what has come since. Its requests
/// count as a job's: they leave half of the quota to the live line.
pub async fn run(
    request: &JobRequest,
    worker: &WorkerConfig,
    shared: &Shared,
    reports: &mut Reports,
) -> Result<(), JobError> {
    as_job(async {
        let mut request = request.clone();
        loop {
            let mut reader = reader::Reader::open(&request, worker, shared, reports)?;
            let read = reader.stored.request.window;
            reader.run(&worker.connectors).await?;
            let Some(rest) = request.rest_behind(read) else {
                return Ok(());
            };
            let (from, until) = (rest.from(), rest.until());
            tracing::info!(%from, %until, "what has come since the job was first asked for is read now");
            request.window = rest;
        }
    })
    .await
}

/// The most by which a range is widened at its start. Rules that look further back than that rest on
/// what the live line has remembered; to read a month for each backfill would cost more than it finds.
const WIDENED_MAX: TimeDelta = TimeDelta::days(7);

/// The span that is read for a wanted one. `longest` is the longest window of a rule: a burst which
/// began before the span must be whole. What comes late is looked for behind its end.
pub(crate) fn span_of(
    request: &JobRequest,
    longest: TimeDelta,
    now: chrono::DateTime<chrono::Utc>,
) -> Window {
    let wanted = request.window;
    let (before, behind) = match request.kind {
        JobKind::Backfill | JobKind::DetectOnly => (longest.min(WIDENED_MAX), LATE_BY),
        JobKind::Learn => (TimeDelta::zero(), LATE_BY),
        // What is older than the live line remembers is detected by the job alone.
        JobKind::GapFill if wanted.from() < now - LATENESS => (longest.min(LATE_BY), LATE_BY),
        JobKind::GapFill | JobKind::FirstRun | JobKind::Reconcile => {
            (TimeDelta::zero(), TimeDelta::zero())
        }
    };
    let until = (wanted.until() + behind).min(now).max(wanted.until());
    Window::new(wanted.from() - before, until).unwrap_or(wanted)
}

/// The common part of two spans.
pub(crate) fn common(a: Window, b: Window) -> Option<Window> {
    Window::new(a.from().max(b.from()), a.until().min(b.until()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn window(from: i64, until: i64) -> Window {
        Window::new(at(from), at(until)).unwrap()
    }

    fn request(kind: JobKind, window: Window) -> JobRequest {
        JobRequest {
            kind,
            window,
            asked: String::new(),
            tenant: None,
            streams: Vec::new(),
            rules: Vec::new(),
            gap: None,
        }
    }

    #[test]
    fn what_has_come_since_an_unfinished_job_was_asked_for_is_left() {
        let rest = |kind, asked: Window, read| request(kind, asked).rest_behind(read);
        let learn = JobKind::Learn;
        let day = window(240, 300);
        assert_eq!(rest(learn, day, window(200, 260)), Some(window(240, 300)));
        assert_eq!(
            rest(learn, window(100, 300), window(60, 260)),
            Some(day),
            "from the start of the day on"
        );
        assert_eq!(rest(learn, day, day), None);
        let minutes_later = Window::new(at(240), at(300) + TimeDelta::minutes(50)).unwrap();
        assert_eq!(rest(learn, minutes_later, day), None);
        assert_eq!(rest(JobKind::GapFill, day, window(200, 260)), None);
    }

    #[test]
    fn only_what_lies_in_both_spans_is_common() {
        assert_eq!(common(window(0, 4), window(2, 6)), Some(window(2, 4)));
        assert_eq!(common(window(0, 2), window(2, 6)), None);
    }

    #[test]
    fn a_range_is_widened_so_that_a_burst_across_its_start_is_whole() {
        let longest = TimeDelta::hours(168);
        let span =
            |kind, from, until, now| span_of(&request(kind, window(from, until)), longest, at(now));
        assert_eq!(span(JobKind::Backfill, 300, 310, 1_000), window(132, 334));
        assert_eq!(span(JobKind::DetectOnly, 300, 310, 312), window(132, 312));
        let month = TimeDelta::days(30);
        let wanted = request(JobKind::Backfill, window(900, 910));
        assert_eq!(span_of(&wanted, month, at(2_000)), window(732, 934));
        assert_eq!(span(JobKind::Learn, 300, 310, 1_000), window(300, 334));
        assert_eq!(span(JobKind::FirstRun, 300, 400, 400), window(300, 400));
        assert_eq!(span(JobKind::GapFill, 300, 310, 320), window(300, 310));
        let old = span(JobKind::GapFill, 300, 310, 1_000);
        assert_eq!(old, window(276, 334), "older than the live line remembers");
    }

    #[test]
    fn streams_are_named_with_or_without_their_connector() {
        let stream: StreamId = "contoso/office365/Audit.Exchange".parse().unwrap();
        let for_streams = |streams: &[&str]| JobRequest {
            streams: streams.iter().map(|s| (*s).to_owned()).collect(),
            ..request(JobKind::Backfill, window(0, 1))
        };
        assert!(for_streams(&[]).is_for(&stream));
        assert!(for_streams(&["drive", "Audit.Exchange"]).is_for(&stream));
        assert!(for_streams(&["office365/Audit.Exchange"]).is_for(&stream));
        assert!(!for_streams(&["google_workspace/drive"]).is_for(&stream));
    }
}

//! Jobs: a past range is read again in slices, past the seen index, with windows of its own.
//!
//! Records that were seen before are detected again but not delivered again; the finding table is
//! shared with the live poller, so ids and revisions agree. The range is widened by the longest
//! window, so that a burst which began before it is whole. A job that was interrupted goes on at its
//! first unfinished slice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use exfilwatch_connectors::{Connector, FetchError, Listing, Standing};
use exfilwatch_model::{
    Cursor, Gap, GapCause, GapState, JobId, StreamId, TenantId, Window, WorkItem,
};
use exfilwatch_state::{Commit, JobState, StateError};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::pipeline::ingest::{Ingest, IngestError};
use crate::pipeline::notice::Notice;
use crate::pipeline::step::StepConfig;
use crate::pipeline::worker::Shared;

/// Tries of an item or a listing before its span is noted as a gap.
const TRIES_MAX: u32 = 6;
/// First wait between tries; doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Longest wait between tries.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// What an item may hold from its start on.
const ITEM_SPAN: TimeDelta = TimeDelta::hours(1);
/// Listings of one slice; a connector that never comes to an end is cut off here, as a gap.
const LISTINGS_MAX: u32 = 10_000;
/// What a job reads at once and can begin again from.
const SLICE: TimeDelta = TimeDelta::hours(24);
/// The longest window of a rule: the range is widened by it at its start.
const WIDENED_BY: TimeDelta = TimeDelta::days(7);
/// Records may become available this long after their time: the range is widened at its end.
const LATE_BY: TimeDelta = TimeDelta::days(1);

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// The span of event times.
    pub window: Window,
    /// The span as it was asked for (`7d`): asked for again, an unfinished job goes on.
    pub asked: String,
    /// Only this tenant; all where `None`.
    pub tenant: Option<TenantId>,
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
    /// No tenant that runs is meant.
    NoTenant,
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Streams and slices finished, of all.
    pub slices_done: usize,
    /// See [`Progress::slices_done`].
    pub slices: usize,
    /// Records read.
    pub records: u64,
    /// Of them, delivered before.
    pub duplicates: u64,
    /// Gaps left inside the range.
    pub gaps: usize,
    /// Set in the last report.
    pub end: Option<JobEnd>,
}

/// What is stored of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    asked: String,
    window: Window,
    /// Finished slices by stream: number of slices from the start.
    slices: BTreeMap<String, usize>,
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
            JobError::Ingest(error) => Self::State(error.to_string()),
        }
    }
}

/// Reads the range for one tenant. Reports go to `progress`.
pub async fn run(
    request: &JobRequest,
    config: StepConfig,
    connectors: &[Arc<dyn Connector>],
    shared: &Shared,
    progress: &mpsc::Sender<Progress>,
    totals: &mut Progress,
) -> Result<(), JobError> {
    let tenant = config.memory.tenant().clone();
    let (job, stored) = find_or_make(request, &tenant, shared)?;
    let ingest = Ingest::restore(
        StepConfig {
            job: job.clone(),
            ..config
        },
        shared.store.clone(),
        shared.committer.clone(),
        shared.watch.clone(),
    )
    .map_err(IngestError::from)?;
    let wanted = stored.window;
    let mut reader = Reader {
        ingest,
        shared: shared.clone(),
        wanted,
        job: job.clone(),
        stored,
        not_read: 0,
    };
    let now = shared.clock.now();
    let span = Window::new(
        wanted.from() - WIDENED_BY,
        (wanted.until() + LATE_BY).min(now),
    );
    let slices = span.map(|span| span.pieces(SLICE)).unwrap_or_default();
    totals.slices += slices.len() * connectors.iter().map(|c| c.streams().len()).sum::<usize>();
    for connector in connectors {
        for stream in connector.streams() {
            reader
                .stream(&**connector, &stream, &slices, progress, totals)
                .await?;
        }
    }
    reader.ingest.end(shared.clock.now()).await?;
    reader.note(true).await?;
    shared.store.forget_job_windows(&job)?;
    tracing::info!(%tenant, %job, records = totals.records, "the job is done");
    Ok(())
}

/// The unfinished job that was asked for in the same words, or a new one.
fn find_or_make(
    request: &JobRequest,
    tenant: &TenantId,
    shared: &Shared,
) -> Result<(JobId, Stored), JobError> {
    let prefix = format!("backfill-{tenant}-");
    for state in shared.store.jobs()? {
        if state.finished || !state.job.as_str().starts_with(&prefix) {
            continue;
        }
        if let Ok(stored) = serde_json::from_str::<Stored>(&state.state)
            && stored.asked == request.asked
        {
            tracing::info!(job = %state.job, "an unfinished job goes on");
            return Ok((state.job, stored));
        }
    }
    let (from, until) = (request.window.from(), request.window.until());
    let id = format!("{prefix}{}-{}", from.timestamp(), until.timestamp());
    let job = JobId::new(&id).unwrap_or_else(|_| JobId::live());
    let stored = Stored {
        asked: request.asked.clone(),
        window: request.window,
        slices: BTreeMap::new(),
    };
    Ok((job, stored))
}

struct Reader {
    ingest: Ingest,
    shared: Shared,
    wanted: Window,
    job: JobId,
    stored: Stored,
    /// Spans that could not be read, in the range or in its widening.
    not_read: usize,
}

impl Reader {
    async fn stream(
        &mut self,
        connector: &dyn Connector,
        stream: &StreamId,
        slices: &[Window],
        progress: &mpsc::Sender<Progress>,
        totals: &mut Progress,
    ) -> Result<(), JobError> {
        let name = format!("{}/{}", stream.connector(), stream.name());
        let finished = self.stored.slices.get(&name).copied().unwrap_or(0);
        totals.slices_done += finished.min(slices.len());
        for (index, slice) in slices.iter().enumerate().skip(finished) {
            let failed = self.not_read;
            self.slice(connector, stream, *slice, totals).await?;
            if self.not_read == failed {
                self.fill_gaps(stream, *slice).await?;
            }
            self.stored.slices.insert(name.clone(), index + 1);
            totals.slices_done += 1;
            self.note(false).await?;
            // A caller who does not look must not hold the job up.
            if progress.try_send(totals.clone()).is_err() {
                tracing::debug!("nobody looks at the job's progress; it goes on");
            }
        }
        Ok(())
    }

    async fn note(&mut self, finished: bool) -> Result<(), JobError> {
        let state = serde_json::to_string(&self.stored).unwrap_or_default();
        let jobs = vec![JobState {
            job: self.job.clone(),
            state,
            finished,
        }];
        let with = Commit {
            jobs,
            ..Commit::default()
        };
        self.ingest.stage_commit(with);
        Ok(self.ingest.flush(self.shared.clock.now()).await?)
    }

    /// Lists a slice to its end and reads all items in it.
    async fn slice(
        &mut self,
        connector: &dyn Connector,
        stream: &StreamId,
        slice: Window,
        totals: &mut Progress,
    ) -> Result<(), JobError> {
        let mut cursor = connector.first_cursor(stream, slice);
        for _ in 0..LISTINGS_MAX {
            let listing = match list(connector, stream, &cursor, &self.shared).await? {
                Ok(listing) => listing,
                Err(error) => return self.gap(stream, slice, &error.to_string(), totals).await,
            };
            for gap in listing.gaps {
                // What lies outside the slice is another's, or nobody asked for it.
                if let Some(window) = common(gap.window, slice) {
                    self.gap(stream, window, &gap.reason, totals).await?;
                }
            }
            for item in listing
                .items
                .into_iter()
                .filter(|item| item.from < slice.until())
            {
                self.item(connector, &item, totals).await?;
            }
            let at_end = listing.cursor.covered_until >= slice.until();
            if at_end || !listing.more || listing.cursor == cursor {
                return Ok(());
            }
            cursor = listing.cursor;
        }
        self.gap(stream, slice, "the listing did not come to an end", totals)
            .await
    }

    /// Reads an item, tried again from its start after failures that pass. Pages that were taken
    /// already are seen again and change nothing.
    async fn item(
        &mut self,
        connector: &dyn Connector,
        item: &WorkItem,
        totals: &mut Progress,
    ) -> Result<(), JobError> {
        let mut tries = 0;
        loop {
            let error = match self.pages(connector, item, totals).await? {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !passes(&error) || tries >= TRIES_MAX {
                let until = item.from + ITEM_SPAN;
                let Some(window) = Window::new(item.from, until) else {
                    return Ok(());
                };
                return self
                    .gap(&item.stream, window, &error.to_string(), totals)
                    .await;
            }
            tries += 1;
            wait_before_retry(&error, tries, &self.shared).await?;
        }
    }

    async fn pages(
        &mut self,
        connector: &dyn Connector,
        item: &WorkItem,
        totals: &mut Progress,
    ) -> Result<Result<(), FetchError>, JobError> {
        wait_while_paused(&self.shared).await?;
        let shutdown = self.shared.shutdown.clone();
        let mut pages = match interruptible(&shutdown, connector.fetch(item)).await? {
            Ok(pages) => pages,
            Err(error) => return refused(error),
        };
        let mut complete = false;
        while let Some(page) = interruptible(&shutdown, pages.next()).await? {
            let page = match page {
                Ok(page) => page,
                Err(error) => return refused(error),
            };
            complete = page.last;
            wait_while_paused(&self.shared).await?;
            let products = vec![connector.records().product(); page.records.len()];
            let counts = self
                .ingest
                .page(&page, &products, Commit::default())
                .await?;
            totals.records += counts.records;
            totals.duplicates += counts.duplicates;
        }
        if complete {
            return Ok(Ok(()));
        }
        let what = format!(
            "item {} of {} ended before its last page",
            item.key, item.stream
        );
        Ok(Err(FetchError::Retry { what, after: None }))
    }

    /// Notes a gap inside the range. In the widening it only says so: nobody asked for it.
    async fn gap(
        &mut self,
        stream: &StreamId,
        window: Window,
        reason: &str,
        totals: &mut Progress,
    ) -> Result<(), JobError> {
        self.not_read += 1;
        let Some(window) = common(window, self.wanted) else {
            tracing::info!(%stream, from = %window.from(), until = %window.until(), reason, "not to be had; outside the range");
            return Ok(());
        };
        totals.gaps += 1;
        let found_at = self.shared.clock.now();
        tracing::warn!(%stream, from = %window.from(), until = %window.until(), reason, "gap");
        let found = (GapState::Open, GapCause::JobFailed);
        let gap = Gap::new(stream.clone(), window, found, reason, found_at);
        Ok(self.ingest.notice(&Notice::gap(gap)).await?)
    }

    /// Open gaps inside a slice that was read whole are filled.
    async fn fill_gaps(&mut self, stream: &StreamId, slice: Window) -> Result<(), JobError> {
        let inside = |gap: &Gap| {
            gap.stream == *stream
                && gap.state == GapState::Open
                && slice.from() <= gap.window.from()
                && gap.window.until() <= slice.until()
        };
        for gap in self.shared.store.gaps()?.into_iter().filter(inside) {
            let filled = Gap {
                state: GapState::Filled,
                ..gap
            };
            self.ingest.notice(&Notice::gap(filled)).await?;
        }
        Ok(())
    }
}

/// The common part of two spans.
fn common(a: Window, b: Window) -> Option<Window> {
    Window::new(a.from().max(b.from()), a.until().min(b.until()))
}

/// Lists, tried again after failures that pass.
async fn list(
    connector: &dyn Connector,
    stream: &StreamId,
    cursor: &Cursor,
    shared: &Shared,
) -> Result<Result<Listing, FetchError>, JobError> {
    let mut tries = 0;
    loop {
        match interruptible(&shared.shutdown, connector.list(stream, cursor)).await? {
            Ok(listing) => {
                return match listing.standing {
                    // An empty listing of a stream that is refused is not a span read whole.
                    Standing::Held { what, help } => {
                        Err(JobError::Refused(format!("{what}: {help}")))
                    }
                    Standing::Flowing | Standing::Waiting { .. } => Ok(Ok(listing)),
                };
            }
            Err(error) if passes(&error) && tries < TRIES_MAX => {
                tries += 1;
                wait_before_retry(&error, tries, shared).await?;
            }
            Err(error) => return refused(error),
        }
    }
}

/// Refusals end the job; everything else is the caller's to weigh.
fn refused<T>(error: FetchError) -> Result<Result<T, FetchError>, JobError> {
    match error {
        FetchError::Auth { what, help }
        | FetchError::Permission { what, help }
        | FetchError::AuditingDisabled { what, help }
        | FetchError::Hold { what, help } => Err(JobError::Refused(format!("{what}: {help}"))),
        other => Ok(Err(other)),
    }
}

fn passes(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Retry { .. } | FetchError::Throttled { .. }
    )
}

async fn interruptible<T>(
    shutdown: &tokio_util::sync::CancellationToken,
    call: impl Future<Output = T>,
) -> Result<T, JobError> {
    shutdown
        .run_until_cancelled(call)
        .await
        .ok_or(JobError::Interrupted)
}

async fn wait_while_paused(shared: &Shared) -> Result<(), JobError> {
    let mut paused = shared.paused.clone();
    let goes_on = async {
        // An error means that the committer is gone; the commit that follows says so.
        paused
            .wait_for(|paused| !paused)
            .await
            .map(|_| ())
            .unwrap_or_default();
    };
    interruptible(&shared.shutdown, goes_on).await
}

async fn wait_before_retry(
    error: &FetchError,
    tries: u32,
    shared: &Shared,
) -> Result<(), JobError> {
    let asked = match error {
        FetchError::Retry { after, .. } | FetchError::Throttled { after, .. } => *after,
        _ => None,
    };
    let doubled = RETRY_FIRST * 2_u32.pow(tries.saturating_sub(1).min(10));
    let wait = shared.clock.real(asked.unwrap_or(doubled.min(RETRY_MAX)));
    interruptible(&shared.shutdown, tokio::time::sleep(wait)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};

    fn window(from: i64, until: i64) -> Window {
        let at = |hours| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(hours);
        Window::new(at(from), at(until)).unwrap()
    }

    #[test]
    fn only_what_lies_in_both_spans_is_common() {
        assert_eq!(common(window(0, 4), window(2, 6)), Some(window(2, 4)));
        assert_eq!(common(window(0, 2), window(2, 6)), None);
    }

    #[test]
    fn a_refusal_ends_the_job_and_a_passing_failure_does_not() {
        let denied = FetchError::Permission {
            what: "403".into(),
            help: "grant it".into(),
        };
        assert!(matches!(refused::<()>(denied), Err(JobError::Refused(_))));
        let busy = FetchError::Retry {
            what: "503".into(),
            after: None,
        };
        assert!(passes(&busy));
        assert!(matches!(refused::<()>(busy), Ok(Err(_))));
    }
}

//! Jobs: a past range is read again in slices, past the seen index, with windows of its own.
//!
//! Records that were seen before are detected again but not delivered again; the finding table is
//! shared with the live poller, so ids and revisions agree. The range is widened by the longest
//! window, so that a burst which began before it is whole. A job that was killed goes on at its
//! first unfinished slice.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{Connector, FetchError, Listing};
use exfilwatch_model::{Cursor, Gap, GapState, JobId, Page, StreamId, TenantId, Window, WorkItem};
use exfilwatch_state::{Commit, JobState};
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::pipeline::ingest::{Ingest, IngestError};
use crate::pipeline::notice::Notice;
use crate::pipeline::step::StepConfig;
use crate::pipeline::worker::Shared;

/// Items of a job fetched at the same time: fewer than the poller's, which keeps at least half.
const FETCHES_MAX: usize = 2;
/// Tries of an item or a listing before its span is noted as a gap.
const TRIES_MAX: u32 = 6;
/// First wait between tries; doubled each time.
const RETRY_FIRST: std::time::Duration = std::time::Duration::from_secs(5);
/// Longest wait between tries.
const RETRY_MAX: std::time::Duration = std::time::Duration::from_secs(300);
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
    /// Only this tenant; all where `None`.
    pub tenant: Option<TenantId>,
}

impl JobRequest {
    /// The same request again is the same job, and goes on where it was.
    pub fn id_for(&self, tenant: &TenantId) -> Option<JobId> {
        let (from, until) = (
            self.window.from().timestamp(),
            self.window.until().timestamp(),
        );
        JobId::new(&format!("backfill-{tenant}-{from}-{until}")).ok()
    }
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
    /// Gaps left.
    pub gaps: usize,
    /// Set in the last report: what stopped the job, or nothing.
    pub end: Option<Option<String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    /// Finished slices by stream name: number of slices from the start.
    slices: std::collections::BTreeMap<String, usize>,
}

/// Reads the range for one tenant. Reports go to `progress`; the last one has `end`.
pub async fn run(
    request: &JobRequest,
    config: StepConfig,
    connectors: &[Arc<dyn Connector>],
    shared: &Shared,
    progress: &mpsc::Sender<Progress>,
    totals: &mut Progress,
) -> Result<(), IngestError> {
    let tenant = config.memory.tenant().clone();
    let job = config.job.clone();
    let now = shared.clock.now();
    let mut done = read_done(shared, &job)?;
    let ingest = Ingest::restore(
        config,
        shared.store.clone(),
        shared.committer.clone(),
        shared.watch.clone(),
    )?;
    let mut reader = JobReader {
        ingest,
        shared: shared.clone(),
    };
    let span = Window::new(
        request.window.from() - WIDENED_BY,
        (request.window.until() + LATE_BY).min(now),
    );
    let slices = span.map(|span| span.pieces(SLICE)).unwrap_or_default();
    let streams = connectors.iter().map(|c| c.streams().len()).sum::<usize>();
    totals.slices += slices.len() * streams;
    for connector in connectors {
        for stream in connector.streams() {
            let finished = done.slices.get(stream.name()).copied().unwrap_or(0);
            totals.slices_done += finished.min(slices.len());
            for (index, slice) in slices.iter().enumerate().skip(finished) {
                if shared.shutdown.is_cancelled() {
                    return Ok(());
                }
                reader.slice(connector, &stream, *slice, totals).await?;
                done.slices.insert(stream.name().to_owned(), index + 1);
                totals.slices_done += 1;
                reader.note(&job, &done, false).await?;
                report(progress, totals).await;
            }
        }
    }
    reader.ingest.end(shared.clock.now()).await?;
    reader.note(&job, &done, true).await?;
    shared.store.forget_job_windows(&job)?;
    tracing::info!(%tenant, %job, records = totals.records, "the job is done");
    Ok(())
}

async fn report(progress: &mpsc::Sender<Progress>, totals: &Progress) {
    if progress.send(totals.clone()).await.is_err() {
        tracing::debug!("nobody looks at the job's progress; it goes on");
    }
}

fn read_done(shared: &Shared, job: &JobId) -> Result<Done, IngestError> {
    let known = shared
        .store
        .jobs()?
        .into_iter()
        .find(|state| state.job == *job && !state.finished);
    Ok(known
        .and_then(|state| serde_json::from_str(&state.state).ok())
        .unwrap_or_default())
}

struct JobReader {
    ingest: Ingest,
    shared: Shared,
}

impl JobReader {
    async fn note(&mut self, job: &JobId, done: &Done, finished: bool) -> Result<(), IngestError> {
        let state = serde_json::to_string(done).unwrap_or_default();
        let jobs = vec![JobState {
            job: job.clone(),
            state,
            finished,
        }];
        let with = Commit {
            jobs,
            ..Commit::default()
        };
        self.ingest.tick(self.shared.clock.now(), None, with).await
    }

    /// Lists a slice to its end and reads all items in it.
    async fn slice(
        &mut self,
        connector: &Arc<dyn Connector>,
        stream: &StreamId,
        slice: Window,
        totals: &mut Progress,
    ) -> Result<(), IngestError> {
        let mut cursor = connector.first_cursor(stream, slice);
        for _ in 0..LISTINGS_MAX {
            let shared = self.shared.clone();
            let listing = match list(&**connector, stream, &cursor, &shared).await {
                Ok(listing) => listing,
                Err(error) => return self.gap(stream, slice, &error.to_string(), totals).await,
            };
            for gap in listing.gaps {
                self.gap(stream, gap.window, &gap.reason, totals).await?;
            }
            let items = listing
                .items
                .into_iter()
                .filter(|item| item.from < slice.until());
            self.items(connector, items.collect(), totals).await?;
            let at_end = listing.cursor.covered_until >= slice.until();
            if at_end || !listing.more || listing.cursor == cursor {
                return Ok(());
            }
            cursor = listing.cursor;
        }
        self.gap(stream, slice, "the listing did not come to an end", totals)
            .await
    }

    async fn items(
        &mut self,
        connector: &Arc<dyn Connector>,
        items: Vec<WorkItem>,
        totals: &mut Progress,
    ) -> Result<(), IngestError> {
        let shared = self.shared.clone();
        let mut fetched = stream::iter(items)
            .map(|item| {
                let connector = connector.clone();
                let shared = shared.clone();
                async move {
                    let pages = fetch_whole(&*connector, &item, &shared).await;
                    (item, pages)
                }
            })
            .buffer_unordered(FETCHES_MAX);
        while let Some((item, pages)) = fetched.next().await {
            match pages {
                Ok(pages) => {
                    for page in pages {
                        let product = connector.records().product();
                        let products = vec![product; page.records.len()];
                        let counts = self
                            .ingest
                            .page(&page, &products, Commit::default())
                            .await?;
                        totals.records += counts.records;
                        totals.duplicates += counts.duplicates;
                    }
                }
                Err(error) => {
                    let end = item.from + TimeDelta::seconds(1);
                    if let Some(window) = Window::new(item.from, end) {
                        self.gap(&item.stream, window, &error.to_string(), totals)
                            .await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn gap(
        &mut self,
        stream: &StreamId,
        window: Window,
        reason: &str,
        totals: &mut Progress,
    ) -> Result<(), IngestError> {
        totals.gaps += 1;
        let found_at = self.shared.clock.now();
        tracing::warn!(%stream, from = %window.from(), until = %window.until(), reason, "gap");
        let state = if is_over(window, found_at) {
            GapState::Lost
        } else {
            GapState::Open
        };
        let gap = Gap {
            stream: stream.clone(),
            window,
            state,
            reason: reason.to_owned(),
            found_at,
        };
        self.ingest
            .notice(&Notice::gap(gap), Commit::default())
            .await
    }
}

/// Lists, tried again after failures that pass.
async fn list(
    connector: &dyn Connector,
    stream: &StreamId,
    cursor: &Cursor,
    shared: &Shared,
) -> Result<Listing, FetchError> {
    let mut tries = 0;
    loop {
        match connector.list(stream, cursor).await {
            Err(error)
                if tries < TRIES_MAX && passes(&error) && !shared.shutdown.is_cancelled() =>
            {
                tries += 1;
                wait_before_retry(&error, tries, shared).await;
            }
            outcome => return outcome,
        }
    }
}

fn passes(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Retry { .. } | FetchError::Throttled { .. }
    )
}

/// Nothing older than this is kept by any of the vendors.
fn is_over(window: Window, now: DateTime<Utc>) -> bool {
    window.until() < now - TimeDelta::days(180)
}

/// All pages of an item, tried again from its start after a failure. An item of the feeds holds at
/// most some MB; pages are bounded by the connector's body cap.
async fn fetch_whole(
    connector: &dyn Connector,
    item: &WorkItem,
    shared: &Shared,
) -> Result<Vec<Page>, FetchError> {
    let mut tries = 0;
    loop {
        match fetch_once(connector, item).await {
            Err(error)
                if tries < TRIES_MAX && passes(&error) && !shared.shutdown.is_cancelled() =>
            {
                tries += 1;
                wait_before_retry(&error, tries, shared).await;
            }
            outcome => return outcome,
        }
    }
}

async fn fetch_once(connector: &dyn Connector, item: &WorkItem) -> Result<Vec<Page>, FetchError> {
    let mut stream = connector.fetch(item).await?;
    let mut pages = Vec::new();
    while let Some(page) = stream.next().await {
        pages.push(page?);
    }
    if pages.last().is_some_and(|page| page.last) {
        return Ok(pages);
    }
    let what = format!(
        "item {} of {} ended before its last page",
        item.key, item.stream
    );
    Err(FetchError::Retry { what, after: None })
}

async fn wait_before_retry(error: &FetchError, tries: u32, shared: &Shared) {
    let asked = match error {
        FetchError::Retry { after, .. } | FetchError::Throttled { after, .. } => *after,
        _ => None,
    };
    let wait = asked.unwrap_or((RETRY_FIRST * 2_u32.pow(tries - 1)).min(RETRY_MAX));
    tokio::select! {
        () = tokio::time::sleep(shared.clock.real(wait)) => {}
        () = shared.shutdown.cancelled() => {}
    }
}

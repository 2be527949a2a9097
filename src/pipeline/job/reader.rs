//! A job at work for one tenant: stream by stream, slice by slice, each noted when it is finished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{GapState, JobId, StreamId, Window, WorkItem};
use exfilwatch_state::Commit;

use super::account::{Reports, SliceAccount, Source, StreamAccount};
use super::calls::list;
use super::kept::Kept;
use super::stored::{self, Done, Stored};
use super::{JobError, JobKind, JobRequest, common, span_of};
use crate::pipeline::ingest::Ingest;
use crate::pipeline::step::StepConfig;
use crate::pipeline::worker::{Shared, WorkerConfig};
use crate::pipeline::worklist::each_once;

/// What a job reads at once and can begin again from.
pub(super) const SLICE: TimeDelta = TimeDelta::hours(24);
/// Listings of one slice; a connector that never comes to an end is cut off here, as a gap.
const LISTINGS_MAX: u32 = 10_000;
/// What an item may hold from its start on, where it does not expire within days (a blob does, and
/// is one instant of availability).
const ITEM_SPAN: TimeDelta = TimeDelta::hours(1);
/// See [`ITEM_SPAN`].
const BLOB_KEPT_MAX: TimeDelta = TimeDelta::days(10);

/// A job of one tenant.
pub(super) struct Reader<'a> {
    pub(super) shared: &'a Shared,
    pub(super) reports: &'a mut Reports,
    pub(super) ingest: Ingest,
    pub(super) job: JobId,
    /// Our own archives, where the job may read them.
    pub(super) kept: Kept,
    pub(super) stored: Stored,
    pub(super) streams: BTreeMap<StreamId, Done>,
    accounts: BTreeMap<StreamId, StreamAccount>,
    /// Spans of the gap that is filled which are still missing, and why.
    pub(super) still_missing: Vec<(Window, GapState, String)>,
    /// New records of a reconciliation's slice that should have been found before.
    pub(super) late: u64,
}

impl<'a> Reader<'a> {
    /// Goes on with the unfinished job that was asked for in the same words, or makes one.
    pub(super) fn open(
        request: &JobRequest,
        worker: &WorkerConfig,
        shared: &'a Shared,
        reports: &'a mut Reports,
    ) -> Result<Self, JobError> {
        let tenant = worker.step.memory.tenant().clone();
        let now = shared.clock.now();
        let (job, stored) = match stored::unfinished(&*shared.store, &tenant, request)? {
            Some(known) => {
                let span = known.stored.request.window;
                let (from, until) = (span.from(), span.until());
                tracing::info!(job = %known.job, %from, %until, "an unfinished job goes on");
                (known.job, known.stored)
            }
            None => {
                let stored = Stored {
                    span: span_of(request, worker.step.rules.get().longest_window(), now),
                    tenant,
                    request: request.clone(),
                    reconciled: None,
                };
                (stored::id_of(&stored)?, stored)
            }
        };
        let config = StepConfig {
            job: job.clone(),
            purpose: stored.request.purpose(),
            ..worker.step.clone()
        };
        let (store, committer) = (shared.store.clone(), shared.committer.clone());
        let ingest = Ingest::restore(config, store, committer, shared.watch.clone())?
            .detecting(stored.request.kind == JobKind::Reconcile);
        // Others hold what is listed against what is there, or deliver: the vendor has to say it.
        let kept = match stored.request.kind {
            JobKind::Learn => Kept::of(&worker.archives),
            _ => Kept::default(),
        };
        Ok(Self {
            shared,
            reports,
            ingest,
            job,
            kept,
            stored,
            streams: BTreeMap::new(),
            accounts: BTreeMap::new(),
            still_missing: Vec::new(),
            late: 0,
        })
    }

    /// Reads everything. What the vendor refuses of one stream does not stop the others; the job
    /// stays unfinished then.
    pub(super) async fn run(&mut self, connectors: &[Arc<dyn Connector>]) -> Result<(), JobError> {
        let outcome = self.read(connectors).await;
        self.report_account();
        for account in std::mem::take(&mut self.accounts).into_values() {
            self.reports.stream(account);
        }
        outcome
    }

    async fn read(&mut self, connectors: &[Arc<dyn Connector>]) -> Result<(), JobError> {
        let slices = self.stored.span.pieces(SLICE);
        let mut wanted = Vec::new();
        for connector in connectors {
            for stream in connector.streams() {
                if self.stored.request.is_for(&stream) {
                    if let Some(withheld) = connector.withheld(&stream).await {
                        tracing::info!(%stream, "{withheld}");
                        let account = StreamAccount::new(&stream, 0);
                        let refused = Some(withheld.to_string());
                        self.accounts
                            .insert(stream, StreamAccount { refused, ..account });
                        continue;
                    }
                    self.begin(&stream, slices.len())?;
                    wanted.push((connector, stream));
                }
            }
        }
        let head = stored::state(&self.job, &self.stored, false);
        self.ingest.stage_commit(Commit {
            jobs: vec![head],
            ..Commit::default()
        });
        self.flush(Vec::new()).await?;
        self.look_at_archives().await?;
        let mut refused = BTreeSet::new();
        // The feed first, and of all streams the oldest slice first: what it lists expires.
        for (index, slice) in slices.iter().enumerate() {
            for (connector, stream) in &wanted {
                let refuses = |account: &StreamAccount| account.refused.is_some();
                if !self.accounts.get(stream).is_some_and(refuses) {
                    let read = self.feed(connector, stream, (index, *slice)).await;
                    self.not_refused(stream, read, &mut refused)?;
                }
            }
            self.settle_learned((index, *slice), &wanted);
        }
        for (connector, stream) in &wanted {
            self.search_what_is_not_listed(stream)?;
            let read = self.search(connector, stream).await;
            self.not_refused(stream, read, &mut refused)?;
        }
        if !refused.is_empty() {
            let all: Vec<String> = refused.into_iter().collect();
            return Err(JobError::Refused(all.join("; ")));
        }
        for (_, stream) in &wanted {
            self.fill_gaps(stream).await?;
        }
        self.finish().await
    }

    /// What lies before a slice that all streams have read is turned into days' counts: a month of
    /// events is more than a detector holds. What is still to be read of it would be late then, so that
    /// nothing is settled while a stream is refused, or is to be searched in the vendor's archive.
    fn settle_learned(
        &mut self,
        (index, slice): (usize, Window),
        wanted: &[(&Arc<dyn Connector>, StreamId)],
    ) {
        let has_read = |(connector, stream): &(&Arc<dyn Connector>, StreamId)| {
            self.streams.get(stream).is_some_and(|done| {
                let is_searched_later = done.beyond.is_some() && connector.archive().is_ok();
                index < done.slices && !is_searched_later
            })
        };
        if self.stored.request.kind == JobKind::Learn && wanted.iter().all(has_read) {
            let now = self.shared.clock.now();
            self.ingest.stage_tick(now, Some(slice.until()));
        }
    }

    fn begin(&mut self, stream: &StreamId, slices: usize) -> Result<(), JobError> {
        let id = stored::stream_id(&self.job, stream)?;
        let done = stored::done(&*self.shared.store, &id)?;
        self.reports.add_slices(slices, done.slices.min(slices));
        let account = done.account(stream, slices);
        self.accounts.insert(stream.clone(), account);
        self.streams.insert(stream.clone(), done);
        Ok(())
    }

    fn not_refused(
        &mut self,
        stream: &StreamId,
        read: Result<(), JobError>,
        refused: &mut BTreeSet<String>,
    ) -> Result<(), JobError> {
        let Err(JobError::Refused(why)) = read else {
            return read;
        };
        tracing::error!(%stream, %why, "refused; the other streams go on");
        if let Some(account) = self.accounts.get_mut(stream) {
            account.refused = Some(why.clone());
        }
        refused.insert(why);
        Ok(())
    }

    /// Reads what the vendor lists of a slice, unless that was done before.
    async fn feed(
        &mut self,
        connector: &Arc<dyn Connector>,
        stream: &StreamId,
        (index, slice): (usize, Window),
    ) -> Result<(), JobError> {
        if self
            .streams
            .get(stream)
            .is_some_and(|done| index < done.slices)
        {
            return Ok(());
        }
        let mut account = SliceAccount::new(stream, slice, Source::Feed);
        if self.reconciles() {
            self.reconcile(connector, slice, &mut account).await?;
        } else if !self.take_kept(connector, slice, &mut account).await? {
            self.slice(connector, slice, &mut account).await?;
        }
        if let Some(done) = self.streams.get_mut(stream) {
            done.slices = index + 1;
        }
        self.slice_done(account).await
    }

    /// A slice is finished: durably, and then aloud.
    pub(super) async fn slice_done(&mut self, slice: SliceAccount) -> Result<(), JobError> {
        if let Some(done) = self.streams.get_mut(&slice.stream) {
            done.add(&slice);
        }
        self.note(&slice.stream).await?;
        if let Some(account) = self.accounts.get_mut(&slice.stream) {
            account.add(&slice);
            account.slices_done += 1;
            account.slices = account.slices.max(account.slices_done);
        }
        self.reports.slice(slice);
        Ok(())
    }

    /// Writes how far a stream is, with what was staged.
    pub(super) async fn note(&mut self, stream: &StreamId) -> Result<(), JobError> {
        let Some(done) = self.streams.get(stream) else {
            return Ok(());
        };
        let id = stored::stream_id(&self.job, stream)?;
        self.ingest.stage_commit(Commit {
            jobs: vec![stored::state(&id, done, false)],
            ..Commit::default()
        });
        self.flush(Vec::new()).await
    }

    /// Lists a slice to its end, then reads all items in it.
    async fn slice(
        &mut self,
        connector: &Arc<dyn Connector>,
        slice: Window,
        account: &mut SliceAccount,
    ) -> Result<(), JobError> {
        let items = self.listed(&**connector, slice, account).await?;
        for missed in self.fetch_all(connector, items, account).await? {
            if let Some(window) = span_of_item(&missed.item) {
                let state = match missed.error {
                    FetchError::Gone { .. } => GapState::Lost,
                    _ => GapState::Open,
                };
                let (key, error) = (&missed.item.key, &missed.error);
                let reason = format!("item {key} could not be fetched: {error}");
                self.miss(account, window, state, &reason);
            }
        }
        Ok(())
    }

    /// The items of a slice. A listing that fails is a gap, with what had been listed before it kept.
    async fn listed(
        &mut self,
        connector: &dyn Connector,
        slice: Window,
        account: &mut SliceAccount,
    ) -> Result<Vec<WorkItem>, JobError> {
        let stream = account.stream.clone();
        let mut cursor = connector.first_cursor(&stream, slice);
        let mut items: Vec<WorkItem> = Vec::new();
        for _ in 0..LISTINGS_MAX {
            let listing = match list(connector, &stream, &cursor, self.shared).await? {
                Ok(listing) => listing,
                Err(error) => {
                    let left = Window::new(cursor.covered_until.max(slice.from()), slice.until());
                    let left = left.unwrap_or(slice);
                    self.miss(account, left, GapState::Open, &error.to_string());
                    return Ok(each_once(items));
                }
            };
            for gap in listing.gaps {
                // What lies outside the slice is another's, or nobody asked for it.
                if let Some(window) = common(gap.window, slice) {
                    self.beyond(&stream, window, gap.state, &gap.reason);
                }
            }
            let inside = listing.items.into_iter();
            let inside = inside.filter(|item| item.from < slice.until());
            items.extend(inside);
            let at_end = listing.cursor.covered_until >= slice.until();
            if at_end || !listing.more || listing.cursor == cursor {
                return Ok(each_once(items));
            }
            cursor = listing.cursor;
        }
        let why = "the listing did not come to an end";
        self.miss(account, slice, GapState::Open, why);
        Ok(each_once(items))
    }

    /// The last words on findings; what the job remembers goes to the live line, or is forgotten.
    async fn finish(&mut self) -> Result<(), JobError> {
        self.ingest.end(self.shared.clock.now()).await?;
        self.settle_gap().await?;
        if self.stored.request.kind == JobKind::Learn {
            let learned = self.ingest.baselines();
            self.reports.learned(&self.stored.tenant, learned);
        }
        let now = self.shared.clock.now();
        let mut accounts = self.streams.values_mut();
        if let Some(account) = accounts.find_map(|done| done.reconciled.as_mut()) {
            account.ended = Some(now);
            self.stored.reconciled = Some(account.clone());
        }
        let tenant = &self.stored.tenant;
        let records = self.reports.totals().records;
        tracing::info!(%tenant, job = %self.job, records, "the job is done");
        let mut over = Vec::new();
        for stream in self.streams.keys() {
            over.push(stored::stream_id(&self.job, stream)?);
        }
        if self.stored.request.kind.joins_live() {
            let head = stored::state(&self.job, &self.stored, true);
            self.ingest.stage_commit(Commit {
                jobs: vec![head],
                ..Commit::default()
            });
            self.flush(Vec::new()).await?;
            let ended = &self.shared.jobs.ended;
            ended.put(self.stored.tenant.clone(), self.job.clone());
        } else {
            self.shared.store.forget_job_windows(&self.job)?;
            over.push(self.job.clone());
        }
        Ok(self.shared.store.forget_jobs(&over)?)
    }
}

/// What an item that could not be had may have held.
fn span_of_item(item: &WorkItem) -> Option<Window> {
    let is_blob = item
        .expires
        .is_some_and(|at| at - item.from < BLOB_KEPT_MAX);
    let span = if is_blob {
        TimeDelta::seconds(1)
    } else {
        ITEM_SPAN
    };
    Window::new(item.from, item.from + span)
}

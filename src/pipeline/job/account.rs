//! What a job has done, by slice and by stream, and how that reaches whoever asked.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use exfilwatch_detectors::Baseline;
use exfilwatch_model::{StreamId, TenantId, Window};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::JobEnd;
use crate::pipeline::baselines::Known;
use crate::pipeline::ledger::Account;
use crate::pipeline::step::Counts;

/// Shortest real time between two reports that tell of no finished slice.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Where a slice was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What the vendor lists.
    Feed,
    /// A search of the vendor's archive.
    Archive,
    /// Our own archive.
    Kept,
}

/// One finished slice of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceAccount {
    /// The stream.
    pub stream: StreamId,
    /// Start of the slice.
    pub from: DateTime<Utc>,
    /// End of the slice.
    pub until: DateTime<Utc>,
    /// Where it was read from.
    pub source: Source,
    /// Items fetched (blobs, windows, searches).
    pub items: u64,
    /// Records read.
    pub records: u64,
    /// Of them, seen before.
    pub seen_before: u64,
    /// What was no record.
    pub malformed: u64,
    /// Spans in it that could not be read.
    pub gaps: u64,
}

impl SliceAccount {
    pub(super) fn new(stream: &StreamId, slice: Window, source: Source) -> Self {
        Self {
            stream: stream.clone(),
            from: slice.from(),
            until: slice.until(),
            source,
            items: 0,
            records: 0,
            seen_before: 0,
            malformed: 0,
            gaps: 0,
        }
    }

    pub(super) fn add(&mut self, counts: &Counts) {
        self.records += counts.records;
        self.seen_before += counts.duplicates;
        self.malformed += counts.malformed;
    }
}

/// A stream, over all runs of its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAccount {
    /// The stream.
    pub stream: StreamId,
    /// Slices finished.
    pub slices_done: usize,
    /// Slices in all.
    pub slices: usize,
    /// Of the finished ones, those that an earlier, interrupted run of the job had finished.
    pub slices_done_before: usize,
    /// Records read.
    pub records: u64,
    /// Of them, seen before.
    pub seen_before: u64,
    /// What was no record.
    pub malformed: u64,
    /// Spans inside the range that could not be read.
    pub gaps: u64,
    /// Why the vendor refuses the stream, and what to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
}

impl StreamAccount {
    pub(super) fn new(stream: &StreamId, slices: usize) -> Self {
        Self {
            stream: stream.clone(),
            slices_done: 0,
            slices,
            slices_done_before: 0,
            records: 0,
            seen_before: 0,
            malformed: 0,
            gaps: 0,
            refused: None,
        }
    }

    pub(super) fn add(&mut self, slice: &SliceAccount) {
        self.records += slice.records;
        self.seen_before += slice.seen_before;
        self.malformed += slice.malformed;
        self.gaps += slice.gaps;
    }

    fn join(&mut self, other: Self) {
        self.slices_done += other.slices_done;
        self.slices += other.slices;
        self.slices_done_before += other.slices_done_before;
        self.records += other.records;
        self.seen_before += other.seen_before;
        self.malformed += other.malformed;
        self.gaps += other.gaps;
        self.refused = other.refused.or(self.refused.take());
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Streams and slices finished, of all.
    pub slices_done: usize,
    /// See [`Progress::slices_done`].
    pub slices: usize,
    /// Records read by this run.
    pub records: u64,
    /// Of them, seen before.
    pub seen_before: u64,
    /// Slices finished since the report before.
    #[serde(default)]
    pub finished: Vec<SliceAccount>,
    /// The streams; in the last report only.
    #[serde(default)]
    pub streams: Vec<StreamAccount>,
    /// What was learned, where that was what the job was for; in the last report only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<Known>,
    /// Set in the last report.
    pub end: Option<JobEnd>,
}

impl Progress {
    /// Gaps left inside the range.
    pub fn gaps(&self) -> u64 {
        self.streams.iter().map(|stream| stream.gaps).sum()
    }
}

/// Where a job's reports go, and the sums over all its tenants.
#[derive(Debug)]
pub struct Reports {
    progress: Option<mpsc::Sender<Progress>>,
    totals: Progress,
    last: Option<Instant>,
    reconciled: Option<Account>,
}

impl Reports {
    /// Reports to whoever asked for the job.
    pub fn to(progress: mpsc::Sender<Progress>) -> Self {
        Self {
            progress: Some(progress),
            totals: Progress::default(),
            last: None,
            reconciled: None,
        }
    }

    /// Nobody asked; the log tells.
    pub fn to_nobody() -> Self {
        Self {
            progress: None,
            totals: Progress::default(),
            last: None,
            reconciled: None,
        }
    }

    /// The sums so far.
    pub fn totals(&self) -> &Progress {
        &self.totals
    }

    pub(super) fn add_slices(&mut self, slices: usize, done: usize) {
        self.totals.slices += slices;
        self.totals.slices_done += done;
    }

    pub(super) fn read(&mut self, counts: &Counts) {
        self.totals.records += counts.records;
        self.totals.seen_before += counts.duplicates;
        if self.last.is_none_or(|last| last.elapsed() > REPORT_EVERY) {
            self.send();
        }
    }

    pub(super) fn slice(&mut self, slice: SliceAccount) {
        self.totals.slices_done += 1;
        if self.progress.is_some() {
            self.totals.finished.push(slice);
        }
        self.send();
    }

    /// A stream that two jobs have read, one after the other, has one account.
    pub(super) fn stream(&mut self, stream: StreamAccount) {
        let mut known = self.totals.streams.iter_mut();
        match known.find(|known| known.stream == stream.stream) {
            Some(known) => known.join(stream),
            None => self.totals.streams.push(stream),
        }
    }

    pub(super) fn learned(&mut self, tenant: &TenantId, learned: Vec<Baseline>) {
        let known = learned.into_iter().map(|one| Known::new(tenant, one));
        self.totals.learned.retain(|known| known.tenant != *tenant);
        self.totals.learned.extend(known);
    }

    pub(super) fn reconciled(&mut self, account: Account) {
        self.reconciled = Some(account);
    }

    /// The account of the reconciliation that was run.
    pub(super) fn take_reconciled(&mut self) -> Option<Account> {
        self.reconciled.take()
    }

    /// A caller who does not look must not hold the job up: what could not be sent goes with the
    /// next report.
    fn send(&mut self) {
        let Some(progress) = &self.progress else {
            return;
        };
        self.last = Some(Instant::now());
        let report = Progress {
            streams: Vec::new(),
            learned: Vec::new(),
            ..self.totals.clone()
        };
        if progress.try_send(report).is_ok() {
            self.totals.finished.clear();
        }
    }

    /// Sends the last report.
    pub async fn end(mut self, end: JobEnd) -> Progress {
        self.totals.end = Some(end);
        if let Some(progress) = &self.progress
            && progress.send(self.totals.clone()).await.is_err()
        {
            tracing::debug!("nobody waited for the job's end");
        }
        self.totals
    }
}

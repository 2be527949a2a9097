//! The jobs that `run` does by itself: what lies before a new stream's beginning, open gaps, and the
//! daily reconciliation.
//!
//! A new stream's live line begins a day back at once, so that a window over the start is whole
//! there; the days before are a job's. When that has ended, the live line takes in what it remembers,
//! so that longer windows are whole, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{Gap, JobId, StreamId, TenantId, Window};
use exfilwatch_state::{Commit, StateError, StateStore};
use tokio::sync::Semaphore;

use super::account::Reports;
use super::reconcile::{self, Extent};
use super::stored::{self, Known, Stored};
use super::submissions::Ended;
use super::{JobEnd, JobKind, JobRequest};
use crate::pipeline::committer::CommitError;
use crate::pipeline::ledger;
use crate::pipeline::worker::{Shared, WorkerConfig};

/// How far back the live line of a new stream begins.
pub(crate) const LIVE_BACK: TimeDelta = TimeDelta::days(1);
/// Jobs of this kind that run at the same time, over all tenants.
pub const AT_ONCE: usize = 4;
/// How often it is looked what there is to do, by the run's clock, and the least of it in real time.
const LOOK: Duration = Duration::from_secs(60);
const LOOK_MIN: Duration = Duration::from_millis(500);
/// Waits before a gap that stayed open, or a job that was refused, is tried again.
const AGAIN: [TimeDelta; 4] = [
    TimeDelta::minutes(10),
    TimeDelta::hours(1),
    TimeDelta::hours(6),
    TimeDelta::hours(24),
];
/// The words under which a first run goes on.
const FIRST_RUN: &str = "first run";

/// Notes the first runs of streams that are new. Before the tenants start: afterwards they have
/// cursors.
pub async fn note_first_runs(workers: &[WorkerConfig], shared: &Shared) -> Result<(), CommitError> {
    let mut jobs = Vec::new();
    for worker in workers.iter().filter(|worker| worker.first_run > LIVE_BACK) {
        match first_run(worker, shared) {
            Ok(Some(stored)) => {
                tracing::info!(tenant = %stored.tenant, from = %stored.span.from(), "the past of new streams is read by a job");
                if let Ok(job) = stored::id_of(&stored) {
                    jobs.push(stored::state(&job, &stored, false));
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a first run could not be noted"),
        }
    }
    if jobs.is_empty() {
        return Ok(());
    }
    let commit = Commit {
        jobs,
        ..Commit::default()
    };
    shared.committer.commit(commit).await.map(drop)
}

/// The first run of the streams that are new and in no such job yet.
fn first_run(worker: &WorkerConfig, shared: &Shared) -> Result<Option<Stored>, StateError> {
    let tenant = worker.step.memory.tenant();
    let known = stored::known(&*shared.store)?;
    let mut streams = Vec::new();
    for stream in worker.connectors.iter().flat_map(|c| c.streams()) {
        let is_new = shared.store.cursor(&stream)?.is_none()
            && shared.store.restart_from(&stream)?.is_none();
        if is_new && first_run_of(&known, &stream).is_none() {
            streams.push(format!("{}/{}", stream.connector(), stream.name()));
        }
    }
    let now = shared.clock.now();
    let Some(window) = Window::new(now - worker.first_run, now).filter(|_| !streams.is_empty())
    else {
        return Ok(None);
    };
    let request = JobRequest {
        kind: JobKind::FirstRun,
        window,
        asked: format!("{FIRST_RUN} {}", now.timestamp()),
        tenant: Some(tenant.clone()),
        streams,
        rules: Vec::new(),
        gap: None,
    };
    Ok(Some(Stored {
        tenant: tenant.clone(),
        span: request.window,
        request,
        reconciled: None,
    }))
}

fn first_run_of<'k>(known: &'k [Known], stream: &StreamId) -> Option<&'k Known> {
    known.iter().find(|known| {
        let request = &known.stored.request;
        request.kind == JobKind::FirstRun
            && known.stored.tenant == *stream.tenant()
            && request.is_for(stream)
    })
}

/// The span that a first run has read of a stream; `None` where the job is none of it.
pub(crate) fn first_run_span(
    store: &dyn StateStore,
    job: &JobId,
    stream: &StreamId,
) -> Result<Option<Window>, StateError> {
    let known = stored::known(store)?
        .into_iter()
        .filter(|known| known.job == *job);
    let known: Vec<Known> = known.collect();
    Ok(first_run_of(&known, stream).map(|known| known.stored.request.window))
}

/// From when the live line of a stream without a cursor begins: a day back, or where its first run
/// ends, if that was noted by an earlier process.
pub(crate) fn live_from(
    store: &dyn StateStore,
    stream: &StreamId,
    first_run: TimeDelta,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, StateError> {
    let known = stored::known(store)?;
    let day_back = now - first_run.min(LIVE_BACK);
    let noted = first_run_of(&known, stream);
    Ok(noted.map_or(day_back, |known| {
        day_back.min(known.stored.request.window.until() - LIVE_BACK)
    }))
}

/// Jobs that had ended when the process did, and whose memory the live line has not taken in.
pub(crate) fn recall_ended(
    store: &dyn StateStore,
    tenant: &TenantId,
    ended: &Ended,
) -> Result<(), StateError> {
    let waiting = stored::known(store)?.into_iter().filter(|known| {
        known.finished && known.stored.tenant == *tenant && known.stored.request.kind.joins_live()
    });
    for known in waiting {
        ended.put(tenant.clone(), known.job);
    }
    Ok(())
}

/// When something that did not work is tried again.
#[derive(Debug, Default)]
struct Patience(BTreeMap<String, (usize, DateTime<Utc>)>);

impl Patience {
    fn is_due(&self, what: &str, now: DateTime<Utc>) -> bool {
        self.0.get(what).is_none_or(|(_, at)| *at <= now)
    }

    fn tried(&mut self, what: &str, now: DateTime<Utc>) {
        let (times, at) = self.0.entry(what.to_owned()).or_insert((0, now));
        let wait = AGAIN.get(*times).or(AGAIN.last());
        *times += 1;
        *at = now + wait.copied().unwrap_or(LIVE_BACK);
    }

    fn worked(&mut self, what: &str) {
        self.0.remove(what);
    }
}

/// Reconciles a tenant's streams daily until shutdown, one after the other, apart from its other jobs:
/// a search in an archive may take longer than a day.
pub async fn reconcile_daily(worker: WorkerConfig, shared: Shared, places: Arc<Semaphore>) {
    let mut patience = Patience::default();
    while !shared.shutdown.is_cancelled() {
        match to_reconcile(&worker, &shared, &patience).await {
            Ok(due) => {
                for (stream, request) in due {
                    let place = places.acquire();
                    let Some(Ok(_place)) = shared.shutdown.run_until_cancelled(place).await else {
                        return;
                    };
                    let name = stream.to_string();
                    let (worker, shared) = (worker.clone(), shared.clone());
                    let clock = shared.clock.clone();
                    let job = async move {
                        let mut reports = Reports::to_nobody();
                        let what = (&stream, &request);
                        reconcile::run(what, &worker, &shared, &mut reports).await
                    };
                    match tokio::spawn(job).await {
                        Ok(account) if account.ended.is_some() => patience.worked(&name),
                        Ok(account) => {
                            let why = account.error.unwrap_or_default();
                            tracing::warn!(stream = %name, %why, "not reconciled; it is tried again later");
                            patience.tried(&name, clock.now());
                        }
                        Err(error) => {
                            tracing::error!(stream = %name, %error, "a reconciliation panicked");
                            patience.tried(&name, clock.now());
                        }
                    }
                }
            }
            Err(error) => tracing::error!(%error, "what is to be reconciled could not be read"),
        }
        let wait = tokio::time::sleep(shared.clock.real(LOOK).max(LOOK_MIN));
        if shared.shutdown.run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
}

/// The streams whose retention was not listed again for a day.
async fn to_reconcile(
    worker: &WorkerConfig,
    shared: &Shared,
    patience: &Patience,
) -> Result<Vec<(StreamId, JobRequest)>, StateError> {
    let now = shared.clock.now();
    let ledgers = ledger::read(&*shared.store)?;
    let known = stored::known(&*shared.store)?;
    let mut due = Vec::new();
    for connector in &worker.connectors {
        for stream in connector.streams() {
            let Some(ledger) = ledgers.get(&stream) else {
                continue;
            };
            let waits = now < ledger.relisted + connector.schedule(&stream).retention_every
                || !patience.is_due(&stream.to_string(), now)
                // Ended, and not yet taken in.
                || known.iter().any(|known| known.finished && reconciles(known, &stream));
            if waits || connector.withheld(&stream).await.is_some() {
                continue;
            }
            let of = (&**connector, &stream);
            let from = (&*shared.store, Some(ledger));
            let request = reconcile::request(of, Extent::Daily, from, now)?;
            due.extend(request.map(|request| (stream, request)));
        }
    }
    Ok(due)
}

fn reconciles(known: &Known, stream: &StreamId) -> bool {
    let request = &known.stored.request;
    request.kind == JobKind::Reconcile
        && known.stored.tenant == *stream.tenant()
        && request.is_for(stream)
}

/// Does a tenant's jobs until shutdown, one after the other.
pub async fn keep(worker: WorkerConfig, shared: Shared, places: Arc<Semaphore>) {
    let mut patience = Patience::default();
    while !shared.shutdown.is_cancelled() {
        match due(&worker, &shared, &patience) {
            Ok(requests) => {
                for request in requests {
                    let place = places.acquire();
                    let Some(Ok(_place)) = shared.shutdown.run_until_cancelled(place).await else {
                        return;
                    };
                    let name = name_of(&request);
                    let job = do_job(request, worker.clone(), shared.clone());
                    // One that panics is tried again later, and does not stop the others.
                    if let Err(error) = tokio::spawn(job).await {
                        tracing::error!(%name, %error, "a job panicked");
                    }
                    patience.tried(&name, shared.clock.now());
                }
            }
            Err(error) => tracing::error!(%error, "what jobs there are could not be read"),
        }
        let wait = tokio::time::sleep(shared.clock.real(LOOK).max(LOOK_MIN));
        if shared.shutdown.run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
}

async fn do_job(request: JobRequest, worker: WorkerConfig, shared: Shared) {
    let mut reports = Reports::to_nobody();
    let tenant = worker.step.memory.tenant();
    let end = match super::run(&request, &worker, &shared, &mut reports).await {
        Ok(()) => JobEnd::Done,
        Err(error) => error.into(),
    };
    let totals = reports.end(end).await;
    match &totals.end {
        Some(JobEnd::Done | JobEnd::Interrupted) | None => {}
        Some(end) => {
            tracing::warn!(%tenant, kind = request.kind.as_str(), ?end, "the job stopped; it is tried again later");
        }
    }
}

fn name_of(request: &JobRequest) -> String {
    format!(
        "{} {} {:?}",
        request.kind.as_str(),
        request.asked,
        request.streams
    )
}

/// What is to be done now: first runs, then gaps, those first that expire first.
fn due(
    worker: &WorkerConfig,
    shared: &Shared,
    patience: &Patience,
) -> Result<Vec<JobRequest>, StateError> {
    let tenant = worker.step.memory.tenant();
    let now = shared.clock.now();
    let streams: Vec<StreamId> = worker.connectors.iter().flat_map(|c| c.streams()).collect();
    let known = stored::known(&*shared.store)?;
    let ours = known
        .iter()
        .filter(|known| !known.finished && known.stored.tenant == *tenant);
    let mut requests: Vec<JobRequest> = ours
        .filter(|known| known.stored.request.kind == JobKind::FirstRun)
        .map(|known| known.stored.request.clone())
        .collect();
    let gaps = shared.store.gaps()?;
    let open = ledger::worth_filling(&gaps, now);
    let ours = open.iter().filter(|gap| streams.contains(&gap.stream));
    requests.extend(ours.map(request_of));
    requests.retain(|request| patience.is_due(&name_of(request), now));
    Ok(requests)
}

/// The job that fills a gap. The same words for the same gap: one that was interrupted goes on.
fn request_of(gap: &Gap) -> JobRequest {
    let stream = &gap.stream;
    JobRequest {
        kind: JobKind::GapFill,
        window: gap.window,
        asked: format!("gap {}", gap.id),
        tenant: Some(stream.tenant().clone()),
        streams: vec![format!("{}/{}", stream.connector(), stream.name())],
        rules: Vec::new(),
        gap: Some(gap.id.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_is_tried_less_and_less_often() {
        let mut patience = Patience::default();
        let mut now = DateTime::UNIX_EPOCH;
        assert!(patience.is_due("a gap", now));
        let mut waits = Vec::new();
        for _ in 0..6 {
            patience.tried("a gap", now);
            let start = now;
            while !patience.is_due("a gap", now) {
                now += TimeDelta::minutes(10);
            }
            waits.push((now - start).num_minutes());
        }
        assert_eq!(waits, [10, 60, 360, 1_440, 1_440, 1_440]);
        assert!(patience.is_due("another", DateTime::UNIX_EPOCH));
    }
}

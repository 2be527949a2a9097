//! Reconciliation by hand: for each stream the same job as the daily one, several at a time.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use exfilwatch_model::{StreamId, TenantId};
use exfilwatch_state::StateError;
use futures::{FutureExt, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::pipeline::job::reconcile::{self, Extent};
use crate::pipeline::job::{JobRequest, Progress, Reports};
use crate::pipeline::ledger::{self, Account};
use crate::pipeline::worker::{Shared, WorkerConfig};

/// Streams that are reconciled at the same time.
const AT_ONCE: usize = 4;
/// Reports of one stream that wait to be passed on.
const REPORTS_MAX: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileRequest {
    /// Only this tenant; all where `None`.
    pub tenant: Option<TenantId>,
    /// From when on; where `None` all that the vendors list.
    pub since: Option<DateTime<Utc>>,
}

/// What is said of a reconciliation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// How far it is.
    Progress(Progress),
    /// It is over: an account for each stream.
    Accounts(Vec<Account>),
    /// It could not be begun.
    Failed(String),
}

/// Holds all streams that are meant against what the vendors list, and fetches what is missing.
pub async fn reconcile(
    request: &ReconcileRequest,
    workers: &[WorkerConfig],
    shared: &Shared,
    told: &mpsc::Sender<Told>,
) {
    let last = match plan(request, workers, shared).await {
        Ok(plan) => Told::Accounts(run(plan, shared, told).await),
        Err(error) => Told::Failed(error.to_string()),
    };
    if told.send(last).await.is_err() {
        tracing::debug!("nobody waited for the accounts");
    }
}

type Planned = (StreamId, Result<JobRequest, Account>, WorkerConfig);

async fn plan(
    request: &ReconcileRequest,
    workers: &[WorkerConfig],
    shared: &Shared,
) -> Result<Vec<Planned>, StateError> {
    let now = shared.clock.now();
    let ledgers = ledger::read(&*shared.store)?;
    let extent = request.since.map_or(Extent::All, Extent::Since);
    let meant = |worker: &&WorkerConfig| {
        let tenant = worker.step.memory.tenant();
        request
            .tenant
            .as_ref()
            .is_none_or(|wanted| wanted == tenant)
    };
    let mut plan = Vec::new();
    for worker in workers.iter().filter(meant) {
        for connector in &worker.connectors {
            for stream in connector.streams() {
                if connector.withheld(&stream).await.is_some() {
                    continue;
                }
                let from = (&*shared.store, ledgers.get(&stream));
                let job = reconcile::request((&**connector, &stream), extent, from, now)?;
                // Nothing was read of that span: nothing can be missing in it.
                let job = job.ok_or_else(|| Account::nothing(&stream, now));
                plan.push((stream, job, worker.clone()));
            }
        }
    }
    Ok(plan)
}

async fn run(plan: Vec<Planned>, shared: &Shared, told: &mpsc::Sender<Told>) -> Vec<Account> {
    let (reports, mut reported) = mpsc::channel(REPORTS_MAX);
    let jobs = plan.into_iter().map(|(stream, job, worker)| {
        let reports = reports.clone();
        async move {
            match job {
                Ok(job) => one(&stream, &job, &worker, shared, &reports).await,
                Err(account) => account,
            }
        }
        .boxed()
    });
    let jobs: Vec<_> = jobs.collect();
    drop(reports);
    let all = stream::iter(jobs).buffered(AT_ONCE).collect::<Vec<_>>();
    let passing_on = async {
        let mut known: BTreeMap<StreamId, Progress> = BTreeMap::new();
        while let Some((stream, progress)) = reported.recv().await {
            known.insert(stream, progress);
            // A caller who does not look does not hold the work up.
            if told.try_send(Told::Progress(sum(&known))).is_err() {
                tracing::trace!("a report was passed over");
            }
        }
    };
    tokio::join!(all, passing_on).0
}

async fn one(
    stream: &StreamId,
    job: &JobRequest,
    worker: &WorkerConfig,
    shared: &Shared,
    reports: &mpsc::Sender<(StreamId, Progress)>,
) -> Account {
    let (progress, mut reported) = mpsc::channel(REPORTS_MAX);
    let mut to = Reports::to(progress);
    let working = async {
        let account = reconcile::run((stream, job), worker, shared, &mut to).await;
        drop(to);
        account
    };
    let passing_on = async {
        while let Some(progress) = reported.recv().await {
            if reports.send((stream.clone(), progress)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(working, passing_on).0
}

fn sum(known: &BTreeMap<StreamId, Progress>) -> Progress {
    let mut all = Progress::default();
    for progress in known.values() {
        all.slices_done += progress.slices_done;
        all.slices += progress.slices;
        all.records += progress.records;
        all.seen_before += progress.seen_before;
    }
    all
}

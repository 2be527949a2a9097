//! `run`: the long-running poller. It stays up whatever a vendor refuses: what is held is tried again,
//! and a supervisor that starts it anew would only lose what is in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use exfilwatch_config::Config;
use exfilwatch_model::{Clock, Kind};
use exfilwatch_state::State;
use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{self, Tenants};
use crate::cli::Common;
use crate::cli::clock::{self, ClockArgs};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::reload::Reload;
use crate::cli::{domains, signals};
use crate::pipeline::job::keeper;
use crate::pipeline::own_domains::TenantDomains;
use crate::pipeline::reconcile::reconcile;
use crate::pipeline::worker::{Shared, WorkerConfig, run_tenant};
use crate::pipeline::{Parts, Pipeline};
use crate::serve::control::{self, AboutJob, Answers, Request};
use crate::serve::http;

/// Jobs waiting to be run; callers wait above it.
const JOBS_MAX: usize = 4;
/// Tries to open a state that another command holds for a moment, and the wait between them.
const LOCK_TRIES_MAX: u32 = 20;
/// Time between two looks at exceptions that lapse.
const EXCEPTIONS_EVERY: Duration = Duration::from_hours(24);
/// See [`LOCK_TRIES_MAX`].
const LOCK_WAIT: Duration = Duration::from_millis(250);
/// Wait before a tenant that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Address for /healthz, /readyz and /metrics (loopback only), above what the configuration
    /// says.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    clock: ClockArgs,
}

/// Runs the command.
pub(crate) async fn run(args: RunArgs, common: Common) -> Outcome {
    let config = app::load_to_detect(&common, true)?;
    let clock = clock::from_args(&args.clock);
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone());
    let hangup = signals::hangup()?;
    let state = open_when_free(&config, &clock).await?;
    let pipeline = Pipeline::start(Parts {
        state,
        routes: app::routes(&config, &clock)?,
        clock: clock.clone(),
        budget_bytes: config.state.outbox_bytes_max,
        shutdown: shutdown.clone(),
        drain: Duration::from_secs(config.run.shutdown_timeout_seconds),
    })
    .map_err(|error| app::state_failure(&error))?;
    let reloading = (common, hangup);
    let outcome = prepare_and_poll(&config, reloading, &pipeline, args.listen).await;
    let fatal = pipeline.shared().watch.copy().fatal;
    pipeline.stop().await;
    match fatal {
        Some(why) => {
            Err(Failure::new(Code::State, why).help("start it again: it goes on where it was"))
        }
        None => outcome,
    }
}

/// Opens the state. A command that only looks into it, or a predecessor that is on its way out, is
/// waited for; a process that polls is not.
async fn open_when_free(config: &Config, clock: &Arc<dyn Clock>) -> Result<State, Failure> {
    let mut tries = 0;
    loop {
        match app::open_state(config, clock.now()) {
            Err(failure) if failure.code == Code::State && tries < LOCK_TRIES_MAX => {
                let folder = &config.state.folder;
                let polls = control::ask::<serde_json::Value>(folder, &Request::Status).await;
                if !matches!(polls, Ok(None)) {
                    return Err(failure);
                }
                tries += 1;
                tokio::time::sleep(LOCK_WAIT).await;
            }
            outcome => return outcome,
        }
    }
}

async fn prepare_and_poll(
    config: &Config,
    (common, hangup): (Common, Signal),
    pipeline: &Pipeline,
    listen: Option<SocketAddr>,
) -> Outcome {
    let shared = pipeline.shared();
    let rules = app::rules(&config.detectors)?;
    let forwards_events = pipeline.takes(Kind::Events);
    let tenants = app::tenants(config, &rules, &shared.clock, forwards_events, shared)?;
    tokio::select! {
        known = domains::demand(config, &tenants, shared) => known?,
        () = shared.shutdown.cancelled() => return Ok(()),
    }
    let reload = Reload::new(common, config, tenants.clone(), shared.clone());
    let reloading = tokio::spawn(reload.serve(hangup));
    let outcome = poll(config, &tenants, pipeline, listen).await;
    reloading.abort();
    outcome
}

async fn poll(
    config: &Config,
    tenants: &Tenants,
    pipeline: &Pipeline,
    listen: Option<SocketAddr>,
) -> Outcome {
    let shared = pipeline.shared();
    let tasks = TaskTracker::new();
    if let Some(address) = listen.or(config.serve.listen) {
        let listener = http::bind(address).await.map_err(|error| {
            Failure::caused(Code::Usage, format!("listening on {address}"), &error)
        })?;
        let status = http::Status {
            watch: shared.watch.clone(),
            clock: shared.clock.clone(),
            finding_wait_max: app::seconds(config.serve.finding_wait_seconds_max),
        };
        let shutdown = shared.shutdown.clone();
        tasks.spawn(async move {
            if let Err(error) = http::serve(listener, status, shutdown).await {
                tracing::error!(%error, "health and metrics are no longer served");
            }
        });
    }
    let (jobs, requests) = mpsc::channel(JOBS_MAX);
    let socket = control::bind(&config.state.folder).map_err(|error| {
        Failure::caused(
            Code::State,
            "making the control socket in the state folder",
            &error,
        )
    })?;
    let answers = Answers {
        watch: shared.watch.clone(),
        committer: shared.committer.clone(),
        store: shared.store.clone(),
        clock: shared.clock.clone(),
        again: shared.again.clone(),
        jobs,
    };
    tasks.spawn(control::serve(socket, answers, shared.shutdown.clone()));
    tasks.spawn(warn_of_exceptions(shared.clone()));
    tasks.spawn(serve_jobs(requests, tenants.clone(), shared.clone()));
    for domains in tenants.domains.iter().filter(|domains| domains.asks()) {
        tasks.spawn(domains.clone().keep_current(shared.clone()));
    }
    let noted = keeper::note_first_runs(&tenants.workers, shared).await;
    noted.map_err(|error| {
        let what = "noting what new streams are to be read";
        Failure::caused(Code::State, what, &error)
    })?;
    let places = || Arc::new(Semaphore::new(keeper::AT_ONCE));
    let (jobs_at_once, reconciled_at_once) = (places(), places());
    for (worker, domains) in tenants.workers.iter().zip(&tenants.domains) {
        let waits = config.detectors.enabled && domains.unknown();
        let first = waits.then(|| domains.clone());
        let jobs = keeper::keep(worker.clone(), shared.clone(), jobs_at_once.clone());
        let daily = reconciled_at_once.clone();
        let daily = keeper::reconcile_daily(worker.clone(), shared.clone(), daily);
        let jobs = async { tokio::join!(jobs, daily) };
        tasks.spawn(keep_running(worker.clone(), first, shared.clone(), jobs));
    }
    shared.shutdown.cancelled().await;
    tracing::info!("shutting down: what is committed stays, what is in flight is given a moment");
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Says daily which exceptions lapse soon or have lapsed.
async fn warn_of_exceptions(shared: Shared) {
    loop {
        let now = shared.clock.now();
        for exception in shared.watch.copy().exceptions {
            if let Some(warning) = exception.warning(now) {
                tracing::warn!("{warning}");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(shared.clock.real(EXCEPTIONS_EVERY)) => {}
            () = shared.shutdown.cancelled() => return,
        }
    }
}

/// Runs a tenant, as soon as its domains are known, and again when it panicked: one tenant's trouble
/// stays its own.
async fn keep_running(
    worker: WorkerConfig,
    first: Option<TenantDomains>,
    shared: Shared,
    jobs: impl Future<Output: Send> + Send + 'static,
) {
    if let Some(domains) = first {
        tokio::select! {
            () = domains.known() => {}
            () = shared.shutdown.cancelled() => return,
        }
    }
    tracing::info!(tenant = %worker.step.memory.tenant(), connectors = worker.connectors.len(), "polling");
    let jobs = tokio::spawn(jobs);
    while !shared.shutdown.is_cancelled() {
        let running = tokio::spawn(run_tenant(worker.clone(), shared.clone()));
        let Err(error) = running.await else { break };
        tracing::error!(tenant = %worker.step.memory.tenant(), %error, "the tenant starts again");
        tokio::select! {
            () = tokio::time::sleep(AFTER_PANIC) => {}
            () = shared.shutdown.cancelled() => {}
        }
    }
    if let Err(error) = jobs.await {
        tracing::error!(tenant = %worker.step.memory.tenant(), %error, "the tenant's own jobs ended");
    }
}

/// Runs jobs that come over the control socket, one at a time, beside the poller. Plans are made at
/// once: they change nothing.
async fn serve_jobs(mut requests: mpsc::Receiver<AboutJob>, tenants: Tenants, shared: Shared) {
    let one_at_a_time = Arc::new(Mutex::new(()));
    let running = TaskTracker::new();
    loop {
        let next = tokio::select! {
            next = requests.recv() => next,
            () = shared.shutdown.cancelled() => None,
        };
        let Some(about) = next else { break };
        let (tenants, shared, turn) = (tenants.clone(), shared.clone(), one_at_a_time.clone());
        running.spawn(async move {
            match about {
                AboutJob::Plan(request, reply) => {
                    let plans = tenants.plan(&request, &*shared.clock, true).await;
                    if reply.send(plans).is_err() {
                        tracing::debug!("nobody waited for the plan");
                    }
                }
                AboutJob::Reconcile(request, told) => {
                    reconcile(&request, &tenants.workers, &shared, &told).await;
                }
                AboutJob::Run(request, progress) => {
                    let _turn = turn.lock().await;
                    tenants.run_job(&request, &shared, &progress).await;
                }
            }
        });
    }
    running.close();
    running.wait().await;
}

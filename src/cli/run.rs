//! `run`: the long-running poller. It stays up whatever a vendor refuses: what is held is tried again,
//! and a supervisor that starts it anew would only lose what is in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use exfilwatch_config::Config;
use exfilwatch_model::{Clock, Kind};
use exfilwatch_state::State;
use futures::future::BoxFuture;
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
use crate::pipeline::job::{JobEnd, Progress, keeper};
use crate::pipeline::own_domains::TenantDomains;
use crate::pipeline::reconcile::{Told, reconcile};
use crate::pipeline::supervise::Supervisor;
use crate::pipeline::worker::{Shared, WorkerConfig, run_tenant};
use crate::pipeline::{Parts, Pipeline};
use crate::serve::control::{self, AboutJob, Answers, Request};
use crate::serve::http;

/// What is asked about jobs and not yet looked at; callers wait above it.
const JOBS_MAX: usize = 4;
/// Jobs, and reconciliations, that were asked for and have not ended; more are refused. Whoever asked may have
/// gone away: they go on.
const ASKED_MAX: usize = 4;
/// Tries to open a state that another command holds for a moment, and the wait between them.
const LOCK_TRIES_MAX: u32 = 20;
/// Time between two looks at exceptions that lapse.
const EXCEPTIONS_EVERY: Duration = Duration::from_hours(24);
/// See [`LOCK_TRIES_MAX`].
const LOCK_WAIT: Duration = Duration::from_millis(250);

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
        routes: crate::routes::build(&config, &clock)?,
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
    let supervisor = Supervisor::of(shared);
    let reloading = tokio::spawn(async move {
        let task = "the reload of the configuration";
        supervisor.or_stop(task, reload.serve(hangup)).await;
    });
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
    let supervisor = Supervisor::of(shared);
    let essential = |task, future: BoxFuture<'static, ()>| {
        let supervisor = supervisor.clone();
        tasks.spawn(async move { supervisor.or_stop(task, future).await });
    };
    if let Some(address) = listen.or(config.serve.listen) {
        let listener = http::bind(address).await.map_err(|error| {
            Failure::caused(Code::Usage, format!("listening on {address}"), &error)
        })?;
        let status = http::Status {
            watch: shared.watch.clone(),
            store: shared.store.clone(),
            clock: shared.clock.clone(),
            finding_wait_max: app::seconds(config.serve.finding_wait_seconds_max),
        };
        let (watch, shutdown) = (shared.watch.clone(), shared.shutdown.clone());
        let serving = async move {
            if let Err(error) = http::serve(listener, status, shutdown.clone()).await {
                watch.set_fatal(format!("health and metrics are no longer served: {error}"));
                shutdown.cancel();
            }
        };
        essential("health and metrics", Box::pin(serving));
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
    let serving = control::serve(socket, answers, shared.shutdown.clone());
    essential("the control socket", Box::pin(serving));
    let serving = serve_jobs(requests, tenants.clone(), shared.clone());
    essential("jobs that are asked for", Box::pin(serving));
    essential(
        "the watch on exceptions",
        Box::pin(warn_of_exceptions(shared.clone())),
    );
    for domains in tenants.domains.iter().filter(|domains| domains.asks()) {
        let (domains, shared, supervisor) = (domains.clone(), shared.clone(), supervisor.clone());
        tasks.spawn(async move {
            let start = || domains.clone().keep_current(shared.clone());
            supervisor.again("own domains", None, start).await;
        });
    }
    let noted = keeper::note_first_runs(&tenants.workers, shared).await;
    noted.map_err(|error| {
        let what = "noting what new streams are to be read";
        Failure::caused(Code::State, what, &error)
    })?;
    let places = || Arc::new(Semaphore::new(keeper::AT_ONCE));
    let places = (places(), places());
    for (worker, domains) in tenants.workers.iter().zip(&tenants.domains) {
        let waits = config.detectors.enabled && domains.unknown();
        let first = waits.then(|| domains.clone());
        let running = keep_running(worker.clone(), first, shared.clone(), places.clone());
        tasks.spawn(running);
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

/// Runs a tenant and the jobs it does by itself, as soon as its domains are known. Each starts again when
/// it panicked: one tenant's trouble stays its own. `places` are for jobs and for reconciliations.
async fn keep_running(
    worker: WorkerConfig,
    first: Option<TenantDomains>,
    shared: Shared,
    places: (Arc<Semaphore>, Arc<Semaphore>),
) {
    if let Some(domains) = first {
        tokio::select! {
            () = domains.known() => {}
            () = shared.shutdown.cancelled() => return,
        }
    }
    let tenant = Some(worker.step.memory.tenant());
    tracing::info!(tenant = %worker.step.memory.tenant(), connectors = worker.connectors.len(), "polling");
    let supervisor = Supervisor::of(&shared);
    let with = || (worker.clone(), shared.clone());
    let polling = supervisor.again("polling", tenant, || {
        let (worker, shared) = with();
        run_tenant(worker, shared)
    });
    let jobs = supervisor.again("gap filling", tenant, || {
        let (worker, shared) = with();
        keeper::keep(worker, shared, places.0.clone())
    });
    let daily = supervisor.again("daily reconciliation", tenant, || {
        let (worker, shared) = with();
        keeper::reconcile_daily(worker, shared, places.1.clone())
    });
    tokio::join!(polling, jobs, daily);
}

/// Runs jobs that come over the control socket beside the poller, those that detect one at a time. Plans
/// are made at once: they change nothing. What would wait behind too many others is refused.
async fn serve_jobs(mut requests: mpsc::Receiver<AboutJob>, tenants: Tenants, shared: Shared) {
    let one_at_a_time = Arc::new(Mutex::new(()));
    let places = || Arc::new(Semaphore::new(ASKED_MAX));
    let (jobs, reconciliations, watch) = (places(), places(), shared.watch.clone());
    let running = TaskTracker::new();
    loop {
        let next = tokio::select! {
            next = requests.recv() => next,
            () = shared.shutdown.cancelled() => None,
        };
        let Some(about) = next else { break };
        let (tenants, shared, turn) = (tenants.clone(), shared.clone(), one_at_a_time.clone());
        let work: BoxFuture<'static, ()> = match about {
            AboutJob::Plan(request, reply) => Box::pin(async move {
                let plans = tenants.plan(&request, &*shared.clock, true).await;
                if reply.send(plans).is_err() {
                    tracing::debug!("nobody waited for the plan");
                }
            }),
            AboutJob::Reconcile(request, told) => match reconciliations.clone().try_acquire_owned()
            {
                Ok(place) => Box::pin(async move {
                    reconcile(&request, &tenants.workers, &shared, &told).await;
                    drop(place);
                }),
                Err(_) => refuse(&told, Told::Failed(too_many("reconciliations"))),
            },
            AboutJob::Run(request, progress) => match jobs.clone().try_acquire_owned() {
                Ok(place) => Box::pin(async move {
                    let _turn = turn.lock().await;
                    tenants.run_job(&request, &shared, &progress).await;
                    drop(place);
                }),
                Err(_) => {
                    let end = Some(JobEnd::Usage(too_many("jobs")));
                    refuse(
                        &progress,
                        Progress {
                            end,
                            ..Progress::default()
                        },
                    )
                }
            },
        };
        let watch = watch.clone();
        running.spawn(async move {
            // Whoever asked sees that no end came; the others go on.
            if let Err(error) = tokio::spawn(work).await {
                tracing::error!(%error, "a job that was asked for panicked");
                watch.restarted("a job that was asked for");
            }
        });
    }
    running.close();
    running.wait().await;
}

/// Tells whoever asked that it will not be done.
fn refuse<T: Send + 'static>(whom: &mpsc::Sender<T>, what: T) -> BoxFuture<'static, ()> {
    let whom = whom.clone();
    Box::pin(async move {
        if whom.send(what).await.is_err() {
            tracing::debug!("nobody waited for the refusal");
        }
    })
}

fn too_many(what: &str) -> String {
    format!(
        "{ASKED_MAX} {what} that were asked for have not ended, also where their callers went away; ask \
         again when one has (the log says when)"
    )
}

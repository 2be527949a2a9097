//! `demo`: everything at work on simulated tenants. The services are simulated, on loopback; connectors,
//! detectors, store and delivery are the real ones, built from a configuration file like anyone's.
//!
//! At the end the receiver's content is held against the simulator's answer sheet.

mod screen;
mod setting;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use exfilwatch_model::{Clock, Kind, RatedClock};
use exfilwatch_simulator::{Running, Simulator};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::print;
use crate::cli::signals;
use crate::pipeline::worker::run_tenant;
use crate::pipeline::{Parts, Pipeline, Route};
use screen::{Delivery, Screen};
use setting::Setting;

/// How often the running line is shown.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How long lanes may stand still at the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Records younger than this at the end may still be on their way.
const SETTLED: TimeDelta = TimeDelta::minutes(40);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How long it takes, in seconds; eight hours of office life fit into it.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=3_600))]
    seconds: u64,
    /// Seed of the simulated tenants: the same seed is the same story.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Runs the command.
pub(crate) async fn run(args: DemoArgs) -> Outcome {
    let setting = Setting::new(args.seed, args.seconds);
    print(&setting.introduction())?;
    let started = Instant::now();
    let simulator = Simulator::new(setting.world(), setting.simulator())
        .map_err(|error| Failure::caused(Code::State, "making the simulated tenants", &error))?
        .start()
        .await
        .map_err(|error| Failure::caused(Code::State, "starting the simulated services", &error))?;
    let folder = setting::Folder::make()?;
    let outcome = play(&setting, started, &simulator, &folder).await;
    simulator.shutdown().await;
    outcome
}

async fn play(
    setting: &Setting,
    started: Instant,
    simulator: &Running,
    folder: &setting::Folder,
) -> Outcome {
    let config = folder.configuration(simulator)?;
    let clock: Arc<dyn Clock> = Arc::new(RatedClock::new(
        simulator.simulator.clock().now(),
        Instant::now(),
        setting.rate(),
    ));
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone());
    let mut routes = crate::routes::build(&config, &clock)?;
    let delivery = Delivery::default();
    let screen = Arc::new(Screen::new(started, delivery.clone()));
    routes.push(Route::all(screen, vec![Kind::Findings, Kind::Signals]));
    let state = app::open_state(&config, clock.now())?;
    let pipeline = Pipeline::start(Parts {
        state,
        routes,
        clock: clock.clone(),
        budget_bytes: config.state.outbox_bytes_max,
        shutdown: shutdown.clone(),
        drain: Duration::from_secs(config.run.shutdown_timeout_seconds),
    })
    .map_err(|error| app::state_failure(&error))?;
    let rules = app::rules(&config.detectors)?;
    let tenants = app::tenants(
        &config,
        &rules,
        &clock,
        pipeline.takes(Kind::Events),
        pipeline.shared(),
    )?;
    let tasks = TaskTracker::new();
    for worker in tenants.workers {
        tasks.spawn(run_tenant(worker, pipeline.shared().clone()));
    }
    let ended = watch(setting, &pipeline, &clock).await;
    let until = clock.now() - SETTLED;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    let finished = pipeline.finish(PATIENCE, CancellationToken::new()).await;
    ended?;
    if let Err(lanes) = finished {
        return Err(app::undelivered(&lanes, &config.state.folder));
    }
    let delivered = delivery
        .lock()
        .map(|delivery| delivery.clone())
        .unwrap_or_default();
    verdict::compare(simulator, &delivered, until)
}

/// Shows the running line until the time is over. Interrupted, the demo ends at once.
async fn watch(setting: &Setting, pipeline: &Pipeline, clock: &Arc<dyn Clock>) -> Outcome {
    let end = tokio::time::Instant::now() + setting.length();
    let mut line = tokio::time::interval(LINE_EVERY);
    line.tick().await;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => return Ok(()),
            () = pipeline.shared().shutdown.cancelled() => {
                return signals::interrupted(&pipeline.shared().shutdown);
            }
            _ = line.tick() => print(&screen::line(&pipeline.shared().watch.copy(), clock.now()))?,
        }
    }
}

//! `backfill`: a past range, read once. Asks a running process to do it, so that one limiter holds the
//! tenant's quota; does it itself where none answers.

mod range;
mod told;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_config::Config;
use exfilwatch_model::{Clock, Kind, TenantId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::{self, Tenants};
use crate::cli::bar::Bar;
use crate::cli::clock::{self, ClockArgs};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, print};
use crate::cli::{Common, baselines, domains, signals};
use crate::pipeline::job::plan::{self, Basis, Plan};
use crate::pipeline::job::{JobKind, JobRequest, Progress, SliceAccount};
use crate::pipeline::worker::Shared;
use crate::pipeline::{Parts, Pipeline};
use crate::serve::control::{Caller, Request};
pub(crate) use range::{age as parse_age, time as parse_time, window as parse_window};

/// How long lanes may stand still at the end before what is left stays in the outbox.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `backfill`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackfillArgs {
    /// Start of the range: a time with zone (2026-05-01T00:00:00Z), a date (UTC), or an age (36h, 7d).
    #[arg(long, alias = "from")]
    since: String,
    /// End of the range, written like --since; the present where absent.
    #[arg(long, alias = "to")]
    until: Option<String>,
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only this stream, as in `status` (office365/Audit.Exchange, or drive); may be repeated.
    #[arg(long, value_name = "STREAM", alias = "app")]
    stream: Vec<String>,
    /// Only says what the detectors find: delivers no record, and none counts as seen.
    #[arg(long)]
    detect_only: bool,
    /// Only this rule, by id, name or pattern (o365.mail.*); may be repeated.
    #[arg(long, value_name = "RULE", requires = "detect_only")]
    rule: Vec<String>,
    /// Prints the plan and does nothing else.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    clock: ClockArgs,
}

/// Runs the command.
pub(crate) async fn run(args: BackfillArgs, common: Common) -> Outcome {
    let config = app::load_to_detect(&common, true)?;
    let clock = clock::from_args(&args.clock);
    let request = request(&args, clock.now())?;
    if args.dry_run {
        return plan_only(&request, &config, &clock, common.output).await;
    }
    carry_out(&request, &config, clock, common.output).await
}

/// Prints what a job will take.
pub(crate) async fn plan_only(
    request: &JobRequest,
    config: &Config,
    clock: &Arc<dyn Clock>,
    output: Output,
) -> Outcome {
    check(request, config)?;
    let plans = match ask_plan(&config.state.folder, request).await? {
        Some(plans) => plans,
        None => plan_ourselves(config, clock, request).await?,
    };
    told::plan(&plans, output, true)
}

/// Has a job done, and tells of it.
pub(crate) async fn carry_out(
    request: &JobRequest,
    config: &Config,
    clock: Arc<dyn Clock>,
    output: Output,
) -> Outcome {
    check(request, config)?;
    let mut job = Job {
        request,
        output,
        bar: Bar::new(request.kind.as_str()),
        plans: Vec::new(),
        slices: Vec::new(),
    };
    let done = match job.ask(&config.state.folder).await? {
        Some(progress) => progress,
        None => job.by_ourselves(config, clock.clone()).await?,
    };
    told::account(&job.plans, &job.slices, &done, output)?;
    if output == Output::Table {
        print(&baselines::text(&done.learned, clock.now(), true))?;
    }
    told::outcome(&done, request.kind)
}

fn request(args: &BackfillArgs, now: DateTime<Utc>) -> Result<JobRequest, Failure> {
    let until = args.until.as_deref();
    Ok(JobRequest {
        kind: if args.detect_only {
            JobKind::DetectOnly
        } else {
            JobKind::Backfill
        },
        window: range::window(&args.since, until, now)?,
        asked: format!("{} {}", args.since, until.unwrap_or("now")),
        tenant: args.tenant.clone(),
        streams: args.stream.clone(),
        rules: args.rule.clone(),
        gap: None,
    })
}

/// What is asked for must be there.
fn check(request: &JobRequest, config: &Config) -> Outcome {
    if let Some(tenant) = &request.tenant
        && !config.tenants.contains_key(tenant)
    {
        let known: Vec<&str> = config.tenants.keys().map(TenantId::as_str).collect();
        let what = format!("there is no tenant {tenant} in the configuration");
        let help = format!("the configuration knows: {}", known.join(", "));
        return Err(Failure::new(Code::Usage, what).help(help));
    }
    if request.kind != JobKind::Backfill && !config.detectors.enabled {
        let what = "with detectors.enabled = false nothing would be found or learned";
        return Err(Failure::new(Code::Usage, what));
    }
    if request.rules.is_empty() {
        return Ok(());
    }
    let rules = app::rules(&config.detectors)?;
    app::check_rules_of_job([&rules], &request.rules)
}

/// Streams that are asked for must be there.
fn check_streams(request: &JobRequest, plans: &[Plan]) -> Outcome {
    if plans.iter().any(|plan| !plan.streams.is_empty()) || request.streams.is_empty() {
        return Ok(());
    }
    let what = format!("there is no stream {}", request.streams.join(", "));
    Err(Failure::new(Code::Usage, what).help("exfilwatch status lists the streams"))
}

fn unanswered(error: &std::io::Error) -> Failure {
    let what = "asking the running process over its control socket";
    Failure::caused(Code::State, what, error)
}

/// Has a running process plan it. `None` where no process answers.
async fn ask_plan(folder: &Path, request: &JobRequest) -> Result<Option<Vec<Plan>>, Failure> {
    let asked = Request::Plan(request.clone());
    let caller = Caller::ask(folder, &asked).await;
    let Some(mut caller) = caller.map_err(|error| unanswered(&error))? else {
        return Ok(None);
    };
    let plans: Option<Vec<Plan>> = caller.next().await.map_err(|error| unanswered(&error))?;
    let plans = plans.unwrap_or_default();
    check_streams(request, &plans)?;
    Ok(Some(plans))
}

/// Plans without opening the state: nothing is changed and nothing sent.
async fn plan_ourselves(
    config: &Config,
    clock: &Arc<dyn Clock>,
    request: &JobRequest,
) -> Result<Vec<Plan>, Failure> {
    let rules = app::rules(&config.detectors)?;
    let mut plans = Vec::new();
    for (tenant, connectors) in app::connectors(config, clock)? {
        if request.is_for_tenant(&tenant) {
            let basis = Basis {
                connectors: &connectors,
                longest: rules.longest_window(),
                beside_live: false,
            };
            plans.push(plan::plan(request, basis, &**clock).await);
        }
    }
    check_streams(request, &plans)?;
    Ok(plans)
}

/// A job while it runs.
struct Job<'a> {
    request: &'a JobRequest,
    output: Output,
    bar: Bar,
    plans: Vec<Plan>,
    slices: Vec<SliceAccount>,
}

impl Job<'_> {
    fn planned(&mut self, plans: Vec<Plan>) -> Outcome {
        check_streams(self.request, &plans)?;
        told::plan(&plans, self.output, false)?;
        self.plans = plans;
        Ok(())
    }

    fn show(&mut self, progress: &Progress) -> Outcome {
        self.bar.show(progress);
        told::slices(&progress.finished, self.output)?;
        if self.output == Output::Json {
            self.slices.extend(progress.finished.iter().cloned());
        }
        Ok(())
    }

    /// Has a running process do it, and shows its progress. `None` where no process answers.
    async fn ask(&mut self, folder: &Path) -> Result<Option<Progress>, Failure> {
        let Some(plans) = ask_plan(folder, self.request).await? else {
            return Ok(None);
        };
        self.planned(plans)?;
        let request = Request::Backfill(self.request.clone());
        let caller = Caller::ask(folder, &request).await;
        let Some(mut caller) = caller.map_err(|error| unanswered(&error))? else {
            return Ok(None);
        };
        let mut last = Progress::default();
        while let Some(progress) = caller
            .next::<Progress>()
            .await
            .map_err(|error| unanswered(&error))?
        {
            self.show(&progress)?;
            last = progress;
        }
        self.bar.end();
        Ok(Some(last))
    }

    async fn by_ourselves(
        &mut self,
        config: &Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Progress, Failure> {
        let shutdown = CancellationToken::new();
        signals::cancel_on_signal(shutdown.clone());
        let state = app::open_state(config, clock.now())?;
        let pipeline = Pipeline::start(Parts {
            state,
            routes: crate::routes::build(config, &clock)?,
            clock: clock.clone(),
            budget_bytes: config.state.outbox_bytes_max,
            shutdown: shutdown.clone(),
            drain: Duration::from_secs(config.run.shutdown_timeout_seconds),
        })
        .map_err(|error| app::state_failure(&error))?;
        let rules = app::rules(&config.detectors)?;
        let forwards_events = pipeline.takes(Kind::Events);
        let shared = pipeline.shared().clone();
        let tenants = app::tenants(config, &rules, &clock, forwards_events, &shared)?;
        if let Err(failure) = domains::demand(config, &tenants, &shared).await {
            pipeline.stop().await;
            return Err(failure);
        }
        let worked = self.work(&tenants, &shared).await;
        self.bar.end();
        app::fatal(&pipeline)?;
        if self.request.kind == JobKind::Learn {
            // What waits for the receivers is not this command's.
            pipeline.stop().await;
            return worked;
        }
        let finished = pipeline.finish(PATIENCE, shutdown.clone()).await;
        let last = worked?;
        if !shutdown.is_cancelled() {
            finished.map_err(|lanes| app::undelivered(&lanes, &config.state.folder))?;
        }
        Ok(last)
    }

    async fn work(&mut self, tenants: &Tenants, shared: &Shared) -> Result<Progress, Failure> {
        let plans = tenants.plan(self.request, &*shared.clock, false);
        let Some(plans) = shared.shutdown.run_until_cancelled(plans).await else {
            return Err(Failure::new(Code::Interrupted, "interrupted"));
        };
        self.planned(plans)?;
        let (progress, mut reports) = mpsc::channel(16);
        let request = self.request;
        let job = async {
            tenants.run_job(request, shared, &progress).await;
            drop(progress);
        };
        let watch = async {
            let mut last = Progress::default();
            let mut shown = Ok(());
            while let Some(report) = reports.recv().await {
                // Standard output that is gone does not stop the work.
                shown = shown.and(self.show(&report));
                last = report;
            }
            shown.map(|()| last)
        };
        let ((), last) = tokio::join!(job, watch);
        last
    }
}

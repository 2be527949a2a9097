//! `learn`: reads the past for what rules measure events against (first seen, more than usual), and says
//! nothing of what it finds.
//!
//! From the vendors' logs it is a job like `backfill`, done by a running process where one answers; what our own
//! archive has is read from there. From files it is done here. Either way what was learned lies in the state as lessons, which the live line
//! takes in.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_config::Config;
use exfilwatch_model::{Clock, TenantId};
use exfilwatch_state::Commit;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::clock::{self, ClockArgs};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, print};
use crate::cli::{Common, backfill, baselines, forward, signals, sources};
use crate::files::Input;
use crate::pipeline::baselines::Known;
use crate::pipeline::ingest::Ingest;
use crate::pipeline::job::{JobKind, JobRequest};
use crate::pipeline::step::{Purpose, StepConfig};
use crate::pipeline::{Parts, Pipeline};
use crate::{app, tuning};

/// Arguments of `learn`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["files", "since"])))]
pub(crate) struct LearnArgs {
    /// Files with native records to learn from, as `forward` takes them, in place of the vendors' logs.
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// How far back the vendors' logs are read: an age (30d), a date (UTC) or a time with zone. Days that an
    /// archive ([emitters.archive]) has are read from there.
    #[arg(long)]
    since: Option<String>,
    /// End of the range, written like --since; the present where absent.
    #[arg(long, requires = "since")]
    until: Option<String>,
    /// Only this tenant. With files: whose they are; may be left out where there is only one.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only this stream, as in `status`; may be repeated.
    #[arg(long, value_name = "STREAM", requires = "since")]
    stream: Vec<String>,
    /// Only this rule, by id, name or pattern; may be repeated.
    #[arg(long, value_name = "RULE")]
    rule: Vec<String>,
    /// Prints what it will take and does nothing else.
    #[arg(long, requires = "since")]
    dry_run: bool,
    #[command(flatten)]
    clock: ClockArgs,
}

/// Runs the command.
pub(crate) async fn run(args: LearnArgs, common: Common) -> Outcome {
    let config = app::load_to_detect(&common, true)?;
    let clock = clock::from_args(&args.clock);
    let Some(since) = &args.since else {
        return from_files(&args, &config, clock, common.output).await;
    };
    let until = args.until.as_deref();
    let request = JobRequest {
        kind: JobKind::Learn,
        window: backfill::parse_window(since, until, clock.now())?,
        asked: format!("{since} {}", until.unwrap_or("now")),
        tenant: args.tenant.clone(),
        streams: args.stream.clone(),
        rules: args.rule.clone(),
        gap: None,
    };
    if args.dry_run {
        return backfill::plan_only(&request, &config, &clock, common.output).await;
    }
    backfill::carry_out(&request, &config, clock, common.output).await
}

/// What was read of the files.
#[derive(Debug, Default)]
struct Read {
    records: u64,
    malformed: u64,
    learned: Vec<Known>,
}

async fn from_files(
    args: &LearnArgs,
    config: &Config,
    clock: Arc<dyn Clock>,
    output: Output,
) -> Outcome {
    let tenant = tenant(args, config)?;
    if !config.detectors.enabled {
        let what = "with detectors.enabled = false nothing would be learned";
        return Err(Failure::new(Code::Usage, what));
    }
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone());
    let pipeline = Pipeline::start(Parts {
        state: app::open_state(config, clock.now())?,
        routes: crate::routes::build(config, &clock)?,
        clock: clock.clone(),
        budget_bytes: config.state.outbox_bytes_max,
        shutdown: shutdown.clone(),
        drain: Duration::from_secs(config.run.shutdown_timeout_seconds),
    })
    .map_err(|error| app::state_failure(&error))?;
    let read = read(args, &tenant, config, &pipeline).await;
    let fatal = app::fatal(&pipeline);
    pipeline.stop().await;
    fatal?;
    let read = read?;
    signals::interrupted(&shutdown)?;
    tell(&read, clock.now(), output)
}

/// Whose files they are.
fn tenant(args: &LearnArgs, config: &Config) -> Result<TenantId, Failure> {
    let known: Vec<&str> = config.tenants.keys().map(TenantId::as_str).collect();
    let help = format!(
        "--tenant names one; the configuration knows: {}",
        known.join(", ")
    );
    match &args.tenant {
        Some(tenant) if config.tenants.contains_key(tenant) => Ok(tenant.clone()),
        Some(tenant) => {
            let what = format!("there is no tenant {tenant} in the configuration");
            Err(Failure::new(Code::Usage, what).help(help))
        }
        None => match config.tenants.keys().collect::<Vec<_>>()[..] {
            [only] => Ok(only.clone()),
            _ => {
                let what = "it is not said whose the files are";
                Err(Failure::new(Code::Usage, what).help(help))
            }
        },
    }
}

async fn read(
    args: &LearnArgs,
    tenant: &TenantId,
    config: &Config,
    pipeline: &Pipeline,
) -> Result<Read, Failure> {
    let inputs: Vec<Input> = args
        .files
        .iter()
        .map(|file| Input::from_argument(file))
        .collect();
    let mut files = Vec::new();
    for input in &inputs {
        files.push((input, forward::digest(input)?));
    }
    let job = forward::job_of("learn", &files);
    let shared = pipeline.shared();
    let all = tuning::rules_of(config, &app::rules(&config.detectors)?, tenant)?;
    app::check_rules_of_job([&all], &args.rule)?;
    let rules = match args.rule.as_slice() {
        [] => all.learning(),
        names => all.those_of(names).learning(),
    };
    let step = StepConfig {
        memory: app::memory(tenant.clone(), shared)?,
        job: job.clone(),
        readers: forward::readers(tenant, &[], config, shared)?,
        rules: Arc::new(rules).into(),
        forwards_events: false,
        purpose: Purpose::Learn(None),
        live_since: DateTime::<Utc>::MAX_UTC,
    };
    let (store, committer) = (shared.store.clone(), shared.committer.clone());
    let ingest = Ingest::restore(step, store, committer, shared.watch.clone());
    // Interrupted, the files are read again from the first.
    let mut ingest = ingest
        .map_err(|error| app::state_failure(&error))?
        .transient();
    let mut read = Read::default();
    let unwritten = |error| {
        Failure::caused(Code::State, "writing what was learned", &error).help("run it again")
    };
    for input in &inputs {
        for batch in sources::open(input)? {
            let batch = batch.map_err(|error| sources::broken(&error))?;
            for (product, page) in forward::pages(batch, tenant, shared.clock.now())? {
                let products = vec![product; page.records.len()];
                let counts = ingest.page(&page, &products, Commit::default()).await;
                let counts = counts.map_err(unwritten)?;
                read.records += counts.records;
                read.malformed += counts.malformed;
            }
            if shared.shutdown.is_cancelled() {
                return Ok(read);
            }
        }
    }
    ingest.end(shared.clock.now()).await.map_err(unwritten)?;
    // An older version wrote them.
    let forgotten = shared.store.forget_job_windows(&job);
    forgotten.map_err(|error| app::state_failure(&error))?;
    let counters = ingest.counters();
    if counters.shed_entries + counters.capped_entries > 0 {
        tracing::warn!(
            shed = counters.shed_entries,
            capped = counters.capped_entries,
            "the files hold more than a detector remembers at a time: counts of days are too low; learn from \
             the vendors (exfilwatch learn --since), or from files of fewer days"
        );
    }
    let learned = ingest.baselines().into_iter();
    read.learned = learned.map(|one| Known::new(tenant, one)).collect();
    Ok(read)
}

fn tell(read: &Read, now: DateTime<Utc>, output: Output) -> Outcome {
    if output == Output::Table {
        return print(&format!(
            "{} records read, {} malformed\n{}",
            read.records,
            read.malformed,
            baselines::text(&read.learned, now, true)
        ));
    }
    let document = json!({
        "end": "done", "records": read.records, "malformed": read.malformed, "learned": read.learned,
    });
    print(&format!("{document}\n"))
}

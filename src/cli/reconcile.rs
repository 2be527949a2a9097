//! `reconcile`: everything the vendor still lists is listed again and held against what was fetched;
//! what is missing is fetched. The running process does it where one answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use exfilwatch_config::Config;
use exfilwatch_model::{Clock, Kind, TenantId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app;
use crate::cli::backfill::parse_time;
use crate::cli::bar::Bar;
use crate::cli::clock::{self, ClockArgs};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Table, print_items};
use crate::cli::status::asked;
use crate::cli::{Common, domains, signals};
use crate::pipeline::ledger::Account;
use crate::pipeline::reconcile::{ReconcileRequest, Told, reconcile};
use crate::pipeline::worker::run_tenant;
use crate::pipeline::{Parts, Pipeline};
use crate::serve::control::{Caller, Request};

/// How long lanes may stand still at the end before what is left stays in the outbox.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `reconcile`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReconcileArgs {
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// From when on: a time with zone, a date (UTC), or an age (36h, 3d). Where absent, all that the
    /// daily pass lists again.
    #[arg(long)]
    since: Option<String>,
    #[command(flatten)]
    clock: ClockArgs,
}

/// Runs the command. Ends with exit code 7 when something is still missing, or lost.
pub(crate) async fn run(args: ReconcileArgs, common: Common) -> Outcome {
    let config = app::load(&common, true)?;
    let clock = clock::from_args(&args.clock);
    if let Some(tenant) = &args.tenant
        && !config.tenants.contains_key(tenant)
    {
        let what = format!("there is no tenant {tenant} in the configuration");
        return Err(Failure::new(Code::Usage, what));
    }
    let since = args
        .since
        .as_deref()
        .map(|text| parse_time("--since", text, clock.now()))
        .transpose()?;
    let request = ReconcileRequest {
        tenant: args.tenant,
        since,
    };
    let mut bar = Bar::new("reconcile");
    let accounts = match of_running(&config.state.folder, &request, &mut bar).await? {
        Some(accounts) => accounts,
        None => by_ourselves(&config, clock, request, &mut bar).await?,
    };
    bar.end();
    print_items(common.output, &accounts, &table(&accounts))?;
    outcome(&accounts)
}

fn table(accounts: &[Account]) -> Table {
    let mut table = Table::new(&[
        "STREAM",
        "FROM",
        "LISTED",
        "DONE BEFORE",
        "FETCHED NOW",
        "RECORDS READ",
        "NEW",
        "STILL MISSING",
        "LOST",
        "LATE",
        "NOTE",
    ]);
    for account in accounts {
        table.row([
            account.stream.to_string(),
            account.from.format("%Y-%m-%dT%H:%MZ").to_string(),
            account.listed.to_string(),
            account.done_before.to_string(),
            account.fetched.to_string(),
            account.records.to_string(),
            account.records_new.to_string(),
            account.missing.to_string(),
            account.lost.to_string(),
            account.records_late.to_string(),
            account.error.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn outcome(accounts: &[Account]) -> Outcome {
    let missing: usize = accounts.iter().map(|account| account.missing).sum();
    let lost: usize = accounts.iter().map(|account| account.lost).sum();
    let unlisted = accounts
        .iter()
        .filter(|account| account.error.is_some())
        .count();
    if accounts.is_empty() {
        return Err(Failure::new(Code::Usage, "no stream is polled"));
    }
    if accounts.iter().all(Account::is_whole) {
        return Ok(());
    }
    let what = format!(
        "{missing} items are still missing, {lost} are lost, {unlisted} streams could not be listed"
    );
    Err(Failure::new(Code::Gap, what)
        .help("what is missing is tried again while run is up; exfilwatch gaps says what is lost"))
}

/// Has a running process do it. `None` where no process answers.
async fn of_running(
    folder: &Path,
    request: &ReconcileRequest,
    bar: &mut Bar,
) -> Result<Option<Vec<Account>>, Failure> {
    let request = Request::Reconcile(request.clone());
    let Some(mut caller) = asked(Caller::ask(folder, &request).await)? else {
        return Ok(None);
    };
    while let Some(told) = asked(caller.next::<Told>().await)? {
        if let Some(accounts) = show(told, bar)? {
            return Ok(Some(accounts));
        }
    }
    Err(
        Failure::new(Code::State, "the running process ended meanwhile")
            .help("run the command again: it goes on where it was"),
    )
}

/// Shows how far it is; the accounts once it is over.
fn show(told: Told, bar: &mut Bar) -> Result<Option<Vec<Account>>, Failure> {
    match told {
        Told::Progress(progress) => {
            bar.show(&progress);
            Ok(None)
        }
        Told::Accounts(accounts) => Ok(Some(accounts)),
        Told::Failed(why) => Err(Failure::new(Code::State, why)),
    }
}

/// Reconciles all streams while their tenants poll, which takes over what cannot be fetched.
async fn by_ourselves(
    config: &Config,
    clock: Arc<dyn Clock>,
    request: ReconcileRequest,
    bar: &mut Bar,
) -> Result<Vec<Account>, Failure> {
    let interrupt = CancellationToken::new();
    signals::cancel_on_signal(interrupt.clone());
    let sources = interrupt.child_token();
    let state = app::open_state(config, clock.now())?;
    let pipeline = Pipeline::start(Parts {
        state,
        routes: crate::routes::build(config, &clock)?,
        clock: clock.clone(),
        budget_bytes: config.state.outbox_bytes_max,
        shutdown: sources.clone(),
        drain: Duration::from_secs(config.run.shutdown_timeout_seconds),
    })
    .map_err(|error| app::state_failure(&error))?;
    let shared = pipeline.shared().clone();
    let rules = app::rules(&config.detectors)?;
    let tenants = app::tenants(
        config,
        &rules,
        &clock,
        pipeline.takes(Kind::Events),
        &shared,
    )?;
    if let Err(failure) = domains::demand(config, &tenants, &shared).await {
        pipeline.stop().await;
        return Err(failure);
    }
    let tasks = TaskTracker::new();
    for worker in &tenants.workers {
        let meant = request.tenant.as_ref();
        if meant.is_none_or(|tenant| tenant == worker.step.memory.tenant()) {
            tasks.spawn(run_tenant(worker.clone(), shared.clone()));
        }
    }
    let (told, mut telling) = mpsc::channel(16);
    let reconciling = async {
        reconcile(&request, &tenants.workers, &shared, &told).await;
        drop(told);
    };
    let watching = async {
        let mut accounts = None;
        while let Some(told) = telling.recv().await {
            accounts = show(told, bar).transpose().or(accounts);
        }
        accounts.transpose()
    };
    let ((), accounts) = tokio::join!(reconciling, watching);
    sources.cancel();
    tasks.close();
    tasks.wait().await;
    app::fatal(&pipeline)?;
    let finished = pipeline.finish(PATIENCE, interrupt.clone()).await;
    signals::interrupted(&interrupt)?;
    finished.map_err(|lanes| app::undelivered(&lanes, &config.state.folder))?;
    accounts?.ok_or_else(|| Failure::new(Code::Interrupted, "interrupted"))
}

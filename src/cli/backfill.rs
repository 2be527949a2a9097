//! `backfill`: a past range, read once. Asks a running process to do it, so that one limiter holds the
//! tenant's quota; does it itself where none answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use exfilwatch_config::Config;
use exfilwatch_model::{Clock, Kind, TenantId, Window};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::cli::clock::{self, ClockArgs};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::print;
use crate::cli::{Common, domains, signals};
use crate::pipeline::job::{JobEnd, JobRequest, Progress};
use crate::pipeline::{Parts, Pipeline};
use crate::serve::control::{Caller, Request};

/// How long lanes may stand still at the end before what is left stays in the outbox.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `backfill`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackfillArgs {
    /// Start of the range: a time with zone (2026-05-01T00:00:00Z), a date (UTC), or an age (36h, 7d).
    #[arg(long)]
    since: String,
    /// End of the range, written like --since; the present where absent.
    #[arg(long)]
    until: Option<String>,
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<TenantId>,
    #[command(flatten)]
    clock: ClockArgs,
}

/// Runs the command.
pub(crate) async fn run(args: BackfillArgs, common: Common) -> Outcome {
    let config = app::load(&common, true)?;
    let clock = clock::from_args(&args.clock);
    let request = request(&args, clock.now())?;
    if let Some(tenant) = &request.tenant
        && !config.tenants.contains_key(tenant)
    {
        let what = format!("there is no tenant {tenant} in the configuration");
        return Err(Failure::new(Code::Usage, what));
    }
    let done = match asked(&config.state.folder, &request).await? {
        Some(progress) => progress,
        None => by_ourselves(&config, clock, &request).await?,
    };
    tell(&done)
}

fn request(args: &BackfillArgs, now: DateTime<Utc>) -> Result<JobRequest, Failure> {
    let since = parse_time("--since", &args.since, now)?;
    let until = match &args.until {
        Some(text) => parse_time("--until", text, now)?,
        None => now,
    };
    let Some(window) = Window::new(since, until) else {
        let what = format!("the range from {since} until {until} is empty");
        return Err(Failure::new(Code::Usage, what));
    };
    let asked = format!("{} {}", args.since, args.until.as_deref().unwrap_or("now"));
    Ok(JobRequest {
        window,
        asked,
        tenant: args.tenant.clone(),
    })
}

pub(crate) fn parse_time(
    flag: &str,
    text: &str,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, Failure> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let age = text
        .split_at_checked(text.len().saturating_sub(1))
        .and_then(|(number, unit)| {
            let number: i64 = number.parse().ok()?;
            match unit {
                "m" => TimeDelta::try_minutes(number),
                "h" => TimeDelta::try_hours(number),
                "d" => TimeDelta::try_days(number),
                _ => None,
            }
        });
    age.and_then(|age| now.checked_sub_signed(age))
        .ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("{flag} {text:?} is neither a time, a date nor an age"),
            )
            .help("write 2026-05-01T00:00:00Z, 2026-05-01, 36h or 7d")
        })
}

/// Has a running process do it, and shows its progress. `None` where no process answers.
async fn asked(folder: &Path, request: &JobRequest) -> Result<Option<Progress>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::caused(
            Code::State,
            "asking the running process over its control socket",
            &error,
        )
    };
    let request = Request::Backfill(request.clone());
    let Some(mut caller) = Caller::ask(folder, &request).await.map_err(failed)? else {
        return Ok(None);
    };
    let mut last = Progress::default();
    while let Some(progress) = caller.next::<Progress>().await.map_err(failed)? {
        show(&progress);
        last = progress;
    }
    Ok(Some(last))
}

async fn by_ourselves(
    config: &Config,
    clock: Arc<dyn Clock>,
    request: &JobRequest,
) -> Result<Progress, Failure> {
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone());
    let state = app::open_state(config, clock.now())?;
    let pipeline = Pipeline::start(Parts {
        state,
        routes: app::routes(config, &clock)?,
        clock: clock.clone(),
        budget_bytes: config.state.outbox_bytes_max,
        shutdown: shutdown.clone(),
        drain: Duration::from_secs(config.run.shutdown_timeout_seconds),
    })
    .map_err(|error| app::state_failure(&error))?;
    let rules = app::rules(&config.detectors)?;
    let forwards_events = pipeline.takes(Kind::Events);
    let tenants = app::tenants(config, &rules, &clock, forwards_events, pipeline.shared())?;
    if let Err(failure) = domains::demand(config, &tenants, pipeline.shared()).await {
        pipeline.stop().await;
        return Err(failure);
    }
    let (progress, mut reports) = mpsc::channel(16);
    let shared = pipeline.shared().clone();
    let job = async {
        tenants.run_job(request, &shared, &progress).await;
        drop(progress);
    };
    let watch = async {
        let mut last = Progress::default();
        while let Some(report) = reports.recv().await {
            show(&report);
            last = report;
        }
        last
    };
    let ((), last) = tokio::join!(job, watch);
    app::fatal(&pipeline)?;
    let finished = pipeline.finish(PATIENCE, shutdown.clone()).await;
    signals::interrupted(&shutdown)?;
    finished.map_err(|lanes| app::undelivered(&lanes, &config.state.folder))?;
    Ok(last)
}

fn show(progress: &Progress) {
    tracing::info!(
        slices = format!("{}/{}", progress.slices_done, progress.slices),
        records = progress.records,
        delivered_before = progress.duplicates,
        gaps = progress.gaps,
        "backfill"
    );
}

fn tell(done: &Progress) -> Outcome {
    print(&format!(
        "{} records read, {} of them delivered before, {} gaps\n",
        done.records, done.duplicates, done.gaps
    ))?;
    let again = "run the command again: it goes on at its first unfinished slice";
    let failed = match &done.end {
        Some(JobEnd::Done) => None,
        Some(JobEnd::Interrupted) => {
            Some(Failure::new(Code::Interrupted, "interrupted").help(again))
        }
        Some(JobEnd::Refused(why)) => Some(Failure::new(Code::Auth, why).help(again)),
        Some(JobEnd::State(why)) => Some(Failure::new(Code::State, why).help(again)),
        Some(JobEnd::NoTenant) => Some(
            Failure::new(Code::Usage, "none of the tenants that run is meant")
                .help("exfilwatch config check says which tenants are left out, and why"),
        ),
        None => Some(
            Failure::new(Code::State, "the running process ended before the job did").help(again),
        ),
    };
    if let Some(failure) = failed {
        return Err(failure);
    }
    if done.gaps > 0 {
        return Err(
            Failure::new(Code::Gap, format!("{} gaps are left", done.gaps))
                .help("exfilwatch gaps lists them with their reasons"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_written_as_time_date_or_age() {
        let now: DateTime<Utc> = "2026-05-08T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("2026-05-01T02:00:00+02:00", "2026-05-01T00:00:00Z"),
            ("2026-05-01", "2026-05-01T00:00:00Z"),
            ("36h", "2026-05-07T00:00:00Z"),
            ("7d", "2026-05-01T12:00:00Z"),
            ("30m", "2026-05-08T11:30:00Z"),
        ] {
            let wanted: DateTime<Utc> = wanted.parse().unwrap();
            assert_eq!(parse_time("--since", text, now).unwrap(), wanted, "{text}");
        }
        for bad in [
            "",
            "yesterday",
            "7",
            "7w",
            "2026-13-01",
            "d",
            "99999999999999d",
            "ü",
        ] {
            let failure = parse_time("--since", bad, now).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{bad}");
        }
    }
}

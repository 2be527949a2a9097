//! `cargo xtask bench dead`: a receiver that is dead for an hour while its tenant's records keep coming,
//! under a budget that does not hold them; and how fast it has them all once it is back.
//!
//! Two tenants, each with a HEC receiver of its own, by the whole line of the program in this process:
//! connector, detection, store and outbox on this machine's disk, lanes, the Splunk emitter. The hour is
//! virtual: the clock is moved on minute by minute, as soon as the tenant whose receiver lives has all of
//! its records there. The drain is timed by the real clock.

mod collector;
mod feed;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::alarm::{AlarmOptions, Alarms};
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::worker::{WorkerConfig, run_tenant};
use exfilwatch::pipeline::{Parts, Pipeline};
use exfilwatch_config::{Config, Sources};
use exfilwatch_model::{Clock, Cursor, JobId};
use exfilwatch_state::Commit;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{load, machine, records, table};
use crate::workspace;
use collector::Collector;
use feed::{Feed, StandingClock};

/// How much less the tenant has whose receiver lives: a minute of it must find room under the budget.
const LIVE_SHARE: usize = 5;
/// Different records; each comes again with another id.
const TEMPLATES: usize = 10_000;
/// At least so many events a second once the receiver is back.
const DRAIN_AIM: f64 = 2_500.0;
/// Memory that the second half of the hour may need beyond the first.
const GROWTH_BYTES_MAX: u64 = 32 << 20;
/// Records that may be under way when the pause begins.
const UNDER_WAY_MAX: usize = 10_000;
/// What one step may take before it counts as hanging.
const LONGEST: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Arguments of the benchmark.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Arguments {
    /// Records a second of the tenant whose receiver is dead.
    #[arg(long, default_value_t = 500)]
    rate: usize,
    /// Minutes that it is dead.
    #[arg(long, default_value_t = 60)]
    minutes: usize,
    /// What the outbox may hold, in MiB.
    #[arg(long, default_value_t = 256)]
    budget: u64,
    /// Puts the table into docs/PERFORMANCE.md.
    #[arg(long)]
    write: bool,
}

/// What the hour was like.
#[derive(Debug)]
struct Hour {
    disk_bytes_max: u64,
    /// Resident memory at most, in each half.
    memory: [u64; 2],
    /// In which minute fetching was paused, and how many records had been asked for then.
    paused: (usize, usize),
    fetched: usize,
    /// What the slowest minute of the other tenant took.
    live_slowest: Duration,
}

/// What came after it.
#[derive(Debug)]
struct Drain {
    /// Until all that had been fetched by then was there.
    backlog: Duration,
    /// Until everything was.
    all: Duration,
}

/// Measures and prints.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let folder = workspace::target()?.join("bench");
    let file = records::file(&folder, records::SET)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let markdown = runtime.block_on(async {
        let scene = Scene::start(arguments, &file).await?;
        let hour = scene.hour().await?;
        scene.check(&hour)?;
        let drain = scene.drain(&hour).await?;
        let markdown = report(&scene, &hour, &drain);
        scene.end().await?;
        anyhow::Ok(markdown)
    })?;
    println!("\n{markdown}");
    if arguments.write {
        table::write("cargo xtask bench dead", &markdown)?;
    }
    Ok(())
}

/// The table in Markdown.
fn report(scene: &Scene, hour: &Hour, drain: &Drain) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (all, budget) = (scene.dead.records(), scene.budget);
    let [first, second] = hour.memory.map(megabytes);
    let (minute, _) = hour.paused;
    let rate = all as f64 / drain.all.as_secs_f64();
    let backlog = hour.fetched as f64 / drain.backlog.as_secs_f64();
    format!(
        "{} records a second for {} minutes to a receiver that is away, {} to one that is there, a budget of {} \
         MiB; {}; load {}.\n\n\
         | what | measured | aim |\n|---|---|---|\n\
         | disk at most | {:.0} MB of {:.0} | within the budget: met |\n\
         | resident memory at most, first and second half | {first:.0} and {second:.0} MB | flat: met |\n\
         | fetching paused | in minute {minute}, for the one tenant only, with {} records in the outbox | met |\n\
         | the other tenant's records of a minute are there | after {:.2} s at most, real time | met |\n\
         | what was in the outbox is delivered | {backlog:.0} a second | - |\n\
         | all {all} are, most of them fetched only now | {rate:.0} a second, {:.0} s | {DRAIN_AIM:.0}: {} |\n\
         | missing, and more than once | 0 and 0 of {} | met |\n",
        scene.dead.a_minute / 60,
        scene.dead.minutes,
        scene.live.a_minute / 60,
        budget >> 20,
        machine(),
        load(),
        megabytes(hour.disk_bytes_max),
        megabytes(budget),
        hour.fetched,
        hour.live_slowest.as_secs_f64(),
        drain.all.as_secs_f64(),
        if rate >= DRAIN_AIM { "met" } else { "missed" },
        all + scene.live.records(),
    )
}

/// Two tenants with a receiver each, of which one is away.
struct Scene {
    folder: tempfile::TempDir,
    clock: Arc<StandingClock>,
    budget: u64,
    dead: Arc<Feed>,
    live: Arc<Feed>,
    away: Collector,
    there: Collector,
    pipeline: Pipeline,
    shutdown: CancellationToken,
    workers: Vec<JoinHandle<()>>,
}

impl Scene {
    async fn start(arguments: Arguments, file: &Path) -> Result<Self> {
        let begins: DateTime<Utc> = "2026-05-11T08:00:00Z".parse()?;
        let clock = StandingClock::new(begins);
        let templates = feed::templates(file, TEMPLATES)?;
        let feed = |tenant: &str, a_minute| {
            anyhow::Ok(Arc::new(Feed {
                stream: format!("{tenant}/office365/Audit.General").parse()?,
                a_minute,
                begins,
                minutes: arguments.minutes,
                clock: clock.clone(),
                reader: app::readers(&[records::DOMAIN], &[]).m365,
                templates: templates.clone(),
                fetched: AtomicUsize::default(),
            }))
        };
        let dead = feed("contoso", arguments.rate * 60)?;
        let live = feed("fabrikam", arguments.rate * 60 / LIVE_SHARE)?;
        let (away, there) = (
            Collector::away(dead.records())?,
            Collector::away(live.records())?,
        );
        there.come()?;
        let folder = tempfile::tempdir()?;
        let budget = arguments.budget << 20;
        let config = config(folder.path(), budget, [&away.url, &there.url])?;
        let shared_clock: Arc<dyn Clock> = clock.clone();
        let shutdown = CancellationToken::new();
        let pipeline = Pipeline::start(Parts {
            state: app::open_state(&config, begins).map_err(|failure| anyhow!("{failure}"))?,
            routes: exfilwatch::routes::build(&config, &shared_clock)
                .map_err(|failure| anyhow!("{failure}"))?,
            clock: shared_clock,
            budget_bytes: config.state.outbox_bytes_max,
            shutdown: shutdown.clone(),
            drain: Duration::from_secs(5),
        })?;
        let mut workers = Vec::new();
        for feed in [&dead, &live] {
            let worker = worker(&config, &pipeline, feed).await?;
            workers.push(tokio::spawn(run_tenant(worker, pipeline.shared().clone())));
        }
        Ok(Self {
            folder,
            clock,
            budget,
            dead,
            live,
            away,
            there,
            pipeline,
            shutdown,
            workers,
        })
    }

    fn is_paused(&self, feed: &Feed) -> bool {
        let paused = self.pipeline.shared().paused.borrow();
        paused.holds(feed.stream.tenant())
    }

    async fn hour(&self) -> Result<Hour> {
        let taken = || self.dead.fetched.load(Ordering::SeqCst);
        let mut hour = Hour {
            disk_bytes_max: 0,
            memory: [0; 2],
            paused: (0, 0),
            fetched: 0,
            live_slowest: Duration::ZERO,
        };
        for minute in 1..=self.dead.minutes + 1 {
            // What is of a minute is listed when the next one has passed.
            self.clock.pass(TimeDelta::minutes(1));
            let (due, all) = (self.live.a_minute, self.dead.a_minute);
            let (due, all) = (due * (minute - 1), all * (minute - 1));
            let begun = Instant::now();
            until("the other tenant's records", || self.there.count() >= due).await?;
            hour.live_slowest = hour.live_slowest.max(begun.elapsed());
            let is_settled = || self.is_paused(&self.dead) || taken() >= all;
            until("the tenant's own", is_settled).await?;
            let half = usize::from(minute > self.dead.minutes / 2);
            if let Some(most) = hour.memory.get_mut(half) {
                *most = (*most).max(resident_bytes()?);
            }
            hour.disk_bytes_max = hour.disk_bytes_max.max(self.disk_bytes()?);
            if self.is_paused(&self.dead) && hour.paused.0 == 0 {
                hour.paused = (minute, taken());
            }
            ensure!(
                !self.is_paused(&self.live),
                "minute {minute}: the other tenant is paused too"
            );
        }
        hour.fetched = taken();
        Ok(hour)
    }

    fn check(&self, hour: &Hour) -> Result<()> {
        ensure!(self.is_paused(&self.dead), "nothing is paused: {hour:?}");
        ensure!(hour.disk_bytes_max <= self.budget, "disk: {hour:?}");
        let [first, second] = hour.memory;
        ensure!(second <= first + GROWTH_BYTES_MAX, "memory: {hour:?}");
        let stands = hour.fetched < hour.paused.1 + UNDER_WAY_MAX;
        ensure!(stands, "fetched on in the pause: {hour:?}");
        ensure!(self.away.count() == 0, "it was not away");
        Ok(())
    }

    /// The receiver comes back.
    async fn drain(&self, hour: &Hour) -> Result<Drain> {
        let begun = Instant::now();
        self.away.come()?;
        let there = |count| move || self.away.count() >= count;
        until("what the outbox held", there(hour.fetched)).await?;
        let backlog = begun.elapsed();
        until("everything", there(self.dead.records())).await?;
        let all = begun.elapsed();
        for (collector, feed) in [(&self.away, &self.dead), (&self.there, &self.live)] {
            let (missing, repeated) = collector.missing_and_repeated();
            ensure!(
                (missing, repeated) == (0, 0) && collector.count() == feed.records(),
                "{}: {missing} missing, {repeated} more than once",
                feed.stream
            );
        }
        Ok(Drain { backlog, all })
    }

    fn disk_bytes(&self) -> Result<u64> {
        let segments = std::fs::read_dir(self.folder.path().join("state/outbox"))?;
        // One may be removed meanwhile.
        let sizes = segments.filter_map(|segment| segment.ok()?.metadata().ok());
        // Segments that are thinned out have holes.
        Ok(sizes
            .map(|about| about.len().min(about.blocks() * 512))
            .sum())
    }

    async fn end(self) -> Result<()> {
        self.shutdown.cancel();
        for worker in self.workers {
            worker.await?;
        }
        let finished = self.pipeline.finish(LONGEST, CancellationToken::new());
        finished
            .await
            .map_err(|lanes| anyhow!("not everything could be delivered: {lanes:?}"))
    }
}

/// What a user would write.
fn config(folder: &Path, budget: u64, [dead, live]: [&str; 2]) -> Result<Config> {
    let token = folder.join("token");
    super::catchup::write_private(&token, "bench-token")?;
    let emitter = |name: &str, url: &str, tenant: &str| {
        format!(
            "[emitters.splunk_hec.{name}]\nurl = \"{url}\"\ntoken = {{ file = \"{}\" }}\n\
             send = [\"findings\", \"internal\", \"events\"]\nfilter.tenants = [\"{tenant}\"]\n\n",
            token.display()
        )
    };
    let domain = records::DOMAIN;
    let text = format!(
        "[state]\nfolder = \"{}/state\"\n\n\
         [tenants.contoso]\ninternal_domains = [\"{domain}\"]\n\n\
         [tenants.fabrikam]\ninternal_domains = [\"{domain}\"]\n\n{}{}",
        folder.display(),
        emitter("dead", dead, "contoso"),
        emitter("live", live, "fabrikam"),
    );
    let file = folder.join("exfilwatch.toml");
    std::fs::write(&file, text)?;
    let sources = Sources {
        file: Some(file),
        ..Sources::default()
    };
    let mut config = exfilwatch_config::load(&sources).map_err(|error| anyhow!("{error}"))?;
    // The test's is smaller than one may write.
    config.state.outbox_bytes_max = budget;
    Ok(config)
}

async fn worker(config: &Config, pipeline: &Pipeline, feed: &Arc<Feed>) -> Result<WorkerConfig> {
    let shared = pipeline.shared();
    let tenant = feed.stream.tenant().clone();
    let cursor = Cursor {
        covered_until: feed.begins,
        state: String::new(),
    };
    let commit = Commit {
        cursors: vec![(feed.stream.clone(), cursor)],
        ..Commit::default()
    };
    shared.committer.commit(commit).await?;
    let (today, budget) = (feed.begins.date_naive(), shared.seen_budget.clone());
    let rules = app::rules(&config.detectors).map_err(|failure| anyhow!("{failure}"))?;
    let heartbeat = i64::try_from(config.run.heartbeat_interval_seconds)?;
    Ok(WorkerConfig {
        connectors: vec![feed.clone()],
        step: StepConfig {
            memory: TenantMemory::load(&*shared.store, tenant, today, budget)?,
            job: JobId::live(),
            readers: app::readers(&[records::DOMAIN], &[]),
            rules: rules.into(),
            forwards_events: true,
            purpose: Purpose::Deliver,
            live_since: feed.begins - TimeDelta::days(1),
        },
        alarms: Alarms::new(AlarmOptions::default(), false),
        heartbeat: TimeDelta::seconds(heartbeat),
        first_run: TimeDelta::days(1),
        archives: Vec::new(),
    })
}

/// Memory that is resident now.
fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: u64 = kibibytes
        .context("/proc/self/status names no VmRSS")?
        .parse()?;
    Ok(kibibytes << 10)
}

async fn until(what: &str, mut is: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !is() {
        ensure!(begun.elapsed() < LONGEST, "waited in vain for {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of it, small.
    #[test]
    fn a_small_budget_is_reached_and_everything_is_there_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = records::file(folder.path(), 1_000).unwrap();
        let arguments = Arguments {
            rate: 10,
            minutes: 10,
            budget: 4,
            write: false,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let scene = Scene::start(arguments, &file).await.unwrap();
            let hour = scene.hour().await.unwrap();
            scene.check(&hour).unwrap();
            let drain = scene.drain(&hour).await.unwrap();
            let markdown = report(&scene, &hour, &drain);
            assert!(markdown.contains("| 0 and 0 of 7200 |"), "{markdown}");
            scene.end().await.unwrap();
        });
    }
}

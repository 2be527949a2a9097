//! `cargo xtask bench catchup`: how fast `run` reads what has been waiting at the vendor.
//!
//! The program as it is shipped polls the simulator of this process over loopback, with its store on
//! this machine's disk, and writes records and findings to standard output, into nothing. It is done
//! when it says that it has committed the last record.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::clock::real_now;
use exfilwatch_simulator::microsoft::{MicrosoftOptions, Publication};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    AttackPlan, Endpoint, Fault, FaultRule, FaultScript, Running, Simulator, SimulatorOptions,
    TenantOptions, World, WorldOptions,
};

use super::{load, machine, records, table};
use crate::workspace;

const CONTENT_TYPE: &str = "Audit.Exchange";
const TENANT: &str = "bench";
const BLOB_RECORDS: usize = 100;
/// Blobs fetched at the same time.
const PARALLEL: u32 = 4;
/// How often the program is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What one catch-up may take before it counts as hanging.
const LONGEST: Duration = Duration::from_mins(5);
/// The rate is measured from so long after the first blob on: before, the burst of the limiter counts.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// At least so much of the permitted rate.
const RATE_SHARE_AIM: f64 = 0.9;
/// At most so many times as long as the vendor's latency alone makes it.
const LATENCY_AIM: f64 = 1.3;

/// Arguments of the benchmark.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Arguments {
    /// Blobs that wait, of 100 records each.
    #[arg(long, default_value_t = 2_000)]
    blobs: usize,
    /// Puts the table into docs/PERFORMANCE.md.
    #[arg(long)]
    write: bool,
}

/// What the vendor and the limiter are like.
#[derive(Debug, Clone, Copy)]
struct Setting {
    latency: Duration,
    /// Requests a minute that the limiter lets through.
    permitted: u32,
    /// Requests a minute that the vendor takes; 0 for any.
    quota: u32,
}

/// One look at the program and the simulator.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Since the first blob was asked for.
    at: Duration,
    /// Calls that count towards the quota.
    calls: u64,
    records: u64,
}

/// What one catch-up was like.
#[derive(Debug)]
struct Outcome {
    steady_from: Sample,
    end: Sample,
    throttled: u64,
}

/// Measures and prints.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let Arguments { blobs, write } = arguments;
    let folder = workspace::target()?.join("bench");
    let file = records::file(&folder, blobs * BLOB_RECORDS)?;
    let bench = Bench {
        binary: workspace::release_binary()?,
        blobs: read_blobs(&file)?,
    };
    let limited = Setting {
        latency: Duration::from_millis(10),
        permitted: 1_200,
        quota: 1_200,
    };
    let unlimited = Setting {
        latency: Duration::from_millis(50),
        permitted: 1_000_000,
        quota: 0,
    };
    let (rated, fast) = (bench.catch_up(limited)?, bench.catch_up(unlimited)?);
    let markdown = report(blobs, (limited, &rated), (unlimited, &fast));
    println!("\n{markdown}");
    if write {
        table::write("cargo xtask bench catchup", &markdown)?;
    }
    Ok(())
}

/// The table in Markdown.
fn report(
    blobs: usize,
    (limited, rated): (Setting, &Outcome),
    fast: (Setting, &Outcome),
) -> String {
    let minutes = rated
        .end
        .at
        .saturating_sub(rated.steady_from.at)
        .as_secs_f64()
        / 60.0;
    let rate = (rated.end.calls - rated.steady_from.calls) as f64 / minutes;
    let share = rate / f64::from(limited.permitted);
    let (unlimited, fast) = fast;
    let ideal = unlimited.latency.as_secs_f64() * blobs as f64 / f64::from(PARALLEL);
    let took = fast.end.at.as_secs_f64();
    let verdict = |met: bool| if met { "met" } else { "missed" };
    format!(
        "{blobs} blobs of {BLOB_RECORDS} records, {PARALLEL} in parallel; {}; load {}.\n\n\
         | catch-up | ideal | measured | ratio | aim | replies throttled |\n\
         |---|---|---|---|---|---|\n\
         | limiter and quota at {} requests a minute, {} ms latency | {} requests a minute | {rate:.0} \
         requests a minute | {share:.2} | {RATE_SHARE_AIM}: {} | {} |\n\
         | limiter out of the way, {} ms latency | {ideal:.1} s | {took:.1} s, commits included | {:.2} | \
         {LATENCY_AIM}: {} | {} |\n",
        machine(),
        load(),
        limited.permitted,
        limited.latency.as_millis(),
        limited.quota,
        verdict(share >= RATE_SHARE_AIM && rated.throttled == 0),
        rated.throttled,
        unlimited.latency.as_millis(),
        took / ideal,
        verdict(took / ideal <= LATENCY_AIM),
        fast.throttled,
    )
}

/// The records of the file in blobs.
fn read_blobs(file: &Path) -> Result<Vec<Bytes>> {
    let lines: Vec<String> = BufReader::new(File::open(file)?)
        .lines()
        .collect::<std::io::Result<_>>()?;
    let blob = |records: &[String]| Bytes::from(format!("[{}]", records.join(",")));
    Ok(lines.chunks(BLOB_RECORDS).map(blob).collect())
}

struct Bench {
    binary: PathBuf,
    blobs: Vec<Bytes>,
}

impl Bench {
    /// One catch-up from nothing.
    fn catch_up(&self, setting: Setting) -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let folder = tempfile::tempdir()?;
        let services = runtime.block_on(simulator(setting)?.start())?;
        self.publish(&services)?;
        let program = Program::start(&self.binary, folder.path(), &services, setting)?;
        let outcome = program.watch(&services, self.blobs.len() * BLOB_RECORDS);
        drop(program);
        runtime.block_on(services.shutdown());
        outcome
    }

    /// The blobs, spread over the last day.
    fn publish(&self, services: &Running) -> Result<()> {
        let from = real_now() - TimeDelta::hours(22);
        let step = TimeDelta::hours(20) / i32::try_from(self.blobs.len())?.max(1);
        for (number, body) in (0..).zip(&self.blobs) {
            let id = format!("{number:020}$audit_exchange$r");
            let created: DateTime<Utc> = from + step * number;
            let empty = Publication::new((TENANT, CONTENT_TYPE), &id, created, &[]);
            let body = body.clone();
            let publication = Publication { body, ..empty };
            ensure!(services.simulator.microsoft().publish(publication));
        }
        Ok(())
    }
}

/// A tenant without a life of its own.
fn simulator(setting: Setting) -> Result<Simulator> {
    let now = real_now();
    // The vendor counts by the minute of its clock. The first request comes at the beginning of one, so
    // that a burst on top of the quota would be refused.
    let start = DateTime::from_timestamp(now.timestamp().div_euclid(60) * 60, 0).unwrap_or(now);
    let world = WorldOptions {
        records_per_day: 0,
        tenants: vec![TenantOptions {
            google: false,
            ..TenantOptions::new(TENANT)
        }],
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Quiet,
        ..WorldOptions::new(1, now - TimeDelta::days(1), now)
    };
    let milliseconds = u64::try_from(setting.latency.as_millis())?;
    let faults = FaultScript {
        seed: 1,
        rules: vec![FaultRule::new(
            Endpoint::Blob,
            Fault::Delay { milliseconds },
        )],
    };
    let options = SimulatorOptions {
        start: Some(start),
        rate: 1.0,
        microsoft: MicrosoftOptions {
            requests_per_minute: setting.quota,
            subscribed: true,
            ..MicrosoftOptions::default()
        },
        faults,
        ..SimulatorOptions::default()
    };
    Ok(Simulator::new(World::invent(world), options)?)
}

/// `run`, ended when dropped.
struct Program {
    binary: PathBuf,
    config: PathBuf,
    child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to end.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Program {
    fn start(binary: &Path, folder: &Path, services: &Running, setting: Setting) -> Result<Self> {
        let credentials = &services.simulator.credentials().microsoft;
        let secret = folder.join("secret");
        write_private(&secret, &credentials.client_secret)?;
        let tenants = services.simulator.world().tenants();
        let tenant = tenants.first().and_then(|tenant| tenant.tenant_id);
        let config = folder.join("exfilwatch.toml");
        let (url, folder) = (&services.microsoft_url, folder.display());
        let text = format!(
            "[run]\nfirst_read_days = 1\n\n[state]\nfolder = \"{folder}/state\"\n\n\
             [tenants.{TENANT}]\ninternal_domains = [\"{}\"]\n\n\
             [connectors.office365.main]\ntenant = \"{TENANT}\"\ntenant_id = \"{}\"\n\
             client_id = \"{}\"\nclient_secret = {{ file = \"{}\" }}\n\
             content_types = [\"{CONTENT_TYPE}\"]\nrequests_per_minute = {}\n\
             fetch_concurrency = {PARALLEL}\napi_root = \"{url}\"\nlogin_root = \"{url}\"\n\n\
             [emitters.stdout.nothing]\nsend = [\"findings\", \"events\"]\n",
            records::DOMAIN,
            tenant.context("the tenant has Office 365")?,
            credentials.client_id,
            secret.display(),
            setting.permitted,
        );
        std::fs::write(&config, text)?;
        let child = Command::new(binary)
            .args(["run", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        Ok(Self {
            binary: binary.to_owned(),
            config,
            child,
        })
    }

    /// Waits until all records are committed.
    fn watch(&self, services: &Running, records: usize) -> Result<Outcome> {
        let calls = |endpoint| services.simulator.faults().calls(endpoint);
        let waiting = Instant::now();
        while calls(Endpoint::Blob) == 0 {
            ensure!(waiting.elapsed() < LONGEST, "no blob is ever asked for");
            std::thread::sleep(Duration::from_millis(1));
        }
        let begun = Instant::now();
        let mut steady_from = None;
        loop {
            let sample = Sample {
                records: self.records()?,
                at: begun.elapsed(),
                calls: calls(Endpoint::Blob)
                    + calls(Endpoint::ContentList)
                    + calls(Endpoint::Subscriptions),
            };
            if sample.at >= STEADY_AFTER {
                steady_from.get_or_insert(sample);
            }
            if sample.records >= records as u64 {
                return Ok(Outcome {
                    steady_from: steady_from.context("it took no time worth measuring")?,
                    end: sample,
                    throttled: services.simulator.microsoft().calls_throttled(),
                });
            }
            ensure!(
                sample.at < LONGEST,
                "not done after {LONGEST:?}: {sample:?}"
            );
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Records that are committed, as `status` tells.
    fn records(&self) -> Result<u64> {
        let output = Command::new(&self.binary)
            .args(["status", "--output", "ndjson", "--config"])
            .arg(&self.config)
            .stderr(Stdio::null())
            .output()?;
        let status: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("reading what status prints")?;
        let streams = status["streams"]
            .as_array()
            .context("status names streams")?;
        let count = |stream: &serde_json::Value| stream["records"].as_u64();
        Ok(streams.iter().filter_map(count).sum())
    }
}

/// A file that only its owner may read: the program refuses secrets that others may.
pub(super) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(content.as_bytes())?;
    Ok(())
}

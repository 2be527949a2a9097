//! `cargo xtask bench hec`: what the Splunk emitter adds to sending bytes.
//!
//! The emitter, with as many batches in flight as a lane keeps, against a bare `reqwest` client with the
//! same batches: once it posts bodies that were made beforehand, once it makes them itself, in the least way.
//! Each round takes all three, compressed and not. The bare client compresses at the same level, each request
//! in a task of its own. The receiver is of this process: it reads a request to its end and says "Success".

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_emitters::{Emitter, Environment, SplunkHec, SplunkHecOptions};
use exfilwatch_model::{Envelope, Kind, SystemClock};
use exfilwatch_simulator::clock::real_now;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::{self, StreamExt};

use super::{load, machine, records, table};
use crate::workspace;

/// Events of a batch, as the emitter takes them by default, and batches of a lane in flight.
const BATCH_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 900_000;
const IN_FLIGHT: usize = 4;
/// At least so much of what the bare client sends.
const GZIP_AIM: f64 = 0.8;
const PLAIN_AIM: f64 = 0.7;
/// Levels that are compared.
const LEVELS: std::ops::RangeInclusive<u32> = 1..=6;
/// The level that the emitter uses.
const LEVEL: u32 = 1;
const REPLY: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"text\":\"Success\",\"code\":0}";

/// Arguments of the benchmark.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Arguments {
    /// Records that are sent in each run.
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Alternating rounds; the medians are printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Puts the tables into docs/PERFORMANCE.md.
    #[arg(long)]
    write: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "at least one round is needed");
    let folder = workspace::target()?.join("bench");
    let file = records::file(&folder, arguments.records)?;
    let batches = batches(&file)?;
    let receiver = Receiver::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let bench = Bench {
        receiver,
        bodies: Vec::new(),
        batches,
    };
    let bench = runtime.block_on(bench.with_bodies())?;
    let (mut plain, mut gzip) = (Rounds::default(), Rounds::default());
    for _ in 0..arguments.rounds {
        for (rounds, compressed) in [(&mut plain, false), (&mut gzip, true)] {
            rounds
                .ready
                .push(runtime.block_on(bench.ready(compressed))?);
            rounds.ours.push(runtime.block_on(bench.ours(compressed))?);
            rounds
                .making
                .push(runtime.block_on(bench.making(compressed))?);
        }
    }
    let levels = LEVELS
        .map(|level| bench.level(level))
        .collect::<Result<Vec<_>>>()?;
    let markdown = report(arguments, &bench, (&plain, &gzip), &levels);
    println!("\n{markdown}");
    if arguments.write {
        table::write("cargo xtask bench hec", &markdown)?;
    }
    Ok(())
}

/// Seconds of each round.
#[derive(Debug, Default)]
struct Rounds {
    /// The bare client with bodies made beforehand.
    ready: Vec<f64>,
    /// The bare client that makes them.
    making: Vec<f64>,
    ours: Vec<f64>,
}

/// How much of the bare client's throughput the emitter has: the median over the rounds, each compared with
/// its neighbour.
fn share(bare: &[f64], ours: &[f64]) -> f64 {
    median(
        bare.iter()
            .zip(ours)
            .map(|(bare, ours)| bare / ours)
            .collect(),
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What one level of compression costs and gains.
#[derive(Debug)]
struct Level {
    number: u32,
    cpu_seconds: f64,
    bytes: usize,
}

fn report(
    arguments: Arguments,
    bench: &Bench,
    (plain, gzip): (&Rounds, &Rounds),
    levels: &[Level],
) -> String {
    let (records, bytes) = (arguments.records as f64, bench.bytes() as f64);
    let rows = |title: &str, rounds: &Rounds, aim: f64| {
        let rate = |seconds: &[f64]| records / median(seconds.to_vec()) / 1e3;
        let bare = [("makes them", &rounds.making), ("has them", &rounds.ready)];
        let row = |(way, bare): (&str, &Vec<f64>)| {
            let share = share(bare, &rounds.ours);
            format!(
                "| {title} | {way} | {:.0} | {:.0} | {:.0} | {share:.2} | {aim}: {} |\n",
                rate(bare),
                rate(&rounds.ours),
                bytes / median(rounds.ours.clone()) / 1e6,
                if share >= aim { "met" } else { "missed" },
            )
        };
        bare.map(row).concat()
    };
    let mut text = format!(
        "{} records, {:.0} MB as HEC events in {} requests, {IN_FLIGHT} in flight; medians of {} \
         alternating rounds; {}; load {}.\n\n\
         | sent | the bare client's bodies | bare client, k events/s | emitter, k events/s | emitter, MB/s | share | aim |\n\
         |---|---|---|---|---|---|---|\n",
        arguments.records,
        bytes / 1e6,
        bench.bodies.len(),
        arguments.rounds,
        machine(),
        load(),
    );
    text.push_str(&rows("without compression", plain, PLAIN_AIM));
    text.push_str(&rows(&format!("gzip, level {LEVEL}"), gzip, GZIP_AIM));
    text.push_str(
        "\n| level | CPU s | k events per CPU s | MB per CPU s | compressed to |\n|---|---|---|---|---|\n",
    );
    for level in levels {
        text.push_str(&format!(
            "| {} | {:.2} | {:.0} | {:.0} | {:.1} % |\n",
            level.number,
            level.cpu_seconds,
            records / level.cpu_seconds / 1e3,
            bytes / level.cpu_seconds / 1e6,
            100.0 * level.bytes as f64 / bytes,
        ));
    }
    text
}

/// The records of the file, as a lane hands them to the emitter: those of a batch lie in one piece of memory,
/// as the outbox's reader gives them.
fn batches(file: &Path) -> Result<Vec<Arc<Vec<Envelope>>>> {
    let stream: exfilwatch_model::StreamId = "bench/office365/Audit.Exchange".parse()?;
    let fetched_at: DateTime<Utc> = real_now();
    let (mut batches, mut frame, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0;
    let mut batch = |frame: Vec<u8>, ends: Vec<usize>| {
        let (frame, mut begin) = (Bytes::from(frame), 0);
        let envelope = |end: usize| {
            number += 1;
            Envelope {
                kind: Kind::Events,
                stream: stream.clone(),
                id: format!("{number:08}-0000-4000-8000-000000000000"),
                time: Some(fetched_at),
                fetched_at,
                payload: frame.slice(std::mem::replace(&mut begin, end)..end),
            }
        };
        batches.push(Arc::new(ends.into_iter().map(envelope).collect()));
    };
    for line in BufReader::new(File::open(file)?).lines() {
        frame.extend_from_slice(line?.as_bytes());
        ends.push(frame.len());
        if ends.len() == BATCH_EVENTS || frame.len() >= BATCH_BYTES {
            batch(std::mem::take(&mut frame), std::mem::take(&mut ends));
        }
    }
    if !ends.is_empty() {
        batch(frame, ends);
    }
    Ok(batches)
}

struct Bench {
    receiver: Receiver,
    batches: Vec<Arc<Vec<Envelope>>>,
    /// What the emitter makes of the batches, uncompressed.
    bodies: Vec<Bytes>,
}

impl Bench {
    /// The bodies, taken from the wire.
    async fn with_bodies(mut self) -> Result<Self> {
        *lock(&self.receiver.kept) = Some(Vec::new());
        self.ours(false).await?;
        let kept = lock(&self.receiver.kept).take().unwrap_or_default();
        self.bodies = kept.into_iter().map(Bytes::from).collect();
        ensure!(!self.bodies.is_empty(), "the emitter sent nothing");
        Ok(self)
    }

    fn bytes(&self) -> usize {
        self.bodies.iter().map(Bytes::len).sum()
    }

    /// Seconds in which the emitter delivers all batches, as a lane drives it.
    async fn ours(&self, gzip: bool) -> Result<f64> {
        let options: SplunkHecOptions = serde_json::from_value(serde_json::json!({
            "url": self.receiver.url, "token": { "env": "TOKEN" }, "gzip": gzip,
            "batch_bytes_max": 4 * BATCH_BYTES,
        }))?;
        let environment = Environment::new(|_| Some("token".to_owned()));
        let clock = Arc::new(SystemClock);
        let emitter = SplunkHec::new("splunk_hec.bench", &options, &environment, clock)?;
        let (events, begun) = (self.receiver.requests(), Instant::now());
        let mut sending = stream::iter(&self.batches)
            .map(|batch| emitter.emit(batch))
            .buffered(IN_FLIGHT);
        while let Some(delivered) = sending.next().await {
            let refused = delivered?.refused;
            ensure!(refused.is_empty(), "refused: {refused:?}");
        }
        let seconds = begun.elapsed().as_secs_f64();
        let requests = self.receiver.requests() - events;
        let batches = self.batches.len() as u64;
        ensure!(requests >= batches, "{requests} requests only");
        Ok(seconds)
    }

    /// Seconds in which a bare client posts bodies that were made beforehand.
    async fn ready(&self, gzip: bool) -> Result<f64> {
        self.bare(&self.bodies, Bytes::clone, gzip).await
    }

    /// Seconds in which a bare client makes the bodies of the batches and posts them.
    async fn making(&self, gzip: bool) -> Result<f64> {
        self.bare(&self.batches, |batch| body(batch).into(), gzip)
            .await
    }

    /// Every request is a task of its own.
    async fn bare<B: Clone + Send + 'static>(
        &self,
        batches: &[B],
        make: fn(&B) -> Bytes,
        gzip: bool,
    ) -> Result<f64> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let begun = Instant::now();
        let post = |batch: &B| {
            let (client, batch, url) = (client.clone(), batch.clone(), self.receiver.url.clone());
            let url = format!("{url}/services/collector/event");
            tokio::spawn(async move {
                let body = make(&batch);
                let request = client.post(url).header("authorization", "Splunk token");
                let request = if gzip {
                    let body = compressed(&body, LEVEL)?;
                    request.header("content-encoding", "gzip").body(body)
                } else {
                    request.body(body)
                };
                let reply = request.send().await?.error_for_status()?;
                reply.bytes().await?;
                anyhow::Ok(())
            })
        };
        let mut posting = stream::iter(batches).map(post).buffered(IN_FLIGHT);
        while let Some(posted) = posting.next().await {
            posted??;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// What compressing all bodies at a level costs this thread.
    fn level(&self, level: u32) -> Result<Level> {
        let before = thread_cpu_seconds()?;
        let mut bytes = 0;
        for body in &self.bodies {
            bytes += compressed(body, level)?.len();
        }
        Ok(Level {
            number: level,
            cpu_seconds: thread_cpu_seconds()? - before,
            bytes,
        })
    }
}

/// The body of a batch as HEC wants it, with no more ado than that takes.
fn body(batch: &Arc<Vec<Envelope>>) -> Vec<u8> {
    let mut body = Vec::with_capacity(BATCH_BYTES + BATCH_EVENTS * 320);
    for record in &**batch {
        let millis = record.time.unwrap_or(record.fetched_at).timestamp_millis();
        let (seconds, millis) = (millis / 1_000, millis % 1_000);
        let stream = &record.stream;
        let (tenant, connector) = (stream.tenant().as_str(), stream.connector());
        let head = format!(
            "{{\"time\":{seconds}.{millis:03},\"host\":\"{tenant}\",\"source\":\"exfilwatch\",\
             \"sourcetype\":\"o365:management:activity\",\"fields\":{{\"event_id\":\"{}\",\
             \"tenant\":\"{tenant}\",\"connector\":\"{connector}\",\"stream\":\"{}\"}},\"event\":",
            record.id,
            stream.name(),
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&record.payload);
        body.push(b'}');
    }
    body
}

fn compressed(body: &[u8], level: u32) -> Result<Vec<u8>> {
    let capacity = body.len() / 4;
    let mut encoder = GzEncoder::new(Vec::with_capacity(capacity), Compression::new(level));
    encoder.write_all(body)?;
    Ok(encoder.finish()?)
}

/// Time that this thread has run, from `/proc`.
fn thread_cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next();
    let nanoseconds = nanoseconds.context("/proc/thread-self/schedstat is empty")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// A collector that reads and says yes; a thread for each connection, all of which end with it.
struct Receiver {
    url: String,
    requests: Arc<AtomicU64>,
    kept: Kept,
}

/// Bodies, while they are to be kept.
type Kept = Arc<Mutex<Option<Vec<Vec<u8>>>>>;

impl Receiver {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let receiver = Self {
            url: format!("http://{}", listener.local_addr()?),
            requests: Arc::default(),
            kept: Kept::default(),
        };
        let (requests, kept) = (receiver.requests.clone(), receiver.kept.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (requests, kept) = (requests.clone(), kept.clone());
                // A connection that ends is no error: the clients come and go.
                std::thread::spawn(move || serve(connection, &requests, &kept));
            }
        });
        Ok(receiver)
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn lock(kept: &Kept) -> std::sync::MutexGuard<'_, Option<Vec<Vec<u8>>>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a connection until it ends.
fn serve(connection: TcpStream, requests: &AtomicU64, kept: &Kept) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 << 10, connection);
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        requests.fetch_add(1, Ordering::Relaxed);
        if let Some(bodies) = &mut *lock(kept) {
            bodies.push(body.clone());
        }
        reader.get_mut().write_all(REPLY.as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_neighbours_and_the_middle_one_counts() {
        let share = share(&[1.0, 2.0, 9.0], &[2.0, 2.5, 9.0]);
        assert!((share - 0.8).abs() < 1e-9);
    }

    #[test]
    fn the_same_batches_go_all_ways() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records.ndjson");
        let line = r#"{"Id":"a","Operation":"FileDownloaded","Workload":"SharePoint"}"#;
        std::fs::write(&file, format!("{line}\n").repeat(2_500)).unwrap();
        let bench = Bench {
            receiver: Receiver::start().unwrap(),
            batches: batches(&file).unwrap(),
            bodies: Vec::new(),
        };
        assert_eq!(bench.batches.len(), 3);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let bench = runtime.block_on(bench.with_bodies()).unwrap();
        assert_eq!(bench.bodies.len(), 3);
        assert!(bench.bytes() > 2_500 * line.len());
        // They may have come in another order.
        for batch in &bench.batches {
            assert!(bench.bodies.contains(&Bytes::from(body(batch))));
        }
        for gzip in [false, true] {
            let before = bench.receiver.requests();
            assert!(runtime.block_on(bench.ready(gzip)).unwrap() > 0.0);
            assert!(runtime.block_on(bench.making(gzip)).unwrap() > 0.0);
            assert!(runtime.block_on(bench.ours(gzip)).unwrap() > 0.0);
            assert_eq!(bench.receiver.requests() - before, 9);
        }
        let (fast, small) = (bench.level(1).unwrap(), bench.level(6).unwrap());
        assert!(small.bytes <= fast.bytes && fast.bytes < bench.bytes() / 4);
    }
}

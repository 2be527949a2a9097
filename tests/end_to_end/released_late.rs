//! A vendor that releases one record in twenty late by up to three days, doubles some, fails one call in
//! ten and drops content before its time. In the end every record is delivered or stands in the ledger
//! with its interval, every due finding is there, and whatever was called complete on the way was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{
    Delivery, DueFinding, Endpoint, Fault, FaultRule, FaultScript, Record, SimulatorOptions,
    Verdict, WorldOptions,
};
use serde_json::Value;

use crate::scene::{Process, Scene, until};

/// Virtual seconds per real second.
const RATE: f64 = 600.0;
/// Days of office life.
const DAYS: i64 = 4;
/// A day and the time until the daily pass is due for certain: from one start of the process to the next.
/// It runs as long as its work of the day takes, which a busy machine does not change.
const EACH: TimeDelta = TimeDelta::hours(25);
/// Starts until the last record has been out for as long as it takes to call its time complete.
const STARTS: i32 = 12;
/// Longest that a record is late.
const LATE_MAX: TimeDelta = TimeDelta::hours(72);
/// What is complete ends at most so long ago once the daily pass is done: four days and the time that the
/// pass takes.
const COMPLETE_AFTER: TimeDelta = TimeDelta::hours(4 * 24 + 12);
/// Longest real time that something committed is on its way to the receiver.
const ON_ITS_WAY: Duration = Duration::from_secs(15);
/// Longest real time for the work of a day.
const PATIENCE: Duration = Duration::from_secs(120);

fn start() -> DateTime<Utc> {
    "2026-05-04T00:00:00Z".parse().unwrap()
}

/// The hour of which all content of Office 365 has expired before its time, though it is listed.
fn expired_hour() -> (i64, i64) {
    let from = start() + TimeDelta::hours(37);
    let until = from + TimeDelta::hours(1);
    (from.timestamp_millis(), until.timestamp_millis())
}

/// One call in ten fails, in one way or another.
fn faults() -> FaultScript {
    let now_and_then =
        |endpoint, fault, share| FaultRule::new(endpoint, fault).with_probability(share);
    let unavailable = Fault::HtmlPage { status: 503 };
    let throttle = Fault::Throttle {
        retry_after_seconds: None,
    };
    FaultScript {
        seed: 23,
        rules: vec![
            FaultRule {
                // Content ids begin with the time of their content.
                path_contains: Some("/audit/2026050513".to_owned()),
                ..FaultRule::new(Endpoint::Blob, Fault::activity("AF20051"))
            },
            now_and_then(Endpoint::Blob, Fault::Truncate { bytes: 300 }, 0.03),
            now_and_then(Endpoint::Microsoft, Fault::Reset, 0.05),
            now_and_then(Endpoint::Google, Fault::Reset, 0.05),
            now_and_then(Endpoint::Microsoft, unavailable.clone(), 0.03),
            now_and_then(Endpoint::Google, unavailable, 0.03),
            now_and_then(Endpoint::Microsoft, throttle.clone(), 0.02),
            now_and_then(Endpoint::Google, throttle, 0.02),
        ],
    }
}

async fn scene() -> Scene {
    let delivery = Delivery {
        late_share: 0.05,
        late_max: LATE_MAX,
        twice_share: 0.03,
        google_late_share: 0.05,
        google_late_max: LATE_MAX,
        // Listed again under a later time, too.
        relisted_share: 0.25,
        ..Delivery::default()
    };
    let world = WorldOptions {
        records_per_day: 300,
        delivery,
        ..WorldOptions::new(31, start(), start() + TimeDelta::days(DAYS))
    };
    let options = SimulatorOptions {
        start: Some(start()),
        rate: RATE,
        faults: faults(),
        ..SimulatorOptions::default()
    };
    let scene = Scene::new(world, options).await;
    let streams = scene.services.simulator.sheet().streams().into_iter();
    let google = streams.filter_map(|(_, stream)| {
        let application = stream.strip_prefix("google_workspace/")?;
        Some(application.to_owned())
    });
    let google: Vec<String> = google.collect();
    let more = [
        // Without an archive, what has expired is lost.
        (
            "[defaults.office365]\n",
            "audit_search = \"off\"".to_owned(),
        ),
        // Each is read again in windows of an hour: only those that have records.
        (
            "[defaults.google_workspace]\n",
            format!("applications = {google:?}\nfetch_concurrency = 16"),
        ),
    ];
    let mut config = scene.configuration();
    for (table, line) in more {
        assert!(config.contains(table));
        config = config.replace(table, &format!("{table}{line}\n"));
    }
    scene.write("exfilwatch.toml", &config);
    scene
}

/// A span of a stream and what the ledger says of it.
#[derive(Debug, Clone)]
struct Span {
    stream: String,
    from_ms: i64,
    until_ms: i64,
    state: String,
}

impl Span {
    /// Whether the record's time lies in it.
    fn covers(&self, record: &Record) -> bool {
        self.stream == stream_of(record)
            && (self.from_ms..self.until_ms).contains(&ledger_time(record))
    }
}

fn stream_of(record: &Record) -> String {
    format!("{}/{}", record.tenant, record.stream)
}

/// The time by which the ledger knows a record: Office 365 when it became available, Google when it
/// happened.
fn ledger_time(record: &Record) -> i64 {
    if record.stream.starts_with("office365/") {
        record.visible_from_ms
    } else {
        record.event_ms
    }
}

/// The whole ledger, by `gaps --all`.
async fn ledger(scene: &Scene) -> Vec<Span> {
    let output = scene.output(&["gaps", "--all", "--output", "json"]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 7)), "{told}");
    let intervals: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let ms = |value: &Value| {
        let time: DateTime<Utc> = value.as_str().unwrap().parse().unwrap();
        time.timestamp_millis()
    };
    let span = |one: &Value| Span {
        stream: one["stream"].as_str().unwrap().to_owned(),
        from_ms: ms(&one["from"]),
        until_ms: ms(&one["until"]),
        state: one["state"].as_str().unwrap().to_owned(),
    };
    intervals.iter().map(span).collect()
}

/// What was called complete, held against what could be had at that time.
#[derive(Debug, Default)]
struct Claims {
    /// Times that the ledger was read.
    readings: usize,
    /// Records that lay in complete time at the last reading.
    covered: usize,
}

impl Claims {
    /// Reads the ledger. What it calls complete lacks no record: none comes later, and each that could be
    /// had is at the receiver, without another look at the vendor.
    async fn check(&mut self, scene: &Scene) -> Vec<Span> {
        let spans = ledger(scene).await;
        let now_ms = scene.services.simulator.clock().now_ms();
        let complete: Vec<&Span> = spans.iter().filter(|one| one.state == "complete").collect();
        let records = scene.services.simulator.sheet().records.iter();
        let is_covered = |record: &&Record| complete.iter().any(|span| span.covers(record));
        let covered: Vec<&Record> = records.filter(is_covered).collect();
        for record in &covered {
            let at = record.visible_from_ms;
            assert!(at <= now_ms, "complete before it came: {}", told(record));
        }
        let covered_ids: BTreeSet<&str> = covered.iter().map(|one| one.id.as_str()).collect();
        let lacking = || -> Vec<String> {
            let missing = scene.missing().into_iter();
            missing.filter(|id| covered_ids.contains(&**id)).collect()
        };
        if !lacking().is_empty() {
            // It may be on its way to the receiver, but may not be fetched any more.
            let injector = scene.services.simulator.faults();
            let outage = |endpoint| FaultRule::new(endpoint, Fault::Outage);
            injector.replace(FaultScript {
                seed: 0,
                rules: vec![outage(Endpoint::Microsoft), outage(Endpoint::Google)],
            });
            let began = Instant::now();
            while !lacking().is_empty() {
                let waited = began.elapsed() < ON_ITS_WAY;
                assert!(
                    waited,
                    "falsely complete: {:?} {}",
                    lacking(),
                    scene.report()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            injector.replace(faults());
        }
        self.readings += 1;
        self.covered = covered.len();
        spans
    }
}

fn told(record: &Record) -> String {
    let Record { id, stream, .. } = record;
    let from = DateTime::from_timestamp_millis(record.visible_from_ms).unwrap();
    format!("{id} of {stream}, to be had from {from}")
}

/// Starts the process and waits until it polls.
async fn started(scene: &Scene) -> Process {
    let times = || scene.log().matches("polling").count();
    let before = times();
    let process = scene.start();
    until("polling", || times() > before, || scene.log()).await;
    process
}

/// Records of the sheet that did not arrive, of those that could be had at a time.
fn missing(scene: &Scene, at: DateTime<Utc>) -> Vec<&Record> {
    let ids: BTreeSet<String> = scene.missing().into_iter().collect();
    let records = scene.services.simulator.sheet().records.iter();
    let was_listable = |one: &&Record| one.visible_from_ms <= at.timestamp_millis();
    let missing = records.filter(|one| ids.contains(&one.id));
    missing.filter(was_listable).collect()
}

/// What of the work of a day is not done: what could be had at its start must be here or lost, and the daily
/// pass must have come round.
fn undone(scene: &Scene, spans: &[Span], morning: DateTime<Utc>) -> Vec<String> {
    let is_lost = |record: &Record| {
        let mut lost = spans.iter().filter(|span| span.state == "lost");
        lost.any(|span| span.covers(record))
    };
    let records = missing(scene, morning).into_iter();
    let records = records.filter(|record| !is_lost(record));
    let mut undone: Vec<String> = records
        .map(|record| format!("neither here nor lost: {}", told(record)))
        .collect();
    let due = morning - COMPLETE_AFTER;
    let mut until_ms: BTreeMap<&str, i64> = BTreeMap::new();
    for span in spans {
        let until = until_ms.entry(&span.stream).or_default();
        if span.state != "open" {
            *until = span.until_ms.max(*until);
        }
    }
    let behind = until_ms.into_iter().filter(|(_, until)| {
        let until = DateTime::from_timestamp_millis(*until).unwrap();
        due > start() && until < due
    });
    undone.extend(behind.map(|(stream, _)| format!("not complete until {due}: {stream}")));
    undone
}

/// The same of all days.
fn undone_in_the_end(scene: &Scene, spans: &[Span]) -> Vec<String> {
    let records = unaccounted(scene, spans).into_iter();
    let records = records.map(|record| format!("not accounted for: {}", told(record)));
    let findings = findings_missing(scene).into_iter();
    let findings = findings.map(|due| format!("not found: {due:?}"));
    records.chain(findings).collect()
}

fn verdict(scene: &Scene) -> Verdict {
    let found: Vec<_> = scene.delivered().into_values().collect();
    scene.services.simulator.sheet().judge_growing(&found)
}

/// Due findings that are missing, though each of their records arrived.
fn findings_missing(scene: &Scene) -> Vec<DueFinding> {
    let lost: BTreeSet<String> = scene.missing().into_iter().collect();
    let mut missing = verdict(scene).missing;
    missing.retain(|due| !due.event_ids.iter().any(|id| lost.contains(id)));
    missing
}

/// Records of which the ledger does not say what became of them: those in complete time that did not come,
/// and those in time that is neither complete nor lost.
fn unaccounted<'a>(scene: &'a Scene, spans: &[Span]) -> Vec<&'a Record> {
    let missing: BTreeSet<String> = scene.missing().into_iter().collect();
    let records = scene.services.simulator.sheet().records.iter();
    let is_unaccounted = |record: &&Record| {
        let state = spans.iter().find(|span| span.covers(record));
        match state.map(|span| span.state.as_str()) {
            Some("complete") => missing.contains(&record.id),
            Some("lost") => false,
            _ => true,
        }
    };
    records.filter(is_unaccounted).collect()
}

/// Runs the process through the work of one start; in each third it is killed in the midst of it.
async fn one_start(scene: &Scene, number: i32, claims: &mut Claims) -> Vec<Span> {
    let clock = scene.services.simulator.clock();
    let morning = (start() + EACH * number).max(clock.now());
    clock.set(morning);
    let at_first = missing(scene, morning).len();
    let process = started(scene).await;
    let began = Instant::now();
    loop {
        let spans = claims.check(scene).await;
        if number % 3 == 1 && missing(scene, morning).len() < at_first {
            process.kill();
            return spans;
        }
        let mut undone = undone(scene, &spans, morning);
        if number + 1 == STARTS {
            undone.extend(undone_in_the_end(scene, &spans));
        }
        if undone.is_empty() {
            assert_eq!(process.terminate().await, Some(0));
            return spans;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "waited in vain at start {number} for {} things, such as {:#?}; {}",
            undone.len(),
            undone.iter().take(5).collect::<Vec<_>>(),
            scene.report()
        );
        let next = clock.now() + TimeDelta::minutes(2);
        until("the next reading", || clock.now() >= next, String::new).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_delivered_or_in_the_ledger_and_nothing_was_falsely_complete() {
    let scene = scene().await;
    let mut claims = Claims::default();
    let mut spans = Vec::new();
    for number in 0..STARTS {
        spans = one_start(&scene, number, &mut claims).await;
    }

    // What was lost is what had expired, by the hour; and somebody was told.
    let (from_ms, until_ms) = expired_hour();
    let lost: Vec<&Span> = spans.iter().filter(|one| one.state == "lost").collect();
    let missing = missing(&scene, scene.services.simulator.clock().now());
    assert!(!missing.is_empty(), "nothing expired: this shows nothing");
    for record in &missing {
        let in_the_hour = (from_ms..until_ms).contains(&ledger_time(record));
        let is_office = record.stream.starts_with("office365/");
        assert!(is_office && in_the_hour, "was to be had: {}", told(record));
    }
    for span in &lost {
        let inside = span.from_ms >= from_ms && span.until_ms <= until_ms + 1_000;
        assert!(inside, "lost, but nothing had expired: {span:?}");
        let named = scene.delivered().into_values().any(|finding| {
            finding.detection == "x.audit.gap"
                && span.stream.to_lowercase().ends_with(&finding.entity)
        });
        assert!(named, "nobody is told of {span:?}");
    }
    assert!(claims.covered > 1_000, "{claims:?}");
    let verdict = verdict(&scene);
    assert!(verdict.split.is_empty(), "{:#?}", verdict.split);
    assert!(verdict.unexpected.is_empty(), "{:#?}", verdict.unexpected);
    println!(
        "{} of {} records lost to early expiry, in {} intervals; {} findings met, {} of lost records; {} records \
         in time called complete, read {} times",
        missing.len(),
        scene.services.simulator.sheet().records.len(),
        lost.len(),
        verdict.met.len(),
        verdict.missing.len(),
        claims.covered,
        claims.readings,
    );
    scene.services.shutdown().await;
}

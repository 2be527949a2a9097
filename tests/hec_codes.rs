//! Every reply of a collector, with real lanes: what the lane does, and that nothing is lost or doubled
//! beyond what the prefix rule or a missing answer forces. Prints the table.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::deliver::LaneHealth;
use exfilwatch::pipeline::ingest::Ingest;
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::{Parts, Pipeline, Route};
use exfilwatch_detectors::{DetectorsOptions, RuleSet};
use exfilwatch_emitters::{Delivered, EmitError, Emitter, Environment, SplunkHec};
use exfilwatch_model::{Envelope, JobId, Kind, Page, Product, RatedClock, RawRecord, TenantId};
use exfilwatch_simulator::hec::{Condition, Hec, HecOptions, Poison, Recorded};
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, Running, Simulator, SimulatorOptions, World,
    WorldOptions,
};
use exfilwatch_state::{Commit, Options, State};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

/// Records of each row.
const RECORDS: usize = 10;
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Waits of lanes pass so much faster: a hold of 30 seconds takes 0.15.
const RATE: f64 = 200.0;
/// Rows at a time.
const AT_A_TIME: usize = 6;

/// What the lane did on the way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Went on at once.
    GoesOn,
    /// Sent again after a pause.
    Retries,
    /// Kept everything and told the operator.
    Holds,
}

/// The emitter, and what it asked the lane for: a lane's own health shows a hold only while it lasts.
#[derive(Debug)]
struct Watched {
    emitter: SplunkHec,
    holds: AtomicUsize,
    retries: AtomicUsize,
}

#[async_trait]
impl Emitter for Watched {
    fn name(&self) -> &str {
        self.emitter.name()
    }

    fn batch_max(&self) -> (usize, usize) {
        self.emitter.batch_max()
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        self.emit_telling(batch, &|| ()).await
    }

    async fn emit_telling(
        &self,
        batch: &[Envelope],
        sent: &(dyn Fn() + Sync),
    ) -> Result<Delivered, EmitError> {
        let outcome = self.emitter.emit_telling(batch, sent).await;
        match &outcome {
            Ok(_) => {}
            Err(EmitError::Hold { .. }) => _ = self.holds.fetch_add(1, Ordering::SeqCst),
            Err(_) => _ = self.retries.fetch_add(1, Ordering::SeqCst),
        }
        outcome
    }

    fn remark(&self) -> Option<String> {
        self.emitter.remark()
    }
}

impl Watched {
    fn lane(&self) -> Lane {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        match (count(&self.holds), count(&self.retries)) {
            (0, 0) => Lane::GoesOn,
            (0, _) => Lane::Retries,
            (_, _) => Lane::Holds,
        }
    }
}

/// One reply.
struct Row {
    name: &'static str,
    /// Numbers of the table that it stands for.
    codes: &'static [u64],
    options: HecOptions,
    conditions: Vec<Condition>,
    faults: Vec<FaultRule>,
    /// Members of the emitter's options.
    emitter: serde_json::Value,
    /// Ends the trouble once the lane is held or waits.
    heal: Option<fn(&Hec)>,
    lane: Lane,
    quarantined: usize,
    /// Repeats that are forced.
    repeats: u64,
}

fn row(name: &'static str, codes: &'static [u64], lane: Lane) -> Row {
    Row {
        name,
        codes,
        options: HecOptions {
            use_ack: false,
            ..HecOptions::default()
        },
        conditions: vec![],
        faults: vec![],
        emitter: serde_json::json!({}),
        heal: None,
        lane,
        quarantined: 0,
        repeats: 0,
    }
}

impl Row {
    fn options(mut self, change: impl FnOnce(&mut HecOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// The next bodies are answered with the code.
    fn refused(mut self, code: u16, times: usize) -> Self {
        self.conditions = vec![Condition::refusing(code); times];
        self
    }

    fn condition(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// The fourth record is never taken.
    fn poisoned(self, codes: &[u16]) -> Self {
        let poison = |code: &u16| Poison {
            contains: "u3@corp.example".to_owned(),
            code: *code,
        };
        let poison = codes.iter().map(poison).collect();
        self.options(|options| options.poison = poison)
    }

    /// The first call fails like this.
    fn fault(mut self, fault: Fault) -> Self {
        self.faults = vec![FaultRule::new(Endpoint::HecEvent, fault).calls(1, 1)];
        self
    }

    fn page(self, status: u16) -> Self {
        self.fault(Fault::HtmlPage { status })
    }

    fn emitter(mut self, options: serde_json::Value) -> Self {
        self.emitter = options;
        self
    }

    fn heal(mut self, heal: fn(&Hec)) -> Self {
        self.heal = Some(heal);
        self
    }

    fn quarantined(mut self, quarantined: usize) -> Self {
        self.quarantined = quarantined;
        self
    }

    fn repeats(mut self, repeats: u64) -> Self {
        self.repeats = repeats;
        self
    }
}

/// All rows, by number; those without one behind.
fn rows() -> Vec<Row> {
    let parts = [
        events(),
        tokens(),
        channels(),
        pressure(),
        no_hec(),
        no_answer(),
    ];
    let mut rows: Vec<Row> = parts.into_iter().flatten().collect();
    rows.sort_by_key(|row| row.codes.first().copied().unwrap_or(u64::MAX));
    rows
}

/// What the events or their request are refused for.
fn events() -> Vec<Row> {
    use Lane::{GoesOn, Holds};
    vec![
        row("0", &[0], GoesOn),
        row("0, acknowledged", &[0], GoesOn).options(|options| options.use_ack = true),
        row("5", &[5], GoesOn).refused(5, 1).quarantined(RECORDS),
        row("6 at 3", &[6], GoesOn).poisoned(&[6]).quarantined(1),
        row("6 at 3, acknowledged", &[6], GoesOn)
            .poisoned(&[6])
            .options(|options| options.use_ack = true)
            .quarantined(1),
        row("6 without a number", &[6], GoesOn).refused(6, 1),
        row("7 at 3", &[7], Holds)
            .poisoned(&[7])
            .heal(|hec| hec.configure(|options| options.poison.clear())),
        row("7, no such index", &[7], Holds)
            .options(|options| options.indexes = BTreeSet::from(["main".to_owned()]))
            .emitter(serde_json::json!({ "index": { "events": "saas" } }))
            .heal(|hec| hec.configure(|options| options.indexes.clear())),
        row("7, some event", &[7], Holds)
            .poisoned(&[7])
            .options(|options| options.whole_bodies = true)
            .heal(|hec| hec.configure(|options| options.poison.clear())),
        row("7, no such index, some event", &[7], Holds)
            .options(|options| {
                options.indexes = BTreeSet::from(["main".to_owned()]);
                options.whole_bodies = true;
            })
            .emitter(serde_json::json!({ "index": { "events": "saas" } }))
            .heal(|hec| hec.configure(|options| options.indexes.clear())),
        row("15 without a number", &[15], GoesOn)
            .poisoned(&[15])
            .options(|options| options.whole_bodies = true),
        row("12 at 3", &[12], GoesOn).poisoned(&[12]).quarantined(1),
        row("13 at 3", &[13], GoesOn).poisoned(&[13]).quarantined(1),
        row("15 at 3", &[15], GoesOn).poisoned(&[15]),
        row("15, then 6", &[15, 6], GoesOn)
            .poisoned(&[15, 6])
            .quarantined(1),
        row("413", &[], GoesOn).options(|options| options.content_bytes_max = 2_000),
        row("413 for each", &[], GoesOn)
            .options(|options| options.content_bytes_max = 300)
            .quarantined(RECORDS),
        row("415", &[], GoesOn).options(|options| options.gzip = false),
        row("415 without gzip", &[], Holds)
            .page(415)
            .emitter(serde_json::json!({ "gzip": false })),
    ]
}

fn tokens() -> Vec<Row> {
    use Lane::{GoesOn, Holds};
    let mut rows = vec![
        row("1, token disabled", &[1], Holds).heal(|hec| hec.disable_token(false)),
        row("4, token unknown", &[4], Holds).heal(|hec| hec.set_token("t0ken")),
        row("4, of one connection", &[4], GoesOn).refused(4, 1),
    ];
    for (code, name) in [(2, "2"), (3, "3"), (16, "16"), (21, "21"), (22, "22")] {
        rows.push(row(name, one(code), Holds).refused(code, 1));
    }
    rows
}

/// Channels and acknowledgements.
fn channels() -> Vec<Row> {
    use Lane::{GoesOn, Holds, Retries};
    let mut rows = vec![
        row("14, from /ack", &[14], GoesOn)
            .options(|options| (options.use_ack, options.ack_never) = (true, true))
            .heal(|hec| hec.configure(|options| options.use_ack = false)),
        row("27, a full channel", &[27], Retries)
            .options(|options| (options.use_ack, options.acks_max) = (true, 1))
            .emitter(serde_json::json!({ "batch_events_max": RECORDS / 2 })),
        row("no acknowledgement", &[], Retries)
            .options(|options| (options.use_ack, options.ack_never) = (true, true))
            .emitter(serde_json::json!({ "ack_timeout_seconds": 1 }))
            .heal(|hec| hec.configure(|options| options.ack_never = false))
            .repeats(RECORDS as u64),
    ];
    for (code, one_time, for_good) in [
        (10, "10 once", "10 for good"),
        (11, "11 once", "11 for good"),
        (28, "28 once", "28 for good"),
    ] {
        rows.push(row(one_time, one(code), GoesOn).refused(code, 1));
        rows.push(row(for_good, one(code), Holds).refused(code, 3));
    }
    rows
}

/// A receiver that is busy, full, failing or leaving, or about to be.
fn pressure() -> Vec<Row> {
    use Lane::{GoesOn, Retries};
    let mut rows = vec![
        row("9 at 4", &[9], Retries).condition(Condition::taking_first(4, 9)),
        row("24", &[24], GoesOn).condition(Condition::taking(24)),
        row("25, acknowledged", &[25], GoesOn)
            .options(|options| options.use_ack = true)
            .condition(Condition::taking(25)),
        row("26 with Retry-After", &[26], Retries).condition(Condition {
            retry_after_seconds: Some(9),
            ..Condition::refusing(26)
        }),
        row("503 with number 99", &[], Retries).fault(numbered(503, 99)),
        row("9 at one behind the last", &[9], Retries)
            .fault(numbering(503, 9, 1))
            .emitter(serde_json::json!({ "batch_events_max": 1 })),
    ];
    for (code, name) in [
        (8, "8"),
        (9, "9"),
        (18, "18"),
        (19, "19"),
        (20, "20"),
        (23, "23"),
    ] {
        rows.push(row(name, one(code), Retries).refused(code, 1));
    }
    for (status, name) in [
        (408, "408"),
        (429, "429"),
        (500, "500"),
        (502, "502"),
        (504, "504"),
    ] {
        rows.push(row(name, &[], Retries).page(status));
    }
    rows
}

/// What is no answer of a collector to a send.
fn no_hec() -> Vec<Row> {
    let mut rows = vec![
        row("17", &[17], Lane::Holds).refused(17, 1),
        row("400 with number 99", &[], Lane::Holds).fault(numbered(400, 99)),
    ];
    for (status, name) in [
        (200, "200, a page"),
        (303, "303"),
        (401, "401"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
    ] {
        rows.push(row(name, &[], Lane::Holds).page(status));
    }
    rows
}

fn no_answer() -> Vec<Row> {
    let late = Fault::AnswerLate {
        milliseconds: 4_000,
    };
    vec![
        row("connection cut before", &[], Lane::Retries).fault(Fault::Reset),
        row("connection cut after", &[], Lane::Retries)
            .fault(Fault::ResetAfter)
            .repeats(RECORDS as u64),
        row("time-out after the body", &[], Lane::Retries)
            .fault(late)
            .emitter(serde_json::json!({ "request_timeout_seconds": 1 }))
            .repeats(RECORDS as u64),
    ]
}

fn one(code: u16) -> &'static [u64] {
    const ALL: [u64; 29] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28,
    ];
    &ALL[usize::from(code)..=usize::from(code)]
}

fn numbered(status: u16, code: u64) -> Fault {
    answering(
        status,
        format!(r#"{{"text":"something new","code":{code}}}"#),
    )
}

/// It also names an event.
fn numbering(status: u16, code: u64, event: usize) -> Fault {
    let body = format!(r#"{{"text":"something","code":{code},"invalid-event-number":{event}}}"#);
    answering(status, body)
}

fn answering(status: u16, body: String) -> Fault {
    Fault::Status {
        status,
        body,
        headers: vec![],
    }
}

fn at() -> DateTime<Utc> {
    "2026-05-04T09:00:00Z".parse().unwrap()
}

async fn collector(row: &Row) -> Running {
    let world = World::invent(WorldOptions::new(1, at(), at() + TimeDelta::minutes(1)));
    let options = SimulatorOptions {
        hec: row.options.clone(),
        faults: FaultScript {
            rules: row.faults.clone(),
            ..FaultScript::default()
        },
        ..SimulatorOptions::default()
    };
    let running = Simulator::new(world, options)
        .unwrap()
        .start()
        .await
        .unwrap();
    let hec = running.simulator.hec();
    hec.answer_next(row.conditions.clone());
    hec.set_token(if row.name == "4, token unknown" {
        "rotated"
    } else {
        "t0ken"
    });
    hec.disable_token(row.name == "1, token disabled");
    running
}

fn emitter(row: &Row, running: &Running, clock: Arc<RatedClock>) -> Arc<Watched> {
    let mut options = serde_json::json!({
        "url": running.hec_url,
        "token": { "env": "HEC_TOKEN" },
        "send": ["events"],
        "ack_timeout_seconds": 30,
        "ack_poll_seconds_max": 1,
    });
    let members = row.emitter.as_object().unwrap().clone();
    options.as_object_mut().unwrap().extend(members);
    let environment = Environment::new(|_| Some("t0ken".to_owned()));
    let options = serde_json::from_value(options).unwrap();
    Arc::new(Watched {
        emitter: SplunkHec::new("splunk_hec.main", &options, &environment, clock).unwrap(),
        holds: AtomicUsize::new(0),
        retries: AtomicUsize::new(0),
    })
}

fn pipeline(emitter: Arc<Watched>, clock: Arc<RatedClock>, folder: &Path) -> Pipeline {
    let options = Options {
        sync: false,
        ..Options::default()
    };
    Pipeline::start(Parts {
        state: State::open(folder, at(), options).unwrap().state,
        routes: vec![Route::all(emitter, vec![Kind::Events])],
        clock,
        budget_bytes: u64::MAX,
        shutdown: CancellationToken::new(),
        drain: Duration::from_secs(5),
    })
    .unwrap()
}

/// The records, by the line of real pages.
async fn ingest(pipeline: &Pipeline, rules: Arc<RuleSet>) -> BTreeSet<String> {
    let shared = pipeline.shared();
    let tenant = TenantId::new("contoso").unwrap();
    let budget = shared.seen_budget.clone();
    let config = StepConfig {
        memory: TenantMemory::load(&*shared.store, tenant, at().date_naive(), budget).unwrap(),
        job: JobId::live(),
        readers: app::readers(&["corp.example"], &[]),
        rules: rules.into(),
        forwards_events: true,
        purpose: Purpose::Deliver,
        live_since: at() - TimeDelta::days(1),
    };
    let (store, committer) = (shared.store.clone(), shared.committer.clone());
    let mut ingest = Ingest::restore(config, store, committer, shared.watch.clone()).unwrap();
    let id = |number: usize| format!("00000000-0000-4000-8000-{number:012}");
    let record = |number: usize| {
        let id = id(number);
        let text = format!(
            r#"{{"CreationTime":"2026-05-04T09:00:00","Id":"{id}","Operation":"MailItemsAccessed","RecordType":50,"Workload":"Exchange","UserId":"u{number}@corp.example","UserType":0}}"#
        );
        RawRecord::new(Bytes::from(text))
    };
    let page = Page {
        stream: "contoso/office365/Audit.Exchange".parse().unwrap(),
        item: "blob".into(),
        records: (0..RECORDS).map(record).collect(),
        malformed: vec![],
        fetched_at: at(),
        last: true,
    };
    let products = vec![Product::M365; RECORDS];
    ingest
        .page(&page, &products, Commit::default())
        .await
        .unwrap();
    (0..RECORDS).map(id).collect()
}

fn health(pipeline: &Pipeline) -> LaneHealth {
    let shown = pipeline.shared().watch.copy();
    let lane = shown.lanes.keys().next().unwrap();
    shown.lane_health(lane)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let all = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let late = |_| panic!("{what}: not in time");
    tokio::time::timeout(PATIENCE, all)
        .await
        .unwrap_or_else(late);
}

/// Runs a row; its line of the table.
async fn run(row: Row, rules: Arc<RuleSet>) -> String {
    let name = row.name;
    let folder = tempfile::tempdir().unwrap();
    let running = collector(&row).await;
    let hec = running.simulator.hec();
    let clock = Arc::new(RatedClock::new(at(), Instant::now(), RATE));
    let emitter = emitter(&row, &running, clock.clone());
    let pipeline = pipeline(emitter.clone(), clock, folder.path());
    let sent = ingest(&pipeline, rules).await;
    let settled = || {
        let health = health(&pipeline);
        health.delivered + health.quarantined == RECORDS as u64
    };
    if let Some(heal) = row.heal {
        // By then the lane has told of the trouble, or waits with all sent.
        until(name, || match row.lane {
            Lane::GoesOn => hec.look(Recorded::count) >= RECORDS as u64,
            lane => emitter.lane() == lane,
        })
        .await;
        assert!(!settled(), "{name}: settled with the trouble");
        heal(hec);
    }
    until(name, settled).await;
    let end = health(&pipeline);
    let store = pipeline.shared().store.clone();
    pipeline
        .finish(Duration::from_secs(20), CancellationToken::new())
        .await
        .unwrap();

    assert_eq!(emitter.lane(), row.lane, "{name}");
    let recorded = hec.recorded();
    let arrived: BTreeSet<String> = recorded
        .record_ids()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let kept = store.quarantined().unwrap();
    assert_eq!(kept.len(), row.quarantined, "{name}");
    assert_eq!(end.quarantined, row.quarantined as u64, "{name}");
    let missing: Vec<&String> = sent.difference(&arrived).collect();
    match missing.as_slice() {
        [one] => assert!(one.ends_with("003"), "{name}: {one} is not the bad one"),
        missing => assert_eq!(missing.len(), kept.len(), "{name}: lost of {missing:?}"),
    }
    let lost = missing.len() - kept.len();
    assert_eq!(lost, 0, "{name}: {missing:?}");
    assert_eq!(recorded.duplicates(), row.repeats, "{name}: repeats");
    assert_eq!(end.remark.is_some(), name.starts_with("14"), "{name}");
    let lane = format!("{:?}", row.lane);
    let line = format!(
        "{name:<29} {lane:<8} {:>5} {:>8} {:>7} {:>12} {lost:>5}",
        running.simulator.faults().calls(Endpoint::HecEvent),
        arrived.len(),
        row.repeats,
        kept.len(),
    );
    running.shutdown().await;
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reply_leads_to_its_action_and_nothing_is_lost_or_doubled_without_need() {
    let rows = rows();
    let covered: BTreeSet<u64> = rows.iter().flat_map(|row| row.codes).copied().collect();
    assert_eq!(covered, (0..=28).collect(), "every number of the table");
    let rules = app::rules(&DetectorsOptions::default()).unwrap();
    let lines: Vec<String> = futures::stream::iter(rows)
        .map(|row| run(row, rules.clone()))
        .buffered(AT_A_TIME)
        .collect()
        .await;
    println!(
        "{:<29} {:<8} {:>5} {:>8} {:>7} {:>12} {:>5}\n{}",
        "reply",
        "lane",
        "sends",
        "arrived",
        "repeats",
        "quarantined",
        "lost",
        lines.join("\n")
    );
}

//! The Office 365 feed through the whole line: store, seen index, holds and counters, against the
//! simulated service on a fast clock. Rows of the failure table that no connector can hold alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::alarm::{AlarmOptions, Alarms};
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::watch::StreamHealth;
use exfilwatch::pipeline::worker::{WorkerConfig, run_tenant};
use exfilwatch::pipeline::{Parts, Pipeline, Route};
use exfilwatch_connectors::kernel::surroundings::Surroundings;
use exfilwatch_connectors::options::Office365Options;
use exfilwatch_connectors::records::microsoft::Microsoft365Records;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_connectors::{Connector, FetchError, Listing, PageStream, RecordReader};
use exfilwatch_detectors::DetectorsOptions;
use exfilwatch_emitters::{Delivered, EmitError, Emitter};
use exfilwatch_model::{
    Clock, Cursor, Domains, Envelope, JobId, Kind, SecretSource, StreamId, TenantId, Window,
    WorkItem,
};
use exfilwatch_simulator::microsoft::Publication;
use exfilwatch_simulator::world::{AttackPlan, Delivery};
use exfilwatch_simulator::{
    Credentials, Endpoint, Fault, FaultRule, FaultScript, Running, Simulator, SimulatorOptions,
    VirtualClock, World, WorldOptions,
};
use exfilwatch_state::{Options, State, Steps};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TYPE: &str = "Audit.General";
/// Virtual seconds per second: a poll is a tenth of a second.
const RATE: f64 = 600.0;
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> DateTime<Utc> {
    "2026-03-04T06:00:00Z".parse().unwrap()
}

fn stream() -> StreamId {
    format!("contoso/office365/{TYPE}").parse().unwrap()
}

#[derive(Debug)]
struct Virtual(VirtualClock);

impl Clock for Virtual {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }
    fn real(&self, wait: Duration) -> Duration {
        wait.div_f64(RATE)
    }
}

/// Keeps what it is sent.
#[derive(Debug, Default)]
struct Receiver(Mutex<Vec<Envelope>>);

impl Receiver {
    /// How often each record came.
    fn records(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        let taken = self.0.lock().unwrap();
        for item in taken.iter().filter(|item| item.kind == Kind::Events) {
            let record: Value = serde_json::from_slice(&item.payload).unwrap();
            let id = record["Id"].as_str().unwrap_or_default().to_owned();
            *count.entry(id).or_default() += 1;
        }
        count
    }

    fn has(&self, id: &str) -> bool {
        self.records().contains_key(id)
    }

    /// What was said about ourselves under this name.
    fn said(&self, name: &str) -> Vec<Value> {
        let taken = self.0.lock().unwrap();
        let internal = taken.iter().filter(|item| item.kind == Kind::Internal);
        internal
            .map(|item| serde_json::from_slice::<Value>(&item.payload).unwrap())
            .filter(|notice| notice["type"] == name)
            .collect()
    }
}

#[async_trait]
impl Emitter for Receiver {
    fn name(&self) -> &'static str {
        "test.receiver"
    }
    fn batch_max(&self) -> (usize, usize) {
        (1_000, 1 << 20)
    }
    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        self.0.lock().unwrap().extend_from_slice(batch);
        Ok(Delivered::default())
    }
}

/// The service.
async fn service(change: impl FnOnce(&mut SimulatorOptions)) -> Running {
    static SHARED: OnceLock<Credentials> = OnceLock::new();
    let credentials = SHARED.get_or_init(|| Credentials::generate().unwrap());
    let world = WorldOptions {
        records_per_day: 0,
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Quiet,
        ..WorldOptions::new(5, now() - TimeDelta::days(20), now() - TimeDelta::days(19))
    };
    let mut options = SimulatorOptions {
        start: Some(now()),
        rate: RATE,
        credentials: Some(credentials.clone()),
        ..SimulatorOptions::default()
    };
    options.microsoft.subscribed = true;
    options.microsoft.requests_per_minute = 0;
    options.microsoft.token_lifetime_seconds = 86_000;
    change(&mut options);
    let simulator = Simulator::new(World::invent(world), options).unwrap();
    simulator.start().await.unwrap()
}

/// One process: a pipeline with the tenant's worker.
struct Process {
    pipeline: Pipeline,
    receiver: Arc<Receiver>,
    worker: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Process {
    fn start(service: &Running, folder: &Path, receiver: &Arc<Receiver>) -> Self {
        Self::start_with(service, folder, receiver, |connector| connector)
    }

    /// As [`Process::start`], with another connector around the one of the feed.
    fn start_with(
        service: &Running,
        folder: &Path,
        receiver: &Arc<Receiver>,
        around: impl Fn(Arc<dyn Connector>) -> Arc<dyn Connector>,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Virtual(service.simulator.clock().clone()));
        let options = Options {
            sync: false,
            steps: Steps::default(),
            ..Options::default()
        };
        let shutdown = CancellationToken::new();
        let pipeline = Pipeline::start(Parts {
            state: State::open(folder, clock.now(), options).unwrap().state,
            routes: vec![Route::all(
                receiver.clone(),
                vec![Kind::Events, Kind::Internal],
            )],
            clock: clock.clone(),
            budget_bytes: u64::MAX,
            shutdown: shutdown.clone(),
            drain: Duration::from_secs(5),
        })
        .unwrap();
        let mut config = worker_config(service, &pipeline, &clock);
        config.connectors = config.connectors.into_iter().map(around).collect();
        let worker = tokio::spawn(run_tenant(config, pipeline.shared().clone()));
        Self {
            pipeline,
            receiver: receiver.clone(),
            worker,
            shutdown,
        }
    }

    fn health(&self) -> StreamHealth {
        let shown = self.pipeline.shared().watch.copy();
        shown.streams.get(&stream()).cloned().unwrap_or_default()
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is(self) {
            let health = self.health();
            assert!(started.elapsed() < PATIENCE, "{what}: {health:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends as a process does; what is under way is left where it is.
    async fn end(self) {
        self.shutdown.cancel();
        self.worker.await.unwrap();
        let patience = Duration::from_secs(20);
        let finished = self.pipeline.finish(patience, CancellationToken::new());
        finished.await.unwrap();
    }
}

fn worker_config(service: &Running, pipeline: &Pipeline, clock: &Arc<dyn Clock>) -> WorkerConfig {
    let shared = pipeline.shared();
    let tenant = TenantId::new("contoso").unwrap();
    let root = service.microsoft_url.parse().ok();
    let app = service.simulator.credentials().microsoft.clone();
    let tenant_id = service.simulator.world().tenants()[0].tenant_id;
    let options = Office365Options {
        tenant: Some(tenant.clone()),
        tenant_id: tenant_id.map(|id| id.to_string()),
        client_id: Some(app.client_id.clone()),
        client_secret: Some(SecretSource::Env("SECRET".into())),
        content_types: Some(vec![TYPE.to_owned()]),
        api_root: root.clone(),
        login_root: root,
        blob_bytes_max: Some(4 << 20),
        ..Office365Options::default()
    };
    let secret = move |_: &str| Some(app.client_secret.clone());
    let surroundings = Surroundings::new(clock.clone(), Arc::new(secret));
    let domains = Arc::new(Domains::new(&["contoso.example"], &[]));
    let reader = Arc::new(Microsoft365Records::new(domains));
    let connector = AnyOptions::Office365(Box::new(options)).build(reader, &surroundings);
    let today = clock.now().date_naive();
    let budget = shared.seen_budget.clone();
    WorkerConfig {
        connectors: vec![connector.unwrap()],
        step: StepConfig {
            memory: TenantMemory::load(&*shared.store, tenant, today, budget).unwrap(),
            job: JobId::live(),
            readers: app::readers(&["contoso.example"], &[]),
            rules: app::rules(&DetectorsOptions::default()).unwrap().into(),
            forwards_events: true,
            purpose: Purpose::Deliver,
            live_since: now() - TimeDelta::days(1),
        },
        alarms: Alarms::new(AlarmOptions::default(), false),
        heartbeat: TimeDelta::minutes(5),
        first_run: TimeDelta::hours(1),
        archives: Vec::new(),
    }
}

fn record(id: &str) -> String {
    format!(
        r#"{{"Id":"{id}","CreationTime":"2026-03-04T05:00:00","Operation":"Nothing","RecordType":6,"UserId":"a@contoso.example","Workload":"SharePoint","Filling":"{}"}}"#,
        Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).simple()
    )
}

fn blob(content_id: &str, created: DateTime<Utc>, ids: &[&str]) -> Publication {
    let records: Vec<String> = ids.iter().map(|id| record(id)).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    Publication::new(("contoso", TYPE), content_id, created, &records)
}

fn publish(service: &Running, content_id: &str, ids: &[&str]) {
    let created = service.simulator.clock().now() - TimeDelta::minutes(3);
    let blob = blob(content_id, created, ids);
    assert!(service.simulator.microsoft().publish(blob));
}

fn script(service: &Running, rules: Vec<FaultRule>) {
    let script = FaultScript { seed: 1, rules };
    service.simulator.faults().replace(script);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_id_in_two_blobs_and_repeat_after_5_days() {
    let service = service(|_| ()).await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let process = Process::start(&service, folder.path(), &receiver);
    publish(&service, "1$a", &["a", "b"]);
    publish(&service, "2$b", &["c", "a"]);
    process
        .until("both blobs", |p| p.receiver.has("b") && p.receiver.has("c"))
        .await;
    // Sixteen of November again on the twenty-first; and thirteen days later, over a restart.
    service.simulator.clock().advance(Duration::from_hours(120));
    publish(&service, "3$c", &["a", "d"]);
    process.until("five days", |p| p.receiver.has("d")).await;
    process.end().await;
    let process = Process::start(&service, folder.path(), &receiver);
    for (hours, last) in [(100, "e"), (92, "f")] {
        service
            .simulator
            .clock()
            .advance(Duration::from_hours(hours));
        publish(&service, &format!("4${last}"), &["a", "b", last]);
        process.until(last, |p| p.receiver.has(last)).await;
    }
    process.end().await;
    let records = receiver.records();
    let once: Vec<&str> = records.keys().map(String::as_str).collect();
    assert_eq!(once, ["a", "b", "c", "d", "e", "f"]);
    assert!(records.values().all(|times| *times == 1), "{records:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_mid_blob() {
    let service = service(|_| ()).await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let ids: Vec<String> = (0..2_500).map(|number| format!("r{number:06}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    // The connection breaks when more than a page has come, and again at each try.
    let rule = FaultRule::new(Endpoint::Blob, Fault::Truncate { bytes: 60_000 });
    script(&service, vec![rule]);
    publish(&service, "1$a", &ids);
    let process = Process::start(&service, folder.path(), &receiver);
    process
        .until("a page, and a failure", |p| {
            let health = p.health();
            health.records >= 1_000 && health.failures >= 1
        })
        .await;
    assert_eq!(process.health().items_fetched, 0);
    process.end().await;
    script(&service, vec![]);
    let process = Process::start(&service, folder.path(), &receiver);
    process
        .until("the whole blob", |p| p.health().items_fetched == 1)
        .await;
    let health = process.health();
    assert!(health.duplicates >= 1_000, "{health:?}");
    process.end().await;
    let records = receiver.records();
    assert_eq!(records.len(), 2_500);
    assert!(records.values().all(|times| *times == 1));
}

/// Panics in the first listing and in the first fetch, as a bug of ours would.
#[derive(Debug)]
struct Panicking {
    within: Arc<dyn Connector>,
    listings: AtomicUsize,
    fetches: AtomicUsize,
}

#[async_trait]
impl Connector for Panicking {
    fn kind(&self) -> &'static str {
        self.within.kind()
    }
    fn streams(&self) -> Vec<StreamId> {
        self.within.streams()
    }
    fn quota_key(&self) -> String {
        self.within.quota_key()
    }
    fn first_cursor(&self, stream: &StreamId, window: Window) -> Cursor {
        self.within.first_cursor(stream, window)
    }
    async fn list(&self, stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError> {
        assert!(
            self.listings.fetch_add(1, Ordering::SeqCst) > 0,
            "a bug in a listing"
        );
        self.within.list(stream, cursor).await
    }
    async fn relist(&self, stream: &StreamId, window: Window) -> Result<Vec<WorkItem>, FetchError> {
        self.within.relist(stream, window).await
    }
    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        assert!(
            self.fetches.fetch_add(1, Ordering::SeqCst) > 0,
            "a bug in a fetch"
        );
        self.within.fetch(item).await
    }
    fn records(&self) -> &dyn RecordReader {
        self.within.records()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_panics_is_restarted() {
    let service = service(|_| ()).await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    publish(&service, "1$a", &["a", "b"]);
    let panicking = Arc::new(Mutex::new(None));
    let kept = panicking.clone();
    let process = Process::start_with(&service, folder.path(), &receiver, move |within| {
        let connector = Arc::new(Panicking {
            within,
            listings: AtomicUsize::new(0),
            fetches: AtomicUsize::new(0),
        });
        *kept.lock().unwrap() = Some(connector.clone());
        connector
    });
    process
        .until("both records", |p| {
            p.receiver.has("a") && p.receiver.has("b")
        })
        .await;
    process.end().await;
    let panicking = panicking.lock().unwrap().take().unwrap();
    assert!(panicking.listings.load(Ordering::SeqCst) > 1);
    assert!(panicking.fetches.load(Ordering::SeqCst) > 1);
    assert!(receiver.records().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_subscription_is_told_of_once_and_recovers_by_itself() {
    let service = service(|_| ()).await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let process = Process::start(&service, folder.path(), &receiver);
    publish(&service, "1$a", &["a"]);
    process.until("content", |p| p.receiver.has("a")).await;
    let microsoft = service.simulator.microsoft();
    // Listed before, and ready only later: it is fetched though the stream is held.
    let listed_at = service.simulator.clock().now() - TimeDelta::minutes(3);
    let mut unready = blob("0$z", listed_at, &["z"]);
    unready.ready = Some(listed_at + TimeDelta::hours(1));
    assert!(microsoft.publish(unready));
    process
        .until("it is listed", |p| p.health().open_items == 1)
        .await;
    microsoft.bar_subscription("contoso", TYPE, true);
    process.until("held", |p| p.health().held.is_some()).await;
    let held = process.health().held.unwrap();
    assert!(
        held.contains("AF20023") && held.contains("find out who"),
        "{held}"
    );
    process.until("the late one", |p| p.receiver.has("z")).await;
    assert!(process.health().held.is_some());
    process
        .until("two starts", |_| {
            microsoft.start_calls("contoso", TYPE) >= 2
        })
        .await;
    microsoft.bar_subscription("contoso", TYPE, false);
    publish(&service, "2$b", &["b"]);
    process.until("content", |p| p.receiver.has("b")).await;
    assert_eq!(process.health().held, None);
    process.end().await;
    assert_eq!(receiver.said("collector.degraded").len(), 1);
    assert_eq!(receiver.said("collector.recovered").len(), 1);
    let gaps = receiver.said("collector.gap");
    let reason = gaps[0]["reason"].to_string();
    assert!(
        gaps.len() == 1 && reason.contains("subscription was off"),
        "{gaps:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_refused_for_ever_does_not_stop_its_stream() {
    let service = service(|_| ()).await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let refused = Fault::Status {
        status: 403,
        body: "Forbidden".into(),
        headers: vec![],
    };
    let rule = FaultRule {
        path_contains: Some("audit/1$a".into()),
        ..FaultRule::new(Endpoint::Blob, refused)
    };
    script(&service, vec![rule]);
    publish(&service, "1$a", &["a"]);
    let process = Process::start(&service, folder.path(), &receiver);
    process.until("held", |p| p.health().held.is_some()).await;
    for number in 0..6 {
        let id = format!("b{number}");
        publish(&service, &format!("2${id}"), &[&id]);
        process.until(&id, |p| p.receiver.has(&id)).await;
    }
    let tries = |p: &Process| {
        let store = p.pipeline.shared().store.clone();
        let open = store.work(&stream()).unwrap();
        open.first().map_or(0, |item| item.attempts)
    };
    process.until("many tries", |p| tries(p) > 5).await;
    // It is not given up, and it does not hold the stream any more.
    assert_eq!(process.health().items_lost, 0);
    publish(&service, "3$c", &["c"]);
    process.until("c", |p| p.receiver.has("c")).await;
    let asked = service.simulator.clock().now();
    publish(&service, "3$d", &["d"]);
    process.until("d", |p| p.receiver.has("d")).await;
    let waited = service.simulator.clock().now() - asked;
    assert!(waited < TimeDelta::minutes(12), "{waited}");
    script(&service, vec![]);
    process.until("a", |p| p.receiver.has("a")).await;
    process.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_counted_against_what_was_listed() {
    let service = service(|options| {
        options.microsoft.subscribed = false;
        options.microsoft.content_before_subscription = false;
        options.microsoft.first_content_after_seconds = 3_600;
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let process = Process::start(&service, folder.path(), &receiver);
    process
        .until("waiting", |p| p.health().waiting.is_some())
        .await;
    let waiting = process.health().waiting.unwrap();
    assert!(waiting.contains("12 hours"), "{waiting}");
    assert_eq!(process.health().held, None);
    service.simulator.clock().advance(Duration::from_hours(2));
    let created = service.simulator.clock().now() - TimeDelta::minutes(3);
    let microsoft = service.simulator.microsoft();
    // Eight good ones of which two hold a record again, one over the cap, one that is expired.
    for number in 0..8 {
        let (own, again) = (format!("r{number}"), format!("r{}", number / 7 * 6));
        assert!(microsoft.publish(blob(&format!("1${number}"), created, &[&own, &again])));
    }
    let mut large = blob("2$large", created, &[]);
    large.body = Bytes::from(format!("[{{\"Id\":\"{}\"}}]", "random ".repeat(800_000)));
    assert!(microsoft.publish(large));
    let mut expired = blob("3$expired", created, &["x"]);
    expired.expires = Some(created + TimeDelta::minutes(1));
    assert!(microsoft.publish(expired));
    process
        .until("all settled", |p| {
            let health = p.health();
            health.items_fetched + health.items_lost >= 10 && health.open_items == 0
        })
        .await;
    let health = process.health();
    assert_eq!(
        (health.items_listed, health.items_fetched, health.items_lost),
        (10, 8, 2)
    );
    let records = u64::try_from(receiver.records().len()).unwrap();
    assert_eq!((health.records, records), (16, 8));
    assert_eq!(health.duplicates, 8, "{health:?}");
    assert_eq!(health.waiting, None);
    let store = process.pipeline.shared().store.clone();
    let gaps = store.gaps().unwrap();
    let gap_of = |word: &str| gaps.iter().any(|gap| gap.reason.contains(word));
    assert!(
        gap_of("larger than 4 MiB") && gap_of("expired at"),
        "{gaps:?}"
    );
    process.end().await;
}

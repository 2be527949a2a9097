//! One process: pipeline, receiver and the tenant's worker, on a clock that stands still until the test
//! moves it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::alarm::{AlarmOptions, Alarms};
use exfilwatch::pipeline::job::keeper;
use exfilwatch::pipeline::ledger::{self, Account, Interval, SilenceOptions};
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::reconcile::{ReconcileRequest, Told, reconcile};
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::watch::StreamHealth;
use exfilwatch::pipeline::worker::{WorkerConfig, run_tenant};
use exfilwatch::pipeline::{Parts, Pipeline, Route};
use exfilwatch_detectors::DetectorsOptions;
use exfilwatch_emitters::{Delivered, EmitError, Emitter};
use exfilwatch_model::{Clock, Cursor, Envelope, Gap, JobId, Kind, TenantId};
use exfilwatch_state::{Commit, Options, State, Steps};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::vendor::{Vendor, stream};

const PATIENCE: Duration = Duration::from_secs(60);
/// Hours a stream may be silent here.
pub(crate) const SILENCE_HOURS: u32 = 5;

pub(crate) fn start() -> DateTime<Utc> {
    "2026-05-11T08:00:00Z".parse().unwrap()
}

/// Moved by the test only; waiting takes a moment.
#[derive(Debug)]
pub(crate) struct TestClock(Mutex<DateTime<Utc>>);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(start())))
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    pub(crate) fn pass(&self, time: TimeDelta) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        Self::now(self)
    }

    fn real(&self, _wait: Duration) -> Duration {
        Duration::from_millis(5)
    }
}

/// Keeps what it is sent; fails and blocks as told.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    taken: Mutex<Vec<Envelope>>,
    /// Batches it still refuses to take.
    pub(crate) failures_left: AtomicUsize,
    /// Batches it was offered.
    pub(crate) offered: AtomicUsize,
    /// While set, nothing is taken and nothing is answered.
    pub(crate) blocked: Mutex<Option<CancellationToken>>,
}

impl Receiver {
    /// How often each record came.
    pub(crate) fn records(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        let taken = self.taken.lock().unwrap();
        for item in taken.iter().filter(|item| item.kind == Kind::Events) {
            let record: Value = serde_json::from_slice(&item.payload).unwrap();
            *count
                .entry(record["Id"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        count
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.records().contains_key(id)
    }

    /// How many items of the kind it took.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|item| item.kind == kind).count()
    }

    fn of(&self, kind: Kind) -> Vec<Value> {
        let taken = self.taken.lock().unwrap();
        let own = taken.iter().filter(|item| item.kind == kind);
        own.map(|item| serde_json::from_slice(&item.payload).unwrap())
            .collect()
    }

    /// What was said about ourselves under this name.
    pub(crate) fn said(&self, name: &str) -> Vec<Value> {
        let mut said = self.of(Kind::Internal);
        said.retain(|notice| notice["type"] == name);
        said
    }

    /// Findings with this reason.
    pub(crate) fn found(&self, reason: &str) -> Vec<Value> {
        let mut found = self.of(Kind::Findings);
        found.retain(|finding| finding["matched"]["reason"] == reason);
        found
    }
}

#[async_trait]
impl Emitter for Receiver {
    fn name(&self) -> &'static str {
        "test.receiver"
    }

    fn batch_max(&self) -> (usize, usize) {
        (100, 1 << 20)
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        self.offered.fetch_add(1, Ordering::SeqCst);
        let blocked = self.blocked.lock().unwrap().clone();
        if let Some(token) = blocked {
            token.cancelled().await;
        }
        let left = self.failures_left.load(Ordering::SeqCst);
        if left > 0 {
            self.failures_left.store(left - 1, Ordering::SeqCst);
            return Err(EmitError::Retry {
                what: "busy".into(),
                after: None,
            });
        }
        self.taken.lock().unwrap().extend_from_slice(batch);
        Ok(Delivered::default())
    }
}

/// How a process is started.
pub(crate) struct Setting {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) vendor: Arc<Vendor>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) steps: Steps,
    pub(crate) budget_bytes: u64,
    /// The stream is new; else it is known since six days, and nothing of it is read yet.
    pub(crate) is_new: bool,
}

impl Setting {
    pub(crate) fn new() -> Self {
        let clock = TestClock::new();
        Self {
            vendor: Vendor::new(clock.clone()),
            clock,
            receiver: Arc::default(),
            steps: Steps::default(),
            budget_bytes: u64::MAX,
            is_new: false,
        }
    }

    pub(crate) async fn start(&self, folder: &Path) -> Process {
        let shutdown = CancellationToken::new();
        let pipeline = Pipeline::start(Parts {
            state: self.open(folder),
            routes: vec![Route::all(
                self.receiver.clone(),
                vec![Kind::Events, Kind::Findings, Kind::Internal],
            )],
            clock: self.clock.clone(),
            budget_bytes: self.budget_bytes,
            shutdown: shutdown.clone(),
            drain: Duration::from_secs(5),
        })
        .unwrap();
        if !self.is_new {
            self.begin_in_the_past(&pipeline).await;
        }
        let worker = self.worker(&pipeline);
        let places = Arc::new(Semaphore::new(keeper::AT_ONCE));
        let shared = pipeline.shared();
        let daily = keeper::reconcile_daily(worker.clone(), shared.clone(), places);
        Process {
            daily: tokio::spawn(daily),
            worker: tokio::spawn(run_tenant(worker.clone(), shared.clone())),
            config: worker,
            receiver: self.receiver.clone(),
            pipeline,
            shutdown,
        }
    }

    async fn begin_in_the_past(&self, pipeline: &Pipeline) {
        let store = &pipeline.shared().store;
        let is_new = store.cursor(&stream()).unwrap().is_none()
            && store.restart_from(&stream()).unwrap().is_none();
        // What is not given to us has not been read.
        if is_new && !self.vendor.script().withheld {
            let cursor = Cursor {
                covered_until: start() - TimeDelta::days(6),
                state: String::new(),
            };
            let commit = Commit {
                cursors: vec![(stream(), cursor)],
                ..Commit::default()
            };
            pipeline.shared().committer.commit(commit).await.unwrap();
        }
    }

    pub(crate) fn open(&self, folder: &Path) -> State {
        let options = Options {
            sync: false,
            steps: self.steps.clone(),
            ..Options::default()
        };
        State::open(folder, self.clock.now(), options)
            .unwrap()
            .state
    }

    fn worker(&self, pipeline: &Pipeline) -> WorkerConfig {
        let shared = pipeline.shared();
        let tenant = TenantId::new("contoso").unwrap();
        let today = self.clock.now().date_naive();
        let budget = shared.seen_budget.clone();
        let silence = SilenceOptions {
            hours_min: 24,
            hours: BTreeMap::from([(stream().to_string(), SILENCE_HOURS)]),
        };
        WorkerConfig {
            connectors: vec![self.vendor.clone()],
            step: StepConfig {
                memory: TenantMemory::load(&*shared.store, tenant, today, budget).unwrap(),
                job: JobId::live(),
                readers: app::readers(&["contoso.example"], &[]),
                rules: app::rules(&DetectorsOptions::default()).unwrap().into(),
                forwards_events: true,
                purpose: Purpose::Deliver,
                live_since: start() - TimeDelta::days(1),
            },
            alarms: Alarms::new(
                AlarmOptions {
                    silence,
                    gap_warning: TimeDelta::hours(24),
                },
                true,
            ),
            heartbeat: TimeDelta::minutes(5),
            first_run: TimeDelta::days(if self.is_new { 1 } else { 6 }),
            archives: Vec::new(),
        }
    }
}

pub(crate) struct Process {
    pub(crate) pipeline: Pipeline,
    receiver: Arc<Receiver>,
    config: WorkerConfig,
    worker: JoinHandle<()>,
    daily: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Process {
    pub(crate) fn health(&self) -> StreamHealth {
        let shown = self.pipeline.shared().watch.copy();
        shown.streams.get(&stream()).cloned().unwrap_or_default()
    }

    pub(crate) fn gaps(&self) -> Vec<Gap> {
        self.pipeline.shared().store.gaps().unwrap()
    }

    /// Every interval; they are disjoint and without a hole.
    pub(crate) fn intervals(&self) -> Vec<Interval> {
        let shared = self.pipeline.shared();
        let intervals = ledger::all_intervals(&*shared.store, shared.clock.now()).unwrap();
        for pair in intervals.windows(2) {
            assert_eq!(pair[0].until, pair[1].from, "{intervals:#?}");
        }
        intervals
    }

    /// Reconciles by hand.
    pub(crate) async fn reconcile(&self, since: Option<DateTime<Utc>>) -> Account {
        let request = ReconcileRequest {
            since,
            ..ReconcileRequest::default()
        };
        let (told, mut telling) = tokio::sync::mpsc::channel(16);
        let (workers, shared) = (vec![self.config.clone()], self.pipeline.shared().clone());
        let working = tokio::spawn(async move {
            reconcile(&request, &workers, &shared, &told).await;
        });
        let mut accounts = Vec::new();
        while let Some(told) = telling.recv().await {
            match told {
                Told::Progress(_) => {}
                Told::Accounts(all) => accounts = all,
                Told::Failed(why) => panic!("{why}"),
            }
        }
        working.await.unwrap();
        accounts.remove(0)
    }

    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is(self) {
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain for {what}: {:#?} {:?}",
                self.health(),
                self.receiver.records()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a tick has shown the present low-water.
    pub(crate) async fn until_listed_and_ticked(&self, clock: &TestClock) {
        let reached = clock.now() - TimeDelta::minutes(1);
        let at_present = move |process: &Self| {
            let low_water = process.health().low_water;
            low_water.is_some_and(|at| at >= reached)
        };
        self.until("a tick at the present", at_present).await;
    }

    /// Ends as a process does; what is under way is left where it is.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        self.worker.await.unwrap();
        self.daily.await.unwrap();
        let patience = Duration::from_secs(20);
        let finished = self.pipeline.finish(patience, CancellationToken::new());
        finished.await.unwrap();
    }

    /// Ends without giving the lanes time: what is not confirmed by now is not.
    pub(crate) async fn cut_off(self) {
        self.worker.abort();
        self.worker.await.unwrap_err();
        self.shutdown.cancel();
        self.daily.await.unwrap();
        self.pipeline.stop().await;
    }
}

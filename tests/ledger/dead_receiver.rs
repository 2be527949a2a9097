//! A receiver that is dead for an hour while records keep coming, with a budget that does not hold them:
//! its tenants wait at the vendor, the others notice nothing, and afterwards nothing is missing.
//!
//! A sixteenth of 500 events a second and 256 MiB, since tests are built without optimisation.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::alarm::{AlarmOptions, Alarms};
use exfilwatch::pipeline::filter::ItemFilter;
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::worker::{WorkerConfig, run_tenant};
use exfilwatch::pipeline::{Parts, Pipeline, Route};
use exfilwatch_connectors::{Connector, FetchError, Listing, PageStream, RecordReader, Standing};
use exfilwatch_detectors::DetectorsOptions;
use exfilwatch_emitters::FilterOptions;
use exfilwatch_model::{
    Cursor, JobId, Kind, Page, RawRecord, StreamId, TenantId, Window, WorkItem,
};
use exfilwatch_state::{Commit, Options, State};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::process::{Receiver, TestClock, start};

const BUDGET: u64 = 16 << 20;
const RECORD_BYTES: usize = 1_024;
const MINUTES: i64 = 60;
/// Records a minute, together a sixteenth of 500 a second.
const DEAD: usize = 1_500;
const LIVE: usize = 375;
/// Memory that this process may come to need beyond what it had when the outbox was full, in KiB. The
/// live receiver here keeps what it takes, some 30 MiB.
const GROWTH_KIB_MAX: u64 = 48 << 10;

/// So many records a minute, made when they are fetched.
#[derive(Debug)]
struct Feed {
    stream: StreamId,
    a_minute: usize,
    clock: Arc<TestClock>,
    reader: Arc<dyn RecordReader>,
    fetched: AtomicUsize,
}

impl Feed {
    fn new(tenant: &str, a_minute: usize, clock: &Arc<TestClock>) -> Arc<Self> {
        Arc::new(Self {
            stream: format!("{tenant}/office365/Audit.General").parse().unwrap(),
            a_minute,
            clock: clock.clone(),
            reader: app::readers(&["contoso.example"], &[]).m365,
            fetched: AtomicUsize::new(0),
        })
    }

    fn items(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<WorkItem> {
        let end = (start() + TimeDelta::minutes(MINUTES)).min(until);
        let minutes = (0..MINUTES).map(|minute| (minute, start() + TimeDelta::minutes(minute)));
        minutes
            .filter(|(_, at)| from <= *at && *at < end)
            .map(|(minute, at)| WorkItem {
                stream: self.stream.clone(),
                key: format!("minute-{minute}"),
                body: minute.to_string(),
                from: at,
                expires: Some(at + TimeDelta::days(7)),
                attempts: 0,
                next_try: None,
                last_error: None,
            })
            .collect()
    }

    fn record(&self, minute: &str, number: usize) -> RawRecord {
        let id = format!("{}-{minute}-{number}", self.stream.tenant());
        let pad = "x".repeat(RECORD_BYTES - 160);
        let text = format!(
            r#"{{"Id":"{id}","CreationTime":"2026-05-11T08:00:00","Operation":"Nothing","RecordType":6,"UserId":"a@contoso.example","Workload":"SharePoint","Pad":"{pad}"}}"#
        );
        RawRecord::new(Bytes::from(text))
    }
}

#[async_trait]
impl Connector for Feed {
    fn kind(&self) -> &'static str {
        "office365"
    }

    fn streams(&self) -> Vec<StreamId> {
        vec![self.stream.clone()]
    }

    fn quota_key(&self) -> String {
        format!("office365/{}", self.stream.tenant())
    }

    fn settle(&self, _stream: &StreamId) -> TimeDelta {
        TimeDelta::days(1)
    }

    fn first_cursor(&self, _stream: &StreamId, window: Window) -> Cursor {
        Cursor {
            covered_until: window.from(),
            state: String::new(),
        }
    }

    async fn list(&self, _stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError> {
        let until = (self.clock.now() - TimeDelta::minutes(1)).max(cursor.covered_until);
        Ok(Listing {
            items: self.items(cursor.covered_until, until),
            cursor: Cursor {
                covered_until: until,
                state: String::new(),
            },
            gaps: Vec::new(),
            more: false,
            standing: Standing::Flowing,
        })
    }

    async fn relist(
        &self,
        _stream: &StreamId,
        window: Window,
    ) -> Result<Vec<WorkItem>, FetchError> {
        Ok(self.items(window.from(), window.until()))
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        self.fetched.fetch_add(self.a_minute, Ordering::SeqCst);
        let numbers = 0..self.a_minute;
        let page = Page {
            stream: self.stream.clone(),
            item: item.key.clone(),
            records: numbers.map(|at| self.record(&item.body, at)).collect(),
            malformed: Vec::new(),
            fetched_at: self.clock.now(),
            last: true,
        };
        Ok(Box::pin(futures::stream::iter([Ok(page)])))
    }

    fn records(&self) -> &dyn RecordReader {
        &*self.reader
    }
}

/// A receiver's name is its emitter's: two of them need two.
#[derive(Debug)]
struct Named(&'static str, Arc<Receiver>);

#[async_trait]
impl exfilwatch_emitters::Emitter for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn batch_max(&self) -> (usize, usize) {
        self.1.batch_max()
    }

    async fn emit(
        &self,
        batch: &[exfilwatch_model::Envelope],
    ) -> Result<exfilwatch_emitters::Delivered, exfilwatch_emitters::EmitError> {
        self.1.emit(batch).await
    }
}

fn route(name: &'static str, receiver: &Arc<Receiver>, tenant: &str) -> Route {
    let only = FilterOptions {
        tenants: vec![tenant.to_owned()],
        ..FilterOptions::default()
    };
    let kinds = vec![Kind::Events, Kind::Findings, Kind::Internal];
    Route {
        filter: ItemFilter::new(&[&only]),
        ..Route::all(Arc::new(Named(name, receiver.clone())), kinds)
    }
}

async fn worker(pipeline: &Pipeline, feed: &Arc<Feed>) -> WorkerConfig {
    let shared = pipeline.shared();
    let tenant: TenantId = feed.stream.tenant().clone();
    let cursor = Cursor {
        covered_until: start(),
        state: String::new(),
    };
    let commit = Commit {
        cursors: vec![(feed.stream.clone(), cursor)],
        ..Commit::default()
    };
    shared.committer.commit(commit).await.unwrap();
    let (today, budget) = (start().date_naive(), shared.seen_budget.clone());
    WorkerConfig {
        connectors: vec![feed.clone()],
        step: StepConfig {
            memory: TenantMemory::load(&*shared.store, tenant, today, budget).unwrap(),
            job: JobId::live(),
            readers: app::readers(&["contoso.example"], &[]),
            rules: app::rules(&DetectorsOptions::default()).unwrap().into(),
            forwards_events: true,
            purpose: Purpose::Deliver,
            live_since: start() - TimeDelta::days(1),
        },
        alarms: Alarms::new(AlarmOptions::default(), false),
        heartbeat: TimeDelta::minutes(5),
        first_run: TimeDelta::days(1),
        archives: Vec::new(),
    }
}

fn disk(folder: &Path) -> u64 {
    let segments = std::fs::read_dir(folder.join("outbox")).unwrap();
    // One may be removed meanwhile.
    let sizes = segments.filter_map(|segment| segment.unwrap().metadata().ok());
    sizes.map(|about| about.len()).sum()
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed().as_secs() < 120, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two tenants with a receiver each, of which contoso's is dead.
struct Scene {
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
    dead: Arc<Receiver>,
    live: Arc<Receiver>,
    away: CancellationToken,
    contoso: Arc<Feed>,
    fabrikam: Arc<Feed>,
    pipeline: Pipeline,
    shutdown: CancellationToken,
    workers: [JoinHandle<()>; 2],
}

/// What was seen during the hour.
#[derive(Debug)]
struct Seen {
    disk_most: u64,
    grown_kib: u64,
    fetched_when_full: usize,
    fetched: usize,
}

impl Scene {
    async fn start() -> Self {
        let (clock, folder) = (TestClock::new(), tempfile::tempdir().unwrap());
        let (dead, live) = (Arc::<Receiver>::default(), Arc::<Receiver>::default());
        let away = CancellationToken::new();
        *dead.blocked.lock().unwrap() = Some(away.clone());
        let options = Options {
            sync: false,
            ..Options::default()
        };
        let state = State::open(folder.path(), clock.now(), options).unwrap();
        let shutdown = CancellationToken::new();
        let pipeline = Pipeline::start(Parts {
            state: state.state,
            routes: vec![
                route("test.dead", &dead, "contoso"),
                route("test.live", &live, "fabrikam"),
            ],
            clock: clock.clone(),
            budget_bytes: BUDGET,
            shutdown: shutdown.clone(),
            drain: Duration::from_secs(5),
        })
        .unwrap();
        let contoso = Feed::new("contoso", DEAD, &clock);
        let fabrikam = Feed::new("fabrikam", LIVE, &clock);
        let workers = [
            worker(&pipeline, &contoso).await,
            worker(&pipeline, &fabrikam).await,
        ]
        .map(|worker| tokio::spawn(run_tenant(worker, pipeline.shared().clone())));
        Self {
            clock,
            folder,
            dead,
            live,
            away,
            contoso,
            fabrikam,
            pipeline,
            shutdown,
            workers,
        }
    }

    fn waits(&self, feed: &Feed) -> bool {
        let paused = self.pipeline.shared().paused.borrow();
        paused.holds(feed.stream.tenant())
    }

    /// The hour; the live receiver has each minute's records before the next one begins.
    async fn hour(&self) -> Seen {
        let taken = || self.contoso.fetched.load(Ordering::SeqCst);
        let (mut disk_most, mut when_full) = (0, None);
        for minute in 0..=MINUTES {
            self.clock.pass(TimeDelta::minutes(1));
            let minutes = usize::try_from(minute).unwrap();
            let (due, all) = (LIVE * minutes, DEAD * minutes);
            until("the other tenant", || self.live.count(Kind::Events) >= due).await;
            let contoso = || self.waits(&self.contoso) || taken() >= all;
            until("contoso", contoso).await;
            disk_most = disk_most.max(disk(self.folder.path()));
            if self.waits(&self.contoso) && when_full.is_none() {
                when_full = Some((memory_kib(), taken()));
            }
            assert!(!self.waits(&self.fabrikam), "minute {minute}");
        }
        let (memory, fetched_when_full) = when_full.expect("the budget was reached");
        Seen {
            disk_most,
            grown_kib: memory_kib().saturating_sub(memory),
            fetched_when_full,
            fetched: taken(),
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        for worker in self.workers {
            worker.await.unwrap();
        }
        let patience = Duration::from_secs(20);
        let finished = self.pipeline.finish(patience, CancellationToken::new());
        finished.await.unwrap();
    }
}

#[tokio::test]
async fn a_receiver_dead_for_an_hour_holds_up_its_own_tenants_only_and_loses_nothing() {
    let scene = Scene::start().await;
    let seen = scene.hour().await;
    assert!(scene.waits(&scene.contoso));
    assert!(seen.disk_most <= BUDGET, "{seen:?}");
    assert!(seen.grown_kib <= GROWTH_KIB_MAX, "{seen:?}");
    // What was under way when it was noticed still comes.
    assert!(seen.fetched < seen.fetched_when_full + 6 * DEAD, "{seen:?}");

    let begun = Instant::now();
    *scene.dead.blocked.lock().unwrap() = None;
    scene.away.cancel();
    let minutes = usize::try_from(MINUTES).unwrap();
    let all = DEAD * minutes;
    until("everything", || scene.dead.count(Kind::Events) >= all).await;
    println!(
        "dead for an hour: {seen:?}, of {BUDGET} bytes and {all} records; the rest fetched and all drained \
         in {:?}, not optimised",
        begun.elapsed()
    );
    let receivers = [
        (scene.dead.clone(), all),
        (scene.live.clone(), LIVE * minutes),
    ];
    scene.end().await;
    for (receiver, count) in receivers {
        let records = receiver.records();
        assert_eq!(records.len(), count);
        assert!(records.values().all(|times| *times == 1), "none twice");
    }
}

//! The two lines with the store between them, in process: what a failed commit, a refusing receiver
//! and a bad commit of another tenant may and may not do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod killed;
mod parting;
mod quarantine;
mod routes;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::again::{self, Ask};
use exfilwatch::pipeline::filter::ItemFilter;
use exfilwatch::pipeline::ingest::Ingest;
use exfilwatch::pipeline::inventory::{self, Asked, Room};
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::parting::PARTED_MAX;
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::{Parts, Pipeline, Route};
use exfilwatch_detectors::DetectorsOptions;
use exfilwatch_emitters::{Delivered, EmitError, Emitter, FilterOptions, HeldItem, Refusal};
use exfilwatch_model::{
    Clock, Envelope, JobId, Kind, Page, Product, RatedClock, RawRecord, SystemClock, TenantId,
    WorkItem,
};

use exfilwatch_state::{Commit, Fate, Frame, Options, State, StateError, Step, Steps};
use tokio_util::sync::CancellationToken;

fn at() -> DateTime<Utc> {
    "2026-05-04T09:00:00Z".parse().unwrap()
}

fn open(folder: &Path, steps: Steps) -> State {
    let options = Options {
        sync: false,
        steps,
        ..Options::default()
    };
    State::open(folder, at(), options).unwrap().state
}

fn start(state: State, emitter: Arc<dyn Emitter>, budget_bytes: u64) -> Pipeline {
    let kinds = vec![Kind::Events, Kind::Findings, Kind::Internal];
    start_with(state, emitter, kinds, budget_bytes)
}

fn start_with(
    state: State,
    emitter: Arc<dyn Emitter>,
    kinds: Vec<Kind>,
    budget_bytes: u64,
) -> Pipeline {
    Pipeline::start(Parts {
        state,
        routes: vec![Route::all(emitter, kinds)],
        clock: Arc::new(SystemClock),
        budget_bytes,
        shutdown: CancellationToken::new(),
        drain: Duration::from_secs(5),
    })
    .unwrap()
}

fn memory(pipeline: &Pipeline, tenant: &str) -> TenantMemory {
    let shared = pipeline.shared();
    let tenant = TenantId::new(tenant).unwrap();
    let today = at().date_naive();
    TenantMemory::load(&*shared.store, tenant, today, shared.seen_budget.clone()).unwrap()
}

fn ingest(pipeline: &Pipeline, tenant: &str) -> Ingest {
    ingest_with(pipeline, memory(pipeline, tenant))
}

fn ingest_with(pipeline: &Pipeline, memory: TenantMemory) -> Ingest {
    let shared = pipeline.shared();
    let config = StepConfig {
        memory,
        job: JobId::live(),
        readers: app::readers(&["corp.example"], &[]),
        rules: app::rules(&DetectorsOptions::default()).unwrap().into(),
        forwards_events: true,
        purpose: Purpose::Deliver,
        live_since: at() - TimeDelta::days(1),
    };
    let (store, committer) = (shared.store.clone(), shared.committer.clone());
    Ingest::restore(config, store, committer, shared.watch.clone()).unwrap()
}

/// A page of inbox rules that forward outside: each is a finding.
fn page(tenant: &str, numbers: std::ops::Range<u32>) -> (Page, Vec<Product>) {
    page_of(tenant, "New-InboxRule", numbers)
}

fn page_of(tenant: &str, operation: &str, numbers: std::ops::Range<u32>) -> (Page, Vec<Product>) {
    let record = |number: u32| {
        let text = format!(
            r#"{{"CreationTime":"2026-05-04T09:00:00","Id":"00000000-0000-4000-8000-{number:012}","Operation":"{operation}","RecordType":1,"ResultStatus":"True","UserType":2,"Workload":"Exchange","ObjectId":"u{number}\\r","UserId":"u{number}@corp.example","ExternalAccess":false,"Parameters":[{{"Name":"ForwardTo","Value":"drop@evil.example"}}]}}"#
        );
        RawRecord::new(Bytes::from(text))
    };
    let records: Vec<RawRecord> = numbers.map(record).collect();
    let products = vec![Product::M365; records.len()];
    let stream = format!("{tenant}/office365/Audit.Exchange")
        .parse()
        .unwrap();
    let page = Page {
        stream,
        item: "blob".into(),
        records,
        malformed: vec![],
        fetched_at: at(),
        last: true,
    };
    (page, products)
}

/// A receiver that fails, refuses and keeps what it took.
#[derive(Debug, Default)]
struct Receiver {
    failures_left: AtomicUsize,
    refuses: Mutex<Option<&'static str>>,
    blocked: Mutex<Option<CancellationToken>>,
    /// Tenants whose index is not there.
    holds: Mutex<BTreeSet<String>>,
    /// Batches that it was offered.
    offered: AtomicUsize,
    /// The next batch is its last.
    panics: AtomicBool,
    taken: Mutex<Vec<Envelope>>,
}

impl Receiver {
    fn ids(&self, kind: Kind) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        taken
            .iter()
            .filter(|item| item.kind == kind)
            .map(|item| item.id.clone())
            .collect()
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
        assert!(!self.panics.load(Ordering::SeqCst), "as the test wants it");
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
        let mut delivered = Delivered::default();
        let holds = self.holds.lock().unwrap().clone();
        let refuses = *self.refuses.lock().unwrap();
        for (index, item) in batch.iter().enumerate() {
            if holds.contains(item.stream.tenant().as_str()) {
                delivered.held.push(HeldItem {
                    index,
                    what: "no such index".into(),
                    help: "make it".into(),
                });
            } else if refuses.is_some_and(|id| item.id.ends_with(id)) {
                delivered.refused.push(Refusal {
                    index,
                    reason: "not this one".into(),
                });
            } else {
                self.taken.lock().unwrap().push(item.clone());
            }
        }
        Ok(delivered)
    }
}

#[tokio::test]
async fn a_failed_commit_leaves_memory_as_before_and_the_page_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicUsize::new(0));
    let fail = broken.clone();
    let steps = Steps::new(move |step| {
        if step == Step::FramesAppended && fail.load(Ordering::SeqCst) == 1 {
            fail.store(2, Ordering::SeqCst);
            return Err(StateError::Invalid {
                reason: "the disk is full".into(),
            });
        }
        Ok(())
    });
    let receiver = Arc::new(Receiver::default());
    let pipeline = start(open(folder.path(), steps), receiver.clone(), u64::MAX);
    let memory = memory(&pipeline, "contoso");
    let mut ingest = ingest_with(&pipeline, memory.clone());
    let (page, products) = page("contoso", 0..5);
    broken.store(1, Ordering::SeqCst);
    let failed = ingest.page(&page, &products, Commit::default()).await;
    assert!(failed.is_err());
    assert_eq!(broken.load(Ordering::SeqCst), 2, "the commit was reached");
    // The session ends with it; the tenant's memory is the next one's too.
    let mut ingest = ingest_with(&pipeline, memory);
    let again = ingest
        .page(&page, &products, Commit::default())
        .await
        .unwrap();
    assert_eq!(
        (again.records, again.duplicates),
        (5, 0),
        "nothing of the failed commit counts"
    );
    let asked = Asked {
        room: Room::Forwarding,
        tenant: None,
        actor: None,
        limit: 100,
    };
    let stands = inventory::list(&*pipeline.shared().store, &asked).unwrap();
    assert_eq!(stands.lines.len(), 5, "the store has the inventory");
    let third = ingest
        .page(&page, &products, Commit::default())
        .await
        .unwrap();
    assert_eq!(third.duplicates, 5);
    pipeline
        .finish(Duration::from_secs(20), CancellationToken::new())
        .await
        .unwrap();
    let mut events = receiver.ids(Kind::Events);
    events.sort();
    events.dedup();
    assert_eq!(
        (receiver.ids(Kind::Events).len(), events.len()),
        (5, 5),
        "each record once"
    );
    let findings = receiver.ids(Kind::Findings);
    let mut distinct = findings.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(findings.len(), distinct.len(), "each finding once");
    assert!(findings.len() >= 5, "{findings:?}");
}

#[tokio::test]
async fn a_receiver_that_fails_and_refuses_gets_everything_else_and_the_refused_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver {
        failures_left: AtomicUsize::new(2),
        refuses: Mutex::new(Some("000000000004")),
        ..Receiver::default()
    });
    let pipeline = start(
        open(folder.path(), Steps::default()),
        receiver.clone(),
        u64::MAX,
    );
    let mut ingest = ingest(&pipeline, "contoso");
    let (page, products) = page("contoso", 0..10);
    ingest
        .page(&page, &products, Commit::default())
        .await
        .unwrap();
    let store = pipeline.shared().store.clone();
    pipeline
        .finish(Duration::from_secs(20), CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(receiver.ids(Kind::Events).len(), 9);
    let quarantined = store.quarantined().unwrap();
    assert_eq!(quarantined.len(), 1);
    assert!(quarantined[0].reason.contains("not this one"));
}

#[tokio::test]
async fn one_tenants_commit_that_cannot_be_written_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let pipeline = start(
        open(folder.path(), Steps::default()),
        receiver.clone(),
        u64::MAX,
    );
    let mut ingest = ingest(&pipeline, "contoso");
    let committer = pipeline.shared().committer.clone();
    let too_large = WorkItem {
        stream: "fabrikam/office365/Audit.Exchange".parse().unwrap(),
        key: "blob".into(),
        body: "x".repeat(10_000),
        from: at(),
        expires: None,
        attempts: 0,
        next_try: None,
        last_error: None,
    };
    for round in 0..20_u32 {
        let bad = Commit {
            work: vec![too_large.clone()],
            ..Commit::default()
        };
        let (page, products) = page("contoso", round * 3..round * 3 + 3);
        let (bad, good) = tokio::join!(
            committer.commit(bad),
            ingest.page(&page, &products, Commit::default())
        );
        assert!(bad.is_err());
        good.unwrap();
    }
    pipeline
        .finish(Duration::from_secs(20), CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(receiver.ids(Kind::Events).len(), 60);
}

#[tokio::test]
async fn fetching_is_paused_while_a_receiver_does_not_keep_up_and_goes_on_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let block = CancellationToken::new();
    *receiver.blocked.lock().unwrap() = Some(block.clone());
    let pipeline = start(
        open(folder.path(), Steps::default()),
        receiver.clone(),
        3 << 20,
    );
    let mut ingest = ingest(&pipeline, "contoso");
    let mut paused = pipeline.shared().paused.clone();
    let mut taken = 0;
    while !paused.borrow().any() {
        let (page, products) = page_of("contoso", "MailItemsAccessed", taken..taken + 500);
        ingest
            .page(&page, &products, Commit::default())
            .await
            .unwrap();
        taken += 500;
        assert!(taken < 100_000, "the budget is never noticed");
    }
    assert!(pipeline.shared().watch.copy().paused);
    *receiver.blocked.lock().unwrap() = None;
    block.cancel();
    let going_on = paused.wait_for(|paused| !paused.any());
    tokio::time::timeout(Duration::from_secs(60), going_on)
        .await
        .unwrap()
        .unwrap();
    pipeline
        .finish(Duration::from_secs(20), CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(receiver.ids(Kind::Events).len(), taken as usize);
}

#[tokio::test]
async fn a_lane_that_was_retired_holds_nothing_and_begins_at_the_end_when_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::default());
    let mut taken = 0;
    for kinds in [
        vec![Kind::Events, Kind::Findings],
        vec![Kind::Findings],
        vec![Kind::Events, Kind::Findings],
    ] {
        let state = open(folder.path(), Steps::default());
        let pipeline = start_with(state, receiver.clone(), kinds.clone(), u64::MAX);
        let mut ingest = ingest(&pipeline, "contoso");
        let (page, products) = page("contoso", taken..taken + 5);
        ingest
            .page(&page, &products, Commit::default())
            .await
            .unwrap();
        let store = pipeline.shared().store.clone();
        let events = store
            .lanes()
            .unwrap()
            .into_iter()
            .find(|mark| mark.lane.kind == Kind::Events);
        assert_eq!(
            events.unwrap().retired,
            !kinds.contains(&Kind::Events),
            "its mark is kept, and says so"
        );
        drop(store);
        drop(ingest);
        pipeline
            .finish(Duration::from_secs(20), CancellationToken::new())
            .await
            .unwrap();
        taken += 5;
    }
    let mut events = receiver.ids(Kind::Events);
    events.sort();
    let number = |id: &String| id.rsplit_once('-').unwrap().1.parse::<u32>().unwrap();
    let numbers: Vec<u32> = events.iter().map(number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    assert!(
        receiver.ids(Kind::Findings).len() >= 15,
        "the other lane went on"
    );
}

/// Routes of the receiver: what each takes, as it is configured.
fn routes(receiver: &Arc<Receiver>, routes: &[(&str, serde_json::Value)]) -> Vec<Route> {
    let route = |(name, filter): &(&str, serde_json::Value)| {
        let filter: FilterOptions = serde_json::from_value(filter.clone()).unwrap();
        Route {
            name: (*name).to_owned(),
            filter: ItemFilter::new(&[&filter]),
            ..Route::all(receiver.clone(), vec![Kind::Events, Kind::Findings])
        }
    };
    routes.iter().map(route).collect()
}

/// Waits are a thousand times shorter than in service.
fn fast_clock() -> Arc<dyn Clock> {
    Arc::new(RatedClock::new(SystemClock.now(), Instant::now(), 1_000.0))
}

fn start_routes(state: State, routes: Vec<Route>) -> Pipeline {
    Pipeline::start(Parts {
        state,
        routes,
        clock: fast_clock(),
        budget_bytes: u64::MAX,
        shutdown: CancellationToken::new(),
        drain: Duration::from_secs(5),
    })
    .unwrap()
}

async fn take_page(ingest: &mut Ingest, (page, products): (Page, Vec<Product>)) {
    let taken = ingest.page(&page, &products, Commit::default()).await;
    taken.unwrap();
}

async fn finish(pipeline: Pipeline) {
    let finished = pipeline.finish(Duration::from_secs(20), CancellationToken::new());
    finished.await.unwrap();
}

/// Until it is so, for a minute at most.
async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ids of the records of a tenant that were taken, in order.
fn taken_of(receiver: &Receiver, tenant: &str) -> Vec<String> {
    let taken = receiver.taken.lock().unwrap();
    let of =
        |item: &&Envelope| item.kind == Kind::Events && item.stream.tenant().as_str() == tenant;
    taken
        .iter()
        .filter(of)
        .map(|item| item.id.clone())
        .collect()
}

/// Records of a tenant, put into the outbox as a page's commit does.
async fn records(pipeline: &Pipeline, tenant: &str, numbers: std::ops::Range<u32>) {
    let tenant = TenantId::new(tenant).unwrap();
    let item = |number: u32| Envelope {
        kind: Kind::Events,
        stream: format!("{tenant}/office365/Audit.Exchange")
            .parse()
            .unwrap(),
        id: format!("{number:012}"),
        time: Some(at()),
        fetched_at: at(),
        payload: format!(r#"{{"Id":"{number}","Operation":"MailItemsAccessed"}}"#).into(),
    };
    let frame = Frame {
        kind: Kind::Events,
        items: numbers.map(item).collect(),
        tenant,
    };
    let commit = Commit {
        frames: vec![frame],
        ..Commit::default()
    };
    pipeline.shared().committer.commit(commit).await.unwrap();
}

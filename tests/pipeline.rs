//! The two lines with the store between them, in process: what a failed commit, a refusing receiver
//! and a bad commit of another tenant may and may not do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
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

#[tokio::test]
async fn each_route_takes_what_its_filter_says_and_counts_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Arc::new(Receiver::default()), Arc::new(Receiver::default()));
    let mut all = routes(
        &first,
        &[(
            "ours",
            serde_json::json!({ "tenants": ["contoso"], "exclude": ["MailItems*"] }),
        )],
    );
    all.extend(routes(
        &second,
        &[(
            "theirs",
            serde_json::json!({ "tenants": ["!contoso"], "severity_min": "critical" }),
        )],
    ));
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    for tenant in ["contoso", "fabrikam"] {
        let mut ingest = ingest(&pipeline, tenant);
        take_page(&mut ingest, page(tenant, 0..3)).await;
        take_page(&mut ingest, page_of(tenant, "MailItemsAccessed", 3..7)).await;
    }
    let watch = pipeline.shared().watch.clone();
    let store = pipeline.shared().store.clone();
    finish(pipeline).await;
    assert_eq!(store.quarantined().unwrap(), []);
    assert_eq!(
        first.ids(Kind::Events).len(),
        3,
        "of contoso, less those left out"
    );
    assert_eq!(second.ids(Kind::Events).len(), 7, "of fabrikam");
    assert!(!first.ids(Kind::Findings).is_empty());
    assert_eq!(second.ids(Kind::Findings), [""; 0], "none is critical");
    let shown = watch.copy();
    let marks = store.lanes().unwrap();
    for (route, kind, excluded) in [
        ("ours", Kind::Events, 4),
        ("ours", Kind::Findings, 0),
        ("theirs", Kind::Events, 0),
        (
            "theirs",
            Kind::Findings,
            first.ids(Kind::Findings).len() as u64,
        ),
    ] {
        let mark = marks
            .iter()
            .find(|mark| mark.lane.route == route && mark.lane.kind == kind)
            .unwrap();
        let counted = (mark.excluded, shown.lane_health(&mark.lane).excluded);
        assert_eq!(counted, (excluded, excluded), "{route} {kind:?}");
    }
}

#[tokio::test]
async fn routes_that_are_named_anew_go_on_where_the_one_route_was() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver {
        failures_left: AtomicUsize::new(usize::MAX),
        ..Receiver::default()
    });
    let whole = Route::all(receiver.clone(), vec![Kind::Events]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), vec![whole]);
    for tenant in ["contoso", "fabrikam"] {
        records(&pipeline, tenant, 0..3).await;
    }
    pipeline.stop().await;
    assert_eq!(receiver.ids(Kind::Events), [""; 0]);
    receiver.failures_left.store(0, Ordering::SeqCst);
    let parted = routes(
        &receiver,
        &[
            ("ours", serde_json::json!({ "tenants": ["contoso"] })),
            ("rest", serde_json::json!({ "tenants": ["!contoso"] })),
        ],
    );
    let pipeline = start_routes(open(folder.path(), Steps::default()), parted);
    let store = pipeline.shared().store.clone();
    finish(pipeline).await;
    assert_eq!(receiver.ids(Kind::Events).len(), 6, "none is left behind");
    let marks = store.lanes().unwrap();
    let retired: Vec<_> = marks.iter().filter(|mark| mark.retired).collect();
    assert_eq!((retired.len(), &retired[0].lane.route[..]), (1, "all"));
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

fn lane_names(pipeline: &Pipeline) -> Vec<String> {
    let shown = pipeline.shared().watch.copy();
    shown.lanes.keys().map(|lane| lane.route.clone()).collect()
}

fn holding(tenants: &[&str]) -> (Arc<Receiver>, Vec<Route>) {
    let receiver = Arc::new(Receiver {
        holds: Mutex::new(tenants.iter().map(|name| (*name).to_owned()).collect()),
        ..Receiver::default()
    });
    let route = Route::all(receiver.clone(), vec![Kind::Events]);
    (receiver, vec![route])
}

#[tokio::test]
async fn a_tenant_whose_index_is_missing_is_parted_and_the_others_flow_until_it_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, routes) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    for round in 0..4 {
        for tenant in ["fabrikam", "contoso"] {
            records(&pipeline, tenant, round * 10..round * 10 + 10).await;
        }
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 40
    })
    .await;
    assert_eq!(taken_of(&receiver, "fabrikam"), [""; 0]);
    assert_eq!(lane_names(&pipeline), ["all", "all@fabrikam"]);
    let shown = pipeline.shared().watch.copy();
    for lane in shown.lanes.keys() {
        let held = shown.lane_health(lane).held;
        assert_eq!(held.is_some(), lane.route == "all@fabrikam", "{held:?}");
    }
    receiver.holds.lock().unwrap().clear();
    eventually("fabrikam goes back", || lane_names(&pipeline) == ["all"]).await;
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 40..50).await;
    }
    let store = pipeline.shared().store.clone();
    finish(pipeline).await;
    for tenant in ["fabrikam", "contoso"] {
        let taken = taken_of(&receiver, tenant);
        let distinct: BTreeSet<_> = taken.iter().collect();
        assert_eq!(
            (taken.len(), distinct.len()),
            (50, 50),
            "{tenant}: each once"
        );
    }
    let marks = store.lanes().unwrap();
    let parted = marks.iter().find(|mark| mark.lane.route == "all@fabrikam");
    assert!(parted.unwrap().retired, "its segments are given back");
}

#[tokio::test]
async fn a_tenant_stays_parted_over_a_restart_and_nothing_of_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, routes) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes.clone());
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 0..10).await;
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 10
    })
    .await;
    pipeline.stop().await;
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    assert_eq!(lane_names(&pipeline), ["all", "all@fabrikam"]);
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 10..20).await;
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 20
    })
    .await;
    assert_eq!(taken_of(&receiver, "fabrikam"), [""; 0]);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 20);
    assert_eq!(taken_of(&receiver, "contoso").len(), 20, "none twice");
}

#[tokio::test]
async fn a_parted_tenant_follows_its_route_to_a_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, all) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 0..10).await;
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 10
    })
    .await;
    pipeline.stop().await;
    let named = [
        ("ours", serde_json::json!({ "tenants": ["contoso"] })),
        ("theirs", serde_json::json!({ "tenants": ["!contoso"] })),
    ];
    let named = routes(&receiver, &named);
    let pipeline = start_routes(open(folder.path(), Steps::default()), named);
    assert!(lane_names(&pipeline).contains(&"theirs@fabrikam".to_owned()));
    let marks = pipeline.shared().store.lanes().unwrap();
    let old = marks.iter().find(|mark| mark.lane.route == "all@fabrikam");
    assert!(old.unwrap().retired);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 10);
    assert_eq!(taken_of(&receiver, "contoso").len(), 10);
}

/// Names of the lanes of records.
fn record_lanes(pipeline: &Pipeline) -> Vec<String> {
    let shown = pipeline.shared().watch.copy();
    let lanes = shown.lanes.keys().filter(|lane| lane.kind == Kind::Events);
    lanes.map(|lane| lane.route.clone()).collect()
}

#[tokio::test]
async fn a_tenant_parted_from_two_routes_is_parted_once_from_the_one_that_follows_them() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, all) = holding(&["fabrikam"]);
    let everything = || serde_json::json!({});
    let two = routes(&receiver, &[("a", everything()), ("b", everything())]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), two);
    records(&pipeline, "fabrikam", 0..10).await;
    eventually("parted from both", || {
        let lanes = record_lanes(&pipeline);
        ["a@fabrikam", "b@fabrikam"].map(|lane| lanes.contains(&lane.to_owned())) == [true; 2]
    })
    .await;
    pipeline.stop().await;
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    assert_eq!(record_lanes(&pipeline), ["all", "all@fabrikam"]);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 10, "each once");
}

#[tokio::test]
async fn a_new_route_beside_another_has_none_of_what_that_one_waits_with() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, all) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    records(&pipeline, "fabrikam", 0..10).await;
    eventually("parted", || record_lanes(&pipeline).len() == 2).await;
    pipeline.stop().await;
    let everything = || serde_json::json!({});
    let two = routes(&receiver, &[("all", everything()), ("new", everything())]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), two);
    assert_eq!(record_lanes(&pipeline), ["all", "all@fabrikam", "new"]);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 10, "each once");
}

#[tokio::test]
async fn more_held_tenants_than_may_be_parted_hold_the_lane_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tenants: Vec<String> = (0..PARTED_MAX + 3).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = tenants.iter().map(String::as_str).collect();
    let (receiver, routes) = holding(&names);
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    for tenant in &tenants {
        records(&pipeline, tenant, 0..2).await;
    }
    records(&pipeline, "contoso", 0..2).await;
    eventually("as many as there is room for", || {
        lane_names(&pipeline).len() == PARTED_MAX + 1
    })
    .await;
    let shown = pipeline.shared().watch.copy();
    let whole = shown
        .lanes
        .keys()
        .find(|lane| lane.route == "all")
        .unwrap()
        .clone();
    eventually("the lane is held", || {
        pipeline
            .shared()
            .watch
            .copy()
            .lane_health(&whole)
            .held
            .is_some()
    })
    .await;
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    for tenant in tenants.iter().map(String::as_str).chain(["contoso"]) {
        assert_eq!(taken_of(&receiver, tenant).len(), 2, "{tenant}");
    }
}

async fn ask(pipeline: &Pipeline, ask: Ask) -> Result<Vec<again::Entry>, String> {
    let shared = pipeline.shared();
    let (entries, commit) = again::answer(&*shared.store, &ask, at()).unwrap()?;
    shared.committer.commit(commit).await.unwrap();
    shared.again.send_replace(());
    Ok(entries)
}

#[tokio::test]
async fn what_was_refused_is_sent_again_by_its_lane_or_dropped_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let other = Arc::new(Receiver::default());
    let receiver = Arc::new(Receiver {
        refuses: Mutex::new(Some("4")),
        ..Receiver::default()
    });
    let route = |name: &str, receiver: &Arc<Receiver>| Route {
        name: name.to_owned(),
        ..Route::all(receiver.clone(), vec![Kind::Events])
    };
    let routes = vec![route("all", &receiver), route("other", &other)];
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    records(&pipeline, "contoso", 0..20).await;
    let store = pipeline.shared().store.clone();
    eventually("refused", || store.quarantined().unwrap().len() == 2).await;
    let listed = ask(&pipeline, Ask::List).await.unwrap();
    let file = |entry: &again::Entry| {
        let name = entry.file.as_ref().unwrap();
        folder.path().join("quarantine").join(name)
    };
    assert!(listed.iter().all(|one| file(one).exists()), "{listed:?}");
    assert!(
        listed[0].origin.contains("test.receiver:all:events"),
        "{listed:?}"
    );

    let no_reason = ask(
        &pipeline,
        Ask::Drop {
            id: listed[0].id.clone(),
            reason: " ".into(),
        },
    );
    assert!(no_reason.await.unwrap_err().contains("reason"));
    let reason = "a test record".to_owned();
    ask(
        &pipeline,
        Ask::Drop {
            id: listed[0].id[..12].to_owned(),
            reason: reason.clone(),
        },
    )
    .await
    .unwrap();
    assert!(!file(&listed[0]).exists());

    // Still refused: it stays, with what the receiver says now.
    ask(&pipeline, Ask::Retry(None)).await.unwrap();
    let fate = |id: &str| {
        let all = store.quarantined().unwrap();
        all.into_iter().find(|one| one.id == id).unwrap().fate
    };
    eventually("refused again", || fate(&listed[1].id) == Fate::Kept).await;
    *receiver.refuses.lock().unwrap() = None;
    let id = listed[1].id.clone();
    ask(&pipeline, Ask::Retry(Some(id.clone()))).await.unwrap();
    eventually("delivered", || matches!(fate(&id), Fate::Delivered { .. })).await;
    eventually("its file is gone", || !file(&listed[1]).exists()).await;
    assert!(matches!(fate(&listed[0].id), Fate::Dropped { reason: said, .. } if said == reason));
    assert!(
        ask(&pipeline, Ask::Retry(Some(id.clone()))).await.is_err(),
        "it is over"
    );
    finish(pipeline).await;
    assert_eq!(
        taken_of(&receiver, "contoso").len(),
        19,
        "the dropped one is missing"
    );
    assert_eq!(
        taken_of(&other, "contoso").len(),
        20,
        "the other lane has all, each once"
    );
    let taken = receiver.taken.lock().unwrap();
    let sent = taken
        .iter()
        .find(|item| item.id.as_str() == listed[1].item.as_ref().unwrap());
    let same = other.taken.lock().unwrap();
    assert!(same.contains(sent.unwrap()), "the same bytes");
}

#[tokio::test]
async fn what_is_to_be_sent_again_is_so_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver {
        refuses: Mutex::new(Some("4")),
        ..Receiver::default()
    });
    let route = || vec![Route::all(receiver.clone(), vec![Kind::Events])];
    let pipeline = start_routes(open(folder.path(), Steps::default()), route());
    records(&pipeline, "contoso", 0..10).await;
    let store = pipeline.shared().store.clone();
    eventually("refused", || store.quarantined().unwrap().len() == 1).await;
    drop(store);
    pipeline.stop().await;
    *receiver.refuses.lock().unwrap() = None;
    // Under another name there is no lane that would send it.
    let named = vec![Route {
        name: "named".to_owned(),
        ..Route::all(receiver.clone(), vec![Kind::Events])
    }];
    let pipeline = start_routes(open(folder.path(), Steps::default()), named);
    assert!(ask(&pipeline, Ask::Retry(None)).await.unwrap().is_empty());
    let store = pipeline.shared().store.clone();
    let id = store.quarantined().unwrap()[0].id.clone();
    drop(store);
    let why = ask(&pipeline, Ask::Retry(Some(id))).await.unwrap_err();
    assert!(why.contains("no longer configured"), "{why}");
    pipeline.stop().await;
    start_routes(open(folder.path(), Steps::default()), route())
        .stop()
        .await;
    let mut state = open(folder.path(), Steps::default());
    let (_, commit) = again::answer(&*state.store(), &Ask::Retry(None), at())
        .unwrap()
        .unwrap();
    state.commit_group(vec![commit]).unwrap();
    let pipeline = start_routes(state, route());
    eventually("delivered", || taken_of(&receiver, "contoso").len() == 10).await;
    pipeline.stop().await;
}

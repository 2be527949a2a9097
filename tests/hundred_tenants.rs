//! A hundred tenants in one process, ten of them with revoked credentials and ten hanging: the others
//! do not notice. In process, on tokio's paused time, which the test alone moves on: lag is
//! measured in virtual time and does not depend on the machine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::alarm::{AlarmOptions, Alarms};
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::worker::{WorkerConfig, run_tenant};
use exfilwatch::pipeline::{Parts, Pipeline, Route};
use exfilwatch_connectors::Connector;
use exfilwatch_connectors::kernel::surroundings::Surroundings;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::options::Office365Options;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_detectors::{DetectorsOptions, RuleSet};
use exfilwatch_emitters::{Delivered, EmitError, Emitter};
use exfilwatch_model::{Clock, Envelope, JobId, Kind, SecretSource, TenantId};
use exfilwatch_simulator::microsoft::MicrosoftOptions;
use exfilwatch_simulator::world::{Delivery, Tenant};
use exfilwatch_simulator::{
    AttackPlan, Simulator, SimulatorOptions, TenantOptions, VirtualClock, World, WorldOptions,
};
use exfilwatch_state::{Commit, Options, Position, State};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const TENANTS: usize = 100;
/// Of each kind of trouble.
const TROUBLED: usize = 10;
const ORIGIN: &str = "http://127.0.0.1:1001";
const STREAM: &str = "Audit.Exchange";
const POLL: TimeDelta = TimeDelta::seconds(60);
/// How long the healthy life that is compared with is watched, and the troubled one.
const PHASE: TimeDelta = TimeDelta::minutes(12);
/// Virtual time moves on by so much at once.
const STEP: Duration = Duration::from_secs(2);

/// The simulator's clock as ours: it follows tokio's time.
#[derive(Debug)]
struct SharedClock(VirtualClock);

impl Clock for SharedClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    fn real(&self, virtual_wait: Duration) -> Duration {
        virtual_wait
    }
}

/// What is wrong with a tenant once trouble begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Its application's secret and all of its tokens are refused.
    Revoked,
    /// Nothing is ever answered.
    Hanging,
}

/// Calls the simulator's router in process, as trouble allows.
#[derive(Debug)]
struct InProcess {
    router: Router,
    troubled: BTreeMap<String, Trouble>,
    begun: AtomicBool,
    calls: AtomicU64,
}

impl InProcess {
    fn trouble(&self, path: &str) -> Option<Trouble> {
        let begun = self.begun.load(Ordering::SeqCst);
        let tenant = path.split('/').find_map(|part| self.troubled.get(part));
        tenant.copied().filter(|_| begun)
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<BodyStream>, TransportError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let path = request.uri().path().to_owned();
        let response = match self.trouble(&path) {
            Some(Trouble::Hanging) => std::future::pending().await,
            Some(Trouble::Revoked) => refused(&path),
            None => {
                let answered = self.router.clone().oneshot(request.map(Body::from)).await;
                answered.unwrap()
            }
        };
        let failed = |error: axum::Error| TransportError(error.to_string());
        let stream = |body: Body| {
            let pieces = body.into_data_stream();
            pieces.map(move |piece| piece.map_err(failed)).boxed()
        };
        Ok(response.map(stream))
    }
}

/// What Microsoft says to an application whose secret is gone, and to its tokens.
fn refused(path: &str) -> Response<Body> {
    let body = if path.ends_with("/token") {
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.","error_codes":[7000215]}"#
    } else {
        r#"{"Message":"Authorization has been denied for this request."}"#
    };
    let builder = Response::builder().status(401);
    let typed = builder.header("content-type", "application/json");
    typed.body(Body::from(body)).unwrap()
}

/// Takes everything and remembers whose records came.
#[derive(Debug, Default)]
struct Receiver {
    events: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

#[async_trait]
impl Emitter for Receiver {
    fn name(&self) -> &'static str {
        "test.receiver"
    }

    fn batch_max(&self) -> (usize, usize) {
        (1_000, 4 << 20)
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let mut events = self.events.lock().unwrap();
        for item in batch {
            let tenant = item.stream.tenant().to_string();
            events.entry(tenant).or_default().insert(item.id.clone());
        }
        Ok(Delivered::default())
    }
}

/// The process: a pipeline, a worker for each tenant, and time that only moves when told.
struct Process {
    simulator: Simulator,
    transport: Arc<InProcess>,
    receiver: Arc<Receiver>,
    pipeline: Pipeline,
    /// While it is not dropped time does not move by itself: tokio waits for a blocking task.
    _time_stands: std::sync::mpsc::Sender<()>,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let from: DateTime<Utc> = "2026-03-03T08:00:00Z".parse().unwrap();
    let tenant = |number: usize| TenantOptions {
        google: false,
        people: 12,
        ..TenantOptions::new(&format!("t{number:02}"))
    };
    World::invent(WorldOptions {
        // About three a minute for each tenant, in five content types.
        records_per_day: 4_000,
        tenants: (0..TENANTS).map(tenant).collect(),
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Quiet,
        ..WorldOptions::new(3, from, from + TimeDelta::hours(1))
    })
}

/// The trouble of the tenant with that number: spread, not all of them first or last.
fn trouble_of(number: usize) -> Option<Trouble> {
    match number % (TENANTS / TROUBLED) {
        3 => Some(Trouble::Revoked),
        7 => Some(Trouble::Hanging),
        _ => None,
    }
}

impl Process {
    fn start() -> Self {
        let world = world();
        let options = SimulatorOptions {
            start: Some(world.options().from + TimeDelta::minutes(20)),
            rate: 1.0,
            microsoft: MicrosoftOptions {
                subscribed: true,
                ..MicrosoftOptions::default()
            },
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::new(world, options).unwrap();
        let troubled = simulator.world().tenants().iter().enumerate();
        let troubled = troubled
            .filter_map(|(n, tenant)| Some((tenant.tenant_id?.to_string(), trouble_of(n)?)));
        let transport = Arc::new(InProcess {
            router: simulator.microsoft_router(),
            troubled: troubled.collect(),
            begun: AtomicBool::new(false),
            calls: AtomicU64::new(0),
        });
        let (time_stands, until) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || until.recv());
        let folder = tempfile::tempdir().unwrap();
        let receiver = Arc::new(Receiver::default());
        let clock: Arc<dyn Clock> = Arc::new(SharedClock(simulator.clock().clone()));
        let pipeline = pipeline(folder.path(), receiver.clone(), clock);
        Self {
            simulator,
            transport,
            receiver,
            pipeline,
            _time_stands: time_stands,
            _folder: folder,
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.simulator.clock().now()
    }

    fn spawn_workers(&self) {
        let rules = app::rules(&DetectorsOptions::default()).unwrap();
        let secret = self.simulator.credentials().microsoft.client_secret.clone();
        let environment = move |name: &str| (name == "SECRET").then(|| secret.clone());
        let clock = self.pipeline.shared().clock.clone();
        let mut surroundings = Surroundings::new(clock, Arc::new(environment));
        surroundings.transport = Some(self.transport.clone());
        for tenant in self.simulator.world().tenants() {
            let connector = self.connector(tenant, &surroundings);
            let config = self.worker(tenant, connector, &rules);
            tokio::spawn(run_tenant(config, self.pipeline.shared().clone()));
        }
    }

    fn connector(&self, tenant: &Tenant, surroundings: &Surroundings) -> Arc<dyn Connector> {
        let origin = Some(ORIGIN.parse().unwrap());
        let options = AnyOptions::Office365(Box::new(Office365Options {
            tenant: Some(tenant.alias.parse().unwrap()),
            tenant_id: tenant.tenant_id.map(|id| id.to_string()),
            client_id: Some(self.simulator.credentials().microsoft.client_id.clone()),
            client_secret: Some(SecretSource::Env("SECRET".into())),
            content_types: Some(vec![STREAM.into()]),
            poll_interval_seconds: Some(POLL.num_seconds().unsigned_abs()),
            api_root: origin.clone(),
            login_root: origin,
            ..Office365Options::default()
        }));
        let readers = app::readers(&[&tenant.domain], &[]);
        let records = readers.shared(options.product());
        options.build(records, surroundings).unwrap()
    }

    fn worker(
        &self,
        tenant: &Tenant,
        connector: Arc<dyn Connector>,
        rules: &Arc<RuleSet>,
    ) -> WorkerConfig {
        let shared = self.pipeline.shared();
        let alias = TenantId::new(&tenant.alias).unwrap();
        let (today, budget) = (self.now().date_naive(), shared.seen_budget.clone());
        WorkerConfig {
            connectors: vec![connector],
            step: StepConfig {
                memory: TenantMemory::load(&*shared.store, alias, today, budget).unwrap(),
                job: JobId::live(),
                readers: app::readers(&[&tenant.domain], &[]),
                rules: rules.clone().into(),
                forwards_events: true,
                purpose: Purpose::Deliver,
                live_since: self.now(),
            },
            heartbeat: TimeDelta::minutes(5),
            alarms: Alarms::new(AlarmOptions::default(), false),
            first_run: TimeDelta::hours(1),
            archives: Vec::new(),
        }
    }

    /// What changes while there is anything to do at this instant.
    fn activity(&self) -> (u64, Position, usize) {
        let shared = self.pipeline.shared();
        let end = *shared.committer.end().borrow();
        let received = self.receiver.events.lock().unwrap();
        let received = received.values().map(BTreeSet::len).sum();
        (self.transport.calls.load(Ordering::SeqCst), end, received)
    }

    /// Lets everybody do what there is to do at this instant, the committer's thread included.
    async fn settle(&self) {
        let mut last = self.activity();
        let mut quiet = 0;
        while quiet < 2 {
            for _ in 0..30 {
                tokio::task::yield_now().await;
            }
            let committer = &self.pipeline.shared().committer;
            committer.commit(Commit::default()).await.unwrap();
            let now = self.activity();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
        }
    }

    /// Passes time, and returns the largest lag that each tenant had meanwhile.
    async fn pass(&self, span: TimeDelta) -> BTreeMap<String, TimeDelta> {
        let until = self.now() + span;
        let mut largest = BTreeMap::new();
        while self.now() < until {
            tokio::time::advance(STEP).await;
            self.settle().await;
            for (stream, health) in self.pipeline.shared().watch.copy().streams {
                let Some(low_water) = health.low_water else {
                    continue;
                };
                let lag = self.now() - low_water;
                let tenant = largest.entry(stream.tenant().to_string()).or_insert(lag);
                *tenant = lag.max(*tenant);
            }
        }
        largest
    }

    /// Records of a tenant that a poll must have brought by now, and that did not come.
    fn missing(&self, tenant: &Tenant) -> usize {
        let events = self.receiver.events.lock().unwrap();
        let came = events.get(&tenant.alias);
        let by = (self.now() - POLL * 2).timestamp_millis();
        let records = self.simulator.sheet().records.iter();
        let due = records.filter(|record| {
            *record.tenant == tenant.alias
                && record.stream.ends_with(STREAM)
                && record.visible_from_ms <= by
        });
        due.filter(|record| !came.is_some_and(|ids| ids.iter().any(|id| id.contains(&record.id))))
            .count()
    }
}

fn pipeline(folder: &std::path::Path, emitter: Arc<Receiver>, clock: Arc<dyn Clock>) -> Pipeline {
    let options = Options {
        sync: false,
        ..Options::default()
    };
    let state = State::open(folder, clock.now(), options).unwrap().state;
    Pipeline::start(Parts {
        state,
        routes: vec![Route::all(emitter, vec![Kind::Events])],
        clock,
        budget_bytes: u64::MAX,
        shutdown: CancellationToken::new(),
        drain: Duration::from_secs(5),
    })
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_tenants_ten_revoked_and_ten_hanging_do_not_delay_the_others() {
    let process = Process::start();
    process.spawn_workers();
    // What had been waiting is read, and the first heartbeats are over.
    process.pass(TimeDelta::minutes(6)).await;
    let healthy = process.pass(PHASE).await;
    assert_eq!(healthy.len(), TENANTS, "every tenant is polled");
    let worst = healthy.values().max().unwrap();
    assert!(*worst < POLL * 4, "a healthy tenant lags by {worst}");

    process.transport.begun.store(true, Ordering::SeqCst);
    let troubled = process.pass(PHASE).await;
    let health = process.pipeline.shared().watch.copy();
    for (number, tenant) in process.simulator.world().tenants().iter().enumerate() {
        let alias = &tenant.alias;
        let (before, after) = (healthy[alias], troubled[alias]);
        let stream = format!("{alias}/office365/{STREAM}").parse().unwrap();
        let held = health.streams[&stream].held.clone();
        match trouble_of(number) {
            None => {
                assert!(after <= before + POLL, "{alias}: {before} grew to {after}");
                assert_eq!(process.missing(tenant), 0, "records of {alias}");
                assert_eq!(held, None, "{alias}");
            }
            // That trouble was really there.
            Some(trouble) => {
                assert!(
                    after > PHASE - POLL,
                    "{alias}, {trouble:?}: lags by {after} only"
                );
                let revoked = trouble == Trouble::Revoked;
                assert_eq!(held.is_some(), revoked, "{alias}, {trouble:?}: {held:?}");
            }
        }
    }
    process.pipeline.shared().shutdown.cancel();
}

//! The simulator in place of the network, on tokio's paused time, and the smallest caller a
//! connector can have: a work list in memory that keeps what a store would keep.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

pub(crate) mod quiet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::kernel::surroundings::Surroundings;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::options::{GoogleWorkspaceOptions, Office365Options};
use exfilwatch_connectors::records::google::GoogleRecords;
use exfilwatch_connectors::records::microsoft::Microsoft365Records;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_connectors::{Connector, FetchError, Standing};
use exfilwatch_model::{
    Clock, Cursor, Domains, Gap, Malformed, SecretSource, StreamId, Window, WorkItem,
};
use exfilwatch_simulator::{
    FaultScript, Simulator, SimulatorOptions, VirtualClock, World, WorldOptions,
};
use futures::StreamExt;
use tower::ServiceExt;

pub(crate) const MICROSOFT: &str = "http://127.0.0.1:1001";
pub(crate) const GOOGLE: &str = "http://127.0.0.1:1002";
/// Virtual seconds per second of tokio's (paused) time.
pub(crate) const RATE: f64 = 60.0;

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The simulator's clock as ours.
#[derive(Debug)]
pub(crate) struct SharedClock(pub(crate) VirtualClock);

impl Clock for SharedClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    fn real(&self, virtual_wait: Duration) -> Duration {
        virtual_wait.div_f64(RATE)
    }
}

/// Our clock, wrong by so much.
#[derive(Debug)]
pub(crate) struct WrongClock(pub(crate) VirtualClock, pub(crate) TimeDelta);

impl Clock for WrongClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.now() + self.1
    }

    fn real(&self, virtual_wait: Duration) -> Duration {
        virtual_wait.div_f64(RATE)
    }
}

/// Calls the simulator's routers in process and writes down what was asked for.
#[derive(Debug)]
pub(crate) struct InProcess {
    microsoft: Router,
    google: Router,
    pub(crate) asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for InProcess {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        let url = request.uri().to_string();
        self.asked.lock().unwrap().push(url.clone());
        let router = match () {
            () if url.starts_with(MICROSOFT) => &self.microsoft,
            () if url.starts_with(GOOGLE) => &self.google,
            () => return Err(TransportError(format!("nobody is at {url}"))),
        };
        let response = router
            .clone()
            .oneshot(request.map(Body::from))
            .await
            .unwrap();
        Ok(response.map(|body| {
            body.into_data_stream()
                .map(|piece| piece.map_err(|e| TransportError(e.to_string())))
                .boxed()
        }))
    }
}

/// A simulator, and what connectors to it are built from.
pub(crate) struct Stage {
    pub(crate) simulator: Simulator,
    pub(crate) transport: Arc<InProcess>,
    pub(crate) surroundings: Surroundings,
}

impl Stage {
    pub(crate) fn new(world: WorldOptions, options: SimulatorOptions) -> Self {
        let options = SimulatorOptions {
            rate: RATE,
            ..options
        };
        Self::around(Simulator::new(World::invent(world), options).unwrap())
    }

    pub(crate) fn around(simulator: Simulator) -> Self {
        let transport = Arc::new(InProcess {
            microsoft: simulator.microsoft_router(),
            google: simulator.google_router(),
            asked: Mutex::default(),
        });
        let secrets = simulator.credentials().clone();
        let admin = simulator.world().tenants()[0].admin().email.clone();
        let environment = move |name: &str| match name {
            "MS_SECRET" => Some(secrets.microsoft.client_secret.clone()),
            "GOOGLE_KEY" => {
                // As downloaded: the token endpoint in it is Google's; tests override it.
                Some(
                    secrets
                        .google
                        .service_account_json("https://oauth2.googleapis.com/token"),
                )
            }
            "GOOGLE_CLIENT_SECRET" => Some(secrets.google.installed_client_secret.clone()),
            "GOOGLE_REFRESH" => Some(secrets.google.refresh_token(&admin)),
            _ => None,
        };
        let clock = Arc::new(SharedClock(simulator.clock().clone()));
        let mut surroundings = Surroundings::new(clock, Arc::new(environment));
        surroundings.transport = Some(transport.clone());
        Self {
            simulator,
            transport,
            surroundings,
        }
    }

    pub(crate) fn office365_options(&self) -> Office365Options {
        let tenant = &self.simulator.world().tenants()[0];
        Office365Options {
            tenant: Some(tenant.alias.parse().unwrap()),
            tenant_id: tenant.tenant_id.map(|id| id.to_string()),
            client_id: Some(self.simulator.credentials().microsoft.client_id.clone()),
            client_secret: Some(SecretSource::Env("MS_SECRET".into())),
            api_root: Some(MICROSOFT.parse().unwrap()),
            login_root: Some(MICROSOFT.parse().unwrap()),
            graph_root: Some(MICROSOFT.parse().unwrap()),
            ..Office365Options::default()
        }
    }

    pub(crate) fn google_options(&self) -> GoogleWorkspaceOptions {
        let tenant = &self.simulator.world().tenants()[0];
        GoogleWorkspaceOptions {
            tenant: Some(tenant.alias.parse().unwrap()),
            subject: Some(tenant.admin().email.clone()),
            service_account: Some(SecretSource::Env("GOOGLE_KEY".into())),
            api_root: Some(GOOGLE.parse().unwrap()),
            token_uri: Some(format!("{GOOGLE}/token").parse().unwrap()),
            ..GoogleWorkspaceOptions::default()
        }
    }

    pub(crate) fn office365(&self, options: Office365Options) -> Caller {
        let domains = Arc::new(Domains::new::<&str>(&[], &[]));
        let identity = options.record_identity.unwrap_or_default();
        let reader = Arc::new(Microsoft365Records::new(domains).identified_by(identity));
        let options = AnyOptions::Office365(Box::new(options));
        self.caller(options.build(reader, &self.surroundings).unwrap())
    }

    pub(crate) fn google(&self, options: GoogleWorkspaceOptions) -> Caller {
        let domains = Arc::new(Domains::new::<&str>(&[], &[]));
        let reader = Arc::new(GoogleRecords::new(domains));
        let options = AnyOptions::GoogleWorkspace(Box::new(options));
        self.caller(options.build(reader, &self.surroundings).unwrap())
    }

    fn caller(&self, connector: Arc<dyn Connector>) -> Caller {
        Caller {
            clock: self.surroundings.clock.clone(),
            cursors: BTreeMap::new(),
            open: BTreeMap::new(),
            done: BTreeSet::new(),
            seen: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            gaps: Vec::new(),
            malformed: Vec::new(),
            standings: BTreeMap::new(),
            errors: Vec::new(),
            connector,
        }
    }

    pub(crate) fn faults(&self, script: FaultScript) {
        self.simulator.faults().replace(script);
    }

    /// Lets so much virtual time pass.
    pub(crate) async fn pass(&self, wait: TimeDelta) {
        let wait = self.surroundings.clock.real(wait.to_std().unwrap());
        tokio::time::sleep(wait).await;
    }
}

/// What a pipeline does with a connector, without a store.
pub(crate) struct Caller {
    pub(crate) connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    pub(crate) cursors: BTreeMap<StreamId, Cursor>,
    pub(crate) open: BTreeMap<(StreamId, String), WorkItem>,
    pub(crate) done: BTreeSet<(StreamId, String)>,
    /// Record ids and how often each came.
    pub(crate) seen: BTreeMap<String, usize>,
    /// What the seen index would remember, and how often each came.
    pub(crate) fingerprints: BTreeMap<u64, usize>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) malformed: Vec<Malformed>,
    /// How each stream stood at its last listing.
    pub(crate) standings: BTreeMap<StreamId, Standing>,
    /// What would have to be told or quarantined.
    pub(crate) errors: Vec<(String, FetchError)>,
}

impl Caller {
    pub(crate) fn start(&mut self, from: DateTime<Utc>) {
        let window = Window::new(from, from + TimeDelta::days(1)).unwrap();
        for stream in self.connector.streams() {
            let cursor = self.connector.first_cursor(&stream, window);
            self.cursors.insert(stream, cursor);
        }
    }

    /// Lists every stream up to the present, then fetches what is open.
    pub(crate) async fn poll(&mut self) {
        for stream in self.connector.streams() {
            self.list(&stream).await;
        }
        self.fetch().await;
    }

    pub(crate) async fn list(&mut self, stream: &StreamId) {
        for _ in 0..500 {
            let cursor = self.cursors.get(stream).unwrap().clone();
            match self.connector.list(stream, &cursor).await {
                Ok(listing) => {
                    assert!(listing.cursor.covered_until >= cursor.covered_until);
                    self.take(listing.items);
                    self.gaps.extend(listing.gaps);
                    self.standings.insert(stream.clone(), listing.standing);
                    self.cursors.insert(stream.clone(), listing.cursor);
                    if !listing.more {
                        return;
                    }
                }
                Err(error) => {
                    self.errors.push((stream.to_string(), error));
                    return;
                }
            }
        }
        panic!("the listing of {stream} does not end");
    }

    pub(crate) async fn relist(&mut self, span: TimeDelta) {
        for stream in self.connector.streams() {
            let until = self.cursors.get(&stream).unwrap().covered_until;
            let window = Window::new(until - span, until).unwrap();
            match self.connector.relist(&stream, window).await {
                Ok(items) => self.take(items),
                Err(error) => self.errors.push((stream.to_string(), error)),
            }
        }
        self.fetch().await;
    }

    fn take(&mut self, items: Vec<WorkItem>) {
        for item in items {
            let key = (item.stream.clone(), item.key.clone());
            if !self.done.contains(&key) {
                self.open.entry(key).or_insert(item);
            }
        }
    }

    pub(crate) async fn fetch(&mut self) {
        let due: Vec<WorkItem> = self.open.values().cloned().collect();
        for item in due {
            if item.next_try.is_some_and(|at| at > self.clock.now()) {
                continue;
            }
            let key = (item.stream.clone(), item.key.clone());
            match self.fetch_item(&item).await {
                Ok(()) => {
                    self.open.remove(&key);
                    self.done.insert(key);
                }
                Err(FetchError::Retry { .. } | FetchError::Throttled { .. }) => {
                    let open = self.open.get_mut(&key).unwrap();
                    open.attempts += 1;
                    open.next_try = Some(self.clock.now() + TimeDelta::minutes(1));
                }
                Err(error) => {
                    self.open.remove(&key);
                    self.errors.push((item.key, error));
                }
            }
        }
    }

    async fn fetch_item(&mut self, item: &WorkItem) -> Result<(), FetchError> {
        let mut pages = self.connector.fetch(item).await?;
        let mut last = false;
        while let Some(page) = pages.next().await {
            let page = page?;
            assert!(!last && page.item == item.key && page.stream == item.stream);
            assert!(page.records.len() + page.malformed.len() <= 1_000);
            last = page.last;
            for record in &page.records {
                let head = self.connector.records().head(record).unwrap();
                *self.seen.entry(head.id_text()).or_default() += 1;
                let fingerprint = head.fingerprint(&[7; 16]);
                *self.fingerprints.entry(fingerprint).or_default() += 1;
            }
            self.malformed.extend(page.malformed);
        }
        assert!(last, "item {} ended without a last page", item.key);
        Ok(())
    }
}

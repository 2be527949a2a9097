//! The addresses of one deployment: each with a pace and a channel of its own, since an
//! acknowledgement is known only where the events went.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::client::Client;
use super::deployment::Deployment;
use super::pace::Pace;
use super::session::Session;
use crate::contract::EmitError;
use crate::error::BuildError;
use crate::options::SplunkHecOptions;

/// How long an address is left alone after a failure, where there are others.
const REST: Duration = Duration::from_secs(30);
/// Ids that come twice once may be an indexer's restart; once more so soon is a balancer that scatters.
const CONFUSED_AGAIN: Duration = Duration::from_secs(60);

/// One address.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) pace: Pace,
    client: Arc<Client>,
    session: Mutex<Arc<Session>>,
    rests_until: Mutex<Option<Instant>>,
    /// When ids were last found to be of several indexers.
    confused_at: Mutex<Option<Instant>>,
    /// One channel leads to several indexers: each request gets one of its own.
    scattered: AtomicBool,
}

impl Endpoint {
    fn new(client: Client) -> Result<Self, BuildError> {
        let client = Arc::new(client);
        Ok(Self {
            pace: Pace::new(),
            session: Mutex::new(Arc::new(Session::new(Arc::clone(&client), false)?)),
            client,
            rests_until: Mutex::new(None),
            confused_at: Mutex::new(None),
            scattered: AtomicBool::new(false),
        })
    }

    /// The session for a new send.
    pub(super) fn session(&self) -> Arc<Session> {
        let current = Arc::clone(&lock(&self.session));
        if !self.scattered.load(Ordering::Relaxed) {
            return current;
        }
        match Session::of_one_request(Arc::clone(&self.client), current.is_in_url()) {
            Ok(session) => Arc::new(session),
            Err(error) => {
                tracing::error!(%error, "no new connection could be set up");
                current
            }
        }
    }

    /// Another indexer than before answers on the session. Where that is not a restart, ids on a channel
    /// that is shared say nothing.
    pub(super) fn is_confused(&self, session: &Arc<Session>) {
        // What else was under way on that channel tells nothing new.
        if !Arc::ptr_eq(&lock(&self.session), session) {
            return;
        }
        let now = Instant::now();
        let before = lock(&self.confused_at).replace(now);
        if before.is_some_and(|at| now - at < CONFUSED_AGAIN)
            && !self.scattered.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                emitter = self.client.deployment().facts.name(), address = %self.client.address(),
                "the balancer leads one channel to several indexers: from now on each request has a channel \
                 of its own. Make it stick by a cookie, or list the indexers in more_urls"
            );
        }
    }

    /// Sends go to a new session from now on, unless another task saw to that. What is outstanding on
    /// the old one is asked for there.
    pub(super) fn renew(&self, old: &Arc<Session>, in_url: bool) {
        let mut current = lock(&self.session);
        if !Arc::ptr_eq(&current, old) {
            return;
        }
        let in_url = in_url || old.is_in_url();
        match Session::new(Arc::clone(&self.client), in_url) {
            Ok(session) => *current = Arc::new(session),
            Err(error) => tracing::error!(%error, "no new connection could be set up"),
        }
        drop(current);
        self.pace.restart();
    }

    /// Leaves the address alone for a while: something failed there.
    fn rest(&self, why: &EmitError) {
        let emitter = self.client.deployment().facts.name();
        let address = self.client.address();
        tracing::warn!(emitter, %address, %why, "the address is left alone for half a minute");
        *lock(&self.rests_until) = Some(Instant::now() + REST);
    }

    fn rests(&self, now: Instant) -> bool {
        lock(&self.rests_until).is_some_and(|until| now < until)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The configured addresses, each with the member it stands in.
pub(super) fn addresses(options: &SplunkHecOptions) -> impl Iterator<Item = (&'static str, &Url)> {
    let more = options.more_urls.iter().map(|url| ("more_urls", url));
    std::iter::once(("url", &options.url)).chain(more)
}

/// All addresses; never empty.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    turn: AtomicUsize,
}

impl Endpoints {
    pub(super) fn new(deployment: &Arc<Deployment>) -> Result<Self, BuildError> {
        let endpoint = |address| Endpoint::new(Client::new(address, deployment)?);
        Ok(Self {
            all: addresses(&deployment.options)
                .map(endpoint)
                .collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
        })
    }

    pub(super) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Those that do not rest, all where all do, beginning with the one whose turn it is.
    pub(super) fn in_turn(&self) -> Vec<&Endpoint> {
        let now = Instant::now();
        let mut awake: Vec<&Endpoint> = self.all.iter().filter(|one| !one.rests(now)).collect();
        if awake.is_empty() {
            awake = self.all.iter().collect();
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(awake.len()).unwrap_or(0);
        awake.rotate_left(first);
        awake
    }

    /// Something failed at one: where there are others it is left alone.
    pub(super) fn rest(&self, endpoint: &Endpoint, why: &EmitError) {
        if self.all.len() > 1 {
            endpoint.rest(why);
        }
    }
}

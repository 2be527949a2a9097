//! The addresses of one deployment: each with connections, cookies and channel of its own, since an
//! acknowledgement is known only where the events went.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exfilwatch_model::Clock;
use tokio::time::Instant;

use super::ack::Acks;
use super::client::Client;
use crate::environment::Environment;
use crate::error::BuildError;
use crate::options::SplunkHecOptions;

/// How long an address is left alone after a failure, where there are others.
const REST: Duration = Duration::from_secs(30);

/// One address.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) client: Client,
    pub(super) acks: Acks,
    rests_until: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// Leaves the address alone for a while: something failed there.
    pub(super) fn rest(&self) {
        *self.resting() = Some(Instant::now() + REST);
    }

    fn rests(&self, now: Instant) -> bool {
        self.resting().is_some_and(|until| now < until)
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// All addresses; never empty.
#[derive(Debug)]
pub(super) struct Endpoints {
    first: Endpoint,
    more: Vec<Endpoint>,
    turn: AtomicUsize,
}

impl Endpoints {
    pub(super) fn new(
        name: &str,
        options: &SplunkHecOptions,
        environment: &Environment,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let endpoint = |member, url, clock| {
            Ok(Endpoint {
                client: Client::new((name, member, url), options, environment, clock)?,
                acks: Acks::new(
                    Duration::from_secs(options.ack_timeout_seconds),
                    Duration::from_secs(options.ack_poll_seconds_max),
                ),
                rests_until: Mutex::new(None),
            })
        };
        let further = options.more_urls.iter();
        let more = further.map(|url| endpoint("more_urls", url, Arc::clone(&clock)));
        let more = more.collect::<Result<_, BuildError>>()?;
        Ok(Self {
            more,
            first: endpoint("url", &options.url, clock)?,
            turn: AtomicUsize::new(0),
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Endpoint> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Whose turn it is, of those that do not rest; of all where all do.
    pub(super) fn next(&self) -> &Endpoint {
        let now = Instant::now();
        let awake: Vec<&Endpoint> = self.all().filter(|one| !one.rests(now)).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let of = |list: &[&'_ Endpoint]| turn.checked_rem(list.len());
        match of(&awake).and_then(|place| awake.get(place).copied()) {
            Some(endpoint) => endpoint,
            None => {
                let place = turn % (1 + self.more.len());
                self.all().nth(place).unwrap_or(&self.first)
            }
        }
    }

    /// The token is read anew before the next call.
    pub(super) fn forget_token(&self) {
        self.all()
            .for_each(|endpoint| endpoint.client.forget_token());
    }
}

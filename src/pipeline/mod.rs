//! The way of the data: two straight lines with the store between them.
//!
//! ```text
//! ingest    list → item → page → head → drop seen → normalise → detect → COMMIT
//! deliver                                      outbox → encode → send → receipt → MARK
//! ```
//!
//! [`Pipeline`] is the house around them: it opens the lanes, starts the committer, and stops in
//! the right order.

pub mod again;
pub mod alarm;
pub mod baselines;
pub mod committer;
pub mod deliver;
mod fetch;
pub mod filter;
pub mod heartbeat;
pub mod ingest;
pub mod inventory;
pub mod job;
mod lanes;
pub mod ledger;
mod listing;
pub mod live_rules;
pub mod memory;
pub mod notice;
pub mod opening;
pub mod own_domains;
pub mod parting;
pub mod pause;
pub mod reconcile;
pub mod rehearsal;
pub mod report;
pub mod sample;
mod session;
pub mod sightings;
pub mod step;
pub mod supervise;
pub mod verdicts;
pub mod watch;
pub mod worker;
pub mod worklist;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use exfilwatch_emitters::{Emitter, ROUTE_ALL};
use exfilwatch_model::{Clock, Kind};
use exfilwatch_state::{LaneId, SEEN_ENTRIES_MAX, SeenBudget, State, StateError, StateStore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use committer::{Budget, Committer};
use filter::ItemFilter;
use job::JobsShared;
use lanes::Runner;
use watch::Watch;
use worker::Shared;

/// How often a bounded run looks whether its lanes get on.
const PATIENCE_STEP: Duration = Duration::from_millis(50);

/// A way to a receiver: what it is sent, and by which emitter.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name among the routes of the receiver.
    pub name: String,
    /// The receiver.
    pub emitter: Arc<dyn Emitter>,
    /// The kinds it takes; a lane each.
    pub kinds: Vec<Kind>,
    /// What it takes of them.
    pub filter: ItemFilter,
    /// What it takes and where to, in words: told by them that it is not what it was.
    pub terms: String,
}

impl Route {
    /// Its lane of a kind.
    fn lane(&self, kind: Kind) -> LaneId {
        LaneId {
            emitter: self.emitter.name().to_owned(),
            route: self.name.clone(),
            kind,
        }
    }

    /// The one route of an emitter that takes all of these kinds.
    pub fn all(emitter: Arc<dyn Emitter>, kinds: Vec<Kind>) -> Self {
        Self {
            name: ROUTE_ALL.to_owned(),
            emitter,
            kinds,
            filter: ItemFilter::default(),
            terms: String::new(),
        }
    }
}

/// What a pipeline is started from.
#[derive(Debug)]
pub struct Parts {
    /// The open state.
    pub state: State,
    /// The receivers.
    pub routes: Vec<Route>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Bytes the outbox may hold; near it fetching pauses.
    pub budget_bytes: u64,
    /// Ends the sources; lanes end in [`Pipeline::stop`].
    pub shutdown: CancellationToken,
    /// How long what is in flight at the end may take to be confirmed.
    pub drain: Duration,
}

/// A running pipeline without its sources: committer and lanes.
#[derive(Debug)]
pub struct Pipeline {
    kinds: Vec<Kind>,
    committer_thread: JoinHandle<State>,
    runner: Runner,
}

/// A lane that a bounded run could not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The lane.
    pub lane: LaneId,
    /// Why, where the receiver said so.
    pub reason: Option<String>,
}

impl Pipeline {
    /// Opens the lanes at their marks and starts delivering.
    pub fn start(mut parts: Parts) -> Result<Self, StateError> {
        let store: Arc<dyn StateStore> = parts.state.store();
        let outbox = parts.state.outbox_folder();
        let state_folder = parts.state.folder().to_owned();
        let opened = lanes::open(&parts.state, &parts.routes, parts.clock.now())?;
        let budget = Budget {
            bytes: parts.budget_bytes,
            tenants: lanes::tenants(&parts.routes),
        };
        // Durable before the first frame: a lane without a mark would not hold its segments.
        parts.state.commit_group(vec![opened.marks])?;
        let watch = Watch::default();
        for route in &parts.routes {
            watch.emitter(&route.name, &route.emitter);
        }
        let (committer, paused, committer_thread) = Committer::start(
            parts.state,
            parts.clock.clone(),
            budget,
            watch.clone(),
            parts.shutdown.clone(),
        )?;
        let shared = Shared {
            committer,
            store,
            seen_budget: SeenBudget::new(SEEN_ENTRIES_MAX),
            clock: parts.clock,
            watch,
            paused,
            jobs: JobsShared::default(),
            again: tokio::sync::watch::Sender::new(()),
            shutdown: parts.shutdown,
        };
        let pipeline = Self {
            kinds: parts
                .routes
                .iter()
                .flat_map(|route| route.kinds.clone())
                .collect(),
            runner: Runner {
                shared,
                outbox,
                state_folder,
                drain: parts.drain,
                tasks: TaskTracker::new(),
                beside: TaskTracker::new(),
                finish: CancellationToken::new(),
                stop: CancellationToken::new(),
                behind: Arc::default(),
            },
            committer_thread,
        };
        for family in opened.families {
            pipeline.runner.run_family(family);
        }
        Ok(pipeline)
    }

    /// What sources need.
    pub fn shared(&self) -> &Shared {
        &self.runner.shared
    }

    /// Whether any lane takes this kind.
    pub fn takes(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// For bounded runs, when the sources are done: waits until the lanes have delivered all, then
    /// stops. Gives up when none has moved for `patience`, or when `interrupt` is cancelled; what
    /// the lanes still hold stays in the outbox.
    pub async fn finish(
        self,
        patience: Duration,
        interrupt: CancellationToken,
    ) -> Result<(), Vec<Undelivered>> {
        let drained = self.drain(patience, interrupt).await;
        self.stop().await;
        drained
    }

    async fn drain(
        &self,
        patience: Duration,
        interrupt: CancellationToken,
    ) -> Result<(), Vec<Undelivered>> {
        self.runner.finish.cancel();
        self.runner.tasks.close();
        let mut moved = Instant::now();
        let mut last = self.delivered();
        loop {
            tokio::select! {
                () = self.runner.tasks.wait() => {
                    return match self.runner.behind.load(Ordering::SeqCst) {
                        0 => Ok(()),
                        _ => Err(self.waiting()),
                    };
                }
                () = interrupt.cancelled() => return Ok(()),
                () = tokio::time::sleep(PATIENCE_STEP) => {}
            }
            let now = self.delivered();
            if now != last {
                (last, moved) = (now, Instant::now());
            } else if moved.elapsed() > patience {
                return Err(self.waiting());
            }
        }
    }

    fn delivered(&self) -> u64 {
        let shown = self.shared().watch.copy();
        shown
            .lanes
            .keys()
            .map(|lane| shown.lane_health(lane).delivered)
            .sum()
    }

    fn waiting(&self) -> Vec<Undelivered> {
        let shown = self.shared().watch.copy();
        let end = *self.shared().committer.end().borrow();
        let waits = shown.lanes.keys().filter_map(|lane| {
            let health = shown.lane_health(lane);
            (health.mark < end).then(|| Undelivered {
                lane: lane.clone(),
                reason: health.held.or(health.failing),
            })
        });
        waits.collect()
    }

    /// Ends lanes and committer, in this order.
    pub async fn stop(self) {
        self.runner.stop.cancel();
        for tasks in [&self.runner.tasks, &self.runner.beside] {
            tasks.close();
            tasks.wait().await;
        }
        self.shared().committer.stop().await;
        let joined = tokio::task::spawn_blocking(|| self.committer_thread.join()).await;
        if !matches!(joined, Ok(Ok(_))) {
            tracing::error!("the committer's thread ended by a panic");
        }
    }
}

//! A tenant's session: the only writer of its streams, from the store to the next failed commit.
//!
//! It takes what the listing and fetching tasks bring (`take`), stages what a listing (`listed`) or a
//! fetch (`fetched`) means for the store, and answers once it is committed. What the vendor refuses
//! is held (`hold`); every half minute time is let pass (`tick`). What all that means for completeness
//! stands in `ledger`.

mod alarms;
mod fetched;
mod hold;
mod joined;
mod ledger;
mod listed;
mod take;
mod tick;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::Connector;
use exfilwatch_detectors::RuleSet;
use exfilwatch_model::{Cursor, Gap, StreamId, Window};
use exfilwatch_state::StateError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pipeline::committer::CommitError;
use crate::pipeline::fetch::{Message, fetch};
use crate::pipeline::ingest::{Ingest, IngestError};
use crate::pipeline::job::keeper::{live_from, recall_ended};
use crate::pipeline::ledger::StreamLedger;
use crate::pipeline::listing::ListingTask;
use crate::pipeline::worker::{Shared, WorkerConfig};
use crate::pipeline::worklist::WorkList;
use hold::Hold;
use take::{After, MESSAGES_MAX};

/// How often watermarks are written and old things forgotten, by the run's clock.
const TICK: Duration = Duration::from_secs(30);
/// Shortest real time between ticks, for runs whose clock is fast.
const MIN_TICK: Duration = Duration::from_millis(500);

/// For each item that is being fetched so many may wait for their commit, or for a slot of those: the
/// network is not idle while the store writes, and memory holds a page of each.
const WAITING_PER_FETCH: usize = 2;

pub(crate) enum End {
    Shutdown,
    Rebuild(String),
}

impl From<IngestError> for End {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Commit(CommitError::Stopped) => Self::Shutdown,
            other => Self::Rebuild(other.to_string()),
        }
    }
}

impl From<StateError> for End {
    fn from(error: StateError) -> Self {
        Self::Rebuild(IngestError::Restore(error).to_string())
    }
}

/// One run of a tenant from the store. It takes what the listing and fetching tasks bring and answers
/// each only when it is committed; what waits at the same time shares a commit.
pub(crate) struct Session<'a> {
    config: &'a WorkerConfig,
    shared: &'a Shared,
    ingest: Ingest,
    work: WorkList,
    cursors: BTreeMap<StreamId, Cursor>,
    by_stream: BTreeMap<StreamId, Arc<dyn Connector>>,
    /// Tells when the tenant's rules have changed.
    rules: watch::Receiver<Arc<RuleSet>>,
    /// What bounds the fetches of each connector, in the order of the configuration's.
    slots: Vec<Arc<Semaphore>>,
    held: BTreeMap<StreamId, Hold>,
    /// How complete each stream is.
    ledgers: BTreeMap<StreamId, StreamLedger>,
    /// Gaps as they are when what is staged is written; `None` when the store says it.
    gaps: Option<Vec<Gap>>,
    /// Streams that are read again since the store was lost, and from where.
    restarted: Vec<(StreamId, DateTime<Utc>)>,
    messages: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    tasks: TaskTracker,
    cancel: CancellationToken,
    heartbeat_at: DateTime<Utc>,
    /// Watermarks as they are stored.
    watermarks: BTreeMap<StreamId, DateTime<Utc>>,
    after: Vec<After>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<'a> Session<'a> {
    pub(crate) fn open(config: &'a WorkerConfig, shared: &'a Shared) -> Result<Self, StateError> {
        let now = shared.clock.now();
        let tenant = config.step.memory.tenant();
        let mut work = WorkList::default();
        let mut cursors = BTreeMap::new();
        let mut by_stream = BTreeMap::new();
        let mut restarted = Vec::new();
        let mut ledgers = crate::pipeline::ledger::read(&*shared.store)?;
        for connector in &config.connectors {
            for stream in connector.streams() {
                work.put(shared.store.work(&stream)?);
                let cursor = match shared.store.cursor(&stream)? {
                    Some(cursor) => cursor,
                    None => {
                        // After a rebuild of the store the mirror knows how far the stream was.
                        // What lies before the live line's first day is a job's (`job::keeper`).
                        let restart = shared.store.restart_from(&stream)?;
                        restarted.extend(restart.map(|from| (stream.clone(), from)));
                        // Begun by an earlier process that ended before it had listed anything.
                        let begun = ledgers.get(&stream).map(|known| known.checked_until);
                        let from = match restart.or(begun) {
                            Some(from) => from,
                            None => live_from(&*shared.store, &stream, config.first_run, now)?,
                        };
                        first_cursor(&**connector, &stream, from, now)
                    }
                };
                cursors.insert(stream.clone(), cursor);
                by_stream.insert(stream, connector.clone());
            }
        }
        recall_ended(&*shared.store, tenant, &shared.jobs.ended)?;
        ledgers.retain(|stream, _| by_stream.contains_key(stream));
        let rules = config.step.rules.subscribe();
        let ingest = Ingest::restore(
            config.step.clone(),
            shared.store.clone(),
            shared.committer.clone(),
            shared.watch.clone(),
        )?;
        let slots_of = |connector: &Arc<dyn Connector>| {
            Arc::new(Semaphore::new(connector.fetch_concurrency().max(1)))
        };
        Ok(Self {
            slots: config.connectors.iter().map(slots_of).collect(),
            config,
            shared,
            ingest,
            rules,
            work,
            cursors,
            by_stream,
            held: BTreeMap::new(),
            ledgers,
            gaps: None,
            restarted,
            messages: mpsc::channel(MESSAGES_MAX),
            tasks: TaskTracker::new(),
            cancel: shared.shutdown.child_token(),
            heartbeat_at: now,
            watermarks: BTreeMap::new(),
            after: Vec::new(),
        })
    }

    pub(crate) async fn run(&mut self) -> End {
        if let Err(end) = self.open_ledgers().await {
            return end;
        }
        self.start_listing();
        let mut tick = tokio::time::interval(self.shared.clock.real(TICK).max(MIN_TICK));
        let mut paused = self.shared.paused.clone();
        loop {
            self.start_fetches();
            let step = tokio::select! {
                () = self.shared.shutdown.cancelled() => return End::Shutdown,
                Some(message) = self.messages.1.recv() => self.take_all(message).await,
                _ = tick.tick() => self.tick().await,
                Ok(()) = self.rules.changed() => self.renew().await,
                changed = paused.changed() => {
                    if changed.is_err() { return End::Shutdown }
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// The tenant's rules are others from now on: what is staged is written, and what is remembered is
    /// read by them.
    async fn renew(&mut self) -> Result<(), End> {
        self.tick().await?;
        self.ingest.renew()?;
        Ok(())
    }

    fn start_listing(&mut self) {
        for (stream, connector) in &self.by_stream {
            let Some(cursor) = self.cursors.get(stream).cloned() else {
                continue;
            };
            let task = ListingTask {
                connector: connector.clone(),
                stream: stream.clone(),
                cursor,
                clock: self.shared.clock.clone(),
                messages: self.messages.0.clone(),
                shutdown: self.cancel.clone(),
            };
            self.watched(task.run());
        }
    }

    /// Runs a task of this session. One that panics ends the session, which is then rebuilt: a
    /// stream nobody lists, or an item nobody fetches, would be lost without a word.
    fn watched(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        let messages = self.messages.0.clone();
        self.tasks.spawn(async move {
            let running = tokio::spawn(async move { cancel.run_until_cancelled(task).await });
            if let Err(error) = running.await
                && messages
                    .send(Message::Panicked(error.to_string()))
                    .await
                    .is_err()
            {
                tracing::debug!("a task panicked after its session had ended");
            }
        });
    }

    fn start_fetches(&mut self) {
        let now = self.shared.clock.now();
        if self
            .shared
            .paused
            .borrow()
            .holds(self.config.step.memory.tenant())
        {
            return;
        }
        for (connector, slots) in self.config.connectors.iter().zip(&self.slots) {
            let streams = connector.streams();
            let most = connector.fetch_concurrency() * (1 + WAITING_PER_FETCH);
            while self.work.busy_of(&streams) < most {
                let may = |stream: &StreamId| {
                    streams.contains(stream)
                        && self.held.get(stream).is_none_or(|hold| hold.until <= now)
                };
                let Some(item) = self.work.take(now, may) else {
                    break;
                };
                let messages = self.messages.0.clone();
                let fetch = fetch(connector.clone(), item, messages, slots.clone());
                self.watched(fetch);
            }
        }
    }
}

fn first_cursor(
    connector: &dyn Connector,
    stream: &StreamId,
    from: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Cursor {
    let from = from.min(now - TimeDelta::seconds(1));
    match Window::new(from, now) {
        Some(window) => connector.first_cursor(stream, window),
        None => Cursor {
            covered_until: now,
            state: String::new(),
        },
    }
}

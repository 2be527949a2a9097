//! The worker of one tenant: the only writer of its streams. It takes what the listing and fetching
//! tasks bring, one thing at a time, and answers each only when it is committed.
//!
//! A tenant's trouble stays its own: a stream that is refused is held and tried slowly while the
//! others go on; a commit that fails ends the session, which is then rebuilt from the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{Connector, FetchError, Listing};
use exfilwatch_model::{Clock, Cursor, Gap, GapState, JobId, Page, StreamId, Window, WorkItem};
use exfilwatch_state::{
    Commit, DoneItem, Quarantined, SeenBudget, StateError, StateStore, Watermark,
};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pipeline::committer::{CommitError, Committer};
use crate::pipeline::heartbeat;
use crate::pipeline::ingest::{Ingest, IngestError};
use crate::pipeline::listing::{ListingTask, only_new};
use crate::pipeline::notice::Notice;
use crate::pipeline::step::StepConfig;
use crate::pipeline::watch::Watch;
use crate::pipeline::worklist::{ItemKey, WorkList, after_failure, key_of};

/// Messages waiting for the worker; tasks wait above it.
const MESSAGES_MAX: usize = 16;
/// How often watermarks are written and old things forgotten, by the run's clock.
const TICK: Duration = Duration::from_secs(30);
/// Wait before a session is rebuilt after the store failed.
const REBUILD_WAIT: Duration = Duration::from_secs(5);
/// How long a record may come after its time before windows stop waiting for it.
pub const LATENESS: TimeDelta = TimeDelta::hours(96);
/// Finished items that expire later than this are not listed again under the same key.
const DONE_KEPT_MAX: TimeDelta = TimeDelta::days(10);
/// How long those are remembered.
const DONE_KEPT: TimeDelta = TimeDelta::days(2);
/// Wait of a stream whose credentials or permission were refused.
const HOLD: TimeDelta = TimeDelta::minutes(15);

/// What a worker works with.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its tenant's connectors.
    pub connectors: Vec<Arc<dyn Connector>>,
    /// For the step.
    pub step: StepConfig,
    /// Time between two heartbeats of a stream.
    pub heartbeat: TimeDelta,
    /// How far the very first run reads back.
    pub first_run: TimeDelta,
}

/// What the tasks send to the worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// A listing came back; answered with the committed cursor.
    Listed {
        stream: StreamId,
        outcome: Result<Listing, FetchError>,
        reply: oneshot::Sender<Option<Cursor>>,
    },
    /// A page of an item; answered when it is committed.
    Page {
        item: ItemKey,
        page: Page,
        reply: oneshot::Sender<()>,
    },
    /// The fetch of an item is over.
    Ended {
        item: ItemKey,
        outcome: Result<(), FetchError>,
    },
}

/// Shared parts of the process.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Writes.
    pub committer: Committer,
    /// Reads.
    pub store: Arc<dyn StateStore>,
    /// Fingerprints the process may hold.
    pub seen_budget: Arc<SeenBudget>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What can be seen of us.
    pub watch: Watch,
    /// Whether fetching is paused by the outbox budget.
    pub paused: watch::Receiver<bool>,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

/// A stream that the vendor refuses.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// Not fetched before this instant.
    until: DateTime<Utc>,
    /// Found when fetching: then only a page shows that it works again, since some connectors list
    /// without asking the vendor.
    by_fetch: bool,
}

enum End {
    Shutdown,
    Rebuild(IngestError),
}

impl From<IngestError> for End {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Commit(CommitError::Stopped) => Self::Shutdown,
            other => Self::Rebuild(other),
        }
    }
}

impl From<StateError> for End {
    fn from(error: StateError) -> Self {
        Self::Rebuild(IngestError::Restore(error))
    }
}

/// Runs a tenant until shutdown. Rebuilds its session from the store when a commit failed.
pub async fn run_tenant(config: WorkerConfig, shared: Shared) {
    loop {
        let outcome = match Session::open(&config, &shared) {
            Ok(mut session) => session.run().await,
            Err(error) => End::from(error),
        };
        match outcome {
            End::Shutdown => return,
            End::Rebuild(error) => {
                tracing::error!(tenant = %config.step.memory.tenant(), %error, "the tenant starts again from the store");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(shared.clock.real(REBUILD_WAIT)) => {}
            () = shared.shutdown.cancelled() => return,
        }
    }
}

struct Session<'a> {
    config: &'a WorkerConfig,
    shared: &'a Shared,
    ingest: Ingest,
    work: WorkList,
    cursors: BTreeMap<StreamId, Cursor>,
    by_stream: BTreeMap<StreamId, Arc<dyn Connector>>,
    held: BTreeMap<StreamId, Hold>,
    messages: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    tasks: TaskTracker,
    cancel: CancellationToken,
    heartbeat_at: DateTime<Utc>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<'a> Session<'a> {
    fn open(config: &'a WorkerConfig, shared: &'a Shared) -> Result<Self, StateError> {
        let now = shared.clock.now();
        let mut work = WorkList::default();
        let mut cursors = BTreeMap::new();
        let mut by_stream = BTreeMap::new();
        for connector in &config.connectors {
            for stream in connector.streams() {
                work.put(shared.store.work(&stream)?);
                let cursor = match shared.store.cursor(&stream)? {
                    Some(cursor) => cursor,
                    None => {
                        // After a rebuild of the store the mirror knows how far the stream was.
                        let restart = shared.store.restart_from(&stream)?;
                        let from = restart.unwrap_or(now - config.first_run);
                        first_cursor(&**connector, &stream, from, now)
                    }
                };
                cursors.insert(stream.clone(), cursor);
                by_stream.insert(stream, connector.clone());
            }
        }
        let ingest = Ingest::restore(
            config.step.clone(),
            shared.store.clone(),
            shared.committer.clone(),
            shared.watch.clone(),
        )?;
        Ok(Self {
            config,
            shared,
            ingest,
            work,
            cursors,
            by_stream,
            held: BTreeMap::new(),
            messages: mpsc::channel(MESSAGES_MAX),
            tasks: TaskTracker::new(),
            cancel: shared.shutdown.child_token(),
            heartbeat_at: now,
        })
    }

    async fn run(&mut self) -> End {
        self.start_listing();
        let mut tick = tokio::time::interval(self.shared.clock.real(TICK).max(MIN_TICK));
        let mut paused = self.shared.paused.clone();
        loop {
            self.start_fetches();
            let step = tokio::select! {
                () = self.shared.shutdown.cancelled() => return End::Shutdown,
                Some(message) = self.messages.1.recv() => self.take(message).await,
                _ = tick.tick() => self.tick().await,
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
            self.tasks.spawn(task.run());
        }
    }

    fn start_fetches(&mut self) {
        let now = self.shared.clock.now();
        if *self.shared.paused.borrow() {
            return;
        }
        for connector in &self.config.connectors {
            let streams = connector.streams();
            while self.work.busy_of(&streams) < connector.fetch_concurrency() {
                let may = |stream: &StreamId| {
                    streams.contains(stream)
                        && self.held.get(stream).is_none_or(|hold| hold.until <= now)
                };
                let Some(item) = self.work.take(now, may) else {
                    break;
                };
                let fetch = fetch(connector.clone(), item, self.messages.0.clone());
                let cancel = self.cancel.clone();
                self.tasks
                    .spawn(async move { cancel.run_until_cancelled(fetch).await });
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Listed {
                stream,
                outcome: Ok(listing),
                reply,
            } => {
                let cursor = self.listed(&stream, listing).await?;
                answer(reply, Some(cursor));
            }
            Message::Listed {
                stream,
                outcome: Err(error),
                reply,
            } => {
                self.failed(&stream, &error, false).await?;
                answer(reply, self.cursors.get(&stream).cloned());
            }
            Message::Page { item, page, reply } => {
                self.page(&item, &page).await?;
                answer(reply, ());
            }
            Message::Ended { item, outcome } => self.ended(&item, outcome).await?,
        }
        Ok(())
    }

    async fn listed(&mut self, stream: &StreamId, listing: Listing) -> Result<Cursor, End> {
        let store = &self.shared.store;
        let work = &self.work;
        let items = only_new(listing.items, |item| {
            Ok::<_, StateError>(work.holds(&key_of(item)) || store.is_known(stream, &item.key)?)
        })?;
        let known = self.cursors.get(stream).cloned();
        let moved = known.as_ref() != Some(&listing.cursor);
        let mut with = Commit {
            work: items.clone(),
            ..Commit::default()
        };
        if moved {
            with.cursors.push((stream.clone(), listing.cursor.clone()));
        }
        let now = self.shared.clock.now();
        if moved || !with.work.is_empty() {
            self.ingest.tick(now, None, with).await?;
        }
        for gap in listing.gaps {
            tracing::error!(%stream, from = %gap.window.from(), until = %gap.window.until(), reason = %gap.reason, "gap");
            self.ingest
                .notice(&Notice::gap(gap), Commit::default())
                .await?;
        }
        self.work.put(items);
        self.cursors.insert(stream.clone(), listing.cursor.clone());
        if !self.held.get(stream).is_some_and(|hold| hold.by_fetch) {
            self.works_again(stream).await?;
        }
        self.shared
            .watch
            .stream(stream, |health| health.last_success = Some(now));
        self.show(stream);
        Ok(listing.cursor)
    }

    async fn page(&mut self, item: &ItemKey, page: &Page) -> Result<(), End> {
        let Some(connector) = self.by_stream.get(&page.stream) else {
            return Ok(());
        };
        let products = vec![connector.records().product(); page.records.len()];
        let with = if page.last {
            self.done(item)
        } else {
            Commit::default()
        };
        self.ingest.page(page, &products, with).await?;
        self.works_again(&page.stream).await?;
        if page.last {
            self.work.finish(item);
            self.show(&page.stream);
        }
        Ok(())
    }

    /// The vendor answers a held stream again.
    async fn works_again(&mut self, stream: &StreamId) -> Result<(), End> {
        if self.held.remove(stream).is_none() {
            return Ok(());
        }
        tracing::info!(%stream, "stream goes on");
        self.shared
            .watch
            .stream(stream, |health| health.held = None);
        let notice = Notice::recovered(stream, self.shared.clock.now());
        self.ingest.notice(&notice, Commit::default()).await?;
        Ok(())
    }

    /// The item as finished, remembered as long as the vendor may list it again.
    fn done(&self, key: &ItemKey) -> Commit {
        let now = self.shared.clock.now();
        let expires = self.work.item(key).and_then(|item| item.expires);
        let listed_until = expires.filter(|at| *at - now < DONE_KEPT_MAX);
        let forget_after = listed_until.map_or(now + DONE_KEPT, |at| at + TimeDelta::days(1));
        let done = DoneItem {
            stream: key.0.clone(),
            key: key.1.clone(),
            forget_after,
        };
        Commit {
            done: vec![done],
            ..Commit::default()
        }
    }

    async fn ended(&mut self, key: &ItemKey, outcome: Result<(), FetchError>) -> Result<(), End> {
        self.work.release(key);
        let Err(error) = outcome else { return Ok(()) };
        let now = self.shared.clock.now();
        let Some(item) = self.work.item(key).cloned() else {
            return Ok(());
        };
        match &error {
            FetchError::Gone { what } => self.give_up(&item, what, GapState::Lost, None).await,
            FetchError::Poison { what } => {
                let entry = Quarantined::new(
                    item.stream.clone(),
                    item.key.clone(),
                    what.clone(),
                    now,
                    item.body.clone().into(),
                );
                self.give_up(&item, what, GapState::Open, Some(entry)).await
            }
            FetchError::Throttled { after, .. } => {
                let wait = after
                    .and_then(|a| TimeDelta::from_std(a).ok())
                    .unwrap_or(TimeDelta::seconds(30));
                self.work.put([WorkItem {
                    next_try: Some(now + wait),
                    ..item
                }]);
                Ok(())
            }
            _ => {
                let tried = after_failure(&item, now, &error.to_string(), rand_share());
                let with = Commit {
                    work: vec![tried.clone()],
                    ..Commit::default()
                };
                self.ingest.tick(now, None, with).await?;
                self.work.put([tried]);
                self.failed(&item.stream, &error, true).await
            }
        }
    }

    /// The item cannot be had: the ledger says so, and the item is finished.
    async fn give_up(
        &mut self,
        item: &WorkItem,
        what: &str,
        state: GapState,
        quarantined: Option<Quarantined>,
    ) -> Result<(), End> {
        let key = key_of(item);
        let now = self.shared.clock.now();
        tracing::error!(stream = %item.stream, item = %item.key, reason = %what, "item given up");
        let until = item.from + TimeDelta::seconds(1);
        let mut with = self.done(&key);
        with.quarantined.extend(quarantined);
        if let Some(window) = Window::new(item.from, until) {
            let stream = item.stream.clone();
            let reason = format!("item {} of {stream} could not be fetched: {what}", item.key);
            let gap = Gap {
                stream,
                window,
                state,
                reason,
                found_at: now,
            };
            self.ingest.notice(&Notice::gap(gap), with).await?;
        }
        self.work.finish(&key);
        self.show(&item.stream);
        Ok(())
    }

    /// The vendor did not answer as hoped. Held streams are told of once.
    async fn failed(
        &mut self,
        stream: &StreamId,
        error: &FetchError,
        by_fetch: bool,
    ) -> Result<(), End> {
        let now = self.shared.clock.now();
        self.shared
            .watch
            .stream(stream, |health| health.failures += 1);
        let (FetchError::Auth { what, help }
        | FetchError::Permission { what, help }
        | FetchError::AuditingDisabled { what, help }) = error
        else {
            tracing::warn!(%stream, %error, "will be tried again");
            return Ok(());
        };
        let hold = Hold {
            until: now + HOLD,
            by_fetch,
        };
        let news = self.held.insert(stream.clone(), hold).is_none();
        self.shared.watch.stream(stream, |health| {
            health.held = Some(format!("{what}: {help}"))
        });
        if news {
            tracing::error!(%stream, %what, %help, "stream held");
            let notice = Notice::degraded(stream, now, what, help);
            self.ingest.notice(&notice, Commit::default()).await?;
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), End> {
        let now = self.shared.clock.now();
        for item in self.work.expired(now) {
            let what = "the vendor kept it until now and no longer";
            self.give_up(&item, what, GapState::Lost, None).await?;
        }
        let marks = self.low_waters();
        let with = Commit {
            watermarks: marks
                .iter()
                .map(|(stream, at)| Watermark {
                    job: JobId::live(),
                    stream: stream.clone(),
                    at: *at,
                })
                .collect(),
            ..Commit::default()
        };
        let held = &self.held;
        let least = marks
            .iter()
            .filter(|(s, _)| !held.contains_key(*s))
            .map(|(_, at)| *at)
            .min();
        self.ingest
            .tick(now, least.map(|at| at - LATENESS), with)
            .await?;
        for (stream, at) in &marks {
            self.shared
                .watch
                .stream(stream, |health| health.low_water = Some(*at));
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.config.heartbeat;
            self.shared.store.forget_done(now)?;
            for notice in heartbeat::of(
                &self.shared.watch.copy(),
                self.config.step.memory.tenant(),
                now,
            ) {
                self.ingest.notice(&notice, Commit::default()).await?;
            }
        }
        Ok(())
    }

    /// Per stream: everything before it is committed.
    fn low_waters(&self) -> BTreeMap<StreamId, DateTime<Utc>> {
        let low = |(stream, cursor): (&StreamId, &Cursor)| {
            let oldest = self.work.oldest(stream).unwrap_or(cursor.covered_until);
            (stream.clone(), oldest.min(cursor.covered_until))
        };
        self.cursors.iter().map(low).collect()
    }

    fn show(&self, stream: &StreamId) {
        let open = self.work.open_of(stream);
        self.shared
            .watch
            .stream(stream, |health| health.open_items = open);
    }
}

/// Shortest real time between ticks, for runs whose clock is fast.
const MIN_TICK: Duration = Duration::from_millis(50);

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

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("a task ended before it was answered");
    }
}

fn rand_share() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

/// Fetches one item and hands its pages to the worker, one at a time.
async fn fetch(connector: Arc<dyn Connector>, item: WorkItem, messages: mpsc::Sender<Message>) {
    let key = key_of(&item);
    let outcome = fetch_pages(&*connector, &item, &messages).await;
    if messages
        .send(Message::Ended { item: key, outcome })
        .await
        .is_err()
    {
        tracing::debug!("a fetch ended after its worker");
    }
}

async fn fetch_pages(
    connector: &dyn Connector,
    item: &WorkItem,
    messages: &mpsc::Sender<Message>,
) -> Result<(), FetchError> {
    let mut pages = connector.fetch(item).await?;
    let mut complete = false;
    while let Some(page) = pages.next().await {
        let page = page?;
        complete = page.last;
        let (reply, committed) = oneshot::channel();
        let message = Message::Page {
            item: key_of(item),
            page,
            reply,
        };
        if messages.send(message).await.is_err() || committed.await.is_err() {
            return Ok(());
        }
    }
    if complete {
        return Ok(());
    }
    let what = format!(
        "item {} of {} ended before its last page",
        item.key, item.stream
    );
    Err(FetchError::Retry { what, after: None })
}

//! A tenant's session: the only writer of its streams, from the store to the next failed commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{Connector, FetchError, Listing, Standing};
use exfilwatch_model::{Cursor, Gap, GapState, JobId, Page, StreamId, Window, WorkItem};
use exfilwatch_state::{
    Commit, DoneItem, JobState, Quarantined, StateError, StateStore, Watermark,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pipeline::committer::CommitError;
use crate::pipeline::fetch::{Listed, Message, Pass, fetch};
use crate::pipeline::heartbeat;
use crate::pipeline::ingest::{Ingest, IngestError};
use crate::pipeline::listing::{ListingTask, only_new};
use crate::pipeline::notice::Notice;
use crate::pipeline::watch::StreamHealth;
use crate::pipeline::worker::{Shared, WorkerConfig};
use crate::pipeline::worklist::{ItemKey, WorkList, after_failure, key_of};

/// Open items of a stream above which nothing more is listed.
const OPEN_ITEMS_MAX: usize = 5_000;
/// Open items of a stream above which no span is listed again.
const OPEN_ITEMS_AGAIN_MAX: usize = 20;
/// What an item may hold when it has no expiry of its own to tell (google: windows of an hour).
const WINDOW_SPAN: TimeDelta = TimeDelta::hours(1);
/// Messages waiting for the session; tasks wait above it. All that wait share one commit.
const MESSAGES_MAX: usize = 32;
/// How often watermarks are written and old things forgotten, by the run's clock.
const TICK: Duration = Duration::from_secs(30);
/// Shortest real time between ticks, for runs whose clock is fast.
const MIN_TICK: Duration = Duration::from_millis(500);
/// How long a record may come after its time before windows stop waiting for it.
const LATENESS: TimeDelta = TimeDelta::hours(96);
/// Finished items that expire later than this are not listed again under the same key.
const DONE_KEPT_MAX: TimeDelta = TimeDelta::days(10);
/// How long those are remembered.
const DONE_KEPT: TimeDelta = TimeDelta::days(2);
/// Wait of a stream whose credentials or permission were refused.
const HOLD: TimeDelta = TimeDelta::minutes(15);

/// What changes in memory once the commit is durable.
enum After {
    /// A listing: its new items, its cursor, and who waits for it.
    Listed {
        stream: StreamId,
        items: Vec<WorkItem>,
        cursor: Cursor,
        reply: oneshot::Sender<Listed>,
    },
    /// A page; with the item's last one the item is finished.
    Page {
        item: ItemKey,
        last: bool,
        reply: oneshot::Sender<()>,
    },
    /// An item that failed and waits.
    Tried(WorkItem),
    /// An item that was given up.
    Finished(ItemKey),
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
    held: BTreeMap<StreamId, Hold>,
    /// When the whole retention of a stream was last listed again.
    relisted: BTreeMap<StreamId, DateTime<Utc>>,
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
        let relisted = relisted(&*shared.store, by_stream.keys())?;
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
            relisted,
            messages: mpsc::channel(MESSAGES_MAX),
            tasks: TaskTracker::new(),
            cancel: shared.shutdown.child_token(),
            heartbeat_at: now,
            watermarks: BTreeMap::new(),
            after: Vec::new(),
        })
    }

    pub(crate) async fn run(&mut self) -> End {
        self.mark_first_listing().await;
        self.start_listing();
        let mut tick = tokio::time::interval(self.shared.clock.real(TICK).max(MIN_TICK));
        let mut paused = self.shared.paused.clone();
        loop {
            self.start_fetches();
            let step = tokio::select! {
                () = self.shared.shutdown.cancelled() => return End::Shutdown,
                Some(message) = self.messages.1.recv() => self.take_all(message).await,
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

    /// A stream that is new counts as listed whole now: its first listing is just that.
    async fn mark_first_listing(&mut self) {
        let now = self.shared.clock.now();
        let new = self
            .by_stream
            .keys()
            .filter(|stream| !self.relisted.contains_key(*stream));
        let jobs: Vec<JobState> = new
            .filter_map(|stream| relisted_mark(stream, now))
            .collect();
        if !jobs.is_empty() {
            self.shared
                .committer
                .ride_along(Commit {
                    jobs,
                    ..Commit::default()
                })
                .await;
        }
    }

    fn start_listing(&mut self) {
        for (stream, connector) in &self.by_stream {
            let relisted = self.relisted.get(stream).copied();
            let Some(cursor) = self.cursors.get(stream).cloned() else {
                continue;
            };
            let task = ListingTask {
                connector: connector.clone(),
                stream: stream.clone(),
                cursor,
                relisted: relisted.unwrap_or_else(|| self.shared.clock.now()),
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
                self.watched(fetch);
            }
        }
    }

    /// Takes a message and all that wait behind it, in one commit.
    async fn take_all(&mut self, first: Message) -> Result<(), End> {
        self.take(first)?;
        while self.after.len() < MESSAGES_MAX
            && let Ok(message) = self.messages.1.try_recv()
        {
            self.take(message)?;
        }
        self.ingest.flush(self.shared.clock.now()).await?;
        for after in std::mem::take(&mut self.after) {
            self.follow(after);
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Listed {
                stream,
                outcome: Ok(listing),
                pass,
                reply,
            } => {
                self.listed(stream, listing, pass, reply)?;
            }
            Message::Listed {
                stream,
                outcome: Err(error),
                reply,
                ..
            } => {
                self.failed(&stream, &error, false);
                let cursor = self.cursors.get(&stream).cloned();
                answer(
                    reply,
                    Listed {
                        cursor,
                        taken: false,
                    },
                );
            }
            Message::Page { item, page, reply } => self.page(item, &page, reply),
            Message::Panicked(why) => return Err(End::Rebuild(why)),
            Message::Ended { item, outcome } => self.ended(&item, outcome),
        }
        Ok(())
    }

    /// Memory follows the store: what was staged is durable now.
    fn follow(&mut self, after: After) {
        match after {
            After::Listed {
                stream,
                items,
                cursor,
                reply,
            } => {
                let listed = items.len() as u64;
                self.work.put(items);
                self.cursors.insert(stream.clone(), cursor.clone());
                let now = self.shared.clock.now();
                self.shared.watch.stream(&stream, |health| {
                    health.last_success = Some(now);
                    health.items_listed += listed;
                });
                self.show(&stream);
                answer(
                    reply,
                    Listed {
                        cursor: Some(cursor),
                        taken: true,
                    },
                );
            }
            After::Page { item, last, reply } => {
                if last {
                    self.work.finish(&item);
                    let fetched = |health: &mut StreamHealth| health.items_fetched += 1;
                    self.shared.watch.stream(&item.0, fetched);
                    self.show(&item.0);
                }
                answer(reply, ());
            }
            After::Tried(item) => self.work.put([item]),
            After::Finished(item) => {
                self.work.finish(&item);
                let lost = |health: &mut StreamHealth| health.items_lost += 1;
                self.shared.watch.stream(&item.0, lost);
                self.show(&item.0);
            }
        }
    }

    fn listed(
        &mut self,
        stream: StreamId,
        listing: Listing,
        pass: Pass,
        reply: oneshot::Sender<Listed>,
    ) -> Result<(), End> {
        if self.has_work_enough(&stream, pass) {
            let cursor = self.cursors.get(&stream).cloned();
            answer(
                reply,
                Listed {
                    cursor,
                    taken: false,
                },
            );
            return Ok(());
        }
        let store = &self.shared.store;
        let work = &self.work;
        let items = only_new(listing.items, |item| {
            Ok::<_, StateError>(work.holds(&key_of(item)) || store.is_known(&stream, &item.key)?)
        })?;
        let mut with = Commit {
            work: items.clone(),
            ..Commit::default()
        };
        let cursor = listing.cursor;
        if self.cursors.get(&stream) != Some(&cursor) {
            with.cursors.push((stream.clone(), cursor.clone()));
        }
        if pass == Pass::Whole {
            with.jobs
                .extend(relisted_mark(&stream, self.shared.clock.now()));
        }
        // A span that is lost is noted together with the cursor that passes it.
        for gap in listing.gaps {
            tracing::error!(
                %stream, from = %gap.window.from(), until = %gap.window.until(),
                reason = %gap.reason, "gap"
            );
            let notice = Notice::gap(gap);
            with.frames.push(notice.frame(stream.tenant()));
            with.gaps.extend(notice.gap);
        }
        self.ingest.stage_commit(with);
        self.stands(&stream, listing.standing);
        self.after.push(After::Listed {
            stream,
            items,
            cursor,
            reply,
        });
        Ok(())
    }

    /// Whether a listing is put off: fetching is paused or refused, or many items wait. A span that is
    /// listed again waits for a short list: what is still to be fetched will see what came late.
    fn has_work_enough(&self, stream: &StreamId, pass: Pass) -> bool {
        let open_max = if pass == Pass::New {
            OPEN_ITEMS_MAX
        } else {
            OPEN_ITEMS_AGAIN_MAX
        };
        *self.shared.paused.borrow()
            || self.held.get(stream).is_some_and(|hold| hold.by_fetch)
            || self.work.open_of(stream) >= open_max
    }

    fn page(&mut self, item: ItemKey, page: &Page, reply: oneshot::Sender<()>) {
        let Some(connector) = self.by_stream.get(&page.stream) else {
            return;
        };
        let products = vec![connector.records().product(); page.records.len()];
        let with = if page.last {
            self.done(&item)
        } else {
            Commit::default()
        };
        self.ingest.stage_page(page, &products, with);
        self.works_again(&page.stream);
        self.after.push(After::Page {
            item,
            last: page.last,
            reply,
        });
    }

    /// The vendor answers a held stream again.
    fn works_again(&mut self, stream: &StreamId) {
        if self.held.remove(stream).is_none() {
            return;
        }
        tracing::info!(%stream, "stream goes on");
        self.shared
            .watch
            .stream(stream, |health| health.held = None);
        self.ingest
            .stage_notice(&Notice::recovered(stream, self.shared.clock.now()));
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

    fn ended(&mut self, key: &ItemKey, outcome: Result<(), FetchError>) {
        self.work.release(key);
        let Err(error) = outcome else { return };
        let now = self.shared.clock.now();
        let Some(item) = self.work.item(key).cloned() else {
            return;
        };
        match &error {
            FetchError::Gone { what } => self.give_up(&item, what, GapState::Lost, None),
            FetchError::Poison { what } => {
                let (stream, key) = (item.stream.clone(), item.key.clone());
                let body = item.body.clone().into();
                let entry = Quarantined::new(stream, key, what.clone(), now, body);
                self.give_up(&item, what, GapState::Open, Some(entry));
            }
            FetchError::Throttled { after, .. } => {
                let asked = after.and_then(|after| TimeDelta::from_std(after).ok());
                let wait = asked.unwrap_or(TimeDelta::seconds(30));
                self.work.put([WorkItem {
                    next_try: Some(now + wait),
                    ..item
                }]);
            }
            _ => {
                let tried = after_failure(&item, now, &error.to_string(), rand_share());
                let with = Commit {
                    work: vec![tried.clone()],
                    ..Commit::default()
                };
                self.ingest.stage_commit(with);
                self.after.push(After::Tried(tried));
                self.failed(&item.stream, &error, true);
            }
        }
    }

    /// The item cannot be had: the ledger says so, and the item is finished.
    fn give_up(
        &mut self,
        item: &WorkItem,
        what: &str,
        state: GapState,
        quarantined: Option<Quarantined>,
    ) {
        let key = key_of(item);
        tracing::error!(stream = %item.stream, item = %item.key, reason = %what, "item given up");
        let mut with = self.done(&key);
        with.quarantined.extend(quarantined);
        let is_blob = item
            .expires
            .is_some_and(|at| at - item.from < DONE_KEPT_MAX);
        let span = if is_blob {
            TimeDelta::seconds(1)
        } else {
            WINDOW_SPAN
        };
        if let Some(window) = Window::new(item.from, item.from + span) {
            let stream = item.stream.clone();
            let reason = format!("item {} of {stream} could not be fetched: {what}", item.key);
            let found_at = self.shared.clock.now();
            let gap = Gap {
                stream,
                window,
                state,
                reason,
                found_at,
            };
            self.ingest.stage_notice(&Notice::gap(gap));
        }
        self.ingest.stage_commit(with);
        self.after.push(After::Finished(key));
    }

    /// The vendor did not answer as hoped. Held streams are told of once.
    fn failed(&mut self, stream: &StreamId, error: &FetchError, by_fetch: bool) {
        self.shared
            .watch
            .stream(stream, |health| health.failures += 1);
        let (FetchError::Auth { what, help }
        | FetchError::Permission { what, help }
        | FetchError::AuditingDisabled { what, help }
        | FetchError::Hold { what, help }) = error
        else {
            tracing::warn!(%stream, %error, "will be tried again");
            return;
        };
        self.hold(stream, (what, help), by_fetch);
    }

    /// What a listing said of its stream.
    fn stands(&mut self, stream: &StreamId, standing: Standing) {
        let waiting = match standing {
            Standing::Held { what, help } => return self.hold(stream, (&what, &help), false),
            Standing::Waiting { what } => Some(what),
            Standing::Flowing => None,
        };
        self.shared
            .watch
            .stream(stream, |health| health.waiting = waiting);
        if !self.held.get(stream).is_some_and(|hold| hold.by_fetch) {
            self.works_again(stream);
        }
    }

    /// Holds a stream; the operator is told once.
    fn hold(&mut self, stream: &StreamId, (what, help): (&str, &str), by_fetch: bool) {
        let now = self.shared.clock.now();
        let hold = Hold {
            until: now + HOLD,
            by_fetch,
        };
        let news = self.held.insert(stream.clone(), hold).is_none();
        self.shared.watch.stream(stream, |health| {
            health.held = Some(format!("{what}: {help}"));
            health.waiting = None;
        });
        if news {
            tracing::error!(%stream, %what, %help, "stream held");
            self.ingest
                .stage_notice(&Notice::degraded(stream, now, what, help));
        }
    }

    async fn tick(&mut self) -> Result<(), End> {
        let now = self.shared.clock.now();
        for item in self.work.expired(now) {
            let what = "the vendor kept it until now and no longer";
            self.give_up(&item, what, GapState::Lost, None);
        }
        let marks = self.low_waters();
        self.ingest.stage_commit(self.changed_watermarks(&marks));
        // A stream that is refused does not keep the others' windows open.
        let held = &self.held;
        let flowing = marks
            .iter()
            .filter(|(stream, _)| !held.contains_key(*stream));
        let least = flowing.map(|(_, at)| *at).min();
        self.ingest.stage_tick(now, least.map(|at| at - LATENESS));
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.config.heartbeat;
            self.shared.store.forget_done(now)?;
            let tenant = self.config.step.memory.tenant();
            for notice in heartbeat::of(&self.shared.watch.copy(), tenant, now) {
                self.ingest.stage_notice(&notice);
            }
        }
        self.ingest.flush(now).await?;
        for after in std::mem::take(&mut self.after) {
            self.follow(after);
        }
        for (stream, at) in &marks {
            self.shared
                .watch
                .stream(stream, |health| health.low_water = Some(*at));
        }
        self.watermarks = marks;
        let not_remembered = self.shared.seen_budget.not_remembered();
        let tenant = self.config.step.memory.tenant();
        self.shared
            .watch
            .memory(tenant, self.ingest.counters(), not_remembered);
        Ok(())
    }

    fn changed_watermarks(&self, marks: &BTreeMap<StreamId, DateTime<Utc>>) -> Commit {
        let changed = marks
            .iter()
            .filter(|(stream, at)| self.watermarks.get(stream) != Some(at));
        let watermarks = changed.map(|(stream, at)| Watermark {
            job: JobId::live(),
            stream: stream.clone(),
            at: *at,
        });
        Commit {
            watermarks: watermarks.collect(),
            ..Commit::default()
        }
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

/// The job under which it is kept when a stream's retention was last listed again.
fn relisted_job(stream: &StreamId) -> Option<JobId> {
    let (tenant, connector, name) = (stream.tenant(), stream.connector(), stream.name());
    JobId::new(&format!("relisted:{tenant}:{connector}:{name}")).ok()
}

fn relisted_mark(stream: &StreamId, at: DateTime<Utc>) -> Option<JobState> {
    Some(JobState {
        job: relisted_job(stream)?,
        state: at.to_rfc3339(),
        finished: false,
    })
}

fn relisted<'a>(
    store: &dyn StateStore,
    streams: impl Iterator<Item = &'a StreamId>,
) -> Result<BTreeMap<StreamId, DateTime<Utc>>, StateError> {
    let jobs = store.jobs()?;
    let time = |stream: &StreamId| {
        let job = relisted_job(stream)?;
        jobs.iter()
            .find(|state| state.job == job)?
            .state
            .parse()
            .ok()
    };
    Ok(streams
        .filter_map(|stream| Some((stream.clone(), time(stream)?)))
        .collect())
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("a task ended before it was answered");
    }
}

fn rand_share() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

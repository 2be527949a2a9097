//! What the vendor does not list any more, searched in its archive: slices of event time, several
//! searches at a time, each stored as soon as it is submitted, so that a restart goes on with it.
//! The rules of the seam stand at [`Archive`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::kernel::limit::as_job;
use exfilwatch_connectors::{Archive, ArchiveLimits, Connector, FetchError};
use exfilwatch_model::{GapState, StreamId, Window, WorkItem};
use exfilwatch_state::Commit;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::account::{SliceAccount, Source};
use super::calls::{interruptible, passes, pause_before_retry, wait_while_paused};
use super::items::{MESSAGES_MAX, panicked};
use super::reader::Reader;
use super::submissions::Submissions;
use super::{JobError, JobKind, common};
use crate::pipeline::fetch::{Message, bring};
use crate::pipeline::worker::Shared;
use crate::pipeline::worklist::key_of;

/// The feed lists by availability, the archive by event time: a span of the one is searched so much
/// wider in the other.
const WIDER: TimeDelta = TimeDelta::days(1);
/// How often a span may fail to be searched, or a search to be read, before it is a gap.
const TRIES_MAX: u32 = 5;
/// Longest wait before what is waited for is looked at again, by the run's clock.
const LOOK: Duration = Duration::from_secs(60);
/// Shortest such wait in real time.
const LOOK_MIN: Duration = Duration::from_millis(20);

/// How far a search is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Search {
    /// What is not cut into slices yet.
    rest: Option<Window>,
    /// Slices to be submitted, with the tries that failed.
    open: VecDeque<(Window, u32)>,
    /// Slices submitted and not read whole.
    running: Vec<Running>,
}

/// A search that was submitted. Of the item only what cannot be made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    key: String,
    body: String,
    from: DateTime<Utc>,
    expires: Option<DateTime<Utc>>,
    slice: Window,
    tries: u32,
}

impl Running {
    fn item(&self, stream: &StreamId) -> WorkItem {
        WorkItem {
            stream: stream.clone(),
            key: self.key.clone(),
            body: self.body.clone(),
            from: self.from,
            expires: self.expires,
            attempts: 0,
            next_try: None,
            last_error: None,
        }
    }
}

impl Search {
    fn of(span: Window) -> Self {
        Self {
            rest: Some(span),
            open: VecDeque::new(),
            running: Vec::new(),
        }
    }

    /// The next slice to submit.
    fn next(&mut self, slice: TimeDelta) -> Option<(Window, u32)> {
        if let Some(open) = self.open.pop_front() {
            return Some(open);
        }
        let rest = self.rest?;
        let until = rest.until().min(rest.from() + slice);
        self.rest = Window::new(until, rest.until());
        Some((Window::new(rest.from(), until)?, 0))
    }

    fn is_over(&self) -> bool {
        self.rest.is_none() && self.open.is_empty() && self.running.is_empty()
    }
}

/// The searches of a stream while they run.
struct Searching<'c> {
    connector: &'c Arc<dyn Connector>,
    limits: ArchiveLimits,
    submissions: Submissions,
    search: Search,
    /// Nothing is submitted before.
    not_before: DateTime<Utc>,
    accounts: BTreeMap<String, SliceAccount>,
    messages: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    tasks: JoinSet<()>,
}

impl Reader<'_> {
    /// Searches the archive for what the feed did not list any more.
    pub(super) async fn search(
        &mut self,
        connector: &Arc<dyn Connector>,
        stream: &StreamId,
    ) -> Result<(), JobError> {
        let Some(done) = self.streams.get(stream).filter(|done| !done.searched) else {
            return Ok(());
        };
        let wanted = self.stored.request.window;
        let Some(beyond) = done.beyond else {
            return Ok(());
        };
        // Only the widening is beyond: not worth searches that take hours.
        let Some(missing) = common(beyond, wanted) else {
            return Ok(());
        };
        let span = self.span_to_search(beyond).unwrap_or(missing);
        let state = done.beyond_state.unwrap_or(GapState::Open);
        let (known, why) = (done.search.clone(), done.beyond_reason.clone());
        let mut slice = SliceAccount::new(stream, span, Source::Archive);
        if state == GapState::Lost {
            // The vendor says itself that it keeps nothing of that.
            self.miss(&mut slice, missing, state, &why);
        } else {
            match connector.archive() {
                Err(none) => {
                    // Where a gap is filled, nobody else will come: without an archive it is lost.
                    let state = match self.stored.request.kind {
                        JobKind::GapFill => GapState::Lost,
                        _ => GapState::Open,
                    };
                    self.miss(&mut slice, missing, state, &format!("{why}; {none}"));
                }
                Ok(archive) => match may_search(self.shared, archive, stream).await? {
                    Some(refused) => {
                        self.miss(
                            &mut slice,
                            missing,
                            GapState::Open,
                            &format!("{why}; {refused}"),
                        );
                    }
                    None => {
                        let search = match known {
                            Some(known) => known,
                            None => self.divided(archive.limits(), span, &mut slice),
                        };
                        self.search_all(connector, search, &mut slice).await?;
                    }
                },
            }
        }
        if let Some(done) = self.streams.get_mut(stream) {
            done.searched = true;
            done.search = None;
        }
        if slice.gaps > 0 {
            self.reports.add_slices(1, 0);
            return self.slice_done(slice).await;
        }
        self.note(stream).await
    }

    /// What of the span that is not listed any more was wanted.
    fn span_to_search(&self, beyond: Window) -> Option<Window> {
        let wanted = self.stored.request.window;
        let wider = Window::new(wanted.from() - WIDER, wanted.until() + WIDER)?;
        let beyond = Window::new(beyond.from() - WIDER, beyond.until() + WIDER)?;
        match self.stored.request.kind {
            // A gap is measured in availability, both ends of it.
            JobKind::GapFill => common(beyond, wider),
            _ => common(beyond, Window::new(wanted.from(), wider.until())?),
        }
    }

    /// What of the span can be searched now; the rest is missed.
    fn divided(&mut self, limits: ArchiveLimits, span: Window, slice: &mut SliceAccount) -> Search {
        let parts = limits.divide(span, self.shared.clock.now());
        if let Some(lost) = parts.lost {
            let days = limits.reach.num_days();
            let why = format!("older than the {days} days that the archive keeps");
            self.miss(slice, lost, GapState::Lost, &why);
        }
        if let Some(later) = parts.later {
            let hours = limits.lag.num_hours();
            let why =
                format!("the archive is whole only after {hours} hours: to be searched later");
            self.miss(slice, later, GapState::Open, &why);
        }
        match parts.now {
            Some(now) => Search::of(now),
            None => Search {
                rest: None,
                open: VecDeque::new(),
                running: Vec::new(),
            },
        }
    }

    async fn search_all(
        &mut self,
        connector: &Arc<dyn Connector>,
        search: Search,
        whole: &mut SliceAccount,
    ) -> Result<(), JobError> {
        let Ok(archive) = connector.archive() else {
            return Ok(());
        };
        let key = archive.quota_key();
        let shutdown = self.shared.shutdown.clone();
        let _turn = interruptible(&shutdown, self.shared.jobs.turn(&key)).await?;
        let now = self.shared.clock.now();
        let mut searching = Searching {
            connector,
            limits: archive.limits(),
            submissions: Submissions::load(&*self.shared.store, &key, now)?,
            search,
            not_before: now,
            accounts: BTreeMap::new(),
            messages: mpsc::channel(MESSAGES_MAX),
            tasks: JoinSet::new(),
        };
        for running in searching.search.running.clone() {
            self.reports.add_slices(1, 0);
            searching.fetch(&running.item(&whole.stream), running.slice);
        }
        let look = self.shared.clock.real(LOOK).max(LOOK_MIN);
        loop {
            wait_while_paused(self.shared).await?;
            self.submit(archive, &mut searching, whole).await?;
            if searching.search.is_over() {
                return Ok(());
            }
            let next = tokio::time::timeout(look, searching.messages.1.recv());
            if let Ok(Some(message)) = interruptible(&shutdown, next).await? {
                self.take_search(message, &mut searching, whole).await?;
            }
            panicked(&mut searching.tasks)?;
        }
    }

    /// Submits as many searches as may run.
    async fn submit(
        &mut self,
        archive: &dyn Archive,
        searching: &mut Searching<'_>,
        whole: &mut SliceAccount,
    ) -> Result<(), JobError> {
        while searching.search.running.len() < searching.limits.parallel {
            let now = self.shared.clock.now();
            let wait = searching
                .submissions
                .wait(searching.limits.submissions_per_day, now);
            if let Some(wait) = wait {
                tracing::info!(stream = %whole.stream, minutes = wait.num_minutes(), "the day's searches are used up");
                searching.not_before = now + wait;
            }
            if now < searching.not_before {
                return Ok(());
            }
            let Some((slice, tries)) = searching.search.next(searching.limits.slice) else {
                return Ok(());
            };
            // Counted before it is submitted: a crash between counts one too many.
            let counted = searching.submissions.count(now);
            self.ingest.stage_commit(Commit {
                jobs: vec![counted],
                ..Commit::default()
            });
            self.flush(Vec::new()).await?;
            let asked = archive.search(&whole.stream, slice);
            match interruptible(&self.shared.shutdown, asked).await? {
                Ok(item) => {
                    self.reports.add_slices(1, 0);
                    searching.started(&item, slice, tries);
                    self.keep(&whole.stream, &searching.search).await?;
                    searching.fetch(&item, slice);
                }
                Err(error) if passes(&error) && tries < TRIES_MAX => {
                    searching.search.open.push_front((slice, tries + 1));
                    searching.not_before = now + pause_of(&error, tries);
                }
                Err(error) => {
                    let state = match error {
                        FetchError::Gone { .. } => GapState::Lost,
                        _ => GapState::Open,
                    };
                    self.miss(whole, slice, state, &in_words(&error));
                    self.keep(&whole.stream, &searching.search).await?;
                }
            }
        }
        Ok(())
    }

    async fn keep(&mut self, stream: &StreamId, search: &Search) -> Result<(), JobError> {
        if let Some(done) = self.streams.get_mut(stream) {
            done.search = Some(search.clone());
        }
        self.note(stream).await
    }

    async fn take_search(
        &mut self,
        message: Message,
        searching: &mut Searching<'_>,
        whole: &mut SliceAccount,
    ) -> Result<(), JobError> {
        match message {
            Message::Page { item, page, reply } => {
                if let Some(mut account) = searching.accounts.remove(&item.1) {
                    self.stage(&**searching.connector, &page, &mut account);
                    searching.accounts.insert(item.1, account);
                }
                self.flush(vec![reply]).await
            }
            Message::Ended { item, outcome } => {
                self.search_ended(&item.1, outcome, searching, whole).await
            }
            // Nothing of a job lists or watches by message.
            Message::Listed { .. } | Message::Panicked(_) => Ok(()),
        }
    }

    async fn search_ended(
        &mut self,
        key: &str,
        outcome: Result<(), FetchError>,
        searching: &mut Searching<'_>,
        whole: &mut SliceAccount,
    ) -> Result<(), JobError> {
        let running = &mut searching.search.running;
        let Some(at) = running.iter().position(|running| running.key == key) else {
            return Ok(());
        };
        let mut ended = running.remove(at);
        let account = searching.accounts.remove(key);
        let error = match outcome {
            Ok(()) => {
                let mut slice = account.unwrap_or_else(|| {
                    SliceAccount::new(&whole.stream, ended.slice, Source::Archive)
                });
                slice.items = 1;
                if let Some(done) = self.streams.get_mut(&whole.stream) {
                    done.search = Some(searching.search.clone());
                }
                return self.slice_done(slice).await;
            }
            Err(error) => error,
        };
        tracing::warn!(stream = %whole.stream, from = %ended.slice.from(), %error, "a search was not read");
        match &error {
            FetchError::Truncated { .. } => match searching.limits.halves(ended.slice) {
                Some(halves) => searching.search.open.extend(halves.map(|half| (half, 0))),
                None => self.miss(whole, ended.slice, GapState::Open, &in_words(&error)),
            },
            FetchError::Gone { .. } if ended.tries < TRIES_MAX => {
                searching
                    .search
                    .open
                    .push_back((ended.slice, ended.tries + 1));
            }
            error if passes(error) && ended.tries < TRIES_MAX => {
                // The search itself is fine: it is read again, after a while.
                ended.tries += 1;
                let pause = self
                    .shared
                    .clock
                    .real(pause_of(error, ended.tries).to_std().unwrap_or_default());
                searching.fetch_after(&ended.item(&whole.stream), ended.slice, pause);
                searching.search.running.push(ended);
            }
            error => self.miss(whole, ended.slice, GapState::Open, &in_words(error)),
        }
        self.keep(&whole.stream, &searching.search).await
    }
}

impl Searching<'_> {
    fn started(&mut self, item: &WorkItem, slice: Window, tries: u32) {
        self.search.running.push(Running {
            key: item.key.clone(),
            body: item.body.clone(),
            from: item.from,
            expires: item.expires,
            slice,
            tries,
        });
    }

    fn fetch(&mut self, item: &WorkItem, slice: Window) {
        self.fetch_after(item, slice, Duration::ZERO);
    }

    /// Reads a search in the background; it may take hours.
    fn fetch_after(&mut self, item: &WorkItem, slice: Window, pause: Duration) {
        let account = SliceAccount::new(&item.stream, slice, Source::Archive);
        self.accounts.insert(item.key.clone(), account);
        let (connector, item) = (self.connector.clone(), item.clone());
        let messages = self.messages.0.clone();
        self.tasks.spawn(as_job(async move {
            tokio::time::sleep(pause).await;
            let outcome = match connector.archive() {
                Ok(archive) => bring(archive.fetch(&item).await, &item, &messages, None).await,
                Err(none) => Err(FetchError::Poison {
                    what: none.to_string(),
                }),
            };
            let item = key_of(&item);
            if messages
                .send(Message::Ended { item, outcome })
                .await
                .is_err()
            {
                tracing::debug!("a search ended after its job");
            }
        }));
    }
}

/// Why the archive may not be searched, if so.
async fn may_search(
    shared: &Shared,
    archive: &dyn Archive,
    stream: &StreamId,
) -> Result<Option<String>, JobError> {
    let mut tries = 0;
    loop {
        match interruptible(&shared.shutdown, archive.check(stream)).await? {
            Ok(()) => return Ok(None),
            Err(error) if passes(&error) && tries < TRIES_MAX => {
                tries += 1;
                let pause = pause_before_retry(&error, tries, shared);
                interruptible(&shared.shutdown, pause).await?;
            }
            Err(error) => return Ok(Some(in_words(&error))),
        }
    }
}

fn pause_of(error: &FetchError, tries: u32) -> TimeDelta {
    let asked = match error {
        FetchError::Retry { after, .. } | FetchError::Throttled { after, .. } => *after,
        _ => None,
    };
    let asked = asked.and_then(|asked| TimeDelta::from_std(asked).ok());
    asked.unwrap_or(TimeDelta::seconds(30) * 2_i32.pow(tries.min(6)))
}

/// With what to do, where that is known.
fn in_words(error: &FetchError) -> String {
    match error {
        FetchError::Auth { what, help }
        | FetchError::Permission { what, help }
        | FetchError::AuditingDisabled { what, help }
        | FetchError::Hold { what, help } => format!("{what}: {help}"),
        other => other.to_string(),
    }
}

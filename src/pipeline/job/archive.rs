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
    /// What is to be submitted next.
    open: VecDeque<Piece>,
    /// Slices submitted and not read whole.
    running: Vec<Running>,
}

/// What is to be searched. Kept short: a job's searches are one value of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Piece {
    slice: Window,
    /// Tries that failed.
    #[serde(default, skip_serializing_if = "is_nought")]
    tries: u32,
    /// To be searched one after the other; all at once where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_nought(number: &u32) -> bool {
    *number == 0
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<String>,
}

impl Running {
    /// To be searched again.
    fn again(&self) -> Piece {
        Piece {
            slice: self.slice,
            tries: self.tries + 1,
            parts: self.part.iter().cloned().collect(),
        }
    }

    /// What is searched in its place when its answer was cut; nothing where it cannot be divided.
    fn divided(&self, limits: &ArchiveLimits, parts: Vec<String>) -> Vec<Piece> {
        let piece = |slice, parts| Piece {
            slice,
            tries: 0,
            parts,
        };
        match (&self.part, limits.halves(self.slice)) {
            (Some(_), _) => Vec::new(),
            (None, Some(halves)) => halves.map(|half| piece(half, Vec::new())).to_vec(),
            (None, None) if parts.is_empty() => Vec::new(),
            (None, None) => vec![piece(self.slice, parts)],
        }
    }

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

    /// The next piece to submit, of one part at most.
    fn next(&mut self, slice: TimeDelta) -> Option<Piece> {
        if let Some(mut open) = self.open.pop_front() {
            if open.parts.len() > 1 {
                let parts = open.parts.split_off(1);
                self.open.push_front(Piece {
                    parts,
                    ..open.clone()
                });
            }
            return Some(open);
        }
        let rest = self.rest?;
        let until = rest.until().min(rest.from() + slice);
        self.rest = Window::new(until, rest.until());
        Some(Piece {
            slice: Window::new(rest.from(), until)?,
            tries: 0,
            parts: Vec::new(),
        })
    }

    /// What takes the place of a search that was cut goes first: so what waits stays short.
    fn instead(&mut self, pieces: Vec<Piece>) {
        for piece in pieces.into_iter().rev() {
            self.open.push_front(piece);
        }
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
            wait_while_paused(self.shared, whole.stream.tenant()).await?;
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
            let Some(piece) = searching.search.next(searching.limits.slice) else {
                return Ok(());
            };
            // Counted before it is submitted: a crash between counts one too many.
            let counted = searching.submissions.count(now);
            self.ingest.stage_commit(Commit {
                jobs: vec![counted],
                ..Commit::default()
            });
            self.flush(Vec::new()).await?;
            let part = piece.parts.first().map(String::as_str);
            let asked = archive.search_part(&whole.stream, piece.slice, part);
            match interruptible(&self.shared.shutdown, asked).await? {
                Ok(item) => {
                    self.reports.add_slices(1, 0);
                    let slice = piece.slice;
                    searching.started(&item, piece);
                    self.keep(&whole.stream, &searching.search).await?;
                    searching.fetch(&item, slice);
                }
                Err(error) if passes(&error) && piece.tries < TRIES_MAX => {
                    searching.not_before = now + pause_of(&error, piece.tries);
                    let tries = piece.tries + 1;
                    searching.search.open.push_front(Piece { tries, ..piece });
                }
                Err(error) => {
                    let state = match error {
                        FetchError::Gone { .. } => GapState::Lost,
                        _ => GapState::Open,
                    };
                    self.miss(whole, piece.slice, state, &in_words(&error));
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
            FetchError::Truncated { .. } => {
                let archive = searching.connector.archive();
                let parts = archive.map(|archive| archive.parts(&whole.stream));
                let pieces = ended.divided(&searching.limits, parts.unwrap_or_default());
                if pieces.is_empty() {
                    self.miss(whole, ended.slice, GapState::Open, &in_words(&error));
                }
                searching.search.instead(pieces);
            }
            FetchError::Gone { .. } if ended.tries < TRIES_MAX => {
                searching.search.open.push_back(ended.again());
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
    fn started(&mut self, item: &WorkItem, piece: Piece) {
        self.search.running.push(Running {
            key: item.key.clone(),
            body: item.body.clone(),
            from: item.from,
            expires: item.expires,
            slice: piece.slice,
            tries: piece.tries,
            part: piece.parts.into_iter().next(),
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ArchiveLimits = ArchiveLimits {
        reach: TimeDelta::days(180),
        lag: TimeDelta::days(1),
        slice: TimeDelta::days(1),
        slice_shortest: TimeDelta::minutes(15),
        submissions_per_day: 150,
        parallel: 5,
    };

    /// Every answer is cut: what is searched in the end, and the longest the stored value grew.
    fn all_cut(parts: &[&str]) -> (Vec<(Window, Option<String>)>, usize) {
        let day = Window::new(
            DateTime::UNIX_EPOCH,
            DateTime::UNIX_EPOCH + TimeDelta::days(1),
        );
        let mut search = Search::of(day.unwrap());
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let (mut ends, mut longest) = (Vec::new(), 0);
        while let Some(piece) = search.next(LIMITS.slice) {
            assert!(piece.parts.len() <= 1);
            let running = Running {
                key: String::new(),
                body: String::new(),
                from: piece.slice.from(),
                expires: None,
                slice: piece.slice,
                tries: piece.tries,
                part: piece.parts.into_iter().next(),
            };
            let pieces = running.divided(&LIMITS, parts.clone());
            if pieces.is_empty() {
                ends.push((running.slice, running.part));
            }
            search.instead(pieces);
            longest = longest.max(serde_json::to_string(&search).unwrap().len());
        }
        (ends, longest)
    }

    #[test]
    fn what_stays_cut_at_the_shortest_slice_is_searched_part_by_part() {
        let (ends, _) = all_cut(&[]);
        assert_eq!(ends.len(), 64, "a day in pieces of 22 minutes");
        let (ends, longest) = all_cut(&["mail", "items", "groups"]);
        assert_eq!(ends.len(), 3 * 64);
        let parts: Vec<_> = ends[..3].iter().map(|(_, part)| part.as_deref()).collect();
        assert_eq!(parts, [Some("mail"), Some("items"), Some("groups")]);
        assert!(ends[..3].iter().all(|(slice, _)| *slice == ends[0].0));
        assert!(longest < 2 << 10, "{longest} bytes");
    }
}

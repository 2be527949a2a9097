//! The one thread that owns the state: it gathers what the workers and lanes want written, writes
//! it as one group, and answers. Nothing counts before its answer.
//!
//! A group commit appends the frames, syncs once, applies one batch, syncs once: so many tenants
//! share two syncs. Marks of lanes ride along and are not waited for. The thread also keeps the
//! outbox within its budget ([`super::pause`]).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use exfilwatch_model::Clock;
use exfilwatch_state::{Commit, LaneId, OutboxUsage, Position, State, StateError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::pipeline::pause::{self, LaneTenants, Paused};
use crate::pipeline::watch::Watch;

/// Most commits in one group.
const GROUP_COMMITS_MAX: usize = 64;
/// Most commits waiting for the thread; senders wait above it.
const QUEUE_MAX: usize = 256;
/// How often the outbox is measured, trimmed and held against its budget, if little comes.
const HOUSEKEEPING_EVERY: Duration = Duration::from_millis(500);

/// What a commit's sender is told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The store refused or failed: memory must be rebuilt from it.
    #[error("the state could not be written: {}", chain(&**.0))]
    Store(Arc<StateError>),
    /// The committer has stopped: the process is shutting down.
    #[error("the committer has stopped")]
    Stopped,
}

type Reply = oneshot::Sender<Result<Position, CommitError>>;

#[derive(Debug)]
enum Request {
    Commit {
        commit: Box<Commit>,
        reply: Option<Reply>,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// What the outbox may hold, and whose items each lane takes.
#[derive(Debug)]
pub struct Budget {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Of each lane.
    pub tenants: Vec<LaneTenants>,
}

/// The senders' side of the committer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
    end: watch::Receiver<Position>,
}

impl Committer {
    /// Starts the thread, which ends at [`Committer::stop`] or when all senders are gone. A state
    /// that cannot go on (an earlier commit failed half way) cancels `shutdown`: the process must
    /// open it anew. The second value tells for whom fetching is paused.
    pub fn start(
        mut state: State,
        clock: Arc<dyn Clock>,
        budget: Budget,
        watch_: Watch,
        shutdown: CancellationToken,
    ) -> Result<(Self, watch::Receiver<Paused>, JoinHandle<State>), StateError> {
        let (requests, receiver) = mpsc::channel(QUEUE_MAX);
        let (publish, end) = watch::channel(state.outbox_end());
        let (pause, paused) = watch::channel(Paused::default());
        for of in &budget.tenants {
            state.lane_wants(of.lane.clone(), of.filter());
        }
        state.limit_segments(pause::segment_bytes_max(budget.bytes));
        let folder = state.folder().to_owned();
        let thread = Thread {
            state,
            clock,
            publish,
            pause,
            budget,
            watch: watch_,
            shutdown,
            kept_house: Instant::now(),
            appended: 0,
        };
        let handle = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || thread.run(receiver))
            .map_err(|source| StateError::Io {
                action: "starting the committer's thread for",
                path: folder,
                source,
            })?;
        Ok((Self { requests, end }, paused, handle))
    }

    /// Writes the commit and waits until it is durable.
    pub async fn commit(&self, commit: Commit) -> Result<Position, CommitError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Commit {
            commit: Box::new(commit),
            reply: Some(reply),
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| CommitError::Stopped)?;
        answer.await.map_err(|_| CommitError::Stopped)?
    }

    /// Lets the commit ride along with the next group, for what may be lost without harm (marks
    /// of lanes: an older one only means that something is sent again).
    pub async fn ride_along(&self, commit: Commit) {
        let request = Request::Commit {
            commit: Box::new(commit),
            reply: None,
        };
        if self.requests.send(request).await.is_err() {
            tracing::debug!("a mark came after the committer had stopped");
        }
    }

    /// The published end of the outbox, and notice of each new one.
    pub fn end(&self) -> watch::Receiver<Position> {
        self.end.clone()
    }

    /// Writes what is waiting, then ends the thread.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Stop { reply }).await.is_ok() && answer.await.is_err() {
            tracing::warn!("the committer ended without an answer");
        }
    }
}

struct Thread {
    state: State,
    clock: Arc<dyn Clock>,
    publish: watch::Sender<Position>,
    pause: watch::Sender<Paused>,
    budget: Budget,
    watch: Watch,
    shutdown: CancellationToken,
    kept_house: Instant,
    /// Bytes appended since then.
    appended: u64,
}

impl Thread {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) -> State {
        let _alarm = Alarm {
            watch: self.watch.clone(),
            shutdown: self.shutdown.clone(),
        };
        let mut stopping = None;
        while stopping.is_none() {
            let Some(first) = requests.blocking_recv() else {
                break;
            };
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Commit { commit, reply } => group.push((*commit, reply)),
                    Request::Stop { reply } => stopping = Some(reply),
                }
                let full = group.len() >= GROUP_COMMITS_MAX;
                next = if full { None } else { requests.try_recv().ok() };
            }
            self.write(group);
            self.keep_house(stopping.is_some());
        }
        if let Some(reply) = stopping
            && reply.send(()).is_err()
        {
            tracing::debug!("nobody waited for the committer's end");
        }
        self.state
    }

    fn write(&mut self, group: Vec<(Commit, Option<Reply>)>) {
        if group.is_empty() {
            return;
        }
        let (commits, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let alone = (commits.len() > 1).then(|| commits.clone());
        match (self.commit(commits), alone) {
            (Ok(end), _) => answer_all(replies, &Ok(end)),
            // One tenant's commit that cannot be written must not stop the others'.
            (Err(_), Some(commits)) if !self.shutdown.is_cancelled() => {
                for (commit, reply) in commits.into_iter().zip(replies) {
                    let outcome = self.commit(vec![commit]);
                    answer(reply, outcome);
                }
            }
            (Err(error), _) => {
                answer_all(replies, &Err(error));
            }
        }
    }

    fn commit(&mut self, commits: Vec<Commit>) -> Result<Position, CommitError> {
        match self.state.commit_group(commits) {
            Ok(committed) => {
                self.appended += committed.outbox_bytes;
                self.publish.send_replace(committed.end);
                Ok(committed.end)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: StateError) -> CommitError {
        tracing::error!(error = %chain(&error), "a commit failed; nothing of it counts");
        if matches!(error, StateError::Halted { .. }) {
            tracing::error!("the state must be opened anew: this process stops, start it again");
            self.watch.set_fatal(chain(&error));
            self.shutdown.cancel();
        }
        CommitError::Store(Arc::new(error))
    }

    /// Mirror, trimming and budget, now and then.
    fn keep_house(&mut self, at_end: bool) {
        let now = self.clock.now();
        let mirrored = if at_end {
            self.state.write_mirror(now)
        } else {
            self.state.write_mirror_when_due(now).map(|_| ())
        };
        if let Err(error) = mirrored {
            tracing::warn!(error = %chain(&error), "the mirror was not written; the older one stays");
        }
        let much = self.appended >= pause::segment_bytes_max(self.budget.bytes);
        let due = much || self.kept_house.elapsed() >= HOUSEKEEPING_EVERY;
        if !at_end && !due && !self.pause.borrow().any() {
            return;
        }
        self.kept_house = Instant::now();
        self.appended = 0;
        if let Err(error) = self.state.trim_outbox() {
            tracing::warn!(error = %chain(&error), "old segments could not be removed");
        }
        match self.state.outbox_usage() {
            Ok(usage) => {
                self.watch.lanes_behind(&usage.lanes);
                self.know_parted(&usage);
                self.hold_to_budget(&usage);
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the outbox could not be measured");
            }
        }
    }

    /// Lanes that were parted for one tenant are made while it runs.
    fn know_parted(&mut self, usage: &OutboxUsage) {
        for (lane, _) in &usage.lanes {
            if let Some(of) = LaneTenants::of_parted(lane) {
                self.state.lane_wants(of.lane.clone(), of.filter());
            }
        }
    }

    fn hold_to_budget(&self, usage: &OutboxUsage) {
        let before = self.pause.borrow().clone();
        let pause = before.decide(usage, self.budget.bytes, &self.budget.tenants);
        if pause.is(&before) {
            return;
        }
        let lanes: Vec<String> = pause.lanes().map(name).collect();
        if pause.any() {
            tracing::error!(
                bytes = usage.bytes,
                budget_bytes = self.budget.bytes,
                ?lanes,
                everybody = pause.holds_everybody(),
                "fetching is paused for the tenants of lanes whose receiver does not keep up"
            );
        } else {
            tracing::info!(bytes = usage.bytes, "fetching goes on");
        }
        self.watch.set_paused(pause.any());
        self.pause.send_replace(pause);
    }
}

fn name(lane: &LaneId) -> String {
    format!("{}/{}/{}", lane.emitter, lane.route, lane.kind.as_str())
}

fn answer(reply: Option<Reply>, outcome: Result<Position, CommitError>) {
    if let Some(reply) = reply
        && reply.send(outcome).is_err()
    {
        tracing::debug!("a worker went away before its commit was answered");
    }
}

fn answer_all(replies: Vec<Option<Reply>>, outcome: &Result<Position, CommitError>) {
    for reply in replies {
        answer(reply, outcome.clone());
    }
}

/// Stops the process when the thread ends by a panic: nobody else can write.
struct Alarm {
    watch: Watch,
    shutdown: CancellationToken,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.watch
                .set_fatal("the committer's thread panicked".to_owned());
            self.shutdown.cancel();
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Some errors say their cause themselves.
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

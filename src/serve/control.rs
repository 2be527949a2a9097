//! The control socket: how commands ask a running process for what only it can say, since it alone
//! may open the store. A Unix socket in the state folder, mode 0600; a request is one line of JSON,
//! the answer one line, or for a job several of which the last has `end`.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use exfilwatch_model::{Clock, TenantId};
use exfilwatch_state::StateStore;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::pipeline::again::{self, Ask};
use crate::pipeline::committer::{Committer, chain};
use crate::pipeline::inventory;
use crate::pipeline::job::plan::Plan;
use crate::pipeline::job::{JobRequest, Progress};
use crate::pipeline::ledger;
use crate::pipeline::reconcile::{ReconcileRequest, Told};
use crate::pipeline::report::Report;
use crate::pipeline::sightings;
use crate::pipeline::verdicts::{self, Close};
use crate::pipeline::watch::Watch;

/// Name of the socket in the state folder.
const SOCKET: &str = "control.sock";
/// Longest request, in bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Longest answer line, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Callers served at the same time.
const CALLERS_MAX: usize = 16;
/// Wait before calls are taken again where one could not be.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
const SHUTTING_DOWN: &str = "the process is shutting down";
/// How long a caller waits for an answer to a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The status report.
    Status,
    /// Every interval of the ledger.
    Gaps,
    /// Takes note of a gap that cannot be filled.
    Acknowledge {
        /// Id of the gap, or its first digits.
        id: String,
        /// What is said of it.
        reason: String,
    },
    /// The findings that are remembered or closed.
    Findings,
    /// Says how a finding turned out.
    Close(Close),
    /// What receivers refused and what could not be read, and what is to become of it.
    Dlq(Ask),
    /// How noisy each detection is, for one tenant or for all.
    Noise(Option<TenantId>),
    /// When each operation of a tenant was last seen.
    Sightings(TenantId),
    /// How things stand.
    Inventory(inventory::Asked),
    /// Lists everything again and fetches what is missing; answers with its progress, and last with the
    /// accounts.
    Reconcile(ReconcileRequest),
    /// Says what a job would take.
    Plan(JobRequest),
    /// Runs a job and reports its progress.
    Backfill(JobRequest),
}

/// What the answers are made from.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The pipeline.
    pub watch: Watch,
    /// Writes.
    pub committer: Committer,
    /// The store, for reading.
    pub store: Arc<dyn StateStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Tells lanes that something in quarantine is to be sent again.
    pub again: watch::Sender<()>,
    /// Where jobs are handed in.
    pub jobs: mpsc::Sender<AboutJob>,
}

/// What is asked about a job.
#[derive(Debug)]
pub enum AboutJob {
    /// To plan it; where the plans are to go.
    Plan(JobRequest, oneshot::Sender<Vec<Plan>>),
    /// To run it; where its progress is to go.
    Run(JobRequest, mpsc::Sender<Progress>),
    /// To reconcile; where what is said of it is to go.
    Reconcile(ReconcileRequest, mpsc::Sender<Told>),
}

/// The socket file, removed when dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was gone already");
        }
    }
}

/// Binds the socket. A file left by a killed process is replaced: the lock of the store says that
/// nobody else is there.
pub fn bind(state_folder: &Path) -> io::Result<Socket> {
    let path = state_folder.join(SOCKET);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Socket { listener, path })
}

/// Answers until shutdown.
pub async fn serve(socket: Socket, answers: Answers, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket could not take a call");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let answers = answers.clone();
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let answered = shutdown.run_until_cancelled(answer(stream, &answers)).await;
            if let Some(Err(error)) = answered {
                tracing::debug!(%error, "a caller of the control socket went away");
            }
            drop(place);
        });
    }
}

async fn answer(stream: UnixStream, answers: &Answers) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    match serde_json::from_str::<Request>(&line) {
        Ok(Request::Status) => {
            let report = Report::live(&answers.watch.copy(), &*answers.store, answers.clock.now());
            write_line(&mut write, &or_error(report)).await
        }
        Ok(Request::Gaps) => {
            let intervals = ledger::all_intervals(&*answers.store, answers.clock.now());
            write_line(&mut write, &or_error(intervals)).await
        }
        Ok(Request::Acknowledge { id, reason }) => {
            let answer = acknowledge(answers, &id, &reason).await;
            write_line(&mut write, &answer).await
        }
        Ok(Request::Findings) => {
            let listing = verdicts::list(&*answers.store, answers.clock.now());
            write_line(&mut write, &or_error(listing)).await
        }
        Ok(Request::Close(request)) => {
            let answer = close(answers, &request).await;
            write_line(&mut write, &answer).await
        }
        Ok(Request::Dlq(ask)) => {
            let answer = dlq(answers, &ask).await;
            write_line(&mut write, &answer).await
        }
        Ok(Request::Noise(tenant)) => {
            let now = answers.clock.now();
            let noise = verdicts::noise(&*answers.store, tenant.as_ref(), now);
            write_line(&mut write, &or_error(noise)).await
        }
        Ok(Request::Sightings(tenant)) => {
            let listed = sightings::list(&*answers.store, &tenant);
            write_line(&mut write, &or_error(listed)).await
        }
        Ok(Request::Inventory(asked)) => {
            let listing = inventory::list(&*answers.store, &asked);
            write_line(&mut write, &or_error(listing)).await
        }
        Ok(Request::Reconcile(request)) => {
            run_job(&mut write, answers, |told| {
                AboutJob::Reconcile(request, told)
            })
            .await
        }
        // The others are this process's own business.
        Ok(Request::Backfill(request)) if !request.kind.can_be_asked_for() => {
            write_line(
                &mut write,
                &json!({ "error": "no such job can be asked for" }),
            )
            .await
        }
        Ok(Request::Plan(request) | Request::Backfill(request)) if request.refusal().is_some() => {
            write_line(&mut write, &json!({ "error": request.refusal() })).await
        }
        Ok(Request::Plan(request)) => plan_job(&mut write, answers, request).await,
        Ok(Request::Backfill(request)) => {
            run_job(&mut write, answers, |progress| {
                AboutJob::Run(request, progress)
            })
            .await
        }
        Err(error) => write_line(&mut write, &json!({ "error": error.to_string() })).await,
    }
}

/// The gap as it is now, or why not.
async fn acknowledge(answers: &Answers, id: &str, reason: &str) -> Value {
    let known = match answers.store.gaps() {
        Ok(known) => known,
        Err(error) => return json!({ "error": chain(&error) }),
    };
    let now = answers.clock.now();
    let gap = match ledger::acknowledge(&known, id, reason, now) {
        Ok(gap) => gap,
        Err(why) => return json!({ "ok": { "Err": why } }),
    };
    match answers
        .committer
        .commit(ledger::acknowledged(&gap, now))
        .await
    {
        Ok(_) => json!({ "ok": { "Ok": gap } }),
        Err(error) => json!({ "error": chain(&error) }),
    }
}

/// The entries concerned, or why not.
async fn dlq(answers: &Answers, ask: &Ask) -> Value {
    let (entries, commit) = match again::answer(&*answers.store, ask, answers.clock.now()) {
        Ok(Ok(decided)) => decided,
        Ok(Err(why)) => return json!({ "ok": { "Err": why } }),
        Err(error) => return json!({ "error": chain(&error) }),
    };
    if commit != exfilwatch_state::Commit::default()
        && let Err(error) = answers.committer.commit(commit).await
    {
        return json!({ "error": chain(&error) });
    }
    answers.again.send_replace(());
    json!({ "ok": { "Ok": entries } })
}

/// The verdict as it is now, or why not.
async fn close(answers: &Answers, request: &Close) -> Value {
    let (verdict, commit) = match verdicts::close(&*answers.store, request, answers.clock.now()) {
        Ok(Ok(closed)) => closed,
        Ok(Err(why)) => return json!({ "ok": { "Err": why } }),
        Err(error) => return json!({ "error": chain(&error) }),
    };
    match answers.committer.commit(commit).await {
        Ok(_) => json!({ "ok": { "Ok": verdict } }),
        Err(error) => json!({ "error": chain(&error) }),
    }
}

async fn plan_job(
    write: &mut (impl AsyncWriteExt + Unpin),
    answers: &Answers,
    request: JobRequest,
) -> io::Result<()> {
    let (reply, plans) = oneshot::channel();
    let asked = answers.jobs.send(AboutJob::Plan(request, reply)).await;
    let answer = match (asked, plans.await) {
        (Ok(()), Ok(plans)) => json!({ "ok": plans }),
        _ => json!({ "error": SHUTTING_DOWN }),
    };
    write_line(write, &answer).await
}

async fn run_job<T: Serialize>(
    write: &mut (impl AsyncWriteExt + Unpin),
    answers: &Answers,
    job: impl FnOnce(mpsc::Sender<T>) -> AboutJob,
) -> io::Result<()> {
    let (progress, mut reports) = mpsc::channel(16);
    if answers.jobs.send(job(progress)).await.is_err() {
        return write_line(write, &json!({ "error": SHUTTING_DOWN })).await;
    }
    while let Some(report) = reports.recv().await {
        write_line(write, &json!({ "ok": report })).await?;
    }
    Ok(())
}

fn or_error<T: Serialize>(outcome: Result<T, exfilwatch_state::StateError>) -> Value {
    match outcome {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": chain(&error) }),
    }
}

async fn write_line(write: &mut (impl AsyncWriteExt + Unpin), value: &Value) -> io::Result<()> {
    write.write_all(format!("{value}\n").as_bytes()).await
}

/// A caller's side: a running process, if one answers.
#[derive(Debug)]
pub struct Caller {
    lines: tokio::io::Lines<BufReader<tokio::io::Take<UnixStream>>>,
}

impl Caller {
    /// Connects and asks. `None` when no process listens.
    pub async fn ask(state_folder: &Path, request: &Request) -> io::Result<Option<Self>> {
        let mut stream = match UnixStream::connect(state_folder.join(SOCKET)).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let line = serde_json::to_string(request)? + "\n";
        stream.write_all(line.as_bytes()).await?;
        Ok(Some(Self {
            lines: BufReader::new(stream.take(ANSWER_BYTES_MAX)).lines(),
        }))
    }

    /// The next answer, `None` after the last.
    pub async fn next<T: for<'de> Deserialize<'de>>(&mut self) -> io::Result<Option<T>> {
        let Some(line) = self.lines.next_line().await? else {
            return Ok(None);
        };
        let mut answer: Value = serde_json::from_str(&line)?;
        if let Some(error) = answer.get("error") {
            return Err(io::Error::other(error.to_string()));
        }
        Ok(Some(serde_json::from_value(answer["ok"].take())?))
    }
}

/// Asks one question of a running process, if one answers in time.
pub async fn ask<T: for<'de> Deserialize<'de>>(
    state_folder: &Path,
    request: &Request,
) -> io::Result<Option<T>> {
    let asking = async {
        match Caller::ask(state_folder, request).await? {
            Some(mut caller) => caller.next().await,
            None => Ok(None),
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the running process does not answer",
            ))
        })
}

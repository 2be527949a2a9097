//! RELP: the one syslog transport with a receipt.
//!
//! Every line is a transaction and counts as delivered when the receiver answered it with `200`.
//! Up to [`session::WINDOW`] are on their way at a time. When the connection breaks, the lines
//! without an answer go out again on the next one, the same bytes; what was confirmed does not.
//! `200` means that the receiver has the line in its queue: what that does in a power cut is the
//! receiver's configuration.

mod frame;
mod session;

use std::io;
use std::time::Duration;

use exfilwatch_model::Envelope;
use exfilwatch_model::diagnosis::{Cause, Check};
use tokio::sync::Mutex;

use self::session::{Ended, Session};
use super::dial::Dialer;
use crate::contract::EmitError;
use crate::progress::{Fate, Progress};

/// Longest wait for a receiver that is to end a session.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Name of the check that `doctor` shows.
const CHECK: &str = "receiver_relp";

/// See the module.
#[derive(Debug)]
pub(super) struct Relp {
    dialer: Dialer,
    /// Longest time without an answer.
    silence_max: Duration,
    session: Mutex<Option<Session>>,
    /// What was confirmed of batches that failed.
    progress: Progress,
}

impl Relp {
    pub(super) fn new(dialer: Dialer, silence_max: Duration) -> Self {
        Self {
            dialer,
            silence_max,
            session: Mutex::new(None),
            progress: Progress::default(),
        }
    }

    /// Resolves when the receiver has confirmed every line; `batch` is what the lines are of.
    pub(super) async fn deliver(
        &self,
        batch: &[Envelope],
        lines: &[String],
    ) -> Result<(), EmitError> {
        if lines.is_empty() {
            return Ok(());
        }
        let recalled = self.progress.recall(batch, lines.len());
        let mut fates = recalled.unwrap_or_else(|| vec![Fate::Open; lines.len()]);
        let mut place = self.session.lock().await;
        let sent = self.send(&mut place, lines, &mut fates).await;
        if sent.is_err() {
            self.progress.keep(batch, fates);
        }
        sent
    }

    /// Sends, on new sessions as long as each gets on: a receiver that restarts takes what is left.
    async fn send(
        &self,
        place: &mut Option<Session>,
        lines: &[String],
        fates: &mut [Fate],
    ) -> Result<(), EmitError> {
        loop {
            // A session that stood idle may have ended unseen.
            let (mut session, is_new) = match place.take() {
                Some(session) => (session, false),
                None => (self.open().await?, true),
            };
            let before = taken(fates);
            match session.send(lines, fates, self.silence_max).await {
                Ok(refused) => {
                    *place = Some(session);
                    return refused.map_or(Ok(()), |words| Err(self.refused(&words)));
                }
                Err(ended) => {
                    let gets_on = !is_new || taken(fates) > before;
                    if !gets_on {
                        return Err(self.failed(&ended));
                    }
                    tracing::info!(
                        address = self.dialer.address, reason = %ended,
                        left = fates.len() - taken(fates),
                        "the RELP session ended: lines without an answer go out again"
                    );
                }
            }
        }
    }

    async fn open(&self) -> Result<Session, EmitError> {
        let stream = self.dialer.connect().await;
        let stream = stream.map_err(|error| self.dialer.failed(&error))?;
        let session = Session::open(stream, self.silence_max).await;
        session.map_err(|ended| self.failed(&ended))
    }

    fn failed(&self, ended: &Ended) -> EmitError {
        let help = match ended {
            Ended::Io(error) => return self.dialer.failed(error),
            Ended::Closed | Ended::Silent(_) => {
                let error = io::Error::other(ended.to_string());
                return self.dialer.failed(&error);
            }
            Ended::NotRelp(_) => {
                "use the port of rsyslog's imrelp, and transport = \"relp_tls\" where it has TLS"
            }
            Ended::Refused(_) => "look at the receiver's log",
        };
        EmitError::Hold {
            what: format!("{}: {ended}", self.dialer.address),
            help: help.to_owned(),
        }
    }

    fn refused(&self, words: &str) -> EmitError {
        EmitError::Hold {
            what: format!(
                "{}: the receiver refuses a line: {words}",
                self.dialer.address
            ),
            help: "look at the receiver's log; the line is kept and sent again".to_owned(),
        }
    }

    /// Opens a session and closes it.
    pub(super) async fn diagnose(&self) -> Check {
        match self.open().await {
            Ok(session) => {
                let seen = format!("{} takes syslog", session.software);
                session.close(CLOSE_WAIT_MAX).await;
                Check::ok(CHECK, seen)
            }
            Err(EmitError::Hold { what, help }) => {
                Check::failed(CHECK, Cause::NotRelp, what).fix(help)
            }
            Err(error) => Check::failed(CHECK, Cause::ReceiverUnreachable, error.to_string()),
        }
    }
}

fn taken(fates: &[Fate]) -> usize {
    fates.iter().filter(|fate| **fate == Fate::Taken).count()
}

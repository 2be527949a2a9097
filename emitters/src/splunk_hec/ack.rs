//! Indexer acknowledgement.
//!
//! Ids count from 0 per channel and indexer, and `false` means never known, lost or pending alike.
//! So: only a `true` read on the channel of the send is a receipt; an id that comes twice means
//! that another indexer answers, and everything outstanding on the channel is lost to us; a batch
//! without `true` in time is sent again on a new channel. Channels live in memory only: after an
//! indexer's restart old ids would name other batches.
//!
//! There is no background task: whoever waits asks for all who wait on the channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::client::Reply;
use super::session::Session;
use crate::contract::EmitError;

/// Most ids in one question.
const IDS_MAX: usize = 1_000;
/// Pause before the first question after a send: idle indexers confirm in little more.
const FIRST_POLL: Duration = Duration::from_secs(1);
/// Most ids remembered out of order.
const OUT_OF_ORDER_MAX: usize = 1_000;

/// Why a send counts as not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// No `true` in time.
    TimedOut,
    /// Another indexer answers on the channel, or may have: its ids say nothing of ours.
    Channel,
}

/// The outstanding ids of one channel.
#[derive(Debug)]
pub(super) struct Acks {
    state: Mutex<State>,
    /// Held by the one who asks; the pause until the next question.
    asking: tokio::sync::Mutex<Duration>,
    sent: Notify,
    hurry: Notify,
    changed: Notify,
    timeout: Duration,
    pause_max: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Whether each outstanding id has been confirmed.
    outstanding: BTreeMap<u64, bool>,
    seen: Seen,
    /// Sends to which no answer came: each may have used up an id, at whichever indexer.
    unanswered: u64,
    /// The server said that the token has no acknowledgements.
    disabled: bool,
}

/// An id that is waited for. Dropping it forgets it.
#[derive(Debug)]
pub(super) struct Pending {
    session: Arc<Session>,
    id: u64,
    deadline: Instant,
}

impl Acks {
    pub(super) fn new(timeout: Duration, pause_max: Duration) -> Self {
        Self {
            state: Mutex::default(),
            asking: tokio::sync::Mutex::new(FIRST_POLL),
            sent: Notify::new(),
            hurry: Notify::new(),
            changed: Notify::new(),
            timeout,
            pause_max,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next question is asked at once.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// No answer came to a send on this channel. Where it went to another indexer, its id there is below
    /// the number of such sends: a `true` for one of those would not tell whose it is.
    pub(super) fn unanswered(&self) {
        let mut state = self.state();
        state.unanswered += 1;
        let unanswered = state.unanswered;
        state
            .outstanding
            .retain(|id, confirmed| *confirmed || *id >= unanswered);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether the id is to be waited for: not where the server has no acknowledgements after all; then
    /// the reply to the send was the receipt. An id that came before loses the channel.
    fn register(&self, id: u64) -> Result<bool, Lost> {
        let mut state = self.state();
        if state.disabled {
            return Ok(false);
        }
        if !state.seen.insert(id) {
            state.outstanding.clear();
            drop(state);
            self.changed.notify_waiters();
            return Err(Lost::Channel);
        }
        state.outstanding.insert(id, false);
        drop(state);
        self.sent.notify_one();
        Ok(true)
    }

    /// Waits for the next question, which a fresh send brings forward.
    async fn pause(&self, pause: Duration, deadline: Instant) {
        let start = Instant::now();
        let soon = async {
            self.sent.notified().await;
            let soon = Instant::now() + FIRST_POLL;
            sleep_until((start + pause).min(soon)).await;
        };
        tokio::select! {
            () = sleep_until((start + pause).min(deadline)) => {}
            () = self.hurry.notified() => {}
            () = soon => {}
        }
    }

    fn open_ids(&self) -> Vec<u64> {
        let state = self.state();
        let open = state
            .outstanding
            .iter()
            .filter(|(_, confirmed)| !**confirmed);
        open.map(|(id, _)| *id).take(IDS_MAX).collect()
    }

    /// What the reply to a question says. Any other than a list of acks changes nothing.
    fn take_in(&self, reply: &Reply) -> Answer {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            acks: BTreeMap<u64, bool>,
            code: Option<u64>,
        }
        /// "ACK is disabled".
        const ACK_DISABLED: u64 = 14;
        let Ok(body) = serde_json::from_slice::<Body>(&reply.body) else {
            return Answer::Nothing;
        };
        let mut state = self.state();
        if body.code == Some(ACK_DISABLED) {
            state.disabled = true;
            let all = state.outstanding.values_mut();
            all.for_each(|confirmed| *confirmed = true);
            return Answer::Disabled;
        }
        if reply.status != 200 {
            return Answer::Nothing;
        }
        let mut answer = Answer::Nothing;
        for (id, _) in body.acks.into_iter().filter(|(_, confirmed)| *confirmed) {
            if let Some(confirmed) = state.outstanding.get_mut(&id) {
                *confirmed = true;
                answer = Answer::Confirmed;
            }
        }
        answer
    }
}

/// What a question brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Nothing,
    Confirmed,
    /// The token has no acknowledgements.
    Disabled,
}

/// Asks for what is outstanding; whether anything was confirmed.
async fn ask(session: &Session) -> bool {
    for _ in 0..session.asks() {
        if ask_once(session).await {
            return true;
        }
    }
    false
}

async fn ask_once(session: &Session) -> bool {
    let ids = session.acks.open_ids();
    if ids.is_empty() {
        return false;
    }
    let answer = match session.ask(&ids).await {
        Ok(reply) => session.acks.take_in(&reply),
        Err(EmitError::Retry { what, .. } | EmitError::Hold { what, .. }) => {
            // Unknown is not delivered: the question is asked again until the deadline.
            tracing::debug!(what, "the question for acknowledgements failed");
            Answer::Nothing
        }
    };
    match answer {
        Answer::Nothing => return false,
        Answer::Confirmed => session.facts().acks_work(),
        Answer::Disabled => session.facts().acks_are_off(),
    }
    true
}

impl Pending {
    /// Notes the id of a send. `None` where its reply was already the receipt.
    pub(super) fn register(session: &Arc<Session>, id: u64) -> Result<Option<Self>, Lost> {
        let waits = session.acks.register(id)?;
        Ok(waits.then(|| Self {
            session: Arc::clone(session),
            id,
            deadline: Instant::now() + session.acks.timeout,
        }))
    }

    /// The channel it was sent on.
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Waits until the server confirms the id.
    pub(super) async fn wait(&self) -> Result<(), Lost> {
        let acks = &self.session.acks;
        loop {
            let changed = acks.changed.notified();
            match self.confirmed() {
                Some(true) => return Ok(()),
                Some(false) if Instant::now() >= self.deadline => return Err(Lost::TimedOut),
                Some(false) => {}
                None => return Err(Lost::Channel),
            }
            tokio::select! {
                mut pause = acks.asking.lock() => {
                    acks.pause(*pause, self.deadline).await;
                    let confirmed = ask(&self.session).await;
                    *pause = if confirmed { FIRST_POLL } else { (*pause * 2).min(acks.pause_max) };
                    acks.changed.notify_waiters();
                }
                () = changed => {}
                () = sleep_until(self.deadline) => {}
            }
        }
    }

    fn confirmed(&self) -> Option<bool> {
        let state = self.session.acks.state();
        state.outstanding.get(&self.id).copied()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.session.acks.state().outstanding.remove(&self.id);
    }
}

/// The ids that came so far. They come nearly in order, so it stays small.
#[derive(Debug, Default)]
struct Seen {
    /// All below it have come.
    below: u64,
    above: BTreeSet<u64>,
}

impl Seen {
    /// Whether the id is new.
    fn insert(&mut self, id: u64) -> bool {
        if id < self.below || !self.above.insert(id) {
            return false;
        }
        if self.above.len() > OUT_OF_ORDER_MAX {
            self.below = self.above.first().copied().unwrap_or(self.below);
        }
        while self.above.remove(&self.below) {
            self.below += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks() -> Acks {
        Acks::new(Duration::from_mins(5), Duration::from_secs(10))
    }

    fn confirmed(acks: &Acks, id: u64) -> Option<bool> {
        acks.state().outstanding.get(&id).copied()
    }

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            body: body.into(),
            retry_after: None,
        }
    }

    #[test]
    fn only_a_true_in_a_list_of_acks_confirms() {
        let acks = acks();
        assert_eq!(acks.register(0), Ok(true));
        for (status, body) in [
            (200, r#"{"acks":{"0":false,"1":true}}"#),
            (503, r#"{"acks":{"0":true}}"#),
            (200, "<html>true</html>"),
            (400, r#"{"text":"x","code":10}"#),
        ] {
            let answer = acks.take_in(&reply(status, body));
            assert_eq!(answer, Answer::Nothing, "{status} {body}");
            assert_eq!(confirmed(&acks, 0), Some(false), "{status} {body}");
        }
        let answer = acks.take_in(&reply(200, r#"{"acks":{"0":true}}"#));
        assert_eq!(answer, Answer::Confirmed);
        assert_eq!(confirmed(&acks, 0), Some(true));
    }

    #[test]
    fn an_id_that_comes_twice_loses_the_channel_also_when_it_was_confirmed() {
        let acks = acks();
        for id in [0, 2, 1] {
            assert_eq!(acks.register(id), Ok(true));
        }
        acks.state().outstanding.remove(&0);
        assert_eq!(acks.register(0), Err(Lost::Channel));
        assert_eq!(acks.open_ids(), Vec::<u64>::new());
    }

    #[test]
    fn ids_that_a_send_without_an_answer_may_have_used_elsewhere_are_lost() {
        let acks = acks();
        for id in 0..3 {
            assert_eq!(acks.register(id), Ok(true));
        }
        acks.unanswered();
        assert_eq!(acks.open_ids(), [1, 2]);
        acks.unanswered();
        assert_eq!(acks.open_ids(), [2]);
    }

    #[test]
    fn disabled_acknowledgement_makes_the_reply_the_receipt() {
        let acks = acks();
        assert_eq!(acks.register(0), Ok(true));
        let answer = acks.take_in(&reply(400, r#"{"text":"ACK is disabled","code":14}"#));
        assert_eq!(answer, Answer::Disabled);
        assert_eq!(confirmed(&acks, 0), Some(true));
        assert_eq!(acks.register(1), Ok(false));
    }
}

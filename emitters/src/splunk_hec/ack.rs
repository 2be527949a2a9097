//! Indexer acknowledgement.
//!
//! Ids count from 0 per channel and indexer, and `false` means never known, lost or pending alike.
//! So: only a `true` read on the channel of the send is a receipt; an id that comes twice means
//! that another indexer answers, and everything outstanding on the channel is lost to us; a batch
//! without `true` in time is sent again on a new channel. Channels live in memory only: after an
//! indexer's restart old ids would name other batches.
//!
//! There is no background task: whoever waits asks for all who wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::client::{Client, Reply};
use crate::contract::EmitError;

/// Most ids in one question.
const IDS_MAX: usize = 1_000;
/// Pause before the first question after a send: idle indexers confirm in little more.
const FIRST_POLL: Duration = Duration::from_secs(1);

/// Why a send counts as not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// No `true` in time.
    TimedOut,
    /// The channel was given up meanwhile, because of an id that came twice or a time-out.
    Channel,
}

#[derive(Debug)]
struct State {
    channel: Uuid,
    /// Whether each outstanding id has been confirmed.
    outstanding: BTreeMap<u64, bool>,
    /// The server said that the token has no acknowledgements.
    disabled: bool,
}

/// Channel and outstanding ids of one emitter.
#[derive(Debug)]
pub(super) struct Acks {
    state: Mutex<State>,
    /// Held by the one who asks; the pause until the next question.
    asking: tokio::sync::Mutex<Duration>,
    sent: Notify,
    changed: Notify,
    timeout: Duration,
    pause_max: Duration,
}

/// An id that is waited for. Dropping it forgets it.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    acks: &'a Acks,
    channel: Uuid,
    id: u64,
    deadline: Instant,
}

impl Acks {
    pub(super) fn new(timeout: Duration, pause_max: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                channel: Uuid::new_v4(),
                outstanding: BTreeMap::new(),
                disabled: false,
            }),
            asking: tokio::sync::Mutex::new(FIRST_POLL),
            sent: Notify::new(),
            changed: Notify::new(),
            timeout,
            pause_max,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel to send on.
    pub(super) fn channel(&self) -> Uuid {
        self.state().channel
    }

    /// Gives a channel up; whoever waits on it gets [`Lost::Channel`].
    pub(super) fn give_up(&self, channel: Uuid) {
        let mut state = self.state();
        if state.channel == channel {
            state.channel = Uuid::new_v4();
            state.outstanding.clear();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Notes the id of a send. `None` where the server has no acknowledgements after all: then the
    /// reply to the send was the receipt.
    pub(super) fn register(&self, channel: Uuid, id: u64) -> Result<Option<Pending<'_>>, Lost> {
        let mut state = self.state();
        if state.disabled {
            return Ok(None);
        }
        if state.channel != channel {
            return Err(Lost::Channel);
        }
        if state.outstanding.contains_key(&id) {
            drop(state);
            self.give_up(channel);
            return Err(Lost::Channel);
        }
        state.outstanding.insert(id, false);
        drop(state);
        self.sent.notify_one();
        Ok(Some(Pending {
            acks: self,
            channel,
            id,
            deadline: Instant::now() + self.timeout,
        }))
    }

    /// Waits until the server confirms the id.
    pub(super) async fn wait(&self, pending: &Pending<'_>, client: &Client) -> Result<(), Lost> {
        loop {
            let changed = self.changed.notified();
            match pending.confirmed() {
                Some(true) => return Ok(()),
                Some(false) if Instant::now() >= pending.deadline => {
                    self.give_up(pending.channel);
                    return Err(Lost::TimedOut);
                }
                Some(false) => {}
                None => return Err(Lost::Channel),
            }
            tokio::select! {
                mut pause = self.asking.lock() => {
                    self.pause(*pause, pending.deadline).await;
                    let confirmed = self.ask(pending.channel, client).await;
                    *pause = if confirmed { FIRST_POLL } else { (*pause * 2).min(self.pause_max) };
                    self.changed.notify_waiters();
                }
                () = changed => {}
                () = sleep_until(pending.deadline) => {}
            }
        }
    }

    /// Waits for the next question, which a fresh send brings forward.
    async fn pause(&self, pause: Duration, deadline: Instant) {
        let start = Instant::now();
        tokio::select! {
            () = sleep_until((start + pause).min(deadline)) => {}
            () = self.sent.notified() => {
                let soon = Instant::now() + FIRST_POLL;
                sleep_until((start + pause).min(soon).min(deadline)).await;
            }
        }
    }

    /// Asks once for what is outstanding; whether anything was confirmed.
    async fn ask(&self, channel: Uuid, client: &Client) -> bool {
        let ids = self.open_ids(channel);
        if ids.is_empty() {
            return false;
        }
        match client.acks(&ids, channel).await {
            Ok(reply) => self.take_in(channel, &reply),
            Err(EmitError::Retry { what, .. } | EmitError::Hold { what, .. }) => {
                // Unknown is not delivered: the question is asked again until the deadline.
                tracing::debug!(what, "the question for acknowledgements failed");
                false
            }
        }
    }

    fn open_ids(&self, channel: Uuid) -> Vec<u64> {
        let state = self.state();
        if state.channel != channel {
            return vec![];
        }
        let open = state
            .outstanding
            .iter()
            .filter(|(_, confirmed)| !**confirmed);
        open.map(|(id, _)| *id).take(IDS_MAX).collect()
    }

    /// Whether the reply confirmed anything. Any other reply than a list of acks changes nothing.
    fn take_in(&self, channel: Uuid, reply: &Reply) -> bool {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            acks: BTreeMap<u64, bool>,
            code: Option<u64>,
        }
        /// "ACK is disabled".
        const ACK_DISABLED: u64 = 14;
        let Ok(answer) = serde_json::from_slice::<Answer>(&reply.body) else {
            return false;
        };
        let mut state = self.state();
        if state.channel != channel {
            return false;
        }
        if answer.code == Some(ACK_DISABLED) {
            tracing::warn!(
                "the token has no indexer acknowledgement any more: from now on the reply to a \
                 send is the receipt"
            );
            state.disabled = true;
            state
                .outstanding
                .values_mut()
                .for_each(|confirmed| *confirmed = true);
            return true;
        }
        if reply.status != 200 {
            return false;
        }
        let mut any = false;
        for (id, _) in answer.acks.into_iter().filter(|(_, confirmed)| *confirmed) {
            if let Some(confirmed) = state.outstanding.get_mut(&id) {
                *confirmed = true;
                any = true;
            }
        }
        any
    }
}

impl Pending<'_> {
    fn confirmed(&self) -> Option<bool> {
        let state = self.acks.state();
        if state.channel == self.channel {
            state.outstanding.get(&self.id).copied()
        } else {
            None
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut state = self.acks.state();
        if state.channel == self.channel {
            state.outstanding.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks() -> Acks {
        Acks::new(Duration::from_mins(5), Duration::from_secs(10))
    }

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            body: body.into(),
            retry_after: None,
        }
    }

    #[test]
    fn only_a_true_on_the_own_channel_confirms() {
        let acks = acks();
        let channel = acks.channel();
        let pending = acks.register(channel, 0).unwrap().unwrap();
        for (status, body) in [
            (200, r#"{"acks":{"0":false,"1":true}}"#),
            (503, r#"{"acks":{"0":true}}"#),
            (200, "<html>true</html>"),
            (400, r#"{"text":"x","code":10}"#),
        ] {
            assert!(
                !acks.take_in(channel, &reply(status, body)),
                "{status} {body}"
            );
            assert_eq!(pending.confirmed(), Some(false), "{status} {body}");
        }
        let confirmed = reply(200, r#"{"acks":{"0":true}}"#);
        assert!(!acks.take_in(Uuid::new_v4(), &confirmed));
        assert!(acks.take_in(channel, &confirmed));
        assert_eq!(pending.confirmed(), Some(true));
    }

    #[test]
    fn an_id_that_comes_twice_loses_the_channel() {
        let acks = acks();
        let channel = acks.channel();
        let pending = acks.register(channel, 5).unwrap().unwrap();
        assert_eq!(acks.register(channel, 5).unwrap_err(), Lost::Channel);
        assert_eq!(pending.confirmed(), None);
        assert_ne!(acks.channel(), channel);
        assert_eq!(acks.register(channel, 6).unwrap_err(), Lost::Channel);
    }

    #[test]
    fn disabled_acknowledgement_makes_the_reply_the_receipt() {
        let acks = acks();
        let channel = acks.channel();
        let pending = acks.register(channel, 0).unwrap().unwrap();
        acks.take_in(
            channel,
            &reply(400, r#"{"text":"ACK is disabled","code":14}"#),
        );
        assert_eq!(pending.confirmed(), Some(true));
        assert!(acks.register(channel, 1).unwrap().is_none());
    }
}

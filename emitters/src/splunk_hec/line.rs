//! The way of a batch: room for it, an address, its requests, what each reply asks for, the receipts.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::ack::{Lost, Pending};
use super::batch::{Batch, hold, retry};
use super::client::Reply;
use super::deployment::Deployment;
use super::endpoints::{Endpoint, Endpoints};
use super::reply::{Action, CHANNEL, ENCODING, INDEX, Near, Rest, TOKEN, Trouble, decide};
use super::request::body;
use super::session::Session;
use crate::contract::EmitError;
use crate::error::BuildError;
use crate::options::Ack;

/// Most requests sent and not yet acknowledged.
const OUTSTANDING_MAX: usize = 1_000;
/// Most of their bytes, before compression, in KiB.
const OUTSTANDING_KIB_MAX: usize = 64 << 10;
/// Most times a batch goes to a new channel at an address before an operator is asked.
const CHANNELS_MAX: u32 = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) endpoints: Endpoints,
    deployment: Arc<Deployment>,
    requests: Semaphore,
    kib: Semaphore,
}

/// Why an address did not take all of a batch.
enum Stop {
    /// Another one may.
    Here(EmitError),
    /// It is about the batch.
    Everywhere(EmitError),
}

/// A request on its way: at which address, on which channel, with which pieces.
struct Sent<'a> {
    endpoint: &'a Endpoint,
    session: Arc<Session>,
    run: Vec<usize>,
    was_gzip: bool,
}

impl Line {
    pub(super) fn new(deployment: &Arc<Deployment>) -> Result<Self, BuildError> {
        Ok(Self {
            endpoints: Endpoints::new(deployment)?,
            deployment: Arc::clone(deployment),
            requests: Semaphore::new(OUTSTANDING_MAX),
            kib: Semaphore::new(OUTSTANDING_KIB_MAX),
        })
    }

    /// Sends a batch and waits for its receipts; says in between that all of it is sent.
    pub(super) async fn deliver<'a>(
        &'a self,
        batch: &mut Batch<'a>,
        sent: &(dyn Fn() + Sync),
    ) -> Result<(), EmitError> {
        let _room = self.room(batch).await?;
        let outcome = self.send(batch).await;
        if outcome.is_ok() {
            batch.forget_bytes();
            sent();
        }
        // Also after a failure: what is confirmed is not sent again.
        outcome.and(self.await_acks(batch).await)
    }

    async fn room(&self, batch: &Batch<'_>) -> Result<[SemaphorePermit<'_>; 2], EmitError> {
        let capped = |wanted: usize, max: usize| u32::try_from(wanted.min(max)).unwrap_or(u32::MAX);
        let requests = capped(batch.queue.len(), OUTSTANDING_MAX);
        let kib = capped(batch.bytes().div_ceil(1 << 10), OUTSTANDING_KIB_MAX);
        let closed = |_| EmitError::Retry {
            what: "the emitter is shutting down".to_owned(),
            after: None,
        };
        Ok([
            self.requests.acquire_many(requests).await.map_err(closed)?,
            self.kib.acquire_many(kib).await.map_err(closed)?,
        ])
    }

    /// Sends what is queued to the address whose turn it is, and to the others where it fails.
    async fn send<'a>(&'a self, batch: &mut Batch<'a>) -> Result<(), EmitError> {
        let mut worst: Option<EmitError> = None;
        for endpoint in self.endpoints.in_turn() {
            match self.send_to(endpoint, batch).await {
                Ok(()) => return Ok(()),
                Err(Stop::Everywhere(error)) => return Err(error),
                Err(Stop::Here(error)) => {
                    self.endpoints.rest(endpoint, &error);
                    // One that may soon be back counts more than one that an operator must see to.
                    if !matches!(worst, Some(EmitError::Retry { .. })) {
                        worst = Some(error);
                    }
                }
            }
        }
        worst.map_or(Ok(()), Err)
    }

    /// Each round takes pieces out of the queue, halves a run, or is one of a counted few. After a
    /// failure the queue holds what is still to be sent.
    async fn send_to<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        batch: &mut Batch<'a>,
    ) -> Result<(), Stop> {
        batch.channels = 0;
        while let Some(run) = batch.queue.pop_front() {
            let (sent, reply) = self.post(endpoint, batch, run).await?;
            let pace = &endpoint.pace;
            match decide(reply.status, &reply.body) {
                Action::Taken { ack, near } => {
                    pace.taken();
                    if near.is_some() {
                        pace.slow_down();
                    }
                    if near == Some(Near::Acks) {
                        sent.session.acks.hurry();
                    }
                    self.note_taken(batch, &sent, ack, &sent.run)?;
                }
                Action::Prefix { taken, ack, rest } => match sent.run.split_at_checked(taken) {
                    Some((prefix, [bad, suffix @ ..])) => {
                        batch.queue_from(*bad, suffix);
                        if !prefix.is_empty() {
                            self.note_taken(batch, &sent, ack, prefix)?;
                        }
                        deal_with_first(batch, endpoint, rest, &reply)?;
                    }
                    // It names an event that was not sent: its numbers mean nothing.
                    Some((_, [])) | None => Self::without_number(batch, sent, rest, &reply)?,
                },
                Action::Halve(rest) => {
                    if !batch.halve(sent.run) {
                        deal_with_first(batch, endpoint, rest, &reply)?;
                    }
                }
                Action::RefuseAll => batch.refuse_all(&sent.run, &reply),
                action => {
                    batch.queue.push_front(sent.run.clone());
                    self.again(batch, &sent, &action, &reply)?;
                }
            }
        }
        Ok(())
    }

    /// Sends a run when it is its turn.
    async fn post<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        batch: &mut Batch<'a>,
        run: Vec<usize>,
    ) -> Result<(Sent<'a>, Reply), Stop> {
        let turn = endpoint.pace.turn().await;
        let session = endpoint.session();
        let body = body(batch.load(&run), self.deployment.facts.gzip()).await;
        let was_gzip = body.is_gzip();
        let answer = session.send(body).await;
        drop(turn);
        match answer {
            Ok(reply) => {
                let sent = Sent {
                    endpoint,
                    session,
                    run,
                    was_gzip,
                };
                Ok((sent, reply))
            }
            Err(unanswered) => {
                endpoint.pace.in_trouble();
                if unanswered.maybe_taken {
                    self.deployment.facts.maybe_twice(run.len());
                    session.acks.unanswered();
                    endpoint.renew(&session, false);
                }
                batch.queue.push_front(run);
                Err(Stop::Here(unanswered.error))
            }
        }
    }

    /// None of it was taken: what has to change before it is sent again, here or by the lane.
    fn again(
        &self,
        batch: &mut Batch<'_>,
        sent: &Sent<'_>,
        action: &Action,
        reply: &Reply,
    ) -> Result<(), Stop> {
        let endpoint = sent.endpoint;
        let renew = |in_url| endpoint.renew(&sent.session, in_url);
        match action {
            Action::Uncompressed if sent.was_gzip => self.deployment.facts.no_gzip(),
            Action::Uncompressed => return Err(Stop::Here(hold(reply, ENCODING))),
            Action::NewChannel { in_url } => {
                renew(*in_url);
                batch.channels += 1;
                if batch.channels >= CHANNELS_MAX {
                    return Err(Stop::Here(hold(reply, CHANNEL)));
                }
            }
            Action::OtherConnection => {
                renew(false);
                // It may have been rotated, too.
                self.deployment.token.forget();
                batch.channels += 1;
                if batch.channels >= CHANNELS_MAX {
                    return Err(Stop::Here(hold(reply, TOKEN)));
                }
            }
            Action::Hold(help) => {
                self.deployment.token.forget();
                return Err(Stop::Here(hold(reply, help)));
            }
            Action::Retry(trouble) => {
                endpoint.pace.in_trouble();
                match trouble {
                    Trouble::Busy => {}
                    Trouble::Leaving => renew(false),
                    Trouble::Acks => {
                        sent.session.acks.hurry();
                        renew(false);
                    }
                }
                return Err(Stop::Here(retry(reply)));
            }
            Action::Taken { .. } | Action::Prefix { .. } | Action::Halve(_) | Action::RefuseAll => {
            }
        }
        Ok(())
    }

    /// Some event of the run is bad, or the receiver was busy; which one is not known.
    fn without_number(
        batch: &mut Batch<'_>,
        sent: Sent<'_>,
        rest: Rest,
        reply: &Reply,
    ) -> Result<(), Stop> {
        match rest {
            Rest::Refuse | Rest::WithoutFields | Rest::HoldIndex => {
                if !batch.halve(sent.run) {
                    deal_with_first(batch, sent.endpoint, rest, reply)?;
                }
            }
            Rest::Later => {
                batch.queue.push_front(sent.run);
                sent.endpoint.pace.in_trouble();
                return Err(Stop::Here(retry(reply)));
            }
        }
        Ok(())
    }

    /// Pieces the reply says are taken: for good, or once acknowledged.
    fn note_taken<'a>(
        &'a self,
        batch: &mut Batch<'a>,
        sent: &Sent<'a>,
        ack: Option<u64>,
        taken: &[usize],
    ) -> Result<(), Stop> {
        let waits = match (self.deployment.options.ack, ack) {
            (Ack::Off, _) | (Ack::Auto, None) => None,
            (Ack::On, None) => {
                self.deployment.facts.acks_are_off();
                None
            }
            (Ack::Auto | Ack::On, Some(id)) => {
                sent.session.stick();
                match Pending::register(&sent.session, id) {
                    Ok(waits) => waits,
                    Err(why) => {
                        batch.queue.push_front(taken.to_vec());
                        return Err(Stop::Here(self.lost(
                            sent.endpoint,
                            &sent.session,
                            why,
                            taken,
                        )));
                    }
                }
            }
        };
        match waits {
            Some(pending) => batch.pending.push((sent.endpoint, pending, taken.to_vec())),
            None => batch.mark(taken),
        }
        Ok(())
    }

    async fn await_acks(&self, batch: &mut Batch<'_>) -> Result<(), EmitError> {
        let mut outcome = Ok(());
        for (endpoint, pending, pieces) in std::mem::take(&mut batch.pending) {
            match pending.wait().await {
                Ok(()) => batch.mark(&pieces),
                Err(why) => outcome = Err(self.lost(endpoint, pending.session(), why, &pieces)),
            }
        }
        outcome
    }

    fn lost(
        &self,
        endpoint: &Endpoint,
        session: &Arc<Session>,
        why: Lost,
        pieces: &[usize],
    ) -> EmitError {
        if why == Lost::Channel {
            endpoint.is_confused(session);
        }
        endpoint.renew(session, false);
        self.deployment.facts.maybe_twice(pieces.len());
        let what = match why {
            Lost::TimedOut => {
                self.deployment.facts.ack_timed_out();
                "no acknowledgement in time: the batch goes out again on a new channel"
            }
            Lost::Channel => {
                "another indexer answers on this channel: the batch goes out again on a new one"
            }
        };
        EmitError::Retry {
            what: what.to_owned(),
            after: None,
        }
    }
}

/// The event at which the receiver stopped; it is the first in the queue.
fn deal_with_first(
    batch: &mut Batch<'_>,
    endpoint: &Endpoint,
    rest: Rest,
    reply: &Reply,
) -> Result<(), Stop> {
    match rest {
        Rest::HoldIndex if batch.hold_index_of_first(reply) => {}
        Rest::HoldIndex => return Err(Stop::Everywhere(hold(reply, INDEX))),
        Rest::Later => {
            endpoint.pace.in_trouble();
            return Err(Stop::Here(retry(reply)));
        }
        Rest::WithoutFields if batch.strip_first() => {}
        Rest::WithoutFields | Rest::Refuse => batch.refuse_first(reply),
    }
    Ok(())
}

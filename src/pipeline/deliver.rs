//! A lane: reads its kind of items from the outbox, hands them to its emitter in batches, and moves
//! its mark over the contiguous prefix that the receiver has confirmed.
//!
//! Several batches are in flight; the mark never passes one that is not confirmed, so a crash
//! sends again what was in flight, as the same bytes. A refused item is quarantined, never
//! dropped. A receiver that is away or refuses us is tried again for ever; what waits is kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_emitters::{Delivered, EmitError, Emitter};
use exfilwatch_model::{Clock, Envelope};
use exfilwatch_state::{
    Commit, Damage, LaneId, LaneMark, OutboxReader, Position, Quarantined, StateError,
};
use futures::stream::{FuturesOrdered, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::pipeline::committer::Committer;

/// Batches of one lane in flight at a time.
const IN_FLIGHT_MAX: usize = 4;
/// First wait after a failure; doubled up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between tries.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Wait between tries while held (token, permission, wrong address).
const HOLD_FIRST: Duration = Duration::from_secs(30);
/// An idle lane's mark follows the outbox in steps of this many bytes.
const FOLLOW_BYTES: u64 = 1 << 20;
/// Longest wait between tries while held.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// How a lane is doing, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneHealth {
    /// Items confirmed since the lane was made.
    pub delivered: u64,
    /// Tries that failed since the process began.
    pub retries: u64,
    /// Items refused for good and quarantined since the process began.
    pub quarantined: u64,
    /// Why the lane is held, and what to do.
    pub held: Option<String>,
    /// Why the last try failed; `None` once one has worked.
    pub failing: Option<String>,
    /// When the oldest item that waits was fetched.
    pub oldest: Option<DateTime<Utc>>,
    /// First item not yet confirmed.
    pub mark: Position,
}

/// What a lane works with.
#[derive(Debug)]
pub struct Lane {
    /// Which lane.
    pub id: LaneId,
    /// Its receiver.
    pub emitter: Arc<dyn Emitter>,
    /// Reads the outbox from the lane's mark.
    pub reader: OutboxReader,
    /// Writes marks and quarantined items.
    pub committer: Committer,
    /// For waits and times.
    pub clock: Arc<dyn Clock>,
    /// Where its health is shown.
    pub health: Arc<Mutex<LaneHealth>>,
    /// Mark to begin at.
    pub mark: LaneMark,
    /// Stretches of the outbox that could not be read and are not yet noted.
    pub damaged: Vec<Damage>,
    /// How long a batch in flight may take to be confirmed after shutdown was asked for.
    pub drain: Duration,
}

/// One batch and the position after its last item.
struct Batch {
    items: Arc<Vec<Envelope>>,
    after: Position,
}

impl Lane {
    /// Delivers until `shutdown`; what is in flight then is given a moment to be confirmed. Once
    /// `finish` is cancelled, ends as soon as everything up to the published end is delivered.
    ///
    /// Ends early when a refused item could not be quarantined: the lane begins again at its
    /// stored mark, so that the item is neither lost nor passed.
    pub async fn run(mut self, shutdown: CancellationToken, finish: CancellationToken) {
        let mut end = self.committer.end();
        let mut flying = FuturesOrdered::new();
        loop {
            while flying.len() < IN_FLIGHT_MAX && !shutdown.is_cancelled() {
                let published = *end.borrow();
                let Some(batch) = self.next_batch(published) else {
                    break;
                };
                flying.push_back(self.send(batch, shutdown.clone()));
            }
            if flying.is_empty() {
                let caught_up = self.reader.position() >= *end.borrow();
                if shutdown.is_cancelled() || (finish.is_cancelled() && caught_up) {
                    break;
                }
                self.show(|health| health.oldest = None);
                self.follow().await;
                tokio::select! {
                    changed = end.changed() => if changed.is_err() { break },
                    () = shutdown.cancelled() => {}
                    () = finish.cancelled(), if !finish.is_cancelled() => {}
                }
                continue;
            }
            tokio::select! {
                Some(sent) = flying.next() => match sent {
                    Some((batch, delivered)) => {
                        if !self.confirm(&batch, delivered).await {
                            break;
                        }
                    }
                    // Only a shutdown ends a send without a receipt: it and all behind it stay.
                    None => break,
                },
                changed = end.changed(), if flying.len() < IN_FLIGHT_MAX => {
                    if changed.is_err() { break }
                }
            }
        }
    }

    /// Reads on until there is something to send. `None` at the end of the outbox.
    fn next_batch(&mut self, end: Position) -> Option<Batch> {
        let (items_max, bytes_max) = self.emitter.batch_max();
        while self.reader.position() < end {
            let delivery = match self.reader.read(end, items_max, bytes_max) {
                Ok(delivery) => delivery,
                Err(error) => {
                    self.cannot_read(&error);
                    return None;
                }
            };
            self.damaged.extend(delivery.damage);
            if delivery.items.is_empty() {
                continue;
            }
            let items: Vec<_> = delivery
                .items
                .into_iter()
                .map(|pending| pending.envelope)
                .collect();
            let oldest = items.first().map(|item| item.fetched_at);
            self.show(|health| health.oldest = health.oldest.or(oldest));
            return Some(Batch {
                items: Arc::new(items),
                after: delivery.next,
            });
        }
        None
    }

    /// With nothing in flight the mark may pass what is not for this lane; only in large steps,
    /// since each step is a commit.
    async fn follow(&mut self) {
        let position = self.reader.position();
        let far = position.segment > self.mark.position.segment
            || position.offset > self.mark.position.offset.saturating_add(FOLLOW_BYTES);
        if !far && self.damaged.is_empty() {
            return;
        }
        let mut commit = Commit::default();
        for damage in std::mem::take(&mut self.damaged) {
            commit.quarantined.extend(self.damage_entry(&damage));
        }
        self.mark.position = position;
        commit.lanes.push(self.mark.clone());
        self.committer.ride_along(commit).await;
        self.show(|health| health.mark = position);
    }

    fn damage_entry(&self, damage: &Damage) -> Option<Quarantined> {
        tracing::error!(
            lane = %self.id.emitter, from = ?damage.from, until = ?damage.until,
            reason = %damage.reason, "a stretch of the outbox is lost"
        );
        let stream = "exfilwatch/outbox/damage".parse().ok()?;
        let origin = format!("{}:{}", self.id.emitter, self.id.kind.as_str());
        let reason = format!(
            "outbox {:?} to {:?}: {}",
            damage.from, damage.until, damage.reason
        );
        Some(Quarantined::new(
            stream,
            origin,
            reason,
            self.clock.now(),
            bytes::Bytes::new(),
        ))
    }

    fn cannot_read(&self, error: &StateError) {
        let what = crate::pipeline::committer::chain(error);
        tracing::error!(lane = %self.id.emitter, error = %what, "the outbox cannot be read");
        self.show(|health| health.held = Some(what.clone()));
    }

    fn show(&self, change: impl FnOnce(&mut LaneHealth)) {
        let mut health = self
            .health
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut health);
    }

    /// Sends one batch until it is taken. `None` only when shutdown came first.
    fn send(
        &self,
        batch: Batch,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Option<(Batch, Delivered)>> + use<> {
        let emitter = self.emitter.clone();
        let clock = self.clock.clone();
        let health = self.health.clone();
        let lane = self.id.clone();
        let drain = self.drain;
        async move {
            let mut backoff = BACKOFF_FIRST;
            let mut hold = HOLD_FIRST;
            loop {
                let outcome = tokio::select! {
                    outcome = emitter.emit(&batch.items) => outcome,
                    () = drained(&shutdown, drain) => return None,
                };
                let wait = match outcome {
                    Ok(delivered) => {
                        note(&health, |h| {
                            h.held = None;
                            h.failing = None;
                        });
                        return Some((batch, delivered));
                    }
                    Err(EmitError::Hold { what, help }) => {
                        tracing::error!(lane = %lane.emitter, kind = lane.kind.as_str(), %what, %help, "lane held");
                        note(&health, |h| {
                            h.retries += 1;
                            h.held = Some(format!("{what}: {help}"));
                        });
                        let wait = hold;
                        hold = (hold * 2).min(HOLD_MAX);
                        wait
                    }
                    Err(error) => {
                        tracing::warn!(lane = %lane.emitter, kind = lane.kind.as_str(), %error, "batch will be sent again");
                        note(&health, |h| {
                            h.retries += 1;
                            h.failing = Some(error.to_string());
                        });
                        let asked = match error {
                            EmitError::Retry { after, .. } => after,
                            _ => None,
                        };
                        let wait = asked.unwrap_or(backoff).max(backoff);
                        backoff = (backoff * 2).min(BACKOFF_MAX);
                        wait
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(clock.real(wait)) => {}
                    () = shutdown.cancelled() => return None,
                }
            }
        }
    }

    /// Moves the mark over the batch. `false` when that could not be written.
    async fn confirm(&mut self, batch: &Batch, delivered: Delivered) -> bool {
        let refused = delivered.refused.len() as u64;
        let mut mark = self.mark.clone();
        mark.position = batch.after;
        mark.delivered += (batch.items.len() as u64).saturating_sub(refused);
        let mut commit = self.quarantine(batch, &delivered);
        commit.lanes.push(mark.clone());
        if refused == 0 {
            self.committer.ride_along(commit).await;
        } else if let Err(error) = self.committer.commit(commit).await {
            tracing::error!(%error, "refused items could not be quarantined; they are sent again");
            return false;
        }
        self.show(|health| {
            health.delivered = mark.delivered;
            health.quarantined += refused;
            health.mark = mark.position;
            health.oldest = None;
        });
        self.mark = mark;
        if let Some(pause) = delivered.slow_down {
            tokio::time::sleep(self.clock.real(pause)).await;
        }
        true
    }

    fn quarantine(&self, batch: &Batch, delivered: &Delivered) -> Commit {
        let mut commit = Commit::default();
        for refusal in &delivered.refused {
            let Some(item) = batch.items.get(refusal.index) else {
                continue;
            };
            tracing::error!(
                lane = %self.id.emitter, id = %item.id, reason = %refusal.reason,
                "item quarantined"
            );
            commit.quarantined.push(Quarantined::new(
                item.stream.clone(),
                format!("{}:{}", self.id.emitter, self.id.kind.as_str()),
                refusal.reason.clone(),
                self.clock.now(),
                item.payload.clone(),
            ));
        }
        commit
    }
}

fn note(health: &Mutex<LaneHealth>, change: impl FnOnce(&mut LaneHealth)) {
    change(
        &mut health
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
}

async fn drained(shutdown: &CancellationToken, drain: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain).await;
}

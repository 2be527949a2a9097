//! Sending a batch until its receiver has taken it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use exfilwatch_emitters::{Delivered, EmitError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::health::note;
use super::{BACKOFF_FIRST, BACKOFF_MAX, Batch, Lane};

/// Batches of one lane at a time that are not sent yet. Of those that wait for a receipt only, the
/// emitter bounds number and bytes.
const UNSENT_MAX: usize = 4;
/// Wait between tries while held (token, permission, wrong address).
const HOLD_FIRST: Duration = Duration::from_secs(30);
/// Longest wait between tries while held.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// How many batches of a lane are not sent yet.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    count: AtomicUsize,
    pub(super) changed: Notify,
}

impl Unsent {
    pub(super) fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < UNSENT_MAX
    }
}

/// The place of one batch among them, until it is sent.
pub(super) struct Place {
    unsent: Arc<Unsent>,
    is_taken: AtomicBool,
}

impl Place {
    pub(super) fn taken(unsent: &Arc<Unsent>) -> Self {
        let place = Self {
            unsent: Arc::clone(unsent),
            is_taken: AtomicBool::new(false),
        };
        place.take();
        place
    }

    /// Also again: what is not confirmed has to be sent once more.
    fn take(&self) {
        if !self.is_taken.swap(true, Ordering::Relaxed) {
            self.unsent.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn give_up(&self) {
        if self.is_taken.swap(false, Ordering::Relaxed) {
            self.unsent.count.fetch_sub(1, Ordering::Relaxed);
            self.unsent.changed.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Lane {
    /// Sends one batch until it is taken; with `insist` also what is held for a tenant's sake only. `None`
    /// only when shutdown came first.
    pub(super) fn send(
        &self,
        batch: Batch,
        (place, insist): (Place, bool),
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
                place.take();
                let sent = || place.give_up();
                let outcome = tokio::select! {
                    outcome = emitter.emit_telling(&batch.items, &sent) => outcome,
                    () = drained(&shutdown, drain) => return None,
                };
                let remark = emitter.remark();
                note(&health, |h| h.remark = remark);
                let outcome = outcome.and_then(|delivered| match delivered.held.first() {
                    Some(held) if insist => Err(EmitError::Hold {
                        what: held.what.clone(),
                        help: held.help.clone(),
                    }),
                    Some(_) | None => Ok(delivered),
                });
                let wait = match outcome {
                    Ok(delivered) => {
                        let kept = emitter.kept();
                        note(&health, |h| {
                            h.held = None;
                            h.failing = None;
                            h.kept = kept.or(h.kept);
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
                        // Full jitter, beyond what the receiver asked for.
                        let wait = asked.unwrap_or_default() + backoff.mul_f64(rand::random());
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
}

async fn drained(shutdown: &CancellationToken, drain: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain).await;
}

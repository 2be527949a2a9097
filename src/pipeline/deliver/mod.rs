//! A lane: reads its kind of items from the outbox, hands them to its emitter in batches, and moves
//! its mark over the contiguous prefix that the receiver has confirmed.
//!
//! Several batches are in flight; how many requests a receiver gets at a time is its emitter's to know, and
//! what is sent and only waits for a receipt holds nothing up. The mark never passes one that is not
//! confirmed, so a crash sends again what was in flight, as the same bytes. A refused item is
//! quarantined, never dropped. A receiver that is away or refuses us is tried again for ever; what waits
//! is kept.

mod apart;
mod confirming;
mod health;
mod sending;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_emitters::Emitter;
use exfilwatch_model::{Clock, Envelope};
use exfilwatch_state::{Damage, LaneId, LaneMark, OutboxReader, Position, StateError};
use futures::stream::{FuturesOrdered, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::pipeline::committer::Committer;
use crate::pipeline::filter::ItemFilter;
use crate::pipeline::parting::Role;
use crate::pipeline::watch::Watch;

pub use health::LaneHealth;

use apart::asked;
use sending::{Place, Unsent};

/// First wait after a failure; doubled up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between tries.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Wait before an outbox that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// An idle lane's mark follows the outbox in steps of this many bytes.
const FOLLOW_BYTES: u64 = 1 << 20;

/// What a lane works with.
#[derive(Debug)]
pub struct Lane {
    /// Which lane.
    pub id: LaneId,
    /// Its receiver.
    pub emitter: Arc<dyn Emitter>,
    /// Reads the outbox from the lane's mark.
    pub reader: OutboxReader,
    /// Which items of its tenants go out.
    pub filter: ItemFilter,
    /// Items left out behind the last batch.
    pub left_out: u64,
    /// Whether tenants may be parted from it, or it is that of one.
    pub(crate) role: Role,
    /// Writes marks and quarantined items.
    pub committer: Committer,
    /// For waits and times.
    pub clock: Arc<dyn Clock>,
    /// Where all lanes are shown.
    pub watch: Watch,
    /// Where its health is shown.
    pub health: Arc<Mutex<LaneHealth>>,
    /// Mark to begin at.
    pub mark: LaneMark,
    /// Stretches of the outbox that could not be read and are not yet noted.
    pub damaged: Vec<Damage>,
    /// Oldest fetch time in each batch in flight.
    pub in_flight: VecDeque<DateTime<Utc>>,
    /// How long a batch in flight may take to be confirmed after shutdown was asked for.
    pub drain: Duration,
}

/// One batch and the position after its last item.
struct Batch {
    items: Arc<Vec<Envelope>>,
    /// Before its first item.
    begin: Position,
    after: Position,
    /// Items left out before and among them.
    left_out: u64,
}

/// How a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEnd {
    /// Everything up to the published end is delivered.
    CaughtUp,
    /// It was told to stop, or the committer is gone.
    Stopped,
}

impl Lane {
    /// Delivers until `shutdown`; what is in flight then is given a moment to be confirmed. Once
    /// `finish` is cancelled, ends as soon as everything up to the published end is delivered.
    pub async fn run(mut self, shutdown: CancellationToken, finish: CancellationToken) -> LaneEnd {
        let mut end = self.committer.end();
        let mut flying = FuturesOrdered::new();
        let unsent = Arc::new(Unsent::default());
        loop {
            let mut readable = true;
            while unsent.has_room()
                && (flying.is_empty() || !self.is_parted_and_held())
                && readable
                && !shutdown.is_cancelled()
            {
                let published = *end.borrow();
                match self.next_batch(published) {
                    Ok(Some(batch)) => {
                        self.took_off(&batch);
                        let place = Place::taken(&unsent);
                        let insist = matches!(self.role, Role::One(..));
                        flying.push_back(self.send(batch, (place, insist), shutdown.clone()));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.cannot_read(&error);
                        readable = false;
                    }
                }
            }
            if flying.is_empty() {
                // In this order: once the sources are done, the end is the last one.
                let last = finish.is_cancelled();
                let caught_up = readable && self.reader.position() >= *end.borrow();
                if shutdown.is_cancelled() {
                    return LaneEnd::Stopped;
                }
                if caught_up && self.follow(last).await {
                    let passed = self.reader.position();
                    self.show(|health| health.passed = passed);
                    if last {
                        return LaneEnd::CaughtUp;
                    }
                }
                if caught_up && self.goes_back(&shutdown).await {
                    return LaneEnd::CaughtUp;
                }
            }
            tokio::select! {
                Some(sent) = flying.next(), if !flying.is_empty() => match sent {
                    Some((batch, delivered)) => {
                        if !self.confirm(&batch, delivered, &shutdown).await {
                            return LaneEnd::Stopped;
                        }
                    }
                    // Only a shutdown ends a send without a receipt: it and all behind it stay.
                    None => return LaneEnd::Stopped,
                },
                changed = end.changed(), if unsent.has_room() => {
                    if changed.is_err() { return LaneEnd::Stopped }
                }
                () = unsent.changed.notified() => {}
                Some(asks) = asked(&mut self.role) => {
                    self.take_back(asks);
                }
                () = shutdown.cancelled(), if flying.is_empty() => {}
                () = finish.cancelled(), if !finish.is_cancelled() => {}
                () = tokio::time::sleep(READ_AGAIN), if !readable => {}
            }
        }
    }

    /// Reads on until there is something to send. `None` at the end of the outbox.
    fn next_batch(&mut self, end: Position) -> Result<Option<Batch>, StateError> {
        let (mut items_max, bytes_max) = self.emitter.batch_max();
        if self.is_parted_and_held() {
            // Who is held asks with one item.
            items_max = 1;
        }
        while self.reader.position() < end {
            let begin = self.reader.position();
            let delivery = self
                .reader
                .read(end, items_max, bytes_max)
                // What the failed call had read is read again, or the mark would pass it.
                .inspect_err(|_| self.reader.rewind(begin))?;
            self.damaged.extend(delivery.damage);
            if delivery.items.is_empty() {
                continue;
            }
            let read = delivery.items.len();
            let all = self.filter.passes_all(self.id.kind);
            let items = delivery.items.into_iter().map(|item| item.envelope);
            let items: Vec<_> = items
                .filter(|item| all || self.filter.takes(item))
                .collect();
            let left_out = (read - items.len()) as u64;
            self.left_out += left_out;
            self.show(|health| health.excluded += left_out);
            if items.is_empty() {
                continue;
            }
            return Ok(Some(Batch {
                items: Arc::new(items),
                begin,
                after: delivery.next,
                left_out: std::mem::take(&mut self.left_out),
            }));
        }
        Ok(None)
    }

    /// With nothing in flight the mark may pass what is not for this lane; only in large steps,
    /// since each step is a commit, or when it is the last one.
    async fn follow(&mut self, last: bool) -> bool {
        let position = self.reader.position();
        let far = position.segment > self.mark.position.segment
            || position.offset > self.mark.position.offset.saturating_add(FOLLOW_BYTES);
        let moves = far || self.ends_parting(position) || last && position > self.mark.position;
        if self.damaged.is_empty() && !moves {
            return true;
        }
        let mut mark = LaneMark {
            position,
            excluded: self.mark.excluded + self.left_out,
            ..self.mark.clone()
        };
        self.break_off(&mut mark);
        let mut commit = self.damage_noted();
        commit.lanes.push(mark.clone());
        commit.lanes.extend(self.parting_ended(position));
        match self.committer.commit(commit).await {
            Ok(_) => {
                self.end_parting(position);
                self.damaged.clear();
                self.left_out = 0;
                self.show(|health| health.mark = mark.position);
                self.mark = mark;
                true
            }
            Err(error) => {
                tracing::error!(%error, lane = %self.id.emitter, "the lane's mark could not be moved");
                false
            }
        }
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

    fn took_off(&mut self, batch: &Batch) {
        let oldest = batch.items.iter().map(|item| item.fetched_at).min();
        self.in_flight.push_back(oldest.unwrap_or_default());
        let first = self.in_flight.front().copied();
        let count = self.in_flight.len();
        self.show(|health| {
            health.oldest = first;
            health.in_flight = count;
        });
    }
}

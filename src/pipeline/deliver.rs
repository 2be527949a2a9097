//! A lane: reads its kind of items from the outbox, hands them to its emitter in batches, and moves
//! its mark over the contiguous prefix that the receiver has confirmed.
//!
//! Several batches are in flight; how many requests a receiver gets at a time is its emitter's to know, and
//! what is sent and only waits for a receipt holds nothing up. The mark never passes one that is not confirmed, so a crash
//! sends again what was in flight, as the same bytes. A refused item is quarantined, never
//! dropped. A receiver that is away or refuses us is tried again for ever; what waits is kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_emitters::{Delivered, EmitError, Emitter, Kept};
use exfilwatch_model::{Clock, Envelope, StreamId, TenantId};
use exfilwatch_state::{
    Commit, Damage, LaneId, LaneMark, OutboxReader, Position, Quarantined, StateError,
};
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::pipeline::committer::Committer;
use crate::pipeline::filter::ItemFilter;
use crate::pipeline::lanes::Start;
use crate::pipeline::notice::Notice;
use crate::pipeline::parting::{Return, Role, ask_back, parted_lane, route_and_tenant};
use crate::pipeline::watch::Watch;

/// Batches of one lane at a time that are not sent yet. Of those that wait for a receipt only, the
/// emitter bounds number and bytes.
const UNSENT_MAX: usize = 4;
/// First wait after a failure; doubled up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between tries.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Wait between tries while held (token, permission, wrong address).
const HOLD_FIRST: Duration = Duration::from_secs(30);
/// Wait before an outbox that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// An idle lane's mark follows the outbox in steps of this many bytes.
const FOLLOW_BYTES: u64 = 1 << 20;
/// Longest wait between tries while held.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// How a lane is doing, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneHealth {
    /// Items confirmed since the lane was made.
    pub delivered: u64,
    /// Items its filter left out since the lane was made.
    pub excluded: u64,
    /// Tries that failed since the process began.
    pub retries: u64,
    /// Items refused for good and quarantined since the process began.
    pub quarantined: u64,
    /// Why the lane is held, and what to do.
    pub held: Option<String>,
    /// Why the last try failed; `None` once one has worked.
    pub failing: Option<String>,
    /// What an operator should know of the receiver, though everything is delivered.
    pub remark: Option<String>,
    /// Bytes of the outbox between its mark and the end when last measured, those of others included.
    pub behind_bytes: u64,
    /// Batches on their way.
    pub in_flight: usize,
    /// When the oldest item that waits was fetched.
    pub oldest: Option<DateTime<Utc>>,
    /// First item not yet confirmed.
    pub mark: Position,
    /// What the receiver keeps itself, where it does.
    pub kept: Option<Kept>,
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

/// How many batches of a lane are not sent yet.
#[derive(Debug, Default)]
struct Unsent {
    count: AtomicUsize,
    changed: Notify,
}

impl Unsent {
    fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < UNSENT_MAX
    }
}

/// The place of one batch among them, until it is sent.
struct Place {
    unsent: Arc<Unsent>,
    is_taken: AtomicBool,
}

impl Place {
    fn taken(unsent: &Arc<Unsent>) -> Self {
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
                if caught_up && self.follow(last).await && last {
                    return LaneEnd::CaughtUp;
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
        let mark = LaneMark {
            position,
            excluded: self.mark.excluded + self.left_out,
            ..self.mark.clone()
        };
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

    /// Stretches that could not be read, as entries of the quarantine and items for the receivers.
    fn damage_noted(&self) -> Commit {
        let mut commit = Commit::default();
        for damage in &self.damaged {
            if let Some(entry) = self.damage_entry(damage) {
                let notice = Notice::outbox_loss(&entry);
                commit.frames.push(notice.frame(entry.stream.tenant()));
                commit.quarantined.push(entry);
            }
        }
        commit
    }

    fn damage_entry(&self, damage: &Damage) -> Option<Quarantined> {
        tracing::error!(
            lane = %self.id.emitter, from = ?damage.from, until = ?damage.until,
            reason = %damage.reason, "a stretch of the outbox is lost"
        );
        let stream = StreamId::new(TenantId::new(TenantId::NONE).ok()?, "outbox", "damage").ok()?;
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

    /// Sends one batch until it is taken; with `insist` also what is held for a tenant's sake only. `None`
    /// only when shutdown came first.
    fn send(
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

    /// Moves the mark over the batch. What was refused is in quarantine before that. `false` when
    /// shutdown came before it could be written: then the batch is sent again.
    async fn confirm(
        &mut self,
        batch: &Batch,
        delivered: Delivered,
        shutdown: &CancellationToken,
    ) -> bool {
        let mut delivered = delivered;
        let (parted, rest) = self.to_part(batch, &delivered);
        if !parted.is_empty() {
            let lanes = parted.iter().map(|start| start.mark.clone()).collect();
            let commit = Commit {
                lanes,
                ..Commit::default()
            };
            if !self.write(commit, shutdown).await {
                return false;
            }
            self.part(parted);
        }
        if !rest.is_empty() {
            let Some(taken) = self.insist(batch, &rest, shutdown).await else {
                return false;
            };
            delivered.refused.extend(taken.refused);
            delivered.held.retain(|held| !rest.contains(&held.index));
        }
        let refused = delivered.refused.len() as u64;
        let not_taken = refused + delivered.held.len() as u64;
        let mut mark = self.mark.clone();
        mark.position = batch.after;
        mark.delivered += (batch.items.len() as u64).saturating_sub(not_taken);
        mark.excluded += batch.left_out;
        let mut commit = self.damage_noted();
        commit.join(self.quarantine(batch, &delivered));
        let must_be_durable = commit != Commit::default();
        commit.lanes.push(mark.clone());
        commit.lanes.extend(self.parting_ended(mark.position));
        if !must_be_durable {
            self.committer.ride_along(commit).await;
        } else if !self.write(commit, shutdown).await {
            return false;
        }
        self.end_parting(mark.position);
        self.damaged.clear();
        self.in_flight.pop_front();
        let oldest = self.in_flight.front().copied();
        let count = self.in_flight.len();
        self.show(|health| {
            health.in_flight = count;
            health.delivered = mark.delivered;
            health.quarantined += refused;
            health.mark = mark.position;
            health.oldest = oldest;
        });
        self.mark = mark;
        true
    }

    /// Such a lane has one batch on its way: what waits is not to fill the memory.
    fn is_parted_and_held(&self) -> bool {
        let health = self
            .health
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        matches!(self.role, Role::One(..)) && health.held.is_some()
    }

    /// The lanes of tenants that are to be parted, since the receiver holds items of theirs; and the items
    /// of those for which there is no room.
    fn to_part(&self, batch: &Batch, delivered: &Delivered) -> (Vec<Start>, Vec<usize>) {
        let (mut starts, mut rest) = (Vec::<Start>::new(), Vec::new());
        for held in &delivered.held {
            let (Role::Whole(parted), Some(item)) = (&self.role, batch.items.get(held.index))
            else {
                continue;
            };
            let tenant = item.stream.tenant();
            let is_new = |start: &Start| start.mark.lane == parted_lane(&self.id, tenant);
            if parted.is_parted(tenant) || starts.iter().any(is_new) {
                continue;
            }
            if !parted.has_room_for(starts.len() + 1) {
                rest.push(held.index);
                continue;
            }
            tracing::error!(
                lane = %self.id.emitter, route = %self.id.route, kind = self.id.kind.as_str(),
                %tenant, what = %held.what, help = %held.help,
                "the tenant is held; the others' items go on"
            );
            starts.push(Start {
                mark: LaneMark {
                    lane: parted_lane(&self.id, tenant),
                    position: batch.begin,
                    delivered: 0,
                    excluded: 0,
                    retired: false,
                },
                emitter: self.emitter.clone(),
                filter: self.filter.clone(),
                parted: Some((tenant.clone(), format!("{}: {}", held.what, held.help))),
            });
        }
        (starts, rest)
    }

    /// Sends items alone until they are taken. Their places in the receipt are those in the batch.
    async fn insist(
        &mut self,
        batch: &Batch,
        places: &[usize],
        shutdown: &CancellationToken,
    ) -> Option<Delivered> {
        let items = places.iter().filter_map(|at| batch.items.get(*at).cloned());
        let alone = Batch {
            items: Arc::new(items.collect()),
            begin: batch.begin,
            after: batch.after,
            left_out: 0,
        };
        let place = Place::taken(&Arc::default());
        let sending = self.send(alone, (place, true), shutdown.clone());
        let turning_down = async {
            if let Role::Whole(parted) = &mut self.role {
                parted.turn_down().await;
            }
            std::future::pending::<()>().await;
        };
        let (_, mut taken) = tokio::select! {
            sent = sending => sent?,
            () = turning_down => return None,
        };
        for refusal in &mut taken.refused {
            refusal.index = places.get(refusal.index).copied().unwrap_or(usize::MAX);
        }
        Some(taken)
    }

    /// Runs the lanes of tenants whose marks are written now.
    fn part(&mut self, starts: Vec<Start>) {
        for start in starts {
            if let (Role::Whole(parted), Some((tenant, _))) = (&mut self.role, start.parted.clone())
            {
                self.reader.leave_out(tenant.clone(), None);
                parted.part(tenant, start);
            }
        }
    }

    fn take_back(&mut self, asks: Return) {
        let read = self.reader.position();
        let Role::Whole(parted) = &mut self.role else {
            return;
        };
        if let Some((tenant, at)) = parted.take_back(asks, read) {
            tracing::info!(
                lane = %self.id.emitter, route = %self.id.route, kind = self.id.kind.as_str(),
                %tenant, "the receiver takes the tenant's items again"
            );
            self.reader.leave_out(tenant, Some(at));
        }
    }

    /// A parted lane that has caught up asks to give its tenant back.
    async fn goes_back(&self, shutdown: &CancellationToken) -> bool {
        let Role::One(tenant, whole) = &self.role else {
            return false;
        };
        let asking = ask_back(tenant, whole, self.reader.position());
        let taken = shutdown.run_until_cancelled(asking).await == Some(true);
        if taken {
            self.watch.forget_lane(&self.id);
        }
        taken
    }

    fn ends_parting(&self, position: Position) -> bool {
        matches!(&self.role, Role::Whole(parted) if parted.ends_some(position))
    }

    fn parting_ended(&self, position: Position) -> Vec<LaneMark> {
        match &self.role {
            Role::Whole(parted) => parted.ended(&self.id, position),
            Role::One(..) => Vec::new(),
        }
    }

    fn end_parting(&mut self, position: Position) {
        if let Role::Whole(parted) = &mut self.role {
            for tenant in parted.end(position) {
                self.reader.take_again(&tenant);
            }
        }
    }

    /// Commits, again and again until it is written or shutdown comes.
    async fn write(&self, commit: Commit, shutdown: &CancellationToken) -> bool {
        let mut wait = BACKOFF_FIRST;
        while let Err(error) = self.committer.commit(commit.clone()).await {
            tracing::error!(%error, lane = %self.id.emitter, "what a receiver did not take could not be noted yet");
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(BACKOFF_MAX),
                () = shutdown.cancelled() => return false,
            }
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
            // A parted lane is its route's: that is where it is sent again.
            let lane = LaneId {
                route: route_and_tenant(&self.id).0.to_owned(),
                ..self.id.clone()
            };
            let reason = refusal.reason.clone();
            let entry = Quarantined::refused(lane, item, reason, self.clock.now());
            commit.quarantined.push(entry);
        }
        commit
    }
}

/// The next tenant that wants to go back to the lane it was parted from.
async fn asked(role: &mut Role) -> Option<Return> {
    match role {
        Role::Whole(parted) => parted.asked().await,
        Role::One(..) => None,
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

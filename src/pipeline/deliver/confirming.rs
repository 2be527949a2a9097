//! What a receipt writes: the mark over the batch, and before it what was refused or could not be read.

use exfilwatch_emitters::Delivered;
use exfilwatch_model::{StreamId, TenantId};
use exfilwatch_state::{Commit, Damage, LaneId, LaneMark, Quarantined};
use tokio_util::sync::CancellationToken;

use super::{BACKOFF_FIRST, BACKOFF_MAX, Batch, Lane};
use crate::pipeline::notice::Notice;
use crate::pipeline::parting::route_and_tenant;

impl Lane {
    /// Moves the mark over the batch. What was refused is in quarantine before that. `false` when
    /// shutdown came before it could be written: then the batch is sent again.
    pub(super) async fn confirm(
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
        self.break_off(&mut mark);
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
            health.passed = mark.position;
            health.oldest = oldest;
        });
        self.mark = mark;
        true
    }

    /// Stretches that could not be read, as entries of the quarantine and items for the receivers.
    pub(super) fn damage_noted(&self) -> Commit {
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

    /// What was lost to the lane is missing where it ends.
    pub(super) fn break_off(&self, mark: &mut LaneMark) {
        if let Some(unbroken) = mark.unbroken.as_mut().filter(|_| !self.damaged.is_empty()) {
            unbroken.since = self.clock.now();
        }
    }

    pub(super) fn damage_entry(&self, damage: &Damage) -> Option<Quarantined> {
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

    /// Commits, again and again until it is written or shutdown comes.
    pub(super) async fn write(&self, commit: Commit, shutdown: &CancellationToken) -> bool {
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

    pub(super) fn quarantine(&self, batch: &Batch, delivered: &Delivered) -> Commit {
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

//! A lane's side of parting ([`crate::pipeline::parting`]): which tenants leave it, and which come back.

use std::sync::Arc;

use exfilwatch_emitters::Delivered;
use exfilwatch_state::{LaneMark, Position};
use tokio_util::sync::CancellationToken;

use super::sending::Place;
use super::{Batch, Lane};
use crate::pipeline::lanes::Start;
use crate::pipeline::parting::{Return, Role, ask_back, parted_lane};

impl Lane {
    /// Such a lane has one batch on its way: what waits is not to fill the memory.
    pub(super) fn is_parted_and_held(&self) -> bool {
        let health = self
            .health
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        matches!(self.role, Role::One(..)) && health.held.is_some()
    }

    /// The lanes of tenants that are to be parted, since the receiver holds items of theirs; and the items
    /// of those for which there is no room.
    pub(super) fn to_part(&self, batch: &Batch, delivered: &Delivered) -> (Vec<Start>, Vec<usize>) {
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
                    unbroken: None,
                },
                emitter: self.emitter.clone(),
                filter: self.filter.clone(),
                parted: Some((tenant.clone(), format!("{}: {}", held.what, held.help))),
            });
        }
        (starts, rest)
    }

    /// Sends items alone until they are taken. Their places in the receipt are those in the batch.
    pub(super) async fn insist(
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
    pub(super) fn part(&mut self, starts: Vec<Start>) {
        for start in starts {
            if let (Role::Whole(parted), Some((tenant, _))) = (&mut self.role, start.parted.clone())
            {
                self.reader.leave_out(tenant.clone(), None);
                parted.part(tenant, start);
            }
        }
    }

    pub(super) fn take_back(&mut self, asks: Return) {
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
    pub(super) async fn goes_back(&self, shutdown: &CancellationToken) -> bool {
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

    pub(super) fn ends_parting(&self, position: Position) -> bool {
        matches!(&self.role, Role::Whole(parted) if parted.ends_some(position))
    }

    pub(super) fn parting_ended(&self, position: Position) -> Vec<LaneMark> {
        match &self.role {
            Role::Whole(parted) => parted.ended(&self.id, position),
            Role::One(..) => Vec::new(),
        }
    }

    pub(super) fn end_parting(&mut self, position: Position) {
        if let Role::Whole(parted) = &mut self.role {
            for tenant in parted.end(position) {
                self.reader.take_again(&tenant);
            }
        }
    }
}

/// The next tenant that wants to go back to the lane it was parted from.
pub(super) async fn asked(role: &mut Role) -> Option<Return> {
    match role {
        Role::Whole(parted) => parted.asked().await,
        Role::One(..) => None,
    }
}

//! Parting: a receiver that does not take what is one tenant's (an index of its own that is not there)
//! must not hold the others. The tenant is parted from the lane: it has a lane, and so a mark, of its own,
//! named `ROUTE@TENANT`, and the lane goes on without it.
//!
//! The new mark is durable before the lane's own mark passes what is held. Until then a crash finds the
//! tenant parted and the lane not yet beyond it, which comes to the same: what lies before the new mark is
//! confirmed. Once the receiver takes the tenant's items again and the parted lane has caught up, the
//! tenant goes back: the lane takes its frames from that position on, and the parted mark is retired in the
//! commit by which the lane's mark comes there. Before that a restart finds the tenant still parted.

use std::collections::BTreeMap;

use exfilwatch_model::TenantId;
use exfilwatch_state::{LaneId, LaneMark, Position};
use tokio::sync::{mpsc, oneshot};

use crate::pipeline::lanes::{Runner, Start};

/// Most tenants parted from a lane: each reads the outbox for itself. One more holds the lane.
pub const PARTED_MAX: usize = 64;
/// Stands between a route and the tenant that is parted from it. In the names of neither.
const SEPARATOR: char = '@';

/// A lane's place in this.
#[derive(Debug)]
pub(crate) enum Role {
    /// It has all tenants of its route but those that are parted from it.
    Whole(Box<Parted>),
    /// It has one tenant, parted from another lane; asks that one to take the tenant back.
    One(TenantId, mpsc::Sender<Return>),
}

/// The tenants that are parted from a lane.
#[derive(Debug)]
pub(crate) struct Parted {
    runner: Runner,
    /// Those that are parted, and those that have gone back from a position on which the lane's mark has
    /// not yet come to.
    tenants: BTreeMap<TenantId, Option<Position>>,
    ask: mpsc::Sender<Return>,
    asked: mpsc::Receiver<Return>,
}

/// What a parted lane asks when it has caught up.
#[derive(Debug)]
pub(crate) struct Return {
    tenant: TenantId,
    /// Everything of the tenant before it is delivered.
    at: Position,
    /// Whether the lane takes the tenant from there on.
    reply: oneshot::Sender<bool>,
}

/// The lane of a tenant that is parted from another one.
pub(crate) fn parted_lane(lane: &LaneId, tenant: &TenantId) -> LaneId {
    LaneId {
        route: format!("{}{SEPARATOR}{tenant}", lane.route),
        ..lane.clone()
    }
}

/// The route of a lane, and the tenant that is parted from it.
pub fn route_and_tenant(lane: &LaneId) -> (&str, Option<TenantId>) {
    match lane.route.split_once(SEPARATOR) {
        Some((route, tenant)) => (route, tenant.parse().ok()),
        None => (&lane.route, None),
    }
}

impl Parted {
    /// `tenants` are those whose lanes are running already and ask by `ask`.
    pub(crate) fn new(
        runner: Runner,
        tenants: impl IntoIterator<Item = TenantId>,
        (ask, asked): (mpsc::Sender<Return>, mpsc::Receiver<Return>),
    ) -> Self {
        Self {
            runner,
            tenants: tenants.into_iter().map(|tenant| (tenant, None)).collect(),
            ask,
            asked,
        }
    }

    /// The tenants.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenants.keys()
    }

    /// Whether the tenant has a lane of its own.
    pub(crate) fn is_parted(&self, tenant: &TenantId) -> bool {
        self.tenants.get(tenant) == Some(&None)
    }

    /// Whether so many more may be parted.
    pub(crate) fn has_room_for(&self, more: usize) -> bool {
        self.tenants.len() + more <= PARTED_MAX
    }

    /// A tenant is parted: its lane begins to run.
    pub(crate) fn part(&mut self, tenant: TenantId, start: Start) {
        self.runner
            .run(start, Role::One(tenant.clone(), self.ask.clone()));
        self.tenants.insert(tenant, None);
    }

    /// While the lane itself is held, tenants with a lane of their own are better off there.
    pub(crate) async fn turn_down(&mut self) {
        while let Some(asks) = self.asked.recv().await {
            // A parted lane that no longer waits for the answer goes on as it was.
            let _gone = asks.reply.send(false);
        }
    }

    /// A tenant wants to go back.
    pub(crate) async fn asked(&mut self) -> Option<Return> {
        self.asked.recv().await
    }

    /// Takes a tenant back, where the lane has not read beyond its position. Gives the tenant and the
    /// position from which the lane has it again.
    pub(crate) fn take_back(
        &mut self,
        asks: Return,
        read: Position,
    ) -> Option<(TenantId, Position)> {
        let Return { tenant, at, reply } = asks;
        let taken = read <= at && self.is_parted(&tenant);
        // A parted lane that no longer waits for the answer goes on as it was.
        if reply.send(taken).is_err() || !taken {
            return None;
        }
        self.tenants.insert(tenant.clone(), Some(at));
        Some((tenant, at))
    }

    /// Whether a mark at the position ends the parting of some tenant.
    pub(crate) fn ends_some(&self, mark: Position) -> bool {
        let mut back = self.tenants.values().flatten();
        back.any(|at| *at <= mark)
    }

    /// The marks that are retired when the lane's comes to the position.
    pub(crate) fn ended(&self, lane: &LaneId, mark: Position) -> Vec<LaneMark> {
        let ended = self.tenants.iter().filter_map(|(tenant, at)| {
            let position = at.filter(|at| *at <= mark)?;
            Some(LaneMark {
                lane: parted_lane(lane, tenant),
                position,
                delivered: 0,
                excluded: 0,
                retired: true,
                unbroken: None,
            })
        });
        ended.collect()
    }

    /// The lane's mark has come to the position: these tenants are the lane's again.
    pub(crate) fn end(&mut self, mark: Position) -> Vec<TenantId> {
        let ended = |at: &Option<Position>| at.is_some_and(|at| at <= mark);
        let tenants = self.tenants.iter().filter(|(_, at)| ended(at));
        let tenants: Vec<TenantId> = tenants.map(|(tenant, _)| tenant.clone()).collect();
        self.tenants.retain(|_, at| !ended(at));
        tenants
    }
}

/// Asks the lane from which it was parted to take the tenant back.
pub(crate) async fn ask_back(
    tenant: &TenantId,
    whole: &mpsc::Sender<Return>,
    at: Position,
) -> bool {
    let (reply, answer) = oneshot::channel();
    let asks = Return {
        tenant: tenant.clone(),
        at,
        reply,
    };
    whole.send(asks).await.is_ok() && answer.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_model::Kind;

    #[test]
    fn a_parted_lane_is_named_after_its_route_and_tenant() {
        let lane = LaneId {
            emitter: "splunk_hec.main".into(),
            route: "all".into(),
            kind: Kind::Events,
        };
        let tenant: TenantId = "contoso".parse().unwrap();
        let parted = parted_lane(&lane, &tenant);
        assert_eq!(parted.route, "all@contoso");
        assert_eq!(route_and_tenant(&parted), ("all", Some(tenant)));
        assert_eq!(route_and_tenant(&lane), ("all", None));
    }
}

//! For whom fetching stands still, because the outbox is near its budget.
//!
//! The vendor keeps what we do not take, so waiting loses nothing. Who waits are the tenants of the lanes
//! that hold the outbox; when that does not help, everybody, so that the disk stays within the budget.

use std::collections::BTreeMap;

use exfilwatch_model::{Patterns, TenantId};
use exfilwatch_state::{Filter, LaneId, OutboxUsage, Tenants};

use crate::pipeline::parting::route_and_tenant;

/// Above this share of the budget, in percent, the tenants of lanes that are far behind wait.
const NEAR_PERCENT: u64 = 75;
/// Below this share they go on.
const RESUME_PERCENT: u64 = 60;
/// Once everybody waits: below this share only the tenants of lanes far behind do.
const RELIEF_PERCENT: u64 = 90;
/// A lane is far behind when it holds this share of the budget.
const FAR_BEHIND_PERCENT: u64 = 25;
/// Segments in a budget: what is kept for a lane is kept by whole segments.
const SEGMENTS_OF_BUDGET: u64 = 64;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// For whom fetching is paused.
#[derive(Debug, Clone, Default)]
pub struct Paused {
    everybody: bool,
    lanes: Vec<LaneTenants>,
}

/// Whose items a lane takes.
#[derive(Debug, Clone)]
pub struct LaneTenants {
    /// The lane.
    pub lane: LaneId,
    /// Lists that all take the tenant; none takes every tenant.
    pub lists: Vec<Patterns>,
}

impl LaneTenants {
    /// Of a lane that was parted from another one for a tenant, while it runs.
    pub(crate) fn of_parted(lane: &LaneId) -> Option<Self> {
        let tenant = route_and_tenant(lane).1?;
        Some(Self {
            lane: lane.clone(),
            lists: vec![Patterns::new(&[tenant.to_string()])],
        })
    }

    /// What the lane wants of the outbox.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            kind: self.lane.kind,
            tenants: Tenants::Matching {
                lists: self.lists.clone(),
                except: BTreeMap::new(),
            },
        }
    }

    fn take(&self, tenant: &TenantId) -> bool {
        self.lists.iter().all(|list| list.take(tenant.as_str()))
    }
}

impl Paused {
    /// Whether this tenant waits.
    pub fn holds(&self, tenant: &TenantId) -> bool {
        self.everybody || self.lanes.iter().any(|lane| lane.take(tenant))
    }

    /// Whether anybody waits.
    pub fn any(&self) -> bool {
        self.everybody || !self.lanes.is_empty()
    }

    /// Whether all tenants wait, whatever their lanes.
    pub fn holds_everybody(&self) -> bool {
        self.everybody
    }

    /// The lanes whose tenants wait.
    pub fn lanes(&self) -> impl Iterator<Item = &LaneId> {
        self.lanes.iter().map(|tenants| &tenants.lane)
    }

    /// Whether it is the same for everybody.
    pub fn is(&self, other: &Self) -> bool {
        self.everybody == other.everybody && self.lanes().eq(other.lanes())
    }

    /// For whom it is paused from now on.
    pub(crate) fn decide(&self, usage: &OutboxUsage, budget: u64, tenants: &[LaneTenants]) -> Self {
        let share = |percent| budget / 100 * percent;
        let near = if self.any() {
            RESUME_PERCENT
        } else {
            NEAR_PERCENT
        };
        if usage.bytes <= share(near) {
            return Self::default();
        }
        let far_behind = |lane: &LaneId| {
            let held = usage.lanes.iter().find(|(known, _)| known == lane);
            held.is_some_and(|(_, bytes)| *bytes >= share(FAR_BEHIND_PERCENT))
        };
        let full = if self.everybody { RELIEF_PERCENT } else { 100 };
        let parted = usage
            .lanes
            .iter()
            .filter_map(|(lane, _)| LaneTenants::of_parted(lane));
        Self {
            everybody: usage.bytes > share(full),
            lanes: tenants
                .iter()
                .cloned()
                .chain(parted)
                .filter(|of| far_behind(&of.lane))
                .collect(),
        }
    }
}

/// How large a segment may grow under a budget.
pub(crate) fn segment_bytes_max(budget: u64) -> u64 {
    (budget / SEGMENTS_OF_BUDGET).max(SEGMENT_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_model::Kind;

    fn lane(route: &str) -> LaneId {
        LaneId {
            emitter: "splunk_hec.main".into(),
            route: route.into(),
            kind: Kind::Events,
        }
    }

    fn tenants(route: &str, lists: &[&str]) -> LaneTenants {
        let list = lists.iter().map(ToString::to_string).collect::<Vec<_>>();
        LaneTenants {
            lane: lane(route),
            lists: vec![Patterns::new(&list)],
        }
    }

    fn usage(bytes: u64, lanes: &[(&str, u64)]) -> OutboxUsage {
        OutboxUsage {
            bytes,
            segments: 1,
            lanes: lanes
                .iter()
                .map(|(name, held)| (lane(name), *held))
                .collect(),
        }
    }

    fn holds(paused: &Paused) -> [bool; 2] {
        ["contoso", "fabrikam"].map(|name| paused.holds(&TenantId::new(name).unwrap()))
    }

    #[test]
    fn only_the_tenants_of_a_lane_far_behind_wait_until_there_is_room() {
        let all = [tenants("eu", &["contoso"]), tenants("us", &["fabrikam"])];
        let before = Paused::default();
        let decide = |before: &Paused, bytes, eu, us| {
            before.decide(&usage(bytes, &[("eu", eu), ("us", us)]), 1_000, &all)
        };
        assert!(!decide(&before, 750, 700, 10).any(), "not yet near");
        let paused = decide(&before, 760, 700, 240);
        assert_eq!(holds(&paused), [true, false]);
        assert_eq!(
            holds(&decide(&paused, 610, 600, 240)),
            [true, false],
            "still"
        );
        assert!(!decide(&paused, 600, 600, 10).any());
        assert!(
            !decide(&before, 610, 600, 10).any(),
            "resuming is not pausing"
        );
        assert_eq!(holds(&decide(&paused, 900, 600, 260)), [true, true], "both");
    }

    #[test]
    fn at_the_budget_everybody_waits_also_where_no_lane_alone_is_far_behind() {
        let all: Vec<_> = (0..6)
            .map(|n| tenants(&n.to_string(), &["contoso"]))
            .collect();
        let held: Vec<_> = ["0", "1", "2", "3", "4", "5"]
            .map(|name| (name, 200))
            .into();
        let decide = |before: &Paused, bytes| before.decide(&usage(bytes, &held), 1_000, &all);
        assert!(!decide(&Paused::default(), 1_000).any());
        let everybody = decide(&Paused::default(), 1_001);
        assert_eq!(holds(&everybody), [true, true]);
        assert_eq!(
            holds(&decide(&everybody, 950)),
            [true, true],
            "not to and fro"
        );
        assert!(!decide(&everybody, 900).any());
    }
}

//! Which lanes there are and where they begin: configured ones at their stored marks, new ones at the
//! end of the outbox; stored ones that are no longer configured are retired aloud.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use exfilwatch_emitters::Emitter;
use exfilwatch_state::{
    Commit, Filter, LaneId, LaneMark, OutboxReader, State, StateError, StateStore, Tenants,
};

use crate::pipeline::Route;
use crate::pipeline::deliver::Lane;
use crate::pipeline::filter::ItemFilter;
use crate::pipeline::worker::Shared;

/// A lane before it runs.
#[derive(Debug)]
pub(crate) struct Start {
    mark: LaneMark,
    reader: OutboxReader,
    emitter: Arc<dyn Emitter>,
    filter: ItemFilter,
}

/// All lanes before they run.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) starts: Vec<Start>,
    /// The marks of all lanes, to be committed at once.
    pub(crate) marks: Commit,
}

impl Start {
    pub(crate) fn into_lane(self, shared: &Shared, drain: Duration) -> Lane {
        let health = shared.watch.lane(&self.mark.lane);
        {
            let mut health = health
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            health.delivered = self.mark.delivered;
            health.excluded = self.mark.excluded;
            health.mark = self.mark.position;
        }
        Lane {
            id: self.mark.lane.clone(),
            emitter: self.emitter,
            reader: self.reader,
            filter: self.filter,
            left_out: 0,
            committer: shared.committer.clone(),
            clock: shared.clock.clone(),
            health,
            mark: self.mark,
            damaged: Vec::new(),
            in_flight: VecDeque::new(),
            drain,
        }
    }
}

/// Finds the marks of the configured lanes and retires the others.
pub(crate) fn open(state: &State, routes: &[Route]) -> Result<Opened, StateError> {
    let store = state.store();
    let configured = |lane: &LaneId| {
        let mut routes = routes.iter();
        routes.any(|route| {
            route.emitter.name() == lane.emitter
                && route.name == lane.route
                && route.kinds.contains(&lane.kind)
        })
    };
    let mut gone = store.lanes()?;
    gone.retain(|mark| !mark.retired && !configured(&mark.lane));
    let mut opened = Opened {
        starts: Vec::new(),
        marks: Commit::default(),
    };
    for route in routes {
        for kind in &route.kinds {
            let lane = LaneId {
                emitter: route.emitter.name().to_owned(),
                route: route.name.clone(),
                kind: *kind,
            };
            let mark = match store.lane(&lane)?.filter(|mark| !mark.retired) {
                Some(mark) => mark,
                None => new_mark(state, lane, &gone)?,
            };
            let filter = Filter {
                kind: *kind,
                tenants: Tenants::Matching {
                    lists: route.filter.tenants(),
                    except: BTreeMap::new(),
                },
            };
            let reader = state.reader(mark.position, filter);
            opened.marks.lanes.push(mark.clone());
            opened.starts.push(Start {
                mark,
                reader,
                emitter: route.emitter.clone(),
                filter: route.filter.clone(),
            });
        }
    }
    for mark in gone {
        let successor = opened.starts.iter().any(|start| {
            start.mark.lane.emitter == mark.lane.emitter && start.mark.lane.kind == mark.lane.kind
        });
        tracing::warn!(
            emitter = %mark.lane.emitter, route = %mark.lane.route, kind = mark.lane.kind.as_str(),
            "the lane is no longer configured and is retired; {}",
            if successor {
                "new routes of the emitter go on where it was"
            } else {
                "what it had not delivered stays undelivered"
            }
        );
        opened.marks.lanes.push(LaneMark {
            retired: true,
            ..mark
        });
    }
    Ok(opened)
}

/// A new lane, or one that comes back after it was retired. It goes on where the lanes of its emitter and
/// kind were that are retired now: routes that are named anew leave nothing behind.
fn new_mark(state: &State, lane: LaneId, gone: &[LaneMark]) -> Result<LaneMark, StateError> {
    let comes_back = state.store().lane(&lane)?.is_some();
    let predecessors = gone
        .iter()
        .filter(|mark| mark.lane.emitter == lane.emitter && mark.lane.kind == lane.kind);
    let position = match predecessors.map(|mark| mark.position).min() {
        Some(position) => position,
        None if comes_back => state.outbox_end(),
        None => state.lane_start(&lane)?,
    };
    tracing::info!(
        emitter = %lane.emitter, route = %lane.route, kind = lane.kind.as_str(),
        "a new lane begins"
    );
    Ok(LaneMark {
        lane,
        position,
        delivered: 0,
        excluded: 0,
        retired: false,
    })
}

//! Which lanes there are and where they begin: configured ones at their stored marks, new ones at the
//! end of the outbox; stored ones that are no longer configured are retired aloud.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use exfilwatch_emitters::Emitter;
use exfilwatch_state::{
    Commit, Filter, LaneId, LaneMark, OutboxReader, State, StateError, StateStore,
};

use crate::pipeline::Route;
use crate::pipeline::deliver::Lane;
use crate::pipeline::worker::Shared;

/// Name of the route of lanes that take every tenant.
const ROUTE_ALL: &str = "all";

/// A lane before it runs.
#[derive(Debug)]
pub(crate) struct Start {
    mark: LaneMark,
    reader: OutboxReader,
    emitter: Arc<dyn Emitter>,
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
            health.mark = self.mark.position;
        }
        Lane {
            id: self.mark.lane.clone(),
            emitter: self.emitter,
            reader: self.reader,
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
    let mut opened = Opened {
        starts: Vec::new(),
        marks: Commit::default(),
    };
    for route in routes {
        for kind in &route.kinds {
            let emitter = route.emitter.name().to_owned();
            let lane = LaneId {
                emitter,
                route: ROUTE_ALL.into(),
                kind: *kind,
            };
            let mark = match store.lane(&lane)?.filter(|mark| !mark.retired) {
                Some(mark) => mark,
                None => new_mark(state, lane)?,
            };
            let filter = Filter {
                kind: *kind,
                tenants: None,
            };
            let reader = state.reader(mark.position, filter);
            opened.marks.lanes.push(mark.clone());
            opened.starts.push(Start {
                mark,
                reader,
                emitter: route.emitter.clone(),
            });
        }
    }
    for mark in store.lanes()? {
        if !mark.retired
            && !opened
                .marks
                .lanes
                .iter()
                .any(|known| known.lane == mark.lane)
        {
            tracing::warn!(
                emitter = %mark.lane.emitter, kind = mark.lane.kind.as_str(),
                "the lane is no longer configured and is retired; what it had not delivered stays undelivered"
            );
            opened.marks.lanes.push(LaneMark {
                retired: true,
                ..mark
            });
        }
    }
    Ok(opened)
}

/// A new lane, or one that comes back after it was retired.
fn new_mark(state: &State, lane: LaneId) -> Result<LaneMark, StateError> {
    let comes_back = state.store().lane(&lane)?.is_some();
    let position = if comes_back {
        state.outbox_end()
    } else {
        state.lane_start(&lane)?
    };
    tracing::info!(emitter = %lane.emitter, kind = lane.kind.as_str(), "a new lane begins");
    Ok(LaneMark {
        lane,
        position,
        delivered: 0,
        retired: false,
    })
}

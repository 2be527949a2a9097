//! Which lanes there are and where they begin: configured ones at their stored marks, new ones at the
//! end of the outbox; stored ones that are no longer configured are retired aloud. A tenant that was parted
//! from a lane is so still.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_emitters::Emitter;
use exfilwatch_model::TenantId;
use exfilwatch_state::{
    Commit, Filter, LaneId, LaneMark, OutboxReader, State, StateError, StateStore, Tenants,
    Unbroken,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pipeline::Route;
use crate::pipeline::again::SendAgain;
use crate::pipeline::deliver::{Lane, LaneEnd};
use crate::pipeline::filter::ItemFilter;
use crate::pipeline::parting::{Parted, Role, parted_lane, route_and_tenant};
use crate::pipeline::pause::LaneTenants;
use crate::pipeline::supervise::Supervisor;
use crate::pipeline::worker::Shared;

/// Why a tenant that was parted before the process began is taken to be held until it has been asked.
const PARTED_BEFORE: &str = "its tenant was held when the process began: asked again";

/// A lane before it runs.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) mark: LaneMark,
    pub(crate) emitter: Arc<dyn Emitter>,
    pub(crate) filter: ItemFilter,
    /// The tenant it was parted for, and why it is held.
    pub(crate) parted: Option<(TenantId, String)>,
}

/// A lane, and the lanes that are parted from it, before they run.
#[derive(Debug)]
pub(crate) struct Family {
    whole: Start,
    parted: Vec<Start>,
}

/// All lanes before they run.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) families: Vec<Family>,
    /// The marks of all lanes, to be committed at once.
    pub(crate) marks: Commit,
}

/// Runs lanes, also those that are parted from others meanwhile. All clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) shared: Shared,
    /// Folder of the segments.
    pub(crate) outbox: PathBuf,
    /// The state folder, where the bytes of refused items are.
    pub(crate) state_folder: PathBuf,
    /// How long what is in flight at the end may take to be confirmed.
    pub(crate) drain: Duration,
    pub(crate) tasks: TaskTracker,
    /// What sends out of quarantine beside them. It is waited for, too: emitters say good-bye to their
    /// receivers when the last who has one lets go of it.
    pub(crate) beside: TaskTracker,
    /// Lanes end once they have caught up.
    pub(crate) finish: CancellationToken,
    /// Lanes end; after the sources, so that what they committed may still go out.
    pub(crate) stop: CancellationToken,
    /// Lanes that have not said that they have caught up.
    pub(crate) behind: Arc<AtomicUsize>,
}

impl Runner {
    /// Runs a lane and those parted from it.
    pub(crate) fn run_family(&self, family: Family) {
        let (ask, asked) = mpsc::channel(1);
        let tenants = family
            .parted
            .iter()
            .filter_map(|start| start.parted.clone());
        let tenants: Vec<TenantId> = tenants.map(|(tenant, _)| tenant).collect();
        for start in family.parted {
            if let Some((tenant, _)) = start.parted.clone() {
                self.run(start, Role::One(tenant, ask.clone()));
            }
        }
        let again = SendAgain {
            lane: family.whole.mark.lane.clone(),
            emitter: family.whole.emitter.clone(),
            store: self.shared.store.clone(),
            committer: self.shared.committer.clone(),
            clock: self.shared.clock.clone(),
            state_folder: self.state_folder.clone(),
            asked: self.shared.again.subscribe(),
        };
        let (stop, supervisor) = (self.stop.clone(), Supervisor::of(&self.shared));
        let sending = async move {
            stop.run_until_cancelled(again.serve()).await;
        };
        self.beside.spawn(async move {
            supervisor
                .or_stop("sending out of quarantine", sending)
                .await;
        });
        let parted = Parted::new(self.clone(), tenants, (ask, asked));
        self.run(family.whole, Role::Whole(Box::new(parted)));
    }

    /// Runs a lane.
    pub(crate) fn run(&self, start: Start, role: Role) {
        let lane = self.lane(start, role);
        let running = tokio::spawn(lane.run(self.stop.clone(), self.finish.clone()));
        let (shared, behind) = (self.shared.clone(), self.behind.clone());
        behind.fetch_add(1, Ordering::SeqCst);
        self.tasks.spawn(async move {
            match running.await {
                Ok(LaneEnd::CaughtUp) => {
                    behind.fetch_sub(1, Ordering::SeqCst);
                }
                Ok(LaneEnd::Stopped) => {}
                Err(error) => {
                    // Not to be mended from here; the next start goes on at the lane's mark.
                    shared
                        .watch
                        .set_fatal(format!("a lane ended by a panic: {error}"));
                    shared.shutdown.cancel();
                }
            }
        });
    }

    fn lane(&self, start: Start, role: Role) -> Lane {
        let Start {
            mark,
            emitter,
            filter,
            parted,
        } = start;
        let tenants = match &role {
            Role::One(tenant, _) => Tenants::One(tenant.clone()),
            Role::Whole(parted) => Tenants::Matching {
                lists: filter.tenants(),
                except: parted
                    .tenants()
                    .map(|tenant| (tenant.clone(), None))
                    .collect(),
            },
        };
        let kind = mark.lane.kind;
        let health = self.shared.watch.lane(&mark.lane);
        {
            let mut health = health
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            health.delivered = mark.delivered;
            health.excluded = mark.excluded;
            health.mark = mark.position;
            health.held = parted.map(|(_, why)| why);
        }
        Lane {
            id: mark.lane.clone(),
            emitter,
            reader: OutboxReader::new(&self.outbox, mark.position, Filter { kind, tenants }),
            filter,
            role,
            committer: self.shared.committer.clone(),
            clock: self.shared.clock.clone(),
            watch: self.shared.watch.clone(),
            health,
            mark,
            damaged: Vec::new(),
            left_out: 0,
            in_flight: VecDeque::new(),
            drain: self.drain,
        }
    }
}

/// Finds the marks of the configured lanes and retires the others.
pub(crate) fn open(
    state: &State,
    routes: &[Route],
    now: DateTime<Utc>,
) -> Result<Opened, StateError> {
    let store = state.store();
    let mut stored = store.lanes()?;
    stored.retain(|mark| !mark.retired);
    let (mut parted, whole): (Vec<_>, Vec<_>) = stored
        .into_iter()
        .partition(|mark| route_and_tenant(&mark.lane).1.is_some());
    let configured: Vec<LaneId> = routes
        .iter()
        .flat_map(|route| route.kinds.iter().map(|kind| route.lane(*kind)))
        .collect();
    let gone: Vec<LaneMark> = whole
        .iter()
        .filter(|mark| !configured.contains(&mark.lane))
        .cloned()
        .collect();
    let mut opened = Opened {
        families: Vec::new(),
        marks: Commit::default(),
    };
    for route in routes {
        for kind in &route.kinds {
            let lane = route.lane(*kind);
            let known = whole.iter().find(|mark| mark.lane == lane).cloned();
            let is_new = known.is_none();
            let mut mark = match known {
                Some(mark) => mark,
                None => new_mark(state, lane.clone(), &gone)?,
            };
            mark.unbroken = Some(unbroken(mark.unbroken, &route.terms, now));
            let was = if is_new {
                inherited(&parted, &mark, &configured)
            } else {
                let own = |was: &&LaneMark| is_of(&was.lane, &lane) && route_of(was) == lane.route;
                parted.iter().filter(own).cloned().collect()
            };
            let family = family(route, mark, was);
            let starts = std::iter::once(&family.whole).chain(&family.parted);
            let marks = starts.map(|start| start.mark.clone());
            opened.marks.lanes.extend(marks);
            opened.families.push(family);
        }
    }
    let kept = &opened.marks.lanes;
    parted.retain(|mark| !kept.iter().any(|kept| kept.lane == mark.lane));
    let gone = gone.into_iter().chain(parted);
    opened
        .marks
        .lanes
        .extend(gone.map(|mark| retired(mark, &configured)));
    Ok(opened)
}

/// A lane and those that were parted from it.
fn family(route: &Route, mark: LaneMark, was: Vec<LaneMark>) -> Family {
    let lane = mark.lane.clone();
    let start = |mark, parted| Start {
        mark,
        emitter: route.emitter.clone(),
        filter: route.filter.clone(),
        parted,
    };
    let mut family = Family {
        whole: start(mark, None),
        parted: Vec::new(),
    };
    let lists = route.filter.tenants();
    for was in was {
        let tenant = route_and_tenant(&was.lane).1;
        let taken = |tenant: &TenantId| lists.iter().all(|list| list.take(tenant.as_str()));
        if let Some(tenant) = tenant.filter(taken) {
            let mark = LaneMark {
                lane: parted_lane(&lane, &tenant),
                ..was
            };
            let parted = Some((tenant, PARTED_BEFORE.to_owned()));
            family.parted.push(start(mark, parted));
        }
    }
    family
}

fn retired(mark: LaneMark, configured: &[LaneId]) -> LaneMark {
    let goes_on = |lane: &LaneId| is_of(lane, &mark.lane);
    tracing::warn!(
        emitter = %mark.lane.emitter, route = %mark.lane.route, kind = mark.lane.kind.as_str(),
        "the lane is no longer configured and is retired; {}",
        if configured.iter().any(goes_on) {
            "routes of the emitter that are new go on where it was"
        } else {
            "what it had not delivered stays undelivered"
        }
    );
    LaneMark {
        retired: true,
        ..mark
    }
}

/// The tenants that were parted from routes that are gone, for a new lane that goes on where those were. Each
/// once, from where the first of them had it.
fn inherited(parted: &[LaneMark], new: &LaneMark, configured: &[LaneId]) -> Vec<LaneMark> {
    let is_gone = |was: &&LaneMark| {
        let mut kept = configured.iter().filter(|lane| **lane != new.lane);
        !kept.any(|lane| is_of(lane, &was.lane) && lane.route == route_of(was))
    };
    let mut first: BTreeMap<Option<TenantId>, LaneMark> = BTreeMap::new();
    for was in parted.iter().filter(|was| is_of(&was.lane, &new.lane)) {
        if !is_gone(&was) {
            continue;
        }
        let tenant = route_and_tenant(&was.lane).1;
        let known = first.entry(tenant).or_insert_with(|| was.clone());
        // Another route may have had the tenant without parting it, and have come less far.
        known.position = known.position.min(was.position).min(new.position);
    }
    first.into_values().collect()
}

/// Whether both are of one emitter and kind.
fn is_of(lane: &LaneId, other: &LaneId) -> bool {
    lane.emitter == other.emitter && lane.kind == other.kind
}

/// A lane on other terms begins anew: what it left out before is missing where it ends.
fn unbroken(known: Option<Unbroken>, terms: &str, now: DateTime<Utc>) -> Unbroken {
    known
        .filter(|known| known.terms == terms)
        .unwrap_or_else(|| Unbroken {
            since: now,
            terms: terms.to_owned(),
        })
}

fn route_of(mark: &LaneMark) -> &str {
    route_and_tenant(&mark.lane).0
}

/// Whose items each lane takes.
pub(crate) fn tenants(routes: &[Route]) -> Vec<LaneTenants> {
    let lanes = routes.iter().flat_map(|route| {
        route.kinds.iter().map(|kind| LaneTenants {
            lane: route.lane(*kind),
            lists: route.filter.tenants(),
        })
    });
    lanes.collect()
}

/// A new lane, or one that comes back after it was retired. It goes on where the lanes of its emitter and
/// kind were that are retired now: routes that are named anew leave nothing behind.
fn new_mark(state: &State, lane: LaneId, gone: &[LaneMark]) -> Result<LaneMark, StateError> {
    let comes_back = state.store().lane(&lane)?.is_some();
    let predecessors = gone.iter().filter(|mark| is_of(&mark.lane, &lane));
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
        unbroken: None,
    })
}

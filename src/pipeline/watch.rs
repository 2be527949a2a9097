//! What can be seen of a running pipeline: per stream and per lane, for `status`, `/metrics`, the
//! heartbeats and the demo's screen. Written by the workers, read by everyone else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use chrono::{DateTime, Utc};
use exfilwatch_detectors::Counters;
use exfilwatch_emitters::Emitter;
use exfilwatch_model::{Finding, Severity, StreamId, Suppression, TenantId};
use exfilwatch_state::LaneId;
use serde::{Deserialize, Serialize};

use crate::pipeline::baselines::Known;
use crate::pipeline::deliver::LaneHealth;
use crate::pipeline::ledger::Account;
use crate::pipeline::step::Counts;
use crate::tuning::Standing;

/// Share of late records above which a longer lag or overlap is suggested.
pub const LATE_SHARE_MAX: f64 = 0.001;

/// How a stream is doing.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StreamHealth {
    /// Records read since the process began.
    pub records: u64,
    /// Of them, seen before.
    pub duplicates: u64,
    /// Of them, quarantined.
    pub malformed: u64,
    /// Latest event time seen.
    pub last_event: Option<DateTime<Utc>>,
    /// Everything before it is delivered or in the outbox.
    pub low_water: Option<DateTime<Utc>>,
    /// Everything before it is complete, or a gap.
    pub complete_until: Option<DateTime<Utc>>,
    /// Seconds of gaps that are not filled.
    pub gap_open_seconds: i64,
    /// Seconds of gaps that cannot be filled and that nobody has acknowledged.
    pub gap_lost_seconds: i64,
    /// Records that only a reconciliation found since the process began.
    pub records_late: u64,
    /// The last reconciliation, as it stands.
    pub reconciled: Option<Account>,
    /// Items that were listed for the first time since the process began.
    pub items_listed: u64,
    /// Items that were fetched to their last page since the process began.
    pub items_fetched: u64,
    /// Items that were given up since the process began; the ledger says why.
    pub items_lost: u64,
    /// Items of work that wait.
    pub open_items: usize,
    /// Last time the vendor answered a listing.
    pub last_success: Option<DateTime<Utc>>,
    /// Listings and fetches that failed since the process began.
    pub failures: u64,
    /// What the stream waits for where nothing is wrong: a subscription's first content.
    pub waiting: Option<String>,
    /// Why the stream is held, and what to do.
    pub held: Option<String>,
}

/// How the configuration was read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// How often it could be used.
    pub used: u64,
    /// How often it could not, or not for all tenants.
    pub refused: u64,
    /// The last time.
    pub last: Option<DateTime<Utc>>,
    /// Why what held before still holds, where the last one could not be used.
    pub why: Option<String>,
}

/// Everything there is to see. Cheap to clone: all clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    shown: Arc<Mutex<Shown>>,
}

/// A copy of what there is to see.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// By stream.
    pub streams: BTreeMap<StreamId, StreamHealth>,
    /// By lane.
    pub lanes: BTreeMap<LaneId, Arc<Mutex<LaneHealth>>>,
    /// The emitters, by name and route; a route may have two. None is kept from being let go.
    pub emitters: Vec<(String, String, Weak<dyn Emitter>)>,
    /// Findings put into the outbox, by detection and severity; revisions count too.
    pub findings: BTreeMap<(String, Severity, bool), u64>,
    /// Findings that were kept from alerting, by tenant, by what, and detection; revisions count too.
    pub suppressed: BTreeMap<(TenantId, Suppression, String), u64>,
    /// The exceptions of all tenants.
    pub exceptions: Vec<Standing>,
    /// Readings of the configuration while the process ran.
    pub reloads: Reloads,
    /// Fetching is paused for some tenants or all, because the outbox nears its budget.
    pub paused: bool,
    /// What each tenant's detectors remember, and which bounds were hit.
    pub detectors: BTreeMap<TenantId, Counters>,
    /// What each tenant's detectors measure events against.
    pub baselines: BTreeMap<TenantId, Vec<Known>>,
    /// Fingerprints that found no room in the seen index: their records may be delivered twice.
    pub seen_not_remembered: usize,
    /// How often a task of the process panicked and was started again, by what it does.
    pub restarts: BTreeMap<&'static str, u64>,
    /// Why the process had to stop by itself.
    pub fatal: Option<String>,
}

impl StreamHealth {
    /// Share of the records delivered that only a reconciliation found. Above
    /// [`LATE_SHARE_MAX`] the ordinary second readings reach back too little.
    pub fn late_share(&self) -> Option<f64> {
        let new = self.records.saturating_sub(self.duplicates);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        (new > 0).then(|| self.records_late as f64 / new as f64)
    }

    /// What to do about too many late records.
    pub fn late_hint(&self) -> Option<String> {
        let share = self.late_share().filter(|share| *share > LATE_SHARE_MAX)?;
        Some(format!(
            "{:.2} % of the records were found by the daily reconciliation only: let the stream be \
             read again over a longer time (google: overlap_seconds, lag_seconds)",
            share * 100.0
        ))
    }
}

impl Watch {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shown of a stream.
    pub fn stream(&self, stream: &StreamId, change: impl FnOnce(&mut StreamHealth)) {
        change(self.shown().streams.entry(stream.clone()).or_default());
    }

    /// A page was committed.
    pub fn page(&self, stream: &StreamId, counts: Counts) {
        self.stream(stream, |health| {
            health.records += counts.records;
            health.duplicates += counts.duplicates;
            health.malformed += counts.malformed;
            health.last_event = health.last_event.max(counts.last_event);
        });
    }

    /// Findings were committed.
    pub fn findings(&self, findings: &[Finding]) {
        let mut shown = self.shown();
        for finding in findings {
            let key = (
                finding.rule.detection.clone(),
                finding.severity,
                finding.alert,
            );
            *shown.findings.entry(key).or_default() += 1;
            if let Some(suppression) = &finding.suppressed {
                let detection = finding.rule.detection.clone();
                let key = (finding.tenant.clone(), suppression.clone(), detection);
                *shown.suppressed.entry(key).or_default() += 1;
            }
        }
    }

    /// The exceptions that hold from now on.
    pub fn exceptions(&self, exceptions: Vec<Standing>) {
        self.shown().exceptions = exceptions;
    }

    /// The configuration was read again; `why` is what is wrong with it.
    pub fn reloaded(&self, at: DateTime<Utc>, why: Option<String>) {
        let reloads = &mut self.shown().reloads;
        *(if why.is_none() {
            &mut reloads.used
        } else {
            &mut reloads.refused
        }) += 1;
        reloads.last = Some(at);
        reloads.why = why;
    }

    /// Shows a lane; returns where its health is to be written.
    pub fn lane(&self, lane: &LaneId) -> Arc<Mutex<LaneHealth>> {
        self.shown().lanes.entry(lane.clone()).or_default().clone()
    }

    /// Shows what an emitter of a route counts.
    pub fn emitter(&self, route: &str, emitter: &Arc<dyn Emitter>) {
        let (name, route) = (emitter.name().to_owned(), route.to_owned());
        let emitters = &mut self.shown().emitters;
        emitters.push((name, route, Arc::downgrade(emitter)));
    }

    /// How far lanes are behind the end of the outbox.
    pub fn lanes_behind(&self, lanes: &[(LaneId, u64)]) {
        let shown = self.shown();
        for (lane, bytes) in lanes {
            if let Some(health) = shown.lanes.get(lane) {
                let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
                health.behind_bytes = *bytes;
            }
        }
    }

    /// A lane is no more: the tenant that was parted into it has gone back.
    pub fn forget_lane(&self, lane: &LaneId) {
        self.shown().lanes.remove(lane);
    }

    /// Fetching is, or is no longer, paused for somebody by the outbox budget.
    pub fn set_paused(&self, paused: bool) {
        self.shown().paused = paused;
    }

    /// What a tenant's detectors remember, and what the seen index could not.
    pub fn memory(&self, tenant: &TenantId, counters: Counters, seen_not_remembered: usize) {
        let mut shown = self.shown();
        shown.detectors.insert(tenant.clone(), counters);
        shown.seen_not_remembered = seen_not_remembered;
    }

    /// What a tenant's detectors measure events against.
    pub fn baselines(&self, tenant: &TenantId, baselines: Vec<Known>) {
        self.shown().baselines.insert(tenant.clone(), baselines);
    }

    /// A task panicked and is started again.
    pub fn restarted(&self, task: &'static str) {
        *self.shown().restarts.entry(task).or_default() += 1;
    }

    /// The process has to stop by itself.
    pub fn set_fatal(&self, why: String) {
        self.shown().fatal = Some(why);
    }

    /// A copy of everything.
    pub fn copy(&self) -> Shown {
        self.shown().clone()
    }
}

impl Shown {
    /// Findings that an exception of a tenant kept from alerting, since the process began.
    pub fn excepted(&self, exception: &Standing) -> u64 {
        let of_it = self.suppressed.iter().filter(|((tenant, by, _), _)| {
            tenant.as_str() == exception.tenant
                && *by == Suppression::Exception(exception.name.clone())
        });
        of_it.map(|(_, count)| count).sum()
    }

    /// Health of a lane as it is now.
    pub fn lane_health(&self, lane: &LaneId) -> LaneHealth {
        self.lanes
            .get(lane)
            .map_or_else(LaneHealth::default, |health| {
                health
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
    }
}

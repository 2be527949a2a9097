//! The status report: what `status` prints and the control socket answers. From a running pipeline
//! where there is one, else from the store alone.

use chrono::{DateTime, Utc};
use exfilwatch_model::{JobId, Suppression, TenantId};
use exfilwatch_state::{StateError, StateStore};
use serde::{Deserialize, Serialize};

use crate::pipeline::baselines::Known;
use crate::pipeline::ledger::IntervalState::{Filled, Lost, Open};
use crate::pipeline::ledger::{self, Account, Interval};
use crate::pipeline::watch::{Reloads, Shown};
use crate::tuning::Standing;

/// Most intervals that a report names.
pub const DUE_MAX: usize = 20;

/// One stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamLine {
    /// `tenant/connector/name`.
    pub stream: String,
    /// Age of the low-water.
    pub lag_seconds: Option<i64>,
    /// Everything before it is delivered or in the outbox.
    pub low_water: Option<DateTime<Utc>>,
    /// Everything before it is complete, or a gap.
    #[serde(default)]
    pub complete_until: Option<DateTime<Utc>>,
    /// Latest event time seen by this process.
    pub last_event: Option<DateTime<Utc>>,
    /// Records read by this process.
    pub records: u64,
    /// Of them, seen before.
    pub duplicates: u64,
    /// Items of work that wait.
    pub open_items: usize,
    /// Items listed for the first time by this process.
    #[serde(default)]
    pub items_listed: u64,
    /// Of them and of earlier ones, fetched whole by this process.
    #[serde(default)]
    pub items_fetched: u64,
    /// Given up by this process; the ledger says why.
    #[serde(default)]
    pub items_lost: u64,
    /// Share of the records of this process that only a reconciliation found.
    #[serde(default)]
    pub late_share: Option<f64>,
    /// What to do about it, where it is large.
    #[serde(default)]
    pub hint: Option<String>,
    /// What the last reconciliation found.
    #[serde(default)]
    pub reconciled: Option<Account>,
    /// What it waits for where nothing is wrong.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Why it is held, and what to do.
    pub held: Option<String>,
}

/// One lane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaneLine {
    /// Emitter, route and kind.
    pub lane: String,
    /// Items confirmed since the lane was made.
    pub delivered: u64,
    /// Tries that failed since the process began.
    pub retries: u64,
    /// Items that its filter left out since the lane was made.
    #[serde(default)]
    pub excluded: u64,
    /// Items refused for good since the process began.
    pub quarantined: u64,
    /// Bytes of the outbox between its mark and the end, those of others included.
    #[serde(default)]
    pub behind_bytes: u64,
    /// Age of the oldest item that waits.
    pub oldest_seconds: Option<i64>,
    /// Why it is held, and what to do.
    pub held: Option<String>,
    /// What to know of its receiver, though everything is delivered.
    #[serde(default)]
    pub remark: Option<String>,
}

/// The whole report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Whether a process answered.
    pub running: bool,
    /// Version of the one that made the report.
    pub version: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Fetching is paused by the outbox budget for the tenants of lanes that are far behind, or for all.
    pub paused: bool,
    /// Streams.
    pub streams: Vec<StreamLine>,
    /// Lanes.
    pub lanes: Vec<LaneLine>,
    /// Intervals that are not filled.
    pub gaps_open: usize,
    /// Intervals that are lost and not acknowledged.
    pub gaps_lost: usize,
    /// Intervals that are lost and acknowledged.
    #[serde(default)]
    pub gaps_acknowledged: usize,
    /// Intervals that were missing and are filled.
    #[serde(default)]
    pub gaps_filled: usize,
    /// The open and the lost ones that somebody has to do something about, at most [`DUE_MAX`].
    #[serde(default)]
    pub due: Vec<Interval>,
    /// Entries in quarantine.
    pub quarantined: usize,
    /// Exceptions from alerts, and what they have covered since the process began.
    #[serde(default)]
    pub exceptions: Vec<ExceptionLine>,
    /// Findings that were kept from alerting since the process began.
    #[serde(default)]
    pub suppressed: Vec<SuppressedLine>,
    /// What rules measure events against, and from when on they do.
    #[serde(default)]
    pub baselines: Vec<Known>,
    /// How the configuration was read again since the process began.
    #[serde(default)]
    pub reloads: Reloads,
}

/// An exception.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExceptionLine {
    /// Its name, detection, owner and last day.
    #[serde(flatten)]
    pub standing: Standing,
    /// Days until it lapses; below zero it has.
    pub days_left: i64,
    /// Findings that it has kept from alerting.
    pub findings: u64,
}

/// Findings of a detection that were kept from alerting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SuppressedLine {
    /// Whose they are.
    pub tenant: String,
    /// `shadow`, or `exception` and its name.
    pub by: String,
    /// The detection.
    pub detection: String,
    /// How many, revisions too.
    pub findings: u64,
}

impl Report {
    /// From a running pipeline.
    pub fn live(
        shown: &Shown,
        store: &dyn StateStore,
        now: DateTime<Utc>,
    ) -> Result<Self, StateError> {
        let streams = shown.streams.iter().map(|(stream, health)| StreamLine {
            stream: stream.to_string(),
            lag_seconds: health.low_water.map(|at| (now - at).num_seconds()),
            low_water: health.low_water,
            complete_until: health.complete_until,
            last_event: health.last_event,
            records: health.records,
            duplicates: health.duplicates,
            open_items: health.open_items,
            items_listed: health.items_listed,
            items_fetched: health.items_fetched,
            items_lost: health.items_lost,
            late_share: health.late_share(),
            hint: health.late_hint(),
            reconciled: health.reconciled.clone(),
            waiting: health.waiting.clone(),
            held: health.held.clone(),
        });
        let lanes = shown.lanes.keys().map(|lane| {
            let health = shown.lane_health(lane);
            LaneLine {
                lane: format!("{}:{}:{}", lane.emitter, lane.route, lane.kind.as_str()),
                delivered: health.delivered,
                retries: health.retries,
                excluded: health.excluded,
                quarantined: health.quarantined,
                behind_bytes: health.behind_bytes,
                oldest_seconds: health.oldest.map(|at| (now - at).num_seconds()),
                held: health.held.or(health.failing),
                remark: health.remark,
            }
        });
        let (streams, lanes) = (streams.collect(), lanes.collect());
        let mut report = Self::with_ledger(true, shown.paused, streams, lanes, store, now)?;
        let exceptions = shown.exceptions.iter().map(|one| ExceptionLine {
            days_left: one.days_left(now),
            findings: shown.excepted(one),
            standing: one.clone(),
        });
        report.exceptions = exceptions.collect();
        let suppressed = shown.suppressed.iter();
        let line = |((tenant, by, detection), count): (&(TenantId, Suppression, String), &u64)| {
            SuppressedLine {
                tenant: tenant.to_string(),
                by: by.to_string(),
                detection: detection.clone(),
                findings: *count,
            }
        };
        report.suppressed = suppressed.map(line).collect();
        report.baselines = shown.baselines.values().flatten().cloned().collect();
        report.reloads = shown.reloads.clone();
        Ok(report)
    }

    /// From the store of a process that is not running.
    pub fn at_rest(store: &dyn StateStore, now: DateTime<Utc>) -> Result<Self, StateError> {
        let ledgers = ledger::read(store)?;
        let streams = store
            .watermarks(&JobId::live())?
            .into_iter()
            .map(|mark| StreamLine {
                stream: mark.stream.to_string(),
                lag_seconds: Some((now - mark.at).num_seconds()),
                low_water: Some(mark.at),
                complete_until: ledgers.get(&mark.stream).map(|known| known.complete_until),
                last_event: None,
                records: 0,
                duplicates: 0,
                open_items: store.work(&mark.stream).map_or(0, |items| items.len()),
                items_listed: 0,
                items_fetched: 0,
                items_lost: 0,
                late_share: None,
                hint: None,
                reconciled: ledgers
                    .get(&mark.stream)
                    .and_then(|known| known.reconciled.clone()),
                waiting: None,
                held: None,
            });
        let lanes = store.lanes()?.into_iter().map(|mark| LaneLine {
            lane: format!(
                "{}:{}:{}",
                mark.lane.emitter,
                mark.lane.route,
                mark.lane.kind.as_str()
            ),
            delivered: mark.delivered,
            retries: 0,
            excluded: mark.excluded,
            quarantined: 0,
            behind_bytes: 0,
            oldest_seconds: None,
            held: mark
                .retired
                .then(|| "retired: no longer configured".to_owned()),
            remark: None,
        });
        let (streams, lanes) = (streams.collect(), lanes.collect());
        Self::with_ledger(false, false, streams, lanes, store, now)
    }

    fn with_ledger(
        running: bool,
        paused: bool,
        streams: Vec<StreamLine>,
        lanes: Vec<LaneLine>,
        store: &dyn StateStore,
        now: DateTime<Utc>,
    ) -> Result<Self, StateError> {
        let mut intervals = ledger::all_intervals(store, now)?;
        intervals.retain(Interval::is_gap);
        let count = |state, due| {
            let meant = |one: &&Interval| one.state == state && one.is_due() == due;
            intervals.iter().filter(meant).count()
        };
        let (gaps_open, gaps_lost) = (count(Open, true), count(Lost, true));
        let (gaps_acknowledged, gaps_filled) = (count(Lost, false), count(Filled, false));
        let due = intervals.into_iter().filter(Interval::is_due);
        Ok(Self {
            running,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: now,
            paused,
            streams,
            lanes,
            gaps_open,
            gaps_lost,
            gaps_acknowledged,
            gaps_filled,
            due: due.take(DUE_MAX).collect(),
            quarantined: store
                .quarantined()?
                .iter()
                .filter(|entry| !entry.fate.is_over())
                .count(),
            exceptions: Vec::new(),
            suppressed: Vec::new(),
            baselines: Vec::new(),
            reloads: Reloads::default(),
        })
    }
}

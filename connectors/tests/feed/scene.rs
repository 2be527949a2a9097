//! A subscribed tenant on a Wednesday morning, and what tests say of it.

use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::options::Office365Options;
use exfilwatch_connectors::{FetchError, Standing};
use exfilwatch_model::StreamId;
use exfilwatch_simulator::microsoft::Publication;
use exfilwatch_simulator::world::{AttackPlan, Delivery};
use exfilwatch_simulator::{
    Credentials, Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};

use crate::support::{Caller, Stage, at};

/// The present, where the clock starts.
pub(crate) fn now() -> DateTime<Utc> {
    at("2026-03-04T06:00:00Z")
}

pub(crate) fn minutes(count: i64) -> TimeDelta {
    TimeDelta::minutes(count)
}

/// Keys are slow to make in debug builds: all tests share them.
pub(crate) fn credentials() -> Credentials {
    static SHARED: OnceLock<Credentials> = OnceLock::new();
    SHARED
        .get_or_init(|| Credentials::generate().unwrap())
        .clone()
}

/// A quiet tenant that is subscribed, unless `change` wants otherwise.
pub(crate) fn stage(change: impl FnOnce(&mut SimulatorOptions)) -> Stage {
    let world = WorldOptions {
        records_per_day: 150,
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Quiet,
        ..WorldOptions::new(5, now() - TimeDelta::days(1), now())
    };
    let mut options = SimulatorOptions {
        start: Some(now()),
        credentials: Some(credentials()),
        ..SimulatorOptions::default()
    };
    options.microsoft.subscribed = true;
    change(&mut options);
    Stage::new(world, options)
}

pub(crate) const TYPE: &str = "Audit.General";

pub(crate) fn stream() -> StreamId {
    format!("contoso/office365/{TYPE}").parse().unwrap()
}

/// Options for one content type.
pub(crate) fn options(stage: &Stage) -> Office365Options {
    Office365Options {
        content_types: Some(vec![TYPE.to_owned()]),
        ..stage.office365_options()
    }
}

/// A caller of one content type that has to read the last hour.
pub(crate) fn caller(stage: &Stage) -> Caller {
    let mut caller = stage.office365(options(stage));
    caller.start(stage.surroundings.clock.now() - TimeDelta::hours(1));
    caller
}

/// Publishes a blob of records with these ids.
pub(crate) fn publish(stage: &Stage, content_id: &str, created: DateTime<Utc>, ids: &[&str]) {
    let records: Vec<String> = ids.iter().map(|id| record(id)).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let blob = Publication::new(("contoso", TYPE), content_id, created, &records);
    assert!(stage.simulator.microsoft().publish(blob));
}

pub(crate) fn record(id: &str) -> String {
    format!(
        r#"{{"Id":"{id}","CreationTime":"2026-03-04T05:00:00","Operation":"FileAccessed","RecordType":6,"UserId":"a@contoso.example","Workload":"SharePoint"}}"#
    )
}

/// Which of these ids came, and how often.
pub(crate) fn seen(caller: &Caller, ids: &[&str]) -> Vec<usize> {
    let count = |id: &&str| caller.seen.get(*id).copied().unwrap_or(0);
    ids.iter().map(count).collect()
}

pub(crate) fn fault(stage: &Stage, endpoint: Endpoint, fault: Fault) {
    script(stage, vec![FaultRule::new(endpoint, fault)]);
}

pub(crate) fn script(stage: &Stage, rules: Vec<FaultRule>) {
    stage.faults(FaultScript { seed: 1, rules });
}

pub(crate) fn no_fault(stage: &Stage) {
    script(stage, Vec::new());
}

pub(crate) fn status(status: u16, body: &str) -> Fault {
    Fault::Status {
        status,
        body: body.to_owned(),
        headers: vec![],
    }
}

/// The calls of the feed so far that contain a text.
pub(crate) fn calls(stage: &Stage, part: &str) -> Vec<String> {
    let asked = stage.transport.asked.lock().unwrap();
    let wanted = asked.iter().filter(|url| url.contains(part));
    wanted.cloned().collect()
}

pub(crate) fn kind(error: &FetchError) -> &'static str {
    match error {
        FetchError::Retry { .. } => "retry",
        FetchError::Throttled { .. } => "throttled",
        FetchError::Auth { .. } => "auth",
        FetchError::Permission { .. } => "permission",
        FetchError::AuditingDisabled { .. } => "auditing",
        FetchError::Hold { .. } => "hold",
        FetchError::Gone { .. } => "gone",
        FetchError::Poison { .. } => "poison",
        _ => "unknown",
    }
}

/// What the operator is told to do.
pub(crate) fn help(error: &FetchError) -> &str {
    match error {
        FetchError::Auth { help, .. }
        | FetchError::Permission { help, .. }
        | FetchError::AuditingDisabled { help, .. }
        | FetchError::Hold { help, .. } => help,
        _ => "",
    }
}

/// Why the stream is held, by its last listing.
pub(crate) fn held(caller: &Caller) -> Option<String> {
    match caller.standings.get(&stream()) {
        Some(Standing::Held { what, help }) => Some(format!("{what}: {help}")),
        _ => None,
    }
}

/// What the stream waits for, by its last listing.
pub(crate) fn waits_for(caller: &Caller) -> Option<String> {
    match caller.standings.get(&stream()) {
        Some(Standing::Waiting { what }) => Some(what.clone()),
        _ => None,
    }
}

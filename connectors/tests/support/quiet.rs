//! A quiet Google tenant: what the tests write into its log themselves is all there is of that day.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::options::GoogleWorkspaceOptions;
use exfilwatch_model::WorkItem;
use exfilwatch_simulator::google::GoogleOptions;
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{SimulatorOptions, WorldOptions};

use super::{Caller, Stage, at};

pub(crate) const START: &str = "2026-03-03T12:00:00Z";

/// A quiet tenant: what the tests write into its log themselves is all there is of that day.
pub(crate) fn quiet(google: GoogleOptions) -> Stage {
    let start = at(START);
    let world = WorldOptions {
        records_per_day: 1,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, start - TimeDelta::days(40), start - TimeDelta::days(39))
    };
    let options = SimulatorOptions {
        start: Some(start),
        google,
        ..SimulatorOptions::default()
    };
    Stage::new(world, options)
}

pub(crate) fn only(stage: &Stage, applications: &[&str]) -> GoogleWorkspaceOptions {
    GoogleWorkspaceOptions {
        applications: Some(applications.iter().map(ToString::to_string).collect()),
        ..stage.google_options()
    }
}

pub(crate) fn caller(stage: &Stage, applications: &[&str], from: DateTime<Utc>) -> Caller {
    let mut caller = stage.google(only(stage, applications));
    caller.start(from);
    caller
}

pub(crate) fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Writes an activity that is listed `late` after it happened; gives its id.
pub(crate) fn write(
    stage: &Stage,
    application: &str,
    when: DateTime<Utc>,
    late: TimeDelta,
    n: i64,
) -> String {
    let body = format!(
        r#"{{"kind":"admin#reports#activity","id":{{"time":"{}","uniqueQualifier":"{n}","applicationName":"{application}","customerId":"C1"}},"actor":{{"email":"a@contoso.example"}},"events":[{{"type":"access","name":"view"}}]}}"#,
        text(when)
    );
    let google = stage.simulator.google();
    google.write("contoso", application, &body, [when, when + late]);
    format!("{}/{n}/{application}", text(when))
}

pub(crate) fn asked(stage: &Stage, part: &str) -> Vec<String> {
    let asked = stage.transport.asked.lock().unwrap();
    asked
        .iter()
        .filter(|url| url.contains(part))
        .cloned()
        .collect()
}

/// A work item of that window.
pub(crate) fn item(caller: &Caller, body: &str) -> WorkItem {
    WorkItem {
        stream: caller.connector.streams()[0].clone(),
        key: body.into(),
        body: body.into(),
        from: at(body.split_once('/').unwrap().0),
        expires: None,
        attempts: 0,
        next_try: None,
        last_error: None,
    }
}

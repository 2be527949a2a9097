//! The applications as streams: their names, how late they are, what is asked for, and what tells
//! their records apart.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;
use exfilwatch_connectors::google::applications::{ALERT_CENTER, KNOWN};
use exfilwatch_connectors::options::GoogleWorkspaceOptions;
use exfilwatch_connectors::records::google::GoogleRecords;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_model::{Domains, RawRecord};
use exfilwatch_simulator::google::{GoogleOptions, SCOPE_ALERTS, SCOPE_AUDIT};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{SimulatorOptions, WorldOptions};
use support::{Caller, Stage, at};

fn stage(google: GoogleOptions) -> Stage {
    let from = at("2026-03-03T06:00:00Z");
    let world = WorldOptions {
        records_per_day: 800,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, from, from + TimeDelta::days(1))
    };
    let options = SimulatorOptions {
        start: Some(world.until),
        google,
        ..SimulatorOptions::default()
    };
    Stage::new(world, options)
}

async fn poll(stage: &Stage, options: GoogleWorkspaceOptions) -> Caller {
    let mut caller = stage.google(options);
    caller.start(stage.simulator.world().options().from);
    caller.poll().await;
    caller
}

#[tokio::test(start_paused = true)]
async fn every_application_is_read_by_its_name_and_an_unknown_one_is_held_alone() {
    let stage = stage(GoogleOptions::default());
    let mut names: Vec<String> = KNOWN.iter().map(ToString::to_string).collect();
    names.push("invented_next_year".into());
    let options = GoogleWorkspaceOptions {
        applications: Some(names.clone()),
        ..stage.google_options()
    };
    let google = stage.simulator.google();
    google.set_delegated_scopes(&[SCOPE_AUDIT, SCOPE_ALERTS]);
    let mut caller = stage.google(options);
    assert_eq!(caller.connector.streams().len(), names.len());
    caller.start(stage.simulator.world().options().until - TimeDelta::minutes(30));
    caller.poll().await;
    for (key, error) in &caller.errors {
        assert!(matches!(error, FetchError::Hold { .. }), "{key}: {error:?}");
        assert!(error.to_string().contains("invented_next_year"), "{error}");
    }
    assert!(!caller.errors.is_empty() && caller.open.is_empty());
    let asked = stage.transport.asked.lock().unwrap();
    for name in names.iter().filter(|name| *name != ALERT_CENTER) {
        let path = format!("/applications/{name}?");
        assert!(asked.iter().any(|url| url.contains(&path)), "{name}");
    }
    drop(asked);
    for bad in ["", "../users", "drive?x=1", "a b"] {
        let options = AnyOptions::GoogleWorkspace(Box::new(GoogleWorkspaceOptions {
            applications: Some(vec![bad.into()]),
            ..stage.google_options()
        }));
        let reader = Arc::new(GoogleRecords::new(Arc::new(Domains::default())));
        let built = options.build(reader, &stage.surroundings);
        assert!(built.is_err(), "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lag_and_overlap_are_the_tables_unless_an_application_has_its_own() {
    let stage = stage(GoogleOptions::default());
    let options = GoogleWorkspaceOptions {
        applications: Some(vec!["drive".into(), "login".into()]),
        lag_seconds: Some([("drive".to_owned(), 900)].into()),
        overlap_seconds: Some([("login".to_owned(), 7_200)].into()),
        ..stage.google_options()
    };
    let mut caller = stage.google(options);
    caller.start(stage.simulator.world().options().until - TimeDelta::hours(1));
    let now = stage.simulator.clock().now();
    for (stream, lag, overlap) in [
        ("drive", TimeDelta::minutes(15), TimeDelta::minutes(30)),
        ("login", TimeDelta::minutes(5), TimeDelta::hours(2)),
    ] {
        let stream = format!("contoso/google_workspace/{stream}")
            .parse()
            .unwrap();
        caller.list(&stream).await;
        assert_eq!(
            caller.connector.schedule(&stream).overlap,
            overlap,
            "{stream}"
        );
        let behind = now - caller.cursors[&stream].covered_until;
        assert!(
            (behind - lag).abs() < TimeDelta::seconds(5),
            "{stream}: {behind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn only_unfiltered_lists_of_all_users_are_asked_for() {
    let stage = stage(GoogleOptions::default());
    poll(&stage, stage.google_options()).await;
    let asked = stage.transport.asked.lock().unwrap();
    let lists: Vec<&String> = asked
        .iter()
        .filter(|url| url.contains("/activity/"))
        .collect();
    assert!(lists.len() > 50);
    for url in lists {
        let url: url::Url = url.parse().unwrap();
        assert!(url.path().contains("/users/all/"), "{url}");
        let names: BTreeSet<String> = url
            .query_pairs()
            .map(|(name, _)| name.into_owned())
            .collect();
        let plain = ["startTime", "endTime", "maxResults", "pageToken"];
        assert!(
            names.iter().all(|name| plain.contains(&name.as_str())),
            "{url}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn login_success_and_verification_same_qualifier_are_two_records_also_in_real_logs() {
    let stage = stage(GoogleOptions::default());
    let caller = poll(&stage, stage.google_options()).await;
    let sheet = stage.simulator.sheet();
    let mut bodies: BTreeSet<&Bytes> = BTreeSet::new();
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    for record in sheet
        .records
        .iter()
        .filter(|r| r.stream.ends_with("/login"))
    {
        bodies.insert(&record.body);
        ids.insert(&record.id);
    }
    assert!(
        ids.len() < bodies.len(),
        "the simulated log has such pairs too"
    );
    let read_from_login: usize = caller
        .seen
        .iter()
        .filter(|(id, _)| id.ends_with("/login"))
        .count();
    assert_eq!(read_from_login, ids.len());
    let all: BTreeSet<&Bytes> = sheet
        .records
        .iter()
        .filter(|r| {
            let name = r.stream.strip_prefix("google_workspace/");
            let streams = caller.connector.streams();
            name.is_some_and(|name| streams.iter().any(|stream| stream.name() == name))
        })
        .map(|r| &r.body)
        .collect();
    assert_eq!(
        caller.fingerprints.len(),
        all.len(),
        "one fingerprint a record"
    );
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples/gws");
    let Ok(text) = std::fs::read_to_string(samples.join("invictus.ndjson")) else {
        println!("skipped the real log: {} is not there", samples.display());
        return;
    };
    real_log(&caller, &text);
}

/// Every line of a real log has a fingerprint of its own, though identities repeat; another `etag`
/// does not make another record.
fn real_log(caller: &Caller, text: &str) {
    let reader = caller.connector.records();
    let fingerprint = |line: &str| {
        let record = RawRecord::new(Bytes::copy_from_slice(line.as_bytes()));
        let head = reader.head(&record).unwrap();
        (head.id_text(), head.fingerprint(&[7; 16]))
    };
    let lines: BTreeSet<&str> = text.lines().collect();
    let mut ids = BTreeSet::new();
    let mut fingerprints = BTreeSet::new();
    for line in &lines {
        let (id, print) = fingerprint(line);
        ids.insert(id);
        fingerprints.insert(print);
        let mut other: serde_json::Value = serde_json::from_str(line).unwrap();
        if other.get("etag").is_some() {
            other["etag"] = "\"another\"".into();
            let with_etag = serde_json::to_string(&other).unwrap();
            other.as_object_mut().unwrap().remove("etag");
            let without = serde_json::to_string(&other).unwrap();
            assert_eq!(fingerprint(&with_etag).1, fingerprint(&without).1);
        }
    }
    let bodies: BTreeSet<String> = lines
        .iter()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("etag");
            value.to_string()
        })
        .collect();
    assert_eq!(fingerprints.len(), bodies.len());
    assert!(
        ids.len() + 10 < bodies.len(),
        "{} of {}",
        ids.len(),
        bodies.len()
    );
}

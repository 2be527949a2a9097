//! What Google refuses, and to whom: each in the vendor's words with what to do, and one application
//! never stops another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;
use exfilwatch_connectors::google::applications::{ALERT_CENTER, KNOWN};
use exfilwatch_connectors::options::GoogleWorkspaceOptions;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_model::RawRecord;
use exfilwatch_simulator::google::GoogleOptions;
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
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

/// Streams of which something was read.
fn read_from(caller: &Caller) -> BTreeSet<String> {
    let application = |id: &String| id.rsplit('/').next().unwrap().to_owned();
    caller.seen.keys().map(application).collect()
}

fn permission(error: &FetchError) -> (&str, &str) {
    match error {
        FetchError::Permission { what, help } => (what, help),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn google_401_privilege_is_refreshed_once_explained_and_stops_no_other_application() {
    let stage = stage(GoogleOptions::default());
    stage.simulator.google().bar("drive", true);
    let mut caller = poll(&stage, stage.google_options()).await;
    assert!(!caller.errors.is_empty());
    for (_, error) in &caller.errors {
        let (what, help) = permission(error);
        assert!(
            what.contains("not authorized to read activity records"),
            "{what}"
        );
        assert!(help.contains("Reports privilege"), "{help}");
    }
    let others = read_from(&caller);
    assert!(
        others.contains("login") && others.contains("token"),
        "{others:?}"
    );
    assert!(!others.contains("drive"));
    // The first call got a token, each refused call one more at most: no loop.
    let refused = caller.errors.len() as u64;
    assert!(stage.simulator.google().tokens_issued() <= 1 + refused);
    // Once the privilege is there it works, without a new connector.
    stage.simulator.google().bar("drive", false);
    caller.errors.clear();
    caller.start(stage.simulator.world().options().from);
    caller.done.clear();
    caller.poll().await;
    assert!(caller.errors.is_empty() && read_from(&caller).contains("drive"));
}

#[tokio::test(start_paused = true)]
async fn google_403_rate_limit_is_waited_out_and_catch_up_is_sliced() {
    let stage = stage(GoogleOptions {
        requests_per_minute: 60,
        ..GoogleOptions::default()
    });
    let mut caller = poll(&stage, stage.google_options()).await;
    for _ in 0..10 {
        stage.pass(TimeDelta::minutes(5)).await;
        caller.fetch().await;
    }
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert!(caller.open.is_empty());
    let sheet = stage.simulator.sheet();
    let streams: Vec<String> = caller
        .connector
        .streams()
        .iter()
        .map(|stream| format!("google_workspace/{}", stream.name()))
        .collect();
    let due = sheet
        .records
        .iter()
        .filter(|r| streams.contains(&r.stream.to_string()));
    for record in due {
        assert!(caller.seen.contains_key(&record.id), "{}", record.id);
    }
}

#[tokio::test(start_paused = true)]
async fn every_quota_form_pauses_and_the_day_s_for_a_quarter_of_an_hour() {
    let forms = [
        (403, "rateLimitExceeded", "RESOURCE_EXHAUSTED", false),
        (403, "userRateLimitExceeded", "PERMISSION_DENIED", false),
        (429, "rateLimitExceeded", "RESOURCE_EXHAUSTED", false),
        (503, "backendError", "UNAVAILABLE", false),
        (403, "quotaExceeded", "RESOURCE_EXHAUSTED", true),
    ];
    for (status, reason, name, of_the_day) in forms {
        let stage = stage(GoogleOptions::default());
        let body = format!(
            r#"{{"error":{{"code":{status},"message":"Quota exceeded for quota metric 'Queries'","errors":[{{"domain":"usageLimits","reason":"{reason}"}}],"status":"{name}"}}}}"#
        );
        let fault = Fault::Status {
            status,
            body,
            headers: vec![],
        };
        stage.faults(FaultScript {
            seed: 1,
            rules: vec![FaultRule::new(Endpoint::Activities, fault).calls(1, 1)],
        });
        let started = stage.simulator.clock().now();
        let mut caller = poll(&stage, stage.google_options()).await;
        let waited = stage.simulator.clock().now() - started;
        assert!(
            caller.errors.is_empty(),
            "{status} {reason}: {:?}",
            caller.errors
        );
        assert_eq!(
            waited >= TimeDelta::minutes(15),
            of_the_day,
            "{reason}: {waited}"
        );
        assert_eq!(caller.open.len(), usize::from(of_the_day), "{reason}");
        stage.pass(TimeDelta::minutes(2)).await;
        caller.fetch().await;
        assert!(caller.open.is_empty(), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_switched_off_and_other_refusals_say_what_to_do() {
    let stage = stage(GoogleOptions::default());
    stage.simulator.google().set_api_enabled(false);
    let one = GoogleWorkspaceOptions {
        applications: Some(vec!["drive".into()]),
        ..stage.google_options()
    };
    let caller = poll(&stage, one.clone()).await;
    let (what, help) = permission(&caller.errors[0].1);
    assert!(
        what.contains("has not been used in project sim-project"),
        "{what}"
    );
    assert!(help.contains("enable the Admin SDK API"), "{help}");
    stage.simulator.google().set_api_enabled(true);
    for (reason, word) in [
        ("insufficientPermissions", "admin.reports.audit.readonly"),
        ("forbidden", "Reports privilege"),
    ] {
        let body = format!(r#"{{"error":{{"message":"No.","errors":[{{"reason":"{reason}"}}]}}}}"#);
        let fault = Fault::Status {
            status: 403,
            body,
            headers: vec![],
        };
        stage.faults(FaultScript {
            seed: 1,
            rules: vec![FaultRule::new(Endpoint::Activities, fault)],
        });
        let caller = poll(&stage, one.clone()).await;
        let (what, help) = permission(&caller.errors[0].1);
        assert!(what.contains(reason) && what.contains("No."), "{what}");
        assert!(help.contains(word), "{help}");
    }
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
    let scope = exfilwatch_simulator::google::SCOPE_ALERTS;
    google.set_delegated_scopes(&[exfilwatch_simulator::google::SCOPE_AUDIT, scope]);
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
        let reader = exfilwatch_connectors::records::google::GoogleRecords::new(
            std::sync::Arc::new(exfilwatch_model::Domains::default()),
        );
        let built = options.build(std::sync::Arc::new(reader), &stage.surroundings);
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

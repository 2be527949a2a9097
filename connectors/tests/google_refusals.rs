//! What Google refuses, and to whom: each in the vendor's words with what to do, and one application
//! never stops another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;

use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;
use exfilwatch_connectors::options::GoogleWorkspaceOptions;
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

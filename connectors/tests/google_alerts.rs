//! The Alert Center as a further stream: made and changed alerts, a token of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use chrono::TimeDelta;
use exfilwatch_connectors::options::{GoogleWorkspaceOptions, RefreshTokenOptions};
use exfilwatch_connectors::records::google::GoogleRecords;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_connectors::{Depth, FetchError, Standing};
use exfilwatch_model::diagnosis::Verdict;
use exfilwatch_model::{Domains, SecretSource, Window};
use exfilwatch_simulator::google::{GoogleOptions, SCOPE_ALERTS, SCOPE_AUDIT};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use serde_json::json;
use support::{Caller, GOOGLE, Stage, at};

fn stage(google: GoogleOptions) -> Stage {
    let from = at("2026-03-03T06:00:00Z");
    let world = WorldOptions {
        records_per_day: 200,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, from, from + TimeDelta::days(1))
    };
    let options = SimulatorOptions {
        start: Some(world.until),
        google,
        ..SimulatorOptions::default()
    };
    let stage = Stage::new(world, options);
    let scopes = [SCOPE_AUDIT, SCOPE_ALERTS];
    stage.simulator.google().set_delegated_scopes(&scopes);
    stage
}

fn options(stage: &Stage, applications: &[&str]) -> GoogleWorkspaceOptions {
    GoogleWorkspaceOptions {
        applications: Some(applications.iter().map(ToString::to_string).collect()),
        ..stage.google_options()
    }
}

fn start(stage: &Stage, applications: &[&str]) -> Caller {
    let mut caller = stage.google(options(stage, applications));
    caller.start(stage.simulator.world().options().until - TimeDelta::hours(1));
    caller
}

fn raise(stage: &Stage, n: u32) -> String {
    let data = json!({"@type": "type.googleapis.com/google.apps.alertcenter.type.AccountWarning",
        "email": format!("user{n}@contoso.example"), "loginDetails": {"ipAddress": "203.0.113.9"}});
    let google = stage.simulator.google();
    google
        .raise_alert("contoso", "Leaked password", "Google identity", data)
        .unwrap()
}

/// Versions of an alert that were read.
fn versions(caller: &Caller, id: &str) -> Vec<String> {
    let own = |key: &&String| key.starts_with(id);
    caller.seen.keys().filter(own).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn alert_updated_comes_once_more_as_another_version_and_no_version_is_two_records() {
    let stage = stage(GoogleOptions::default());
    let mut caller = start(&stage, &["alertcenter"]);
    let id = raise(&stage, 1);
    let quiet = raise(&stage, 2);
    for _ in 0..3 {
        stage.pass(TimeDelta::minutes(5)).await;
        caller.poll().await;
    }
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(versions(&caller, &id), [format!("{id}/v1=")]);
    // Days later somebody works on it.
    stage.pass(TimeDelta::days(3)).await;
    caller.poll().await;
    stage.simulator.google().change_alert(&id, "IN_PROGRESS");
    for _ in 0..3 {
        stage.pass(TimeDelta::minutes(5)).await;
        caller.poll().await;
    }
    caller.relist(TimeDelta::days(1)).await;
    let expected = [format!("{id}/v1="), format!("{id}/v2=")];
    assert_eq!(versions(&caller, &id), expected);
    assert_eq!(versions(&caller, &quiet), [format!("{quiet}/v1=")]);
    assert_eq!(
        caller.fingerprints.len(),
        3,
        "three records, however often they were listed"
    );
    assert!(caller.fingerprints.values().any(|times| *times > 1));
}

#[tokio::test(start_paused = true)]
async fn alerts_come_over_many_pages_in_whatever_order_and_a_window_holds_only_its_own() {
    let stage = stage(GoogleOptions {
        page_items_max: 3,
        ..GoogleOptions::default()
    });
    let mut caller = start(&stage, &["alertcenter"]);
    let ids: Vec<String> = (0..20).map(|n| raise(&stage, n)).collect();
    stage.pass(TimeDelta::hours(2)).await;
    let later: Vec<String> = (20..31).map(|n| raise(&stage, n)).collect();
    for id in ids.iter().step_by(4) {
        stage.simulator.google().change_alert(id, "CLOSED");
    }
    caller.poll().await;
    for id in &ids {
        assert!(!versions(&caller, id).is_empty(), "{id}");
    }
    for id in &later {
        assert!(
            versions(&caller, id).is_empty(),
            "its window is not over yet: {id}"
        );
    }
    stage.pass(TimeDelta::minutes(10)).await;
    caller.poll().await;
    for id in ids.iter().step_by(4).chain(&later) {
        assert!(!versions(&caller, id).is_empty(), "{id}");
    }
    assert!(caller.seen.contains_key(&format!("{}/v2=", ids[0])));
    assert!(caller.open.is_empty() && caller.errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_api_has_its_own_token_so_that_a_missing_scope_stops_one_stream_only() {
    for (delegated, failing) in [(SCOPE_AUDIT, "alertcenter"), (SCOPE_ALERTS, "drive")] {
        let stage = stage(GoogleOptions::default());
        stage.simulator.google().set_delegated_scopes(&[delegated]);
        raise(&stage, 1);
        let mut caller = stage.google(options(&stage, &["alertcenter", "drive"]));
        caller.start(stage.simulator.world().options().from);
        stage.pass(TimeDelta::minutes(10)).await;
        caller.poll().await;
        assert!(!caller.seen.is_empty(), "{delegated}");
        let missing = if failing == "drive" {
            SCOPE_AUDIT
        } else {
            SCOPE_ALERTS
        };
        assert!(!caller.errors.is_empty(), "{delegated}");
        for (key, error) in &caller.errors {
            let FetchError::Auth { help, .. } = error else {
                panic!("{key}: {error:?}");
            };
            assert!(help.contains(missing), "{help}");
        }
        let read_alert = caller.seen.keys().any(|id| id.starts_with("a1e27000"));
        assert_eq!(read_alert, failing == "drive");
    }
}

#[tokio::test(start_paused = true)]
async fn the_alert_center_is_read_by_a_service_account_only() {
    let stage = stage(GoogleOptions::default());
    let app = &stage.simulator.credentials().google;
    let installed = GoogleWorkspaceOptions {
        service_account: None,
        refresh_token: Some(RefreshTokenOptions {
            client_id: app.installed_client_id.clone(),
            client_secret: SecretSource::Env("GOOGLE_CLIENT_SECRET".into()),
            token: SecretSource::Env("GOOGLE_REFRESH".into()),
        }),
        ..options(&stage, &["alertcenter"])
    };
    let build = |options: GoogleWorkspaceOptions| {
        let reader = Arc::new(GoogleRecords::new(Arc::new(Domains::default())));
        AnyOptions::GoogleWorkspace(Box::new(options)).build(reader, &stage.surroundings)
    };
    let by_default = GoogleWorkspaceOptions {
        applications: None,
        ..installed.clone()
    };
    let streams = build(by_default).unwrap().streams();
    assert!(streams.iter().all(|stream| stream.name() != "alertcenter"));
    let built = build(installed);
    let error = built.expect_err("no such way").to_string();
    assert!(error.contains("service account"), "{error}");
    // Its customer is named without the leading C.
    let customer = stage.simulator.world().tenants()[0]
        .customer_id
        .clone()
        .unwrap();
    let mut caller = stage.google(GoogleWorkspaceOptions {
        customer_id: Some(customer.clone()),
        ..options(&stage, &["alertcenter"])
    });
    caller.start(stage.simulator.world().options().until - TimeDelta::hours(1));
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    let asked = stage.transport.asked.lock().unwrap();
    let bare = format!("customerId={}", customer.strip_prefix('C').unwrap());
    let alerts = asked
        .iter()
        .filter(|url| url.starts_with(GOOGLE) && url.contains("/v1beta1/"));
    for url in alerts {
        assert!(url.contains(&bare), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_center_in_trouble_is_tried_again_and_one_that_refuses_says_what_it_wants() {
    let stage = stage(GoogleOptions::default());
    let id = raise(&stage, 1);
    let mut caller = start(&stage, &["alertcenter"]);
    stage.pass(TimeDelta::minutes(10)).await;
    let throttled = Fault::Throttle {
        retry_after_seconds: None,
    };
    stage.faults(FaultScript {
        seed: 1,
        rules: vec![
            FaultRule::new(Endpoint::Alerts, throttled).calls(1, 1),
            FaultRule::new(Endpoint::Alerts, Fault::Outage).calls(2, 3),
        ],
    });
    caller.poll().await;
    assert!(caller.errors.is_empty() && !versions(&caller, &id).is_empty());
    let denied = r#"{"error":{"code":403,"message":"The caller does not have permission","status":"PERMISSION_DENIED"}}"#;
    let denied = Fault::Status {
        status: 403,
        body: denied.into(),
        headers: vec![],
    };
    stage.faults(FaultScript {
        seed: 1,
        rules: vec![FaultRule::new(Endpoint::Alerts, denied)],
    });
    stage.pass(TimeDelta::minutes(10)).await;
    caller.poll().await;
    let FetchError::Permission { what, help } = &caller.errors[0].1 else {
        panic!("{:?}", caller.errors);
    };
    assert!(what.contains("does not have permission"), "{what}");
    assert!(help.contains("Alert Center privilege"), "{help}");
}

/// Nobody names applications: the Alert Center is a stream, read where its scope is delegated. Where not
/// it is said what to do, asked again after a while, and nothing is listed that could become a gap.
#[tokio::test(start_paused = true)]
async fn the_alert_center_is_read_by_default_where_its_scope_is_delegated_and_left_alone_where_not()
{
    let stage = stage(GoogleOptions::default());
    let google = stage.simulator.google();
    google.set_delegated_scopes(&[SCOPE_AUDIT]);
    let caller = stage.google(stage.google_options());
    let connector = &*caller.connector;
    let streams = connector.streams();
    let alerts = streams.iter().find(|s| s.name() == "alertcenter").unwrap();
    let until = stage.simulator.world().options().until;
    let window = Window::new(until - TimeDelta::hours(3), until).unwrap();
    let cursor = connector.first_cursor(alerts, window);
    let tokens = || stage.simulator.faults().calls(Endpoint::GoogleToken);
    for asked_before in [false, true] {
        let before = tokens();
        let listing = connector.list(alerts, &cursor).await.unwrap();
        let Standing::Withheld(withheld) = &listing.standing else {
            panic!("{:?}", listing.standing);
        };
        assert!(withheld.help.contains(SCOPE_ALERTS), "{withheld}");
        assert!(listing.items.is_empty() && listing.gaps.is_empty());
        assert_eq!(
            listing.cursor, cursor,
            "what is not read is not passed over"
        );
        assert_eq!(tokens() > before, !asked_before, "asked seldom");
    }
    assert!(connector.withheld(alerts).await.is_some());
    let drive = streams.iter().find(|s| s.name() == "drive").unwrap();
    assert!(connector.withheld(drive).await.is_none());
    let checks = connector.diagnose(Depth::Service).await;
    assert!(
        checks.iter().all(|check| check.verdict != Verdict::Failed),
        "{checks:?}"
    );

    google.set_delegated_scopes(&[SCOPE_AUDIT, SCOPE_ALERTS]);
    let clock = stage.simulator.clock();
    clock.advance(std::time::Duration::from_mins(16));
    let listing = connector.list(alerts, &cursor).await.unwrap();
    assert_eq!(listing.standing, Standing::Flowing);
    assert!(!listing.items.is_empty());

    // Named, it is no longer optional; and an administrator's own login cannot have it.
    google.set_delegated_scopes(&[SCOPE_AUDIT]);
    let named = stage.google(options(&stage, &["alertcenter"]));
    let stream = named.connector.streams()[0].clone();
    assert!(named.connector.withheld(&stream).await.is_none());
}

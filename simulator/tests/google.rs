//! Google's rules: assertions, refresh tokens, windows, pages, filters, quota, late items.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use exfilwatch_simulator::google::{GoogleOptions, SCOPE_AUDIT};
use exfilwatch_simulator::{Simulator, SimulatorOptions};
use serde_json::{Value, json};
use support::{Reply, form, get, google_ask, google_claims, google_token, post, simulator, time};

const DRIVE: &str = "/admin/reports/v1/activity/users/all/applications/drive";

fn with(google: GoogleOptions) -> Simulator {
    simulator(SimulatorOptions {
        google,
        ..SimulatorOptions::default()
    })
}

fn reason(reply: &Reply) -> String {
    reply.json()["error"]["errors"][0]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn an_assertion_gives_a_token_and_each_mistake_its_own_error() {
    let simulator = with(GoogleOptions::default());
    let good = google_claims(&simulator);
    let now = simulator.clock().now_ms() / 1000;
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    for (claims, error) in [
        (good.clone(), ""),
        (
            changed("aud", json!("https://oauth2.googleapis.com/token")),
            "",
        ),
        (
            changed("aud", json!("https://elsewhere.example/token")),
            "invalid_grant",
        ),
        (
            changed("iss", json!("stranger@x.iam.gserviceaccount.com")),
            "invalid_grant",
        ),
        (
            changed("sub", json!("nobody@contoso.example")),
            "invalid_grant",
        ),
        (changed("sub", json!("")), "unauthorized_client"),
        (
            changed(
                "scope",
                json!(format!("{SCOPE_AUDIT} https://mail.google.com/")),
            ),
            "unauthorized_client",
        ),
        (changed("iat", json!(now + 600)), "invalid_grant"),
        (changed("exp", json!(now - 600)), "invalid_grant"),
        (changed("exp", json!(now + 7200)), "invalid_grant"),
    ] {
        let reply = google_ask(&simulator, &claims).await;
        if error.is_empty() {
            assert_eq!(reply.json()["token_type"], "Bearer");
        } else {
            assert_eq!(reply.json()["error"], error, "{claims}");
        }
    }
    let other = simulator.credentials().microsoft.private_key_pem.clone();
    let forged = support::sign(jsonwebtoken::Algorithm::RS256, |_| (), &good, &other);
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let body = form(&[("grant_type", grant), ("assertion", &forged)]);
    let reply = post(&simulator.google_router(), "/token", &[], body).await;
    assert_eq!(reply.json()["error_description"], "Invalid JWT Signature.");
}

#[tokio::test]
async fn a_refresh_token_works_until_it_is_revoked() {
    let simulator = with(GoogleOptions::default());
    let router = simulator.google_router();
    let app = simulator.credentials().google.clone();
    let admin = simulator.world().tenants()[0].admin().email.clone();
    let refresh = app.refresh_token(&admin);
    let ask = async |secret: &str, refresh: &str| {
        let body = form(&[
            ("grant_type", "refresh_token"),
            ("client_id", &app.installed_client_id),
            ("client_secret", secret),
            ("refresh_token", refresh),
        ]);
        post(&router, "/token", &[], body).await.json()
    };
    let secret = &app.installed_client_secret;
    let token = ask(secret, &refresh).await["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(get(&router, DRIVE, &token).await.status, 200);
    assert_eq!(ask("wrong", &refresh).await["error"], "invalid_client");
    assert_eq!(ask(secret, "1//other").await["error"], "invalid_grant");
    simulator.google().revoke(&admin);
    assert_eq!(ask(secret, &refresh).await["error"], "invalid_grant");
}

#[tokio::test]
async fn pages_run_from_newest_to_oldest_and_hold_every_item_once() {
    let simulator = with(GoogleOptions {
        empty_page_every: 3,
        ..GoogleOptions::default()
    });
    simulator.clock().set(time("2026-03-06T00:00:00Z"));
    let router = simulator.google_router();
    let token = google_token(&simulator).await;
    let window =
        "startTime=2026-03-03T00:00:00.000Z&endTime=2026-03-05T23:00:00.000Z&maxResults=50";
    let (mut times, mut bodies, mut empty) = (Vec::new(), Vec::new(), 0);
    let mut page_token = String::new();
    for _ in 0..100 {
        let reply = get(&router, &format!("{DRIVE}?{window}{page_token}"), &token).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let page = reply.json();
        assert_eq!(page["kind"], "admin#reports#activities");
        let items = page["items"].as_array().cloned().unwrap_or_default();
        assert!(items.len() <= 50);
        empty += usize::from(page.get("items").is_none());
        times.extend(
            items
                .iter()
                .map(|item| item["id"]["time"].as_str().unwrap().to_owned()),
        );
        bodies.extend(items.iter().map(ToString::to_string));
        match page.get("nextPageToken") {
            Some(next) => page_token = format!("&pageToken={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
    let due = simulator
        .world()
        .records("contoso", "google_workspace/drive")
        .count();
    assert_eq!(bodies.len(), due);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), due);
    assert!(empty > 0, "some page was empty and not the end");
}

#[tokio::test]
async fn a_page_token_is_refused_with_other_parameters_and_when_it_is_old() {
    let simulator = with(GoogleOptions {
        page_token_lifetime_seconds: 600,
        ..GoogleOptions::default()
    });
    let router = simulator.google_router();
    let token = google_token(&simulator).await;
    let window = "startTime=2026-03-03T00:00:00.000Z&endTime=2026-03-05T00:00:00.000Z";
    let page = get(&router, &format!("{DRIVE}?{window}&maxResults=10"), &token)
        .await
        .json();
    let next = page["nextPageToken"].as_str().unwrap().to_owned();
    let ask = async |rest: &str| {
        get(&router, &format!("{DRIVE}?{window}&{rest}"), &token)
            .await
            .status
    };
    assert_eq!(ask(&format!("maxResults=10&pageToken={next}")).await, 200);
    assert_eq!(ask(&format!("maxResults=11&pageToken={next}")).await, 400);
    assert_eq!(ask("maxResults=10&pageToken=QTox").await, 400);
    simulator.clock().advance(Duration::from_secs(601));
    assert_eq!(ask(&format!("maxResults=10&pageToken={next}")).await, 400);
}

#[tokio::test]
async fn windows_include_both_ends_and_late_items_appear_when_they_are_due() {
    let simulator = with(GoogleOptions::default());
    let router = simulator.google_router();
    let drive = |r: &&exfilwatch_simulator::Record| &*r.stream == "google_workspace/drive";
    let sheet = simulator.sheet();
    let late = sheet
        .records
        .iter()
        .filter(drive)
        .max_by_key(|r| r.visible_from_ms - r.event_ms);
    let late = late.unwrap().clone();
    assert!(late.visible_from_ms - late.event_ms > 600_000);
    let at = late.id.split('/').next().unwrap();
    let path = format!("{DRIVE}?startTime={at}&endTime={at}");
    let mut seen = Vec::new();
    for moment in [late.visible_from_ms - 1, late.visible_from_ms] {
        simulator
            .clock()
            .set(chrono::DateTime::from_timestamp_millis(moment).unwrap());
        let token = google_token(&simulator).await;
        seen.push(
            get(&router, &path, &token)
                .await
                .json()
                .get("items")
                .is_some(),
        );
    }
    assert_eq!(seen, [false, true]);
}

#[tokio::test]
async fn requests_are_held_to_their_rules() {
    let simulator = with(GoogleOptions::default());
    let router = simulator.google_router();
    let token = google_token(&simulator).await;
    for (query, status) in [
        (
            "?startTime=2026-03-04T00:00:00Z&endTime=2026-03-03T00:00:00Z",
            400,
        ),
        ("?startTime=2024-03-04T00:00:00Z", 400),
        ("?startTime=yesterday", 400),
        ("?maxResults=1001", 400),
        ("?maxResults=0", 400),
        ("?maxResults=1000", 200),
    ] {
        let reply = get(&router, &format!("{DRIVE}{query}"), &token).await;
        assert_eq!(reply.status.as_u16(), status, "{query}");
        assert!(status == 200 || reason(&reply) == "invalid");
    }
    let nope = DRIVE.replace("/drive", "/nonsense");
    assert_eq!(get(&router, &nope, &token).await.status, 400);
    let quiet = get(&router, &DRIVE.replace("/drive", "/vault"), &token)
        .await
        .json();
    assert!(
        quiet.get("items").is_none(),
        "items is absent when there are none"
    );
    let filtered = get(&router, &format!("{DRIVE}?eventName=create"), &token)
        .await
        .json();
    for item in filtered["items"].as_array().unwrap() {
        assert!(
            item["events"]
                .as_array()
                .unwrap()
                .iter()
                .any(|event| event["name"] == "create")
        );
    }
}

#[tokio::test]
async fn a_subject_without_the_privilege_is_told_so_and_a_dead_token_is_not_confused_with_it() {
    let simulator = with(GoogleOptions::default());
    let router = simulator.google_router();
    let mut claims = google_claims(&simulator);
    claims["sub"] = json!(simulator.world().tenants()[0].person(3).email);
    let plain = google_ask(&simulator, &claims).await.json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let reply = get(&router, DRIVE, &plain).await;
    assert_eq!(
        (reply.status.as_u16(), reason(&reply).as_str()),
        (401, "authError")
    );
    assert!(
        reply
            .text()
            .contains("not authorized to read activity records")
    );
    let reply = get(&router, DRIVE, "ya29.nonsense").await;
    assert_eq!(reply.status, 401);
    assert!(!reply.text().contains("activity records"));
    let token = google_token(&simulator).await;
    simulator.clock().advance(Duration::from_hours(1));
    assert_eq!(get(&router, DRIVE, &token).await.status, 401);
    simulator.google().set_delegated_scopes(&[]);
    let reply = google_ask(&simulator, &google_claims(&simulator)).await;
    assert_eq!(reply.json()["error"], "unauthorized_client");
}

#[tokio::test]
async fn above_the_quota_the_reply_is_403_and_filters_have_a_quota_of_their_own() {
    let simulator = with(GoogleOptions {
        requests_per_minute: 2,
        filtered_requests_per_minute: 1,
        ..GoogleOptions::default()
    });
    let router = simulator.google_router();
    let token = google_token(&simulator).await;
    let filtered = format!("{DRIVE}?eventName=create");
    assert_eq!(get(&router, &filtered, &token).await.status, 200);
    assert_eq!(get(&router, &filtered, &token).await.status, 403);
    assert_eq!(get(&router, DRIVE, &token).await.status, 200);
    assert_eq!(get(&router, DRIVE, &token).await.status, 200);
    let reply = get(&router, DRIVE, &token).await;
    assert_eq!(
        (reply.status.as_u16(), reason(&reply).as_str()),
        (403, "rateLimitExceeded")
    );
    assert_eq!(reply.json()["error"]["errors"][0]["domain"], "usageLimits");
    simulator.clock().advance(Duration::from_mins(1));
    assert_eq!(get(&router, DRIVE, &token).await.status, 200);
}

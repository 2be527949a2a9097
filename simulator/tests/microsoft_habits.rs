//! What Microsoft's feed does rarely, or was seen to do against its documentation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use chrono::TimeDelta;
use exfilwatch_simulator::microsoft::{MicrosoftOptions, Publication};
use exfilwatch_simulator::{Endpoint, Fault, FaultRule, FaultScript, Simulator, SimulatorOptions};
use serde_json::Value;
use support::{Reply, get, microsoft_token, post, simulator, time};

const PUBLISHER: &str = "PublisherIdentifier=7a3f1b52-0000-4000-8000-123456789abc";
const CREATED: &str = "2026-03-04T12:00:00Z";

fn with(change: impl FnOnce(&mut MicrosoftOptions)) -> Simulator {
    let mut microsoft = MicrosoftOptions {
        subscribed: true,
        ..MicrosoftOptions::default()
    };
    change(&mut microsoft);
    simulator(SimulatorOptions {
        start: Some(time(CREATED) + TimeDelta::hours(1)),
        microsoft,
        ..SimulatorOptions::default()
    })
}

async fn call(simulator: &Simulator, operation: &str) -> Reply {
    let tenant = simulator.world().tenants()[0].tenant_id.unwrap();
    let token = microsoft_token(simulator).await;
    let path = format!("/api/v1.0/{tenant}/activity/feed/{operation}");
    let router = simulator.microsoft_router();
    if operation.contains("/start") {
        let bearer = format!("Bearer {token}");
        return post(&router, &path, &[("authorization", &bearer)], Vec::new()).await;
    }
    get(&router, &path, &token).await
}

async fn content(simulator: &Simulator, start: &str, end: &str) -> Reply {
    let query = format!("contentType=DLP.All&startTime={start}&endTime={end}&{PUBLISHER}");
    call(simulator, &format!("subscriptions/content?{query}")).await
}

fn ids(reply: &Reply) -> Vec<String> {
    let lines = reply.json();
    let lines = lines.as_array().unwrap().iter();
    lines
        .map(|line| line["contentId"].as_str().unwrap().to_owned())
        .collect()
}

fn publish(simulator: &Simulator, id: &str) {
    let records = [r#"{"Id":"a"}"#, r#"{"Id":"b"}"#];
    let blob = Publication::new(("contoso", "DLP.All"), id, time(CREATED), &records);
    assert!(simulator.microsoft().publish(blob));
}

#[tokio::test]
async fn a_blob_published_by_hand_is_listed_and_read_like_any_other() {
    let simulator = with(|_| ());
    publish(&simulator, "1$x$dlp");
    let listed = content(&simulator, "2026-03-04T11:59:00", "2026-03-04T12:00:01").await;
    assert!(ids(&listed).contains(&"1$x$dlp".to_owned()));
    assert_eq!(listed.headers["x-aspnet-version"], "4.0.30319");
    let blob = call(&simulator, &format!("audit/1$x$dlp?{PUBLISHER}")).await;
    assert_eq!(blob.text(), r#"[{"Id":"a"},{"Id":"b"}]"#);
    let nobody = Publication::new(("nobody", "DLP.All"), "2$x", time(CREATED), &[]);
    assert!(!simulator.microsoft().publish(nobody));
}

#[tokio::test]
async fn a_window_that_starts_with_a_blob_lists_another_that_holds_its_later_half() {
    let simulator = with(|options| options.partial_at_start = true);
    publish(&simulator, "1$x$dlp");
    let whole = content(&simulator, "2026-03-04T11:55:00", "2026-03-04T12:00:01").await;
    assert!(ids(&whole).contains(&"1$x$dlp".to_owned()));
    let partial = content(&simulator, "2026-03-04T12:00:00", "2026-03-04T12:00:01").await;
    assert_eq!(ids(&partial), ["91$x$dlp"]);
    let blob = call(&simulator, &format!("audit/91$x$dlp?{PUBLISHER}")).await;
    assert_eq!(blob.text(), r#"[{"Id":"b"}]"#);
}

#[tokio::test]
async fn an_empty_page_links_on_and_a_shuffled_listing_holds_the_same() {
    let plain = with(|_| ());
    let odd = with(|options| {
        options.page_items = 2;
        options.empty_page_every = 1;
        options.listing_shuffled = true;
    });
    for number in 0..5 {
        publish(&plain, &format!("{number}$x"));
        publish(&odd, &format!("{number}$x"));
    }
    let window = ("2026-03-04T12:00:00", "2026-03-04T12:00:01");
    let mut expected = ids(&content(&plain, window.0, window.1).await);
    let mut page = content(&odd, window.0, window.1).await;
    let (mut found, mut empty) = (ids(&page), 0);
    while let Some(next) = page.headers.get("nextpageuri") {
        let next = next.to_str().unwrap();
        let (_, operation) = next.split_once("/activity/feed/").unwrap();
        page = call(&odd, operation).await;
        empty += usize::from(ids(&page).is_empty());
        found.extend(ids(&page));
    }
    assert!(found.len() == 5 && empty >= 2, "{found:?} {empty}");
    assert_ne!(found, expected);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_barred_subscription_cannot_be_started_and_a_new_one_has_its_content_later() {
    let simulator = with(|options| {
        options.subscribed = false;
        options.content_before_subscription = false;
        options.first_content_after_seconds = 3_600;
    });
    let microsoft = simulator.microsoft();
    microsoft.bar_subscription("contoso", "DLP.All", true);
    let start = format!("subscriptions/start?contentType=DLP.All&{PUBLISHER}");
    assert_eq!(call(&simulator, &start).await.code(), "AF20023");
    microsoft.bar_subscription("contoso", "DLP.All", false);
    simulator.clock().advance(Duration::from_mins(16));
    assert_eq!(call(&simulator, &start).await.status, 200);
    let started = simulator.clock().now();
    for (minutes, number) in [(30, 1), (70, 2)] {
        let at = started + TimeDelta::minutes(minutes);
        let blob = Publication::new(("contoso", "DLP.All"), &format!("{number}$x"), at, &[]);
        assert!(microsoft.publish(blob));
    }
    simulator.clock().advance(Duration::from_hours(2));
    let listed = content(&simulator, "2026-03-04T13:00:00", "2026-03-04T23:00:00").await;
    let listed = ids(&listed);
    assert!(listed.contains(&"2$x".to_owned()) && !listed.contains(&"1$x".to_owned()));
}

#[tokio::test]
async fn refusals_by_script_have_the_services_own_words() {
    let simulator = with(|_| ());
    for (code, status, word) in [
        ("AF20012", 400, "incorrectly configured"),
        ("AF50005", 500, "internal error"),
        ("AF20031", 400, "nextPage"),
        ("DataServiceException", 400, "does not exist."),
    ] {
        let rule = FaultRule::new(Endpoint::ContentList, Fault::activity(code));
        let rules = vec![rule];
        simulator.faults().replace(FaultScript { seed: 1, rules });
        let reply = content(&simulator, "2026-03-04T12:00:00", "2026-03-04T12:00:01").await;
        assert_eq!(reply.status, status, "{code}");
        assert!(reply.text().contains(word) && reply.text().contains(code));
    }
    for (aadsts, status, error) in [
        (7_000_215_u32, 401, "invalid_client"),
        (90_033, 503, "temporarily_unavailable"),
        (65_001, 400, "invalid_grant"),
    ] {
        let rule = FaultRule::new(Endpoint::MicrosoftToken, Fault::TokenError { aadsts });
        let rules = vec![rule];
        simulator.faults().replace(FaultScript { seed: 1, rules });
        let reply = post(
            &simulator.microsoft_router(),
            "/t/oauth2/v2.0/token",
            &[],
            Vec::new(),
        )
        .await;
        assert_eq!(reply.status, status);
        let body: Value = reply.json();
        assert_eq!(body["error"], error);
        assert_eq!(body["error_codes"][0], aadsts);
        let words = body["error_description"].as_str().unwrap();
        assert!(words.starts_with(&format!("AADSTS{aadsts}: ")) && words.contains("Trace ID: "));
    }
}

//! Microsoft's rules for the activity feed: subscriptions, windows, pages, blobs, throttling.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use chrono::TimeDelta;
use exfilwatch_simulator::microsoft::MicrosoftOptions;
use exfilwatch_simulator::world::CONTENT_TYPES;
use exfilwatch_simulator::{Simulator, SimulatorOptions};
use http::Request;
use serde_json::{Value, json};
use support::{get, microsoft_token, post, send, simulator, time};

const PUBLISHER: &str = "PublisherIdentifier=7a3f1b52-0000-4000-8000-123456789abc";

fn subscribed() -> SimulatorOptions {
    let microsoft = MicrosoftOptions {
        subscribed: true,
        page_items: 7,
        ..Default::default()
    };
    SimulatorOptions {
        microsoft,
        ..SimulatorOptions::default()
    }
}

fn tenant(simulator: &Simulator) -> String {
    simulator.world().tenants()[0]
        .tenant_id
        .unwrap()
        .to_string()
}

fn feed(simulator: &Simulator, operation: &str) -> String {
    format!("/api/v1.0/{}/activity/feed/{operation}", tenant(simulator))
}

fn path_and_query(url: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let query = url
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    format!("{}{query}", url.path())
}

#[tokio::test]
async fn a_subscription_is_started_once_in_fifteen_minutes() {
    let simulator = simulator(SimulatorOptions::default());
    let router = simulator.microsoft_router();
    let token = microsoft_token(&simulator).await;
    let bearer = format!("Bearer {token}");
    let call = async |operation: &str| {
        let path = format!(
            "{}?contentType=Audit.Exchange&{PUBLISHER}",
            feed(&simulator, operation)
        );
        post(&router, &path, &[("authorization", &bearer)], Vec::new()).await
    };
    let list = feed(&simulator, &format!("subscriptions/list?{PUBLISHER}"));
    assert_eq!(get(&router, &list, &token).await.json(), json!([]));
    let content = format!("subscriptions/content?contentType=Audit.Exchange&{PUBLISHER}");
    assert_eq!(
        get(&router, &feed(&simulator, &content), &token)
            .await
            .code(),
        "AF20022"
    );
    assert_eq!(
        call("subscriptions/start").await.json()["status"],
        "enabled"
    );
    let early = call("subscriptions/start").await;
    assert_eq!(early.status, 429);
    assert!(
        early.text().contains("Please retry again after 15m 0s"),
        "{}",
        early.text()
    );
    simulator.clock().advance(Duration::from_mins(15));
    assert_eq!(call("subscriptions/start").await.code(), "AF20024");
    assert_eq!(
        simulator
            .microsoft()
            .start_calls("contoso", "Audit.Exchange"),
        3
    );
    let rows = get(&router, &list, &token).await.json();
    assert_eq!(
        rows,
        json!([{"contentType": "Audit.Exchange", "status": "enabled", "webhook": null}])
    );
    assert!(call("subscriptions/stop").await.status.is_success());
    assert_eq!(
        get(&router, &feed(&simulator, &content), &token)
            .await
            .code(),
        "AF20023"
    );
    simulator.clock().advance(Duration::from_secs(15 * 60 - 1));
    assert_eq!(call("subscriptions/stop").await.status, 204);
    simulator.clock().advance(Duration::from_secs(2));
    assert_eq!(
        call("subscriptions/start").await.code(),
        "AF20023",
        "at once after a stop"
    );
}

#[tokio::test]
async fn windows_are_held_to_their_rules() {
    let simulator = simulator(subscribed());
    let router = simulator.microsoft_router();
    let token = microsoft_token(&simulator).await;
    for (window, code) in [
        (
            "startTime=2026-03-04T00:00:00&endTime=2026-03-05T00:00:00",
            "",
        ),
        ("startTime=2026-03-04&endTime=2026-03-05", ""),
        (
            "startTime=2026-03-04T00:00Z&endTime=2026-03-04T01:00",
            "AF20055",
        ),
        (
            "startTime=2026-03-04T00:00:00&endTime=2026-03-05T00:00:01",
            "AF20030",
        ),
        (
            "startTime=2026-02-20T00:00:00&endTime=2026-02-20T10:00:00",
            "AF20030",
        ),
        (
            "startTime=2026-03-05T00:00:00&endTime=2026-03-04T00:00:00",
            "AF20055",
        ),
        ("startTime=2026-03-04T00:00:00", "AF20030"),
        ("startTime=now&endTime=then", "AF20055"),
        ("", ""),
    ] {
        let path = format!("subscriptions/content?contentType=Audit.Exchange&{PUBLISHER}&{window}");
        let reply = get(&router, &feed(&simulator, &path), &token).await;
        match code {
            "" => assert_eq!(reply.status, 200, "{window}: {}", reply.text()),
            code => assert_eq!(reply.code(), code, "{window}"),
        }
    }
}

/// Walks all windows of the span and gives (records by id with counts, items listed).
async fn walk(
    simulator: &Simulator,
    content_type: &str,
    token: &str,
) -> (BTreeMap<String, usize>, Vec<Value>) {
    let router = simulator.microsoft_router();
    let mut items = Vec::new();
    let mut start = time("2026-03-03T00:00:00Z");
    while start < simulator.clock().now() {
        let end = start + TimeDelta::hours(24);
        let window = format!(
            "startTime={}&endTime={}",
            start.format("%Y-%m-%dT%H:%M:%S"),
            end.format("%Y-%m-%dT%H:%M:%S")
        );
        let query =
            format!("subscriptions/content?contentType={content_type}&{window}&{PUBLISHER}");
        let mut path = feed(simulator, &query);
        loop {
            let reply = get(&router, &path, token).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let page = reply.json();
            assert!(page.as_array().unwrap().len() <= 7);
            items.extend(page.as_array().unwrap().clone());
            let Some(next) = reply.headers.get("nextpageuri") else {
                break;
            };
            path = format!("{}&{PUBLISHER}", path_and_query(next.to_str().unwrap()));
        }
        start = end;
    }
    let mut records = BTreeMap::new();
    for item in &items {
        let path = format!(
            "{}?{PUBLISHER}",
            path_and_query(item["contentUri"].as_str().unwrap())
        );
        let reply = get(&router, &path, token).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        for record in reply.json().as_array().unwrap() {
            *records
                .entry(record["Id"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    (records, items)
}

#[tokio::test]
async fn walking_all_windows_gives_every_record_some_twice_and_some_blobs_in_two_listings() {
    let simulator = simulator(subscribed());
    simulator.clock().set(time("2026-03-10T00:00:00Z"));
    let token = microsoft_token(&simulator).await;
    let (mut doubled, mut relisted, mut both_forms) = (0, 0, BTreeSet::new());
    for content_type in CONTENT_TYPES {
        let (records, items) = walk(&simulator, content_type, &token).await;
        let stream = format!("office365/{content_type}");
        let due: BTreeSet<String> = simulator
            .world()
            .records("contoso", &stream)
            .map(|(id, _)| id.to_owned())
            .collect();
        assert_eq!(
            records.keys().cloned().collect::<BTreeSet<_>>(),
            due,
            "{content_type}"
        );
        doubled += records.values().filter(|count| **count > 1).count();
        let ids: BTreeSet<&str> = items
            .iter()
            .map(|i| i["contentId"].as_str().unwrap())
            .collect();
        relisted += items.len() - ids.len();
        both_forms.extend(
            items
                .iter()
                .map(|i| i["contentUri"].as_str().unwrap().contains("%24")),
        );
    }
    assert!(doubled > 10 && relisted > 5, "{doubled} {relisted}");
    assert_eq!(
        both_forms.len(),
        2,
        "the id is coded in some links and not in others"
    );
}

#[tokio::test]
async fn a_blob_is_404_before_it_is_ready_and_expired_after_seven_days() {
    let mut world = support::options(11);
    world.delivery.unready_share = 1.0;
    world.delivery.relisted_share = 0.0;
    let world = exfilwatch_simulator::World::invent(world);
    let options = SimulatorOptions {
        credentials: Some(support::credentials()),
        ..subscribed()
    };
    let simulator = Simulator::new(world, options).unwrap();
    let router = simulator.microsoft_router();
    simulator.clock().set(time("2026-03-03T12:00:00Z"));
    let token = microsoft_token(&simulator).await;
    let window = "startTime=2026-03-03T00:00:00&endTime=2026-03-03T12:00:00";
    let query = format!("subscriptions/content?contentType=Audit.Exchange&{PUBLISHER}&{window}");
    let items = get(&router, &feed(&simulator, &query), &token).await.json();
    let item = &items[0];
    let created = time(item["contentCreated"].as_str().unwrap());
    assert_eq!(
        time(item["contentExpiration"].as_str().unwrap()) - created,
        TimeDelta::days(7)
    );
    let path = format!(
        "{}?{PUBLISHER}",
        path_and_query(item["contentUri"].as_str().unwrap())
    );
    for (after, code) in [
        (TimeDelta::minutes(1), "AF20050"),
        (TimeDelta::minutes(5), ""),
        (TimeDelta::days(7), "AF20051"),
    ] {
        simulator.clock().set(created + after);
        let token = microsoft_token(&simulator).await;
        let reply = get(&router, &path, &token).await;
        match code {
            "" => assert_eq!(reply.status, 200),
            code => assert_eq!(reply.code(), code, "{after}"),
        }
    }
    let nonsense = feed(&simulator, &format!("audit/nonsense?{PUBLISHER}"));
    let token = microsoft_token(&simulator).await;
    assert_eq!(get(&router, &nonsense, &token).await.code(), "AF20052");
}

#[tokio::test]
async fn tokens_tenants_roles_and_publishers_are_checked() {
    let simulator = simulator(subscribed());
    let router = simulator.microsoft_router();
    let token = microsoft_token(&simulator).await;
    let list = |query: &str| feed(&simulator, &format!("subscriptions/list{query}"));
    let reply = get(&router, &list(""), "nonsense").await;
    assert_eq!(reply.status, 401);
    assert!(
        reply.json()["Message"].is_string(),
        "another shape than the service's own errors"
    );
    let reply = get(&router, &list("?PublisherIdentifier=me"), &token).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (400, "AF20002")
    );
    assert_eq!(get(&router, &list(""), &token).await.status, 200);
    assert_eq!(simulator.microsoft().calls_without_publisher(), 1);
    let other = "/api/v1.0/11111111-2222-4333-8444-555555555555/activity/feed/subscriptions/list";
    assert_eq!(get(&router, other, &token).await.code(), "AF20010");
    let domain = "/api/v1.0/contoso.example/activity/feed/subscriptions/list";
    assert_eq!(get(&router, domain, &token).await.code(), "AF20013");
    simulator.microsoft().set_auditing("contoso", false);
    let reply = get(&router, &list(&format!("?{PUBLISHER}")), &token).await;
    assert!(reply.code().ends_with("DataServiceException"));
    assert!(reply.text().contains("does not exist"));
    simulator.microsoft().set_auditing("contoso", true);
    simulator.microsoft().set_roles(&["ActivityFeed.Read"]);
    let token = microsoft_token(&simulator).await;
    for (content_type, status) in [
        ("Audit.General", 200),
        ("DLP.All", 401),
        ("Audit.Nope", 400),
    ] {
        let path = format!("subscriptions/content?contentType={content_type}&{PUBLISHER}");
        assert_eq!(
            get(&router, &feed(&simulator, &path), &token).await.status,
            status
        );
    }
    simulator.clock().advance(Duration::from_hours(1));
    assert_eq!(
        get(&router, &list(""), &token).await.status,
        401,
        "the token has run out"
    );
}

#[tokio::test]
async fn above_the_quota_the_reply_is_403_with_single_quotes() {
    let mut options = subscribed();
    options.microsoft.requests_per_minute = 3;
    let simulator = simulator(options);
    let router = simulator.microsoft_router();
    let token = microsoft_token(&simulator).await;
    let path = feed(&simulator, &format!("subscriptions/list?{PUBLISHER}"));
    for _ in 0..3 {
        assert_eq!(get(&router, &path, &token).await.status, 200);
    }
    let reply = get(&router, &path, &token).await;
    assert_eq!(reply.status, 403);
    assert!(
        reply.text().starts_with("{'error':{'code':'AF429'"),
        "{}",
        reply.text()
    );
    simulator.clock().advance(Duration::from_mins(1));
    assert_eq!(get(&router, &path, &token).await.status, 200);
}

#[tokio::test]
async fn a_blob_is_compressed_for_those_who_ask_and_carries_the_virtual_date() {
    let simulator = simulator(subscribed());
    let router = simulator.microsoft_router();
    let token = microsoft_token(&simulator).await;
    let query = format!("subscriptions/content?contentType=Audit.Exchange&{PUBLISHER}");
    let items = get(&router, &feed(&simulator, &query), &token).await.json();
    let path = path_and_query(items[0]["contentUri"].as_str().unwrap());
    let plain = get(&router, &path, &token).await;
    assert_eq!(plain.headers["date"], "Thu, 05 Mar 2026 06:00:00 GMT");
    let request = Request::get(&path)
        .header("authorization", format!("Bearer {token}"))
        .header("accept-encoding", "gzip");
    let packed = send(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(&packed.body[..]);
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert_eq!(text, plain.text());
}

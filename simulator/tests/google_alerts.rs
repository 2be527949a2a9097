//! The Alert Center: filter, order, pages, versions of an alert, and who may read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use exfilwatch_simulator::google::{GoogleOptions, SCOPE_ALERTS, SCOPE_AUDIT};
use exfilwatch_simulator::{Simulator, SimulatorOptions};
use serde_json::{Value, json};
use support::{Reply, form, get, google_ask, google_claims, simulator};

async fn token(simulator: &Simulator, scope: &str) -> String {
    simulator
        .google()
        .set_delegated_scopes(&[SCOPE_AUDIT, SCOPE_ALERTS]);
    let mut claims = google_claims(simulator);
    claims["scope"] = json!(scope);
    let answer = google_ask(simulator, &claims).await.json();
    answer["access_token"].as_str().unwrap().to_owned()
}

async fn list(simulator: &Simulator, token: &str, query: &[(&str, &str)]) -> Reply {
    let query = String::from_utf8(form(query)).unwrap();
    let path = format!("/v1beta1/alerts?{query}");
    get(&simulator.google_router(), &path, token).await
}

fn ids(page: &Value) -> Vec<String> {
    let alerts = page["alerts"].as_array().cloned().unwrap_or_default();
    let id = |alert: &Value| alert["alertId"].as_str().unwrap().to_owned();
    alerts.iter().map(id).collect()
}

fn with_alerts() -> (Simulator, Vec<String>) {
    let simulator = simulator(SimulatorOptions {
        google: GoogleOptions::default(),
        ..SimulatorOptions::default()
    });
    let mut made = Vec::new();
    for _ in 0..7 {
        let id = simulator.google().raise_alert(
            "contoso",
            "Leaked password",
            "Google identity",
            json!({}),
        );
        made.push(id.unwrap());
        simulator.clock().advance(Duration::from_mins(10));
    }
    (simulator, made)
}

#[tokio::test]
async fn filter_and_order_are_those_of_the_reference_and_others_are_refused() {
    let (simulator, made) = with_alerts();
    let token = token(&simulator, SCOPE_ALERTS).await;
    let all = list(&simulator, &token, &[("orderBy", "createTime asc")])
        .await
        .json();
    assert_eq!(ids(&all), made);
    let third = all["alerts"][2]["createTime"].as_str().unwrap();
    let fifth = all["alerts"][4]["createTime"].as_str().unwrap();
    let filter = format!("createTime >= \"{third}\" AND createTime <= \"{fifth}\"");
    let query = [("filter", filter.as_str()), ("orderBy", "createTime desc")];
    let some = list(&simulator, &token, &query).await.json();
    assert_eq!(ids(&some), [&*made[4], &*made[3], &*made[2]]);
    for query in [
        ("filter", "updateTime >= \"2026-03-03T00:00:00Z\""),
        ("filter", "createTime >= 2026"),
        ("orderBy", "updateTime asc"),
        ("pageToken", "nonsense"),
    ] {
        let reply = list(&simulator, &token, &[query]).await;
        assert_eq!(reply.status, 400, "{query:?}");
        assert_eq!(reply.json()["error"]["status"], "INVALID_ARGUMENT");
    }
    let unsorted = list(&simulator, &token, &[]).await.json();
    assert_eq!(ids(&unsorted).len(), 7);
    assert_ne!(ids(&unsorted), made);
}

#[tokio::test]
async fn a_changed_alert_has_another_etag_and_leads_the_list_of_changes() {
    let (simulator, made) = with_alerts();
    let token = token(&simulator, SCOPE_ALERTS).await;
    let of = async |id: &str| {
        let query = [("filter", format!("alertId = \"{id}\""))];
        let query: Vec<(&str, &str)> = query.iter().map(|(n, v)| (*n, v.as_str())).collect();
        list(&simulator, &token, &query).await.json()["alerts"][0].clone()
    };
    let before = of(&made[1]).await;
    simulator.google().change_alert(&made[1], "CLOSED");
    let after = of(&made[1]).await;
    assert_eq!(before["createTime"], after["createTime"]);
    assert_ne!(before["etag"], after["etag"]);
    assert_ne!(before["updateTime"], after["updateTime"]);
    assert_eq!(after["metadata"]["status"], "CLOSED");
    let changes = list(&simulator, &token, &[("orderBy", "updateTime desc")])
        .await
        .json();
    assert_eq!(ids(&changes)[0], made[1]);
}

#[tokio::test]
async fn pages_belong_to_their_filter_and_order() {
    let (simulator, made) = with_alerts();
    let token = token(&simulator, SCOPE_ALERTS).await;
    let first = [("orderBy", "createTime asc"), ("pageSize", "3")];
    let page = list(&simulator, &token, &first).await.json();
    let next = page["nextPageToken"].as_str().unwrap();
    let mut read = ids(&page);
    let second = [first[0], first[1], ("pageToken", next)];
    let page = list(&simulator, &token, &second).await.json();
    read.extend(ids(&page));
    assert_eq!(read, made[..6]);
    let other = [("orderBy", "createTime desc"), ("pageToken", next)];
    assert_eq!(list(&simulator, &token, &other).await.status, 400);
}

#[tokio::test]
async fn only_a_service_account_with_the_scope_and_an_administrator_may_read() {
    let (simulator, _) = with_alerts();
    let audit = token(&simulator, SCOPE_AUDIT).await;
    let reply = list(&simulator, &audit, &[]).await;
    assert_eq!(reply.status, 403);
    let reason = &reply.json()["error"]["details"][0]["reason"];
    assert_eq!(reason, "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
    let alerts = token(&simulator, SCOPE_ALERTS).await;
    let customer = simulator.world().tenants()[0].customer_id.clone().unwrap();
    let bare = customer.strip_prefix('C').unwrap();
    assert_eq!(
        list(&simulator, &alerts, &[("customerId", bare)])
            .await
            .status,
        200
    );
    assert_eq!(
        list(&simulator, &alerts, &[("customerId", &customer)])
            .await
            .status,
        403
    );
    let mut claims = google_claims(&simulator);
    claims["scope"] = json!(SCOPE_ALERTS);
    claims["sub"] = json!(simulator.world().tenants()[0].person(3).email);
    let plain = google_ask(&simulator, &claims).await.json();
    let plain = plain["access_token"].as_str().unwrap();
    assert_eq!(list(&simulator, plain, &[]).await.status, 403);
    simulator.google().set_delegated_scopes(&[SCOPE_AUDIT]);
    claims["scope"] = json!(format!("{SCOPE_AUDIT} {SCOPE_ALERTS}"));
    let both = google_ask(&simulator, &claims).await.json();
    assert_eq!(
        both["error"], "unauthorized_client",
        "one missing scope fails all"
    );
}

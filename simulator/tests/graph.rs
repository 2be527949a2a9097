//! Microsoft Graph: searches of the audit log queue, run, end and are paged as the reference says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use exfilwatch_simulator::{Simulator, SimulatorOptions};
use serde_json::{Value, json};
use support::{Reply, form, get, post, simulator};

const QUERIES: &str = "/v1.0/security/auditLog/queries";

async fn token(simulator: &Simulator, root: &str) -> String {
    let tenant = simulator.world().tenants()[0].tenant_id.unwrap();
    let app = &simulator.credentials().microsoft;
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", &app.client_id),
        ("client_secret", &app.client_secret),
        ("scope", &format!("{root}/.default")),
    ]);
    let path = format!("/{tenant}/oauth2/v2.0/token");
    let reply = post(&simulator.microsoft_router(), &path, &[], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

async fn graph_token(simulator: &Simulator) -> String {
    token(simulator, "https://graph.microsoft.com").await
}

async fn submit(simulator: &Simulator, token: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    post(
        &simulator.microsoft_router(),
        QUERIES,
        &headers,
        body.to_string().into(),
    )
    .await
}

fn two_days() -> Value {
    json!({"filterStartDateTime": "2026-03-03T06:00:00Z", "filterEndDateTime": "2026-03-05T06:00:00Z"})
}

#[tokio::test]
async fn a_search_queues_runs_and_gives_all_records_over_pages() {
    let simulator = simulator(SimulatorOptions::default());
    simulator
        .microsoft()
        .change_graph(|habits| habits.lag_seconds = 0);
    let router = simulator.microsoft_router();
    let token = graph_token(&simulator).await;
    let reply = submit(&simulator, &token, &two_days()).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["status"]),
        (201, &json!("notStarted"))
    );
    let path = format!("{QUERIES}/{}", reply.json()["id"].as_str().unwrap());
    for (seconds, status) in [(40, "running"), (400, "succeeded")] {
        simulator.clock().advance(Duration::from_secs(seconds));
        assert_eq!(get(&router, &path, &token).await.json()["status"], status);
    }
    let shown = get(&router, &path, &token).await.json();
    let mut ids = BTreeSet::new();
    let mut next = Some(format!("{path}/records?$top=100"));
    while let Some(link) = next {
        let page = get(&router, &link, &token).await.json();
        for record in page["value"].as_array().unwrap() {
            assert_eq!(record["id"], record["auditData"]["Id"]);
            assert!(ids.insert(record["id"].as_str().unwrap().to_owned()));
        }
        next = page["@odata.nextLink"]
            .as_str()
            .map(|link| link.replace("http://127.0.0.1:1", ""));
    }
    let records = simulator.sheet().records.iter();
    let due: BTreeSet<String> = records
        .filter(|record| {
            record.stream.starts_with("office365/")
                && *record.tenant == *simulator.world().tenants()[0].alias
        })
        .map(|record| record.id.clone())
        .collect();
    assert!(due.len() > 100);
    assert_eq!(ids, due);
    assert_eq!(shown["approximateReturnedRecordCount"], json!(due.len()));
    assert_eq!(shown["isRecordCountLimitExceeded"], json!(false));
}

#[tokio::test]
async fn each_mistake_is_refused_as_graph_refuses_it() {
    let simulator = simulator(SimulatorOptions::default());
    let router = simulator.microsoft_router();
    let feed = token(&simulator, "https://manage.office.com").await;
    assert_eq!(submit(&simulator, &feed, &two_days()).await.status, 401);
    let token = graph_token(&simulator).await;
    for wrong in [
        json!({}),
        json!({"filterStartDateTime": "2026-03-03T06:00:00Z", "filterEndDateTime": "2026-03-03T06:00:00Z"}),
        json!({"filterStartDateTime": "2026-03-03T06:00:00Z", "filterEndDateTime": "2026-03-05T06:00:00Z",
               "recordTypeFilters": ["ExchangeTypo"]}),
    ] {
        let reply = submit(&simulator, &token, &wrong).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (400, "BadRequest"),
            "{wrong}"
        );
    }
    let reply = submit(&simulator, &token, &two_days()).await;
    let path = format!("{QUERIES}/{}/records", reply.json()["id"].as_str().unwrap());
    let reply = get(&router, &format!("{path}?$top=1001"), &token).await;
    assert!(
        reply.status == 400 && reply.text().contains("Top query"),
        "{}",
        reply.text()
    );
    assert_eq!(
        get(&router, &format!("{QUERIES}/none"), &token)
            .await
            .status,
        404
    );
    simulator.microsoft().set_graph_roles(&[]);
    let powerless = graph_token(&simulator).await;
    assert_eq!(
        submit(&simulator, &powerless, &two_days()).await.status,
        403
    );
    assert_eq!(get(&router, "/v1.0/domains", &powerless).await.status, 403);
    simulator
        .microsoft()
        .change_graph(|habits| habits.submissions_per_day = 1);
    let reply = submit(&simulator, &token, &two_days()).await;
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.headers["retry-after"].to_str().unwrap()
        ),
        (429, "600")
    );
}

#[tokio::test]
async fn a_workload_permission_gives_that_workload_and_says_nothing_of_the_rest() {
    let simulator = simulator(SimulatorOptions::default());
    simulator
        .microsoft()
        .set_graph_roles(&["AuditLogsQuery-Entra.Read.All"]);
    let token = graph_token(&simulator).await;
    let reply = submit(&simulator, &token, &two_days()).await;
    simulator.clock().advance(Duration::from_secs(500));
    let path = format!(
        "{QUERIES}/{}/records?$top=1000",
        reply.json()["id"].as_str().unwrap()
    );
    let page = get(&simulator.microsoft_router(), &path, &token)
        .await
        .json();
    let records = page["value"].as_array().unwrap();
    let entra = |record: &Value| record["service"] == "AzureActiveDirectory";
    assert!(records.len() > 10 && records.iter().all(entra));
}

#[tokio::test]
async fn the_domains_of_the_tenant_are_listed() {
    let simulator = simulator(SimulatorOptions::default());
    let token = graph_token(&simulator).await;
    let reply = get(&simulator.microsoft_router(), "/v1.0/domains", &token).await;
    let tenant = &simulator.world().tenants()[0];
    let names: Vec<Value> = reply.json()["value"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|domain| domain["isVerified"] == true)
        .map(|domain| domain["id"].clone())
        .collect();
    assert_eq!(names, [json!(tenant.domain), json!(tenant.onmicrosoft)]);
}

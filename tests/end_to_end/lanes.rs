//! The lanes of the real binary: routes to several receivers, an index that is not there, what is refused
//! and sent again or dropped, a test of the way, and what a probe is told.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::hec::{Poison, Recorded};
use exfilwatch_simulator::{AttackPlan, Delivery, SimulatorOptions, WorldOptions};
use serde_json::Value;

use crate::scene::{Scene, until};

fn start() -> DateTime<Utc> {
    "2026-05-04T08:00:00Z".parse().unwrap()
}

/// Two tenants, some attacks, all of it in the past.
async fn scene() -> Scene {
    let world = WorldOptions {
        records_per_day: 600,
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Stepped {
            first: start(),
            step: TimeDelta::minutes(3),
        },
        ..WorldOptions::new(12, start(), start() + TimeDelta::hours(3))
    };
    let options = SimulatorOptions {
        start: Some(start() + TimeDelta::hours(4)),
        rate: 60.0,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

/// Changes the configuration of the scene.
fn configure(scene: &Scene, change: impl FnOnce(String) -> String) {
    scene.write("exfilwatch.toml", &change(scene.configuration()));
}

fn tenants(scene: &Scene) -> Vec<String> {
    let world = scene.services.simulator.world();
    world.tenants().iter().map(|t| t.alias.clone()).collect()
}

/// How many records the collector misses of a tenant.
fn missing_of(scene: &Scene, tenant: &str) -> (usize, usize) {
    let missing: BTreeSet<String> = scene.missing().into_iter().collect();
    let records = &scene.services.simulator.sheet().records;
    let of: Vec<_> = records.iter().filter(|r| &*r.tenant == tenant).collect();
    let lacks = of.iter().filter(|r| missing.contains(&r.id)).count();
    (lacks, of.len())
}

async fn json(scene: &Scene, arguments: &[&str]) -> Value {
    let output = scene
        .output(&[arguments, &["--output", "json"]].concat())
        .await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{said}"))
}

async fn routes_of_lanes(scene: &Scene) -> Vec<String> {
    let status = json(scene, &["status"]).await;
    let lanes = status[0]["lanes"].as_array().unwrap().iter();
    lanes
        .map(|lane| lane["lane"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_not_there_holds_its_tenant_only_over_a_restart_until_it_is_made() {
    let scene = scene().await;
    configure(&scene, |text| {
        let token = "send = [\"findings\", \"signals\", \"events\", \"internal\"]\n";
        text.replacen(
            token,
            &format!("{token}index = {{ events = \"saas_{{tenant}}\" }}\n"),
            1,
        )
    });
    let tenants = tenants(&scene);
    let (held, others) = tenants.split_first().unwrap();
    let hec = scene.services.simulator.hec();
    let there = others.iter().map(|name| format!("saas_{name}"));
    let there: BTreeSet<String> = there.chain(["main".to_owned()]).collect();
    hec.configure(|options| options.indexes = there);

    let process = scene.start();
    until(
        "the others' records",
        || {
            others.iter().all(|name| missing_of(&scene, name).0 == 0)
                && scene.log().contains("the tenant is held")
        },
        || scene.report(),
    )
    .await;
    let (lacks, all) = missing_of(&scene, held);
    assert!(lacks == all && all > 0, "{lacks} of {all}");
    let parted = format!("@{held}");
    let lanes = routes_of_lanes(&scene).await;
    assert!(lanes.iter().any(|lane| lane.contains(&parted)), "{lanes:?}");
    assert_eq!(process.terminate().await, Some(0));

    let process = scene.start();
    hec.configure(|options| options.indexes.clear());
    until(
        "what was held",
        || scene.missing().is_empty(),
        || scene.report(),
    )
    .await;
    assert_eq!(process.terminate().await, Some(0));
    let repeats = hec.look(Recorded::duplicates);
    assert_eq!(repeats, 0, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_refuses_is_listed_shown_and_sent_again_or_dropped() {
    let scene = scene().await;
    let hec = scene.services.simulator.hec();
    let records = &scene.services.simulator.sheet().records;
    let office: Vec<_> = records
        .iter()
        .filter(|r| r.stream.starts_with("office365/"))
        .take(2)
        .collect();
    let poison = |id: &String| Poison {
        contains: format!(r#""Id":"{id}""#),
        code: 6,
    };
    let poison = office.iter().map(|record| poison(&record.id)).collect();
    hec.configure(|options| options.poison = poison);
    let process = scene.start();
    let list = || {
        let output = scene.command(&["dlq", "list", "--output", "json"]).output();
        let entries: Option<Value> = serde_json::from_slice(&output.unwrap().stdout).ok();
        entries.and_then(|entries| entries.as_array().cloned())
    };
    until(
        "all but the two",
        || scene.missing().len() == 2 && list().is_some_and(|entries| entries.len() == 2),
        || scene.report(),
    )
    .await;
    let listed = list().unwrap();
    let id_of = |record: &str| {
        let entry = listed
            .iter()
            .find(|one| one["item"].as_str().unwrap().contains(record));
        entry.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let [again, dropped] = [&office[0].id, &office[1].id].map(|id| id_of(id));
    let shown = scene.output(&["dlq", "show", &again]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&office[0].id), "{shown}");

    let drop = ["dlq", "drop", dropped.as_str(), "--reason", "a test record"];
    assert!(scene.output(&drop).await.status.success());
    hec.configure(|options| options.poison.clear());
    assert!(
        scene
            .output(&["dlq", "retry", "--all"])
            .await
            .status
            .success()
    );
    until(
        "what was sent again",
        || scene.missing() == [office[1].id.clone()] && list().is_some_and(|l| l.is_empty()),
        || scene.report(),
    )
    .await;
    let all = json(&scene, &["dlq", "list", "--all"]).await;
    let all = all.to_string();
    assert!(all.contains("a test record"), "{all}");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_receiver_gets_what_its_filter_says_and_nothing_else() {
    let scene = scene().await;
    let urgent = scene.path("urgent.ndjson");
    configure(&scene, |text| {
        format!(
            "{text}\n[emitters.ndjson.urgent]\npath = \"{}\"\n\
             filter = {{ severity_min = \"high\", detectors = [\"o365.*\"], tenants = [\"{}\"] }}\n",
            urgent.display(),
            tenants(&scene)[0]
        )
    });
    let process = scene.start();
    until(
        "all records",
        || scene.missing().is_empty(),
        || scene.report(),
    )
    .await;
    assert_eq!(process.terminate().await, Some(0));
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(scene.path(name)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    };
    let is_urgent = |finding: &&Value| {
        let severity = finding["severity"].as_str().unwrap();
        let ours = &finding["unmapped"]["exfilwatch"];
        let rule = ours["detection"].as_str().unwrap();
        let tenant = finding["metadata"]["tenant_uid"].as_str().unwrap();
        matches!(severity, "High" | "Critical")
            && rule.starts_with("o365.")
            && tenant == tenants(&scene)[0]
            && ours["alert"] == true
    };
    let all = lines("findings.ndjson");
    let expected: Vec<&Value> = all.iter().filter(is_urgent).collect();
    let found = lines("urgent.ndjson");
    assert!(!expected.is_empty() && expected.len() < all.len());
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_of_the_way_says_what_the_receiver_says() {
    let scene = scene().await;
    let tested = scene.output(&["emitter", "test", "main"]).await;
    assert!(
        tested.status.success(),
        "{}",
        String::from_utf8_lossy(&tested.stderr)
    );
    scene.services.simulator.hec().set_token("rotated");
    let tested = scene.output(&["emitter", "test", "main"]).await;
    let said = String::from_utf8_lossy(&tested.stderr).into_owned();
    assert_eq!(tested.status.code(), Some(5), "{said}");
    assert!(
        said.contains("Invalid token") && said.contains("check the HEC token"),
        "{said}"
    );
    let token = &scene.services.simulator.credentials().hec_token;
    assert!(!said.contains(token.as_str()), "a secret is shown");
}

/// Status code of a GET.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let status = reply.split(' ').nth(1)?.parse().ok()?;
    Some((status, reply))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_told_when_findings_wait_too_long_and_when_they_no_longer_do() {
    let scene = scene().await;
    configure(&scene, |text| {
        format!("{text}\n[serve]\nfinding_wait_seconds_max = 60\n")
    });
    let hec = scene.services.simulator.hec();
    hec.disable_token(true);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let process = scene.start_with(&["--listen", &address.to_string()]);
    let ready = || get(address, "/readyz");
    until(
        "not ready",
        || ready().is_some_and(|(status, said)| status == 503 && said.contains("splunk_hec.main")),
        || format!("{:?}\n{}", ready(), scene.log()),
    )
    .await;
    hec.disable_token(false);
    until(
        "ready",
        || ready().is_some_and(|(status, _)| status == 200),
        || format!("{:?}\n{}", ready(), scene.log()),
    )
    .await;
    assert_eq!(process.terminate().await, Some(0));
}

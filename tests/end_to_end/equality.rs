//! The same records give the same findings: polled, backfilled, forwarded, shuffled, newest first.

use std::collections::BTreeMap;
use std::process::Output;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{Delivery, SimulatorOptions, WorldOptions};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use crate::scene::{Scene, exfilwatch, until};

fn start() -> DateTime<Utc> {
    "2026-05-04T06:00:00Z".parse().unwrap()
}

async fn scene(rate: f64, at: DateTime<Utc>) -> Scene {
    let world = WorldOptions {
        records_per_day: 1_200,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, start(), start() + TimeDelta::hours(16))
    };
    let options = SimulatorOptions {
        start: Some(at),
        rate,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

/// Final state of a finding: what must not depend on the way.
type State = (String, String, u64, Vec<String>, String, String, String);

fn final_states(documents: impl Iterator<Item = Value>) -> BTreeMap<String, State> {
    let mut states: BTreeMap<String, State> = BTreeMap::new();
    for document in documents {
        let ours = &document["unmapped"]["exfilwatch"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut ids: Vec<String> = ours["event_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect();
        ids.sort();
        let uid = text(&document["finding_info"]["uid"]);
        // A finding that was sent in revisions stands as its last one, which counts most.
        let state = (
            text(&ours["detection"]),
            text(&ours["entity"]),
            ours["count"].as_u64().unwrap(),
            ids,
            text(&ours["first_time"]),
            text(&ours["last_time"]),
            text(&document["severity"]),
        );
        let known = states.entry(uid).or_insert_with(|| state.clone());
        if state.2 >= known.2 {
            *known = state;
        }
    }
    states
}

fn lines(output: &Output) -> impl Iterator<Item = Value> + '_ {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
}

fn delivered(scene: &Scene) -> BTreeMap<String, State> {
    let text = std::fs::read_to_string(scene.path("findings.ndjson")).unwrap_or_default();
    final_states(text.lines().map(|line| serde_json::from_str(line).unwrap()))
}

/// All records of the sheet as lines, in an order.
fn records(scene: &Scene, order: impl FnOnce(&mut Vec<(i64, Vec<u8>)>)) -> Vec<u8> {
    let sheet = scene.services.simulator.sheet();
    let mut all: Vec<(i64, Vec<u8>)> = sheet
        .records
        .iter()
        .map(|record| (record.event_ms, record.body.to_vec()))
        .collect();
    order(&mut all);
    all.into_iter()
        .flat_map(|(_, mut line)| {
            line.push(b'\n');
            line
        })
        .collect()
}

fn domains(scene: &Scene) -> Vec<String> {
    let tenants = scene.services.simulator.world().tenants();
    tenants
        .iter()
        .flat_map(exfilwatch_simulator::world::Tenant::internal_domains)
        .collect()
}

async fn replay(scene: &Scene, name: &str, content: &[u8]) -> BTreeMap<String, State> {
    let path = scene.path(name);
    std::fs::write(&path, content).unwrap();
    let mut command = exfilwatch(&["replay", "--tenant", "contoso", "--output", "ndjson"]);
    for domain in domains(scene) {
        command.args(["--internal-domain", &domain]);
    }
    command.arg(&path);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    final_states(lines(&output))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_reading_the_same_records_gives_the_same_findings() {
    let end = start() + TimeDelta::hours(16);
    // All of it in the past, from files and by backfill.
    let scene = scene(1.0, end + TimeDelta::hours(2)).await;
    let in_order = replay(
        &scene,
        "in-order.ndjson",
        &records(&scene, |all| all.sort()),
    )
    .await;
    let newest_first = replay(
        &scene,
        "newest-first.ndjson",
        &records(&scene, |all| {
            all.sort();
            all.reverse();
        }),
    )
    .await;
    assert_eq!(newest_first, in_order, "newest first");
    let shuffled = replay(
        &scene,
        "shuffled.ndjson",
        &records(&scene, |all| {
            all.shuffle(&mut StdRng::seed_from_u64(3));
        }),
    )
    .await;
    assert_eq!(shuffled, in_order, "shuffled");

    let file = scene.path("in-order.ndjson");
    let forwarded = scene
        .output(&["forward", "--tenant", "contoso", file.to_str().unwrap()])
        .await;
    assert!(
        forwarded.status.success(),
        "{}",
        String::from_utf8_lossy(&forwarded.stderr)
    );
    assert!(scene.missing().is_empty(), "forward delivers every record");
    assert_eq!(delivered(&scene), in_order, "forward");

    let again = scene
        .output(&["forward", "--tenant", "contoso", file.to_str().unwrap()])
        .await;
    assert!(
        String::from_utf8_lossy(&again.stdout).contains("1 files skipped"),
        "{again:?}"
    );

    std::fs::remove_file(scene.path("findings.ndjson")).unwrap();
    std::fs::remove_dir_all(scene.path("state")).unwrap();
    scene.services.simulator.hec().clear();
    let since = start().to_rfc3339();
    let until_ = end.to_rfc3339();
    let clock = scene.virtual_clock();
    let arguments = [
        "backfill",
        "--since",
        &since,
        "--until",
        &until_,
        "--virtual-clock",
        &clock,
    ];
    let backfilled = scene.output(&arguments).await;
    assert!(
        backfilled.status.success(),
        "{}",
        String::from_utf8_lossy(&backfilled.stderr)
    );
    assert!(scene.missing().is_empty(), "backfill delivers every record");
    assert_eq!(delivered(&scene), in_order, "backfill");
    scene.services.shutdown().await;
}

/// A live poller may still owe the last word on a finding (`tests/last_word.rs`): it has the same ids,
/// and says of none more than what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_the_same_records_gives_the_same_findings() {
    let scene = scene(1_200.0, start()).await;
    let wanted = replay(
        &scene,
        "in-order.ndjson",
        &records(&scene, |all| all.sort()),
    )
    .await;
    let process = scene.start();
    until(
        "every record",
        || scene.missing().is_empty(),
        || scene.report(),
    )
    .await;
    let ids = || delivered(&scene).into_keys().collect::<Vec<_>>();
    let wanted_ids: Vec<String> = wanted.keys().cloned().collect();
    let describe = || format!("{:#?}", difference(&delivered(&scene), &wanted));
    until("every finding", || ids() == wanted_ids, describe).await;
    assert_eq!(process.terminate().await, Some(0));
    for (uid, polled) in delivered(&scene) {
        let whole = &wanted[&uid];
        // An incident names the first records of each finding, and which are the first can change until
        // its last word: then they are records of other findings at least.
        assert!(polled.2 <= whole.2, "{polled:?} counts more than {whole:?}");
        if polled.0 == "x.risk.incident" {
            let known = |id| wanted.values().any(|state| state.3.contains(id));
            assert!(polled.3.iter().all(known), "{polled:?}");
            continue;
        }
        assert!(
            polled.3.iter().all(|id| whole.3.contains(id)),
            "{polled:?} {whole:?}"
        );
    }
    scene.services.shutdown().await;
}

/// Findings that stand differently on both sides.
fn difference(
    left: &BTreeMap<String, State>,
    right: &BTreeMap<String, State>,
) -> Vec<(Option<State>, Option<State>)> {
    let ids: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let pairs = ids
        .into_iter()
        .map(|id| (left.get(id).cloned(), right.get(id).cloned()));
    pairs.filter(|(left, right)| left != right).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_dated_next_year_changes_nothing_but_itself() {
    let scene = scene(1.0, start() + TimeDelta::hours(18)).await;
    let plain = replay(&scene, "plain.ndjson", &records(&scene, |all| all.sort())).await;
    let future = json!({
        "CreationTime": "2027-12-31T23:59:59", "Id": "7f6f4f9e-2f6e-4c63-9c3d-0d6a3f0b1c2d",
        "Operation": "Set-Mailbox", "RecordType": 1, "Workload": "Exchange", "ResultStatus": "True",
        "OrganizationId": "6f1f4f9e-2f6e-4c63-9c3d-0d6a3f0b1c2d", "UserType": 2, "Version": 1,
        "UserId": "admin@contoso.example", "ObjectId": "alice", "ExternalAccess": false,
        "Parameters": [
            { "Name": "Identity", "Value": "alice@contoso.example" },
            { "Name": "ForwardingSmtpAddress", "Value": "smtp:drop@evil.example" },
        ],
    });
    let mut content = future.to_string().into_bytes();
    content.push(b'\n');
    content.extend(records(&scene, |all| all.sort()));
    let mut with_future = replay(&scene, "with-future.ndjson", &content).await;
    let own = |state: &State| {
        state
            .3
            .iter()
            .all(|id| id == "7f6f4f9e-2f6e-4c63-9c3d-0d6a3f0b1c2d")
    };
    let before = with_future.len();
    with_future.retain(|_, state| !own(state));
    assert!(with_future.len() < before, "the record itself is found");
    assert_eq!(with_future, plain);
    scene.services.shutdown().await;
}

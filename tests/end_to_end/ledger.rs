//! The ledger by the commands: `gaps`, `gaps acknowledge`, `status` and `reconcile`, with the poller up
//! and with it down.

use std::process::Output;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{Delivery, SimulatorOptions, WorldOptions};
use serde_json::Value;

use crate::scene::{Scene, until};

fn start() -> DateTime<Utc> {
    "2026-05-04T08:00:00Z".parse().unwrap()
}

/// Two hours of office life, read an hour later.
async fn scene() -> Scene {
    let world = WorldOptions {
        records_per_day: 1_200,
        delivery: Delivery::prompt(),
        attacks: exfilwatch_simulator::AttackPlan::Quiet,
        ..WorldOptions::new(9, start(), start() + TimeDelta::hours(2))
    };
    let options = SimulatorOptions {
        start: Some(start() + TimeDelta::hours(3)),
        rate: 60.0,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

fn json(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"))
}

/// Each stream's intervals follow each other without a hole.
fn assert_covering(intervals: &[Value]) {
    assert!(!intervals.is_empty());
    for pair in intervals.windows(2) {
        if pair[0]["stream"] == pair[1]["stream"] {
            assert_eq!(pair[0]["until"], pair[1]["from"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconciliation_accounts_for_everything_with_the_poller_up_and_down() {
    let scene = scene().await;
    let process = scene.start();
    until(
        "all records",
        || scene.missing().is_empty(),
        || scene.report(),
    )
    .await;

    let up = scene.output(&["reconcile", "--output", "json"]).await;
    assert_eq!(up.status.code(), Some(0), "{up:?}");
    let accounts = json(&up);
    let streams = accounts.len();
    let exchange = accounts
        .iter()
        .find(|account| account["stream"] == "contoso/office365/Audit.Exchange")
        .unwrap();
    assert!(exchange["listed"].as_u64().unwrap() > 0, "{exchange}");
    for account in &accounts {
        let column = |name: &str| account[name].as_u64().unwrap();
        let sum = ["done_before", "fetched", "missing", "lost"].map(column);
        assert_eq!(column("listed"), sum.iter().sum::<u64>(), "{account}");
        assert_eq!(column("records_new"), 0, "nothing was missing: {account}");
    }
    let all = scene.output(&["gaps", "--all", "--output", "json"]).await;
    let intervals = json(&all);
    assert_covering(&intervals);
    let gaps = json(&scene.output(&["gaps", "--output", "json"]).await);
    assert!(
        gaps.iter()
            .all(|gap| !gap["gaps"].as_array().unwrap().is_empty())
    );
    assert_eq!(process.terminate().await, Some(0));

    let clock = scene.virtual_clock();
    let down = scene
        .output(&[
            "reconcile",
            "--tenant",
            "contoso",
            "--virtual-clock",
            &clock,
            "--output",
            "json",
        ])
        .await;
    assert_eq!(down.status.code(), Some(0), "{down:?}");
    assert!(!json(&down).is_empty() && json(&down).len() <= streams);
    let at_rest = json(&scene.output(&["gaps", "--all", "--output", "json"]).await);
    assert_covering(&at_rest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_makes_status_end_with_seven_until_it_is_acknowledged() {
    let scene = scene().await;
    let microsoft = scene.services.simulator.microsoft();
    let process = scene.start();
    until(
        "all records",
        || scene.missing().is_empty(),
        || scene.report(),
    )
    .await;
    // Somebody turns a subscription off, and it is found out at the next look.
    microsoft.disable_subscription("contoso", "Audit.Exchange");
    let seven = |output: &Output| output.status.code() == Some(7);
    let mut status = scene.output(&["status"]).await;
    let waited = std::time::Instant::now();
    while !seven(&status) {
        assert!(
            waited.elapsed().as_secs() < 120,
            "{status:?}\n{}",
            scene.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        status = scene.output(&["status"]).await;
    }
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        said.contains("Audit.Exchange") && said.contains("open"),
        "{said}"
    );
    let listed = scene.output(&["gaps", "--output", "json"]).await;
    assert_eq!(listed.status.code(), Some(7));
    for gap in json(&listed) {
        for id in gap["gaps"].as_array().unwrap() {
            let arguments = [
                "gaps",
                "acknowledge",
                id.as_str().unwrap(),
                "--reason",
                "a drill",
            ];
            let done = scene.output(&arguments).await;
            assert_eq!(done.status.code(), Some(0), "{done:?}");
        }
    }
    let listed = scene.output(&["gaps", "--output", "json"]).await;
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    let kept = json(&listed);
    assert!(
        kept.iter()
            .any(|gap| gap["acknowledged"] == true && gap["state"] == "lost")
    );
    assert!(kept[0]["reasons"][0].as_str().unwrap().contains("a drill"));
    let unknown = scene
        .output(&["gaps", "acknowledge", "0123456789ab", "--reason", "x"])
        .await;
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_begins_where_the_first_run_does() {
    let scene = scene().await;
    let good = std::fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    let longer = good.replace("first_read_days = 1", "first_read_days = 3");
    assert_ne!(good, longer);
    scene.write("exfilwatch.toml", &longer);
    let begun = scene.services.simulator.clock().now();
    let process = scene.start();
    let polls = || scene.log().contains("polling");
    until("polling", polls, || scene.log()).await;
    let wanted = begun - TimeDelta::days(3) + TimeDelta::hours(2);
    let waited = std::time::Instant::now();
    loop {
        let intervals = json(&scene.output(&["gaps", "--all", "--output", "json"]).await);
        assert_covering(&intervals);
        let of_drive = |one: &&Value| one["stream"] == "contoso/google_workspace/drive";
        let first = intervals.iter().find(of_drive);
        let from = first.and_then(|one| one["from"].as_str()?.parse::<DateTime<Utc>>().ok());
        if from.is_some_and(|from| from <= wanted) {
            break;
        }
        let late = waited.elapsed().as_secs() > 120;
        assert!(!late, "{from:?} is not {wanted}\n{}", scene.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(process.terminate().await, Some(0));
}

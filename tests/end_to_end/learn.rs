//! `learn --since` over the vendors' logs: nothing is told or delivered, the live line knows it, and a
//! running process does it when it is asked.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{
    Delivery, Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use serde_json::Value;

use crate::scene::{Process, Scene, until};

const START: &str = "2026-05-04T00:00:00Z";
const DAYS: i64 = 9;

async fn scene(faults: FaultScript) -> Scene {
    let start: DateTime<Utc> = START.parse().unwrap();
    let end = start + TimeDelta::days(DAYS);
    let world = WorldOptions {
        records_per_day: 200_u32 as _,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(37, start, end)
    };
    let options = SimulatorOptions {
        start: Some(end + TimeDelta::hours(2)),
        rate: 60.0,
        faults,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

fn known(baselines: &Value) -> u64 {
    let all = baselines.as_array().unwrap().iter();
    all.map(|one| one["known"].as_u64().unwrap()).sum()
}

/// Whether something is judged at a time.
fn judges(baselines: &Value, at: DateTime<Utc>) -> bool {
    let from = |one: &Value| one["judges_from"].as_str()?.parse::<DateTime<Utc>>().ok();
    let mut all = baselines.as_array().unwrap().iter();
    all.any(|one| from(one).is_some_and(|from| from <= at))
}

async fn json(scene: &Scene, arguments: &[&str], code: i32) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--output", "json"]);
    let output = scene.output(&all).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_learned_beside_and_before_a_poller_and_nothing_of_it_is_told() {
    let scene = scene(FaultScript::default()).await;
    let clock = scene.virtual_clock();
    let end = START.parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(DAYS);
    let learn = ["learn", "--since", START, "--virtual-clock", &clock];

    let plan = json(&scene, &[&learn[..], &["--dry-run"]].concat(), 0).await;
    assert!(plan["plan"][0]["streams"].is_array(), "{plan}");
    assert!(!scene.path("state").exists(), "a plan opens no state");

    let alone = json(&scene, &learn, 0).await;
    assert_eq!(alone["end"], "done");
    assert!(alone["records"].as_u64() > Some(1_000), "{alone}");
    assert!(
        known(&alone["learned"]) > 20 && judges(&alone["learned"], end),
        "{alone}"
    );
    let told = || std::fs::read_to_string(scene.path("findings.ndjson")).unwrap_or_default();
    assert_eq!(told(), "");
    let at_receiver = |scene: &Scene| {
        let hec = scene.services.simulator.hec();
        hec.look(|recorded| recorded.events.len())
    };
    assert_eq!(at_receiver(&scene), 0, "nothing is delivered");
    let rest = json(&scene, &["status"], 0).await;
    assert_eq!(known(&rest[0]["baselines"]), known(&alone["learned"]));

    // A poller that began without it learns it from a job of its own.
    std::fs::remove_dir_all(scene.path("state")).unwrap();
    let process = scene.start();
    let socket = scene.path("state/control.sock");
    until("the control socket", || socket.exists(), || scene.report()).await;
    let before = json(&scene, &["status"], 0).await;
    assert!(!judges(&before[0]["baselines"], end), "{before:#}");
    let beside = json(&scene, &learn, 0).await;
    assert_eq!(beside["end"], "done");
    assert!(scene.log().contains("job=learn-"), "{}", scene.log());
    let mut status = Value::Null;
    for _ in 0..200 {
        status = json(&scene, &["status"], 0).await;
        if judges(&status[0]["baselines"], end) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(judges(&status[0]["baselines"], end), "{status:#}");
    // The poller's own first day is told; what lies before it was only learned.
    let own = end - TimeDelta::days(2);
    let early = |line: &str| {
        let document: Value = serde_json::from_str(line).unwrap();
        let at = document["unmapped"]["exfilwatch"]["last_time"].as_str();
        at.is_none_or(|at| at.parse::<DateTime<Utc>>().unwrap() < own)
    };
    let told = told();
    let first = told.lines().find(|line| early(line));
    assert_eq!(first, None, "told of the past that was learned");
    assert_eq!(process.terminate().await, Some(0));
    scene.services.shutdown().await;
}

/// How many slices with records were read from where.
fn read_from(account: &Value, source: &str) -> usize {
    let slices = account["slices_read"].as_array().unwrap().iter();
    let of = slices.filter(|slice| slice["source"] == source);
    of.filter(|slice| slice["records"].as_u64() > Some(0))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_another_state_filled_is_read_and_the_vendor_is_asked_as_well() {
    let scene = scene(FaultScript::default()).await;
    let folder = scene.folder.path().display();
    let archive = format!("\n[emitters.archive.kept]\nfolder = \"{folder}/archive\"\n");
    scene.write("exfilwatch.toml", &(scene.configuration() + &archive));
    let clock = scene.virtual_clock();
    let learn = ["learn", "--since", START, "--virtual-clock", &clock];
    let forget = || std::fs::remove_dir_all(scene.path("state")).unwrap();

    let of_vendor = json(&scene, &learn, 0).await;
    forget();
    let backfill = ["backfill", "--since", START, "--virtual-clock", &clock];
    json(&scene, &backfill, 0).await;
    forget();

    // Some of it is damaged.
    let mut spoilt = 0;
    for (index, file) in files_below(&scene.path("archive")).into_iter().enumerate() {
        if index % 5 == 0 {
            let bytes = std::fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            std::fs::write(
                &file,
                [&bytes[..middle], b"spoilt", &bytes[middle..]].concat(),
            )
            .unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 10);
    let of_both = json(&scene, &learn, 0).await;
    let (kept, fed) = (read_from(&of_both, "kept"), read_from(&of_both, "feed"));
    assert!(kept == 0 && fed > 0, "{kept} kept, {fed} fed: {of_both:#}");
    let records = |account: &Value| account["records"].as_u64().unwrap();
    assert!(records(&of_both) > records(&of_vendor), "{of_both:#}");
    assert_eq!(of_both["learned"], of_vendor["learned"]);
    scene.services.shutdown().await;
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.to_string_lossy().ends_with(".zst") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_learns_it_knows_in_the_end_what_it_would_have_known() {
    let slow = Fault::Delay { milliseconds: 15 };
    let rules = [Endpoint::Blob, Endpoint::Activities];
    let faults = FaultScript {
        seed: 1,
        rules: rules.map(|end| FaultRule::new(end, slow.clone())).into(),
    };
    let scene = scene(faults).await;
    let clock = scene.virtual_clock();
    let learn = ["learn", "--since", START, "--virtual-clock", &clock];
    let mut command = scene.command(&[&learn[..], &["--output", "ndjson"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut process = Process(child.unwrap());
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let killed = tokio::task::spawn_blocking(move || {
        let mut read = 0;
        for line in lines {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let holds = line["type"] == "slice" && line["records"].as_u64() > Some(0);
            read += usize::from(holds);
            assert_ne!(line["type"], "end", "it was over before it could be killed");
            if read == 5 {
                process.kill();
                return;
            }
        }
        panic!("it ended after {read} slices with records");
    });
    killed.await.unwrap();

    let again = json(&scene, &learn, 0).await;
    let streams = again["streams"].as_array().unwrap();
    let before = |one: &Value| one["slices_done_before"].as_u64().unwrap();
    assert!(streams.iter().map(before).sum::<u64>() >= 5, "{again:#}");
    let at_rest = json(&scene, &["status"], 0).await;
    std::fs::remove_dir_all(scene.path("state")).unwrap();
    let at_once = json(&scene, &learn, 0).await;
    assert!(known(&at_once["learned"]) > 20, "{at_once}");
    assert_eq!(again["learned"], at_once["learned"]);
    assert_eq!(known(&at_rest[0]["baselines"]), known(&at_once["learned"]));
    scene.services.shutdown().await;
}

//! The README's `exfilwatch …` lines, run on the built binary.

use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{Delivery, SimulatorOptions, WorldOptions};

use crate::scene::{Scene, exfilwatch, until};

/// The `$ exfilwatch …` lines of the console blocks.
fn lines() -> Vec<String> {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let commands = readme
        .lines()
        .filter_map(|line| line.strip_prefix("$ exfilwatch "));
    commands.map(str::to_owned).collect()
}

#[test]
fn lines_that_need_no_tenant_run_from_the_checkout() {
    let plain: Vec<String> = lines()
        .into_iter()
        .filter(|line| line.starts_with("replay") || line.starts_with("rules"))
        .collect();
    assert!(plain.len() >= 4, "{plain:?}");
    for line in plain {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = exfilwatch(&arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!output.stdout.is_empty(), "{line} printed nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_need_a_tenant_run_against_the_simulated_services() {
    let start: DateTime<Utc> = "2026-05-04T08:00:00Z".parse().unwrap();
    let world = WorldOptions {
        records_per_day: 600,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(2, start, start + TimeDelta::hours(2))
    };
    // The services live in the present: these lines run without a virtual clock.
    let options = SimulatorOptions {
        start: Some(start + TimeDelta::hours(4)),
        rate: 1.0,
        ..SimulatorOptions::default()
    };
    let scene = Scene::new(world, options).await;
    let process = scene.start();
    until(
        "polling",
        || scene.log().contains("polling"),
        || scene.log(),
    )
    .await;
    let records: Vec<u8> = scene
        .services
        .simulator
        .sheet()
        .records
        .iter()
        .flat_map(|r| [&r.body[..], b"\n"].concat())
        .collect();
    fs::write(scene.path("export.ndjson"), records).unwrap();
    for line in lines() {
        if line.starts_with("replay") || line.starts_with("rules") || line == "run" {
            // The first two are tested without a tenant; run is running.
            continue;
        }
        let forward = line.starts_with("forward");
        let mut arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if forward {
            // The state is the running process's: a one-shot beside it takes its own.
            let state = scene.path("forward-state").display().to_string();
            arguments = vec![
                "forward".into(),
                scene.path("export.ndjson").display().to_string(),
                "--state".into(),
                state,
            ];
        }
        if line.starts_with("doctor") || line.starts_with("auth check") {
            // It compares the clocks.
            arguments.extend(["--virtual-clock".into(), scene.virtual_clock()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = scene.output(&arguments).await;
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(process.terminate().await, Some(0));
}

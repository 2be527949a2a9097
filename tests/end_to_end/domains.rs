//! Which domains are inside: asked of the vendors, remembered, or shown to the operator.

use std::process::Output;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::microsoft::{ROLE_AUDIT_ALL, ROLE_DOMAINS};
use exfilwatch_simulator::{AttackPlan, Delivery, SimulatorOptions, WorldOptions};

use crate::scene::{Scene, until};

/// Two hours of office life, all of it in the past, and a configuration with these domains.
async fn scene(internal_domains: &str) -> Scene {
    let start: DateTime<Utc> = "2026-05-04T08:00:00Z".parse().unwrap();
    let world = WorldOptions {
        records_per_day: 1_200,
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Quiet,
        ..WorldOptions::new(9, start, start + TimeDelta::hours(2))
    };
    let options = SimulatorOptions {
        start: Some(start + TimeDelta::hours(3)),
        rate: 60.0,
        ..SimulatorOptions::default()
    };
    let scene = Scene::new(world, options).await;
    let good = std::fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    let changed = good.lines().map(|line| match line {
        line if line.starts_with("internal_domains") => internal_domains.to_owned() + "\n",
        line => line.to_owned() + "\n",
    });
    scene.write("exfilwatch.toml", &changed.collect::<String>());
    scene
}

async fn refused(scene: &Scene) -> String {
    let clock = scene.virtual_clock();
    let output: Output = scene.output(&["run", "--virtual-clock", &clock]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

/// The lines to paste, found in the records.
fn assert_proposes(said: &str) {
    assert!(
        said.contains("no internal domains are known for: contoso"),
        "{said}"
    );
    let (_, counted) = said
        .split_once("those who act in its records of a day are at: ")
        .unwrap();
    let count = counted.split_once("contoso.example (").unwrap().1;
    let count: usize = count.split_once(')').unwrap().0.parse().unwrap();
    assert!(count >= 20, "{said}");
    let lines = "\n[tenants.contoso]\ninternal_domains = [\"contoso.example\"";
    assert!(said.contains(lines), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_none_is_listed_run_shows_those_of_the_records_to_paste() {
    let scene = scene("").await;
    assert_proposes(&refused(&scene).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_vendors_refuse_and_none_is_known_run_says_what_is_missing() {
    let scene = scene("internal_domains = \"auto\"").await;
    let microsoft = scene.services.simulator.microsoft().clone();
    microsoft.set_graph_roles(&[ROLE_AUDIT_ALL]);
    let said = refused(&scene).await;
    for part in ["Domain.Read.All", "admin.directory.domain.readonly"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_proposes(&said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_vendors_told_lets_run_start_again_when_they_refuse() {
    let scene = scene("internal_domains = \"auto\"").await;
    let microsoft = scene.services.simulator.microsoft().clone();
    microsoft.set_graph_roles(&[ROLE_DOMAINS]);
    let poll = async |times: usize| {
        let process = scene.start();
        let polls = || scene.log().matches("polling").count() >= times;
        until("polling", polls, || scene.log()).await;
        let told = || {
            scene.services.simulator.hec().look(|recorded| {
                recorded.events.iter().any(|event| {
                    String::from_utf8_lossy(&event.event).contains("collector.domains")
                })
            })
        };
        until("the notice", told, || scene.log()).await;
        assert_eq!(process.terminate().await, Some(0));
    };
    poll(1).await;
    microsoft.set_graph_roles(&[]);
    poll(2).await;
}

//! The quota, shared by the live line and jobs.

use std::process::Stdio;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::microsoft::Publication;
use exfilwatch_simulator::{AttackPlan, Endpoint, SimulatorOptions, WorldOptions};

use crate::scene::{Process, REQUESTS, Scene, until};

fn start() -> DateTime<Utc> {
    "2026-05-04T00:00:00Z".parse().unwrap()
}

/// Content of one record each, evenly over a span.
fn publish(scene: &Scene, (name, count): (&str, usize), from: DateTime<Utc>, until: DateTime<Utc>) {
    let step = (until - from) / i32::try_from(count).unwrap();
    let mut at = from;
    for number in 0..count {
        at += step;
        let time = at.format("%Y-%m-%dT%H:%M:%S");
        let record = format!(
            r#"{{"Id":"{name}-{number}","CreationTime":"{time}","Operation":"Nothing","RecordType":6,"UserId":"a@contoso.example","Workload":"SharePoint"}}"#
        );
        let id = format!("{name}${number}");
        let blob = Publication::new(("contoso", "Audit.General"), &id, at, &[&record]);
        assert!(scene.services.simulator.microsoft().publish(blob));
    }
}

/// Records of that name that the receiver has.
fn at_receiver(scene: &Scene, name: &str) -> usize {
    scene.services.simulator.hec().look(|recorded| {
        let ids = recorded.record_ids();
        ids.iter().filter(|id| id.starts_with(name)).count()
    })
}

/// Two jobs that came over the control socket have far more to fetch than the live line, and twice its
/// places: counted at the service, the live line has at least half of the requests all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_over_the_control_socket_leave_half_of_the_requests_to_the_live_line() {
    const LIVE: usize = 240;
    const OLD: usize = 1_200;
    /// Twenty a second; a burst is a twentieth of a minute's.
    const PER_MINUTE: u32 = 1_200;
    const BURST: u64 = 60;
    let end = start() + TimeDelta::days(7);
    let world = WorldOptions {
        records_per_day: 0,
        attacks: AttackPlan::Quiet,
        ..WorldOptions::new(31, start(), end)
    };
    let options = SimulatorOptions {
        start: Some(end),
        rate: 1.0,
        ..SimulatorOptions::default()
    };
    let scene = Scene::new(world, options).await;
    let toml = scene.configuration().replace(
        &format!("requests_per_minute = {REQUESTS}"),
        &format!("requests_per_minute = {PER_MINUTE}"),
    );
    let toml = toml.replace("poll_interval_seconds = 60", "poll_interval_seconds = 5");
    scene.write("exfilwatch.toml", &toml);
    let hours = TimeDelta::hours;
    publish(&scene, ("old", OLD), end - hours(160), end - hours(150));
    let at_receiver = |name: &str| at_receiver(&scene, name);
    let requests = || {
        let faults = scene.services.simulator.faults();
        faults.calls(Endpoint::Blob) + faults.calls(Endpoint::ContentList)
    };

    let process = scene.start();
    let polls = || scene.log().contains("polling tenant=contoso");
    until("the live line", polls, || scene.log()).await;
    let job = |arguments: &[&str]| {
        let mut command = scene.command(arguments);
        let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
        Process(silent.spawn().unwrap())
    };
    let clock = scene.virtual_clock();
    let mut backfill = vec!["backfill", "--since", "160h", "--until", "150h"];
    backfill.extend(["--stream", "Audit.General", "--virtual-clock", &clock]);
    let _jobs = [job(&backfill), job(&["reconcile"])];
    until("the jobs", || at_receiver("old") > 5, || scene.log()).await;
    // Now the live line has much to do, too.
    let now = scene.services.simulator.clock().now();
    let minutes = TimeDelta::minutes;
    publish(&scene, ("live", LIVE), now - minutes(5), now - minutes(4));
    until("new content", || at_receiver("live") > 0, || scene.log()).await;
    let (all, live) = (requests(), at_receiver("live"));
    until("all live", || at_receiver("live") == LIVE, || scene.log()).await;
    let all = requests() - all;
    let live = (LIVE - live) as u64;
    assert!(live > 100, "{live} of the live line's prove little");
    let of_jobs = all - live.min(all);
    // What the receiver has lags a little behind what was asked for.
    assert!(
        of_jobs <= live + live / 10 + BURST,
        "{of_jobs} of the jobs, {live} live"
    );
    assert!(
        of_jobs > live / 3,
        "{of_jobs} of the jobs, {live} live: they were idle"
    );
    assert!(
        at_receiver("old") < OLD,
        "the jobs were not at work to the end"
    );
    assert_eq!(process.terminate().await, Some(0));
}

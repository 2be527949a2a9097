//! `inventory`: what the attacks opened shows up, goes when it is taken back, and outlives a restart.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{AttackPlan, Delivery, SimulatorOptions, WorldOptions};
use serde_json::Value;

use crate::scene::{Scene, until};

const START: &str = "2026-05-04T00:00:00Z";

fn start() -> DateTime<Utc> {
    START.parse().unwrap()
}

/// A morning of attacks from one hour on, and what the defenders do at noon.
async fn scene() -> Scene {
    let world = WorldOptions {
        records_per_day: 200,
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Stepped {
            first: start() + TimeDelta::hours(1),
            step: TimeDelta::minutes(2),
        },
        contained: Some(start() + TimeDelta::hours(12)),
        ..WorldOptions::new(31, start(), start() + TimeDelta::hours(14))
    };
    let options = SimulatorOptions {
        start: Some(start() + TimeDelta::minutes(660)),
        rate: 120.0,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

/// What `inventory` answers: mailbox or document, and whom it is open to.
fn stands(scene: &Scene, room: &str, flags: &[&str]) -> Vec<(Value, String)> {
    let arguments = [
        &["inventory", room, "--limit", "5000", "--output", "json"],
        flags,
    ]
    .concat();
    let output = scene.command(&arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pair = |line: &Value| {
        let to = line["to"].as_array().unwrap().iter();
        let to: Vec<&str> = to.map(|to| to["address"].as_str().unwrap()).collect();
        (line.clone(), to.join(", "))
    };
    lines.as_array().unwrap().iter().map(pair).collect()
}

fn goes_to<'a>(lines: &'a [(Value, String)], address: &str) -> Vec<&'a Value> {
    let of = lines.iter().filter(|(_, to)| to == address);
    of.map(|(line, _)| line).collect()
}

/// Where mail was sent by the attacks and still is at the end of the day.
const LASTING: [&str; 4] = [
    "collector.77@gmail.com",
    "ledger.three@outlook.com",
    "ledger.one@gmail.com",
    "second.inbox@outlook.com",
];
const TAKEN_BACK: &str = "quiet.harbour@proton.me";

/// The document that the attack on Drive opened to anyone.
fn opened_document(scene: &Scene) -> String {
    let due = scene.services.simulator.sheet().due.iter();
    let mut ours = due.filter(|due| due.script == "a document is opened to anyone with the link");
    let entity = &ours.next().unwrap().entity;
    entity.rsplit(' ').next().unwrap().to_owned()
}

fn is_open(files: &[(Value, String)], document: &str) -> bool {
    goes_to(files, "anyone")
        .iter()
        .any(|line| line["of"] == document)
}

/// Whom mail and documents go to, for a test that waits in vain.
fn told(scene: &Scene) -> String {
    let mut all = stands(scene, "forwarding", &[]);
    all.extend(stands(scene, "sharing", &[]));
    let mut all: Vec<String> = all
        .into_iter()
        .map(|(line, to)| format!("{} > {to}", line["of"]))
        .collect();
    all.sort();
    format!("{all:#?}\n{}", scene.log())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_open_is_known_until_it_is_taken_back_and_after_a_restart() {
    let scene = scene().await;
    let process = scene.start();
    let socket = scene.path("state/control.sock");
    until("the control socket", || socket.exists(), || scene.log()).await;
    let document = opened_document(&scene);
    let describe = || told(&scene);
    until(
        "all that the attacks opened",
        || {
            let mail = stands(&scene, "forwarding", &[]);
            let files = stands(&scene, "sharing", &[]);
            !goes_to(&mail, TAKEN_BACK).is_empty()
                && LASTING.iter().all(|to| !goes_to(&mail, to).is_empty())
                && goes_to(&files, "moving.boxes@gmail.com").len() == 22
                && goes_to(&files, "weekend.archive@gmail.com").len() == 24
                && is_open(&files, &document)
        },
        describe,
    )
    .await;
    until(
        "what was taken back to be gone",
        || {
            let mail = stands(&scene, "forwarding", &[]);
            let files = stands(&scene, "sharing", &[]);
            goes_to(&mail, TAKEN_BACK).is_empty()
                && goes_to(&files, "moving.boxes@gmail.com").len() == 21
                && !is_open(&files, &document)
        },
        describe,
    )
    .await;
    assert_eq!(process.terminate().await, Some(0));

    let mail = stands(&scene, "forwarding", &[]);
    for to in LASTING {
        assert!(!goes_to(&mail, to).is_empty(), "{to}: {mail:?}");
    }
    let first = goes_to(&mail, "journal.one@gmail.com");
    assert!(first.is_empty(), "the journal rule goes elsewhere since");
    let three = goes_to(&mail, "collector.77@gmail.com");
    assert_eq!(three.len(), 3, "three mailboxes");
    for line in &three {
        assert_eq!(line["via"], "smtp_address");
        assert_eq!(line["to"][0]["direction"], "external");
        assert_eq!(line["by"], line["of"], "each has set it");
        assert!(
            line["since"].as_str().unwrap().starts_with("2026-05-04T"),
            "{line}"
        );
    }
    let of_one = stands(
        &scene,
        "forwarding",
        &["--actor", three[0]["of"].as_str().unwrap()],
    );
    assert!(!of_one.is_empty() && of_one.len() < mail.len());

    let before = stands(&scene, "sharing", &[]);
    let again = scene.start();
    until("the control socket", || socket.exists(), || scene.log()).await;
    let after = stands(&scene, "sharing", &[]);
    let of = |lines: &[(Value, String)]| goes_to(lines, "moving.boxes@gmail.com").len();
    assert_eq!((of(&before), of(&after)), (21, 21));
    assert_eq!(again.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_alone_makes_the_inventory() {
    let scene = scene().await;
    let clock = scene.virtual_clock();
    let arguments = ["backfill", "--since", START, "--virtual-clock", &clock];
    let read = scene.output(&arguments).await;
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    let mail = stands(&scene, "forwarding", &[]);
    assert!(!goes_to(&mail, TAKEN_BACK).is_empty(), "{mail:?}");
    let files = stands(&scene, "sharing", &["--tenant", "contoso"]);
    assert_eq!(goes_to(&files, "moving.boxes@gmail.com").len(), 22);
    assert!(stands(&scene, "sharing", &["--tenant", "fabrikam"]).is_empty());
}

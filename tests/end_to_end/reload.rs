//! SIGHUP to a running process: lists, tuning and rules change under it, what cannot be used does not,
//! and windows go on.

use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::world::TenantOptions;
use exfilwatch_simulator::{AttackPlan, Delivery, SimulatorOptions, WorldOptions};
use serde_json::Value;

use crate::scene::{Process, Scene, until};

/// A rule on every document activity, a finding per person and day, and a window over all of them that
/// nothing fills.
const RULES: &str = r"
title: Any activity
id: 6d2c7a1e-4a0b-4f43-9f0e-0a5b1c2d3e01
name: corp.reload.any
logsource: { product: google_workspace, service: drive }
detection:
  activity: { service: drive }
  condition: activity
level: low
identity: { entity: actor, entity_type: user, fields: [actor], per: 24h }
alert: true
raise:
  - { level: high, when: { actor_is_vip: true } }
---
title: Any activity, the base
id: 6d2c7a1e-4a0b-4f43-9f0e-0a5b1c2d3e02
name: corp.reload.window.base
logsource: { product: google_workspace, service: drive }
detection:
  activity: { service: drive }
  condition: activity
level: low
---
title: Very much activity
id: 6d2c7a1e-4a0b-4f43-9f0e-0a5b1c2d3e03
name: corp.reload.window
correlation:
  type: event_count
  rules: [corp.reload.window.base]
  group-by: [service]
  timespan: 24h
  condition: { gte: 1000000 }
level: low
identity: { entity: service, entity_type: service }
";

async fn scene() -> Scene {
    let start: DateTime<Utc> = "2026-05-04T06:00:00Z".parse().unwrap();
    let world = WorldOptions {
        records_per_day: 20_000,
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Quiet,
        ..WorldOptions::new(11, start, start + TimeDelta::hours(12))
    };
    let options = SimulatorOptions {
        start: Some(start + TimeDelta::hours(3)),
        rate: 60.0,
        ..SimulatorOptions::default()
    };
    let scene = Scene::new(world, options).await;
    scene.write("rules/reload.yml", RULES);
    scene.write("people.csv", "address,vip\n");
    configure(&scene, "");
    scene
}

/// Writes the configuration anew, with more of a tenant's tuning.
fn configure(scene: &Scene, tuning: &str) {
    let people = scene.path("people.csv").display().to_string();
    let rules = scene.path("rules").display().to_string();
    let alias = scene.services.simulator.world().tenants()[0].alias.clone();
    let text = scene
        .configuration()
        .replace("first_read_days = 1", "first_read_days = 0");
    let own = format!(
        "\n[detectors]\nrules_dir = \"{rules}\"\n\n[tenants.{alias}.lists]\n\
         people_file = \"{people}\"\n{}",
        tuning.replace("ALIAS", &alias)
    );
    scene.write("exfilwatch.toml", &(text + &own));
}

fn hang_up(process: &Process) {
    let id = process.0.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &id]).status().unwrap();
    assert!(sent.success());
}

/// The documents that were delivered, as they came.
fn documents(scene: &Scene) -> Vec<Value> {
    let text = std::fs::read_to_string(scene.path("findings.ndjson")).unwrap_or_default();
    // The last line may be on its way.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines.collect()
}

fn ours<'a>(document: &'a Value, name: &str) -> &'a Value {
    &document["unmapped"]["exfilwatch"][name]
}

fn any_of(scene: &Scene, is: impl Fn(&Value) -> bool) -> bool {
    documents(scene).iter().any(is)
}

async fn status(scene: &Scene) -> Value {
    // The configuration may be broken: the state folder leads to the process.
    let state = scene.path("state").display().to_string();
    let arguments = ["status", "--output", "json", "--state", &state];
    let output = scene.output(&arguments).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    status[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_changes_lists_tuning_and_rules_of_a_running_process_and_a_bad_file_changes_nothing()
{
    let scene = scene().await;
    let process = scene.start();
    let is_any = |document: &Value| ours(document, "detection") == "corp.reload.any";
    let alerts = |document: &Value| is_any(document) && ours(document, "alert") == true;
    until("an alert", || any_of(&scene, alerts), || scene.log()).await;
    let begun = scene.services.simulator.clock().now();
    let clock = scene.services.simulator.clock();
    let later = || clock.now() >= begun + TimeDelta::minutes(30);
    until("half an hour of activity", later, || scene.log()).await;

    // A bad list: told, and what held before holds.
    scene.write("people.csv", "address,vip\nx@y.example,perhaps\n");
    hang_up(&process);
    let refused = || {
        scene
            .log()
            .contains("cannot be used: what held so far stays")
    };
    until("the refusal", refused, || scene.log()).await;
    let told = status(&scene).await;
    assert_eq!(told["reloads"]["refused"], 1, "{told}");
    let why = told["reloads"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("people.csv, line 2"), "{why}");

    // All of it good: VIPs are known, one rule is in shadow, the other counts fewer.
    let world = scene.services.simulator.world();
    let people = world.tenants()[0].people.iter();
    let people: Vec<String> = people
        .map(|person| format!("{},yes", person.email))
        .collect();
    let people = people.join("\n");
    scene.write("people.csv", &format!("address,vip\n{people}"));
    configure(
        &scene,
        "[tenants.ALIAS.detectors.rules.\"corp.reload.any\"]\nmode = \"shadow\"\n\
         [tenants.ALIAS.detectors.rules.\"corp.reload.window\"]\nthreshold = 2\n",
    );
    assert!(!any_of(&scene, |one| ours(one, "detection") == "corp.reload.window"));
    let at = clock.now();
    hang_up(&process);
    let used = || {
        scene
            .log()
            .contains("lists, tuning and rules hold from now on")
    };
    until("the reload", used, || scene.log()).await;
    let shadow = |document: &Value| {
        is_any(document)
            && ours(document, "suppressed_by") == "shadow"
            && document["severity"] == "High"
    };
    until(
        "a VIP in the shadow",
        || any_of(&scene, shadow),
        || scene.log(),
    )
    .await;
    let window = |one: &Value| ours(one, "detection") == "corp.reload.window";
    until("the window", || any_of(&scene, window), || scene.log()).await;
    let first = documents(&scene).into_iter().find(window).unwrap();
    let first_time: DateTime<Utc> = ours(&first, "first_time")
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let before = at - TimeDelta::minutes(15);
    assert!(
        first_time < before,
        "the window remembers: {first_time} {at}"
    );
    let told = status(&scene).await;
    assert_eq!(told["reloads"]["used"], 1, "{told}");
    assert!(told["reloads"]["why"].is_null(), "{told}");
    let shadowed = told["suppressed"].as_array().unwrap();
    assert!(shadowed.iter().any(|one| one["by"] == "shadow"), "{told}");

    // Rules are read again as well.
    scene.write(
        "rules/reload.yml",
        &RULES.replace("Any activity\nid", "Renamed\nid"),
    );
    hang_up(&process);
    let renamed = |one: &Value| one["finding_info"]["title"] == "Renamed";
    until("the new title", || any_of(&scene, renamed), || scene.log()).await;
    assert_eq!(process.terminate().await, Some(0), "{}", scene.log());
}

/// Two tenants whose streams have been silent for hours, and are allowed one.
async fn two_tenants() -> Scene {
    let start: DateTime<Utc> = "2026-05-04T06:00:00Z".parse().unwrap();
    let tenants = ["contoso", "fabrikam"].map(TenantOptions::new).into();
    let world = WorldOptions {
        records_per_day: 5_000,
        delivery: Delivery::prompt(),
        attacks: AttackPlan::Quiet,
        tenants,
        ..WorldOptions::new(12, start, start + TimeDelta::hours(2))
    };
    let options = SimulatorOptions {
        start: Some(start + TimeDelta::hours(8)),
        rate: 60.0,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

fn exception(tenant: &str, name: &str) -> String {
    format!(
        "[[tenants.{tenant}.detectors.exceptions]]\nname = \"{name}\"\ndetection = \"o365.*\"\n\
         fields = {{ actor = \"x@contoso.example\" }}\nowner = \"ann\"\nreason = \"known\"\n\
         until = \"2026-06-01\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tenants_mistake_stops_no_other_and_the_audit_gap_is_switched_by_sighup() {
    const MISTAKE: &str = "[tenants.TENANT.detectors.rules.\"no.such.rule\"]\nmode = \"off\"\n";
    let scene = two_tenants().await;
    let write = |more: &str| {
        let silence = "first_read_days = 1\nsilence_hours_min = 1\nsilence_hours = { \
                       \"contoso/google_workspace/drive\" = 1 }";
        let text = scene
            .configuration()
            .replace("first_read_days = 1", silence);
        scene.write("exfilwatch.toml", &format!("{text}\n{more}"));
    };
    let off = "[tenants.contoso.detectors]\ndisabled = [\"x.audit.gap\"]\n";
    let own = exception("contoso", "agreed");
    write(&format!(
        "{off}{own}{}",
        MISTAKE.replace("TENANT", "fabrikam")
    ));
    let check = scene.output(&["config", "check"]).await;
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(2), "{said}");
    assert!(
        said.contains("tenant fabrikam") && said.contains("no.such.rule"),
        "{said}"
    );

    // The other tenant is polled, and its silence is not told.
    let process = scene.start();
    let read = || documents(&scene).len() + at_receiver(&scene);
    until("records of contoso", || read() > 50, || scene.log()).await;
    assert!(scene.log().contains("tenant left out"), "{}", scene.log());
    until_caught_up(&scene).await;
    let gap = |one: &Value| ours(one, "detection") == "x.audit.gap";
    assert!(!any_of(&scene, gap), "it is switched off");
    let names = |status: &Value| -> Vec<String> {
        let all = status["exceptions"].as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&status(&scene).await), ["agreed"]);

    // What a tenant gets wrong leaves it as it was, with its exceptions.
    let other = exception("contoso", "other");
    write(&format!(
        "{off}{other}{}",
        MISTAKE.replace("TENANT", "contoso")
    ));
    hang_up(&process);
    let left = || scene.log().contains("but not for all tenants");
    until("the reload", left, || scene.log()).await;
    let told = status(&scene).await;
    assert_eq!(names(&told), ["agreed"], "{told}");
    let why = told["reloads"]["why"].as_str().unwrap();
    assert!(
        why.contains("tenant contoso") && why.contains("no.such.rule"),
        "{why}"
    );
    assert!(
        scene.log().contains("tenants.fabrikam"),
        "it needs a restart: {}",
        scene.log()
    );

    // All of it good, and the silence is told.
    assert!(!any_of(&scene, gap));
    write(&other);
    hang_up(&process);
    until("the silence", || any_of(&scene, gap), || scene.log()).await;
    assert_eq!(names(&status(&scene).await), ["other"]);
    assert_eq!(process.terminate().await, Some(0), "{}", scene.log());
    scene.services.shutdown().await;
}

fn at_receiver(scene: &Scene) -> usize {
    let hec = scene.services.simulator.hec();
    hec.look(|recorded| recorded.record_ids().len())
}

/// Until every stream has been listed up to less than an hour ago, so that silence shows.
async fn until_caught_up(scene: &Scene) {
    for _ in 0..600 {
        let status = status(scene).await;
        let streams = status["streams"].as_array().unwrap();
        let near = |line: &Value| line["lag_seconds"].as_i64().is_some_and(|lag| lag < 3_600);
        let has = |line: &Value| line["stream"] == "contoso/google_workspace/drive";
        if streams.iter().any(|line| has(line) && near(line)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it never caught up: {}", scene.log());
}

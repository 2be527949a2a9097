//! What goes wrong in practice: each ends in the documented error or state, with a sentence that says
//! what to do, and leaves the others alone.

use std::process::Output;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{Delivery, SimulatorOptions, WorldOptions};

use crate::scene::{Scene, until};

fn start() -> DateTime<Utc> {
    "2026-05-04T08:00:00Z".parse().unwrap()
}

/// An hour of office life, all of it in the past.
async fn scene() -> Scene {
    let world = WorldOptions {
        records_per_day: 1_200,
        delivery: Delivery::prompt(),
        attacks: exfilwatch_simulator::AttackPlan::Quiet,
        ..WorldOptions::new(9, start(), start() + TimeDelta::hours(2))
    };
    let at = start() + TimeDelta::hours(3);
    let options = SimulatorOptions {
        start: Some(at),
        rate: 60.0,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

fn assert_says(text: &str, sentences: &[&str]) {
    for sentence in sentences {
        assert!(
            text.contains(sentence),
            "{sentence:?} is not said in:\n{text}"
        );
    }
}

/// Starts `run` and waits until its log says all of this.
async fn run_until_log_says(scene: &Scene, sentences: &[&str]) {
    let process = scene.start();
    until(
        "the log",
        || sentences.iter().all(|s| scene.log().contains(s)),
        || scene.log(),
    )
    .await;
    let status = scene.output(&["status"]).await;
    assert_says(&text(&status), &["running"]);
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_holds_its_streams_and_the_other_cloud_goes_on() {
    let scene = scene().await;
    scene.write("entra.secret", "not-the-secret-of-this-app");
    let process = scene.start();
    until(
        "google's records",
        || {
            scene.services.simulator.hec().look(|r| {
                r.by_sourcetype
                    .keys()
                    .any(|name| name.starts_with("gws:reports:"))
            })
        },
        || scene.log(),
    )
    .await;
    until(
        "the hold",
        || scene.log().contains("AADSTS7000215"),
        || scene.log(),
    )
    .await;
    let log = scene.log();
    assert!(
        !log.contains("not-the-secret-of-this-app"),
        "a secret in the log"
    );
    let status = scene.output(&["status"]).await;
    assert_says(
        &text(&status),
        &["AADSTS7000215", "office365/Audit.Exchange"],
    );
    let internal = scene
        .services
        .simulator
        .hec()
        .look(|r| r.by_sourcetype.get("exfilwatch:internal").copied());
    assert!(internal.unwrap_or(0) > 0, "the receiver is told");
    // The secret is put right: no restart is needed.
    let secret = scene
        .services
        .simulator
        .credentials()
        .microsoft
        .client_secret
        .clone();
    scene.write("entra.secret", &secret);
    until(
        "office365's records",
        || {
            scene
                .services
                .simulator
                .hec()
                .look(|r| r.by_sourcetype.contains_key("o365:management:activity"))
        },
        || scene.log(),
    )
    .await;
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_stays_up_while_every_connector_is_refused() {
    let scene = scene().await;
    scene.write("entra.secret", "not-the-secret-of-this-app");
    scene.services.simulator.google().set_delegated_scopes(&[]);
    let mut process = scene.start();
    let both = || {
        scene.log().contains("AADSTS7000215")
            && scene.log().contains("admin.reports.audit.readonly")
    };
    until("both refusals", both, || scene.log()).await;
    assert!(process.0.try_wait().unwrap().is_none(), "{}", scene.log());
    let scope = exfilwatch_simulator::google::SCOPE_AUDIT;
    let google = scene.services.simulator.google().clone();
    google.set_delegated_scopes(&[scope]);
    let records = || {
        let hec = scene.services.simulator.hec();
        hec.look(|r| {
            r.by_sourcetype
                .keys()
                .any(|name| name.starts_with("gws:reports:"))
        })
    };
    until("google's records", records, || scene.log()).await;
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_holds_its_stream_only() {
    let scene = scene().await;
    scene
        .services
        .simulator
        .microsoft()
        .set_roles(&["ActivityFeed.Read"]);
    let process = scene.start();
    let said = || scene.log().contains("ActivityFeed.ReadDlp") && scene.log().contains("DLP.All");
    until("the hold", said, || scene.log()).await;
    let others = || {
        let hec = scene.services.simulator.hec();
        hec.look(|recorded| {
            recorded
                .by_sourcetype
                .contains_key("o365:management:activity")
        })
    };
    until("the other content types", others, || scene.log()).await;
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auditing_switched_off_is_named_as_such() {
    let scene = scene().await;
    scene
        .services
        .simulator
        .microsoft()
        .set_auditing("contoso", false);
    run_until_log_says(&scene, &["Set-AdminAuditLogConfig"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_receiver_keeps_everything_until_it_is_back() {
    let scene = scene().await;
    let sheet = scene.services.simulator.sheet();
    let lines: Vec<u8> = sheet
        .records
        .iter()
        .flat_map(|r| [&r.body[..], b"\n"].concat())
        .collect();
    std::fs::write(scene.path("records.ndjson"), lines).unwrap();
    let file = scene.path("records.ndjson");
    let good = std::fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    // Nothing listens on port 9 of loopback.
    scene.write(
        "exfilwatch.toml",
        &good.replace(&scene.services.hec_url, "http://127.0.0.1:9"),
    );
    let arguments = [
        "forward",
        "--tenant",
        "contoso",
        "--patience",
        "2",
        file.to_str().unwrap(),
    ];
    let refused = scene.output(&arguments).await;
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused));
    assert_says(
        &text(&refused),
        &["splunk_hec.main", "nothing is lost", "127.0.0.1:9"],
    );
    assert!(scene.missing().len() > 90, "nothing was delivered");
    scene.write("exfilwatch.toml", &good);
    let delivered = scene.output(&arguments).await;
    assert_eq!(delivered.status.code(), Some(0), "{}", text(&delivered));
    assert!(scene.missing().is_empty(), "{}", text(&delivered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_configuration_is_refused_with_its_line() {
    let scene = scene().await;
    let good = std::fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    scene.write("exfilwatch.toml", &format!("[state\n{good}"));
    let output = scene.output(&["run"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_says(&text(&output), &["exfilwatch.toml:1:"]);
    scene.write("exfilwatch.toml", &good.replace("client_id", "clientid"));
    let output = scene.output(&["config", "check"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_says(&text(&output), &["clientid", "client_id"]);
    let output = crate::scene::exfilwatch(&["run", "--config", "/nowhere/exfilwatch.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_says(
        &text(&output),
        &["/nowhere/exfilwatch.toml", "exfilwatch demo"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_tenant_file_disables_its_tenant_only() {
    let scene = scene().await;
    let good = std::fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    scene.write(
        "exfilwatch.toml",
        &format!("include = [\"tenants.d/*.toml\"]\n{good}"),
    );
    scene.write(
        "tenants.d/fabrikam.toml",
        "[tenants.fabrikam]\ninternal_domain = [\"fabrikam.example\"]\n",
    );
    let process = scene.start();
    let hec = scene.services.simulator.hec();
    until(
        "contoso's records",
        || hec.look(|recorded| !recorded.record_ids().is_empty()),
        || scene.log(),
    )
    .await;
    assert_says(
        &scene.log(),
        &["fabrikam.toml:2:", "internal_domains", "polling"],
    );
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_record_is_quarantined_and_its_neighbours_go_on() {
    let scene = scene().await;
    let sheet = scene.services.simulator.sheet();
    let mut lines = Vec::new();
    for record in &sheet.records {
        lines.extend_from_slice(&record.body);
        lines.push(b'\n');
    }
    lines.extend_from_slice(
        b"{\"Operation\":\"New-InboxRule\",\"Id\":\"cut he\n[1,2]\nplain text\n",
    );
    std::fs::write(scene.path("records.ndjson"), lines).unwrap();
    let file = scene.path("records.ndjson");
    let output = scene
        .output(&["forward", "--tenant", "contoso", file.to_str().unwrap()])
        .await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(scene.missing().is_empty(), "{}", text(&output));
    let quarantined = std::fs::read_dir(scene.path("state/quarantine"))
        .unwrap()
        .count();
    assert!(quarantined >= 2, "{quarantined} files in quarantine");
    assert!(!text(&output).contains(" 0 malformed"), "{}", text(&output));
    let internal = scene.services.simulator.hec().look(|recorded| {
        recorded
            .events
            .iter()
            .any(|event| String::from_utf8_lossy(&event.event).contains("collector.malformed"))
    });
    assert!(internal, "the receiver is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_internal_domains_run_refuses_and_says_which_to_set() {
    let scene = scene().await;
    let good = std::fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    let without: String = good
        .lines()
        .filter(|line| !line.starts_with("internal_domains"))
        .fold(String::new(), |text, line| text + line + "\n");
    scene.write("exfilwatch.toml", &without);
    let output = scene.output(&["run"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_says(
        &text(&output),
        &[
            "no internal domains",
            "contoso",
            "internal_domains = ",
            "contoso.example",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_corrupt_on_open_is_moved_aside_told_and_loses_nothing() {
    let scene = scene().await;
    let process = scene.start();
    let hec = scene.services.simulator.hec();
    let first = || hec.look(|recorded| !recorded.record_ids().is_empty());
    until("the first records", first, || scene.report()).await;
    process.kill();
    // What a power cut may leave of the store: the file is there, and nothing in it is what it was.
    let store = scene.path("state/store/db");
    let length = std::fs::metadata(&store).unwrap().len();
    std::fs::write(&store, vec![0xaa; usize::try_from(length).unwrap()]).unwrap();
    let process = scene.start();
    let told = || {
        hec.look(|recorded| {
            let events = recorded.events.iter();
            events
                .map(|event| String::from_utf8_lossy(&event.event))
                .any(|event| event.contains("collector.rebuilt"))
        })
    };
    until("word at the receiver", told, || scene.log()).await;
    let found = || {
        hec.look(|recorded| {
            let events = recorded.events.iter();
            events
                .map(|event| String::from_utf8_lossy(&event.event))
                .any(|event| event.contains("x.audit.gap") && event.contains("is made anew"))
        })
    };
    until("the finding", found, || scene.log()).await;
    assert_says(&scene.log(), &["the store was lost and has been rebuilt"]);
    let everything = || scene.missing().is_empty();
    until("every record", everything, || scene.report()).await;
    assert_eq!(process.terminate().await, Some(0));
    let aside = std::fs::read_dir(scene.path("state")).unwrap();
    let aside = aside.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("store.damaged-")
    });
    assert_eq!(aside.count(), 1, "the damaged one is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_told_who_holds_the_state() {
    let scene = scene().await;
    let process = scene.start();
    until(
        "polling",
        || scene.log().contains("polling"),
        || scene.log(),
    )
    .await;
    let second = scene.output(&["run"]).await;
    assert_eq!(second.status.code(), Some(6), "{}", text(&second));
    assert_says(&text(&second), &["another exfilwatch is using", "--state"]);
    assert_eq!(process.terminate().await, Some(0));
}

//! Secrets on every way out: a canary in each credential must not come out of the binary again, whatever
//! fails. Rows 101 and 103 of the failure table.

use std::fs;
use std::path::Path;
use std::process::Output;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{
    AttackPlan, Delivery, Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};

use crate::scene::{Scene, until};

const CANARY_SECRET: &str = "canary~4b1d.entra+secret/of=this&app";
const CANARY_BEARER: &str = "eyJ0eXAiOiJKV1QifQ.eyJjYW5hcnkiOiJlNTVhIn0.Y2FuYXJ5";
const CANARY_TOKEN: &str = "canary-7c2e-hec-token-of-this-lane";

async fn scene() -> Scene {
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
    Scene::new(world, options).await
}

/// What came out, by the place it came out at.
#[derive(Default)]
struct Outcry(Vec<(String, Vec<u8>)>);

impl Outcry {
    fn heard(&mut self, place: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), bytes.into()));
    }

    fn output(&mut self, place: &str, output: Output) {
        self.heard(&format!("{place}: stdout"), output.stdout);
        self.heard(&format!("{place}: stderr"), output.stderr);
    }

    /// Everything under a folder.
    fn folder(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                self.folder(&path);
            } else if kind.is_file() {
                self.heard(&path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }

    fn says(&self, words: &str) -> bool {
        self.0.iter().any(|(_, bytes)| has(bytes, words))
    }

    fn keeps(&self, secrets: &[&str]) {
        for (place, bytes) in &self.0 {
            for secret in secrets {
                assert!(!has(bytes, secret), "{secret:.12}… came out: {place}");
            }
        }
    }
}

fn has(bytes: &[u8], words: &str) -> bool {
    memchr::memmem::find(bytes, words.as_bytes()).is_some()
}

/// All commands that look at a running or a broken set-up.
async fn look(scene: &Scene, outcry: &mut Outcry, when: &str) {
    let clock = scene.virtual_clock();
    for command in [
        &["status"][..],
        &["status", "--output", "json"],
        &["gaps"],
        &["config", "check"],
        &["config", "show"],
        &["doctor", "--virtual-clock", &clock],
        &["auth", "check", "-vv", "--virtual-clock", &clock],
    ] {
        let output = scene.output(command).await;
        outcry.output(&format!("{} {when}", command.join(" ")), output);
    }
}

/// Secret and token are wrong, and then the login service is one that repeats what it was sent.
async fn refused_and_repeated(scene: &Scene, outcry: &mut Outcry) {
    scene.write("entra.secret", CANARY_SECRET);
    scene.write("hec.token", CANARY_TOKEN);

    let process = scene.start_with(&["-vv"]);
    let refused =
        || scene.log().contains("AADSTS7000215") && scene.log().contains("splunk_hec.main");
    until("both refusals", refused, || scene.log()).await;
    look(scene, outcry, "with both refused").await;
    let form = format!("client_secret={CANARY_SECRET}&grant_type=client_credentials");
    let body =
        format!(r#"{{"error":"invalid_request","error_description":"not understood: {form}"}}"#);
    let echo = Fault::Status {
        status: 400,
        body,
        headers: Vec::new(),
    };
    scene.services.simulator.faults().replace(FaultScript {
        seed: 0,
        rules: vec![FaultRule::new(Endpoint::MicrosoftToken, echo)],
    });
    look(scene, outcry, "with an echo").await;
    assert_eq!(process.terminate().await, Some(0));
    let process = scene.start_with(&["-vv"]);
    until(
        "the echo",
        || scene.log().contains("not understood"),
        || scene.log(),
    )
    .await;
    assert_eq!(process.terminate().await, Some(0));
}

/// A file forwarded with the token that is refused.
async fn forwarded_in_vain(scene: &Scene, outcry: &mut Outcry) {
    let records = &scene.services.simulator.sheet().records;
    let lines: Vec<u8> = records
        .iter()
        .flat_map(|r| [&r.body[..], b"\n"].concat())
        .collect();
    fs::write(scene.path("records.ndjson"), lines).unwrap();
    let file = scene.path("records.ndjson").display().to_string();
    let forward = ["forward", "--tenant", "contoso", "--patience", "2", &file];
    let output = scene.output(&forward).await;
    assert_eq!(output.status.code(), Some(5));
    outcry.output("forward", output);
}

/// The right ones: what is held goes out, and the receiver is told what was the matter. On the way are
/// proxies that repeat the head they were sent.
async fn well_behind_proxies(scene: &Scene, outcry: &mut Outcry) {
    let credentials = scene.services.simulator.credentials().clone();
    let proxy = |endpoint, token: &str, calls| {
        let fault = Fault::Status {
            status: 502,
            body: format!("<html>POST / Authorization: {token}</html>"),
            headers: Vec::new(),
        };
        FaultRule::new(endpoint, fault).calls(1, calls)
    };
    let before_hec = format!("Splunk {}", credentials.hec_token);
    scene.services.simulator.faults().replace(FaultScript {
        seed: 0,
        rules: vec![
            // Each listing tries three times before it says anything.
            proxy(
                Endpoint::ContentList,
                &format!("Bearer {CANARY_BEARER}"),
                40,
            ),
            proxy(Endpoint::HecEvent, &before_hec, 4),
        ],
    });
    scene.write("hec.token", &credentials.hec_token);
    let process = scene.start_with(&["-vv"]);
    let told = || {
        let hec = scene.services.simulator.hec();
        hec.look(|r| r.by_sourcetype.contains_key("exfilwatch:internal"))
    };
    until("word at the receiver", told, || scene.log()).await;
    scene.write("entra.secret", &credentials.microsoft.client_secret);
    let fetched = || {
        let hec = scene.services.simulator.hec();
        hec.look(|r| r.by_sourcetype.contains_key("o365:management:activity"))
    };
    until("records", fetched, || scene.log()).await;
    let repeated = || scene.log().contains("Authorization: Bearer");
    until("the proxy before the feed", repeated, || scene.log()).await;
    look(scene, outcry, "with everything well").await;
    assert_eq!(process.terminate().await, Some(0));
}

/// What was logged, kept and received.
fn left(scene: &Scene, outcry: &mut Outcry) {
    outcry.heard("run's log", scene.log());
    outcry.folder(&scene.path("state"));
    outcry.heard(
        "the file of findings",
        fs::read(scene.path("findings.ndjson")).unwrap_or_default(),
    );
    scene.services.simulator.hec().look(|recorded| {
        for event in &recorded.events {
            outcry.heard("the receiver", event.event.to_vec());
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grep_all_output_for_secrets() {
    let scene = scene().await;
    let mut outcry = Outcry::default();
    refused_and_repeated(&scene, &mut outcry).await;
    forwarded_in_vain(&scene, &mut outcry).await;
    well_behind_proxies(&scene, &mut outcry).await;
    left(&scene, &mut outcry);
    // What must have been said, so that nothing was kept by saying nothing.
    for words in [
        "AADSTS7000215",
        "not understood",
        "code 4",
        "status 502: <html>POST / Authorization: Bearer [token]",
        "HTTP 502: <html>POST / Authorization: Splunk [token]",
        "office365/Audit.Exchange",
    ] {
        assert!(outcry.says(words), "{words} was never said");
    }
    let credentials = scene.services.simulator.credentials();
    let key = credentials.google.private_key_pem.lines().nth(5).unwrap();
    outcry.keeps(&[
        CANARY_SECRET,
        CANARY_TOKEN,
        CANARY_BEARER,
        &url::form_urlencoded::byte_serialize(CANARY_SECRET.as_bytes()).collect::<String>(),
        &credentials.microsoft.client_secret,
        &credentials.hec_token,
        key,
        // Access tokens and assertions.
        "eyJ0eXAi",
        "eyJhbGci",
        "Bearer ey",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_the_configuration_or_among_the_arguments_is_refused_and_not_repeated() {
    let scene = scene().await;
    let good = fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    let folder = scene.folder.path().display().to_string();
    let named = format!("{{ file = \"{folder}/entra.secret\" }}");
    assert!(good.contains(&named));
    for (written, set) in [
        (format!("\"{CANARY_SECRET}\""), None),
        (format!("{{ text = \"{CANARY_SECRET}\" }}"), None),
        // No TOML at all.
        (CANARY_SECRET.to_owned(), None),
        (named.clone(), Some("client_secret")),
        (named.clone(), Some("client_secret.text")),
        (named.clone(), Some("refresh_token")),
    ] {
        scene.write("exfilwatch.toml", &good.replace(&named, &written));
        let set = set.map(|key| format!("connectors.office365.contoso.{key}={CANARY_SECRET}"));
        for command in [
            &["config", "check"][..],
            &["config", "show"],
            &["run"],
            &["doctor"],
            &["status"],
        ] {
            let mut arguments = command.to_vec();
            if let Some(set) = &set {
                arguments.extend(["--set", set]);
            }
            let output = scene.output(&arguments).await;
            let code = output.status.code();
            let mut outcry = Outcry::default();
            outcry.output(
                &format!("{command:?} with {written:.12} and {set:?}"),
                output,
            );
            assert_eq!(
                code,
                Some(2),
                "{:?}",
                outcry
                    .0
                    .iter()
                    .map(|(p, b)| (p, String::from_utf8_lossy(b)))
                    .collect::<Vec<_>>()
            );
            outcry.keeps(&[CANARY_SECRET]);
        }
    }
}

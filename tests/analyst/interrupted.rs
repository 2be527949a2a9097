//! `forward` that is killed: what detectors had gathered is gathered again from the files, and nothing of it is
//! delivered a second time.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::desk::{Desk, Running, m365, until};

/// Records between the shares: more than the outbox may hold.
const OTHERS: u64 = 400;
const OTHER_BYTES: usize = 60_000;

/// Documents shared with one address outside; twenty within an hour are a finding.
fn shares(ids: std::ops::Range<u64>) -> impl Iterator<Item = Value> {
    ids.map(|id| {
        let time = format!("2026-05-04T08:{id:02}:00Z");
        let document = format!("https://contoso.sharepoint.com/{id}.docx");
        let members = json!({
            "RecordType": 14, "Workload": "OneDrive", "ObjectId": document, "SourceFileName": "f",
            "TargetUserOrGroupName": "eve@gmail.com", "TargetUserOrGroupType": "Guest",
        });
        m365(id, &time, "AddedToSecureLink", &members)
    })
}

fn others() -> impl Iterator<Item = Value> {
    let note = json!({ "Note": "x".repeat(OTHER_BYTES) });
    (100..100 + OTHERS).map(move |id| m365(id, "2026-05-04T08:30:00Z", "HardDelete", &note))
}

fn found(desk: &Desk) -> Vec<u64> {
    let text = std::fs::read_to_string(desk.path("findings.ndjson")).unwrap_or_default();
    let documents = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let ours = documents.map(|document: Value| document["unmapped"]["exfilwatch"].clone());
    ours.filter(|ours| ours["detection"] == "o365.sharepoint.mass_share_external")
        .map(|ours| ours["count"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_forward_that_is_killed_finds_what_lies_on_both_sides_of_it_and_delivers_nothing_twice() {
    let desk = Desk::new();
    let first = desk.file("first.ndjson", &shares(0..10).collect::<Vec<_>>());
    let rest: Vec<Value> = others().chain(shares(10..20)).collect();
    let second = desk.file("second.ndjson", &rest);
    let forward = ["forward", "--tenant", "contoso", &first, &second];

    // A receiver that is away, and an outbox that is full before the second file is at its end.
    let good = std::fs::read_to_string(desk.path("exfilwatch.toml")).unwrap();
    desk.configure(
        "\n[emitters.splunk_hec.away]\nurl = \"http://127.0.0.1:9\"\nsend = [\"events\"]\n",
    );
    let secret = desk.path("secret").display().to_string();
    desk.configure(&format!("token = {{ file = \"{secret}\" }}\n"));
    let small = "[state]\noutbox_bytes_max = 16777216\n";
    let text = std::fs::read_to_string(desk.path("exfilwatch.toml")).unwrap();
    std::fs::write(
        desk.path("exfilwatch.toml"),
        text.replacen("[state]\n", small, 1),
    )
    .unwrap();
    let log = desk.path("forward.log");
    let mut command = desk.command(&forward);
    command.stdout(Stdio::null());
    let running = command.stderr(std::fs::File::create(&log).unwrap()).spawn();
    let running = Running(running.unwrap());
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    until(
        "an outbox that is full",
        || said().contains("fetching is paused"),
        said,
    );
    drop(running);
    assert_eq!(found(&desk), [0; 0], "half of it is no finding");

    std::fs::write(desk.path("exfilwatch.toml"), good).unwrap();
    let account = desk.json(&forward);
    assert_eq!(found(&desk), [20]);
    let numbers = |name: &str| [&account[0][name], &account[1][name]].map(|n| n.as_u64().unwrap());
    assert_eq!(numbers("records"), [10, OTHERS + 10], "{account}");
    let [whole, part] = numbers("seen_before");
    assert!(
        whole == 10 && 0 < part && part < OTHERS,
        "killed in the second file: {account}"
    );
    let around = ["--around", "2026-05-04T08:30:00Z", "--within", "2h"];
    let all = ["--limit", "10000", "--output", "ndjson"];
    let kept = desk.said(&[&["events"][..], &around, &all].concat());
    let ids: Vec<Value> = kept
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["Id"].clone())
        .collect();
    let once: BTreeSet<String> = ids.iter().map(Value::to_string).collect();
    assert_eq!((ids.len() as u64, once.len()), (OTHERS + 20, ids.len()));

    let again = desk.json(&forward);
    assert_eq!(
        [&again[0]["skipped"], &again[1]["skipped"]],
        [&json!(true), &json!(true)],
        "{again}"
    );
    assert_eq!(found(&desk), [20], "nothing is told again");
}

//! `[emitters.archive]` and `events`.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::desk::{Desk, Running, m365, until};

fn lines(text: &str) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap();
    text.lines().map(read).collect()
}

#[test]
fn what_somebody_did_around_a_time_is_found_again() {
    let desk = Desk::new();
    let bob = json!({ "UserId": "BOB@contoso.example", "UserKey": "bob" });
    desk.forward(
        "records.ndjson",
        &[
            m365(1, "2026-05-01T08:00:00Z", "MailItemsAccessed", &json!({})),
            m365(2, "2026-05-01T09:00:00Z", "New-InboxRule", &json!({})),
            m365(3, "2026-05-01T09:10:00Z", "Set-Mailbox", &bob),
            m365(4, "2026-05-01T10:00:00Z", "Remove-InboxRule", &json!({})),
            m365(5, "2026-05-01T10:00:01Z", "MailItemsAccessed", &json!({})),
        ],
    );
    let ask = ["events", "--actor", "ALICE@contoso.example", "--around"];
    let found =
        lines(&desk.said(&[&ask[..], &["2026-05-01T09:00:00Z", "--output", "ndjson"]].concat()));
    let operations: Vec<_> = found
        .iter()
        .map(|one| one["Operation"].as_str().unwrap())
        .collect();
    assert_eq!(
        operations,
        ["MailItemsAccessed", "New-InboxRule", "Remove-InboxRule"]
    );

    let table = desk.said(&[&ask[..], &["2026-05-01T09:00:00Z", "--within", "30m"]].concat());
    assert!(
        table.contains("New-InboxRule") && table.contains("198.51.100.7"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 2, "{table}");

    let everybody = desk.json(&[
        "events",
        "--around",
        "2026-05-01T09:05:00Z",
        "--within",
        "10m",
    ]);
    assert_eq!(everybody.as_array().unwrap().len(), 2);
    let other = desk.json(&[
        "events",
        "--around",
        "2026-05-01T09:05:00Z",
        "--tenant",
        "fabrikam",
    ]);
    assert_eq!(other, json!([]));

    let one = desk.output(&["events", "--around", "2026-05-01T09:00:00Z", "--limit", "1"]);
    assert!(String::from_utf8_lossy(&one.stderr).contains("--limit"));
    assert_eq!(String::from_utf8_lossy(&one.stdout).lines().count(), 2);

    // The files are records like any others.
    let file = desk.path("archive/contoso/office365/file/2026-05-01T09.ndjson.zst");
    let replayed = desk.said(&[
        "replay",
        "--signals",
        "--output",
        "ndjson",
        file.to_str().unwrap(),
    ]);
    assert!(replayed.lines().count() <= 2);
}

#[test]
fn without_an_archive_the_command_says_what_to_do() {
    let desk = Desk::new();
    let ask = ["events", "--actor", "a@contoso.example", "--around", "1h"];
    let missing = desk.output(&ask);
    assert_eq!(missing.status.code(), Some(2));
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        said.contains("there is no archive in") && said.contains("exfilwatch run"),
        "{said}"
    );
    let text = std::fs::read_to_string(desk.path("exfilwatch.toml")).unwrap();
    let (before, after) = text.split_once("[emitters.archive.main]").unwrap();
    let after = &after[after.find("[emitters.ndjson").unwrap()..];
    std::fs::write(desk.path("exfilwatch.toml"), format!("{before}{after}")).unwrap();
    let none = desk.output(&ask);
    assert_eq!(none.status.code(), Some(2));
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("[emitters.archive.main]"), "{said}");
    let wrong = desk.output(&["events", "--around", "1h", "--within", "soon"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn killed_while_it_writes_the_archive_reads_and_ends_up_with_every_record_once() {
    const RECORDS: u64 = 30_000;
    let desk = Desk::new();
    let records: Vec<Value> = (0..RECORDS)
        .map(|id| {
            let time = format!("2026-05-01T{:02}:{:02}:00Z", id / 60 % 20, id % 60);
            m365(
                id,
                &time,
                "MailItemsAccessed",
                &json!({ "Note": "x".repeat(300) }),
            )
        })
        .collect();
    let file = desk.file("records.ndjson", &records);
    let forward = ["forward", "--tenant", "contoso", &file];
    let mut command = desk.command(&forward);
    let running = Running(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let archive = desk.path("archive/contoso/office365/file");
    until(
        "the first blocks",
        || std::fs::read_dir(&archive).is_ok_and(|mut files| files.next().is_some()),
        || "nothing was archived".to_owned(),
    );
    drop(running);

    let all = [
        "events",
        "--around",
        "2026-05-01T10:00:00Z",
        "--within",
        "12h",
        "--limit",
        "100000",
        "--output",
        "ndjson",
    ];
    let at_kill = lines(&desk.said(&all)).len() as u64;
    assert!(at_kill <= RECORDS, "{at_kill}");
    desk.said(&forward);
    let found = lines(&desk.said(&all));
    let ids: BTreeSet<_> = found.iter().map(|one| one["Id"].to_string()).collect();
    assert_eq!((found.len() as u64, ids.len() as u64), (RECORDS, RECORDS));
}

//! `replay --compare`.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::desk::{Desk, m365};

/// Days before now, as a record writes it.
fn days_ago(days: i64) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the binary under test reads the same clock"
    )]
    let now = Utc::now();
    (now - TimeDelta::days(days))
        .format("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

fn forwarding(id: u64, user: &str, time: &str) -> Value {
    let parameters = json!([
        { "Name": "Identity", "Value": user },
        { "Name": "ForwardingSmtpAddress", "Value": format!("smtp:x@rival{id}.example") },
    ]);
    let members = json!({
        "UserId": user, "ObjectId": user, "Parameters": parameters,
        "ClientIP": format!("198.51.{id}.7:1"),
    });
    m365(id, time, "Set-Mailbox", &members)
}

fn records() -> Vec<Value> {
    let junk = |id, time: &str| {
        let members = json!({ "UserId": "carol@contoso.example", "Parameters": [] });
        m365(id, time, "Set-MailboxJunkEmailConfiguration", &members)
    };
    vec![
        forwarding(1, "alice@contoso.example", &days_ago(3)),
        forwarding(2, "bob@contoso.example", &days_ago(2)),
        forwarding(3, "dora@contoso.example", &days_ago(20)),
        junk(4, &days_ago(2)),
        junk(5, &days_ago(1)),
    ]
}

const RULE: &str = "\
title: Junk mail settings changed
id: 3c1f4b54-6c0e-4c1b-9a57-2f6f0c1d8e77
name: corp.mail.junk
status: test
description: Somebody changed what is junk.
tags: [attack.exfiltration, attack.ta0010, attack.t1567.002]
logsource: { product: m365, service: exchange }
detection:
  set: { operation: Set-MailboxJunkEmailConfiguration }
  condition: set
falsepositives:
  - Any
level: medium
risk: 45
message: \"{actor} changed what is junk\"
triage: |
  What happened: settings were changed.
";

fn line<'a>(lines: &'a Value, detection: &str, actor: &str) -> Option<&'a Value> {
    let mut lines = lines.as_array().unwrap().iter();
    lines.find(|line| line["detection"] == detection && line["actor"] == actor)
}

#[test]
fn new_rules_are_held_against_the_old_over_archive_and_files() {
    const FORWARDING: &str = "o365.mail.forwarding_external";
    let desk = Desk::new();
    desk.forward("records.ndjson", &records());
    std::fs::create_dir(desk.path("new")).unwrap();
    std::fs::write(desk.path("new/junk.yml"), RULE).unwrap();
    let rules = desk.path("new").display().to_string();
    let old = desk.path("exfilwatch.toml").display().to_string();
    let compare = [
        "replay",
        "--compare",
        "--old-config",
        &old,
        "--rules",
        &rules,
    ];
    let off = format!("detectors.disabled=[\"{FORWARDING}\"]");

    let lines = desk.json(&[&compare[..], &["--since", "7d", "--set", &off]].concat());
    let alice = line(&lines, FORWARDING, "alice@contoso.example").unwrap();
    assert_eq!(
        (
            &alice["old"],
            &alice["new"],
            &alice["difference"],
            &alice["gone"]
        ),
        (&json!(1), &json!(0), &json!(-1), &json!(1))
    );
    let carol = line(&lines, "corp.mail.junk", "carol@contoso.example").unwrap();
    assert_eq!((&carol["old"], &carol["new"]), (&json!(0), &json!(2)));
    assert_eq!(
        (&carol["difference"], &carol["added"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(carol["tenant"], "contoso");
    let before = line(&lines, FORWARDING, "dora@contoso.example");
    assert_eq!(before, None, "that was before");

    let table = desk.said(&[&compare[..], &["--since", "30d"]].concat());
    assert!(
        table.contains("dora@contoso.example") && table.contains("+2"),
        "{table}"
    );

    // The same over the export, without an archive or a configuration of the tenant.
    let file = desk.path("records.ndjson").display().to_string();
    let lines = desk.json(&[&compare[..], &["--tenant", "contoso", &file]].concat());
    let dora = line(&lines, FORWARDING, "dora@contoso.example").unwrap();
    assert_eq!(
        (&dora["old"], &dora["new"], &dora["added"]),
        (&json!(1), &json!(1), &json!(0))
    );

    // Nothing was kept or sent by any of it.
    let same = desk.json(&["replay", "--compare", "--old-config", &old, "--since", "7d"]);
    for line in same.as_array().unwrap() {
        assert_eq!(
            (&line["difference"], &line["gone"]),
            (&json!(0), &json!(0)),
            "{line}"
        );
    }
}

#[test]
fn a_comparison_of_nothing_says_what_to_name() {
    let desk = Desk::new();
    let old = desk.path("exfilwatch.toml").display().to_string();
    for (flags, says) in [
        (&["--compare"][..], "--since 30d"),
        (&["--compare", "--since", "30d"], "there is no archive in"),
        (&["--since", "30d", "x.ndjson"], "--compare"),
    ] {
        let output = desk.output(&[&["replay", "--old-config", &old], flags].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

//! `finding close`, `list` and `noise`.

use serde_json::{Value, json};

use crate::desk::{Desk, m365, until};

/// A mailbox that forwards outside: raises a finding at once.
fn forwarding(id: u64, user: &str) -> Value {
    let parameters = json!([
        { "Name": "Identity", "Value": user },
        { "Name": "ForwardingSmtpAddress", "Value": format!("smtp:x@rival{id}.example") },
        { "Name": "DeliverToMailboxAndForward", "Value": "False" },
    ]);
    m365(
        id,
        "2026-05-01T09:00:00Z",
        "Set-Mailbox",
        &json!({
            "UserId": user, "ObjectId": user, "Parameters": parameters,
            "ClientIP": format!("198.51.{id}.7:1"),
        }),
    )
}

fn findings(desk: &Desk, flags: &[&str]) -> Vec<Value> {
    let listed = desk.json(&[&["finding", "list"], flags].concat());
    listed.as_array().unwrap().clone()
}

fn noise(desk: &Desk) -> Value {
    let noise = desk.json(&["finding", "noise"]);
    noise.as_array().unwrap()[0].clone()
}

#[test]
fn a_finding_is_closed_with_who_and_why_at_rest_and_while_running() {
    let desk = Desk::new();
    desk.forward(
        "records.ndjson",
        &[
            forwarding(1, "alice@contoso.example"),
            forwarding(2, "bob@contoso.example"),
        ],
    );
    let open = findings(&desk, &["--open"]);
    assert_eq!(open.len(), 2, "{open:?}");
    let uid = |at: usize| open[at]["uid"].as_str().unwrap().to_owned();
    assert_eq!(noise(&desk)["raised"], 2);
    assert_eq!(noise(&desk)["precision"], Value::Null);

    let (first, second) = (uid(0), uid(1));
    let close = |uid: &str, how: &str, by: &str| {
        desk.said(&[
            "finding",
            "close",
            uid,
            "--as",
            how,
            "--reason",
            "asked the owner",
            "--by",
            by,
        ])
    };
    // At rest, by the first digits.
    let said = close(&first[..8], "false-positive", "ana");
    assert!(
        said.contains(&first) && said.contains("false-positive"),
        "{said}"
    );
    let left = findings(&desk, &["--open"]);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["uid"], second);

    let running = desk.run();
    close(&second, "true-positive", "ana");
    close(&first, "true-positive", "ben");
    let table = desk.said(&["finding", "list"]);
    assert!(table.contains("true-positive by ben"), "{table}");
    let all = findings(&desk, &[]);
    let closed = all
        .iter()
        .find(|line| line["uid"] == first.as_str())
        .unwrap();
    let verdict = &closed["verdict"];
    assert_eq!(verdict["last"]["by"], "ben");
    assert_eq!(verdict["last"]["reason"], "asked the owner");
    assert_eq!(verdict["earlier"][0]["by"], "ana");
    assert_eq!(verdict["earlier"][0]["judgement"], "false-positive");
    let line = noise(&desk);
    assert_eq!(
        (&line["open"], &line["true_positives"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(line["precision"], 1.0);
    // The audit trail reaches the receivers, that of what was closed at rest too.
    let trail = || std::fs::read_to_string(desk.path("internal.ndjson")).unwrap_or_default();
    let closings = || {
        trail()
            .lines()
            .filter(|line| line.contains("finding.closed"))
            .count()
    };
    until("the audit trail", || closings() == 3, trail);
    assert!(trail().contains("\"by\":\"ben\""));
    drop(running);

    // What was said while it ran is still there.
    assert_eq!(noise(&desk)["true_positives"], 2);
    let table = desk.said(&["finding", "noise", "--tenant", "contoso"]);
    assert!(table.contains("100 %"), "{table}");
    assert_eq!(
        desk.json(&["finding", "noise", "--tenant", "fabrikam"]),
        json!([])
    );
}

/// A receiver that may not know whom a finding is about knows its uid: by that the people who may know find it.
#[test]
fn a_finding_is_found_by_the_uid_under_which_a_policy_sent_it() {
    let desk = Desk::new();
    std::fs::write(desk.path("key"), "k".repeat(44)).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(desk.path("key"), private).unwrap();
    let (sent, key) = (desk.path("sent.ndjson"), desk.path("key"));
    desk.configure(&format!(
        "\n[emitters.ndjson.sent]\npath = \"{}\"\nsend = [\"findings\", \"internal\"]\n\n\
         [emitters.ndjson.sent.fields]\nkey = {{ file = \"{}\" }}\nactor = \"hash\"\n",
        sent.display(),
        key.display(),
    ));
    desk.forward(
        "records.ndjson",
        &[
            forwarding(1, "alice@contoso.example"),
            forwarding(2, "bob@contoso.example"),
        ],
    );
    let own = &findings(&desk, &[])[0];
    let sent = || std::fs::read_to_string(&sent).unwrap();
    let all = sent();
    assert!(!all.contains(own["uid"].as_str().unwrap()), "{all}");
    for line in all.lines() {
        let sent: Value = serde_json::from_str(line).unwrap();
        let uid = sent["finding_info"]["uid"].as_str().unwrap();
        let found = findings(&desk, &["--uid", uid]);
        assert_eq!(found.len(), 1, "{found:?}");
        let entity = found[0]["entity"].as_str().unwrap();
        assert!(entity.ends_with("@contoso.example"), "{entity}");
        assert_ne!(found[0]["uid"], uid);
        let closing = ["finding", "close", &uid[..13], "--as", "false-positive"];
        let said = desk.said(&[&closing[..], &["--reason", "asked Alice", "--by", "ana"]].concat());
        assert!(said.contains(found[0]["uid"].as_str().unwrap()), "{said}");
    }
    assert_eq!(findings(&desk, &["--open"]).len(), 0);
    let running = desk.run();
    until(
        "the audit trail",
        || sent().matches("finding.closed").count() == 2,
        sent,
    );
    drop(running);
    let trail = sent().to_lowercase();
    assert!(
        !trail.contains("alice") && !trail.contains("bob@"),
        "{trail}"
    );
    assert!(trail.contains("\"by\":\"ana\""), "{trail}");
}

#[test]
fn what_cannot_be_closed_is_refused_with_what_to_do() {
    let desk = Desk::new();
    let close = |uid: &str, reason: &str| {
        let output = desk.output(&[
            "finding",
            "close",
            uid,
            "--as",
            "true-positive",
            "--reason",
            reason,
        ]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = close("0123456789", "x");
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("no state folder"), "{said}");
    desk.forward("records.ndjson", &[forwarding(1, "alice@contoso.example")]);
    for (uid, reason, expected) in [
        ("0123456789", "x", "no finding that is remembered"),
        ("01", "x", "at least 6 digits"),
        ("0123456789", " ", "the reason is empty"),
        ("0123456789", "a\nb", "one line"),
    ] {
        let (code, said) = close(uid, reason);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains(expected) && said.contains("finding list"),
            "{said}"
        );
    }
}

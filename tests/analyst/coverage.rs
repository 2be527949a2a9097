//! `rules coverage`, at rest and asked of a running process.

use serde_json::{Value, json};

use crate::desk::{Desk, m365};

fn line<'a>(lines: &'a Value, detection: &str) -> &'a Value {
    let mut all = lines.as_array().unwrap().iter();
    all.find(|one| one["detection"] == detection)
        .unwrap_or_else(|| panic!("no {detection}"))
}

#[test]
fn what_was_last_seen_is_the_same_at_rest_and_of_a_running_process() {
    let desk = Desk::new();
    let ask = ["rules", "coverage", "--tenant", "contoso"];
    let nothing = desk.output(&ask);
    assert_eq!(nothing.status.code(), Some(6), "there is no state yet");

    desk.forward(
        "records.ndjson",
        &[m365(1, "2026-05-01T09:00:00Z", "Set-Mailbox", &json!({}))],
    );
    let at_rest = desk.json(&ask);
    let seen = line(&at_rest, "o365.mail.mailbox_forwarding_enabled");
    assert_eq!(seen["last_seen"], "2026-05-01", "{seen}");
    assert_eq!(seen["operation"], "Set-Mailbox", "{seen}");
    let never = line(&at_rest, "gws.drive.takeout_archive_created");
    assert_eq!(never["state"], "never", "{never}");

    let running = desk.run();
    assert_eq!(desk.json(&ask), at_rest, "asked over the control socket");
    let nobody = desk.output(&["rules", "coverage", "--tenant", "nobody"]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert_eq!(nobody.status.code(), Some(2), "{said}");
    assert!(said.contains("no record of tenant nobody"), "{said}");
    drop(running);
}

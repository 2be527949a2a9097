//! Times are UTC whatever the machine's zone is: a record's time without a zone, and all that is shown.
//! Row 81 of the failure table.

use std::path::Path;

use serde_json::Value;

use crate::scene::exfilwatch;

/// What a replay finds in a zone, without the two times that are of the run itself.
fn replayed(zone: &str) -> Vec<Value> {
    let file = "examples/o365-forwarding.ndjson";
    let domain = ["--internal-domain", "corp.example"];
    let output = exfilwatch(&["replay", "--output", "ndjson", domain[0], domain[1], file])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("TZ", zone)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let mut findings = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut finding: Value = serde_json::from_str(line).unwrap();
        assert!(finding["finding_info"]["created_time"].take().is_number());
        assert!(finding["metadata"]["logged_time"].take().is_number());
        findings.push(finding);
    }
    findings
}

#[test]
fn tz_asia_kolkata_and_any_other_zone_give_the_same_times() {
    let utc = replayed("UTC");
    // `CreationTime` of the first record is 2026-05-04T09:12:31, without a zone.
    assert_eq!(utc[0]["time"], 1_777_885_951_000_i64);
    // By name, and as POSIX writes it where there is no table of names.
    for zone in [
        "Asia/Kolkata",
        "IST-05:30",
        "America/Los_Angeles",
        "PST8PDT",
    ] {
        assert!(replayed(zone) == utc, "{zone}");
    }
}

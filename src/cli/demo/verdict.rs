//! The end of the demo: what the receiver holds, against the simulator's answer sheet.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use exfilwatch_model::Finding;
use exfilwatch_simulator::{DueFinding, Record, Running, SeenFinding};

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Table, print};

/// Compares all that was due by `until`. `delivered` are the findings and signals with all their event
/// ids; the receiver's copies are shortened, so there only their ids are looked for.
pub(super) fn compare(running: &Running, delivered: &[Finding], until: DateTime<Utc>) -> Outcome {
    let sheet = running.simulator.sheet();
    let due: BTreeSet<String> = sheet
        .due_at(until.timestamp_millis())
        .into_iter()
        .map(name)
        .collect();
    let (uids, received) = running.simulator.hec().look(|recorded| {
        let records: BTreeSet<String> = recorded
            .record_ids()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let uids: BTreeSet<String> = recorded.findings().into_keys().map(str::to_owned).collect();
        (uids, records)
    });
    let verdict = sheet.judge_growing(&seen(delivered, &uids));
    let missing: BTreeSet<String> = verdict.missing.iter().map(name).collect();
    let split: BTreeSet<String> = verdict.split.iter().map(|(due, _)| name(due)).collect();
    let is_found = |finding: &&DueFinding| {
        !missing.contains(&name(finding)) && !split.contains(&name(finding))
    };
    let mut by_detection: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for finding in sheet
        .due
        .iter()
        .filter(|finding| due.contains(&name(finding)))
    {
        let (wanted, found) = by_detection.entry(&finding.detection).or_default();
        *wanted += 1;
        *found += usize::from(is_found(&finding));
    }
    let lost: Vec<&Record> = sheet
        .records
        .iter()
        .filter(|record| record.visible_from_ms <= until.timestamp_millis())
        .filter(|record| !received.contains(&record.id))
        .collect();
    print(&format!(
        "What the simulator did, against what arrived at the receiver:\n\n{}\n\
         records: {} received, {} missing · findings nobody ordered: {}\n",
        table(&by_detection),
        received.len(),
        lost.len(),
        verdict.unexpected.len(),
    ))?;
    let not_found: Vec<&DueFinding> = sheet
        .due
        .iter()
        .filter(|f| due.contains(&name(f)) && !is_found(f))
        .collect();
    if not_found.is_empty() && lost.is_empty() && verdict.unexpected.is_empty() {
        return print("\nEverything that was due was found, nothing was lost.\n");
    }
    for finding in not_found {
        print(&format!("  not found, or under several ids: {finding:?}\n"))?;
    }
    for record in lost {
        print(&format!("  missing: {} {}\n", record.stream, record.id))?;
    }
    for finding in &verdict.unexpected {
        print(&format!("  nobody ordered: {finding:?}\n"))?;
    }
    let what = "the demo did not find what it should: this is a bug of exfilwatch";
    Err(Failure::new(Code::Vendor, what).help("report it with the seed and this table"))
}

fn table(by_detection: &BTreeMap<&str, (usize, usize)>) -> String {
    let mut table = Table::new(&["DETECTION", "DUE", "FOUND", "STATE"]);
    for (detection, (wanted, found)) in by_detection {
        let state = if wanted == found { "ok" } else { "MISSING" };
        table.row([
            (*detection).to_owned(),
            wanted.to_string(),
            found.to_string(),
            state.to_owned(),
        ]);
    }
    table.text()
}

/// Per finding the union of its revisions, where the receiver has it.
fn seen(delivered: &[Finding], uids: &BTreeSet<String>) -> Vec<SeenFinding> {
    let mut by_uid: BTreeMap<String, SeenFinding> = BTreeMap::new();
    for finding in delivered {
        let uid = finding.uid.to_string();
        if !uids.contains(&uid) {
            continue;
        }
        let seen = by_uid.entry(uid.clone()).or_insert_with(|| SeenFinding {
            detection: finding.rule.detection.clone(),
            tenant: finding.tenant.to_string(),
            uid,
            entity: finding.entity.clone(),
            counted: Some(finding.window_seconds.is_some()),
            external_domain: finding.external_domain.clone().unwrap_or_default(),
            event_ids: Vec::new(),
        });
        let known: BTreeSet<String> = seen
            .event_ids
            .iter()
            .chain(&finding.event_ids)
            .cloned()
            .collect();
        seen.event_ids = known.into_iter().collect();
    }
    by_uid.into_values().collect()
}

fn name(due: &DueFinding) -> String {
    format!(
        "{} {} {} {} {}",
        due.tenant, due.detection, due.script, due.entity, due.first_ms
    )
}

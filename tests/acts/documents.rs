//! What the acts give, as receivers get it: every word on every finding of both clouds as an OCSF
//! document, written to a file that validators of others read (tests/ocsf/run).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use exfilwatch::pipeline::alarm::{Alarm, Raised, Reason};
use exfilwatch_detectors::updates::{last_word, revise};
use exfilwatch_emitters::fields::{Policy, policy};
use exfilwatch_emitters::formats::ocsf::{Document, Part};
use exfilwatch_emitters::{Environment, FieldsOptions};
use exfilwatch_model::{FindingState, Kind, Suppression, UpdateReason};
use uuid::Uuid;

use super::*;

/// Records between two looks of the detectors.
const PAGE_RECORDS: usize = 20;

/// Every word, as a live line says it: the first, updates, and the last.
fn words(world: &World) -> Vec<Finding> {
    let rules = Arc::new(rules());
    let mut offline = Offline::new(rules.clone(), &world.tenants()[0]);
    let mut records: Vec<&Record> = world.sheet().records.iter().collect();
    records.sort_by_key(|record| record.event_ms);
    let (mut words, mut states) = (Vec::new(), BTreeMap::<Uuid, FindingState>::new());
    let mut hear = |found: Vec<Finding>| {
        for finding in found {
            let expires = rules.expiry(&finding);
            let revision = revise(states.get(&finding.uid), finding, expires);
            states.insert(revision.state.uid, revision.state);
            words.extend(revision.send);
        }
    };
    for page in records.chunks(PAGE_RECORDS) {
        for record in page {
            offline.observe(record);
        }
        let read = DateTime::from_timestamp_millis(page[0].event_ms).unwrap();
        hear(offline.engine.collect(read));
    }
    offline.engine.settle(DateTime::<Utc>::MAX_UTC);
    hear(offline.engine.collect(DateTime::UNIX_EPOCH));
    let closed = words.iter().rev().take(20).filter_map(|finding| {
        let known = states.get(&finding.uid);
        let expires = finding.last_time;
        last_word(known, finding.clone(), expires, UpdateReason::Closed).send
    });
    let closed: Vec<Finding> = closed.collect();
    words.extend(closed);
    words
}

fn alarms() -> Vec<Finding> {
    let logs = [
        ("contoso/office365/Audit.Exchange", Product::M365),
        ("contoso/google_workspace/drive", Product::GoogleWorkspace),
    ];
    let since = "2026-05-04T00:00:00Z".parse().unwrap();
    let mut alarms = Vec::new();
    for (stream, product) in logs {
        for reason in [
            Reason::Silence,
            Reason::Off,
            Reason::Unfilled,
            Reason::Rebuilt,
        ] {
            let alarm = Alarm {
                stream: &stream.parse().unwrap(),
                product,
                raised: &Raised { reason, since },
                message: "the log is silent".to_owned(),
                matched: BTreeMap::from([("habit_seconds".to_owned(), "3600".to_owned())]),
            };
            alarms.extend([alarm.finding(since), alarm.over(since)]);
        }
    }
    alarms
}

/// A policy that changes whatever can be changed.
fn strict() -> Policy {
    let fields: FieldsOptions = serde_json::from_value(serde_json::json!({
        "key": { "env": "KEY" }, "actor": "hash", "target": "hash", "source_ip": { "truncate": 24 },
        "object": "drop", "external_domain": "drop", "other": "drop",
    }))
    .unwrap();
    let environment = Environment::new(|_| Some("k".repeat(40)));
    let policy = policy("ndjson.main", &fields, &[Kind::Findings], &environment);
    policy.unwrap().unwrap()
}

#[test]
fn every_word_on_every_finding_is_written_for_the_validators() {
    let (words, policy) = (words(&world()), strict());
    let told: BTreeSet<&str> = words.iter().map(|f| f.rule.detection.as_str()).collect();
    let missing: Vec<_> = must()
        .into_iter()
        .filter(|name| !told.contains(name) && !OF_THE_COLLECTOR.contains(name))
        .collect();
    assert!(missing.is_empty(), "no document of {missing:?}");
    let reasons: BTreeSet<_> = words
        .iter()
        .filter_map(|f| f.update_reason)
        .map(UpdateReason::as_str)
        .collect();
    assert!(
        reasons.len() > 2 && reasons.contains("closed"),
        "{reasons:?}"
    );

    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("ocsf.ndjson");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let mut count = 0;
    let mut write = |document: &Document<'_>| {
        serde_json::to_writer(&mut file, document).unwrap();
        file.write_all(b"\n").unwrap();
        count += 1;
    };
    let mut variants_of = BTreeSet::new();
    for finding in words.into_iter().chain(alarms()) {
        write(&Document::new(&finding));
        // Once for each detection: under a policy, suppressed, and ever shorter.
        if !variants_of.insert(finding.rule.id) {
            continue;
        }
        let mut quiet = policy.apply(finding.clone());
        quiet.suppressed = Some(Suppression::Shadow);
        write(&Document::new(&quiet));
        let mut document = Document::new(&finding);
        for part in Part::ORDER {
            document.leave_out(part);
            write(&document);
        }
    }
    println!("{count} documents in {}", path.display());
}

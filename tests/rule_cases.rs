//! Runs the cases that stand in the rule files: raw vendor records through the real readers and the
//! real engine, so that a case exercises reader and rule together.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use exfilwatch_connectors::RecordReader;
use exfilwatch_connectors::records::{GoogleRecords, Microsoft365Records};
use exfilwatch_detectors::{DetectorsOptions, Pack, RuleSet, cases, catalogue};
use exfilwatch_model::{Domains, Event, Product, RawRecord};

/// Cases that find, and cases that do not, which a detection has at least.
const CASES_MIN: usize = 3;

fn rules() -> Arc<RuleSet> {
    // A case is about what its rule says, whether or not its pack is switched on.
    let options = DetectorsOptions {
        packs: Pack::ALL.to_vec(),
        ..DetectorsOptions::default()
    };
    Arc::new(RuleSet::load(&options).unwrap_or_else(|error| panic!("{error}")))
}

fn read(product: Product, bytes: &[u8], domains: &Domains) -> Result<Vec<Event>, String> {
    let domains = Arc::new(domains.clone());
    let reader: Box<dyn RecordReader> = match product {
        Product::M365 => Box::new(Microsoft365Records::new(domains)),
        Product::GoogleWorkspace => Box::new(GoogleRecords::new(domains)),
    };
    let record = RawRecord::new(Bytes::copy_from_slice(bytes));
    reader
        .normalise(&record, DateTime::UNIX_EPOCH)
        .map_err(|error| error.to_string())
}

#[test]
fn every_case_in_the_rule_files_comes_out_as_it_says() {
    let outcomes = cases::run(&rules(), &mut read).unwrap();
    let failures: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| {
            let failure = outcome.failure.as_ref()?;
            Some(format!("{}, \"{}\": {failure}", outcome.file, outcome.case))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{} cases", outcomes.len());
}

#[test]
fn every_detection_has_its_texts_and_cases_on_both_sides() {
    let rules = rules();
    let lacks = catalogue::lint(&rules);
    assert!(lacks.is_empty(), "{}", lacks.join("\n"));
    let mut cases: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for rule in rules.rules() {
        let (finding, silent) = cases.entry(&rule.facts.detection).or_default();
        for case in rule.tests.iter() {
            *(if case.expect.findings > 0 {
                &mut *finding
            } else {
                &mut *silent
            }) += 1;
        }
    }
    assert!(!cases.is_empty());
    for (detection, (finding, silent)) in cases {
        let both = finding >= CASES_MIN && silent >= CASES_MIN;
        assert!(both, "{detection}: {finding} cases find, {silent} do not");
    }
}

#[test]
fn every_triage_text_names_five_checks() {
    for rule in rules().rules() {
        let triage = &rule.facts.triage;
        for part in [
            "What happened:",
            "Why it matters:",
            "Check:",
            "1.",
            "5.",
            "Contain:",
        ] {
            assert!(
                triage.contains(part),
                "{}: {part} is missing",
                rule.facts.detection
            );
        }
    }
}

#[test]
fn the_built_in_rules_fall_into_no_trap() {
    let remarks = exfilwatch_detectors::lint(&exfilwatch_detectors::embedded(), &[]);
    let faults = remarks
        .iter()
        .filter(|remark| remark.weight == exfilwatch_detectors::Weight::Fault);
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

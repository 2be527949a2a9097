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
use exfilwatch_model::{Domains, Event, Product, RawRecord, field};

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

/// As the pipeline reads: what no rule can want is not read at all, and of the rest only the fields that
/// rules look at. What it leaves out must be nothing that a rule could see.
fn read_what_is_wanted(
    rules: &RuleSet,
    (product, bytes, domains): (Product, &[u8], &Domains),
) -> Result<Vec<Event>, String> {
    let whole = read(product, bytes, domains)?;
    let reader: Box<dyn RecordReader> = match product {
        Product::M365 => Box::new(Microsoft365Records::new(domains.clone())),
        Product::GoogleWorkspace => Box::new(GoogleRecords::new(domains.clone())),
    };
    let record = RawRecord::new(Bytes::copy_from_slice(bytes));
    let operations = reader.operations(&record).unwrap();
    let is_wanted = rules.wants_record(product, &operations, record.bytes(), &*reader);
    if !is_wanted {
        return Ok(Vec::new());
    }
    let fields = rules.fields(product, &operations);
    let read = reader.normalise_for(&record, DateTime::UNIX_EPOCH, &fields);
    let read = read.map_err(|error| error.to_string())?;
    assert_eq!(read.len(), whole.len());
    for (read, whole) in read.iter().zip(&whole) {
        assert_eq!((read.part, read.time), (whole.part, whole.time));
        assert_eq!(read.record_id, whole.record_id);
        for (name, value) in whole.fields() {
            if fields.has(name) || field::ALL.contains(&name) {
                assert_eq!(read.get(name), Some(value), "{name}");
            }
        }
    }
    Ok(read)
}

#[test]
fn every_case_comes_out_the_same_where_only_what_rules_look_at_is_read() {
    let rules = rules();
    let mut left_out = 0;
    let outcomes = cases::run(&rules, &mut |product, bytes, domains| {
        let events = read_what_is_wanted(&rules, (product, bytes, domains))?;
        left_out += usize::from(events.is_empty());
        Ok(events)
    })
    .unwrap();
    let failed = outcomes.iter().filter_map(|outcome| {
        let failure = outcome.failure.as_ref()?;
        Some(format!("{}, \"{}\": {failure}", outcome.file, outcome.case))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(left_out > 20, "only {left_out} records were left out");
}

/// The same record with some letters of its names and texts as escapes: others with every seed.
fn respelled(bytes: &[u8], seed: usize) -> Vec<u8> {
    let (mut out, mut is_in_text, mut rest) = (Vec::new(), false, bytes.iter().enumerate());
    while let Some((at, byte)) = rest.next() {
        let is_chosen = (at * 31 + seed * 17).is_multiple_of(5);
        match byte {
            b'\\' => {
                out.push(*byte);
                out.extend(rest.next().map(|(_, escaped)| *escaped));
                continue;
            }
            b'"' => is_in_text = !is_in_text,
            letter if is_in_text && is_chosen && letter.is_ascii_alphabetic() => {
                out.extend(format!("\\u{letter:04X}").bytes());
                continue;
            }
            _ => {}
        }
        out.push(*byte);
    }
    out
}

#[test]
fn every_case_comes_out_the_same_however_its_letters_are_written() {
    let rules = rules();
    for seed in 0..3 {
        let outcomes = cases::run(&rules, &mut |product, bytes, domains| {
            let bytes = respelled(bytes, seed);
            read_what_is_wanted(&rules, (product, &bytes, domains))
        });
        for outcome in outcomes.unwrap() {
            let (file, case) = (&outcome.file, &outcome.case);
            assert_eq!(outcome.failure, None, "{file}, \"{case}\"");
        }
    }
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

/// An empty cell on the page of coverage could mean "none" or "nobody looked": it says which.
#[test]
fn every_detection_was_compared_with_the_other_collections() {
    let mut said: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for rule in catalogue::summaries(&rules()) {
        let equivalents = rule.equivalents.map(|of| of.is_empty());
        said.entry(rule.name).or_default().extend(equivalents);
    }
    for (name, none) in said {
        assert!(
            !none.is_empty(),
            "{name}: write `equivalents`, or `equivalents: none`"
        );
        let is_one = none.iter().all(|is| Some(is) == none.first());
        assert!(
            is_one,
            "{name}: one of its rules says `none`, another names some"
        );
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

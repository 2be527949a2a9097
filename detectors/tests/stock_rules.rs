//! Stock Sigma rules are loaded as they are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use exfilwatch_detectors::{DetectorsOptions, RuleSet};

#[test]
fn the_sigma_rules_of_the_samples_load_over_the_built_in_ones() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples/sigma");
    if !samples.is_dir() {
        println!("skipped: {} is absent", samples.display());
        return;
    }
    let built_in = RuleSet::load(&DetectorsOptions::default())
        .unwrap()
        .rules()
        .len();
    let options = DetectorsOptions {
        rules_dir: Some(samples),
        ..DetectorsOptions::default()
    };
    let rules = RuleSet::load(&options).unwrap_or_else(|error| panic!("{error}"));
    println!(
        "{} of 75 run, {} skipped",
        rules.rules().len() - built_in,
        rules.skipped().len()
    );
    assert!(rules.rules().len() > built_in);
    assert_eq!(rules.rules().len() - built_in + rules.skipped().len(), 75);
}

#[test]
fn the_built_in_rules_load() {
    let rules = RuleSet::load(&DetectorsOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        rules.skipped().is_empty(),
        "a rule of ours names a product of ours"
    );
    let names = rules.rules().iter().map(|rule| &rule.facts.detection);
    let as_stock: Vec<_> = names.filter(|name| name.starts_with("sigma.")).collect();
    assert!(
        as_stock.is_empty(),
        "called like a stock rule: {as_stock:?}"
    );
}

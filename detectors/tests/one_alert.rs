//! One act, one alert.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{Share, at};
use exfilwatch_detectors::{Engine, Pack, RuleSet, SourceFile};
use exfilwatch_model::{Finding, JobId, TenantId};

fn rule(number: u8, keys: &str) -> String {
    format!(
        "title: Rule {number}\nid: 0b0e4a52-1000-4b0c-8a52-0d6a8e1f000{number}\nname: test.r{number}\n\
         logsource: {{ product: google_workspace }}\n\
         detection:\n  s: {{ operation: change_user_access }}\n  condition: s\n{keys}"
    )
}

fn findings(rules: &[String]) -> Vec<Finding> {
    found_with(rules, &Pack::ALL)
}

fn found_with(rules: &[String], packs: &[Pack]) -> Vec<Finding> {
    let file = SourceFile {
        name: "r.yml".into(),
        text: rules.join("\n---\n"),
    };
    let set = RuleSet::from_files(&[file], &[], &[])
        .unwrap()
        .with_packs(packs);
    let mut engine = Engine::new(Arc::new(set), TenantId::new("corp").unwrap(), JobId::live());
    engine.observe(&Share::new("r", "2026-05-01T10:00:00Z").event());
    engine.collect(at("2026-05-01T10:00:00Z"))
}

fn alerts(findings: &[Finding]) -> Vec<&str> {
    let alerts = findings.iter().filter(|finding| finding.alert);
    alerts
        .map(|finding| finding.rule.detection.as_str())
        .collect()
}

#[test]
fn the_most_severe_remains_and_all_are_one_incident() {
    let all = findings(&[
        rule(1, "level: medium"),
        rule(2, "level: high"),
        rule(3, "level: high\nrisk: 10"),
        rule(4, "level: critical\nalert: false"),
    ]);
    assert_eq!(all.len(), 4);
    assert_eq!(alerts(&all), ["test.r2"]);
    assert!(
        all.iter()
            .all(|finding| finding.incident_uid == all[0].incident_uid)
    );
}

#[test]
fn what_is_superseded_steps_back_whatever_its_severity() {
    let all = findings(&[
        rule(1, "level: high"),
        rule(2, "level: medium\nsupersedes: [test.r1]"),
    ]);
    assert_eq!(alerts(&all), ["test.r2"]);
}

#[test]
fn a_pack_that_is_not_switched_on_gives_signals() {
    let rules = [
        rule(1, "level: high\npack: identity"),
        rule(2, "level: low"),
    ];
    assert_eq!(alerts(&found_with(&rules, &[Pack::Exfil])), ["test.r2"]);
    assert_eq!(alerts(&found_with(&rules, &Pack::ALL)), ["test.r1"]);
}

#[test]
fn findings_over_several_records_keep_their_own_alert() {
    let per_day = "identity: { entity: actor, fields: [actor], per: 24h }\nlevel: low";
    let all = findings(&[rule(1, "level: high"), rule(2, per_day)]);
    assert_eq!(alerts(&all), ["test.r1", "test.r2"]);
}

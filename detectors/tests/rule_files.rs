//! Rule files: what is refused and how that is said, overlays, cases, catalogue.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{RULES, Share};
use exfilwatch_detectors::{DetectorsOptions, RuleSet, SourceFile, cases, catalogue};
use exfilwatch_model::{Event, Product};

fn file(text: &str) -> SourceFile {
    SourceFile {
        name: "some/rule.yml".into(),
        text: text.into(),
    }
}

fn load(text: &str) -> Result<RuleSet, exfilwatch_detectors::RuleError> {
    RuleSet::from_files(&[file(text)], &[], &[])
}

/// What stands in the rules, what is written instead, and what is said of it.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "type: event_count",
        "type: temporal",
        "key `correlation.rules`: there is but one; name two rules or more",
    ),
    (
        "type: event_count",
        "type: value_sum",
        "key `correlation.type`: value_sum is not run",
    ),
    (
        "  group-by: [person]",
        "  group-by: [actor]",
        "key `correlation.aliases`: \"person\" is not in group-by",
    ),
    (
        "person: { test.chain.free_mail: actor, test",
        "person: { test",
        "\"person\" says no field for \"test.chain.free_mail\"",
    ),
    (
        "rules: [test.chain.free_mail, test.chain.partner, test.chain.x]\n  group-by: [actor]\n",
        "rules: [test.chain.free_mail, test.chain.partner]\n  group-by: [actor]\n  condition: { gte: 3 }\n",
        "only `gte` up to the number of rules is run",
    ),
    (
        "{ gt: 4 }",
        "{ lt: 4 }",
        "key `correlation.condition`: only one gte or gt is run",
    ),
    ("{ gt: 4 }", "{ gte: 0 }", "0 is always met"),
    (
        "{ gt: 4 }",
        "{ gte: 4, field: target }",
        "`field` belongs to value_count",
    ),
    (
        "{ field: target, gte: 4 }",
        "{ gte: 4 }",
        "`field` belongs to value_count",
    ),
    (
        "timespan: 30m",
        "timespan: 900d",
        "key `correlation.timespan`",
    ),
    (
        "timespan: 30m",
        "timespan: 30m\n  window: tumbling",
        "key `correlation.window`",
    ),
    (
        "timespan: 30m",
        "timespan: 30m\n  generate: true",
        "key `generate`",
    ),
    (
        "group-by: [actor, external_domain]",
        "group-by: []",
        "key `correlation.group-by`",
    ),
    (
        "rules: [test.burst.base]",
        "rules: [test.other]",
        "no rule \"test.other\"",
    ),
    (
        "rules: [test.burst.base]",
        "rules: []",
        "key `correlation.rules`: it is empty",
    ),
    (
        "entity: external_domain, ",
        "entity: target, ",
        "key `identity.entity`",
    ),
    (
        "timespan: 1h, gte: 3",
        "timespan: 1h, gte: 0",
        "key `tiers`",
    ),
    ("per: 24h", "per: 1 day", "key `identity.per`"),
    (
        "fields: [actor, external_domain], per",
        "per",
        "key `identity`: a period needs fields",
    ),
    (
        "product: google_workspace, service",
        "product: aws, service",
        "key `logsource`",
    ),
    (
        "{actor} shared {parameters.title",
        "{actor shared",
        "key `message`",
    ),
    (
        "when: { external_class: free_mail }",
        "when: { actor|re: '(' }",
        "key `raise`",
    ),
    (
        "when: { external_class: free_mail }",
        "whn: { a: b }",
        "key `raise`",
    ),
    (
        "alert: { external_class: free_mail }",
        "alert: { actor|nope: x }",
        "key `alert`",
    ),
    (
        "alert: { external_class: free_mail }",
        "alert: yess",
        "key `alert`: a selection is fields and values",
    ),
    (
        "alert: { external_class: free_mail }",
        "alert: [free_mail, { external_class: partner }]",
        "key `alert`: a selection is fields and values",
    ),
    (
        "when: { external_class: free_mail }",
        "when: 3",
        "key `raise`: a selection is fields and values",
    ),
    (
        "condition: alert",
        "condition: alert and nothing",
        "key `detection.condition`: no selection is named \"nothing\"",
    ),
    (
        "condition: alert",
        "condition: ((alert",
        "rule file some/rule.yml, document 3",
    ),
    (
        "level: medium\nraise",
        "level: medium\nrisk: 101\nraise",
        "key `risk`",
    ),
    (
        "identity: { entity: actor, entity_type: user, fields",
        "identity: { entiti: a, fields",
        "key `identity`",
    ),
];

#[test]
fn what_cannot_be_run_is_refused_with_key_and_advice() {
    for (from, to, expected) in REFUSED {
        assert!(RULES.contains(*from), "{from}");
        match load(&RULES.replacen(from, to, 1)) {
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("rule file some/rule.yml, document "),
                    "{text}"
                );
                assert!(text.contains(expected), "{to}: {text}");
                assert!(!error.help.is_empty());
            }
            Ok(_) => panic!("{to} was taken"),
        }
    }
}

#[test]
fn a_file_with_the_id_of_a_rule_replaces_its_file() {
    let first = RULES.split("---\n").next().unwrap();
    let replaced = first.replace("title: A share", "title: Our own share");
    let rules = RuleSet::from_files(&[file(first)], &[file(&replaced)], &[]).unwrap();
    assert_eq!(rules.rules().len(), 1);
    assert_eq!(rules.rules()[0].facts.title, "Our own share");
    let twice = RuleSet::from_files(&[], &[file(first), file(first)], &[]).unwrap_err();
    assert!(twice.to_string().contains("is also the id of a rule in"));
}

#[test]
fn a_base_rule_raises_nothing_unless_it_says_how() {
    let names = |rules: &RuleSet| -> Vec<String> {
        rules
            .rules()
            .iter()
            .map(|rule| rule.facts.detection.clone())
            .collect()
    };
    let silent = load(RULES).unwrap();
    assert!(!names(&silent).contains(&"test.burst.base".to_owned()));
    let text = RULES.replacen(
        "name: test.burst.base\n",
        "name: test.burst.base\nalert: false\n",
        1,
    );
    assert!(names(&load(&text).unwrap()).contains(&"test.burst.base".to_owned()));
    let without = RuleSet::from_files(&[file(RULES)], &[], &["Test.Share*".into()]).unwrap();
    assert!(
        !names(&without)
            .iter()
            .any(|name| name.starts_with("test.share"))
    );
}

const CASES: &str = r#"
title: A share with cases
id: 0b0e4a52-0010-4b0c-8a52-0d6a8e1f0010
name: test.cases
logsource: { product: google_workspace }
detection:
  share: { operation: change_user_access, is_external: true }
  condition: share
level: medium
alert: { external_class: free_mail }
tests:
  - name: a share with a stranger
    records: [ { id: r1, time: "2026-05-01T10:00:00Z", to: bob@gmail.com } ]
    expect: { findings: 1, severity: medium, alert: true, entity: alice@corp.example, count: 1 }
  - name: a share with a colleague
    records: [ { id: r1, time: "2026-05-01T10:00:00Z", to: bob@corp.example } ]
    expect: none
  - name: three shares
    repeat:
      record: { id: "", time: "", to: bob@x.example }
      count: 3
      vary: { /id: "r{i}", /to: "t{i}@x.example" }
      vary_time: { pointer: /time, start: "2026-05-01T10:00:00Z", step_seconds: 60 }
    expect: { findings: 3, alert: false }
  - name: wrong on purpose
    records: [ { id: r1, time: "2026-05-01T10:00:00Z", to: bob@gmail.com } ]
    expect: { findings: 2, severity: low }
  - name: unreadable
    records: [ { id: r1 } ]
    expect: none
"#;

fn read(record: &[u8]) -> Result<Vec<Event>, String> {
    let record: serde_json::Value = serde_json::from_slice(record).map_err(|e| e.to_string())?;
    let text = |key: &str| record[key].as_str().ok_or(format!("it has no {key}"));
    Ok(vec![
        Share::new(text("id")?, text("time")?)
            .to(text("to")?, 0)
            .event(),
    ])
}

#[test]
fn cases_are_run_and_say_what_was_expected_and_found() {
    let rules = Arc::new(load(CASES).unwrap());
    let outcomes = cases::run(&rules, &mut |_, record, domains| {
        assert!(domains.is_internal_domain("corp.example"));
        read(record)
    })
    .unwrap();
    let failures: Vec<Option<String>> = outcomes
        .into_iter()
        .map(|outcome| outcome.failure.map(|failure| failure.to_string()))
        .collect();
    assert_eq!(failures[..3], [None, None, None]);
    let wrong = failures[3].as_deref().unwrap();
    assert!(
        wrong.contains("findings: expected 2, got 1\nseverity: expected low, got medium"),
        "{wrong}"
    );
    assert!(
        failures[4]
            .as_deref()
            .unwrap()
            .contains("record 1 cannot be read: it has no time")
    );
}

#[test]
fn the_catalogue_tells_what_each_rule_is_and_what_it_lacks() {
    let rules = load(RULES).unwrap();
    let all = catalogue::summaries(&rules);
    let of = |name: &str| all.iter().find(|summary| summary.name == name).unwrap();
    let share = of("test.share");
    assert_eq!(
        (share.alert, share.operations.as_slice()),
        ("yes", &["change_user_access".to_owned()][..])
    );
    assert_eq!(share.attack, ["TA0010", "T1567.002"]);
    assert_eq!(
        of("test.share_per_day").identity,
        "actor, external_domain per 24 h"
    );
    assert_eq!(of("test.share_per_day").alert, "depends");
    assert_eq!(of("test.vendor_alert").operations, ["Alert*"]);
    let conditions = &of("test.burst").conditions;
    assert_eq!(
        conditions[0],
        "3 or more distinct target within 60 min: high"
    );
    let lint = catalogue::lint(&rules);
    assert!(
        lint.iter()
            .any(|lack| lack.contains("test.share ") && lack.contains("no case"))
    );
    let cases = catalogue::lint(&load(CASES).unwrap());
    assert!(
        !cases.iter().any(|lack| lack.contains("no case in tests")),
        "{cases:?}"
    );
}

#[test]
fn events_are_asked_for_all_fields_that_a_rule_looks_at() {
    let rule = |selection: &str| {
        let text = format!(
            "title: t\nid: 0c1c7c3c-3c0b-4b1e-9a34-3f0d5b0a7d11\nname: test.asked\nstatus: test\n\
             logsource: {{ product: m365 }}\ndetection:\n  sel: {selection}\n  condition: sel\n\
             level: low\nidentity: record\n\
             first_seen: {{ fields: [actor], told: {{ DeviceName: x }} }}\n"
        );
        load(&text).unwrap_or_else(|error| panic!("{error}"))
    };
    let fields = |rules: RuleSet| rules.fields(Product::M365, &["UserLoggedIn".into()]);
    let asked = fields(rule("{ operation: UserLoggedIn, Owner|fieldref: Sender }"));
    for (field, is_asked) in [
        ("DeviceName", true),
        ("Owner", true),
        ("Sender", true),
        ("Other", false),
    ] {
        assert_eq!(asked.has(field), is_asked, "{field}");
    }
    // What its placeholders stand for may be any field.
    let asked = fields(rule(
        "{ operation: UserLoggedIn, Owner|expand: '%UserId%' }",
    ));
    assert!(asked.has("UserId"));
}

#[test]
fn what_is_loaded_to_detect_lacks_the_cases_of_built_in_rules_and_nothing_else() {
    let options = DetectorsOptions::default();
    let (whole, bare) = (
        RuleSet::load(&options).unwrap(),
        RuleSet::load_for(&options, &[]).unwrap(),
    );
    assert!(whole.rules().iter().any(|rule| !rule.tests.is_empty()));
    assert!(bare.rules().iter().all(|rule| rule.tests.is_empty()));
    let mut expected = catalogue::summaries(&whole);
    for summary in &mut expected {
        summary.tests = Vec::new();
    }
    assert_eq!(catalogue::summaries(&bare), expected);
}

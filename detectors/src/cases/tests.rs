//! What a failed case says.

use chrono::TimeDelta;

use super::*;
use crate::rules::SourceFile;

/// A record is a map of fields; `at` are minutes.
fn read(product: Product, bytes: &[u8], _: &Domains) -> Result<Vec<Event>, String> {
    let fields: serde_json::Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let minutes = fields.get("at").and_then(Value::as_i64).unwrap_or(0);
    let time = DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes);
    let id = Value::Object(fields.clone()).to_string();
    let mut event = Event::new(product, id.into(), 0, time, bytes::Bytes::new());
    for (name, value) in fields {
        match value {
            Value::Bool(truth) => event.set(name, truth),
            Value::String(text) => event.set(name, text),
            _ => {}
        }
    }
    Ok(vec![event])
}

fn failure(rest: &str) -> String {
    let text = format!(
        "title: A rule\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0001\nname: a.b\n\
         logsource: {{product: m365}}\nlevel: medium\n{rest}"
    );
    let file = SourceFile {
        name: "f.yml".to_owned(),
        text,
    };
    let rules = RuleSet::from_files(&[file], &[], &[]).unwrap();
    let outcomes = run(&Arc::new(rules), &mut read).unwrap();
    outcomes[0].failure.as_ref().unwrap().to_string()
}

fn assert_says(failure: &str, words: &[&str]) {
    for word in words {
        assert!(failure.contains(word), "{word:?} is not in:\n{failure}");
    }
}

#[test]
fn a_rule_that_did_not_fire_says_which_field_had_what() {
    let text = "detection:\n  what: {operation: Share, is_external: true}\n  removal: {is_removal: true}\n  condition: what and not removal\n\
        tests:\n  - name: t\n    records:\n      - {operation: Share, is_external: false, actor: a}\n      - {operation: Share, is_external: true, is_removal: true, actor: b}\n      - {operation: Other, actor: c}\n    expect: {findings: 1, entity: a}\n";
    assert_says(
        &failure(text),
        &[
            "findings: expected 1, got 0",
            "no event matches",
            "record 1 (Share): what does not hold: is_external wanted true, has false",
            "record 2 (Share): removal holds, and the condition says not: is_removal has true",
            "record 3 (Other): operation has \"Other\", wanted one of Share",
        ],
    );
}

#[test]
fn of_many_records_that_are_equally_far_the_first_are_named() {
    let records = ["{operation: Share, is_external: false, actor: a}"; 12].join(", ");
    let text = format!(
        "detection: {{what: {{operation: Share, is_external: true}}, condition: what}}\n\
         tests:\n  - {{name: t, records: [{records}], expect: {{findings: 1}}}}\n"
    );
    assert_says(&failure(&text), &["record 1 ", "record 2 ", "record 3 "]);
}

#[test]
fn a_rule_that_fired_says_by_what() {
    let text = "detection: {what: {operation: Share}, condition: what}\n\
        tests:\n  - {name: t, records: [{operation: Share, actor: a}], expect: none}\n";
    assert_says(
        &failure(text),
        &[
            "findings: expected 0, got 1",
            "record 1 matches: what holds: operation has Share",
        ],
    );
}

#[test]
fn too_few_findings_are_told_by_what_makes_one() {
    let text = "detection: {what: {operation: Share}, condition: what}\nidentity: {fields: [actor]}\n\
        tests:\n  - {name: t, records: [{operation: Share, actor: a, at: 1}, {operation: Share, actor: a, at: 2}], expect: {findings: 2}}\n";
    assert_says(
        &failure(text),
        &[
            "2 of 2 events match",
            "the same actor are one finding: a 2 events",
        ],
    );
}

#[test]
fn severity_alert_and_entity_are_told_apart() {
    let text = "detection: {what: {operation: Share}, condition: what}\nalert: {role: owner}\n\
        raise: [{level: high, when: {role: editor}}]\n\
        tests:\n  - {name: t, records: [{operation: Share, actor: a, role: viewer}], expect: {findings: 1, severity: high, alert: true, entity: b, count: 2}}\n";
    assert_says(
        &failure(text),
        &[
            "severity: expected high, got medium",
            "alert: expected true, got false",
            "entity: expected b, got a",
            "count: expected 2, got 1",
            "raise 1, to high: 0 of 1 events; record 1: role wanted editor, has viewer",
            "`alert` holds for 0 of 1 events; record 1: role wanted owner, has viewer",
        ],
    );
}

#[test]
fn a_window_says_how_far_it_came() {
    let base = "title: B\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0002\nname: base\n\
        logsource: {product: m365}\ndetection: {what: {operation: Share}, condition: what}\n---\n";
    let window = "title: W\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0003\nname: w\nlevel: medium\n\
        correlation: {type: event_count, rules: [base], group-by: [actor], timespan: 1h, condition: {gte: 3}}\n\
        tests:\n  - {name: t, records: [{operation: Share, actor: a, at: 1}, {operation: Share, actor: b, at: 2}], expect: {findings: 1}}\n";
    let file = SourceFile {
        name: "f.yml".to_owned(),
        text: format!("{base}{window}"),
    };
    let rules = RuleSet::from_files(&[file], &[], &[]).unwrap();
    let outcomes = run(&Arc::new(rules), &mut read).unwrap();
    let failure = outcomes[0].failure.as_ref().unwrap().to_string();
    assert_says(
        &failure,
        &[
            "2 of 2 events match",
            "wants 3 events within 60 min for one actor: a 1 events; b 1 events",
        ],
    );
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let text = "detection: {what: {operation: Share}, condition: what}\nrisk: 5\n\
        tests:\n  - {name: t, records: [5], expect: none}\n";
    assert_says(&failure(text), &["record 1 cannot be read"]);
}

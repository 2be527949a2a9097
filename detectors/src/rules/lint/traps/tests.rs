//! Each trap: a rule that falls into it, and the same rule mended.

use super::super::super::load::SourceFile;
use super::super::{Remark, lint};
use super::*;

const HEAD: &str = "title: A rule\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0001\nname: a.b.c\n\
    logsource: {product: m365}\ndescription: d\ntriage: t\n\
    tags: [attack.ta0010, attack.t1567]\nfalsepositives: [f]\n\
    tests:\n  - {name: a, records: [], expect: none}\n  - {name: b, records: [], expect: {findings: 1}}\n";

fn remarks(text: &str) -> Vec<Remark> {
    let file = SourceFile {
        name: "f.yml".to_owned(),
        text: text.to_owned(),
    };
    lint(&[file], &[])
}

fn of_rule(rest: &str) -> Vec<Remark> {
    remarks(&format!("{HEAD}{rest}"))
}

/// The base of a window and a window with this correlation.
fn of_window(correlation: &str) -> Vec<Remark> {
    let base = "title: B\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0002\nname: base\n\
        logsource: {product: m365}\ndetection: {a: {operation: X}, condition: a}\n\
        ---\ntitle: B2\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0003\nname: second\n\
        logsource: {product: m365}\ndetection: {a: {operation: Y}, condition: a}\n";
    let head = HEAD.replace("logsource: {product: m365}\n", "");
    remarks(&format!("{base}---\n{head}correlation: {correlation}\n"))
}

/// One remark, about this key, whose text holds these words.
fn assert_one(remarks: &[Remark], key: &str, words: &[&str]) {
    let [remark] = remarks else {
        panic!("{remarks:#?}")
    };
    let text = format!("{}; {}", remark.problem, remark.help);
    assert_eq!(remark.key, key, "{text}");
    for word in words {
        assert!(text.contains(word), "{text}");
    }
    assert!(!remark.help.is_empty());
}

#[test]
fn a_sound_rule_has_no_remark() {
    for detection in [
        "{a: {operation: X, Parameters.ForwardTo|contains: '@'}, condition: a}",
        "{a: {operation: X, Parameters.Name: rule}, b: {is_removal: true}, condition: a and not b}",
    ] {
        let found = of_rule(&format!("detection: {detection}\n"));
        assert!(found.is_empty(), "{found:#?}");
    }
    let sound = "{type: value_count, rules: [base], group-by: [actor], timespan: 1h, condition: {field: object, gte: 5}}";
    assert!(of_window(sound).is_empty());
}

#[test]
fn a_name_and_a_value_of_pairs_are_not_matched_apart() {
    let found =
        of_rule("detection: {a: {operation: X, Parameters.Value|contains: '@'}, condition: a}\n");
    assert_one(
        &found,
        "detection",
        &["two different parameters", "Parameters.ForwardTo"],
    );
}

#[test]
fn a_list_of_pairs_is_no_text() {
    let found =
        of_rule("detection: {a: {operation: X, Parameters|contains: ForwardTo}, condition: a}\n");
    assert_one(&found, "detection", &["unpacked", "write Parameters."]);
}

#[test]
fn brackets_are_no_quantifier() {
    let found = of_rule("detection: {a: {operation: X, 'Parameters[0].Name': y}, condition: a}\n");
    assert_one(&found, "detection", &["brackets"]);
}

#[test]
fn a_misspelt_field_is_named_with_what_was_meant() {
    let found = of_rule("detection: {a: {operation: X, is_externl: true}, condition: a}\n");
    assert_one(
        &found,
        "detection",
        &["is_externl", "did you mean is_external?"],
    );
    for (key, line) in [
        ("distinct", "distinct: [taget]"),
        ("incident", "incident: [taget]"),
        ("identity.fields", "identity: {fields: [taget]}"),
        ("message", "message: '{taget}'"),
        ("raise", "raise: [{level: high, when: {taget: x}}]"),
        ("alert", "alert: {taget|contains: x}"),
    ] {
        let found = of_rule(&format!(
            "detection: {{a: {{operation: X}}, condition: a}}\n{line}\n"
        ));
        assert_one(&found, key, &["did you mean target?"]);
    }
}

#[test]
fn a_name_of_another_form_of_the_log_is_told_from_ours() {
    for (name, ours) in [
        ("eventName", "operation"),
        ("protoPayload.metadata.event.eventName", "operation"),
        ("properties.message", "operation"),
    ] {
        let found = of_rule(&format!(
            "detection: {{a: {{operation: X, {name}: y}}, condition: a}}\n"
        ));
        assert_one(&found, "detection", &[name, ours]);
    }
}

#[test]
fn a_rule_that_names_no_operation_is_noted() {
    let found = of_rule("detection: {a: {actor: x}, condition: a}\n");
    assert_one(
        &found,
        "detection",
        &["every record", "logsource.service selects nothing"],
    );
    assert_eq!(found[0].weight, Weight::Note);
    let found = of_rule("detection: {a: {Operation: x}, condition: a}\n");
    assert!(
        found.iter().any(|r| r.help == "write operation"),
        "{found:#?}"
    );
}

#[test]
fn a_key_with_several_values_would_lose_whose_it_is() {
    let found = of_window(
        "{type: event_count, rules: [base], group-by: [Target.ID], timespan: 1h, condition: {gte: 5}}",
    );
    assert_one(
        &found,
        "correlation.group-by",
        &["first is the key", "actor"],
    );
}

#[test]
fn counting_a_list_counts_its_first_value() {
    let found = of_window(
        "{type: value_count, rules: [base], group-by: [actor], timespan: 1h, condition: {field: AffectedItems.Id, gte: 5}}",
    );
    assert_one(&found, "correlation.condition", &["the first counts"]);
    assert_eq!(found[0].weight, Weight::Note);
}

#[test]
fn counting_the_key_counts_one() {
    let found = of_window(
        "{type: value_count, rules: [base], group-by: [actor], timespan: 1h, condition: {field: actor, gte: 5}}",
    );
    assert_one(
        &found,
        "correlation.condition",
        &["each window holds one value"],
    );
}

#[test]
fn one_rule_alone_is_no_sequence() {
    let temporal = |condition: &str| {
        of_window(&format!(
            "{{type: temporal, rules: [base, second], group-by: [actor], timespan: 1h{condition}}}"
        ))
    };
    assert_one(
        &temporal(", condition: {gte: 1}"),
        "correlation.condition",
        &["read as all 2", "gte: 2"],
    );
    assert!(temporal("").is_empty());
    assert!(temporal(", condition: {gte: 2}").is_empty());
}

#[test]
fn switches_of_another_engine_are_not_read() {
    let text = "title: S\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0004\nlogsource: {product: m365}\n\
        detection: {a: {operation: X}, condition: a}\nrsigma.suppress: 5m\n";
    assert_one(
        &remarks(text),
        "rsigma.suppress",
        &["not read", "remove it"],
    );
}

#[test]
fn who_is_to_step_back_must_be_there() {
    let found =
        of_rule("detection: {a: {operation: X}, condition: a}\nsupersedes: [nobody.here]\n");
    assert_one(&found, "supersedes", &["nobody.here", "rules list"]);
}

#[test]
fn what_a_skeleton_left_open_is_counted() {
    let found = of_rule("detection: {a: {operation: CHANGE-ME}, condition: a}\n");
    assert_one(&found, "", &["CHANGE-ME", "1 times"]);
}

#[test]
fn what_does_not_load_is_told_of_every_file() {
    let file = |name: &str, text: &str| SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let no_id =
        "title: N\nlogsource: {product: m365}\ndetection: {a: {operation: X}, condition: a}\n";
    let sum =
        "title: S\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0005\ncorrelation: {type: event_count}\n";
    let found = lint(&[file("a.yml", no_id), file("b.yml", sum)], &[]);
    let files: Vec<&str> = found.iter().map(|remark| remark.file.as_str()).collect();
    assert_eq!(files, ["a.yml", "b.yml"], "{found:#?}");
    assert_eq!(found[0].key, "id");
    let whole = of_window(
        "{type: event_count, rules: [base], group-by: [actor], timespan: 1h, window: tumbling, condition: {gte: 5}}",
    );
    assert_one(&whole, "correlation.window", &["tumbling"]);
    let old = of_rule("detection: {a: {operation: X}, condition: a, timeframe: 1h}\n");
    assert_one(&old, "detection.timeframe", &["correlation"]);
}

#[test]
fn what_a_rule_of_ours_lacks_is_a_fault() {
    let text = HEAD.replace("triage: t\n", "risk: 5\n");
    let found = remarks(&format!(
        "{text}detection: {{a: {{operation: X}}, condition: a}}\n"
    ));
    assert_one(&found, "", &["a triage text is missing"]);
}

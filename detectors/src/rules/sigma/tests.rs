//! What becomes of stock rules, by their text alone.

use super::super::load::SourceFile;
use super::*;

fn stock_of(source: &str, detection: &str) -> Stock {
    let text = format!(
        "title: S\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0001\nlogsource: {source}\ndetection: {detection}\n"
    );
    of_files(&[("f.yml", &text)]).remove(0)
}

fn of_files(files: &[(&str, &str)]) -> Vec<Stock> {
    let file = |(name, text): &(&str, &str)| SourceFile {
        name: (*name).to_owned(),
        text: (*text).to_owned(),
    };
    stock(&files.iter().map(file).collect::<Vec<_>>())
}

const ENTRA: &str = "{product: azure, service: auditlogs}";
const CLOUD: &str = "{product: gcp, service: google_workspace.admin}";
const ALERTS: &str = "{product: m365, service: threat_management}";

#[test]
fn a_rule_that_needs_no_other_names_is_loaded_as_it_is() {
    let rule = stock_of(
        "{product: m365}",
        "{a: {operation: X, UserId: y}, condition: a}",
    );
    assert_eq!(rule.state, StockState::Loaded, "{rule:?}");
}

#[test]
fn fields_of_each_form_have_names_here() {
    for (source, detection, from, to) in [
        (
            ENTRA,
            "{a: {OperationName: Add user}, condition: a}",
            "OperationName",
            "operation",
        ),
        (
            ENTRA,
            "{a: {properties.message: Update user, TargetResources.ModifiedProperties.DisplayName: X, TargetResources.ModifiedProperties.NewValue|contains: y}, condition: a}",
            "TargetResources.ModifiedProperties.NewValue",
            "ModifiedProperties.X.NewValue",
        ),
        // A property alone: that it was changed.
        (
            ENTRA,
            "{a: {properties.message: Update user, TargetResources.ModifiedProperties.DisplayName: X}, condition: a}",
            "TargetResources.ModifiedProperties.DisplayName",
            "ModifiedProperties.X.NewValue",
        ),
        (
            ENTRA,
            "{a: {OperationName|startswith: Add member}, condition: a}",
            "OperationName",
            "operation",
        ),
        (
            ENTRA,
            "{a: {OperationName: 'Add member*'}, condition: a}",
            "OperationName",
            "operation",
        ),
        // Only the admin log writes its parameters large.
        (
            "{product: gcp, service: google_workspace.login}",
            "{a: {protoPayload.metadata.event.eventName: login_failure, protoPayload.metadata.event.parameter.login_type: x}, condition: a}",
            "protoPayload.metadata.event.parameter.login_type",
            "parameters.login_type",
        ),
        (
            CLOUD,
            "{a: {eventName: X, setting_name: y}, condition: a}",
            "setting_name",
            "parameters.SETTING_NAME",
        ),
        (
            CLOUD,
            "{a: {eventService: admin.googleapis.com, eventName: X}, condition: a}",
            "eventService",
            "service",
        ),
        (
            ALERTS,
            "{a: {eventName: X}, condition: a}",
            "eventName",
            "alert_name",
        ),
        (
            "{product: m365}",
            "{a: {Operation: X, Parameters|contains: y}, condition: a}",
            "Parameters",
            "Parameters.*",
        ),
    ] {
        let rule = stock_of(source, detection);
        assert_eq!(rule.state, StockState::Mapped, "{rule:?}");
        assert_eq!(
            rule.renamed.get(from).map(String::as_str),
            Some(to),
            "{rule:?}"
        );
    }
}

#[test]
fn what_can_never_match_says_why() {
    for (source, detection, reason) in [
        (
            "{product: azure, service: signinlogs}",
            "{a: {x: y}, condition: a}",
            "signinlogs",
        ),
        ("{product: windows}", "{a: {x: y}, condition: a}", "windows"),
        (
            ENTRA,
            "{a: {properties.message: Disable PIM Alert}, condition: a}",
            "no activity Disable PIM Alert",
        ),
        (
            ENTRA,
            "{a: {OperationName: Update user, LoggedByService: Authentication Methods}, condition: a}",
            "service Authentication Methods",
        ),
        (
            ENTRA,
            "{a: {OperationName: Update user, Status: Odd}, condition: a}",
            "success or failure here, never Odd",
        ),
        (
            ENTRA,
            "{a: {OperationName: Update user, failure_status_reason: x}, condition: a}",
            "has failure_status_reason",
        ),
        (
            ENTRA,
            "{a: {'properties.message|contains|all': [Add user, Add member to role]}, condition: a}",
            "no activity Add user, Add member to role",
        ),
        (
            ENTRA,
            "{a: {OperationName: Update user, TargetResources.ModifiedProperties.DisplayName: [X, Y], TargetResources.ModifiedProperties.NewValue: z}, condition: a}",
            "names several properties",
        ),
        (
            ENTRA,
            "{a: {Category: x}, condition: a}",
            "no operation is named",
        ),
        (
            CLOUD,
            "{a: {eventService: maps.googleapis.com, eventName: X}, condition: a}",
            "no application for maps.googleapis.com",
        ),
        (
            CLOUD,
            "{a: {eventName: X, resource.labels.x: y}, condition: a}",
            "has resource.labels.x",
        ),
        (
            "{product: m365}",
            "{a: {Operation: X, not_a_field: y}, condition: a}",
            "no event has a field not_a_field",
        ),
    ] {
        let rule = stock_of(source, detection);
        assert_eq!(rule.state, StockState::Never, "{rule:?}");
        assert!(rule.reason.contains(reason), "{rule:?}");
    }
}

#[test]
fn an_alert_is_looked_for_in_alerts_also_in_a_list_of_maps_and_the_note_says_how_far() {
    let noted = |detection: &str| {
        let rule = stock_of(ALERTS, detection);
        let of_alerts = rule.notes.iter().filter(|note| note.contains("Alert*"));
        of_alerts.cloned().collect::<Vec<_>>()
    };
    let all = ["looked for in alerts only (operation Alert*)"];
    let some = ["what names an alert is looked for in alerts only (operation Alert*)"];
    for (detection, expected) in [
        ("{a: {eventName: X}, condition: a}", &all),
        (
            "{a: [{eventName: X}, {eventName: Y, status: success}], condition: a}",
            &all,
        ),
        (
            "{a: [{eventName: X}, {status: success}], condition: a}",
            &some,
        ),
        (
            "{a: {eventName: X}, b: {status: success}, condition: a and not b}",
            &some,
        ),
    ] {
        assert_eq!(noted(detection), expected, "{detection}");
    }
    let wide = stock_of(
        ALERTS,
        "{a: [{eventName: X}, {eventName: Y}], condition: a}",
    );
    let apart = wide.notes.iter().any(|note| note.contains("every record"));
    assert!(!apart, "other records need not be taken apart: {wide:?}");
}

#[test]
fn what_is_unknown_in_an_alternative_only_is_a_note() {
    let rule = stock_of(
        ENTRA,
        "{a: {OperationName: Add user}, b: {OperationName: Disable PIM Alert}, condition: a or b}",
    );
    assert_eq!(rule.state, StockState::Mapped, "{rule:?}");
    assert!(
        rule.notes
            .iter()
            .any(|note| note.contains("Disable PIM Alert")),
        "{rule:?}"
    );
}

#[test]
fn a_file_that_cannot_be_read_does_not_hide_the_others() {
    let good = "title: G\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0002\nlogsource: {product: m365}\ndetection: {a: {operation: X}, condition: a}\n";
    let old = "title: O\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0003\nlogsource: {product: m365}\ndetection: {a: {operation: X}, condition: a, timeframe: 1h}\n";
    let rules = of_files(&[("a.yml", "x: ["), ("b.yml", old), ("c.yml", good)]);
    let states: Vec<StockState> = rules.iter().map(|rule| rule.state).collect();
    assert_eq!(
        states,
        [StockState::Refused, StockState::Refused, StockState::Loaded],
        "{rules:?}"
    );
}

#[test]
fn a_correlation_over_what_never_matches_never_matches() {
    let base = |message: &str| {
        format!(
            "title: B\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0004\nname: base\nlogsource: {ENTRA}\ndetection: {{a: {{properties.message: {message}}}, condition: a}}\n---\n\
             title: C\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0005\ncorrelation: {{type: event_count, rules: [base], group-by: [UserId], timespan: 1h, condition: {{gte: 2}}}}\n"
        )
    };
    let correlation = |message: &str| {
        let rules = of_files(&[("f.yml", &base(message))]);
        rules.into_iter().find(|rule| rule.title == "C").unwrap()
    };
    assert_eq!(correlation("Add user").state, StockState::Mapped);
    let never = correlation("Disable PIM Alert");
    assert_eq!(never.state, StockState::Never);
    assert!(never.reason.contains("base"), "{never:?}");
}

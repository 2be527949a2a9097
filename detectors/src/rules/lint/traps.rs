//! The traps, one function each.

use std::collections::{BTreeSet, HashSet};

use rsigma_parser::{ConditionOperator, CorrelationCondition, CorrelationRule, CorrelationType};
use yaml_serde::Value;

use exfilwatch_model::{Product, field};

use super::super::interest;
use super::super::rule_file::{Document, Sigma, product, split};
use super::super::schema::{IdentityKey, OwnKeys};
use super::super::template::Template;
use super::{PLACEHOLDER, Take, Weight, fields, looks_at_events};

/// Looks for all of them in a document. `text` is the whole file's.
pub(super) fn look(text: &str, document: &Document, known: &HashSet<&str>, take: &mut Take<'_>) {
    let text = split(text).nth(document.number - 1).unwrap_or_default();
    placeholders(text, take);
    foreign_attributes(document, take);
    superseded(document, known, take);
    match &document.sigma {
        Sigma::Rule(rule) => {
            // What stock rules name, the mapping looks after.
            if document.is_own {
                let product = product(&rule.logsource).ok();
                let mut named = BTreeSet::new();
                for detection in rule.detection.named.values() {
                    interest::fields_of_all(detection, &mut named);
                }
                unknown_fields("detection", named, product, take);
                own_fields(&document.own, product, take);
            }
            if looks_at_events(document) && interest::operations(rule).is_empty() {
                let problem = "it names no operation that must hold: every record of the product, of \
                               whatever service, is looked through for it";
                let help = "write operation: into a selection that the condition does not negate; \
                            logsource.service selects nothing";
                take(
                    Weight::Note,
                    "detection",
                    problem.to_owned(),
                    help.to_owned(),
                );
            }
        }
        Sigma::Correlation(correlation) => {
            if document.is_own {
                own_fields(&document.own, None, take);
                let keys = correlation.group_by.iter();
                let is_alias = |key: &&String| correlation.aliases.iter().any(|a| a.alias == **key);
                let keys: BTreeSet<String> = keys.filter(|key| !is_alias(key)).cloned().collect();
                unknown_fields("correlation.group-by", keys, None, take);
            }
            keys(correlation, take);
            counted(correlation, take);
            temporal(text, correlation, take);
        }
    }
}

fn placeholders(text: &str, take: &mut Take<'_>) {
    let count = text.matches(PLACEHOLDER).count();
    if count > 0 {
        let problem = format!("{PLACEHOLDER} stands in it {count} times");
        take(
            Weight::Fault,
            "",
            problem,
            "replace them with what the rule is about".to_owned(),
        );
    }
}

/// `rsigma.suppress` and its like are of that engine's windows, which are not run here.
fn foreign_attributes(document: &Document, take: &mut Take<'_>) {
    for key in &document.foreign {
        if key.starts_with("rsigma.") {
            let problem = format!("{key} is not read: windows here have no such switch");
            let help =
                "remove it: a window has one finding for each key and period, and says no more";
            take(Weight::Fault, key, problem, help.to_owned());
        }
    }
}

fn superseded(document: &Document, known: &HashSet<&str>, take: &mut Take<'_>) {
    for name in &document.own.supersedes {
        if !known.contains(name.as_str()) {
            let problem = format!("there is no detection {name:?} that could step back");
            take(
                Weight::Fault,
                "supersedes",
                problem,
                "rules list names them all".to_owned(),
            );
        }
    }
}

fn unknown_fields(
    key: &str,
    named: BTreeSet<String>,
    product: Option<Product>,
    take: &mut Take<'_>,
) {
    for name in named {
        if let Some((weight, problem, help)) = fields::problem(&name, product) {
            take(weight, key, problem, help);
        }
    }
}

/// Fields that our own keys name.
fn own_fields(own: &OwnKeys, product: Option<Product>, take: &mut Take<'_>) {
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    unknown_fields("distinct", set(&own.distinct), product, take);
    unknown_fields("incident", set(&own.incident), product, take);
    if let Some(first) = &own.first_seen {
        unknown_fields("first_seen", set(&first.fields), product, take);
    }
    if let Some(IdentityKey::Map(map)) = &own.identity {
        unknown_fields("identity.fields", set(&map.fields), product, take);
    }
    if let Some(message) = own.message.as_deref().and_then(|m| Template::new(m).ok()) {
        let named = message.fields().map(str::to_owned).collect();
        unknown_fields("message", named, product, take);
    }
    for (key, shifts) in [("raise", &own.raise), ("lower", &own.lower)] {
        let named = shifts.iter().flat_map(|shift| of_selection(&shift.when));
        unknown_fields(key, named.collect(), product, take);
    }
    let alert = own.alert.iter().flat_map(of_selection).collect();
    unknown_fields("alert", alert, product, take);
}

/// Names of the fields of a selection that is still YAML.
fn of_selection(selection: &Value) -> Vec<String> {
    let maps: Vec<&Value> = match selection {
        Value::Sequence(list) => list.iter().collect(),
        other => vec![other],
    };
    let keys = maps.into_iter().filter_map(Value::as_mapping);
    let keys = keys.flat_map(|map| map.keys().filter_map(Value::as_str));
    keys.filter_map(|key| key.split('|').next())
        .map(str::to_owned)
        .collect()
}

/// A key of which an event has several values: only the first would count.
fn keys(correlation: &CorrelationRule, take: &mut Take<'_>) {
    for key in correlation
        .group_by
        .iter()
        .filter(|key| fields::may_be_list(key))
    {
        let problem = format!(
            "{key} may have several values in one event, of which the first is the key, and an event \
             without it enters no window"
        );
        let help = format!("group by a field with one value, such as {}", field::ACTOR);
        take(Weight::Fault, "correlation.group-by", problem, help);
    }
}

fn counted(correlation: &CorrelationRule, take: &mut Take<'_>) {
    let CorrelationCondition::Threshold {
        field: Some(counted),
        ..
    } = &correlation.condition
    else {
        return;
    };
    let key = "correlation.condition";
    for name in counted {
        if fields::may_be_list(name) {
            let problem = format!("of several values of {name} in one event the first counts");
            let help = "count a field that each event has once, or mean it";
            take(Weight::Note, key, problem, help.to_owned());
        }
    }
    if counted
        .iter()
        .all(|name| correlation.group_by.contains(name))
    {
        let problem = "what is counted is in group-by: each window holds one value".to_owned();
        take(
            Weight::Fault,
            key,
            problem,
            "count another field".to_owned(),
        );
    }
}

/// `gte: 1` of a temporal rule would be met by any event of one rule.
fn temporal(text: &str, correlation: &CorrelationRule, take: &mut Take<'_>) {
    let kind = correlation.correlation_type;
    if !matches!(
        kind,
        CorrelationType::Temporal | CorrelationType::TemporalOrdered
    ) {
        return;
    }
    let is_written = yaml_serde::from_str::<Value>(text).is_ok_and(|yaml| {
        yaml.get("correlation")
            .is_some_and(|c| c.get("condition").is_some())
    });
    let asks_for_one = matches!(
        &correlation.condition,
        CorrelationCondition::Threshold { predicates, .. }
            if matches!(predicates.as_slice(), [(ConditionOperator::Gte, 0 | 1)])
    );
    if is_written && asks_for_one {
        let all = correlation.rules.len();
        let problem = format!("gte: 1 is read as all {all} of the rules: one alone is no sequence");
        let help = format!("write gte: {all}, or leave the condition away");
        take(Weight::Fault, "correlation.condition", problem, help);
    }
}

#[cfg(test)]
mod tests;

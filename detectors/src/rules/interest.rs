//! Which operations a Sigma rule can match at all, read from its detection.
//!
//! `None` stands for all. What is read may be wider than the rule, never narrower: a rule that is
//! not asked misses events.

use std::collections::BTreeSet;

use rsigma_parser::{
    ConditionExpr, Detection, DetectionItem, Detections, Modifier, Quantifier, SigmaRule,
    SigmaString, SigmaValue,
};
use rsigma_parser::{SpecialChar, StringPart};

use exfilwatch_model::Pattern;
use exfilwatch_model::field;

/// Most operations a rule may name; more count as all.
const OPERATIONS_MAX: usize = 500;

/// Operations the rule wants, each a name or pattern; empty for all.
pub(crate) fn operations(rule: &SigmaRule) -> Vec<String> {
    let wanted = union(
        rule.detection
            .conditions
            .iter()
            .map(|condition| of_condition(condition, &rule.detection)),
    );
    match wanted {
        Some(operations)
            if operations.len() <= OPERATIONS_MAX
                && !operations.iter().any(|o| Pattern::new(o).is_all()) =>
        {
            operations
        }
        _ => Vec::new(),
    }
}

/// Fields named by selections that the condition does not negate, sorted.
pub(crate) fn positive_fields(rule: &SigmaRule) -> Vec<String> {
    let mut fields = Vec::new();
    for condition in &rule.detection.conditions {
        visit_positive(condition, &rule.detection, &mut fields);
    }
    fields.sort();
    fields.dedup();
    fields
}

/// A selection that a condition names and that is not there, if any: it would never match.
pub(crate) fn missing_selection(rule: &SigmaRule) -> Option<String> {
    let conditions = rule.detection.conditions.iter();
    conditions
        .map(|condition| missing(condition, &rule.detection))
        .find_map(|missing| missing)
}

fn missing(condition: &ConditionExpr, all: &Detections) -> Option<String> {
    match condition {
        ConditionExpr::And(parts) | ConditionExpr::Or(parts) => {
            parts.iter().find_map(|part| missing(part, all))
        }
        ConditionExpr::Not(part) => missing(part, all),
        ConditionExpr::Identifier(name) => (!all.named.contains_key(name)).then(|| name.clone()),
        ConditionExpr::Selector { pattern, .. } => {
            let mut names = all.named.keys();
            let is_there = names.any(|name| pattern.matches_detection_name(name));
            (!is_there).then(|| pattern.to_string())
        }
    }
}

fn visit_positive(condition: &ConditionExpr, all: &Detections, fields: &mut Vec<String>) {
    match condition {
        ConditionExpr::And(parts) | ConditionExpr::Or(parts) => {
            for part in parts {
                visit_positive(part, all, fields);
            }
        }
        ConditionExpr::Not(_) => {}
        ConditionExpr::Identifier(name) => {
            if let Some(detection) = all.named.get(name) {
                fields_of(detection, fields);
            }
        }
        ConditionExpr::Selector { pattern, .. } => {
            for (name, detection) in &all.named {
                if pattern.matches_detection_name(name) {
                    fields_of(detection, fields);
                }
            }
        }
    }
}

fn fields_of(detection: &Detection, fields: &mut Vec<String>) {
    match detection {
        Detection::AllOf(items) => {
            fields.extend(items.iter().filter_map(|item| item.field.name.clone()));
        }
        Detection::AnyOf(parts) | Detection::And(parts) => {
            for part in parts {
                fields_of(part, fields);
            }
        }
        Detection::Keywords(_) | Detection::Conditional { .. } => {}
        Detection::ArrayMatch { field, .. } => fields.push(field.clone()),
    }
}

/// Fields that a selection names, in whatever part of it.
pub(crate) fn fields_of_all(detection: &Detection, fields: &mut BTreeSet<String>) {
    let mut named = Vec::new();
    fields_of(detection, &mut named);
    fields.extend(named);
}

/// Adds the fields that an event is asked for by a selection; `None` where that are all.
pub(crate) fn add_fields_asked(detection: &Detection, fields: &mut BTreeSet<String>) -> Option<()> {
    match detection {
        Detection::AllOf(items) => items.iter().try_for_each(|item| {
            fields.insert(item.field.name.clone()?);
            if item.field.modifiers.contains(&Modifier::Expand) {
                // Placeholders stand for other fields of the event.
                return None;
            }
            if item.field.modifiers.contains(&Modifier::FieldRef) {
                fields.extend(item.values.iter().filter_map(|value| match value {
                    SigmaValue::String(name) => name.as_plain(),
                    _ => None,
                }));
            }
            Some(())
        }),
        Detection::AnyOf(parts) | Detection::And(parts) => parts
            .iter()
            .try_for_each(|part| add_fields_asked(part, fields)),
        Detection::Keywords(_) | Detection::Conditional { .. } | Detection::ArrayMatch { .. } => {
            None
        }
    }
}

fn union(parts: impl Iterator<Item = Option<Vec<String>>>) -> Option<Vec<String>> {
    let mut all: Vec<String> = parts.collect::<Option<Vec<_>>>()?.concat();
    all.sort();
    all.dedup();
    Some(all)
}

/// Of parts that must all hold, the one that names the fewest operations.
fn narrowest(parts: impl Iterator<Item = Option<Vec<String>>>) -> Option<Vec<String>> {
    parts.flatten().min_by_key(Vec::len)
}

fn of_condition(condition: &ConditionExpr, all: &Detections) -> Option<Vec<String>> {
    match condition {
        ConditionExpr::And(parts) => narrowest(parts.iter().map(|p| of_condition(p, all))),
        ConditionExpr::Or(parts) => union(parts.iter().map(|p| of_condition(p, all))),
        ConditionExpr::Not(_) => None,
        ConditionExpr::Identifier(name) => all.named.get(name).and_then(of_detection),
        ConditionExpr::Selector {
            quantifier,
            pattern,
        } => {
            let named = all
                .named
                .iter()
                .filter(|(name, _)| pattern.matches_detection_name(name))
                .map(|(_, detection)| of_detection(detection));
            match quantifier {
                Quantifier::All => narrowest(named),
                Quantifier::Count(0) => None,
                Quantifier::Any | Quantifier::Count(_) => union(named),
            }
        }
    }
}

fn of_detection(detection: &Detection) -> Option<Vec<String>> {
    match detection {
        Detection::AllOf(items) => narrowest(items.iter().map(of_item)),
        Detection::And(parts) => narrowest(parts.iter().map(of_detection)),
        Detection::AnyOf(parts) => union(parts.iter().map(of_detection)),
        Detection::Keywords(_) | Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {
            None
        }
    }
}

/// The operations that meet an item, each a name or pattern; `None` for all.
pub(crate) fn of_item(item: &DetectionItem) -> Option<Vec<String>> {
    if item.field.name.as_deref() != Some(field::OPERATION) {
        return None;
    }
    let (mut open_left, mut open_right) = (false, false);
    for modifier in &item.field.modifiers {
        match modifier {
            Modifier::Contains => (open_left, open_right) = (true, true),
            Modifier::StartsWith => open_right = true,
            Modifier::EndsWith => open_left = true,
            Modifier::All | Modifier::Cased => {}
            _ => return None,
        }
    }
    let star = |open: bool| if open { "*" } else { "" };
    let pattern = |value: &SigmaValue| match value {
        SigmaValue::String(text) => Some(format!(
            "{}{}{}",
            star(open_left),
            widened(text),
            star(open_right)
        )),
        SigmaValue::Integer(number) => Some(number.to_string()),
        SigmaValue::Float(_) | SigmaValue::Bool(_) | SigmaValue::Null => None,
    };
    item.values.iter().map(pattern).collect()
}

/// A Sigma string with `?` and literal stars widened to `*`.
fn widened(text: &SigmaString) -> String {
    let part = |part: &StringPart| match part {
        StringPart::Plain(text) => text.clone(),
        StringPart::Special(SpecialChar::WildcardMulti | SpecialChar::WildcardSingle) => {
            "*".to_owned()
        }
    };
    text.parts.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations_of(detection: &str) -> Vec<String> {
        let text = format!("title: t\nlogsource: {{product: m365}}\ndetection:\n{detection}\n");
        let parsed = rsigma_parser::parse_sigma_yaml(&text).unwrap();
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        operations(&parsed.rules[0])
    }

    #[test]
    fn a_field_that_another_is_compared_with_is_asked_for() {
        let text = "title: t\nlogsource: {product: m365}\ndetection:\n  own: {UserId|fieldref: MailboxOwnerUPN}\n  condition: not own\n";
        let parsed = rsigma_parser::parse_sigma_yaml(text).unwrap();
        let mut fields = BTreeSet::new();
        add_fields_asked(&parsed.rules[0].detection.named["own"], &mut fields).unwrap();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        assert_eq!(fields, ["MailboxOwnerUPN", "UserId"]);
    }

    #[test]
    fn the_operations_of_a_rule_are_read_from_what_must_hold() {
        for (detection, expected) in [
            ("  a: {operation: [x, y]}\n  condition: a", vec!["x", "y"]),
            (
                "  a: {operation|contains: Export}\n  condition: a",
                vec!["*Export*"],
            ),
            (
                "  a: {operation|startswith: New-}\n  condition: a",
                vec!["New-*"],
            ),
            ("  a: {operation: 'S?t*'}\n  condition: a", vec!["S*t*"]),
            (
                "  a: {operation: x}\n  b: {actor: y}\n  condition: a and not b",
                vec!["x"],
            ),
            (
                "  a: {operation: x}\n  b: {operation: y}\n  condition: 1 of them",
                vec!["x", "y"],
            ),
            (
                "  a: {operation: x}\n  b: {actor: y}\n  condition: a or b",
                vec![],
            ),
            ("  a: {operation: x}\n  condition: not a", vec![]),
            ("  a: {operation|re: 'x.*'}\n  condition: a", vec![]),
            ("  a: {operation: '*'}\n  condition: a", vec![]),
            (
                "  a: [{operation: x}, {operation: y}]\n  condition: a",
                vec!["x", "y"],
            ),
            ("  a: [word]\n  condition: a", vec![]),
        ] {
            assert_eq!(operations_of(detection), expected, "{detection}");
        }
    }
}

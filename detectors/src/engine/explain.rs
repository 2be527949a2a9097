//! Why a rule matches an event, or does not: field by field, for whoever writes it.
//!
//! Slow, and so only asked when a case fails: each item is compiled and tried on its own.

use exfilwatch_model::Event;
use rsigma_parser::{ConditionExpr, Detection, DetectionItem, Detections, SigmaRule};

use super::sigma::Matcher;

/// A selection against an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tried {
    /// Its name.
    pub(crate) selection: String,
    /// Whether the condition negates it.
    pub(crate) is_negated: bool,
    /// Whether it holds.
    pub(crate) holds: bool,
    /// Its fields; of a list of maps those of the one that comes nearest.
    pub(crate) fields: Vec<TriedField>,
}

/// A field of a selection against an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TriedField {
    /// Name with modifiers, as the rule writes it.
    pub(crate) field: String,
    /// What the rule wants.
    pub(crate) wanted: String,
    /// What the event has.
    pub(crate) has: String,
    /// Whether that will do.
    pub(crate) holds: bool,
}

impl Tried {
    /// Whether it stands in the way of a match.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.holds == self.is_negated
    }
}

/// Longest value shown, in characters.
const SHOWN_MAX: usize = 60;

/// All selections that the condition names, by name.
pub(crate) fn explain(detections: &Detections, event: &Event) -> Vec<Tried> {
    let mut named = Vec::new();
    for condition in &detections.conditions {
        collect(condition, detections, false, &mut named);
    }
    named.sort();
    named.dedup();
    let tried = named.into_iter().filter_map(|(name, is_negated)| {
        let detection = detections.named.get(&name)?;
        Some(Tried {
            holds: holds(detection, event),
            fields: fields(detection, event),
            selection: name,
            is_negated,
        })
    });
    tried.collect()
}

fn collect(
    condition: &ConditionExpr,
    all: &Detections,
    is_negated: bool,
    named: &mut Vec<(String, bool)>,
) {
    match condition {
        ConditionExpr::And(parts) | ConditionExpr::Or(parts) => {
            for part in parts {
                collect(part, all, is_negated, named);
            }
        }
        ConditionExpr::Not(part) => collect(part, all, !is_negated, named),
        ConditionExpr::Identifier(name) => named.push((name.clone(), is_negated)),
        ConditionExpr::Selector { pattern, .. } => {
            let names = all.named.keys();
            let matching = names.filter(|name| pattern.matches_detection_name(name));
            named.extend(matching.map(|name| (name.clone(), is_negated)));
        }
    }
}

/// The fields of a selection. Of alternatives the one with the fewest fields that do not hold.
fn fields(detection: &Detection, event: &Event) -> Vec<TriedField> {
    match detection {
        Detection::AllOf(items) => items.iter().map(|item| tried(item, event)).collect(),
        Detection::And(parts) => parts.iter().flat_map(|part| fields(part, event)).collect(),
        Detection::AnyOf(parts) => {
            let tried = parts.iter().map(|part| fields(part, event));
            let failing =
                |fields: &Vec<TriedField>| fields.iter().filter(|field| !field.holds).count();
            tried.min_by_key(failing).unwrap_or_default()
        }
        Detection::Keywords(words) => vec![TriedField {
            field: "any field".to_owned(),
            wanted: list(words),
            has: "none of these".to_owned(),
            holds: holds(detection, event),
        }],
        Detection::ArrayMatch { field, .. } => vec![TriedField {
            field: field.clone(),
            wanted: "an element that meets the block".to_owned(),
            has: value(event, field),
            holds: holds(detection, event),
        }],
        Detection::Conditional { .. } => Vec::new(),
    }
}

fn tried(item: &DetectionItem, event: &Event) -> TriedField {
    let name = item.field.name.clone().unwrap_or_default();
    let modifiers = item.field.modifiers.iter();
    let modifiers = modifiers.map(|modifier| format!("{modifier:?}").to_lowercase());
    let field: Vec<String> = std::iter::once(name.clone()).chain(modifiers).collect();
    TriedField {
        wanted: list(&item.values),
        has: value(event, &name),
        holds: holds(&Detection::AllOf(vec![item.clone()]), event),
        field: field.join("|"),
    }
}

fn value(event: &Event, name: &str) -> String {
    match event.get(name) {
        None => "nothing".to_owned(),
        Some(exfilwatch_model::Value::List(values)) => {
            let texts: Vec<_> = values.iter().map(|value| value.text()).collect();
            cut(&format!("[{}]", texts.join(", ")))
        }
        Some(value) => cut(&value.text()),
    }
}

fn list(values: &[rsigma_parser::SigmaValue]) -> String {
    use rsigma_parser::SigmaValue;
    let text = |value: &SigmaValue| match value {
        SigmaValue::String(text) => text.to_string(),
        SigmaValue::Integer(number) => number.to_string(),
        SigmaValue::Float(number) => number.to_string(),
        SigmaValue::Bool(truth) => truth.to_string(),
        SigmaValue::Null => "null".to_owned(),
    };
    let texts: Vec<String> = values.iter().map(text).collect();
    match texts.as_slice() {
        [one] => cut(one),
        many => cut(&format!("one of [{}]", many.join(", "))),
    }
}

fn cut(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    format!("{cut}…")
}

/// Whether one detection on its own matches.
fn holds(detection: &Detection, event: &Event) -> bool {
    let name = "selection".to_owned();
    let Some(mut rule) = bare_rule() else {
        return false;
    };
    rule.detection = Detections {
        named: std::iter::once((name.clone(), detection.clone())).collect(),
        conditions: vec![ConditionExpr::Identifier(name.clone())],
        condition_strings: vec![name],
        timeframe: None,
    };
    Matcher::new(&rule).is_ok_and(|matcher| matcher.matches(event))
}

fn bare_rule() -> Option<SigmaRule> {
    let text = "title: t\nlogsource: {product: any}\ndetection: {a: {b: c}, condition: a}\n";
    let parsed = rsigma_parser::parse_sigma_yaml(text).ok()?;
    parsed.rules.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use exfilwatch_model::Product;

    fn explained(detection: &str) -> Vec<Tried> {
        let at = DateTime::UNIX_EPOCH;
        let mut event = Event::new(Product::M365, "id".into(), 0, at, bytes::Bytes::new());
        event.set("operation", "Set-Mailbox");
        event.set("is_external", true);
        event.add("target", "a");
        event.add("target", "b");
        let text = format!("title: t\nlogsource: {{product: m365}}\ndetection:\n{detection}\n");
        let parsed = rsigma_parser::parse_sigma_yaml(&text).unwrap();
        explain(&parsed.rules[0].detection, &event)
    }

    #[test]
    fn each_field_says_what_was_wanted_and_what_is_there() {
        let tried = explained(
            "  a: {operation|contains: Inbox, is_external: true, actor: [x, y]}\n  b: {target: b}\n  condition: a and not b",
        );
        assert_eq!(tried.len(), 2);
        assert!(!tried[0].holds && tried[0].is_in_the_way());
        let failing: Vec<_> = tried[0]
            .fields
            .iter()
            .filter(|field| !field.holds)
            .collect();
        assert_eq!(failing.len(), 2);
        let of = |name: &str| tried[0].fields.iter().find(|f| f.field == name).unwrap();
        assert_eq!(of("operation|contains").has, "Set-Mailbox");
        assert_eq!(of("actor").wanted, "one of [x, y]");
        assert_eq!(of("actor").has, "nothing");
        assert!(of("is_external").holds);
        assert!(tried[1].is_negated && tried[1].holds && tried[1].is_in_the_way());
        assert_eq!(tried[1].fields[0].has, "[a, b]");
    }

    #[test]
    fn of_alternatives_the_nearest_is_shown() {
        let tried = explained(
            "  a:\n    - {operation: X, actor: y}\n    - {operation: Set-Mailbox, actor: y}\n  condition: a",
        );
        assert!(tried[0].fields[0].holds && !tried[0].fields[1].holds);
    }
}

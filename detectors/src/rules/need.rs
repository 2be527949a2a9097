//! What an event must have for a rule to match it at all, read from the rule's detection.
//!
//! A selection that names a field and a value cannot match an event without the field. Where a
//! record tells by a cheap look that its events will not have it, none need be made. What is read
//! may ask for less than the rule does, never for more: a rule that is not asked misses events.

use exfilwatch_model::field;
use rsigma_parser::{
    ConditionExpr, Detection, DetectionItem, Detections, Modifier, Quantifier, SigmaRule,
    SigmaValue,
};

/// Fields that all events have: naming them asks for nothing.
const ALWAYS: [&str; 2] = [field::OPERATION, field::PRODUCT];

/// Fields an event must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Nothing is known to be needed.
    Nothing,
    /// This field.
    Field(String),
    /// All of these.
    All(Vec<Need>),
    /// One of these.
    Any(Vec<Need>),
}

impl Need {
    /// What a rule needs.
    pub(crate) fn of(rule: &SigmaRule) -> Self {
        let conditions = rule.detection.conditions.iter();
        Self::any(conditions.map(|condition| of_condition(condition, &rule.detection)))
    }

    /// Whether an event may meet it that has at most the fields for which `may_have` is true.
    pub fn may_be_met(&self, may_have: &mut dyn FnMut(&str) -> bool) -> bool {
        match self {
            Self::Nothing => true,
            Self::Field(name) => may_have(name),
            Self::All(needs) => needs.iter().all(|need| need.may_be_met(may_have)),
            Self::Any(needs) => needs.iter().any(|need| need.may_be_met(may_have)),
        }
    }

    fn all(needs: impl Iterator<Item = Self>) -> Self {
        let mut some: Vec<Self> = Vec::new();
        for need in needs {
            if need != Self::Nothing && !some.contains(&need) {
                some.push(need);
            }
        }
        match some.len() {
            0 => Self::Nothing,
            1 => some.remove(0),
            _ => Self::All(some),
        }
    }

    /// One of these; nothing where there are none, or one of them is nothing.
    pub(crate) fn any(needs: impl IntoIterator<Item = Self>) -> Self {
        let mut some: Vec<Self> = Vec::new();
        for need in needs {
            let parts = match need {
                Self::Nothing => return Self::Nothing,
                Self::Any(parts) => parts,
                other => vec![other],
            };
            for part in parts {
                if !some.contains(&part) {
                    some.push(part);
                }
            }
        }
        match some.len() {
            0 => Self::Nothing,
            1 => some.remove(0),
            _ => Self::Any(some),
        }
    }
}

fn of_condition(condition: &ConditionExpr, all: &Detections) -> Need {
    let selection = |name: &String| all.named.get(name).map_or(Need::Nothing, of_detection);
    match condition {
        ConditionExpr::And(parts) => Need::all(parts.iter().map(|p| of_condition(p, all))),
        ConditionExpr::Or(parts) => Need::any(parts.iter().map(|p| of_condition(p, all))),
        ConditionExpr::Not(_) => Need::Nothing,
        ConditionExpr::Identifier(name) => selection(name),
        ConditionExpr::Selector {
            quantifier,
            pattern,
        } => {
            let names = all.named.keys();
            let needs = names
                .filter(|name| pattern.matches_detection_name(name))
                .map(selection);
            match quantifier {
                Quantifier::All => Need::all(needs),
                Quantifier::Count(0) => Need::Nothing,
                Quantifier::Any | Quantifier::Count(_) => Need::any(needs),
            }
        }
    }
}

fn of_detection(detection: &Detection) -> Need {
    match detection {
        Detection::AllOf(items) => Need::all(items.iter().map(of_item)),
        Detection::And(parts) => Need::all(parts.iter().map(of_detection)),
        Detection::AnyOf(parts) => Need::any(parts.iter().map(of_detection)),
        Detection::Keywords(_) | Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {
            Need::Nothing
        }
    }
}

/// An item is met by an absent field only where it asks for that: by null, or by a modifier.
fn of_item(item: &DetectionItem) -> Need {
    let asks_for_a_value = item.field.modifiers.iter().all(|modifier| {
        matches!(
            modifier,
            Modifier::Contains
                | Modifier::StartsWith
                | Modifier::EndsWith
                | Modifier::All
                | Modifier::Cased
        )
    }) && !item.values.is_empty()
        && !item.values.iter().any(|v| matches!(v, SigmaValue::Null));
    match &item.field.name {
        // `Parameters.*` stands for any of them, `raw` for the record.
        Some(name) if name.ends_with(".*") || name == "raw" => Need::Nothing,
        Some(name) if asks_for_a_value && !ALWAYS.contains(&name.as_str()) => {
            Need::Field(name.clone())
        }
        _ => Need::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a rule with this detection may match an event that has these fields.
    fn may_match(detection: &str, fields: &[&str]) -> bool {
        let text = format!("title: t\nlogsource: {{product: m365}}\ndetection:\n{detection}\n");
        let parsed = rsigma_parser::parse_sigma_yaml(&text).unwrap();
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        Need::of(&parsed.rules[0]).may_be_met(&mut |name| fields.contains(&name))
    }

    #[test]
    fn an_event_without_a_field_that_must_hold_a_value_cannot_match() {
        for (detection, without, with) in [
            (
                "  a: {operation: x, f: y}\n  condition: a",
                vec![],
                vec!["f"],
            ),
            (
                "  a: {f: y, g: z}\n  condition: a",
                vec!["f"],
                vec!["f", "g"],
            ),
            (
                "  a: {f|contains: y}\n  b: {g: z}\n  condition: a and not b",
                vec!["g"],
                vec!["f"],
            ),
            (
                "  a: {f: y}\n  b: {g: z}\n  condition: a or b",
                vec!["h"],
                vec!["g"],
            ),
            (
                "  a: {f: y}\n  b: {g: z}\n  condition: 1 of them",
                vec!["h"],
                vec!["g"],
            ),
            (
                "  a: {f: y}\n  b: {g: z}\n  condition: all of them",
                vec!["g"],
                vec!["f", "g"],
            ),
            ("  a: [{f: y}, {g: z}]\n  condition: a", vec![], vec!["f"]),
            ("  a: {f: '*'}\n  condition: a", vec![], vec!["f"]),
        ] {
            assert!(!may_match(detection, &without), "{detection}");
            assert!(may_match(detection, &with), "{detection}");
        }
    }

    #[test]
    fn where_an_absent_field_may_match_nothing_is_needed() {
        for detection in [
            "  a: {operation: x}\n  condition: a",
            "  a: {f: y}\n  condition: not a",
            "  a: {f: null}\n  condition: a",
            "  a: {f: [y, null]}\n  condition: a",
            "  a: {f|exists: false}\n  condition: a",
            "  a: {f|re: '.*'}\n  condition: a",
            "  a: {f: y}\n  b: {operation: x}\n  condition: a or b",
            "  a: [word]\n  condition: a",
        ] {
            assert!(may_match(detection, &[]), "{detection}");
        }
    }

    #[test]
    fn needs_of_several_rules_are_told_once() {
        let field = |name: &str| Need::Field(name.to_owned());
        let joined = Need::any([field("f"), field("g"), field("f")]);
        assert_eq!(joined, Need::Any(vec![field("f"), field("g")]));
        assert_eq!(Need::any([joined.clone(), field("g")]), joined);
        assert_eq!(Need::any([joined, Need::Nothing]), Need::Nothing);
    }
}

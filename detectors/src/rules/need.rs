//! What an event must have for a rule to match it at all, read from the rule's detection.
//!
//! A selection that names a field and a value cannot match an event without the field. Where a
//! record tells by a cheap look that its events will not have it, none need be made. What is read
//! may ask for less than the rule does, never for more: a rule that is not asked misses events.

use exfilwatch_model::pattern::Pattern;
use exfilwatch_model::{Claim, Look, field};
use rsigma_parser::{
    ConditionExpr, Detection, DetectionItem, Detections, Modifier, Quantifier, SigmaRule,
    SigmaString, SigmaValue, StringPart,
};

use super::interest;

/// Shortest word worth looking for.
const WORD_BYTES_MIN: usize = 3;

/// Fields that all events have: naming them asks for nothing.
const ALWAYS: [&str; 2] = [field::OPERATION, field::PRODUCT];

/// Fields an event must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Nothing is known to be needed.
    Nothing,
    /// One of these operations, each a name or a pattern.
    Operation(Vec<String>),
    /// This field, and in its value one of these words, where any are named.
    Field(String, Vec<String>),
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

    /// Fields that an event must have for a key or a count to be made of it.
    pub(crate) fn fields<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let asked = names.into_iter().filter(|name| !is_always(name));
        Self::all(asked.map(|name| Self::Field(name.clone(), Vec::new())))
    }

    /// What is still needed of an event whose operation, in lower case, is known; `None` where it cannot
    /// match.
    pub(crate) fn given(&self, operation: &str) -> Option<Self> {
        match self {
            Self::Operation(known) => known
                .iter()
                .any(|name| Pattern::new(name).matches(operation))
                .then_some(Self::Nothing),
            Self::All(needs) => {
                let needs: Option<Vec<Self>> = needs.iter().map(|n| n.given(operation)).collect();
                Some(Self::all(needs?.into_iter()))
            }
            Self::Any(needs) => {
                let needs: Vec<Self> = needs.iter().filter_map(|n| n.given(operation)).collect();
                (!needs.is_empty()).then(|| Self::any(needs))
            }
            Self::Nothing | Self::Field(..) => Some(self.clone()),
        }
    }

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::all([self, other].into_iter())
    }

    /// Whether an event may meet it that meets at most the claims for which `may_meet` is true.
    pub fn may_be_met(&self, may_meet: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
        match self {
            // Which operation it is, is looked at where it is known: `given`.
            Self::Nothing | Self::Operation(_) => true,
            Self::Field(name, words) if words.is_empty() => may_meet(Claim::Has(name)),
            Self::Field(name, words) => may_meet(Claim::Holds(name, words)),
            Self::All(needs) => needs.iter().all(|need| need.may_be_met(may_meet)),
            Self::Any(needs) => needs.iter().any(|need| need.may_be_met(may_meet)),
        }
    }

    /// What it asks of a record's text, by what each claim asks of it.
    pub(crate) fn look(&self, of: &dyn Fn(Claim<'_>) -> Look) -> Look {
        match self {
            Self::Nothing | Self::Operation(_) => Look::Open,
            Self::Field(name, words) if words.is_empty() => of(Claim::Has(name)),
            Self::Field(name, words) => of(Claim::Holds(name, words)),
            Self::All(needs) => Look::all(needs.iter().map(|need| need.look(of))),
            Self::Any(needs) => Look::any(needs.iter().map(|need| need.look(of))),
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
    if let Some(operations) = interest::of_item(item) {
        return Need::Operation(operations);
    }
    let name = item.field.name.as_ref();
    let Some(name) = name.filter(|name| !ALWAYS.contains(&name.as_str())) else {
        return Need::Nothing;
    };
    let modifiers = item.field.modifiers.as_slice();
    let is_there = matches!(modifiers, [Modifier::Exists])
        && matches!(item.values.as_slice(), [SigmaValue::Bool(true)]);
    if is_there || modifiers.contains(&Modifier::Re) && asks_for_text(item) {
        return Need::Field(name.clone(), Vec::new());
    }
    if !asks_for_text(item) {
        return Need::Nothing;
    }
    // A record's type is looked for as the number it is, not as a part of one.
    let word = match name.as_str() {
        field::RECORD_TYPE if modifiers.is_empty() => number,
        field::RECORD_TYPE => |_: &SigmaValue| None,
        name if name.ends_with(".*") => word_of_pair,
        _ => word,
    };
    let needed = |words: Option<Vec<String>>| Need::Field(name.clone(), words.unwrap_or_default());
    if modifiers.contains(&Modifier::All) {
        let each = item.values.iter().map(|value| word(value).map(|w| vec![w]));
        return Need::all(each.map(needed));
    }
    needed(item.values.iter().map(word).collect())
}

/// A value that is met by one number only.
fn number(value: &SigmaValue) -> Option<String> {
    match value {
        SigmaValue::Integer(number) => Some(number.to_string()),
        SigmaValue::String(text) => text.as_plain().filter(|text| text.parse::<u64>().is_ok()),
        SigmaValue::Float(_) | SigmaValue::Bool(_) | SigmaValue::Null => None,
    }
}

/// Whether only a text that is there can meet an item.
fn asks_for_text(item: &DetectionItem) -> bool {
    let of_text = |modifier: &Modifier| {
        matches!(
            modifier,
            Modifier::Contains
                | Modifier::StartsWith
                | Modifier::EndsWith
                | Modifier::All
                | Modifier::Cased
                | Modifier::Re
        )
    };
    let is_null = |value: &SigmaValue| matches!(value, SigmaValue::Null);
    item.field.modifiers.iter().all(of_text)
        && !item.values.is_empty()
        && !item.values.iter().any(is_null)
}

/// A word that stands in every text that meets a value, in some case; `None` where none is long enough to
/// look for. A whole number stands there in its digits: no vendor writes one with an exponent.
fn word(value: &SigmaValue) -> Option<String> {
    match value {
        SigmaValue::String(text) => longest(text, "=."),
        SigmaValue::Integer(number) => Some(number.to_string()),
        SigmaValue::Float(_) | SigmaValue::Bool(_) | SigmaValue::Null => None,
    }
}

/// The same of what is met by `name=value`, put together of what stands apart in the record. Numbers
/// become text there, however they are written: what may be a part of one is not looked for.
fn word_of_pair(value: &SigmaValue) -> Option<String> {
    let SigmaValue::String(text) = value else {
        return None;
    };
    let is_in_no_number = |c: char| c.is_ascii_alphabetic() && !c.eq_ignore_ascii_case(&'e');
    longest(text, "").filter(|word| word.contains(is_in_no_number))
}

/// The longest word in a text, of characters that records write as they are and of these others.
fn longest(text: &SigmaString, others: &str) -> Option<String> {
    let plain = text.parts.iter().filter_map(|part| match part {
        StringPart::Plain(text) => Some(text.as_str()),
        StringPart::Special(_) => None,
    });
    let is_written_so =
        |c: char| c.is_ascii_alphanumeric() || "@:_- ".contains(c) || others.contains(c);
    plain
        .flat_map(|text| text.split(|c: char| !is_written_so(c)))
        .max_by_key(|word| word.len())
        .filter(|word| word.len() >= WORD_BYTES_MIN)
        .map(str::to_owned)
}

/// Whether a key or count that names a field asks for nothing: all events have it, or it stands for
/// several.
fn is_always(name: &str) -> bool {
    ALWAYS.contains(&name) || name.ends_with(".*") || name == "raw"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a rule with this detection may match an event that has these fields.
    fn may_match(detection: &str, fields: &[&str]) -> bool {
        let text = format!("title: t\nlogsource: {{product: m365}}\ndetection:\n{detection}\n");
        let parsed = rsigma_parser::parse_sigma_yaml(&text).unwrap();
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        Need::of(&parsed.rules[0]).may_be_met(&mut |claim| fields.contains(&claim.field()))
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
            ("  a: {f|re: '.*'}\n  condition: a", vec![], vec!["f"]),
            ("  a: {f|exists: true}\n  condition: a", vec![], vec!["f"]),
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
            "  a: {f: y}\n  b: {operation: x}\n  condition: a or b",
            "  a: [word]\n  condition: a",
        ] {
            assert!(may_match(detection, &[]), "{detection}");
        }
    }

    #[test]
    fn what_is_needed_depends_on_the_operation() {
        let detection = "  a: {operation: [x, y*], f: y}\n  b: {operation: z}\n  condition: a or b";
        let text = format!("title: t\nlogsource: {{product: m365}}\ndetection:\n{detection}\n");
        let need = Need::of(&rsigma_parser::parse_sigma_yaml(&text).unwrap().rules[0]);
        let field = Need::Field("f".to_owned(), Vec::new());
        for (operation, expected) in [
            ("x", Some(field.clone())),
            ("yes", Some(field)),
            ("z", Some(Need::Nothing)),
            ("other", None),
        ] {
            assert_eq!(need.given(operation), expected, "{operation}");
        }
        // Where the operation is negated or searched for otherwise, nothing is ruled out.
        let text = "title: t\nlogsource: {product: m365}\ndetection:\n  a: {operation|re: x}\n  b: {operation: z}\n  condition: a and not b\n";
        let need = Need::of(&rsigma_parser::parse_sigma_yaml(text).unwrap().rules[0]);
        assert_eq!(need.given("z"), Some(Need::Nothing));
    }

    #[test]
    fn the_words_of_a_value_are_those_that_a_record_writes_as_they_are() {
        for (item, words) in [
            ("f: y-word", vec!["y-word"]),
            (
                "f|contains: ['axios/', node-fetch]",
                vec!["axios", "node-fetch"],
            ),
            ("f: [50126, '50053']", vec!["50126", "50053"]),
            ("f: 'ab*long?c'", vec!["long"]),
            // One that cannot be looked for lets all through.
            ("f: [word, ab]", vec![]),
            ("f: [word, 'ü\"\\']", vec![]),
            ("f: true", vec![]),
            ("f|re: 'word'", vec![]),
        ] {
            let text = format!(
                "title: t\nlogsource: {{product: m365}}\ndetection:\n  a: {{{item}}}\n  condition: a\n"
            );
            let parsed = rsigma_parser::parse_sigma_yaml(&text).unwrap();
            let words = words.into_iter().map(str::to_owned).collect();
            let need = Need::of(&parsed.rules[0]);
            assert_eq!(need, Need::Field("f".to_owned(), words), "{item}");
        }
    }

    #[test]
    fn what_stands_for_several_fields_or_for_the_record_is_asked_for_its_words() {
        let one = |name: &str, word: &str| Need::Field(name.to_owned(), vec![word.to_owned()]);
        let all = Need::All;
        for (item, expected) in [
            (
                "raw|contains|all: ['New-Search.x', Export, ab]",
                all(vec![
                    one("raw", "New-Search.x"),
                    one("raw", "Export"),
                    Need::Field("raw".to_owned(), Vec::new()),
                ]),
            ),
            // Name and value, and the parts of a name, stand apart in the record.
            (
                "P.*|contains: 'ForwardTo=x@gmail.com'",
                one("P.*", "ForwardTo"),
            ),
            ("P.*|contains: 'Policy.State'", one("P.*", "Policy")),
            // A number may be written otherwise.
            (
                "P.*|contains: '1e100'",
                Need::Field("P.*".to_owned(), Vec::new()),
            ),
            (
                "P.*|contains: 1000",
                Need::Field("P.*".to_owned(), Vec::new()),
            ),
        ] {
            let text = format!(
                "title: t\nlogsource: {{product: m365}}\ndetection:\n  a: {{{item}}}\n  condition: a\n"
            );
            let need = Need::of(&rsigma_parser::parse_sigma_yaml(&text).unwrap().rules[0]);
            assert_eq!(need, expected, "{item}");
        }
    }

    #[test]
    fn a_records_type_is_asked_for_only_where_it_is_one_number() {
        for (item, words) in [
            ("record_type: [18, '50']", vec!["18", "50"]),
            ("record_type|startswith: '181'", vec![]),
            ("record_type: '181*'", vec![]),
            ("record_type|contains: 181", vec![]),
        ] {
            let text = format!(
                "title: t\nlogsource: {{product: m365}}\ndetection:\n  a: {{{item}}}\n  condition: a\n"
            );
            let need = Need::of(&rsigma_parser::parse_sigma_yaml(&text).unwrap().rules[0]);
            let words = words.into_iter().map(str::to_owned).collect();
            let expected = Need::Field(field::RECORD_TYPE.to_owned(), words);
            assert_eq!(need, expected, "{item}");
        }
    }

    #[test]
    fn needs_of_several_rules_are_told_once() {
        let field = |name: &str| Need::Field(name.to_owned(), Vec::new());
        let joined = Need::any([field("f"), field("g"), field("f")]);
        assert_eq!(joined, Need::Any(vec![field("f"), field("g")]));
        assert_eq!(Need::any([joined.clone(), field("g")]), joined);
        assert_eq!(Need::any([joined, Need::Nothing]), Need::Nothing);
    }
}

//! The conditions of a rule, asked of an event where it lies.
//!
//! `rsigma-eval` says what a rule means: it is compiled there, and taken over here with the names of
//! selections resolved. Plain questions to plain fields (is it one of some words, does it begin so, is
//! it true, is it there) are answered without making a value or a lower-case copy first. All others
//! are left to `rsigma-eval`.

use std::borrow::Cow;
use std::collections::HashMap;

use exfilwatch_model::{Event, Value};
use rsigma_eval::compiler::{CompiledDetection, CompiledDetectionItem};
use rsigma_eval::matcher::GroupMode;
use rsigma_eval::{CompiledMatcher, CompiledRule, Event as _};
use rsigma_parser::{ConditionExpr, Quantifier};

use super::sigma::Flat;

/// What an event is to be like.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    AtLeast(u64, Vec<Condition>),
    Not(Box<Condition>),
    /// Whether the event has a field.
    Exists(String, bool),
    Field(String, Question),
    /// What looks at more than one field: words anywhere, members of arrays.
    Whole(Box<Selection>),
}

/// What is asked of the value of a field, or of any of its values.
#[derive(Debug)]
pub(super) enum Question {
    Words {
        words: Vec<Word>,
        /// Whether one of them may lie anywhere in the text.
        is_sought: bool,
    },
    Truth(bool),
    /// Whether it is missing.
    Missing,
    /// A field that stands for others, and whatever else there is to ask.
    Other(Box<CompiledMatcher>),
}

/// A text in lower case, and where it is to be.
#[derive(Debug)]
pub(super) enum Word {
    Whole(String),
    Start(String),
    End(String),
    Within(String),
}

/// A selection as `rsigma-eval` has it, under a name of no letters.
#[derive(Debug)]
pub(super) struct Selection(HashMap<String, CompiledDetection>);

impl Condition {
    pub(super) fn new(rule: &CompiledRule) -> Self {
        let of = |condition| Self::of_expression(condition, &rule.detections);
        Self::any(rule.conditions.iter().map(of))
    }

    fn any(parts: impl Iterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for part in parts {
            match part {
                Self::Any(parts) => any.extend(parts),
                part => any.push(part),
            }
        }
        let only = if any.len() == 1 { any.pop() } else { None };
        only.unwrap_or(Self::Any(any))
    }

    fn all(parts: impl Iterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Self::All(parts) => all.extend(parts),
                part => all.push(part),
            }
        }
        let only = if all.len() == 1 { all.pop() } else { None };
        only.unwrap_or(Self::All(all))
    }

    fn of_expression(
        expression: &ConditionExpr,
        named: &HashMap<String, CompiledDetection>,
    ) -> Self {
        let of = |part| Self::of_expression(part, named);
        match expression {
            ConditionExpr::And(parts) => Self::all(parts.iter().map(of)),
            ConditionExpr::Or(parts) => Self::any(parts.iter().map(of)),
            ConditionExpr::Not(part) => Self::Not(Box::new(Self::of_expression(part, named))),
            ConditionExpr::Identifier(name) => {
                Self::any(named.get(name).map(Self::of_detection).into_iter())
            }
            ConditionExpr::Selector {
                quantifier,
                pattern,
            } => {
                let meant = named
                    .iter()
                    .filter(|(name, _)| pattern.matches_detection_name(name));
                let meant = meant.map(|(_, one)| Self::of_detection(one));
                match quantifier {
                    Quantifier::Any => Self::any(meant),
                    Quantifier::All => Self::all(meant),
                    Quantifier::Count(least) => Self::AtLeast(*least, meant.collect()),
                }
            }
        }
    }

    fn of_detection(detection: &CompiledDetection) -> Self {
        match detection {
            CompiledDetection::AllOf(items) => Self::all(items.iter().map(Self::of_item)),
            CompiledDetection::And(parts) => Self::all(parts.iter().map(Self::of_detection)),
            CompiledDetection::AnyOf(parts) => Self::any(parts.iter().map(Self::of_detection)),
            CompiledDetection::Conditional { named, condition } => {
                Self::of_expression(condition, named)
            }
            CompiledDetection::Keywords(_) | CompiledDetection::ArrayMatch { .. } => {
                Self::whole(detection.clone())
            }
        }
    }

    fn of_item(item: &CompiledDetectionItem) -> Self {
        match (&item.field, item.exists) {
            (Some(field), Some(is_there)) => Self::Exists(field.clone(), is_there),
            (Some(field), None) => Self::Field(field.clone(), Question::new(field, &item.matcher)),
            (None, _) => Self::whole(CompiledDetection::AllOf(vec![item.clone()])),
        }
    }

    fn whole(detection: CompiledDetection) -> Self {
        Self::Whole(Box::new(Selection(HashMap::from([(
            String::new(),
            detection,
        )]))))
    }

    pub(super) fn is_met(&self, event: &Event) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.is_met(event)),
            Self::Any(parts) => parts.iter().any(|part| part.is_met(event)),
            Self::AtLeast(least, parts) => {
                parts.iter().filter(|part| part.is_met(event)).count() as u64 >= *least
            }
            Self::Not(part) => !part.is_met(event),
            Self::Exists(field, is_there) => Flat(event).get_field(field).is_some() == *is_there,
            Self::Field(field, question) => question.is_met(field, event),
            Self::Whole(selection) => selection.is_met(event),
        }
    }
}

impl Selection {
    fn is_met(&self, event: &Event) -> bool {
        let itself = ConditionExpr::Identifier(String::new());
        rsigma_eval::compiler::eval_condition(&itself, &self.0, &Flat(event), &mut Vec::new())
    }
}

impl Question {
    fn new(field: &str, matcher: &CompiledMatcher) -> Self {
        let plain = match matcher {
            _ if Flat::stands_for_more(field) => None,
            CompiledMatcher::BoolEq(truth) => Some(Self::Truth(*truth)),
            CompiledMatcher::Null => Some(Self::Missing),
            CompiledMatcher::CaseInsensitiveGroup {
                children,
                mode: GroupMode::Any,
            } => Self::words(children),
            one => Self::words(std::slice::from_ref(one)),
        };
        plain.unwrap_or_else(|| Self::Other(Box::new(matcher.clone())))
    }

    fn words(matchers: &[CompiledMatcher]) -> Option<Self> {
        let words: Vec<Word> = matchers.iter().map(Word::new).collect::<Option<_>>()?;
        let is_sought = words.iter().any(|word| matches!(word, Word::Within(_)));
        Some(Self::Words { words, is_sought })
    }

    fn is_met(&self, field: &str, event: &Event) -> bool {
        if let Self::Other(matcher) = self {
            let event = Flat(event);
            return match event.get_field(field) {
                Some(value) => matcher.matches(&value, &event),
                None => matches!(**matcher, CompiledMatcher::Null),
            };
        }
        match event.get(field) {
            Some(value) => self.is_met_by(value),
            None => matches!(self, Self::Missing),
        }
    }

    fn is_met_by(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::List(values)) => values.iter().any(|value| self.is_met_by(value)),
            (Self::Words { words, is_sought }, Value::Str(text)) => meets(text, words, *is_sought),
            (Self::Words { words, is_sought }, _) => meets(&value.text(), words, *is_sought),
            (Self::Truth(truth), Value::Bool(known)) => known == truth,
            (Self::Truth(truth), Value::Str(text)) => said(text) == Some(*truth),
            (Self::Truth(_), Value::Int(_)) | (Self::Missing | Self::Other(_), _) => false,
        }
    }
}

/// What a text says of truth.
fn said(text: &str) -> Option<bool> {
    let is = |word: &&str| text.eq_ignore_ascii_case(word);
    if ["true", "1", "yes"].iter().any(is) {
        Some(true)
    } else {
        ["false", "0", "no"].iter().any(is).then_some(false)
    }
}

/// Whether a text meets one of some words, whatever its case.
fn meets(text: &str, words: &[Word], is_sought: bool) -> bool {
    if text.is_ascii() && !is_sought {
        return words
            .iter()
            .any(|word| word.is_met_by_ascii(text.as_bytes()));
    }
    let lower = if !text.is_ascii() {
        Cow::Owned(text.to_lowercase())
    } else if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    };
    words.iter().any(|word| word.is_met_by(&lower))
}

impl Word {
    /// `None` for what is no word, or is to be met in its own case.
    fn new(matcher: &CompiledMatcher) -> Option<Self> {
        let (make, value): (fn(String) -> Self, _) = match matcher {
            CompiledMatcher::Exact {
                value,
                case_insensitive: true,
            } => (Self::Whole, value),
            CompiledMatcher::StartsWith {
                value,
                case_insensitive: true,
            } => (Self::Start, value),
            CompiledMatcher::EndsWith {
                value,
                case_insensitive: true,
            } => (Self::End, value),
            CompiledMatcher::Contains {
                value,
                case_insensitive: true,
            } => (Self::Within, value),
            _ => return None,
        };
        let is_lower = !value.bytes().any(|byte| byte.is_ascii_uppercase());
        is_lower.then(|| make(value.clone()))
    }

    fn is_met_by(&self, lower: &str) -> bool {
        match self {
            Self::Whole(word) => lower == word,
            Self::Start(word) => lower.starts_with(word),
            Self::End(word) => lower.ends_with(word),
            Self::Within(word) => lower.contains(word),
        }
    }

    /// The same for a text of ASCII in any case. What is to be sought in it takes a copy.
    fn is_met_by_ascii(&self, text: &[u8]) -> bool {
        let is = |part: Option<&[u8]>, word: &String| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
        };
        match self {
            Self::Whole(word) => is(Some(text), word),
            Self::Start(word) => is(text.get(..word.len()), word),
            Self::End(word) => is(
                text.len()
                    .checked_sub(word.len())
                    .and_then(|at| text.get(at..)),
                word,
            ),
            Self::Within(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use exfilwatch_model::Product;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;

    const FIELDS: &[&str] = &["a", "b", "p.x", "p.*", "raw"];
    const MODIFIERS: &[&str] = &[
        "",
        "",
        "",
        "|contains",
        "|startswith",
        "|endswith",
        "|contains|all",
        "|cased",
        "|contains|cased",
        "|exists",
        "|re",
        "|gte",
        "|neq",
        "|contains|neq",
        "|fieldref",
    ];
    const CONDITIONS: &[&str] = &[
        "s1",
        "not s1",
        "s1 and not s2",
        "s1 or s2",
        "1 of s*",
        "all of s*",
        "2 of s*",
        "not 1 of s*",
        "1 of missing*",
    ];

    /// Words with and without case, beyond ASCII, with wildcards, and such as look like something else.
    fn text() -> impl Strategy<Value = String> + Clone {
        let odd = select(vec![
            "", "Ab", "aB*", "*ab", "*A*", "a?", "ÄB", "äb", "\u{212a}", "k", "İ", "Σς", "True",
            "yes", "NO", "1", "0", "-1", "10", "x=ab", "p.x", "a", "b",
        ]);
        prop_oneof![odd.prop_map(str::to_owned), "[abAB]{0,3}"]
    }

    fn asked() -> impl Strategy<Value = serde_json::Value> {
        let one = || {
            prop_oneof![
                6 => text().prop_map(|text| json!(text)),
                1 => (-1..12_i64).prop_map(|number| json!(number)),
                1 => any::<bool>().prop_map(|truth| json!(truth)),
                1 => Just(json!(null)),
            ]
        };
        // Some modifiers want several values; many words are compiled in another way than few.
        prop_oneof![
            one(),
            prop::collection::vec(one(), 2..11).prop_map(|all| json!(all))
        ]
    }

    fn selection() -> impl Strategy<Value = serde_json::Value> {
        let item = || {
            (select(FIELDS), select(MODIFIERS), asked())
                .prop_map(|(field, modifier, asked)| (format!("{field}{modifier}"), asked))
        };
        let map = move || prop::collection::vec(item(), 1..3);
        let map =
            move || map().prop_map(|items| json!(items.into_iter().collect::<HashMap<_, _>>()));
        prop_oneof![
            6 => map(),
            2 => prop::collection::vec(map(), 1..3).prop_map(|maps| json!(maps)),
            1 => prop::collection::vec(text(), 1..3).prop_map(|words| json!(words)),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let one = prop_oneof![
            6 => text().prop_map(Value::from),
            2 => (-1..12_i64).prop_map(Value::from),
            1 => any::<bool>().prop_map(Value::from),
        ];
        prop_oneof![4 => one.clone(), 1 => prop::collection::vec(one, 0..3).prop_map(Value::List)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn a_condition_means_what_it_means_to_rsigma(
            selections in prop::collection::vec(selection(), 3),
            condition in select(CONDITIONS),
            events in prop::collection::vec(prop::collection::hash_map(select(&["a", "b", "p.x", "p.y"][..]), value(), 0..4), 1..6),
            raw in text(),
        ) {
            let [s1, s2, s3] = &selections[..] else { unreachable!() };
            let detection = json!({ "s1": s1, "s2": s2, "s3": s3, "condition": condition });
            let rule = json!({ "title": "t", "logsource": { "product": "any" }, "detection": detection });
            let parsed = rsigma_parser::parse_sigma_yaml(&rule.to_string()).unwrap();
            let compiled = parsed.rules.first().map(rsigma_eval::compile_rule);
            // Not all that is generated is a rule.
            let Some(Ok(compiled)) = compiled else { return Ok(()) };
            let ours = Condition::new(&compiled);
            for fields in events {
                let raw = bytes::Bytes::from(raw.clone());
                let mut event = Event::new(Product::M365, "r".into(), 0, DateTime::UNIX_EPOCH, raw);
                for (name, value) in fields {
                    event.set(name, value);
                }
                let theirs = compiled.conditions.iter().any(|condition| {
                    rsigma_eval::compiler::eval_condition(
                        condition, &compiled.detections, &Flat(&event), &mut Vec::new(),
                    )
                });
                prop_assert_eq!(ours.is_met(&event), theirs, "{} {:?}", rule, event);
            }
        }
    }
}

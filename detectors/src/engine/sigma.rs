//! Sigma matching: with `condition` the one place that knows `rsigma-eval`.
//!
//! Only its matching is used; windows are ours (`window`). An event is looked at where it lies:
//! field names are flat and may hold dots, and no JSON tree is made.

use std::borrow::Cow;
use std::collections::BTreeSet;

use exfilwatch_model::{Event, Value};
use rsigma_eval::EventValue;
use rsigma_parser::{Detections, SigmaRule};

use super::condition::Condition;
use super::explain::{self, Tried};
use crate::rules::interest;

/// A compiled Sigma detection.
#[derive(Debug)]
pub struct Matcher {
    condition: Condition,
    /// What it was compiled from: to say why it does not match.
    source: Box<Detections>,
}

impl Matcher {
    /// Compiles a rule; the error says what in its detection cannot be used.
    pub(crate) fn new(rule: &SigmaRule) -> Result<Self, String> {
        let mut bare = rule.clone();
        bare.custom_attributes.clear();
        rsigma_eval::compile_rule(&bare)
            .map(|compiled| Self {
                condition: Condition::new(&compiled),
                source: Box::new(bare.detection),
            })
            .map_err(|error| error.to_string())
    }

    /// Compiles a selection: a map, or a list of maps of which any may match. Sigma takes a bare word
    /// for a search through all fields, which nobody means here.
    pub(crate) fn of_selection(selection: &yaml_serde::Value) -> Result<Self, String> {
        let is_map = |value: &yaml_serde::Value| value.is_mapping();
        let maps = selection
            .as_sequence()
            .map_or_else(|| is_map(selection), |list| list.iter().all(is_map));
        if !maps {
            return Err(
                "a selection is fields and values, as in { is_external: true }, or a list of such; \
                 single words are not searched for"
                    .to_owned(),
            );
        }
        let detection = serde_json::json!({
            "title": "selection",
            "logsource": { "product": "any" },
            "detection": { "condition": "selection", "selection": selection },
        });
        // JSON is YAML, so the parser that reads rules reads selections too.
        let parsed = rsigma_parser::parse_sigma_yaml(&detection.to_string())
            .map_err(|error| error.to_string())?;
        match (parsed.rules.first(), parsed.errors.first()) {
            (Some(rule), None) => Self::new(rule),
            (_, Some(error)) => Err(error.clone()),
            (None, None) => Err("it is empty".to_owned()),
        }
    }

    /// Whether an event matches.
    pub(crate) fn matches(&self, event: &Event) -> bool {
        self.condition.is_met(event)
    }

    /// Fields that it looks at; `None` where it searches through all.
    pub(crate) fn fields(&self) -> Option<BTreeSet<String>> {
        let mut fields = BTreeSet::new();
        for selection in self.source.named.values() {
            interest::add_fields_asked(selection, &mut fields)?;
        }
        Some(fields)
    }

    /// Each selection against an event, for whoever asks why. Slow.
    pub(crate) fn explain(&self, event: &Event) -> Vec<Tried> {
        explain::explain(&self.source, event)
    }
}

/// An event as the matcher sees it.
pub(super) struct Flat<'a>(pub(super) &'a Event);

impl Flat<'_> {
    /// Whether a field is none of the event's own.
    pub(super) fn stands_for_more(path: &str) -> bool {
        path == "raw" || path.ends_with(".*")
    }

    /// `raw` is the record as the vendor wrote it, `Parameters.*` all fields whose names begin like that,
    /// each as `name=value`.
    fn standing_for_more(&self, path: &str) -> Option<EventValue<'_>> {
        if path == "raw" {
            let text = std::str::from_utf8(&self.0.raw).ok()?;
            return Some(EventValue::Str(Cow::Borrowed(text)));
        }
        let prefix = path
            .strip_suffix('*')
            .filter(|prefix| prefix.ends_with('.'))?;
        let below = self.0.fields().filter_map(|(name, value)| {
            let name = name.strip_prefix(prefix)?;
            Some((name, value))
        });
        let mut all = Vec::new();
        for (name, value) in below {
            let before = all.len();
            visit(value, &mut |text| {
                all.push(EventValue::Str(Cow::Owned(format!("{name}={text}"))));
                false
            });
            if all.len() == before {
                all.push(EventValue::Str(Cow::Owned(format!(
                    "{name}={}",
                    value.text()
                ))));
            }
        }
        (!all.is_empty()).then_some(EventValue::Array(all))
    }
}

fn value(value: &Value) -> EventValue<'_> {
    match value {
        Value::Str(text) => EventValue::Str(Cow::Borrowed(text)),
        Value::Int(number) => EventValue::Int(*number),
        Value::Bool(truth) => EventValue::Bool(*truth),
        Value::List(values) => EventValue::Array(values.iter().map(self::value).collect()),
    }
}

fn visit<'a>(value: &'a Value, take: &mut dyn FnMut(&'a str) -> bool) -> bool {
    match value {
        Value::Str(text) => take(text),
        Value::Int(_) | Value::Bool(_) => false,
        Value::List(values) => values.iter().any(|value| visit(value, take)),
    }
}

impl rsigma_eval::Event for Flat<'_> {
    fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
        self.0
            .get(path)
            .map(value)
            .or_else(|| self.standing_for_more(path))
    }

    fn any_string_value(&self, pred: &dyn Fn(&str) -> bool) -> bool {
        self.0
            .fields()
            .any(|(_, value)| visit(value, &mut |text| pred(text)))
    }

    fn all_string_values(&self) -> Vec<Cow<'_, str>> {
        let mut all = Vec::new();
        for (_, value) in self.0.fields() {
            visit(value, &mut |text| {
                all.push(Cow::Borrowed(text));
                false
            });
        }
        all
    }

    fn to_json(&self) -> serde_json::Value {
        let fields = self.0.fields();
        let object = fields.map(|(name, field)| (name.to_owned(), value(field).to_json()));
        serde_json::Value::Object(object.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use exfilwatch_model::Product;

    const RAW: &str = r#"{"Operation":"New-InboxRule","To":"x@gmail.com"}"#;

    fn event() -> Event {
        let at = DateTime::UNIX_EPOCH;
        let mut event = Event::new(Product::M365, "id".into(), 0, at, RAW.into());
        event.set("operation", "New-InboxRule");
        event.set("Parameters.ForwardTo", "x@gmail.com");
        event.set("is_external", true);
        event.set("record_type", 1_i64);
        event.add("target", "a");
        event.add("target", "b");
        event
    }

    #[test]
    fn selections_see_flat_fields_of_every_kind() {
        for (selection, matches) in [
            ("{operation: new-inboxrule}", true),
            ("{operation|contains: Inbox, is_external: true}", true),
            ("{is_external: false}", false),
            ("{Parameters.ForwardTo|endswith: '@gmail.com'}", true),
            ("{Parameters: x}", false),
            ("{record_type: 1}", true),
            ("{target: b}", true),
            ("{Parameters.*|contains: ForwardTo}", true),
            ("{Parameters.*|contains: 'ForwardTo=x@'}", true),
            ("{Parameters.*|contains: RedirectTo}", false),
            ("{Other.*|contains: x}", false),
            ("{raw|contains|all: [New-Inbox, gmail]}", true),
            ("{raw|contains: hotmail}", false),
            ("{missing: null}", true),
            ("{missing|exists: false}", true),
            ("[{operation: x}, {record_type: [1, 2]}]", true),
        ] {
            let yaml: yaml_serde::Value = yaml_serde::from_str(selection).unwrap();
            let matcher = Matcher::of_selection(&yaml).unwrap();
            assert_eq!(matcher.matches(&event()), matches, "{selection}");
        }
    }

    #[test]
    fn a_selection_that_cannot_be_compiled_says_why() {
        for selection in ["{actor|re: '('}", "['gmail']", "maybe"] {
            let yaml: yaml_serde::Value = yaml_serde::from_str(selection).unwrap();
            assert!(!Matcher::of_selection(&yaml).unwrap_err().is_empty());
        }
    }
}

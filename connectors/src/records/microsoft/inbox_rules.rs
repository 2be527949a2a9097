//! `UpdateInboxRules`: inbox rules made by Outlook or a MAPI client (mailbox audit, RecordType 2
//! and 3). `OperationProperties` names the rule and holds its actions as JSON text, in two forms:
//! `RuleActions` = `[{"ActionType":"Forward","Recipients":["a@b"]}]`, and `ServerRule` with actions
//! such as `ForwardToRecipientsAction` and `Recipients[].Values[].Value`.

use exfilwatch_model::{Event, field};
use serde_json::Value;

use super::super::address::{self, Entry};
use super::Body;
use super::exchange::{Destination, is_hiding_folder};
use super::parameters::Parameters;

/// Most recipients taken of one rule.
const RECIPIENTS_MAX: usize = 1_000;

const VIA: &str = "inbox_rule";

/// Destinations of the rule, and the path when it touches one.
pub(super) fn destinations(
    event: &mut Event,
    record: &Body<'_>,
) -> (Vec<Destination>, Option<&'static str>) {
    let properties = Parameters::of(record.raw("OperationProperties"));
    event.set_some(
        field::RULE_NAME,
        properties.get("RuleName").map(str::to_owned),
    );
    let removal = properties
        .get("RuleOperation")
        .is_some_and(|operation| operation.to_ascii_lowercase().starts_with("remove"));
    let mut actions = Actions::default();
    for name in ["RuleActions", "ServerRule"] {
        for text in properties.all(name) {
            if let Ok(value) = serde_json::from_str::<Value>(text) {
                actions.walk(&value, false);
            }
        }
    }
    event.set(field::HIDES_MAIL, actions.hides);
    event.set(field::IS_REMOVAL, removal);
    if removal {
        return (Vec::new(), actions.forwards.then_some(VIA));
    }
    let destinations = actions
        .recipients
        .into_iter()
        .map(|entry| Destination {
            entry,
            via: VIA,
            parameter: None,
            without_copy: None,
        })
        .collect();
    (destinations, actions.forwards.then_some(VIA))
}

/// What the actions of a rule do.
#[derive(Debug, Default)]
struct Actions {
    recipients: Vec<Entry>,
    forwards: bool,
    hides: bool,
}

impl Actions {
    /// `sends` says whether what is walked belongs to an action that sends mail on.
    fn walk(&mut self, value: &Value, sends: bool) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.walk(value, sends)),
            Value::Object(map) => {
                let kind = ["ActionType", "Type", "$type", "@odata.type"]
                    .iter()
                    .find_map(|name| map.get(*name)?.as_str());
                let sends = sends || kind.is_some_and(|kind| self.note(kind));
                for (name, value) in map {
                    let lower = name.to_ascii_lowercase();
                    if lower == "recipients" && sends {
                        self.recipients(value);
                    } else if lower.contains("folder") {
                        self.hides |= value.as_str().is_some_and(is_hiding_folder);
                    } else if !value.is_null() {
                        let sends =
                            sends || (value.is_object() || value.is_array()) && self.note(name);
                        self.walk(value, sends);
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes the name of an action in; true when it sends mail on.
    fn note(&mut self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let sends = name.contains("forward") || name.contains("redirect");
        self.forwards |= sends;
        self.hides |= name.contains("delete");
        sends
    }

    fn recipients(&mut self, value: &Value) {
        let list = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for recipient in list {
            let mut texts = Vec::new();
            strings(recipient, &mut texts);
            let entries = || texts.iter().flat_map(|text| address::entries(text));
            // The values of one recipient are its name, type, address and keys in no fixed order.
            let best = entries()
                .find(|entry| matches!(entry, Entry::Smtp(_)))
                .or_else(|| entries().find(|entry| matches!(entry, Entry::Legacy(_))));
            match (best, recipient) {
                (_, Value::String(text)) => self.recipients.extend(address::entries(text)),
                (Some(entry), _) => self.recipients.push(entry),
                (None, _) => self.recipients.extend(entries().next()),
            }
            if self.recipients.len() >= RECIPIENTS_MAX {
                return;
            }
        }
    }
}

/// All texts in a value.
fn strings<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, texts)),
        Value::Object(map) => map.values().for_each(|value| strings(value, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

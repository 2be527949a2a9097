//! `parameters[]` of an event, flattened as `parameters.<name>`. A value stands in one of `value`,
//! `multiValue`, `intValue` (text), `multiIntValue`, `boolValue`, `messageValue{parameter[]}` and
//! `multiMessageValue[]`. Names may repeat: all values are kept.

use exfilwatch_model::{Event, Value as Field};
use serde_json::Value;

use super::super::flatten::field;

/// Most values taken from the parameters of one event.
const VALUES_MAX: usize = 4_000;
/// Deepest nesting of messages followed.
const DEPTH_MAX: usize = 6;

/// Sets `<member>.<name>` for each parameter of a list.
pub(super) fn fill(event: &mut Event, member: &str, list: &Value) {
    let mut left = VALUES_MAX;
    add_list(event, member, list, &mut left, 0);
}

fn add_list(event: &mut Event, prefix: &str, list: &Value, left: &mut usize, depth: usize) {
    let Value::Array(list) = list else { return };
    if depth > DEPTH_MAX {
        return;
    }
    for parameter in list {
        let Some(name) = parameter.get("name").and_then(Value::as_str) else {
            continue;
        };
        add(event, &format!("{prefix}.{name}"), parameter, left, depth);
    }
}

fn add(event: &mut Event, name: &str, parameter: &Value, left: &mut usize, depth: usize) {
    let member = |member: &str| parameter.get(member).filter(|value| !value.is_null());
    for (key, read) in [
        ("value", field as fn(&Value) -> Option<Field>),
        ("multiValue", field),
        ("boolValue", truth),
        ("intValue", whole),
        ("multiIntValue", whole),
        ("multiBoolValue", truth),
    ] {
        let values = match member(key) {
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => continue,
        };
        for value in values.iter().filter_map(read) {
            if *left == 0 {
                return;
            }
            *left -= 1;
            event.add(name.to_owned(), value);
        }
    }
    let messages = match member("multiMessageValue") {
        Some(Value::Array(messages)) => messages.as_slice(),
        _ => &[],
    };
    for message in messages.iter().chain(member("messageValue")) {
        if let Some(list) = message.get("parameter") {
            add_list(event, name, list, left, depth + 1);
        }
    }
}

/// A whole number; the vendor writes it as text.
fn whole(value: &Value) -> Option<Field> {
    match value {
        Value::String(text) => Some(match text.trim().parse() {
            Ok(number) => Field::Int(number),
            Err(_) => Field::from(text.as_str()),
        }),
        other => field(other),
    }
}

fn truth(value: &Value) -> Option<Field> {
    match value.as_str() {
        Some("true") => Some(Field::Bool(true)),
        Some("false") => Some(Field::Bool(false)),
        _ => field(value),
    }
}

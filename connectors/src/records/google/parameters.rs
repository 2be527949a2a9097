//! `parameters[]` of an event, flattened as `parameters.<name>`. A value stands in one of `value`,
//! `multiValue`, `intValue` (text), `multiIntValue`, `boolValue`, `messageValue{parameter[]}` and
//! `multiMessageValue[]`. Names may repeat: all values are kept.

use exfilwatch_model::{Event, Value as Field};

use super::super::flatten::field;
use super::super::json::{self, Raw};
use super::super::members::Members;

/// Most values taken from the parameters of one event.
const VALUES_MAX: usize = 4_000;
/// Deepest nesting of messages followed.
const DEPTH_MAX: usize = 6;

/// How a value is read.
type Read = fn(Raw<'_>) -> Option<Field>;

/// Members that hold values, in the order they are read.
const VALUES: &[(&str, Read)] = &[
    ("value", field),
    ("multiValue", field),
    ("boolValue", truth),
    ("intValue", whole),
    ("multiIntValue", whole),
    ("multiBoolValue", truth),
];

/// Sets `<member>.<name>` for each parameter of a list.
pub(super) fn fill(event: &mut Event, member: &str, list: Raw<'_>) {
    let mut left = VALUES_MAX;
    add_list(event, member, list, &mut left, 0);
}

fn add_list(event: &mut Event, prefix: &str, list: Raw<'_>, left: &mut usize, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    for parameter in elements(list) {
        let Ok(parameter) = Members::of(parameter) else {
            continue;
        };
        let Some(name) = parameter.raw("name").and_then(json::text) else {
            continue;
        };
        add(event, &format!("{prefix}.{name}"), &parameter, left, depth);
    }
}

fn add(event: &mut Event, name: &str, parameter: &Members<'_>, left: &mut usize, depth: usize) {
    for (member, read) in VALUES {
        let values = parameter.raw(member).into_iter().flat_map(json::each);
        for value in values.filter_map(read) {
            if *left == 0 {
                return;
            }
            *left -= 1;
            event.add(name.to_owned(), value);
        }
    }
    let messages = parameter.raw("multiMessageValue").into_iter();
    let messages = messages.flat_map(elements);
    for message in messages.chain(parameter.raw("messageValue")) {
        if let Ok(message) = Members::of(message)
            && let Some(list) = message.raw("parameter")
        {
            add_list(event, name, list, left, depth + 1);
        }
    }
}

/// The elements of an array, and of nothing else.
fn elements(raw: Raw<'_>) -> impl Iterator<Item = Raw<'_>> {
    let elements = json::elements(raw).map_while(Result::ok);
    elements.map(|(_, element)| element)
}

/// A whole number; the vendor writes it as text.
fn whole(raw: Raw<'_>) -> Option<Field> {
    let Some(text) = json::text(raw) else {
        return field(raw);
    };
    Some(match text.trim().parse() {
        Ok(number) => Field::Int(number),
        Err(_) => Field::from(text),
    })
}

fn truth(raw: Raw<'_>) -> Option<Field> {
    match json::text(raw).as_deref() {
        Some("true") => Some(Field::Bool(true)),
        Some("false") => Some(Field::Bool(false)),
        _ => field(raw),
    }
}

//! Turns a vendor's nested members into flat fields: objects joined by a dot, lists kept as lists,
//! `{Name, Value}` pairs under their name. The vendor's spelling stays.

use exfilwatch_model::{Event, Value as Field};
use serde_json::{Map, Value};

/// Most values taken from one record; the rest of an enormous record is left to its raw form.
const VALUES_MAX: usize = 4_000;
/// Deepest nesting followed.
const DEPTH_MAX: usize = 8;

/// Adds members to an event until its bound is reached.
pub(crate) struct Flattener<'a> {
    left: usize,
    is_wanted: &'a dyn Fn(&str) -> bool,
}

impl<'a> Flattener<'a> {
    /// Adds all.
    pub(crate) fn new() -> Self {
        Self::of(&|_| true)
    }

    /// Adds those fields for which `is_wanted` is true.
    pub(crate) fn of(is_wanted: &'a dyn Fn(&str) -> bool) -> Self {
        Self {
            left: VALUES_MAX,
            is_wanted,
        }
    }

    /// One member and what is in it.
    pub(crate) fn member(&mut self, event: &mut Event, name: &str, value: &Value) {
        self.add(event, name, value, 0);
    }

    fn add(&mut self, event: &mut Event, name: &str, value: &Value, depth: usize) {
        if self.left == 0 || depth > DEPTH_MAX {
            return;
        }
        match value {
            Value::Array(values) => {
                for value in values {
                    self.add(event, name, value, depth + 1);
                }
            }
            Value::Object(map) => self.object(event, name, map, depth),
            _ => {
                if (self.is_wanted)(name)
                    && let Some(field) = field(value)
                {
                    self.left -= 1;
                    event.add(name.to_owned(), field);
                }
            }
        }
    }

    fn object(&mut self, event: &mut Event, name: &str, map: &Map<String, Value>, depth: usize) {
        let pair = map.get("Name").and_then(Value::as_str).filter(|_| {
            ["Value", "NewValue", "OldValue"]
                .iter()
                .any(|member| map.contains_key(*member))
        });
        let prefix = match pair {
            Some(pair) => format!("{name}.{}", pair.trim()),
            None => name.to_owned(),
        };
        for (member, value) in map {
            let inner = match (pair, member.as_str()) {
                (Some(_), "Name") => continue,
                (Some(_), "Value") => prefix.clone(),
                _ => format!("{prefix}.{member}"),
            };
            self.add(event, &inner, value, depth + 1);
        }
    }
}

/// A scalar as a field; `None` for null and containers.
pub(crate) fn field(value: &Value) -> Option<Field> {
    match value {
        Value::Bool(truth) => Some(Field::Bool(*truth)),
        Value::String(text) => Some(Field::from(text.as_str())),
        Value::Number(number) => Some(match number.as_i64() {
            Some(whole) => Field::Int(whole),
            None => Field::from(number.to_string()),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A scalar as text; `None` for null and containers. Lists of one give that one.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(values) => match values.as_slice() {
            [one] => text(one),
            _ => None,
        },
        Value::Null | Value::Object(_) => None,
    }
}

/// A member as text, without blanks around it; `None` when absent, null or empty.
pub(crate) fn member_text(map: &Map<String, Value>, name: &str) -> Option<String> {
    let text = text(map.get(name)?)?;
    let trimmed = text.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;
    use exfilwatch_model::Product;
    use serde_json::json;

    use super::*;

    fn flat(value: &Value) -> Event {
        let mut event = Event::new(
            Product::M365,
            "id".into(),
            0,
            DateTime::UNIX_EPOCH,
            Bytes::new(),
        );
        let mut flattener = Flattener::new();
        for (name, value) in value.as_object().unwrap() {
            flattener.member(&mut event, name, value);
        }
        event
    }

    #[test]
    fn pairs_objects_and_lists_become_names() {
        let event = flat(&json!({
            "A": {"B": {"C": 1}},
            "P": [{"Name": "x", "Value": "1"}, {"Name": "x", "Value": "2"}],
            "M": [{"Name": "Role", "NewValue": "n", "OldValue": ""}],
            "T": [{"ID": "a", "Type": 5}, {"ID": "b", "Type": 2}],
            "N": null,
        }));
        assert_eq!(event.get("A.B.C"), Some(&Field::Int(1)));
        assert_eq!(
            event.get("P.x"),
            Some(&Field::List(vec!["1".into(), "2".into()]))
        );
        assert_eq!(event.text("M.Role.NewValue").as_deref(), Some("n"));
        assert_eq!(
            event.get("T.ID"),
            Some(&Field::List(vec!["a".into(), "b".into()]))
        );
        assert!(event.get("N").is_none());
    }

    #[test]
    fn an_enormous_record_is_cut_and_does_not_take_all_memory() {
        let many: Vec<Value> = (0..VALUES_MAX * 2).map(Value::from).collect();
        let event = flat(&json!({ "L": many, "Z": 1 }));
        let Some(Field::List(values)) = event.get("L") else {
            panic!("no list");
        };
        assert_eq!(values.len(), VALUES_MAX);
        assert!(event.get("Z").is_none());
    }
}

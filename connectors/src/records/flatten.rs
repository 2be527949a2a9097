//! Turns a vendor's nested members into flat fields: objects joined by a dot, lists kept as lists,
//! `{Name, Value}` pairs under their name. The vendor's spelling stays. What nobody asks for is not
//! read.

use std::borrow::Cow;

use exfilwatch_model::{Event, FieldSet, Value as Field};
use serde_json::Value;

use super::json::{self, Raw};
use super::members::Members;

/// Most values taken from one record; the rest of an enormous record is left to its raw form.
const VALUES_MAX: usize = 4_000;
/// Deepest nesting followed.
const DEPTH_MAX: usize = 8;

/// Which fields are taken.
pub(crate) trait Asked {
    /// Whether a field is.
    fn wants(&self, field: &str) -> bool;

    /// Whether what lies at a path may be one, or hold one.
    fn reaches(&self, path: &[u8]) -> bool;
}

impl Asked for FieldSet {
    fn wants(&self, field: &str) -> bool {
        self.has(field)
    }

    fn reaches(&self, path: &[u8]) -> bool {
        self.reaches(path)
    }
}

/// Adds members to an event until its bound is reached.
pub(crate) struct Flattener<'a, A> {
    asked: &'a A,
    left: usize,
    /// Where it is: the name of the field there.
    path: String,
}

impl<'a, A: Asked> Flattener<'a, A> {
    /// Adds those fields that are asked for.
    pub(crate) fn new(asked: &'a A) -> Self {
        Self {
            asked,
            left: VALUES_MAX,
            path: String::new(),
        }
    }

    /// One member and what is in it.
    pub(crate) fn member(&mut self, event: &mut Event, name: &str, raw: Raw<'_>) {
        self.path.clear();
        self.path.push_str(name);
        self.add(event, raw, 0);
    }

    fn add(&mut self, event: &mut Event, raw: Raw<'_>, depth: usize) {
        if self.left == 0 || depth > DEPTH_MAX {
            return;
        }
        match raw.first() {
            Some(b'[' | b'{') if !self.asked.reaches(self.path.as_bytes()) => {}
            Some(b'[') => {
                for element in json::each(raw) {
                    self.add(event, element, depth + 1);
                }
            }
            Some(b'{') => self.object(event, raw, depth),
            _ => {
                if self.asked.wants(&self.path)
                    && let Some(field) = field(raw)
                {
                    self.left -= 1;
                    event.add(self.path.clone(), field);
                }
            }
        }
    }

    fn object(&mut self, event: &mut Event, raw: Raw<'_>, depth: usize) {
        let Ok(members) = Members::of(raw) else {
            return;
        };
        let outer = self.path.len();
        let pair = pair(&members);
        if let Some(name) = &pair {
            self.path.push('.');
            self.path.push_str(name.trim());
        }
        if self.asked.reaches(self.path.as_bytes()) {
            let own = self.path.len();
            for (name, raw) in members.asked(|_| true) {
                match (&pair, &**name) {
                    (Some(_), b"Name") => continue,
                    (Some(_), b"Value") => {}
                    (_, name) => {
                        self.path.push('.');
                        self.path.push_str(&String::from_utf8_lossy(name));
                    }
                }
                self.add(event, raw, depth + 1);
                self.path.truncate(own);
            }
        }
        self.path.truncate(outer);
    }
}

/// The name of a `{Name, Value}` pair.
fn pair<'a>(members: &Members<'a>) -> Option<Cow<'a, str>> {
    let name = json::text(members.raw("Name")?)?;
    let mut values = ["Value", "NewValue", "OldValue"].into_iter();
    values
        .any(|value| members.raw(value).is_some())
        .then_some(name)
}

/// A scalar as a field; `None` for null and containers.
pub(crate) fn field(raw: Raw<'_>) -> Option<Field> {
    match raw.first()? {
        b'"' => json::text(raw).map(Field::from),
        b't' => Some(Field::Bool(true)),
        b'f' => Some(Field::Bool(false)),
        b'n' | b'[' | b'{' => None,
        _ => Some(match whole(raw) {
            Some(whole) => Field::Int(whole),
            None => Field::from(number(raw)),
        }),
    }
}

/// A scalar as text; `None` for null and containers. Lists of one give that one.
pub(crate) fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    match raw.first()? {
        b'-' | b'0'..=b'9' if whole(raw).is_none() => Some(Cow::Owned(number(raw))),
        b'[' => {
            let mut elements = json::each(raw);
            let one = elements.next()?;
            elements.next().is_none().then(|| text(one))?
        }
        _ => json::scalar(raw),
    }
}

/// A whole number.
pub(crate) fn whole(raw: Raw<'_>) -> Option<i64> {
    let number = std::str::from_utf8(raw).ok()?.parse().ok();
    // To `serde_json` the negative nought is no whole number.
    number.filter(|number| *number != 0 || raw == b"0")
}

/// A number that is not whole, or too large, as `serde_json` writes it.
fn number(raw: Raw<'_>) -> String {
    match json::value(raw) {
        Value::String(text) => text,
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests;

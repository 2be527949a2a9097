//! What is remembered of an event: enough to build a finding again after a restart, packed.
//!
//! Sizes are bounded here, so that a stored value is never above 4 KiB whatever a record holds.

use std::borrow::Cow;
use std::hash::Hasher;

use exfilwatch_model::identity::push_normal_entity;
use exfilwatch_model::{Event, Value};
use siphasher::sip::SipHasher13;

use crate::rules::Layout;

/// Longest record id kept, in bytes.
const RECORD_ID_BYTES_MAX: usize = 512;
/// Longest value of one field kept, in bytes; what is longer is cut.
const FIELD_BYTES_MAX: usize = 512;
/// Bytes kept of all fields of an event together; the last fields of a layout are left empty.
const FIELDS_BYTES_MAX: usize = 2_600;
/// Longest key of a window, in bytes.
const KEY_BYTES_MAX: usize = 512;
/// Parts the values of a list, and the parts of a key.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// Which event: ordered by event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId {
    /// Event time, milliseconds since the epoch.
    pub(crate) time_ms: i64,
    /// Hash of key and record id: the same record in the same key has the same.
    pub(crate) hash: u64,
    /// Which event of the record.
    pub(crate) part: u32,
}

impl EntryId {
    pub(crate) fn new(key: &str, event: &Event) -> Self {
        Self {
            time_ms: event.time.timestamp_millis(),
            hash: event_hash(key, event.record_id.as_bytes()),
            part: event.part,
        }
    }
}

/// Hash of a key and the id of a record.
pub(super) fn event_hash(key: &str, record_id: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(record_id);
    hasher.finish()
}

/// What is remembered of it. Ordered, so that of two versions of one event the same one stays
/// whichever came first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Record id and kept fields.
    packed: Vec<u8>,
    /// Hash of the counted value.
    pub(crate) value: u64,
    /// Outcome of the rule's `alert`, `raise` and `lower`.
    pub(crate) flags: u32,
}

/// An entry unpacked, borrowed.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) record_id: &'a str,
    fields: Vec<&'a str>,
}

impl View<'_> {
    /// Text of a field by its place in the layout; `None` where the event has none.
    pub(crate) fn field(&self, place: usize) -> Option<&str> {
        self.fields
            .get(place)
            .copied()
            .filter(|text| !text.is_empty())
    }

    /// The same, unless something of it may have been cut off when it was remembered: of a list that was
    /// cut nobody can say that all its values are of some kind.
    pub(crate) fn whole_field(&self, place: usize) -> Option<&str> {
        /// A cut falls between characters, of four bytes at most.
        const CHAR_BYTES_MAX: usize = 4;
        let text = self.field(place)?;
        let all: usize = self.fields.iter().map(|text| text.len()).sum();
        let is_whole = text.len() + CHAR_BYTES_MAX <= FIELD_BYTES_MAX
            && all + CHAR_BYTES_MAX <= FIELDS_BYTES_MAX;
        is_whole.then_some(text)
    }
}

impl Entry {
    pub(crate) fn new(event: &Event, layout: &Layout, value: u64, flags: u32) -> Self {
        let mut packed = Vec::with_capacity(192);
        put_text(
            &mut packed,
            cut(&event.record_id, RECORD_ID_BYTES_MAX).as_bytes(),
        );
        let mut left = FIELDS_BYTES_MAX;
        for name in layout.fields() {
            let text = event.get(name).map_or(Cow::Borrowed(""), joined);
            let text = cut(&text, FIELD_BYTES_MAX.min(left));
            left -= text.len();
            put_text(&mut packed, text.as_bytes());
        }
        Self {
            packed,
            value,
            flags,
        }
    }

    /// An entry of parts that [`Entry::packed`] gave.
    pub(super) fn whole(packed: Vec<u8>, value: u64, flags: u32) -> Self {
        Self {
            packed,
            value,
            flags,
        }
    }

    pub(crate) fn from_parts(packed: &[u8], value: u64, flags: u32) -> Option<Self> {
        let entry = Self {
            packed: packed.into(),
            value,
            flags,
        };
        entry.view().is_some().then_some(entry)
    }

    pub(crate) fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// Unpacks; `None` only for bytes that `new` did not make.
    pub(crate) fn view(&self) -> Option<View<'_>> {
        let mut rest: &[u8] = &self.packed;
        let record_id = take(&mut rest)?;
        let mut fields = Vec::with_capacity(16);
        while !rest.is_empty() {
            fields.push(take(&mut rest)?);
        }
        Some(View { record_id, fields })
    }
}

/// A value as text; the values of a list side by side.
fn joined(value: &Value) -> Cow<'_, str> {
    match value {
        Value::List(values) => {
            let texts: Vec<_> = values.iter().map(Value::text).collect();
            Cow::Owned(texts.join(&SEPARATOR.to_string()))
        }
        Value::Str(_) | Value::Int(_) | Value::Bool(_) => value.text(),
    }
}

/// The start of a text, at most `bytes_max` long, cut between characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .unwrap_or_default()
}

/// Packs a text behind others.
pub(super) fn put_text(packed: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(text);
}

/// Takes the first of packed texts.
pub(super) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = after;
    Some(text)
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_text(rest)?).ok()
}

/// Values of some fields of an event in normal form, side by side.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) text: String,
    /// How many of the fields the event lacks.
    pub(crate) missing: usize,
    /// How many have no text, these among them.
    pub(crate) empty: usize,
}

impl Values {
    pub(crate) fn of(event: &Event, fields: &[String]) -> Self {
        let mut values = Self {
            text: String::with_capacity(64),
            ..Self::default()
        };
        for (place, name) in fields.iter().enumerate() {
            if place > 0 {
                values.text.push(SEPARATOR);
            }
            let before = values.text.len();
            match event.get(name) {
                Some(value) => push_normal_entity(&mut values.text, &value.text()),
                None => values.missing += 1,
            }
            values.empty += usize::from(values.text.len() == before);
        }
        values
    }
}

/// The parts of a key as one text, side by side. A long one ends in its hash instead.
pub(crate) fn key_of(parts: String) -> String {
    if parts.len() <= KEY_BYTES_MAX {
        return parts;
    }
    let hash = hash_of(&parts);
    format!("{}{SEPARATOR}{hash:016x}", cut(&parts, KEY_BYTES_MAX - 20))
}

/// A hash that stays the same between versions and machines.
pub(crate) fn hash_of(text: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use exfilwatch_model::Product;

    fn event(value: &str) -> Event {
        let at = DateTime::UNIX_EPOCH;
        let mut event = Event::new(Product::M365, "id".into(), 0, at, bytes::Bytes::new());
        event.set("a", value);
        event.add("b", "x");
        event.add("b", "y");
        event
    }

    #[test]
    fn an_entry_gives_back_what_was_kept() {
        let layout = Layout::new(vec!["a".into(), "b".into(), "c".into()], 0);
        let entry = Entry::new(&event("ä"), &layout, 1, 2);
        let view = entry.view().unwrap();
        assert_eq!(
            (view.record_id, view.field(0), view.field(2)),
            ("id", Some("ä"), None)
        );
        assert_eq!(view.field(1), Some("x\u{1f}y"));
        assert_eq!(Entry::from_parts(entry.packed(), 1, 2), Some(entry));
        assert!(Entry::from_parts(&[9, 0, 1], 1, 2).is_none());
    }

    #[test]
    fn an_entry_is_bounded_whatever_the_record_holds() {
        let names: Vec<String> = (0..32).map(|i| format!("f{i}")).collect();
        let mut event = event("x");
        for name in &names {
            event.set(name.clone(), "ü".repeat(5_000));
        }
        let entry = Entry::new(&event, &Layout::new(names, 0), 1, 2);
        assert!(entry.packed().len() < 3_300, "{}", entry.packed().len());
        assert!(entry.view().is_some());
        let long = "k".repeat(2_000);
        let (one, two) = (
            key_of(format!("{long}{SEPARATOR}1")),
            key_of(format!("{long}{SEPARATOR}2")),
        );
        assert!(one != two && one.len() <= KEY_BYTES_MAX);
    }
}

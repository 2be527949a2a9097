//! Records at hand for evidence.
//!
//! Quotes are in memory only, within a budget, newest kept: a finding always names its first and
//! last records, and quotes those still at hand. After a restart earlier records are named but
//! not quoted; everything else of a finding is the same.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::entry::hash_of;
use super::shown::{Quote, Shown};

/// Most bytes of records a detector holds until findings are collected: those of a page.
const OPEN_BYTES_MAX: usize = 4 << 20;
/// Most bytes it holds from page to page.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Records at hand, by id.
#[derive(Debug, Default)]
pub(crate) struct Quotes {
    records: HashMap<u64, Arc<Vec<u8>>>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl Quotes {
    /// Holds the record of an event, unless it is too long to be quoted.
    pub(crate) fn put(&mut self, shown: &Shown<'_>) {
        let Some(Quote { id, record }) = shown.quote() else {
            return;
        };
        let Entry::Vacant(place) = self.records.entry(*id) else {
            return;
        };
        place.insert(Arc::clone(record));
        self.bytes += record.len();
        self.order.push_back(*id);
        self.hold(OPEN_BYTES_MAX);
    }

    /// The findings of a page are told: keeps the newest records.
    pub(crate) fn close_page(&mut self) {
        self.hold(KEPT_BYTES_MAX);
    }

    fn hold(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self
                .records
                .remove(&oldest)
                .map_or(0, |record| record.len());
        }
    }

    /// The record, when it is at hand and JSON.
    pub(crate) fn get(&self, record_id: &str) -> Option<Box<RawValue>> {
        let record = self.records.get(&hash_of(record_id))?;
        let text = String::from_utf8(record.to_vec()).ok()?;
        RawValue::from_string(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use exfilwatch_model::finding::EVIDENCE_BYTES_MAX;
    use exfilwatch_model::{Event, Product};

    use super::*;

    fn put(quotes: &mut Quotes, record_id: &str, raw: &str) {
        let raw = bytes::Bytes::from(raw.to_owned());
        let time = DateTime::UNIX_EPOCH;
        let event = Event::new(Product::M365, record_id.into(), 0, time, raw);
        quotes.put(&Shown::new(&event));
    }

    #[test]
    fn the_newest_records_within_the_budget_are_at_hand() {
        let mut quotes = Quotes::default();
        let record = format!("\"{}\"", "x".repeat(4_000));
        for i in 0..100 {
            put(&mut quotes, &i.to_string(), &record);
        }
        assert!(
            quotes.get("0").is_some(),
            "all records of a page are at hand"
        );
        quotes.close_page();
        assert!(quotes.bytes <= KEPT_BYTES_MAX);
        assert!(quotes.get("0").is_none());
        assert!(quotes.get("99").is_some());
        put(&mut quotes, "long", &"1".repeat(EVIDENCE_BYTES_MAX + 1));
        put(&mut quotes, "broken", "{");
        assert!(quotes.get("long").is_none() && quotes.get("broken").is_none());
    }

    #[test]
    fn a_quoted_record_is_one_line() {
        let mut quotes = Quotes::default();
        put(&mut quotes, "pretty", "{\r\n \"a\": \"b\\n\"\n}");
        let quoted = quotes.get("pretty").unwrap();
        assert_eq!(quoted.get(), r#"{   "a": "b\n" }"#);
    }
}

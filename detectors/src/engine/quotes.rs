//! Records at hand for evidence.
//!
//! Quotes are in memory only, within a budget, newest kept: a finding always names its first and
//! last records, and quotes those still at hand. After a restart earlier records are named but
//! not quoted; everything else of a finding is the same.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use exfilwatch_model::finding::EVIDENCE_BYTES_MAX;
use serde_json::value::RawValue;

use super::entry::hash_of;

/// Most bytes of records a detector holds until findings are collected: those of a page.
const OPEN_BYTES_MAX: usize = 4 << 20;
/// Most bytes it holds from page to page.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Records at hand, by id.
#[derive(Debug, Default)]
pub(crate) struct Quotes {
    records: HashMap<u64, Vec<u8>>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl Quotes {
    /// Holds a record, unless it is too long to be quoted. It is copied: the original is a slice
    /// of a whole page. Line breaks between its members become blanks, so that what quotes it can be a line.
    pub(crate) fn put(&mut self, record_id: &str, raw: &Bytes) {
        let id = hash_of(record_id);
        if raw.is_empty() || raw.len() > EVIDENCE_BYTES_MAX || self.records.contains_key(&id) {
            return;
        }
        let mut record = raw.to_vec();
        record
            .iter_mut()
            .filter(|byte| matches!(byte, b'\n' | b'\r'))
            .for_each(|byte| *byte = b' ');
        self.bytes += record.len();
        self.records.insert(id, record);
        self.order.push_back(id);
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
        let text = String::from_utf8(record.clone()).ok()?;
        RawValue::from_string(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_records_within_the_budget_are_at_hand() {
        let mut quotes = Quotes::default();
        let record = Bytes::from(format!("\"{}\"", "x".repeat(4_000)));
        for i in 0..100 {
            quotes.put(&i.to_string(), &record);
        }
        assert!(
            quotes.get("0").is_some(),
            "all records of a page are at hand"
        );
        quotes.close_page();
        assert!(quotes.bytes <= KEPT_BYTES_MAX);
        assert!(quotes.get("0").is_none());
        assert!(quotes.get("99").is_some());
        quotes.put("long", &Bytes::from(vec![b'1'; EVIDENCE_BYTES_MAX + 1]));
        quotes.put("broken", &Bytes::from_static(b"{"));
        assert!(quotes.get("long").is_none() && quotes.get("broken").is_none());
    }

    #[test]
    fn a_quoted_record_is_one_line() {
        let mut quotes = Quotes::default();
        quotes.put("pretty", &Bytes::from_static(b"{\r\n \"a\": \"b\\n\"\n}"));
        let quoted = quotes.get("pretty").unwrap();
        assert_eq!(quoted.get(), r#"{   "a": "b\n" }"#);
    }
}

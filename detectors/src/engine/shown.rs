//! An event as all detectors of an engine are shown it: what several of them need of it is made once.

use std::cell::OnceCell;
use std::sync::Arc;

use exfilwatch_model::Event;
use exfilwatch_model::finding::EVIDENCE_BYTES_MAX;

use super::entry::hash_of;

/// An event, and what is made of it when the first detector asks.
#[derive(Debug)]
pub struct Shown<'a> {
    pub(crate) event: &'a Event,
    quote: OnceCell<Option<Quote>>,
}

/// A record as it is quoted.
#[derive(Debug, Clone)]
pub(crate) struct Quote {
    /// Hash of the record's id.
    pub(crate) id: u64,
    pub(crate) record: Arc<Vec<u8>>,
}

impl<'a> Shown<'a> {
    /// An event that nobody was shown yet.
    pub fn new(event: &'a Event) -> Self {
        Self {
            event,
            quote: OnceCell::new(),
        }
    }

    /// Its record, unless it is too long to be quoted. It is copied: the original is a slice of a whole
    /// page. Line breaks between its members become blanks, so that what quotes it can be a line.
    pub(crate) fn quote(&self) -> Option<&Quote> {
        let make = || {
            let raw = &self.event.raw;
            if raw.is_empty() || raw.len() > EVIDENCE_BYTES_MAX {
                return None;
            }
            let is_break = |byte: u8| matches!(byte, b'\n' | b'\r');
            let bytes = raw.iter();
            let record = bytes.map(|&byte| if is_break(byte) { b' ' } else { byte });
            Some(Quote {
                id: hash_of(&self.event.record_id),
                record: Arc::new(record.collect()),
            })
        };
        self.quote.get_or_init(make).as_ref()
    }
}

//! Gathers elements into pages of a work item.

use chrono::{DateTime, Utc};
use exfilwatch_model::record::{PAGE_BYTES_MAX, PAGE_RECORDS_MAX};
use exfilwatch_model::{Malformed, Page, RawRecord, StreamId};

use super::split::Element;

/// The page being filled. A page is handed out when the next element would not fit in it.
#[derive(Debug)]
pub struct PageMaker {
    stream: StreamId,
    item: String,
    records: Vec<RawRecord>,
    malformed: Vec<Malformed>,
    bytes: usize,
}

impl PageMaker {
    /// Pages of this item.
    pub fn new(stream: StreamId, item: String) -> Self {
        Self {
            stream,
            item,
            records: Vec::new(),
            malformed: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds an element. Gives the page that is full without it, if any; that one is not the last.
    pub fn add(&mut self, element: Element, now: DateTime<Utc>) -> Option<Page> {
        let length = match &element {
            Element::Record(record) => record.bytes().len(),
            Element::Malformed(bad) => bad.bytes.len(),
        };
        let count = self.records.len() + self.malformed.len();
        let full = count >= PAGE_RECORDS_MAX || (count > 0 && self.bytes + length > PAGE_BYTES_MAX);
        let page = full.then(|| self.cut(now, false));
        self.bytes += length;
        match element {
            Element::Record(record) => self.records.push(record),
            Element::Malformed(bad) => self.malformed.push(bad),
        }
        page
    }

    /// The page as it is, perhaps empty.
    pub fn cut(&mut self, now: DateTime<Utc>, last: bool) -> Page {
        self.bytes = 0;
        Page {
            stream: self.stream.clone(),
            item: self.item.clone(),
            records: std::mem::take(&mut self.records),
            malformed: std::mem::take(&mut self.malformed),
            fetched_at: now,
            last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn pages(lengths: impl Iterator<Item = usize>) -> Vec<Page> {
        let stream = "t/office365/Audit.General".parse().unwrap();
        let mut maker = PageMaker::new(stream, "item".into());
        let now = DateTime::UNIX_EPOCH;
        let mut pages = Vec::new();
        for length in lengths {
            let record = RawRecord::new(Bytes::from(vec![b'x'; length]));
            pages.extend(maker.add(Element::Record(record), now));
        }
        pages.push(maker.cut(now, true));
        pages
    }

    #[test]
    fn pages_keep_both_limits_and_only_the_last_is_last() {
        for (lengths, expected) in [
            (vec![10; 2_500], vec![1_000, 1_000, 500]),
            (vec![10; 1_000], vec![1_000]),
            (vec![1 << 20; 9], vec![4, 4, 1]),
            (vec![5 << 20, 1], vec![1, 1]),
            (vec![], vec![0]),
        ] {
            let pages = pages(lengths.into_iter());
            let counts: Vec<usize> = pages.iter().map(|p| p.records.len()).collect();
            assert_eq!(counts, expected);
            let last: Vec<bool> = pages.iter().map(|p| p.last).collect();
            assert_eq!(last.iter().position(|&l| l), Some(last.len() - 1));
        }
    }
}

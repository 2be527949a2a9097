//! The account of a reconciliation: what listing a span again found, in numbers an auditor can read.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{StreamId, Window};
use serde::{Deserialize, Serialize};

/// Tries of an item after which a reconciliation by hand no longer waits for it.
pub const TRIES_WAITED_FOR: u32 = 3;

/// What a reconciliation of a stream found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The stream.
    pub stream: StreamId,
    /// Number of the order by which it was asked for by hand; `None` of the daily one.
    pub order: Option<u64>,
    /// Start of the span that was listed again.
    pub from: DateTime<Utc>,
    /// Its end.
    pub until: DateTime<Utc>,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When the last of its items was fetched or given up; `None` while some are missing.
    pub ended: Option<DateTime<Utc>>,
    /// Items the vendor listed (google: windows of time, all read again).
    pub listed: usize,
    /// Of them, fetched before.
    pub done_before: usize,
    /// Of them, fetched since.
    pub fetched: usize,
    /// Of them, still to be fetched.
    pub missing: usize,
    /// Of the missing, failed so often that they are not waited for.
    pub failing: usize,
    /// Of them, given up: the ledger says why.
    pub lost: usize,
    /// Records read.
    pub records: u64,
    /// Of them, not delivered before.
    pub records_new: u64,
    /// Of the new, so old that the ordinary second readings should have found them.
    pub records_late: u64,
    /// Why the stream could not be listed, or nothing of it be fetched.
    pub error: Option<String>,
}

impl Account {
    /// Of a span that could not be listed.
    pub fn failed(stream: &StreamId, order: u64, at: DateTime<Utc>, error: String) -> Self {
        Self {
            error: Some(error),
            ended: Some(at),
            ..Self::new(stream, Some(order), (at, at), at)
        }
    }

    fn new(
        stream: &StreamId,
        order: Option<u64>,
        (from, until): (DateTime<Utc>, DateTime<Utc>),
        began: DateTime<Utc>,
    ) -> Self {
        Self {
            stream: stream.clone(),
            order,
            from,
            until,
            began,
            ended: None,
            listed: 0,
            done_before: 0,
            fetched: 0,
            missing: 0,
            failing: 0,
            lost: 0,
            records: 0,
            records_new: 0,
            records_late: 0,
            error: None,
        }
    }

    /// Whether nothing more is to be waited for.
    pub fn is_settled(&self) -> bool {
        self.ended.is_some() || self.error.is_some() || self.missing == self.failing
    }

    /// Whether the span was listed and nothing of it is missing or lost.
    pub fn is_whole(&self) -> bool {
        self.error.is_none() && self.missing == 0 && self.lost == 0
    }
}

/// An account that is being drawn up.
#[derive(Debug)]
pub struct Open {
    account: Account,
    /// Keys of the items that are missing.
    missing: BTreeSet<String>,
    /// Of them, those that failed too often.
    failing: BTreeSet<String>,
    /// What lies before this should have been found before.
    late_before: DateTime<Utc>,
}

impl Open {
    /// A span was listed: so many items, of which these are not fetched yet. Ordinary second readings
    /// reach back by `overlap`.
    pub fn new(
        (stream, order): (&StreamId, Option<u64>),
        (window, began): (Window, DateTime<Utc>),
        listed: usize,
        missing: BTreeSet<String>,
        overlap: TimeDelta,
    ) -> Self {
        let mut account = Account::new(stream, order, (window.from(), window.until()), began);
        account.listed = listed;
        account.done_before = listed.saturating_sub(missing.len());
        account.ended = missing.is_empty().then_some(began);
        Self {
            account,
            missing,
            failing: BTreeSet::new(),
            late_before: window.until() - overlap,
        }
    }

    /// A page of an item came. Returns how many of its new records were late.
    pub fn page(&mut self, item: &str, listed_at: DateTime<Utc>, read: u64, new: u64) -> u64 {
        if !self.missing.contains(item) {
            return 0;
        }
        self.account.error = None;
        self.account.records += read;
        self.account.records_new += new;
        let late = if listed_at < self.late_before { new } else { 0 };
        self.account.records_late += late;
        late
    }

    /// The vendor refuses the stream: nothing is waited for until a page comes.
    pub fn refused(&mut self, what: &str) {
        self.account.error = Some(what.to_owned());
    }

    /// An item was tried in vain.
    pub fn tried(&mut self, item: &str, attempts: u32) {
        if attempts >= TRIES_WAITED_FOR && self.missing.contains(item) {
            self.failing.insert(item.to_owned());
        }
    }

    /// An item was fetched to its last page, or given up. Whether that was the last one.
    pub fn finished(&mut self, item: &str, is_lost: bool, now: DateTime<Utc>) -> bool {
        if !self.missing.remove(item) {
            return false;
        }
        self.failing.remove(item);
        if is_lost {
            self.account.lost += 1;
        } else {
            self.account.fetched += 1;
        }
        if self.missing.is_empty() {
            self.account.ended = Some(now);
        }
        self.missing.is_empty()
    }

    /// As it stands.
    pub fn account(&self) -> Account {
        Account {
            missing: self.missing.len(),
            failing: self.failing.len(),
            ..self.account.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn open(missing: &[&str]) -> Open {
        let stream = "contoso/office365/Audit.Exchange".parse().unwrap();
        let window = Window::new(at(0), at(100)).unwrap();
        let missing = missing.iter().map(|key| (*key).to_owned()).collect();
        Open::new(
            (&stream, Some(1)),
            (window, at(100)),
            10,
            missing,
            TimeDelta::hours(1),
        )
    }

    #[test]
    fn every_listed_item_is_in_one_column() {
        let mut open = open(&["a", "b", "c", "d"]);
        assert_eq!(open.page("a", at(10), 5, 2), 2);
        assert_eq!(open.page("a", at(10), 5, 0), 0);
        assert_eq!(
            open.page("b", at(99), 4, 4),
            0,
            "the last hour is no lateness"
        );
        assert_eq!(open.page("another", at(10), 7, 7), 0);
        open.finished("a", false, at(101));
        open.finished("b", true, at(101));
        open.finished("another", false, at(101));
        for attempts in 1..=TRIES_WAITED_FOR {
            assert!(!open.account().is_settled());
            open.tried("c", attempts);
            open.tried("d", attempts);
        }
        let account = open.account();
        assert!(account.is_settled() && !account.is_whole());
        assert_eq!(
            account.listed,
            account.done_before + account.fetched + account.lost + account.missing
        );
        let counts = (
            account.done_before,
            account.fetched,
            account.lost,
            account.missing,
        );
        assert_eq!(counts, (6, 1, 1, 2));
        assert_eq!(
            (account.records, account.records_new, account.records_late),
            (14, 6, 2)
        );
        assert!(!open.finished("c", false, at(102)));
        open.refused("403");
        assert!(open.account().is_settled() && !open.account().is_whole());
        open.page("d", at(1), 1, 1);
        assert!(open.finished("d", false, at(103)));
        assert_eq!(open.account().error, None);
        assert_eq!(open.account().ended, Some(at(103)));
    }

    #[test]
    fn a_span_of_which_all_was_fetched_is_settled_at_once() {
        let account = open(&[]).account();
        assert!(account.is_settled() && account.is_whole());
        let failed = Account::failed(&account.stream, 3, at(1), "403".into());
        assert!(failed.is_settled() && !failed.is_whole());
    }
}

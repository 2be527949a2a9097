//! The work list of one tenant in memory: which item is fetched next, and how long one that failed
//! must wait. Follows the store, never leads it.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{StreamId, WorkItem};
use exfilwatch_state::DoneItem;

/// Items that expire within this go first, the earliest first.
const NEAR_EXPIRY: TimeDelta = TimeDelta::hours(24);
/// First wait of an item that failed; doubled with each try.
const RETRY_FIRST: TimeDelta = TimeDelta::seconds(5);
/// Longest wait of an item that failed.
const RETRY_MAX: TimeDelta = TimeDelta::minutes(15);

/// Finished items that expire later than this are not listed again under the same key.
pub(crate) const DONE_KEPT_MAX: TimeDelta = TimeDelta::days(10);
/// How long those are remembered.
const DONE_KEPT: TimeDelta = TimeDelta::days(2);

/// Key of an item: stream and item key.
pub type ItemKey = (StreamId, String);

/// Open items and which of them are being fetched.
#[derive(Debug, Default)]
pub struct WorkList {
    open: BTreeMap<StreamId, BTreeMap<String, WorkItem>>,
    busy: HashSet<ItemKey>,
}

/// The key of an item.
pub fn key_of(item: &WorkItem) -> ItemKey {
    (item.stream.clone(), item.key.clone())
}

/// The items of a listing, each once. A vendor may list one under several times: it counts from the
/// earliest, since it was to be had from then on, and is there until the last of them has expired.
pub fn each_once(listed: impl IntoIterator<Item = WorkItem>) -> Vec<WorkItem> {
    let mut items: Vec<WorkItem> = Vec::new();
    let mut places: HashMap<ItemKey, usize> = HashMap::new();
    for item in listed {
        let place = *places.entry(key_of(&item)).or_insert(items.len());
        let Some(known) = items.get_mut(place) else {
            items.push(item);
            continue;
        };
        let expires = known.expires.max(item.expires);
        if item.from < known.from {
            *known = item;
        }
        known.expires = expires;
    }
    items
}

impl WorkList {
    /// Enters or replaces items.
    pub fn put(&mut self, items: impl IntoIterator<Item = WorkItem>) {
        for item in items {
            let of_stream = self.open.entry(item.stream.clone()).or_default();
            of_stream.insert(item.key.clone(), item);
        }
    }

    /// An open item.
    pub fn item(&self, (stream, key): &ItemKey) -> Option<&WorkItem> {
        self.open.get(stream)?.get(key)
    }

    /// Whether the item is open.
    pub fn holds(&self, key: &ItemKey) -> bool {
        self.item(key).is_some()
    }

    /// The item is finished.
    pub fn finish(&mut self, key: &ItemKey) {
        if let Some(of_stream) = self.open.get_mut(&key.0) {
            of_stream.remove(&key.1);
        }
        self.busy.remove(key);
    }

    /// The item is no longer being fetched.
    pub fn release(&mut self, key: &ItemKey) {
        self.busy.remove(key);
    }

    /// Items of these streams that are being fetched.
    pub fn busy_of(&self, streams: &[StreamId]) -> usize {
        self.busy
            .iter()
            .filter(|(stream, _)| streams.contains(stream))
            .count()
    }

    /// Open items of a stream.
    pub fn open_of(&self, stream: &StreamId) -> usize {
        self.open.get(stream).map_or(0, BTreeMap::len)
    }

    /// Lower end of what the oldest open item of a stream may hold.
    pub fn oldest(&self, stream: &StreamId) -> Option<DateTime<Utc>> {
        self.open.get(stream)?.values().map(|item| item.from).min()
    }

    /// Items that the vendor has dropped by now.
    pub fn expired(&self, now: DateTime<Utc>) -> Vec<WorkItem> {
        let gone = |item: &&WorkItem| {
            item.expires.is_some_and(|at| at <= now) && !self.busy.contains(&key_of(item))
        };
        self.open
            .values()
            .flat_map(BTreeMap::values)
            .filter(gone)
            .cloned()
            .collect()
    }

    /// The item to be fetched next, marked as busy. What expires within a day goes first, by
    /// expiry, since it may be lost; then the newest, for the sake of timely findings.
    pub fn take(
        &mut self,
        now: DateTime<Utc>,
        may: impl Fn(&StreamId) -> bool,
    ) -> Option<WorkItem> {
        let streams = self.open.iter().filter(|(stream, _)| may(stream));
        let ready = streams
            .flat_map(|(_, items)| items.values())
            .filter(|item| {
                item.next_try.is_none_or(|at| at <= now)
                    && (self.busy.is_empty() || !self.busy.contains(&key_of(item)))
            });
        let item = ready.min_by_key(|item| {
            let near = item.expires.filter(|at| *at - now < NEAR_EXPIRY);
            (near.is_none(), near, std::cmp::Reverse(item.from))
        })?;
        let item = item.clone();
        self.busy.insert(key_of(&item));
        Some(item)
    }
}

/// The item as finished, remembered as long as the vendor may list it again.
pub fn done_item(item: &WorkItem, now: DateTime<Utc>) -> DoneItem {
    let listed_until = item.expires.filter(|at| *at - now < DONE_KEPT_MAX);
    DoneItem {
        stream: item.stream.clone(),
        key: item.key.clone(),
        forget_after: listed_until.map_or(now + DONE_KEPT, |at| at + TimeDelta::days(1)),
        given_up: false,
    }
}

/// The item with another failed try noted. `share` in 0..=1 spreads the waits (full jitter on the
/// upper half, so that a retry never comes at once).
pub fn after_failure(item: &WorkItem, now: DateTime<Utc>, why: &str, share: f64) -> WorkItem {
    let doubled = RETRY_FIRST * 2_i32.pow(item.attempts.min(10));
    let full = doubled.min(RETRY_MAX).num_milliseconds();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "milliseconds"
    )]
    let spread = (full as f64 * 0.5 * share.clamp(0.0, 1.0)) as i64;
    WorkItem {
        attempts: item.attempts.saturating_add(1),
        next_try: Some(now + TimeDelta::milliseconds(full / 2 + spread)),
        last_error: Some(why.chars().take(500).collect()),
        ..item.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn item(key: &str, from: i64, expires: i64) -> WorkItem {
        WorkItem {
            stream: "t/office365/Audit.Exchange".parse().unwrap(),
            key: key.into(),
            body: String::new(),
            from: at(from),
            expires: Some(at(expires)),
            attempts: 0,
            next_try: None,
            last_error: None,
        }
    }

    #[test]
    fn what_is_about_to_expire_goes_first_and_then_the_newest() {
        let mut list = WorkList::default();
        list.put([
            item("old", 0, 168),
            item("older", -2, 166),
            item("new", 150, 318),
            item("newest", 151, 319),
        ]);
        let mut order = Vec::new();
        while let Some(item) = list.take(at(152), |_| true) {
            order.push(item.key);
        }
        assert_eq!(order, ["older", "old", "newest", "new"]);
    }

    #[test]
    fn waiting_held_and_busy_items_are_passed_over() {
        let mut list = WorkList::default();
        let waiting = WorkItem {
            next_try: Some(at(2)),
            ..item("waiting", 0, 168)
        };
        list.put([waiting, item("ready", 0, 168)]);
        assert!(list.take(at(1), |_| false).is_none());
        assert_eq!(list.take(at(1), |_| true).unwrap().key, "ready");
        assert!(list.take(at(1), |_| true).is_none());
        assert_eq!(list.take(at(2), |_| true).unwrap().key, "waiting");
        assert_eq!(
            list.expired(at(200)).len(),
            0,
            "what is being fetched is not given up"
        );
    }

    #[test]
    fn what_is_listed_under_several_times_is_one_item_from_the_earliest() {
        let listed = [
            item("a", 5, 173),
            item("b", 6, 174),
            item("a", 2, 170),
            item("a", 9, 177),
        ];
        let items = each_once(listed);
        assert_eq!(items, [item("a", 2, 177), item("b", 6, 174)]);
    }

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let mut tried = item("a", 0, 168);
        let mut waits = Vec::new();
        for _ in 0..12 {
            tried = after_failure(&tried, at(0), "no answer", 1.0);
            waits.push((tried.next_try.unwrap() - at(0)).num_seconds());
        }
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(*waits.last().unwrap(), 900);
        assert_eq!(tried.attempts, 12);
        let soonest = after_failure(&item("a", 0, 168), at(0), "no answer", 0.0);
        assert!(soonest.next_try.unwrap() > at(0));
    }
}

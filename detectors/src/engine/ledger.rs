//! The memory of a detector: entries by key and event time, packed, with bounds, and as small changes
//! for the store.
//!
//! What stays is a function of the set of entries put in, whatever their order: of two versions of
//! one event the smaller, of too many in one hour of a key the earliest. An event is one value in
//! the store, so a change is as small as it can be; hours matter only for bounds and eviction.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::entry::{Entry, EntryId};
use super::series::{Moment, Put, Series};
use super::stored::{KIND_ENTRY, KIND_WATERMARK, Stored, entry_id, entry_key};
use crate::contract::{Counters, StateChange};

/// Length of a hop, in milliseconds.
pub(crate) const HOP_MS: i64 = 3_600_000;
/// Most entries of one key within a hop; the earliest stay.
pub(crate) const HOP_ENTRIES_MAX: u32 = 10_000;
/// Where there is no room, one part of so many of the entries goes at a time: each time looks at all keys.
const SHED_PART: usize = 32;
/// What a key takes beside its series: a place in the table, a part of which is free.
const KEY_BYTES: usize = 48;

/// The memory of a detector.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Tells entries of an older form of the rule from ours.
    fingerprint: u32,
    keys: HashTable<Series>,
    hasher: RandomState,
    /// Texts that the bases of all blocks are written against: those of the first entry.
    common: Vec<u8>,
    entries: usize,
    /// What the series take of memory.
    bytes: usize,
    /// Entries by hop.
    hops: BTreeMap<i64, usize>,
    watermark_ms: Option<i64>,
    /// Entries put in (with their key) and taken away since the last call. They are encoded when
    /// asked for.
    changes: BTreeMap<EntryId, Option<Box<str>>>,
    watermark_changed: bool,
    counters: Counters,
}

impl Ledger {
    pub(crate) fn new(fingerprint: u32) -> Self {
        Self {
            fingerprint,
            keys: HashTable::new(),
            hasher: RandomState::new(),
            common: Vec::new(),
            entries: 0,
            bytes: 0,
            hops: BTreeMap::new(),
            watermark_ms: None,
            changes: BTreeMap::new(),
            watermark_changed: false,
            counters: Counters::default(),
        }
    }

    /// Puts an entry in. `false` when nothing changed: it was known, or it is beyond a bound.
    pub(crate) fn insert(&mut self, key: &str, id: EntryId, entry: &Entry) -> bool {
        match self.put(key, id, entry) {
            Put::Known => return false,
            Put::Beyond => {
                self.counters.capped_entries += 1;
                return false;
            }
            Put::New => {}
            Put::Instead(old) => {
                self.changes.insert(old, None);
            }
        }
        self.changes.insert(id, Some(key.into()));
        true
    }

    /// Puts an entry in, and holds the bound of its hop.
    fn put(&mut self, key: &str, id: EntryId, entry: &Entry) -> Put {
        if self.keys.is_empty() {
            self.common = entry.packed().to_vec();
        }
        let (hash, hop) = (self.hash(key), hop_of(id.time_ms));
        let known = self
            .keys
            .find_mut(hash, |series| series.key_bytes() == key.as_bytes());
        let (mut put, mut one_too_many) = (Put::New, None);
        if let Some(series) = known {
            let end_ms = hop.saturating_add(HOP_MS);
            if series.in_hop(hop) >= HOP_ENTRIES_MAX
                && series.last_before(end_ms, &self.common) < Some(id)
            {
                return Put::Beyond;
            }
            let before = series.bytes();
            put = series.put(id, entry, &self.common);
            self.bytes = self.bytes + series.bytes() - before;
            if series.in_hop(hop) > HOP_ENTRIES_MAX {
                one_too_many = series.last_before(end_ms, &self.common);
            }
        } else {
            let series = Series::new(key, id, entry, &self.common);
            self.bytes += series.bytes();
            let hasher = &self.hasher;
            self.keys
                .insert_unique(hash, series, |series| hasher.hash_one(series.key_bytes()));
        }
        match put {
            Put::Known | Put::Beyond => return put,
            Put::New => self.entries += 1,
            Put::Instead(old) => leave(&mut self.hops, old),
        }
        *self.hops.entry(hop).or_default() += 1;
        if let Some(last) = one_too_many {
            self.remove(key, last);
            self.counters.capped_entries += 1;
        }
        put
    }

    /// Lets the oldest hops go; `false` where there are none.
    pub(crate) fn shed(&mut self) -> bool {
        let mut gone = 0;
        let mut from_ms = i64::MIN;
        for (hop, entries) in &self.hops {
            gone += entries;
            from_ms = hop.saturating_add(HOP_MS);
            if gone * SHED_PART >= self.entries {
                break;
            }
        }
        let before = self.entries;
        self.evict_before(from_ms);
        self.counters.shed_entries += (before - self.entries) as u64;
        self.entries < before
    }

    /// What it takes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.keys.len() * KEY_BYTES
    }

    fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key.as_bytes())
    }

    fn series(&self, key: &str) -> Option<&Series> {
        self.keys.find(self.hash(key), |series| {
            series.key_bytes() == key.as_bytes()
        })
    }

    fn remove(&mut self, key: &str, id: EntryId) {
        let same = |series: &Series| series.key_bytes() == key.as_bytes();
        let Ok(mut place) = self.keys.find_entry(self.hash(key), same) else {
            return;
        };
        let series = place.get_mut();
        let before = series.bytes();
        series.remove(id, &self.common);
        self.bytes = self.bytes + series.bytes() - before;
        if series.is_empty() {
            self.bytes -= series.bytes();
            place.remove();
        }
        self.entries -= 1;
        leave(&mut self.hops, id);
        self.changes.insert(id, None);
    }

    /// When the events of a key happened, and what of them is counted, `from_ms <= time < until_ms`.
    pub(crate) fn moments(&self, key: &str, from_ms: i64, until_ms: i64) -> Vec<Moment> {
        let moments = |series: &Series| series.moments(from_ms, until_ms).collect();
        self.series(key).map(moments).unwrap_or_default()
    }

    /// Whether a key has at least so many entries.
    pub(crate) fn holds(&self, key: &str, least: usize) -> bool {
        self.series(key).is_some_and(|series| series.holds(least))
    }

    /// The entries of a key with `from_ms <= time < until_ms`, by time.
    pub(crate) fn entries(&self, key: &str, from_ms: i64, until_ms: i64) -> Vec<(i64, Entry)> {
        let entries = |series: &Series| series.entries(from_ms, until_ms, &self.common);
        self.series(key).map(entries).unwrap_or_default()
    }

    /// All keys, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(Series::key)
    }

    /// All that has entries with `from_ms <= time < until_ms`, by whole hops: keys in no order, each with
    /// the starts of its hops.
    pub(crate) fn touched(
        &self,
        from_ms: i64,
        until_ms: i64,
    ) -> impl Iterator<Item = (&str, Vec<i64>)> {
        let from_ms = hop_of(from_ms).min(until_ms);
        let until_ms = hop_of(until_ms.saturating_sub(1)).saturating_add(HOP_MS);
        let is_none = self.hops.range(from_ms..until_ms).next().is_none();
        let keys = (!is_none).then(|| self.keys.iter()).into_iter().flatten();
        keys.filter_map(move |series| {
            let moments = series.moments(from_ms, until_ms);
            let mut hops: Vec<i64> = moments.map(|moment| hop_of(moment.time_ms)).collect();
            hops.dedup();
            (!hops.is_empty()).then(|| (series.key(), hops))
        })
    }

    /// Removes whole hops that end at or before an instant.
    fn evict_before(&mut self, before_ms: i64) {
        let before_ms = hop_of(before_ms);
        let first = self.hops.first_key_value();
        if first.is_none_or(|(hop, _)| *hop >= before_ms) {
            return;
        }
        self.hops = self.hops.split_off(&before_ms);
        self.keys.retain(|series| {
            let before = series.bytes();
            let removed = series.remove_before(before_ms, &self.common);
            self.entries -= removed.len();
            self.changes
                .extend(removed.into_iter().map(|id| (id, None)));
            let stays = !series.is_empty();
            self.bytes = self.bytes + if stays { series.bytes() } else { 0 } - before;
            stays
        });
        if self.keys.len() < self.keys.capacity() / 4 {
            let hasher = &self.hasher;
            self.keys
                .shrink_to_fit(|series| hasher.hash_one(series.key_bytes()));
        }
    }

    /// Notes a watermark and forgets what lies before `keep_from_ms`.
    pub(crate) fn evict(&mut self, watermark_ms: i64, keep_from_ms: i64) {
        if self.watermark_ms.is_some_and(|known| known >= watermark_ms) {
            return;
        }
        self.watermark_ms = Some(watermark_ms);
        self.watermark_changed = true;
        self.evict_before(keep_from_ms);
    }

    /// The last watermark, which survives a restart: what was final stays final.
    pub(crate) fn watermark_ms(&self) -> Option<i64> {
        self.watermark_ms
    }

    /// Counts an event that came too late.
    pub(crate) fn count_late(&mut self) {
        self.counters.late_events += 1;
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            entries: self.entries as u64,
            keys: self.keys.len() as u64,
            ..self.counters
        }
    }

    /// The changes since the last call.
    pub(crate) fn drain(&mut self) -> Vec<StateChange> {
        let changes = std::mem::take(&mut self.changes);
        let mut drained: Vec<StateChange> = changes
            .into_iter()
            .map(|(id, key)| StateChange {
                key: entry_key(id),
                value: key.and_then(|key| self.encoded(&key, id)),
            })
            .collect();
        if std::mem::take(&mut self.watermark_changed)
            && let Some(watermark_ms) = self.watermark_ms
        {
            drained.push(StateChange {
                key: vec![KIND_WATERMARK],
                value: Some(watermark_ms.to_be_bytes().to_vec()),
            });
        }
        drained
    }

    /// Forgets what changed since the last call.
    pub(crate) fn drop_changes(&mut self) {
        self.changes.clear();
    }

    /// Puts a stored value back; says what is wrong with it.
    pub(crate) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            [KIND_WATERMARK] => {
                let bytes = value
                    .try_into()
                    .map_err(|_| "a watermark has 8 bytes".to_owned())?;
                self.watermark_ms = Some(i64::from_be_bytes(bytes));
                Ok(())
            }
            [KIND_ENTRY, id @ ..] => {
                let id = entry_id(id).ok_or("a key of an entry has 21 bytes")?;
                let stored =
                    Stored::decode(value).ok_or("a value of an entry is cut or mixed up")?;
                if stored.fingerprint == self.fingerprint {
                    let entry = Entry::from_parts(stored.packed, stored.value, stored.flags)
                        .ok_or("the fields of an entry are cut")?;
                    self.put(stored.key, id, &entry);
                } else {
                    // The rule reads other fields now. What was stored cannot be told apart.
                    self.counters.outdated_entries += 1;
                    self.changes.insert(id, None);
                }
                Ok(())
            }
            _ => Err("a key of an unknown kind".to_owned()),
        }
    }

    /// Reads an entry that another ledger stored, to be put in here as a new one. `None` where the
    /// value is no entry, or one of another form of the rule.
    pub(crate) fn foreign(
        &self,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<(String, EntryId, Entry)>, String> {
        let [KIND_ENTRY, id @ ..] = key else {
            return Ok(None);
        };
        let id = entry_id(id).ok_or("a key of an entry has 21 bytes")?;
        let stored = Stored::decode(value).ok_or("a value of an entry is cut or mixed up")?;
        if stored.fingerprint != self.fingerprint {
            return Ok(None);
        }
        let entry = Entry::from_parts(stored.packed, stored.value, stored.flags)
            .ok_or("the fields of an entry are cut")?;
        Ok(Some((stored.key.to_owned(), id, entry)))
    }

    fn encoded(&self, key: &str, id: EntryId) -> Option<Vec<u8>> {
        let entry = self.series(key)?.entry(id, &self.common)?;
        let stored = Stored {
            fingerprint: self.fingerprint,
            value: entry.value,
            flags: entry.flags,
            key,
            packed: entry.packed(),
        };
        Some(stored.encode())
    }
}

/// One entry fewer in the hop that holds it.
fn leave(hops: &mut BTreeMap<i64, usize>, id: EntryId) {
    let hop = hop_of(id.time_ms);
    if let Some(entries) = hops.get_mut(&hop) {
        *entries -= 1;
        if *entries == 0 {
            hops.remove(&hop);
        }
    }
}

/// Start of the hop that holds an instant.
pub(super) fn hop_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOP_MS).saturating_mul(HOP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Layout;
    use chrono::DateTime;
    use exfilwatch_model::{Event, Product};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn entry(record: &str, time_ms: i64, text: &str) -> (EntryId, Entry) {
        let time = DateTime::from_timestamp_millis(time_ms).unwrap();
        let mut event = Event::new(Product::M365, record.into(), 0, time, bytes::Bytes::new());
        event.set("a", text);
        let layout = Layout::new(vec!["a".into()], 0);
        (EntryId::new("k", &event), Entry::new(&event, &layout, 0, 0))
    }

    fn texts(ledger: &Ledger) -> Vec<(i64, String)> {
        let entries = ledger.entries("k", i64::MIN, i64::MAX);
        let text = |e: &Entry| e.view().unwrap().field(0).unwrap_or_default().to_owned();
        entries
            .iter()
            .map(|(time_ms, entry)| (*time_ms, text(entry)))
            .collect()
    }

    #[test]
    fn of_two_versions_of_one_event_the_same_stays_in_either_order() {
        let versions = [entry("r", 5, "b"), entry("r", 5, "a"), entry("r", 9, "a")];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut ledger = Ledger::new(0);
            for i in order {
                let (id, entry) = &versions[i];
                ledger.insert("k", *id, entry);
            }
            assert_eq!(texts(&ledger), [(5, "a".to_owned())], "{order:?}");
            assert_eq!(ledger.counters().entries, 1);
        }
    }

    #[test]
    fn the_same_event_again_changes_nothing() {
        let mut ledger = Ledger::new(0);
        let (id, one) = entry("r", 5, "a");
        assert!(ledger.insert("k", id, &one));
        assert_eq!(ledger.drain().len(), 1);
        assert!(!ledger.insert("k", id, &one));
        assert!(ledger.drain().is_empty());
    }

    #[test]
    fn the_earliest_of_an_hour_stay_whatever_the_order() {
        let most = i64::from(HOP_ENTRIES_MAX);
        let all: Vec<_> = (0..most + 50)
            .map(|i| entry(&format!("r{i}"), i * 300, ""))
            .collect();
        let (mut forward, mut backward) = (Ledger::new(0), Ledger::new(0));
        for (id, entry) in &all {
            forward.insert("k", *id, entry);
        }
        for (id, entry) in all.iter().rev() {
            backward.insert("k", *id, entry);
        }
        assert_eq!(texts(&forward), texts(&backward));
        assert_eq!(
            texts(&forward).last().map(|(time, _)| *time),
            Some((most - 1) * 300)
        );
        assert_eq!(forward.counters().capped_entries, 50);
        let stored = |ledger: &mut Ledger| {
            ledger
                .drain()
                .into_iter()
                .filter(|change| change.value.is_some())
                .count()
        };
        assert_eq!(stored(&mut forward), usize::try_from(most).unwrap());
        assert_eq!(stored(&mut backward), usize::try_from(most).unwrap());
    }

    #[test]
    fn the_oldest_hops_go_where_there_is_no_room() {
        let (mut ledger, mut store) = (Ledger::new(0), BTreeMap::new());
        for i in 0..4_000 {
            let (id, entry) = entry(&format!("r{i}"), i * 60_000, "");
            assert!(ledger.insert("k", id, &entry));
        }
        follow(&mut store, ledger.drain());
        let bytes = ledger.bytes();
        assert!(ledger.shed() && ledger.bytes() < bytes);
        follow(&mut store, ledger.drain());
        let (stays, counters) = (texts(&ledger), ledger.counters());
        // A 32nd of 4,000, by whole hours.
        assert_eq!((counters.shed_entries, counters.entries), (180, 3_820));
        assert_eq!(stays.first().map(|(time, _)| *time), Some(3 * HOP_MS));
        assert_eq!(store.len(), stays.len(), "the store follows");
        while ledger.shed() {}
        assert_eq!((ledger.counters().entries, ledger.bytes()), (0, 0));
    }

    /// What the store holds after some changes.
    fn follow(store: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Vec<StateChange>) {
        for StateChange { key, value } in changes {
            match value {
                Some(value) => store.insert(key, value),
                None => store.remove(&key),
            };
        }
    }

    /// What a ledger is to hold, written the slow way: the smallest version of each event.
    type Plain = BTreeMap<(usize, u64, u32), (i64, Entry)>;

    fn check(ledger: &Ledger, plain: &Plain) {
        for key in 0..3 {
            let of_key = plain.iter().filter(|((k, ..), _)| *k == key);
            let mut expected: Vec<_> = of_key
                .map(|((_, hash, part), (time_ms, entry))| ((*time_ms, *hash, *part), entry))
                .collect();
            expected.sort_by_key(|(id, _)| *id);
            let expected: Vec<_> = expected
                .iter()
                .map(|((time_ms, ..), entry)| (*time_ms, (*entry).clone()))
                .collect();
            let key = format!("k{key}");
            assert_eq!(ledger.entries(&key, i64::MIN, i64::MAX), expected);
            assert!(!ledger.holds(&key, expected.len() + 1));
            assert!(expected.is_empty() || ledger.holds(&key, expected.len()));
            let (from_ms, until_ms) = (2 * HOP_MS, 5 * HOP_MS + 7);
            let moments = ledger.moments(&key, from_ms, until_ms);
            let of_some = ledger.entries(&key, from_ms, until_ms);
            let mut some = expected.clone();
            some.retain(|(time_ms, _)| (from_ms..until_ms).contains(time_ms));
            assert_eq!(of_some, some);
            let some: Vec<_> = some.iter().map(|(at, e)| (*at, e.value)).collect();
            let moments: Vec<_> = moments.iter().map(|m| (m.time_ms, m.value)).collect();
            assert_eq!(moments, some);
        }
        let keys: BTreeSet<usize> = plain.keys().map(|(key, ..)| *key).collect();
        let counters = ledger.counters();
        let known = (counters.entries, counters.keys);
        assert_eq!(known, (plain.len() as u64, keys.len() as u64));
        let mut hops = BTreeMap::new();
        for (time_ms, _) in plain.values() {
            *hops.entry(hop_of(*time_ms)).or_insert(0) += 1;
        }
        assert_eq!(ledger.hops, hops);
        let bytes: usize = ledger.keys.iter().map(Series::bytes).sum();
        assert_eq!(ledger.bytes, bytes);
        let of_keys = ledger.touched(i64::MIN, i64::MAX);
        let touched: usize = of_keys.map(|(_, hops)| hops.len()).sum();
        let expected: BTreeSet<_> = plain
            .iter()
            .map(|((key, ..), (time_ms, _))| (*key, hop_of(*time_ms)))
            .collect();
        assert_eq!(touched, expected.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Few records, so that many come again at other times; long texts, so that a key takes several
        /// blocks; ids that are cut.
        #[test]
        fn it_holds_what_a_plain_table_holds(
            events in prop::collection::vec((0..3_usize, 0..40_usize, 0..2_u32, 0..8_i64, 0..3_usize), 1..120),
            evicted in 0..8_i64,
        ) {
            let (mut ledger, mut plain, mut store) = (Ledger::new(0), Plain::new(), BTreeMap::new());
            for (i, (key, record, part, hop, text)) in events.iter().enumerate() {
                let record = if *record == 0 { "x".repeat(600) } else { format!("r{record}") };
                let text = ["a", "b", "c"][*text].repeat(text * 250 + 1);
                let (mut id, mut entry) = entry(&record, hop * HOP_MS + i64::from(*part), &text);
                entry.value = u64::from(*part + u32::from(*hop > 3));
                id.part = *part;
                id.hash = super::super::entry::event_hash(&format!("k{key}"), record.as_bytes());
                let place = (*key, id.hash, *part);
                let new = (id.time_ms, entry.clone());
                let is_less = plain.get(&place).is_none_or(|known| new < *known);
                prop_assert_eq!(ledger.insert(&format!("k{key}"), id, &entry), is_less);
                if is_less {
                    plain.insert(place, new);
                }
                if i % 7 == 0 {
                    follow(&mut store, ledger.drain());
                }
            }
            check(&ledger, &plain);
            ledger.evict(0, evicted * HOP_MS);
            plain.retain(|_, (time_ms, _)| *time_ms >= evicted * HOP_MS);
            check(&ledger, &plain);
            follow(&mut store, ledger.drain());
            let mut again = Ledger::new(0);
            for (key, value) in &store {
                again.restore(key, value).unwrap();
            }
            check(&again, &plain);
        }
    }

    #[test]
    fn entries_of_another_form_of_the_rule_are_let_go_and_counted() {
        let mut old = Ledger::new(1);
        let (id, one) = entry("r", 5, "a");
        old.insert("k", id, &one);
        old.evict(7, 0);
        let stored = old.drain();
        let (mut same, mut changed) = (Ledger::new(1), Ledger::new(2));
        for StateChange { key, value } in &stored {
            same.restore(key, value.as_deref().unwrap()).unwrap();
            changed.restore(key, value.as_deref().unwrap()).unwrap();
        }
        assert_eq!(texts(&same), texts(&old));
        assert_eq!(same.watermark_ms(), Some(7));
        assert!(
            same.drain().is_empty(),
            "what was restored is in the store already"
        );
        assert_eq!(
            (
                changed.counters().entries,
                changed.counters().outdated_entries
            ),
            (0, 1)
        );
        assert!(changed.drain().iter().all(|change| change.value.is_none()));
        assert!(same.restore(b"e", b"").is_err());
        assert!(same.restore(b"x", b"").is_err());
        assert!(same.restore(&stored[0].key, &[1, 2]).is_err());
    }
}

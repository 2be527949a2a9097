//! The memory of a detector: entries by key and event time, with bounds, and as small changes for
//! the store.
//!
//! What stays is a function of the set of entries put in, whatever their order: of two versions of
//! one event the smaller, of too many in one hour of a key the earliest. An event is one value in
//! the store, so a change is as small as it can be; hours matter only for bounds and eviction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::entry::{Entry, EntryId};
use super::stored::{KIND_ENTRY, KIND_WATERMARK, Stored, entry_id, entry_key};
use crate::contract::{Counters, StateChange};

/// Length of a hop, in milliseconds.
pub(crate) const HOP_MS: i64 = 3_600_000;
/// Most entries of one key within a hop; the earliest stay.
pub(crate) const HOP_ENTRIES_MAX: u32 = 10_000;
/// Most entries of a detector (about 400 bytes each); the oldest hop goes.
const ENTRIES_MAX: usize = 250_000;

/// The memory of a detector.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Tells entries of an older form of the rule from ours.
    fingerprint: u32,
    entries: BTreeMap<(u64, EntryId), Entry>,
    numbers: HashMap<Arc<str>, u64>,
    keys: HashMap<u64, Key>,
    next_number: u64,
    /// Entries by hop and key.
    hops: BTreeMap<i64, HashMap<u64, u32>>,
    /// Event time by hash and part: finds another version of the same event.
    times: HashMap<(u64, u32), i64>,
    watermark_ms: Option<i64>,
    /// Entries put in (with the number of their key) and taken away since the last call. They are
    /// encoded when asked for.
    changes: BTreeMap<EntryId, Option<u64>>,
    watermark_changed: bool,
    counters: Counters,
}

#[derive(Debug)]
struct Key {
    text: Arc<str>,
    entries: usize,
}

impl Ledger {
    pub(crate) fn new(fingerprint: u32) -> Self {
        Self {
            fingerprint,
            ..Self::default()
        }
    }

    /// Puts an entry in. `false` when nothing changed: it was known, or it is beyond a bound.
    pub(crate) fn insert(&mut self, key: &str, id: EntryId, entry: Entry) -> bool {
        if let Some(&known_ms) = self.times.get(&(id.hash, id.part)) {
            let known_id = EntryId {
                time_ms: known_ms,
                ..id
            };
            let known = self
                .numbers
                .get(key)
                .and_then(|n| self.entries.get(&(*n, known_id)));
            if known.is_some_and(|known| (known_ms, known) <= (id.time_ms, &entry)) {
                return false;
            }
            if let Some(&number) = self.numbers.get(key) {
                self.remove(number, known_id);
            }
        }
        let number = self.put(key, id, entry);
        let stays = self.times.contains_key(&(id.hash, id.part));
        if stays {
            self.changes.insert(id, Some(number));
        }
        stays
    }

    /// Puts an entry in and holds the bounds.
    fn put(&mut self, key: &str, id: EntryId, entry: Entry) -> u64 {
        let number = self.number_of(key);
        self.entries.insert((number, id), entry);
        self.times.insert((id.hash, id.part), id.time_ms);
        if let Some(key) = self.keys.get_mut(&number) {
            key.entries += 1;
        }
        let hop = hop_of(id.time_ms);
        let in_hop = self.hops.entry(hop).or_default().entry(number).or_default();
        *in_hop += 1;
        if *in_hop > HOP_ENTRIES_MAX {
            let latest = self
                .range(number, hop, hop.saturating_add(HOP_MS))
                .next_back();
            if let Some(latest) = latest.map(|(id, _)| *id) {
                self.remove(number, latest);
                self.counters.capped_entries += 1;
            }
        }
        if self.entries.len() > ENTRIES_MAX
            && let Some((&oldest, _)) = self.hops.first_key_value()
        {
            let before = self.entries.len();
            self.evict_before(oldest.saturating_add(HOP_MS));
            self.counters.shed_entries += (before - self.entries.len()) as u64;
        }
        number
    }

    fn number_of(&mut self, key: &str) -> u64 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = self.next_number;
        self.next_number += 1;
        let text: Arc<str> = key.into();
        self.numbers.insert(Arc::clone(&text), number);
        self.keys.insert(number, Key { text, entries: 0 });
        number
    }

    fn remove(&mut self, number: u64, id: EntryId) {
        if self.entries.remove(&(number, id)).is_none() {
            return;
        }
        self.times.remove(&(id.hash, id.part));
        self.changes.insert(id, None);
        let hop = hop_of(id.time_ms);
        if let Some(keys) = self.hops.get_mut(&hop) {
            if let Some(count) = keys.get_mut(&number) {
                *count -= 1;
                if *count == 0 {
                    keys.remove(&number);
                }
            }
            if keys.is_empty() {
                self.hops.remove(&hop);
            }
        }
        if let Some(key) = self.keys.get_mut(&number) {
            key.entries -= 1;
            if key.entries == 0 {
                self.numbers.remove(&key.text);
                self.keys.remove(&number);
            }
        }
    }

    /// The entries of a key with `from_ms <= time < until_ms`, by time.
    pub(crate) fn entries(&self, key: &str, from_ms: i64, until_ms: i64) -> Vec<(EntryId, &Entry)> {
        match self.numbers.get(key) {
            Some(&number) => self
                .range(number, from_ms, until_ms)
                .map(|(id, e)| (*id, e))
                .collect(),
            None => Vec::new(),
        }
    }

    fn range(
        &self,
        number: u64,
        from_ms: i64,
        until_ms: i64,
    ) -> impl DoubleEndedIterator<Item = (&EntryId, &Entry)> {
        let edge = |time_ms| {
            (
                number,
                EntryId {
                    time_ms,
                    hash: 0,
                    part: 0,
                },
            )
        };
        let range = edge(from_ms)..edge(until_ms.max(from_ms));
        self.entries
            .range(range)
            .map(|((_, id), entry)| (id, entry))
    }

    /// Start of hop and key of all that has entries from `from_ms` up to `until_ms`, by key.
    pub(crate) fn touched(&self, from_ms: i64, until_ms: i64) -> Vec<(Arc<str>, i64)> {
        let from = hop_of(from_ms).min(until_ms);
        let hops = self.hops.range(from..until_ms);
        let mut touched: Vec<_> = hops
            .flat_map(|(&hop, keys)| keys.keys().map(move |number| (number, hop)))
            .filter_map(|(number, hop)| Some((Arc::clone(&self.keys.get(number)?.text), hop)))
            .collect();
        touched.sort();
        touched
    }

    /// Removes whole hops that end at or before an instant.
    fn evict_before(&mut self, before_ms: i64) {
        while let Some((&hop, keys)) = self.hops.first_key_value()
            && hop.saturating_add(HOP_MS) <= before_ms
        {
            let numbers: Vec<u64> = keys.keys().copied().collect();
            for number in numbers {
                let ids: Vec<EntryId> = self
                    .range(number, hop, hop.saturating_add(HOP_MS))
                    .map(|(id, _)| *id)
                    .collect();
                for id in ids {
                    self.remove(number, id);
                }
            }
            // Nothing may keep the loop from ending.
            self.hops.remove(&hop);
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
            entries: self.entries.len() as u64,
            keys: self.keys.len() as u64,
            ..self.counters
        }
    }

    /// The changes since the last call.
    pub(crate) fn drain(&mut self) -> Vec<StateChange> {
        let changes = std::mem::take(&mut self.changes);
        let mut drained: Vec<StateChange> = changes
            .into_iter()
            .map(|(id, number)| StateChange {
                key: entry_key(id),
                value: number.and_then(|number| self.encoded(number, id)),
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
                    self.put(stored.key, id, entry);
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

    fn encoded(&self, number: u64, id: EntryId) -> Option<Vec<u8>> {
        let entry = self.entries.get(&(number, id))?;
        let stored = Stored {
            fingerprint: self.fingerprint,
            value: entry.value,
            flags: entry.flags,
            key: &self.keys.get(&number)?.text,
            packed: entry.packed(),
        };
        Some(stored.encode())
    }
}

fn hop_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOP_MS).saturating_mul(HOP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Layout;
    use chrono::DateTime;
    use exfilwatch_model::{Event, Product};

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
            .map(|(id, entry)| (id.time_ms, text(entry)))
            .collect()
    }

    #[test]
    fn of_two_versions_of_one_event_the_same_stays_in_either_order() {
        let versions = [entry("r", 5, "b"), entry("r", 5, "a"), entry("r", 9, "a")];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut ledger = Ledger::new(0);
            for i in order {
                let (id, entry) = versions[i].clone();
                ledger.insert("k", id, entry);
            }
            assert_eq!(texts(&ledger), [(5, "a".to_owned())], "{order:?}");
            assert_eq!(ledger.counters().entries, 1);
        }
    }

    #[test]
    fn the_same_event_again_changes_nothing() {
        let mut ledger = Ledger::new(0);
        let (id, one) = entry("r", 5, "a");
        assert!(ledger.insert("k", id, one.clone()));
        assert_eq!(ledger.drain().len(), 1);
        assert!(!ledger.insert("k", id, one));
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
            forward.insert("k", *id, entry.clone());
        }
        for (id, entry) in all.iter().rev() {
            backward.insert("k", *id, entry.clone());
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
    fn the_oldest_hop_goes_when_there_are_too_many() {
        let mut ledger = Ledger::new(0);
        for i in 0..=ENTRIES_MAX {
            let time_ms = i64::try_from(i).unwrap() * 1_000;
            let (id, entry) = entry(&format!("r{i}"), time_ms, "");
            ledger.insert("k", id, entry);
        }
        assert_eq!(ledger.counters().shed_entries, 3_600);
        assert_eq!(texts(&ledger).first().map(|(time, _)| *time), Some(HOP_MS));
    }

    #[test]
    fn entries_of_another_form_of_the_rule_are_let_go_and_counted() {
        let mut old = Ledger::new(1);
        let (id, one) = entry("r", 5, "a");
        old.insert("k", id, one);
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

//! The memory of a detector: entries by key and event time, with bounds, and as small changes for
//! the store.
//!
//! What stays is a function of the set of entries put in, whatever their order: of two versions of
//! one event the smaller, of too many in one hour of a key the earliest. An event is one value in
//! the store, so a change is as small as it can be; hours matter only for bounds and eviction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::entry::{Entry, EntryId};
use crate::contract::{Counters, StateChange};

/// Length of a hop, in milliseconds.
pub(crate) const HOP_MS: i64 = 3_600_000;
/// Most entries of one key within a hop; the earliest stay.
pub(crate) const HOP_ENTRIES_MAX: u32 = 10_000;
/// Most entries of a detector (about 300 bytes each); the oldest hop goes.
const ENTRIES_MAX: usize = 250_000;

const KIND_ENTRY: u8 = b'e';
const KIND_WATERMARK: u8 = b'w';
const FORMAT: u8 = 1;

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
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
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
        self.put(key, id, entry);
        let stays = self.times.contains_key(&(id.hash, id.part));
        if stays && let Some(value) = self.encoded(key, id) {
            self.changes.insert(entry_key(id), Some(value));
        }
        stays
    }

    /// Puts an entry in and holds the bounds.
    fn put(&mut self, key: &str, id: EntryId, entry: Entry) {
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
        self.changes.insert(entry_key(id), None);
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
        self.changes.insert(
            vec![KIND_WATERMARK],
            Some(watermark_ms.to_be_bytes().to_vec()),
        );
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
        changes
            .into_iter()
            .map(|(key, value)| StateChange { key, value })
            .collect()
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
                    self.changes.insert(key.to_vec(), None);
                }
                Ok(())
            }
            _ => Err("a key of an unknown kind".to_owned()),
        }
    }

    fn encoded(&self, key: &str, id: EntryId) -> Option<Vec<u8>> {
        let number = self.numbers.get(key)?;
        let entry = self.entries.get(&(*number, id))?;
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

/// An entry in the store.
struct Stored<'a> {
    fingerprint: u32,
    value: u64,
    flags: u32,
    key: &'a str,
    packed: &'a [u8],
}

impl<'a> Stored<'a> {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + self.key.len() + self.packed.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&self.value.to_le_bytes());
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.extend_from_slice(
            &u16::try_from(self.key.len())
                .unwrap_or_default()
                .to_le_bytes(),
        );
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(self.packed);
        debug_assert!(
            bytes.len() <= 4_096,
            "a value of the store is at most 4 KiB"
        );
        bytes
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (flags, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (key, packed) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        Some(Self {
            fingerprint: u32::from_le_bytes(*fingerprint),
            value: u64::from_le_bytes(*value),
            flags: u32::from_le_bytes(*flags),
            key: std::str::from_utf8(key).ok()?,
            packed,
        })
    }
}

fn hop_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOP_MS).saturating_mul(HOP_MS)
}

/// `e`, event time, hash, part: in the store entries lie by time.
fn entry_key(id: EntryId) -> Vec<u8> {
    let mut key = Vec::with_capacity(21);
    key.push(KIND_ENTRY);
    key.extend_from_slice(&(id.time_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    key.extend_from_slice(&id.hash.to_be_bytes());
    key.extend_from_slice(&id.part.to_be_bytes());
    key
}

fn entry_id(bytes: &[u8]) -> Option<EntryId> {
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    let (hash, part) = rest.split_first_chunk::<8>()?;
    Some(EntryId {
        time_ms: (u64::from_be_bytes(*time) ^ (1 << 63)).cast_signed(),
        hash: u64::from_be_bytes(*hash),
        part: u32::from_be_bytes(part.try_into().ok()?),
    })
}

//! The mailboxes or documents of one room, with their slots, within bounds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::slot::{Said, Slot, SlotId};
use super::{Room, forwarding, sharing};

/// Things of which nothing but an end or an access is known: they only guard against records that come late.
pub(super) const UNGRANTED_MAX: usize = 5_000;
/// Key, in the store, of the count of what had to go.
const EVICTED: &[u8] = b"evicted";

type Hash = [u8; 16];

/// Which slot; without a hash the count of what had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotKey(Option<(Hash, Hash)>);

impl SlotKey {
    fn of(slot: &SlotId) -> Self {
        let hash = |text: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).into_bytes();
        let name = format!("{}\u{0}{}", slot.via, slot.name);
        Self(Some((hash(&slot.of), hash(&name))))
    }

    /// As it stands in the store.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match &self.0 {
            Some((thing, slot)) => [*thing, *slot].concat(),
            None => EVICTED.to_vec(),
        }
    }
}

/// How much a thing would be missed; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Ungranted,
    Closed,
    Open,
}

type Place = (Worth, DateTime<Utc>, Hash);

/// A mailbox or document.
#[derive(Debug, Default)]
pub(super) struct Thing {
    pub(super) slots: BTreeMap<Hash, Slot>,
    place: Option<Place>,
}

impl Thing {
    pub(super) fn slot(&self, via: &str, name: &str) -> Option<&Slot> {
        let mut slots = self.slots.values();
        slots.find(|slot| slot.id.via == via && slot.id.name == name)
    }
}

/// What cannot be read again.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadEntry {
    #[error("its key is {0} bytes long and not 32")]
    Key(usize),
    #[error("it is not in a form that is known: {0}")]
    Value(#[from] serde_json::Error),
}

/// The things of one room.
#[derive(Debug)]
pub(super) struct Things {
    room: Room,
    pub(super) slots_max: usize,
    by_hash: HashMap<Hash, Thing>,
    by_worth: BTreeSet<Place>,
    slots: usize,
    ungranted: usize,
    /// Slots that had to go since the beginning, of things that stood open.
    pub(super) evicted: u64,
}

impl Things {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            slots_max: room.slots_max(),
            by_hash: HashMap::new(),
            by_worth: BTreeSet::new(),
            slots: 0,
            ungranted: 0,
            evicted: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Thing> {
        self.by_hash.values()
    }

    /// Puts an entry of the store back.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadEntry> {
        if key == EVICTED {
            self.evicted = serde_json::from_slice(value)?;
            return Ok(());
        }
        let halves = (key.get(..16), key.get(16..32), key.len() == 32);
        let (Some(thing), Some(slot), true) = halves else {
            return Err(BadEntry::Key(key.len()));
        };
        let entry: Slot = serde_json::from_slice(value)?;
        if let (Ok(thing), Ok(slot)) = (thing.try_into(), slot.try_into()) {
            self.put(thing, slot, entry);
        }
        Ok(())
    }

    /// How a slot is written; `None` where it is gone.
    pub(super) fn value(&self, key: &SlotKey) -> Option<Vec<u8>> {
        let written = match &key.0 {
            Some((thing, slot)) => serde_json::to_vec(self.by_hash.get(thing)?.slots.get(slot)?),
            None => serde_json::to_vec(&self.evicted),
        };
        // Plain data: it can always be written.
        written.ok()
    }

    /// Takes in what was said, and says which slots are to be written.
    pub(super) fn fold(&mut self, said: Said) -> BTreeSet<SlotKey> {
        let key = SlotKey::of(&said.slot);
        let Some((thing, slot)) = key.0 else {
            return BTreeSet::new();
        };
        let before = self
            .by_hash
            .get(&thing)
            .and_then(|known| known.slots.get(&slot));
        let after = match before.cloned() {
            Some(mut known) => {
                known.fold(said);
                known
            }
            None => Slot::of(said),
        };
        if before == Some(&after) {
            return BTreeSet::new();
        }
        self.put(thing, slot, after);
        let mut changed = self.keep_within_bounds();
        changed.insert(key);
        changed
    }

    fn put(&mut self, hash: Hash, slot: Hash, value: Slot) {
        let thing = self.by_hash.entry(hash).or_default();
        let is_new = thing.slots.insert(slot, value).is_none();
        let last = thing.slots.values().map(Slot::last).max();
        let place = (worth(self.room, thing), last.unwrap_or_default(), hash);
        let before = thing.place.replace(place);
        self.slots += usize::from(is_new);
        if let Some(before) = before {
            self.leave(&before);
        }
        self.ungranted += usize::from(place.0 == Worth::Ungranted);
        self.by_worth.insert(place);
    }

    fn leave(&mut self, place: &Place) {
        self.by_worth.remove(place);
        self.ungranted -= usize::from(place.0 == Worth::Ungranted);
    }

    fn keep_within_bounds(&mut self) -> BTreeSet<SlotKey> {
        let mut gone = BTreeSet::new();
        while self.slots > self.slots_max || self.ungranted > UNGRANTED_MAX {
            let Some(first) = self.by_worth.first().copied() else {
                break;
            };
            self.leave(&first);
            let thing = self.by_hash.remove(&first.2).unwrap_or_default();
            self.slots -= thing.slots.len();
            if first.0 == Worth::Open {
                self.evicted += thing.slots.len() as u64;
                gone.insert(SlotKey(None));
            }
            let keys = thing.slots.into_keys();
            gone.extend(keys.map(|slot| SlotKey(Some((first.2, slot)))));
        }
        gone
    }
}

fn worth(room: Room, thing: &Thing) -> Worth {
    let (granted, open) = match room {
        Room::Forwarding => (true, forwarding::open(thing).next().is_some()),
        Room::Sharing => (
            sharing::was_granted(thing),
            sharing::open(thing).next().is_some(),
        ),
    };
    match (granted, open) {
        (_, true) => Worth::Open,
        (true, false) => Worth::Closed,
        (false, false) => Worth::Ungranted,
    }
}

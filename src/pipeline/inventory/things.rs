//! The mailboxes or documents of one room, with their slots, within bounds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::slot::{Said, Slot, SlotId, WHOLE};
use super::{Room, forwarding, sharing};

/// Things of which nothing but an end or an access is known: they only guard against records that come late.
pub(super) const UNGRANTED_MAX: usize = 5_000;
/// Slots of one thing. What is open of it is worked out whenever something of it changes.
pub(super) const SLOTS_EACH: usize = 2_000;
/// Key, in the store, of the count of what had to go.
const EVICTED: &[u8] = b"evicted";

type Hash = [u8; 16];

/// Which slot; without a hash the count of what had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotKey(Option<(Hash, Hash)>);

impl SlotKey {
    fn of(slot: &SlotId) -> Self {
        let slot_hash = hash_of_slot(&slot.via, &slot.name, &slot.parameter);
        Self(Some((hash_of(&slot.of), slot_hash)))
    }

    /// As it stands in the store.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match &self.0 {
            Some((thing, slot)) => [*thing, *slot].concat(),
            None => EVICTED.to_vec(),
        }
    }
}

fn hash_of(text: &str) -> Hash {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).into_bytes()
}

fn hash_of_slot(via: &str, name: &str, parameter: &str) -> Hash {
    let mut text = format!("{via}\u{0}{name}");
    if !parameter.is_empty() {
        text.push('\u{0}');
        text.push_str(parameter);
    }
    hash_of(&text)
}

/// How much a thing would be missed; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Ungranted,
    Closed,
    Open,
}

type Place = (Worth, DateTime<Utc>, Hash);

/// How much a slot would be missed of its thing; the least goes first. What only says that others are over
/// stays as long as those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SlotWorth {
    Over,
    Guard,
    Open,
    /// Its end, and its last access: at most two slots, which go with the thing.
    Thing,
}

type Weighed = (SlotWorth, DateTime<Utc>, Hash);

/// A mailbox or document.
#[derive(Debug, Default)]
pub(super) struct Thing {
    pub(super) slots: BTreeMap<Hash, Slot>,
    place: Option<Place>,
    /// Slots that may go though it stays, since nothing is open by them.
    closed: usize,
}

impl Thing {
    /// A slot that is of no parameter.
    pub(super) fn slot(&self, via: &str, name: &str) -> Option<&Slot> {
        self.slots.get(&hash_of_slot(via, name, ""))
    }

    /// What each slot is worth, and when something was last said of it.
    fn weighed(&self, room: Room) -> Vec<Weighed> {
        match room {
            Room::Forwarding => self.weighed_by(forwarding::opens(self)),
            Room::Sharing => self.weighed_by(sharing::opens(self)),
        }
    }

    fn weighed_by(&self, is_open: impl Fn(&Slot) -> bool) -> Vec<Weighed> {
        let slots = self.slots.iter();
        slots
            .map(|(hash, slot)| (slot_worth(slot, is_open(slot)), slot.last(), *hash))
            .collect()
    }

    fn worth(&self, room: Room, slots: &[Weighed]) -> Worth {
        let is_open = slots.iter().any(|(worth, ..)| *worth == SlotWorth::Open);
        match room {
            _ if is_open => Worth::Open,
            Room::Forwarding => Worth::Closed,
            Room::Sharing if sharing::says_open(self).is_some() => Worth::Open,
            Room::Sharing if sharing::was_granted(self) => Worth::Closed,
            Room::Sharing => Worth::Ungranted,
        }
    }
}

fn slot_worth(slot: &Slot, is_open: bool) -> SlotWorth {
    let is_whole = slot.id.via == WHOLE;
    if is_whole && slot.id.name.is_empty() || slot.id.via == sharing::ACCESS {
        SlotWorth::Thing
    } else if is_open {
        SlotWorth::Open
    } else if is_whole || forwarding::is_of_rule(slot) {
        SlotWorth::Guard
    } else {
        SlotWorth::Over
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
    pub(super) slots_each: usize,
    by_hash: HashMap<Hash, Thing>,
    by_worth: BTreeSet<Place>,
    /// Things by how many slots of them may go though they stay.
    by_closed: BTreeSet<(usize, Hash)>,
    slots: usize,
    ungranted: usize,
    /// Slots that had to go since the beginning: with things that stood open, or open themselves.
    pub(super) evicted: u64,
}

impl Things {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            slots_max: room.slots_max(),
            slots_each: SLOTS_EACH,
            by_hash: HashMap::new(),
            by_worth: BTreeSet::new(),
            by_closed: BTreeSet::new(),
            slots: 0,
            ungranted: 0,
            evicted: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Thing> {
        self.by_hash.values()
    }

    /// Puts an entry of the store back. After the last one, [`Things::restored`].
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

    /// All entries were put back.
    pub(super) fn restored(&mut self) {
        let things: Vec<Hash> = self.by_hash.keys().copied().collect();
        for thing in things {
            self.place(thing);
        }
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
        self.place(thing);
        let mut changed = self.keep_thing_within_bounds(thing);
        changed.extend(self.keep_within_bounds());
        changed.insert(key);
        changed
    }

    fn put(&mut self, hash: Hash, slot: Hash, value: Slot) {
        let thing = self.by_hash.entry(hash).or_default();
        let is_new = thing.slots.insert(slot, value).is_none();
        self.slots += usize::from(is_new);
    }

    /// Works out anew what a thing is worth.
    fn place(&mut self, hash: Hash) {
        let Some(thing) = self.by_hash.get_mut(&hash) else {
            return;
        };
        let slots = thing.weighed(self.room);
        let worth = thing.worth(self.room, &slots);
        let last = slots.iter().map(|(_, last, _)| *last).max();
        let place = (worth, last.unwrap_or_default(), hash);
        let closed = slots.iter().filter(|slot| slot.0 < SlotWorth::Open).count();
        let before = (thing.place.replace(place), thing.closed);
        thing.closed = closed;
        if let (Some(place), closed) = before {
            self.leave(&place, closed);
        }
        self.ungranted += usize::from(worth == Worth::Ungranted);
        self.by_worth.insert(place);
        self.by_closed.insert((closed, hash));
    }

    fn leave(&mut self, place: &Place, closed: usize) {
        self.by_worth.remove(place);
        self.by_closed.remove(&(closed, place.2));
        self.ungranted -= usize::from(place.0 == Worth::Ungranted);
    }

    fn keep_thing_within_bounds(&mut self, hash: Hash) -> BTreeSet<SlotKey> {
        let slots = self.by_hash.get(&hash).map_or(0, |thing| thing.slots.len());
        let over = slots.saturating_sub(self.slots_each);
        if over == 0 {
            return BTreeSet::new();
        }
        self.let_slots_go(hash, over)
    }

    /// What is over goes before what is open: things that are, then slots of the others, of the thing that
    /// has most.
    fn keep_within_bounds(&mut self) -> BTreeSet<SlotKey> {
        let mut gone = BTreeSet::new();
        while self.slots > self.slots_max || self.ungranted > UNGRANTED_MAX {
            let Some(first) = self.by_worth.first().copied() else {
                break;
            };
            let most = self.by_closed.last().copied();
            match most.filter(|(closed, _)| first.0 == Worth::Open && *closed > 0) {
                Some((closed, hash)) => {
                    let over = self.slots.saturating_sub(self.slots_max);
                    gone.extend(self.let_slots_go(hash, over.min(closed)));
                }
                None => gone.extend(self.let_thing_go(&first)),
            }
        }
        gone
    }

    fn let_slots_go(&mut self, hash: Hash, count: usize) -> BTreeSet<SlotKey> {
        let mut gone = BTreeSet::new();
        let Some(thing) = self.by_hash.get_mut(&hash) else {
            return gone;
        };
        let mut slots = thing.weighed(self.room);
        slots.retain(|(worth, ..)| *worth < SlotWorth::Thing);
        slots.sort_unstable();
        for (worth, _, slot) in slots.into_iter().take(count) {
            thing.slots.remove(&slot);
            self.slots -= 1;
            gone.insert(SlotKey(Some((hash, slot))));
            if worth == SlotWorth::Open {
                self.evicted += 1;
                gone.insert(SlotKey(None));
            }
        }
        self.place(hash);
        gone
    }

    fn let_thing_go(&mut self, place: &Place) -> BTreeSet<SlotKey> {
        let thing = self.by_hash.remove(&place.2).unwrap_or_default();
        self.leave(place, thing.closed);
        self.slots -= thing.slots.len();
        let keys = thing.slots.keys();
        let mut gone: BTreeSet<_> = keys.map(|slot| SlotKey(Some((place.2, *slot)))).collect();
        if place.0 == Worth::Open {
            self.evicted += thing.slots.len() as u64;
            gone.insert(SlotKey(None));
        }
        gone
    }
}

//! All entries of one key: nearly always one block, of a busy key many.

use std::collections::{HashMap, HashSet};

use super::block::{Block, Seat};
use super::entry::{Entry, EntryId};
use super::ledger::hop_of;

/// A block that is longer is divided.
const BLOCK_BYTES_MAX: usize = 4_096;
/// What a place in the sets of a busy key takes: 16 bytes and a share of the free ones.
const PLACE_BYTES: usize = 32;

/// When something happened, and what was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) time_ms: i64,
    pub(crate) value: u64,
}

/// The entries of a key, by time.
#[derive(Debug)]
pub(super) enum Series {
    Few(Block),
    Many(Box<Many>),
}

/// The entries of a busy key.
#[derive(Debug, Default)]
pub(super) struct Many {
    blocks: Vec<Block>,
    /// What the blocks take of memory.
    block_bytes: usize,
    /// Hash and part of each: a new event needs no look at all blocks.
    known: HashSet<(u64, u32)>,
    /// Entries by hop.
    hops: HashMap<i64, u32>,
}

/// What became of an entry that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It, or a version of the event that goes before it, was there.
    Known,
    /// Its hop has as many as may be, and all lie before it.
    Beyond,
    New,
    /// Another version of the event was taken out for it.
    Instead(EntryId),
}

impl Series {
    pub(super) fn new(key: &str, id: EntryId, entry: &Entry, common: &[u8]) -> Self {
        Self::Few(Block::new(key, &[(id, entry.clone())], common))
    }

    fn blocks(&self) -> &[Block] {
        match self {
            Self::Few(block) => std::slice::from_ref(block),
            Self::Many(many) => &many.blocks,
        }
    }

    pub(super) fn key(&self) -> &str {
        self.blocks().first().map_or("", Block::key)
    }

    pub(super) fn key_bytes(&self) -> &[u8] {
        self.blocks().first().map_or(&[], Block::key_bytes)
    }

    /// What it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Few(block) => block.bytes(),
            Self::Many(many) => many.bytes(),
        }
    }

    /// Puts an entry in. Of two versions of an event the smaller stays, by time and content.
    pub(super) fn put(&mut self, id: EntryId, entry: &Entry, common: &[u8]) -> Put {
        let known = match self {
            Self::Few(block) => {
                let base = block.base(common);
                match block.seat(id, entry, &base) {
                    Seat::Free(at) => {
                        block.put(at, &base.row(id, entry));
                        self.grow(common);
                        return Put::New;
                    }
                    Seat::Taken(row) => Some((base.id(&row), base.entry(&row))),
                }
            }
            Self::Many(many) => many.version(id, entry, common),
        };
        let Some((old, known)) = known else {
            self.insert(id, entry, common);
            return Put::New;
        };
        if (old.time_ms, &known) <= (id.time_ms, entry) {
            return Put::Known;
        }
        self.remove(old, common);
        self.insert(id, entry, common);
        Put::Instead(old)
    }

    fn insert(&mut self, id: EntryId, entry: &Entry, common: &[u8]) {
        match self {
            Self::Few(block) => {
                insert(block, id, entry, common);
                self.grow(common);
            }
            Self::Many(many) => many.insert(id, entry, common),
        }
    }

    /// A block that has become too long becomes many.
    fn grow(&mut self, common: &[u8]) {
        if let Self::Few(block) = self
            && block.bytes() > BLOCK_BYTES_MAX
        {
            *self = Self::Many(Box::new(Many::of(std::mem::take(block), common)));
        }
    }

    /// Place of the block that an id belongs in.
    fn block_of(&self, id: EntryId, common: &[u8]) -> usize {
        match self {
            Self::Few(_) => 0,
            Self::Many(many) => many.block_of(id, common),
        }
    }

    /// The entry of an id.
    pub(super) fn entry(&self, id: EntryId, common: &[u8]) -> Option<Entry> {
        let block = self.blocks().get(self.block_of(id, common))?;
        let base = block.base(common);
        Some(base.entry(&block.find(id, &base)?))
    }

    /// Takes an entry out; the last leaves the series empty.
    pub(super) fn remove(&mut self, id: EntryId, common: &[u8]) {
        match self {
            Self::Few(block) => remove(block, id, common),
            Self::Many(many) => many.remove(id, common),
        }
    }

    /// Takes out what lies before an instant, and says what that was.
    pub(super) fn remove_before(&mut self, before_ms: i64, common: &[u8]) -> Vec<EntryId> {
        match self {
            Self::Few(block) => block.remove_before(before_ms, common),
            Self::Many(many) => many.remove_before(before_ms, common),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks().iter().all(Block::is_empty)
    }

    /// Whether it has at least so many entries.
    pub(super) fn holds(&self, least: usize) -> bool {
        match self {
            Self::Few(block) => block.holds(least),
            Self::Many(many) => many.known.len() >= least,
        }
    }

    /// Entries within a hop, where there may be too many.
    pub(super) fn in_hop(&self, hop: i64) -> u32 {
        match self {
            Self::Few(_) => 0,
            Self::Many(many) => many.hops.get(&hop).copied().unwrap_or(0),
        }
    }

    /// The last entry before an instant.
    pub(super) fn last_before(&self, before_ms: i64, common: &[u8]) -> Option<EntryId> {
        let blocks = self.blocks();
        let end = blocks.partition_point(|block| block.first_ms() < before_ms);
        let block = blocks.get(end.checked_sub(1)?)?;
        let row = block
            .rows()
            .take_while(|row| row.time_ms < before_ms)
            .last()?;
        Some(block.base(common).id(&row))
    }

    /// Blocks that may hold something from an instant on.
    fn blocks_from(&self, from_ms: i64) -> &[Block] {
        let blocks = self.blocks();
        let behind = blocks.partition_point(|block| block.first_ms() < from_ms);
        blocks.get(behind.saturating_sub(1)..).unwrap_or_default()
    }

    /// What happened when, `from_ms <= time < until_ms`.
    pub(super) fn moments(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = Moment> {
        self.blocks_from(from_ms)
            .iter()
            .flat_map(Block::rows)
            .skip_while(move |row| row.time_ms < from_ms)
            .take_while(move |row| row.time_ms < until_ms)
            .map(|row| Moment {
                time_ms: row.time_ms,
                value: row.value,
            })
    }

    /// The entries of the same times, whole, in the same order.
    pub(super) fn entries(&self, from_ms: i64, until_ms: i64, common: &[u8]) -> Vec<(i64, Entry)> {
        let mut entries = Vec::new();
        for block in self.blocks_from(from_ms) {
            if block.first_ms() >= until_ms {
                break;
            }
            let base = block.base(common);
            let rows = block
                .rows()
                .filter(|row| (from_ms..until_ms).contains(&row.time_ms));
            entries.extend(rows.map(|row| (row.time_ms, base.entry(&row))));
        }
        entries
    }
}

impl Many {
    /// A block that has become too long.
    fn of(block: Block, common: &[u8]) -> Self {
        let mut many = Self::default();
        let base = block.base(common);
        for row in block.rows() {
            many.note(base.id(&row));
        }
        many.block_bytes = block.bytes();
        many.blocks.push(block);
        many.divide(0, common);
        many
    }

    fn note(&mut self, id: EntryId) {
        self.known.insert((id.hash, id.part));
        *self.hops.entry(hop_of(id.time_ms)).or_default() += 1;
    }

    fn forget(&mut self, id: EntryId) {
        self.known.remove(&(id.hash, id.part));
        let hop = hop_of(id.time_ms);
        if let Some(count) = self.hops.get_mut(&hop) {
            *count -= 1;
            if *count == 0 {
                self.hops.remove(&hop);
            }
        }
    }

    fn bytes(&self) -> usize {
        let places = self.known.len() + self.blocks.len() + self.hops.len();
        self.block_bytes + places * PLACE_BYTES
    }

    /// The version of an event that is known.
    fn version(&self, id: EntryId, entry: &Entry, common: &[u8]) -> Option<(EntryId, Entry)> {
        if !self.known.contains(&(id.hash, id.part)) {
            return None;
        }
        let known = |block: &Block| {
            let base = block.base(common);
            match block.seat(id, entry, &base) {
                Seat::Taken(row) => Some((base.id(&row), base.entry(&row))),
                Seat::Free(_) => None,
            }
        };
        // It is nearly always the same, at the same time.
        let near = self.blocks.get(self.block_of(id, common)).and_then(known);
        near.or_else(|| self.blocks.iter().find_map(known))
    }

    fn block_of(&self, id: EntryId, common: &[u8]) -> usize {
        let begins_before = |block: &Block| {
            let first_ms = block.first_ms();
            first_ms < id.time_ms || (first_ms == id.time_ms && block.first_id(common) <= Some(id))
        };
        self.blocks.partition_point(begins_before).saturating_sub(1)
    }

    fn insert(&mut self, id: EntryId, entry: &Entry, common: &[u8]) {
        let place = self.block_of(id, common);
        self.note(id);
        if let Some(block) = self.blocks.get_mut(place) {
            self.block_bytes -= block.bytes();
            insert(block, id, entry, common);
            self.block_bytes += block.bytes();
            self.divide(place, common);
        }
    }

    fn divide(&mut self, place: usize, common: &[u8]) {
        let Some(block) = self.blocks.get(place) else {
            return;
        };
        if block.bytes() <= BLOCK_BYTES_MAX {
            return;
        }
        let Some(halves) = block.halves(common) else {
            return;
        };
        self.block_bytes += halves.iter().map(Block::bytes).sum::<usize>();
        self.block_bytes -= block.bytes();
        self.blocks.splice(place..=place, halves);
    }

    fn remove(&mut self, id: EntryId, common: &[u8]) {
        let place = self.block_of(id, common);
        let Some(block) = self.blocks.get_mut(place) else {
            return;
        };
        self.block_bytes -= block.bytes();
        remove(block, id, common);
        self.block_bytes += block.bytes();
        // One stays, for the key.
        if block.is_empty() && self.blocks.len() > 1 {
            self.block_bytes -= self.blocks.remove(place).bytes();
        }
        self.forget(id);
    }

    fn remove_before(&mut self, before_ms: i64, common: &[u8]) -> Vec<EntryId> {
        let mut removed = Vec::new();
        for block in &mut self.blocks {
            if block.first_ms() >= before_ms {
                break;
            }
            removed.extend(block.remove_before(before_ms, common));
        }
        let empty = self.blocks.iter().take_while(|block| block.is_empty());
        let empty = empty.count().min(self.blocks.len() - 1);
        self.blocks.drain(..empty);
        self.block_bytes = self.blocks.iter().map(Block::bytes).sum();
        for id in &removed {
            self.forget(*id);
        }
        if self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to_fit();
        }
        removed
    }
}

/// Puts an entry in that is not there.
fn insert(block: &mut Block, id: EntryId, entry: &Entry, common: &[u8]) {
    let base = block.base(common);
    let (at, row) = (block.free_seat(id, &base), base.row(id, entry));
    block.put(at, &row);
}

fn remove(block: &mut Block, id: EntryId, common: &[u8]) {
    let place = block.find(id, &block.base(common)).map(|row| row.place());
    if let Some(place) = place {
        block.remove(place);
    }
}

//! Entries of one key in one piece of memory.
//!
//! They lie by event time, each written against the block's base: the texts of the entry that the block
//! was made with, which are themselves written against texts that the whole ledger shares. What can be
//! worked out (the hash of an event, from key and record id) is not kept.

use std::ops::Range;

use super::delta;
use super::entry::{Entry, EntryId, event_hash, put_text, take_text};

/// What an allocation costs beside its bytes.
const ALLOCATION_BYTES: usize = 16;

/// Bits of a row's first number; the part of the event lies above them.
const HAS_VALUE: u64 = 1;
const HAS_HASH: u64 = 2;
const HAS_FLAGS: u64 = 4;
const BITS: u32 = 3;

/// Key, instant that times are counted from, base, rows. Never without a row but while it is changed.
#[derive(Debug, Default)]
pub(super) struct Block(Box<[u8]>);

/// What rows are read with.
#[derive(Debug)]
pub(super) struct Base<'a> {
    key: &'a str,
    origin_ms: i64,
    texts: Vec<u8>,
}

/// What lies where an entry is to be put.
#[derive(Debug)]
pub(super) enum Seat<'a> {
    /// A version of the event.
    Taken(Row<'a>),
    /// Nothing: its bytes are to begin here.
    Free(usize),
}

/// An entry as it lies in a block.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) time_ms: i64,
    pub(super) value: u64,
    part: u32,
    flags: u32,
    hash: Option<u64>,
    texts: &'a [u8],
    /// Its bytes in the block.
    place: Range<usize>,
}

impl Block {
    /// A block of some entries that are sorted.
    pub(super) fn new(key: &str, entries: &[(EntryId, Entry)], common: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        let (origin_ms, texts) = entries
            .first()
            .map_or((0, &[][..]), |(id, entry)| (id.time_ms, entry.packed()));
        put_text(&mut bytes, key.as_bytes());
        bytes.extend_from_slice(&origin_ms.to_le_bytes());
        let mut base = Vec::with_capacity(128);
        delta::put_texts(&mut base, texts, common);
        put_text(&mut bytes, &base);
        let base = Base {
            key,
            origin_ms,
            texts: texts.to_vec(),
        };
        for (id, entry) in entries {
            let row = base.row(*id, entry);
            delta::put_number(&mut bytes, row.len() as u64);
            bytes.extend(row);
        }
        Self(bytes.into_boxed_slice())
    }

    pub(super) fn key(&self) -> &str {
        std::str::from_utf8(self.key_bytes()).unwrap_or_default()
    }

    pub(super) fn key_bytes(&self) -> &[u8] {
        take_text(&mut &*self.0).unwrap_or_default()
    }

    /// What it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() + ALLOCATION_BYTES
    }

    pub(super) fn base(&self, common: &[u8]) -> Base<'_> {
        let (origin_ms, base, _) = self.head();
        Base {
            key: self.key(),
            origin_ms,
            texts: delta::texts(base, common).unwrap_or_default(),
        }
    }

    /// Origin of times, base as written, where rows begin.
    fn head(&self) -> (i64, &[u8], usize) {
        let head = || {
            let mut rest: &[u8] = &self.0;
            take_text(&mut rest)?;
            let (origin_ms, mut rest) = rest.split_first_chunk()?;
            let base = take_text(&mut rest)?;
            let rows = self.0.len() - rest.len();
            Some((i64::from_le_bytes(*origin_ms), base, rows))
        };
        head().unwrap_or((0, &[], self.0.len()))
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let (origin_ms, _, mut at) = self.head();
        std::iter::from_fn(move || {
            let row = Row::read(&self.0, at, origin_ms)?;
            at = row.place.end;
            Some(row)
        })
    }

    /// Where each row begins, and what of it lies behind its length: nothing of it is read.
    fn starts(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let (.., mut at) = self.head();
        std::iter::from_fn(move || {
            let start = at;
            let mut rest = self.0.get(at..)?;
            let length = usize::try_from(delta::take_number(&mut rest)?).ok()?;
            let row = rest.get(..length)?;
            at = self.0.len() - rest.len() + length;
            Some((start, row))
        })
    }

    /// Whether it has at least so many entries.
    pub(super) fn holds(&self, least: usize) -> bool {
        self.starts().take(least).count() == least
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows().next().is_none()
    }

    /// Time of the first entry.
    pub(super) fn first_ms(&self) -> i64 {
        self.rows().next().map_or(i64::MAX, |row| row.time_ms)
    }

    /// Id of the first entry.
    pub(super) fn first_id(&self, common: &[u8]) -> Option<EntryId> {
        self.rows().next().map(|row| self.base(common).id(&row))
    }

    /// Where an entry is to lie, unless it holds a version of the event.
    pub(super) fn seat(&self, id: EntryId, entry: &Entry, base: &Base<'_>) -> Seat<'_> {
        let mut record = Vec::with_capacity(32);
        delta::put_first(&mut record, entry.packed(), &base.texts);
        let is_same = |row: &Row<'_>| {
            row.part == id.part && row.texts.starts_with(&record) && base.id(row).hash == id.hash
        };
        let is_later = |row: &Row<'_>| {
            row.time_ms > id.time_ms || (row.time_ms == id.time_ms && base.id(row) > id)
        };
        let mut at = None;
        for row in self.rows() {
            if is_same(&row) {
                return Seat::Taken(row);
            }
            if at.is_none() && is_later(&row) {
                at = Some(row.place.start);
            }
        }
        Seat::Free(at.unwrap_or(self.0.len()))
    }

    /// The entry of an id.
    pub(super) fn find(&self, id: EntryId, base: &Base<'_>) -> Option<Row<'_>> {
        self.rows()
            .skip_while(|row| row.time_ms < id.time_ms)
            .take_while(|row| row.time_ms == id.time_ms)
            .find(|row| base.id(row) == id)
    }

    /// Where an entry is to lie of which it holds no version.
    pub(super) fn free_seat(&self, id: EntryId, base: &Base<'_>) -> usize {
        let is_later = |start: usize, mut row: &[u8]| {
            let since_origin = delta::take_signed(&mut row)?;
            let time_ms = base.origin_ms.wrapping_add(since_origin);
            if time_ms == id.time_ms {
                let row = Row::read(&self.0, start, base.origin_ms)?;
                return Some(base.id(&row) > id);
            }
            Some(time_ms > id.time_ms)
        };
        let mut starts = self.starts();
        let later = starts.find(|(start, row)| is_later(*start, row) == Some(true));
        later.map_or(self.0.len(), |(start, _)| start)
    }

    /// Puts the bytes of an entry where it is to lie.
    pub(super) fn put(&mut self, at: usize, row: &[u8]) {
        let mut length = Vec::with_capacity(2);
        delta::put_number(&mut length, row.len() as u64);
        let mut bytes = std::mem::take(&mut self.0).into_vec();
        bytes.reserve_exact(length.len() + row.len());
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(row);
        if let Some(behind) = bytes.get_mut(at..) {
            behind.rotate_right(length.len() + row.len());
        }
        self.0 = bytes.into_boxed_slice();
    }

    /// Takes rows out, by their bytes.
    pub(super) fn remove(&mut self, place: Range<usize>) {
        let mut bytes = std::mem::take(&mut self.0).into_vec();
        bytes.drain(place);
        self.0 = bytes.into_boxed_slice();
    }

    /// Takes out what lies before an instant, and says what that was.
    pub(super) fn remove_before(&mut self, before_ms: i64, common: &[u8]) -> Vec<EntryId> {
        let mut place: Option<Range<usize>> = None;
        let mut ids = Vec::new();
        if self.first_ms() >= before_ms {
            return ids;
        }
        let base = self.base(common);
        for row in self.rows().take_while(|row| row.time_ms < before_ms) {
            ids.push(base.id(&row));
            place = Some(place.map_or(row.place.start, |known| known.start)..row.place.end);
        }
        if let Some(place) = place {
            self.remove(place);
        }
        ids
    }

    /// Its entries in two blocks, the later ones with a base of their own; `None` where there is only one.
    pub(super) fn halves(&self, common: &[u8]) -> Option<[Self; 2]> {
        let count = self.starts().count() / 2;
        let (middle, _) = self.starts().nth(count).filter(|_| count > 0)?;
        let base = self.base(common);
        let later = self.rows().skip(count);
        let later: Vec<_> = later.map(|row| (base.id(&row), base.entry(&row))).collect();
        let first = self.0.get(..middle)?;
        Some([Self(first.into()), Self::new(self.key(), &later, common)])
    }
}

impl Base<'_> {
    pub(super) fn id(&self, row: &Row<'_>) -> EntryId {
        let worked_out = || {
            let text = delta::first_text(row.texts, &self.texts).unwrap_or_default();
            event_hash(self.key, take_text(&mut &*text).unwrap_or_default())
        };
        EntryId {
            time_ms: row.time_ms,
            hash: row.hash.unwrap_or_else(worked_out),
            part: row.part,
        }
    }

    pub(super) fn entry(&self, row: &Row<'_>) -> Entry {
        let packed = delta::texts(row.texts, &self.texts).unwrap_or_default();
        Entry::whole(packed, row.value, row.flags)
    }

    /// The bytes of an entry, without their length.
    pub(super) fn row(&self, id: EntryId, entry: &Entry) -> Vec<u8> {
        let record_id = take_text(&mut entry.packed()).unwrap_or_default();
        // It cannot be worked out where the id was cut.
        let hash = (event_hash(self.key, record_id) != id.hash).then_some(id.hash);
        let mut row = Vec::with_capacity(128);
        delta::put_signed(&mut row, id.time_ms.wrapping_sub(self.origin_ms));
        let mut bits = u64::from(id.part) << BITS;
        bits |= if entry.value == 0 { 0 } else { HAS_VALUE };
        bits |= hash.map_or(0, |_| HAS_HASH);
        bits |= if entry.flags == 0 { 0 } else { HAS_FLAGS };
        delta::put_number(&mut row, bits);
        if entry.value != 0 {
            row.extend_from_slice(&entry.value.to_le_bytes());
        }
        if let Some(hash) = hash {
            row.extend_from_slice(&hash.to_le_bytes());
        }
        if entry.flags != 0 {
            delta::put_number(&mut row, u64::from(entry.flags));
        }
        delta::put_texts(&mut row, entry.packed(), &self.texts);
        row
    }
}

impl<'a> Row<'a> {
    fn read(block: &'a [u8], at: usize, origin_ms: i64) -> Option<Self> {
        let mut rest = block.get(at..)?;
        let length = usize::try_from(delta::take_number(&mut rest)?).ok()?;
        let (mut row, after) = rest.split_at_checked(length)?;
        let place = at..block.len() - after.len();
        let time_ms = origin_ms.wrapping_add(delta::take_signed(&mut row)?);
        let bits = delta::take_number(&mut row)?;
        let value = if bits & HAS_VALUE == 0 {
            0
        } else {
            take_u64(&mut row)?
        };
        let hash = if bits & HAS_HASH == 0 {
            None
        } else {
            Some(take_u64(&mut row)?)
        };
        let flags = if bits & HAS_FLAGS == 0 {
            0
        } else {
            u32::try_from(delta::take_number(&mut row)?).ok()?
        };
        Some(Self {
            time_ms,
            value,
            part: u32::try_from(bits >> BITS).ok()?,
            flags,
            hash,
            texts: row,
            place,
        })
    }

    pub(super) fn place(&self) -> Range<usize> {
        self.place.clone()
    }
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*bytes))
}

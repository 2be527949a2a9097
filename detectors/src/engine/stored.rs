//! The form of entries in the store: keys that lie by time, values of at most 4 KiB.
//!
//! A change of form takes a new [`FORMAT`]; the store's own version decides who may read what.

use super::entry::EntryId;

/// First byte of the key of an entry.
pub(super) const KIND_ENTRY: u8 = b'e';
/// The key of the watermark.
pub(super) const KIND_WATERMARK: u8 = b'w';
const FORMAT: u8 = 1;

/// An entry in the store.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    pub(super) fingerprint: u32,
    pub(super) value: u64,
    pub(super) flags: u32,
    pub(super) key: &'a str,
    pub(super) packed: &'a [u8],
}

impl<'a> Stored<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
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

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
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

/// `e`, event time, hash, part: in the store entries lie by time.
pub(super) fn entry_key(id: EntryId) -> Vec<u8> {
    let mut key = Vec::with_capacity(21);
    key.push(KIND_ENTRY);
    key.extend_from_slice(&(id.time_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    key.extend_from_slice(&id.hash.to_be_bytes());
    key.extend_from_slice(&id.part.to_be_bytes());
    key
}

/// The id that [`entry_key`] made a key of, without its first byte.
pub(super) fn entry_id(bytes: &[u8]) -> Option<EntryId> {
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    let (hash, part) = rest.split_first_chunk::<8>()?;
    Some(EntryId {
        time_ms: (u64::from_be_bytes(*time) ^ (1 << 63)).cast_signed(),
        hash: u64::from_be_bytes(*hash),
        part: u32::from_be_bytes(part.try_into().ok()?),
    })
}

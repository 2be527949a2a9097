//! How keys and values are written. Everything the store holds passes through here.
//!
//! A key is a family and its parts, each part ended by `00 01`; a `00` inside a part becomes
//! `00 FF`. So no key is the start of another part by accident, and keys sort as their parts do.
//! The tenant is the first part wherever there is one. A value is a body of at most
//! [`VALUE_BYTES_MAX`] and a CRC32C over key and body, so that a value at the wrong key is noticed
//! like a damaged one.

use chrono::NaiveDate;
use exfilwatch_model::{JobId, StreamId, TenantId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::commit::{LaneId, VALUE_BYTES_MAX};
use crate::contract::StateError;

/// Format of keys and values. A store of a larger one is refused.
pub const FORMAT_VERSION: u32 = 3;
/// Longest key: sled's index nodes hold up to 256 of them and must stay below 128 KiB.
pub(crate) const KEY_BYTES_MAX: usize = 480;
/// Longest detector memory key.
pub(crate) const WINDOW_KEY_BYTES_MAX: usize = 512;
/// Longest name of a detector.
const DETECTOR_BYTES_MAX: usize = u8::MAX as usize;
/// Longer free-form parts are replaced by a digest (the value then holds the part itself).
const PART_BYTES_MAX: usize = 64;
const CRC_BYTES: usize = 4;
const END: [u8; 2] = [0x00, 0x01];

/// The families of keys, in the order of the design's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Meta,
    Cursor,
    Restart,
    Work,
    Done,
    Seen,
    Window,
    Watermark,
    Subscription,
    Job,
    File,
    Finding,
    Verdict,
    Lane,
    Gap,
    Quarantine,
}

impl Family {
    pub(crate) const ALL: [Self; 16] = [
        Self::Meta,
        Self::Cursor,
        Self::Restart,
        Self::Work,
        Self::Done,
        Self::Seen,
        Self::Window,
        Self::Watermark,
        Self::Subscription,
        Self::Job,
        Self::File,
        Self::Finding,
        Self::Verdict,
        Self::Lane,
        Self::Gap,
        Self::Quarantine,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Cursor => "cursor",
            Self::Restart => "restart",
            Self::Work => "work",
            Self::Done => "done",
            Self::Seen => "seen",
            Self::Window => "window",
            Self::Watermark => "watermark",
            Self::Subscription => "subscription",
            Self::Job => "job",
            Self::File => "file",
            Self::Finding => "finding",
            Self::Verdict => "verdict",
            Self::Lane => "lane",
            Self::Gap => "gap",
            Self::Quarantine => "quarantine",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == name)
    }

    /// Most bytes of a body. Windows carry detector and key in front of the value.
    pub(crate) fn body_bytes_max(self) -> usize {
        match self {
            Self::Window => 4 + DETECTOR_BYTES_MAX + WINDOW_KEY_BYTES_MAX + VALUE_BYTES_MAX,
            _ => VALUE_BYTES_MAX,
        }
    }
}

/// A key, or the start of keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn of(family: Family) -> Self {
        Self(Vec::with_capacity(96)).part(family.as_str().as_bytes())
    }

    /// Adds a part as it is.
    pub(crate) fn part(mut self, part: &[u8]) -> Self {
        for &byte in part {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(0xFF);
            }
        }
        self.0.extend_from_slice(&END);
        self
    }

    /// Adds a part of any length: marked `=` as it is, or `#` and its digest.
    pub(crate) fn free(self, part: &[u8]) -> Self {
        if part.len() <= PART_BYTES_MAX {
            let marked = [b"=", part].concat();
            self.part(&marked)
        } else {
            let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, part);
            self.part(format!("#{}", digest.simple()).as_bytes())
        }
    }

    fn stream(self, stream: &StreamId) -> Self {
        self.part(stream.tenant().as_str().as_bytes())
            .part(stream.connector().as_bytes())
            .part(stream.name().as_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The parts of a key, the family first. `None` when the bytes are not a key.
pub(crate) fn parts(key: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::with_capacity(6);
    let mut part = Vec::new();
    let mut bytes = key.iter();
    while let Some(&byte) = bytes.next() {
        if byte != 0 {
            part.push(byte);
            continue;
        }
        match bytes.next() {
            Some(0xFF) => part.push(0),
            Some(0x01) => parts.push(std::mem::take(&mut part)),
            _ => return None,
        }
    }
    (part.is_empty() && !parts.is_empty()).then_some(parts)
}

pub(crate) fn meta(name: &str) -> Key {
    Key::of(Family::Meta).part(name.as_bytes())
}

pub(crate) fn cursor(stream: &StreamId) -> Key {
    Key::of(Family::Cursor).stream(stream)
}

/// Where a stream is to be read from after the store was lost.
pub(crate) fn restart(stream: &StreamId) -> Key {
    Key::of(Family::Restart).stream(stream)
}

pub(crate) fn work_of(stream: &StreamId) -> Key {
    Key::of(Family::Work).stream(stream)
}

pub(crate) fn work(stream: &StreamId, item: &str) -> Key {
    work_of(stream).free(item.as_bytes())
}

pub(crate) fn done(stream: &StreamId, item: &str) -> Key {
    Key::of(Family::Done).stream(stream).free(item.as_bytes())
}

pub(crate) fn seen_of(tenant: &TenantId) -> Key {
    Key::of(Family::Seen).part(tenant.as_str().as_bytes())
}

pub(crate) fn seen_day(tenant: &TenantId, day: NaiveDate) -> Key {
    seen_of(tenant).part(day.format("%Y-%m-%d").to_string().as_bytes())
}

pub(crate) fn seen(tenant: &TenantId, day: NaiveDate, chunk: u32) -> Key {
    seen_day(tenant, day).part(format!("{chunk:08x}").as_bytes())
}

pub(crate) fn windows_of(tenant: &TenantId, job: &JobId) -> Key {
    Key::of(Family::Window)
        .part(tenant.as_str().as_bytes())
        .free(job.as_str().as_bytes())
}

pub(crate) fn window(tenant: &TenantId, job: &JobId, detector: &str, key: &[u8]) -> Key {
    windows_of(tenant, job).free(detector.as_bytes()).free(key)
}

pub(crate) fn watermarks_of(tenant: &TenantId, job: &JobId) -> Key {
    Key::of(Family::Watermark)
        .part(tenant.as_str().as_bytes())
        .free(job.as_str().as_bytes())
}

pub(crate) fn watermark(job: &JobId, stream: &StreamId) -> Key {
    watermarks_of(stream.tenant(), job)
        .part(stream.connector().as_bytes())
        .part(stream.name().as_bytes())
}

pub(crate) fn subscription(stream: &StreamId) -> Key {
    Key::of(Family::Subscription).stream(stream)
}

pub(crate) fn job(job: &JobId) -> Key {
    Key::of(Family::Job).free(job.as_str().as_bytes())
}

pub(crate) fn file(digest: &str) -> Key {
    Key::of(Family::File).free(digest.as_bytes())
}

pub(crate) fn findings_of(tenant: &TenantId) -> Key {
    Key::of(Family::Finding).part(tenant.as_str().as_bytes())
}

pub(crate) fn finding(tenant: &TenantId, uid: &Uuid) -> Key {
    findings_of(tenant).part(uid.hyphenated().to_string().as_bytes())
}

/// What was said of a finding, kept longer than the finding.
pub(crate) fn verdict(tenant: &TenantId, uid: &Uuid) -> Key {
    Key::of(Family::Verdict)
        .part(tenant.as_str().as_bytes())
        .part(uid.hyphenated().to_string().as_bytes())
}

pub(crate) fn lane(lane: &LaneId) -> Key {
    Key::of(Family::Lane)
        .free(lane.emitter.as_bytes())
        .free(lane.route.as_bytes())
        .part(lane.kind.as_str().as_bytes())
}

pub(crate) fn gap(stream: &StreamId, id: &str) -> Key {
    Key::of(Family::Gap).stream(stream).free(id.as_bytes())
}

pub(crate) fn quarantine(tenant: &TenantId, id: &str) -> Key {
    Key::of(Family::Quarantine)
        .part(tenant.as_str().as_bytes())
        .free(id.as_bytes())
}

/// The value as it is stored: body and CRC. Sizes are checked here, before anything is written.
pub(crate) fn seal(family: Family, key: &Key, mut body: Vec<u8>) -> Result<Vec<u8>, StateError> {
    let too_large = |what: String, bytes: usize, bytes_max: usize| {
        Err(StateError::TooLarge {
            what,
            bytes,
            bytes_max,
        })
    };
    if key.0.len() > KEY_BYTES_MAX {
        return too_large(
            format!("key of a {}", family.as_str()),
            key.0.len(),
            KEY_BYTES_MAX,
        );
    }
    let body_bytes_max = family.body_bytes_max();
    if body.len() > body_bytes_max {
        return too_large(
            format!("value of a {}", family.as_str()),
            body.len(),
            body_bytes_max,
        );
    }
    let crc = checksum(&key.0, &body);
    body.extend_from_slice(&crc.to_le_bytes());
    Ok(body)
}

/// The body of a stored value; `Err` says what is wrong with it.
pub(crate) fn open<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], String> {
    let Some((body, crc)) = value.split_last_chunk::<CRC_BYTES>() else {
        return Err(format!("value of {} is cut short", display(key)));
    };
    if checksum(key, body) != u32::from_le_bytes(*crc) {
        return Err(format!("checksum of {} does not hold", display(key)));
    }
    Ok(body)
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), body)
}

pub(crate) fn to_json<T: Serialize>(what: &str, value: &T) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(value).map_err(|error| StateError::Invalid {
        reason: format!("{what} cannot be written as JSON: {error}"),
    })
}

pub(crate) fn from_json<T: DeserializeOwned>(key: &[u8], body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("value of {} does not read: {error}", display(key)))
}

/// A key for people: parts joined by `/`, what is not plain text as `\xNN`.
pub(crate) fn display(key: &[u8]) -> String {
    match parts(key) {
        Some(parts) => parts
            .iter()
            .map(|part| part.escape_ascii().to_string())
            .collect::<Vec<_>>()
            .join("/"),
        None => key.escape_ascii().to_string(),
    }
}

/// Fingerprints as bytes, eight each.
pub(crate) fn pack_fingerprints(fingerprints: &[u64]) -> Vec<u8> {
    fingerprints.iter().flat_map(|f| f.to_le_bytes()).collect()
}

/// See [`pack_fingerprints`]. `Err` when the bytes are no multiple of eight.
pub(crate) fn unpack_fingerprints(body: &[u8]) -> Result<Vec<u64>, String> {
    let (chunks, rest) = body.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no fingerprints", body.len()));
    }
    Ok(chunks.iter().map(|c| u64::from_le_bytes(*c)).collect())
}

/// Detector memory: length of the detector's name and of the key, both, and the value.
pub(crate) fn pack_window(detector: &str, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StateError> {
    for (what, bytes, bytes_max) in [
        ("name of a detector", detector.len(), DETECTOR_BYTES_MAX),
        ("key of detector memory", key.len(), WINDOW_KEY_BYTES_MAX),
        ("detector memory", value.len(), VALUE_BYTES_MAX),
    ] {
        if bytes > bytes_max {
            return Err(StateError::TooLarge {
                what: what.to_owned(),
                bytes,
                bytes_max,
            });
        }
    }
    let lengths = u32::try_from(detector.len() | key.len() << 8).unwrap_or(0);
    let mut body = Vec::with_capacity(4 + detector.len() + key.len() + value.len());
    body.extend_from_slice(&lengths.to_le_bytes());
    body.extend_from_slice(detector.as_bytes());
    body.extend_from_slice(key);
    body.extend_from_slice(value);
    Ok(body)
}

/// See [`pack_window`]: detector, key and value.
pub(crate) fn unpack_window(body: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let (lengths, rest) = body.split_first_chunk::<4>()?;
    let lengths = u32::from_le_bytes(*lengths) as usize;
    let (detector, rest) = rest.split_at_checked(lengths & 0xFF)?;
    let (key, value) = rest.split_at_checked(lengths >> 8)?;
    Some((std::str::from_utf8(detector).ok()?, key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(parts: &[Vec<u8>]) -> Key {
        parts
            .iter()
            .fold(Key(Vec::new()), |key, part| key.part(part))
    }

    fn any_parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(0xFF), any::<u8>()];
        prop::collection::vec(prop::collection::vec(byte, 0..6), 1..5)
    }

    proptest! {
        #[test]
        fn keys_give_their_parts_back(given in any_parts()) {
            prop_assert_eq!(parts(key(&given).bytes()), Some(given));
        }

        #[test]
        fn keys_sort_as_their_parts_do(a in any_parts(), b in any_parts()) {
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn a_value_with_any_bit_turned_is_noticed(
            body in prop::collection::vec(any::<u8>(), 0..64),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let key = meta("x");
            let mut value = seal(Family::Meta, &key, body.clone()).unwrap();
            prop_assert_eq!(open(key.bytes(), &value), Ok(&body[..]));
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            prop_assert!(open(key.bytes(), &value).is_err());
        }

        #[test]
        fn detector_memory_gives_its_parts_back(
            detector in "[a-z.]{0,80}",
            key in prop::collection::vec(any::<u8>(), 0..WINDOW_KEY_BYTES_MAX),
            value in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let body = pack_window(&detector, &key, &value).unwrap();
            prop_assert_eq!(unpack_window(&body), Some((&detector[..], &key[..], &value[..])));
        }
    }

    #[test]
    fn a_value_at_another_key_is_noticed() {
        let value = seal(Family::Meta, &meta("a"), b"1".to_vec()).unwrap();
        assert!(open(meta("b").bytes(), &value).is_err());
    }

    #[test]
    fn long_parts_become_digests_that_no_short_part_can_be() {
        let stream: StreamId = "t/c/n".parse().unwrap();
        let long = "x".repeat(512);
        let key = work(&stream, &long);
        assert!(key.bytes().len() < 120);
        let digest = String::from_utf8(parts(key.bytes()).unwrap().pop().unwrap()).unwrap();
        assert_ne!(work(&stream, &digest), key);
    }

    #[test]
    fn the_longest_names_make_a_key_that_is_allowed() {
        let name = "n".repeat(128);
        let stream: StreamId = format!("{name}/{name}/{name}").parse().unwrap();
        let key = done(&stream, &"k".repeat(512));
        assert!(seal(Family::Done, &key, vec![]).is_ok());
        let job = JobId::new(&name).unwrap();
        let key = window(stream.tenant(), &job, &name, &[0; 512]);
        assert!(seal(Family::Window, &key, vec![]).is_ok());
        assert!(seal(Family::Watermark, &watermark(&job, &stream), vec![]).is_ok());
    }
}

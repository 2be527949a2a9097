//! Records as the vendor wrote them, and pages of them.

use std::borrow::Cow;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::names::{Product, StreamId};

/// Most records a page holds.
pub const PAGE_RECORDS_MAX: usize = 1_000;
/// Most bytes of records a page holds, unless a single record is larger.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Largest record taken; a larger one is quarantined.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// One JSON object, byte for byte as the vendor sent it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord(Bytes);

impl RawRecord {
    /// Takes the bytes; they are read (and validated) by a head, not here.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// What every record is read for: who it is, when, and what happened. Borrowed from the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHead<'a> {
    /// The vendor's product.
    pub product: Product,
    /// The vendor's identity. office365: `Id`; google: `time/uniqueQualifier/applicationName`.
    /// `None` where the record lacks it: then [`RecordHead::digest`] alone tells records apart.
    pub id: Option<Cow<'a, str>>,
    /// Event time in UTC; `None` when absent or unreadable.
    pub time: Option<DateTime<Utc>>,
    /// All operations in the record: one for office365, one per `events[]` element for google.
    pub operations: Vec<Cow<'a, str>>,
    /// Who acted, as the vendor writes it.
    pub actor: Option<Cow<'a, str>>,
    /// Digest of the top-level members that does not depend on their order (google's `etag` is
    /// left out). The same identity with another digest is another version of the record.
    pub digest: u64,
}

impl RecordHead<'_> {
    /// The identity as text; records without one are named by their digest.
    pub fn id_text(&self) -> String {
        match &self.id {
            Some(id) => id.clone().into_owned(),
            None => format!("digest:{:016x}", self.digest),
        }
    }

    /// Keyed 64-bit fingerprint of identity and body, what the seen index remembers.
    pub fn fingerprint(&self, key: &[u8; 16]) -> u64 {
        use std::hash::Hasher;
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(key);
        hasher.write(self.product.as_str().as_bytes());
        hasher.write_u8(0);
        if let Some(id) = &self.id {
            hasher.write(id.as_bytes());
        }
        hasher.write_u8(0);
        hasher.write_u64(self.digest);
        hasher.finish()
    }
}

/// Keyed 64-bit fingerprint of bytes that are no record, for the same index.
pub fn fingerprint_of_bytes(key: &[u8; 16], bytes: &[u8]) -> u64 {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher13::new_with_key(key);
    hasher.write(bytes);
    hasher.finish()
}

/// Bytes that are no record, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What stood there; cut to [`RECORD_BYTES_MAX`].
    pub bytes: Bytes,
    /// Why it is no record, in one sentence.
    pub reason: String,
}

/// Some records of one work item. At most [`PAGE_RECORDS_MAX`] records or [`PAGE_BYTES_MAX`] bytes.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where the records come from.
    pub stream: StreamId,
    /// Key of the work item the page belongs to.
    pub item: String,
    /// The records, in the vendor's order.
    pub records: Vec<RawRecord>,
    /// Elements that are no record; quarantined by the commit.
    pub malformed: Vec<Malformed>,
    /// When the page was read, by the clock of the run.
    pub fetched_at: DateTime<Utc>,
    /// Whether this is the item's last page: its commit finishes the item.
    pub last: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: Option<&'static str>, digest: u64) -> RecordHead<'static> {
        RecordHead {
            product: Product::M365,
            id: id.map(Cow::Borrowed),
            time: None,
            operations: vec![],
            actor: None,
            digest,
        }
    }

    #[test]
    fn fingerprint_tells_identity_body_and_key_apart() {
        let key = [7; 16];
        let base = head(Some("a"), 1).fingerprint(&key);
        assert_eq!(base, head(Some("a"), 1).fingerprint(&key));
        assert_ne!(base, head(Some("b"), 1).fingerprint(&key));
        assert_ne!(base, head(Some("a"), 2).fingerprint(&key));
        assert_ne!(base, head(Some("a"), 1).fingerprint(&[8; 16]));
    }

    #[test]
    fn a_record_without_identity_is_named_by_its_digest() {
        assert_eq!(head(None, 255).id_text(), "digest:00000000000000ff");
    }
}

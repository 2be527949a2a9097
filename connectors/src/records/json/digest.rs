//! Digests of records, which do not depend on how these are spelled.

use std::borrow::Cow;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Raw, name};

/// Key of the digest of a member. Fixed: the digest names records that have no identity.
const DIGEST_KEYS: (u64, u64) = (0x6578_6669_6c77_6174, 0x6368_2064_6967_6573);

/// Digest of one member. A record's digest is the wrapping sum of its members', so that their
/// order does not matter.
pub(crate) fn digest(key: Raw<'_>, raw: Raw<'_>) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(DIGEST_KEYS.0, DIGEST_KEYS.1);
    hasher.write(key);
    hasher.write_u8(b':');
    hasher.write(raw);
    hasher.finish()
}

/// Digests of the members of one record that do not depend on its spelling: of annotations, which are
/// nothing of the record's own (nought), and of which characters are escaped and how. One service of
/// a vendor writes `\/` and `\u003c` where another writes `/` and `<`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digester {
    escaped: bool,
    annotated: bool,
}

impl Digester {
    /// For the members of this record. Most have nothing to look through, which one look tells.
    pub(crate) fn of(record: Raw<'_>) -> Self {
        Self {
            escaped: memchr::memchr(b'\\', record).is_some(),
            annotated: memchr::memmem::find(record, ANNOTATION).is_some(),
        }
    }

    /// The digest of a member.
    pub(crate) fn member(self, key: Raw<'_>, raw: Raw<'_>) -> u64 {
        if self.annotated && is_annotation(&name(key)) {
            return 0;
        }
        if self.escaped {
            digest(&unescaped(key), &unescaped(raw))
        } else {
            digest(key, raw)
        }
    }
}

/// In the name of a member that tells of others.
const ANNOTATION: &[u8] = b"@odata.";

/// Whether a member tells of others, and is nothing of the record's own (`@odata.type`).
pub(crate) fn is_annotation(name: &[u8]) -> bool {
    name.len() > ANNOTATION.len() && memchr::memmem::find(name, ANNOTATION).is_some()
}

/// The checked text with nothing escaped but what must be, and that always in the same way.
pub(super) fn unescaped(raw: Raw<'_>) -> Cow<'_, [u8]> {
    let Some(mut at) = memchr::memchr(b'\\', raw) else {
        return Cow::Borrowed(raw);
    };
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    loop {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (character, length) = escaped_character(escape);
        match character {
            Some('"') => out.extend_from_slice(b"\\\""),
            Some('\\') => out.extend_from_slice(b"\\\\"),
            Some(control) if control < ' ' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(control)).as_bytes());
            }
            Some(other) => {
                out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // Half a pair.
            None => {
                let half = escape.get(..length).unwrap_or(escape);
                out.extend_from_slice(&half.to_ascii_lowercase());
            }
        }
        rest = escape.get(length..).unwrap_or_default();
        match memchr::memchr(b'\\', rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// The character that an escape at the start of the text stands for, and the bytes it takes.
fn escaped_character(escape: Raw<'_>) -> (Option<char>, usize) {
    let unit = |at: usize| {
        let digits = escape.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match escape.get(1) {
        Some(b'u') => match (unit(0), unit(6)) {
            (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) => {
                (char::decode_utf16([high, low]).find_map(Result::ok), 12)
            }
            (Some(unit), _) => (char::from_u32(u32::from(unit)), 6),
            (None, _) => (None, 6),
        },
        Some(b'b') => (Some('\u{8}'), 2),
        Some(b'f') => (Some('\u{c}'), 2),
        Some(b'n') => (Some('\n'), 2),
        Some(b'r') => (Some('\r'), 2),
        Some(b't') => (Some('\t'), 2),
        Some(other) => (Some(char::from(*other)), 2),
        None => (None, 1),
    }
}

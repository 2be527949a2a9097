//! JSON text as raw slices: a lazy, validating scan of the top-level members of an object and the
//! elements of an array, without building anything.
//!
//! The whole text is checked as it goes by (grammar, control characters, escapes, depth), so that
//! what a head has read is safe to forward. Nesting is bounded, since the scan is recursive and
//! the text comes from outside. Strings are decoded only where someone asks.

mod digest;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::Value;

pub(crate) use digest::{Digester, digest, is_annotation};
pub(crate) use scan::{Broken, Raw, elements, members, only};

/// A raw string as text; `None` for anything else. Most hold no escape and stand as they are.
pub(crate) fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    match value(raw) {
        Value::String(text) => Some(Cow::Owned(text)),
        _ => None,
    }
}

/// A raw key without its quotes, escapes undone: for comparing with names.
pub(crate) fn name(key: Raw<'_>) -> Cow<'_, [u8]> {
    let inner = key.strip_prefix(b"\"").and_then(|k| k.strip_suffix(b"\""));
    let inner = inner.unwrap_or_default();
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    match text(key) {
        Some(text) => Cow::Owned(text.into_owned().into_bytes()),
        None => Cow::Borrowed(inner),
    }
}

/// A raw string, number or truth as text; `None` for null and containers.
pub(crate) fn scalar(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    match raw.first()? {
        b'"' => text(raw),
        b'n' | b'{' | b'[' => None,
        _ => std::str::from_utf8(raw).ok().map(Cow::Borrowed),
    }
}

/// The elements of an array; anything else is the one element of a list.
pub(crate) fn each(raw: Raw<'_>) -> impl Iterator<Item = Raw<'_>> {
    let is_list = raw.first() == Some(&b'[');
    let list = is_list.then(|| elements(raw).map_while(Result::ok));
    let one = (!is_list).then_some(raw);
    (list.into_iter().flatten())
        .map(|(_, element)| element)
        .chain(one)
}

/// Reads a checked raw value. Where `serde_json` does not take it (half a surrogate pair, a number
/// beyond all bounds) the halves are replaced; what still fails is kept as text.
pub(crate) fn value(raw: Raw<'_>) -> Value {
    serde_json::from_slice(raw)
        .or_else(|_| serde_json::from_slice(&without_half_pairs(raw)))
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(raw).into_owned()))
}

/// Replaces each `\uD800`..`\uDFFF` that is not half of a pair by U+FFFD.
fn without_half_pairs(raw: Raw<'_>) -> Vec<u8> {
    let unit = |at: usize| {
        let digits = raw.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        let length = match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                out.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            // An escaped backslash must not be taken for the start of an escape.
            _ if *byte == b'\\' => 2,
            _ => 1,
        };
        out.extend_from_slice(raw.get(at..at + length).unwrap_or_default());
        at += length;
    }
    out
}

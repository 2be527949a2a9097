//! A lazy, validating scan of JSON text: the top-level members of an object and the elements of an
//! array as raw slices, without building anything.
//!
//! The whole text is checked as it goes by (grammar, control characters, escapes, depth), so that
//! what a head has read is safe to forward. Nesting is bounded, since the scan is recursive and
//! the text comes from outside. Strings are decoded only where someone asks.

use std::borrow::Cow;
use std::hash::Hasher;

use serde_json::{Map, Value};
use siphasher::sip::SipHasher13;

/// Deepest nesting taken; below the 128 at which `serde_json` gives up, so that what the scan
/// accepts can also be read in full.
pub(crate) const DEPTH_MAX: usize = 100;

/// Key of the digest of a member. Fixed: the digest names records that have no identity.
const DIGEST_KEYS: (u64, u64) = (0x6578_6669_6c77_6174, 0x6368_2064_6967_6573);

/// Where the text stops being JSON, and what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{expected} expected at byte {at}")]
pub(crate) struct Broken {
    at: usize,
    expected: &'static str,
}

/// The raw slice of one value.
pub(crate) type Raw<'a> = &'a [u8];

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

/// Bytes before the first quote, backslash or control character. Eight at a time, since most
/// strings are short and all of a record goes through here.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // The lowest byte that is flagged is rightly so; those above it may not be.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGHS;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = is(word, b'"') | is(word, b'\\') | below(word, 0x20);
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    let found = rest.iter().position(ends).unwrap_or(rest.len());
    words.len() * 8 + found
}

impl<'a> Scan<'a> {
    fn broken<T>(&self, expected: &'static str) -> Result<T, Broken> {
        Err(Broken {
            at: self.at,
            expected,
        })
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Broken> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.broken(expected)
    }

    fn slice(&self, from: usize) -> Raw<'a> {
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// A string, quotes included. Stands on the opening quote.
    fn string(&mut self) -> Result<Raw<'a>, Broken> {
        let start = self.at;
        self.take(b'"', "a string")?;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let length = plain_length(rest);
            self.at += length + 1;
            match rest.get(length) {
                Some(b'"') => return Ok(self.slice(start)),
                Some(b'\\') => self.escape()?,
                Some(_) => return self.broken("no control character in a string"),
                None => return self.broken("the end of a string"),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), Broken> {
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.text.get(self.at + 1..self.at + 5).unwrap_or_default();
                if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return self.broken("four hexadecimal digits");
                }
                self.at += 5;
            }
            _ => return self.broken("an escape"),
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start {
            return self.broken("a digit");
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Broken> {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Broken> {
        if self.text.get(self.at..self.at + word.len()) == Some(word) {
            self.at += word.len();
            return Ok(());
        }
        self.broken("a value")
    }

    /// Any value, checked to its end.
    fn value(&mut self, depth: usize) -> Result<Raw<'a>, Broken> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => return self.string(),
            Some(b'{') => self.container(b'}', depth)?,
            Some(b'[') => self.container(b']', depth)?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return self.broken("a value"),
        }
        Ok(self.slice(start))
    }

    fn container(&mut self, close: u8, depth: usize) -> Result<(), Broken> {
        if depth >= DEPTH_MAX {
            return self.broken("less nesting");
        }
        self.at += 1;
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            if close == b'}' {
                self.peek();
                self.string()?;
                self.take(b':', "a colon")?;
            }
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.broken("a comma or the end of a container"),
            }
        }
    }

    /// Nothing but blanks may follow.
    fn end(&mut self) -> Result<(), Broken> {
        if self.peek().is_none() {
            return Ok(());
        }
        self.broken("the end of the text")
    }
}

/// The members of a JSON object, or the elements of an array, as they come by. Read to the end, the
/// whole text has been checked; stopped early, what was passed has been.
pub(crate) struct Parts<'a> {
    scan: Scan<'a>,
    close: u8,
    started: bool,
    done: bool,
}

impl<'a> Parts<'a> {
    fn new(text: Raw<'a>, close: u8) -> Self {
        Self {
            scan: Scan { text, at: 0 },
            close,
            started: false,
            done: false,
        }
    }

    /// Moves to the next part; false at the end.
    fn advance(&mut self) -> Result<bool, Broken> {
        let scan = &mut self.scan;
        if !self.started {
            self.started = true;
            let (open, expected) = match self.close {
                b'}' => (b'{', "an object"),
                _ => (b'[', "an array"),
            };
            scan.take(open, expected)?;
            if scan.peek() != Some(self.close) {
                return Ok(true);
            }
        } else if scan.peek() != Some(self.close) {
            scan.take(b',', "a comma or the end")?;
            return Ok(true);
        }
        scan.at += 1;
        scan.end()?;
        Ok(false)
    }

    fn part(&mut self) -> Result<Option<(Raw<'a>, Raw<'a>)>, Broken> {
        if !self.advance()? {
            return Ok(None);
        }
        let mut key: Raw<'a> = b"";
        if self.close == b'}' {
            self.scan.peek();
            key = self.scan.string()?;
            self.scan.take(b':', "a colon")?;
        }
        Ok(Some((key, self.scan.value(1)?)))
    }
}

impl<'a> Iterator for Parts<'a> {
    /// The key (a raw string, empty for elements of an array) and the value.
    type Item = Result<(Raw<'a>, Raw<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let part = self.part();
        self.done = !matches!(part, Ok(Some(_)));
        part.transpose()
    }
}

/// The members of an object.
pub(crate) fn members(text: Raw<'_>) -> Parts<'_> {
    Parts::new(text, b'}')
}

/// The elements of an array.
pub(crate) fn elements(text: Raw<'_>) -> Parts<'_> {
    Parts::new(text, b']')
}

/// A raw string as text; `None` for anything else.
pub(crate) fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    if raw.first() != Some(&b'"') || memchr::memchr(b'\\', raw).is_none() {
        return plain(raw).map(Cow::Borrowed);
    }
    match value(raw) {
        Value::String(text) => Some(Cow::Owned(text)),
        _ => None,
    }
}

/// A raw string as it stands, where it holds no escape: most are such.
fn plain(raw: Raw<'_>) -> Option<&str> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let is_plain = memchr::memchr(b'\\', inner).is_none();
    is_plain.then(|| std::str::from_utf8(inner).ok())?
}

/// A raw key without its quotes, escapes undone: for comparing with names.
pub(crate) fn name(key: Raw<'_>) -> Cow<'_, [u8]> {
    let inner = key.strip_prefix(b"\"").and_then(|k| k.strip_suffix(b"\""));
    let inner = inner.unwrap_or_default();
    if !inner.contains(&b'\\') {
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

/// Reads a checked raw value. Where `serde_json` does not take it (half a surrogate pair, a number
/// beyond all bounds) the halves are replaced; what still fails is kept as text.
pub(crate) fn value(raw: Raw<'_>) -> Value {
    if let Some(text) = plain(raw) {
        return Value::String(text.to_owned());
    }
    serde_json::from_slice(raw)
        .or_else(|_| serde_json::from_slice(&without_half_pairs(raw)))
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(raw).into_owned()))
}

/// The object in full. Each member is read for itself, so that one bad member costs only itself.
pub(crate) fn object(bytes: Raw<'_>) -> Result<Map<String, Value>, Broken> {
    if let Ok(whole) = serde_json::from_slice(bytes) {
        return Ok(whole);
    }
    let mut map = Map::new();
    for part in members(bytes) {
        let (key, raw) = part?;
        if let Some(key) = text(key) {
            map.insert(key.into_owned(), value(raw));
        }
    }
    Ok(map)
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
fn unescaped(raw: Raw<'_>) -> Cow<'_, [u8]> {
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

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn check(text: &[u8]) -> bool {
        members(text).all(|part| part.is_ok())
    }

    #[test]
    fn members_come_as_raw_slices() {
        let text = br#" { "a" : [1, {"b":"}"}] , "c\u0064":"x\"y", "e":-1.5e3,"f":null } "#;
        let parts: Vec<_> = members(text).map(Result::unwrap).collect();
        let raw = |at: usize| std::str::from_utf8(parts[at].1).unwrap();
        assert_eq!(raw(0), r#"[1, {"b":"}"}]"#);
        assert_eq!(super::text(parts[1].0).unwrap(), "cd");
        assert_eq!(super::text(parts[1].1).unwrap(), "x\"y");
        assert_eq!(raw(2), "-1.5e3");
        assert_eq!(parts.len(), 4);
    }

    #[test]
    fn nesting_is_bounded_and_what_is_taken_can_be_read_in_full() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(nested(DEPTH_MAX - 1).as_bytes()));
        assert!(object(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        assert!(!check(nested(DEPTH_MAX + 1).as_bytes()));
        assert!(!check(nested(1_000_000).as_bytes()));
    }

    #[test]
    fn half_a_surrogate_pair_costs_one_character_and_not_the_record() {
        let text = br#"{"title":"a\ud800b \ud83d\ude00 \\ud800","n":1e999}"#;
        let object = object(text).unwrap();
        assert_eq!(object["title"], "a\u{fffd}b \u{1f600} \\ud800");
        assert_eq!(object["n"], "1e999");
    }

    #[test]
    fn the_digest_of_a_record_does_not_depend_on_the_order_of_members() {
        let sum = |text: &[u8]| {
            members(text)
                .map(Result::unwrap)
                .fold(0_u64, |sum, (key, raw)| sum.wrapping_add(digest(key, raw)))
        };
        assert_eq!(sum(br#"{"a":1,"b":2}"#), sum(br#"{"b":2, "a":1}"#));
        assert_ne!(sum(br#"{"a":1,"b":2}"#), sum(br#"{"a":2,"b":1}"#));
    }

    #[test]
    fn a_digest_looks_through_escapes_and_not_through_what_they_mean() {
        let sum = |raw: &[u8]| Digester::of(raw).member(b"\"k\"", raw);
        let same: [&[&[u8]]; 4] = [
            &[br#""a/<b""#, br#""a\/\u003cb""#, br#""a/\u003Cb""#],
            &[br#""x\ny""#, br#""x\u000ay""#, br#""x\u000Ay""#],
            &["\"\u{1f600}é\"".as_bytes(), br#""\ud83d\uDE00\u00e9""#],
            &[br#"["\"","\\"]"#, br#"["\u0022","\u005c"]"#],
        ];
        for spellings in same {
            for spelling in spellings {
                assert_eq!(
                    sum(spelling),
                    sum(spellings[0]),
                    "{}",
                    spelling.escape_ascii()
                );
            }
        }
        let different: [&[u8]; 7] = [
            br#""a""#,
            br#""\\u0061""#,
            br#""\"""#,
            br#""\\""#,
            br#""\ud800""#,
            br#""\ud801""#,
            br#""\n""#,
        ];
        for (at, one) in different.iter().enumerate() {
            for other in &different[at + 1..] {
                assert_ne!(sum(one), sum(other));
            }
        }
        assert!(is_annotation(b"@odata.type") && is_annotation(b"Size@odata.type"));
        assert!(!is_annotation(b"Id") && !is_annotation(b"a@b"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Eighths, since not every digit of a float survives the way to text and back.
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_object_is_taken_and_every_member_given(value in json()) {
            let text = serde_json::to_vec_pretty(&value).unwrap();
            match value {
                Value::Object(map) => {
                    let read: Map<_, _> = members(&text)
                        .map(Result::unwrap)
                        .map(|(key, raw)| (super::text(key).unwrap().into_owned(), super::value(raw)))
                        .collect();
                    prop_assert_eq!(read, map);
                }
                _ => prop_assert!(!check(&text)),
            }
        }

        #[test]
        fn what_is_unescaped_means_the_same(text in any::<String>()) {
            let plain = serde_json::to_string(&text).unwrap();
            let mut escaped = String::from("\"");
            for c in text.chars() {
                match c {
                    ' '..='~' if c != '"' && c != '\\' => escaped.push(c),
                    _ => {
                        for unit in c.encode_utf16(&mut [0; 2]) {
                            write!(escaped, "\\u{unit:04X}").unwrap();
                        }
                    }
                }
            }
            escaped.push('"');
            let out = unescaped(escaped.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            prop_assert_eq!(&*out, &*unescaped(plain.as_bytes()));
        }

        /// The scan and `serde_json` agree on what is JSON, on texts that nearly are.
        #[test]
        fn a_damaged_text_is_refused_exactly_where_serde_refuses_it(
            value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut text = serde_json::to_vec(&serde_json::json!({"a": value})).unwrap();
            let at = at.index(text.len());
            text[at] = byte;
            if std::str::from_utf8(&text).is_ok() {
                let object = text.trim_ascii_start().starts_with(b"{");
                let serde = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
                prop_assert_eq!(check(&text), object && serde);
            }
        }
    }
}

//! Address lists as Exchange writes them.
//!
//! Separated by `;` or `,`; an entry may be `a@b`, `smtp:a@b`, `Name [SMTP:a@b]`, `"Name" <a@b>`, a
//! legacy DN (`/o=ExchangeLabs/…`, `Name [EX:/o=…]`) or the name of a recipient object (alias,
//! GUID, distinguished name, canonical path). One outside among many inside must be found.

/// Most entries taken from one list.
const ENTRIES_MAX: usize = 1_000;

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An SMTP address, as written.
    Smtp(String),
    /// A legacy DN: an object of this organisation. Its last part.
    Legacy(String),
    /// A recipient object of which only the name is known. Its last part.
    Object(String),
}

impl Entry {
    /// The address or name, lower case.
    pub(crate) fn name(&self) -> String {
        let (Self::Smtp(name) | Self::Legacy(name) | Self::Object(name)) = self;
        name.to_lowercase()
    }
}

/// Reads a list. Empty values and PowerShell's `$null` give none.
pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<(Entry, bool)> = Vec::new();
    for (piece, comma_before) in pieces(text) {
        let Some(entry) = entry(piece) else { continue };
        let wrapped = piece.contains(['[', '<']) && !matches!(entry, Entry::Object(_));
        // `Doe, John [SMTP:j@x]` is one entry: what stands before the comma is half a name.
        if wrapped && comma_before && matches!(entries.last(), Some((Entry::Object(_), _))) {
            entries.pop();
        }
        entries.push((entry, comma_before));
        if entries.len() == ENTRIES_MAX {
            break;
        }
    }
    entries.into_iter().map(|(entry, _)| entry).collect()
}

/// Splits at separators outside quotes and brackets, and says whether a comma stood before. Quotes
/// that do not close (values are not escaped) are taken as plain characters; a distinguished name
/// is one piece.
fn pieces(text: &str) -> Vec<(&str, bool)> {
    let distinguished = text
        .trim_start()
        .get(..3)
        .is_some_and(|start| start.eq_ignore_ascii_case("cn=") && !text.contains('@'));
    if distinguished {
        return vec![(text, false)];
    }
    let balanced = text.matches('"').count().is_multiple_of(2);
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut bracket, mut comma) = (0, false, false, false);
    for (at, character) in text.char_indices() {
        match character {
            '"' if balanced => quoted = !quoted,
            '[' | '<' if !quoted => bracket = true,
            ']' | '>' if !quoted => bracket = false,
            ';' | ',' if !quoted && !bracket => {
                pieces.push((text.get(start..at).unwrap_or_default(), comma));
                start = at + 1;
                comma = character == ',';
            }
            _ => {}
        }
    }
    pieces.push((text.get(start..).unwrap_or_default(), comma));
    pieces
}

/// One entry, or nothing when it is empty.
pub(crate) fn entry(piece: &str) -> Option<Entry> {
    let piece = piece.trim().trim_matches(['"', '\'']).trim();
    let inner = between(piece, '[', ']')
        .or_else(|| between(piece, '<', '>'))
        .unwrap_or(piece)
        .trim();
    let kind = |prefix: &str| {
        let start = inner.get(..prefix.len())?;
        let rest = inner.get(prefix.len()..)?;
        start.eq_ignore_ascii_case(prefix).then_some(rest.trim())
    };
    if inner.is_empty() || inner.eq_ignore_ascii_case("$null") {
        return None;
    }
    if let Some(address) = kind("smtp:").filter(|address| !address.is_empty()) {
        return Some(Entry::Smtp(address.to_owned()));
    }
    if kind("smtp:").is_some() {
        return None;
    }
    let legacy = kind("ex:").unwrap_or(inner);
    if legacy
        .get(..3)
        .is_some_and(|start| start.eq_ignore_ascii_case("/o="))
    {
        return Some(Entry::Legacy(last_part(legacy, &['=', '/']).to_owned()));
    }
    if inner.contains('@') && !inner.contains(char::is_whitespace) {
        return Some(Entry::Smtp(inner.to_owned()));
    }
    Some(Entry::Object(object_name(inner).to_owned()))
}

/// The name at the end of a canonical path, or the first part of a distinguished name.
fn object_name(text: &str) -> &str {
    let text = text
        .get(..3)
        .filter(|start| start.eq_ignore_ascii_case("cn="))
        .and_then(|_| text.get(3..)?.split(',').next())
        .unwrap_or(text);
    last_part(text, &['/'])
}

/// What follows the last of the separators.
pub(crate) fn last_part<'a>(text: &'a str, separators: &[char]) -> &'a str {
    text.rsplit(separators)
        .find(|part| !part.trim().is_empty())
        .unwrap_or(text)
        .trim()
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    let (_, rest) = text.split_once(open)?;
    let (inner, _) = rest.rsplit_once(close)?;
    let address = inner.contains('@') || inner.contains(':') || inner.starts_with('/');
    address.then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::Entry::{Legacy, Object, Smtp};
    use super::*;

    #[test]
    fn every_form_of_an_entry_is_understood() {
        let smtp = |text: &str| Smtp(text.to_owned());
        let legacy = |text: &str| Legacy(text.to_owned());
        let object = |text: &str| Object(text.to_owned());
        for (text, expected) in [
            ("", vec![]),
            ("$null", vec![]),
            ("smtp:", vec![]),
            (";;", vec![]),
            ("a@b.example", vec![smtp("a@b.example")]),
            ("SMTP:A@b.example", vec![smtp("A@b.example")]),
            (
                "a@b.example;c@d.example",
                vec![smtp("a@b.example"), smtp("c@d.example")],
            ),
            (
                "a@b.example, c@d.example",
                vec![smtp("a@b.example"), smtp("c@d.example")],
            ),
            ("Bob Roe [SMTP:bob@b.example]", vec![smtp("bob@b.example")]),
            (
                "\"Roe, Bob\" <bob@b.example>;x@y.example",
                vec![smtp("bob@b.example"), smtp("x@y.example")],
            ),
            ("Roe, Bob [SMTP:bob@b.example]", vec![smtp("bob@b.example")]),
            (
                "alias;Bob [SMTP:bob@b.example]",
                vec![object("alias"), smtp("bob@b.example")],
            ),
            ("\"half quoted <bob@b.example>", vec![smtp("bob@b.example")]),
            (
                "/o=ExchangeLabs/ou=x/cn=Recipients/cn=0a-bob",
                vec![legacy("0a-bob")],
            ),
            (
                "Bob [EX:/o=ExchangeLabs/ou=x/cn=Recipients/cn=0a-bob]",
                vec![legacy("0a-bob")],
            ),
            (
                "CN=Bob,OU=contoso.onmicrosoft.com,DC=PROD",
                vec![object("Bob")],
            ),
            (
                "EUR.PROD.OUTLOOK.COM/Hosted/contoso.onmicrosoft.com/Bob",
                vec![object("Bob")],
            ),
            ("Security [team]", vec![object("Security [team]")]),
        ] {
            assert_eq!(entries(text), expected, "{text}");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let many = "a@b.example;".repeat(ENTRIES_MAX * 2);
        assert_eq!(entries(&many).len(), ENTRIES_MAX);
    }
}

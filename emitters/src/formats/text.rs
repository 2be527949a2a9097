//! Cutting and escaping of text, shared by the formats.
//!
//! Lengths are measured as the text will stand in the output, so that a bound holds whatever
//! characters an attacker chose.

use std::borrow::Cow;

/// Marks a cut.
const ELLIPSIS: char = '…';

/// At most `chars_max` characters; a cut is marked.
pub(crate) fn cut_chars(text: &str, chars_max: usize) -> Cow<'_, str> {
    if text.chars().nth(chars_max).is_none() {
        return Cow::Borrowed(text);
    }
    let mut cut: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    cut.push(ELLIPSIS);
    Cow::Owned(cut)
}

/// Cuts so that the text takes at most `bytes_max` bytes inside an ASCII-only JSON string.
pub(crate) fn cut_json(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let total: usize = text.chars().map(json_width).sum();
    if total <= bytes_max {
        return Cow::Borrowed(text);
    }
    let mut left = bytes_max.saturating_sub(json_width(ELLIPSIS));
    let mut cut: String = text
        .chars()
        .take_while(|c| {
            let width = json_width(*c);
            let fits = width <= left;
            left = left.saturating_sub(width);
            fits
        })
        .collect();
    cut.push(ELLIPSIS);
    Cow::Owned(cut)
}

fn json_width(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        _ => 6 * c.len_utf16(),
    }
}

/// JSON as printable ASCII on one line: other characters as `\uXXXX`, white space between members
/// as blanks. The value it stands for is the same; `json` must be valid.
pub(crate) fn ascii_json(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            ' '..='~' => line.push(c),
            '\t' | '\n' | '\r' => line.push(' '),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    push_escape(*unit, &mut line);
                }
            }
        }
    }
    line
}

/// `\uXXXX`.
pub(crate) fn push_escape(unit: u16, line: &mut String) {
    line.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        let digit = u32::from(unit >> shift) & 0xf;
        line.push(char::from_digit(digit, 16).unwrap_or('0'));
    }
}

/// Control characters, line and paragraph separators, marks that turn or hide text, tags.
pub(crate) fn invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        )
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends a value as `escape` writes it, cut between characters and marked when it is too long.
pub(crate) fn push_cut(
    value: &str,
    bytes_max: usize,
    escape: fn(char, &mut String),
    text: &mut String,
) {
    let start = text.len();
    let mut fits = start;
    for c in value.chars() {
        if text.len() - start + ELLIPSIS.len_utf8() <= bytes_max {
            fits = text.len();
        }
        escape(c, text);
        if text.len() - start > bytes_max {
            text.truncate(fits);
            text.push(ELLIPSIS);
            return;
        }
    }
}

/// What is no visible character as `\uXXXX` in text form, its backslash escaped.
pub(crate) fn push_visible(c: char, text: &mut String) {
    if invisible(c) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            text.push('\\');
            push_escape(*unit, text);
        }
    } else {
        text.push(c);
    }
}

/// JSON on one line: line breaks between members become blanks. `json` must be valid, where a line
/// break cannot stand inside a string.
pub(crate) fn one_line(json: &[u8]) -> Cow<'_, [u8]> {
    let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if memchr::memchr2(b'\n', b'\r', json).is_some() {
        let blank = |byte: &u8| if breaks(byte) { b' ' } else { *byte };
        Cow::Owned(json.iter().map(blank).collect())
    } else {
        Cow::Borrowed(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ascii_json_keeps_the_value(text in any::<String>()) {
            let value = serde_json::json!({ "k": text });
            let ascii = ascii_json(&serde_json::to_string_pretty(&value).unwrap());
            prop_assert!(ascii.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&ascii).unwrap(), value);
        }

        #[test]
        fn a_cut_text_fits_as_written(text in any::<String>(), bytes_max in 6_usize..200) {
            let cut = cut_json(&text, bytes_max);
            let written = ascii_json(&serde_json::to_string(&cut).unwrap());
            prop_assert!(written.len() - 2 <= bytes_max);
            prop_assert!(cut_chars(&text, bytes_max).chars().count() <= bytes_max);
        }

        #[test]
        fn a_cut_never_parts_an_escape_and_keeps_its_limit(
            value in any::<String>(), bytes_max in 12_usize..80,
        ) {
            let escape = |c: char, text: &mut String| match c {
                '\\' | '|' | '"' => text.extend(['\\', c]),
                c => push_visible(c, text),
            };
            let mut text = String::new();
            push_cut(&value, bytes_max, escape, &mut text);
            prop_assert!(text.len() <= bytes_max);
            let mut whole = String::new();
            value.chars().for_each(|c| escape(c, &mut whole));
            if let Some(begin) = text.strip_suffix(ELLIPSIS).filter(|_| text != whole) {
                prop_assert!(whole.starts_with(begin));
                let slashes = begin.chars().rev().take_while(|c| *c == '\\').count();
                prop_assert_eq!(slashes % 2, 0);
            } else {
                prop_assert_eq!(text, whole);
            }
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        assert_eq!(cut_chars("häuser", 6), "häuser");
        assert_eq!(cut_chars("häuser", 5), "häus…");
        assert_eq!(cut_json("abc", 3), "abc");
        assert_eq!(cut_json("abcdefghijk", 9), "abc…");
        assert_eq!(one_line(b"{\n\"a\": 1}").as_ref(), b"{ \"a\": 1}");
    }
}

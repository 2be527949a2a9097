//! A vendor's words, made fit for an error text or a log line.

use std::borrow::Cow;

/// Longest piece of a vendor's answer that is shown, in characters.
pub const SHOWN_CHARACTERS_MAX: usize = 200;

/// Stands in an access token's place.
const TOKEN: &str = "[token]";

/// One line of at most [`SHOWN_CHARACTERS_MAX`] characters without control characters, and without
/// the access token that a proxy repeats from the request's head.
pub fn shown(text: &str) -> String {
    let mut line = String::new();
    let mut after_bearer = false;
    for (count, word) in text.split_whitespace().enumerate() {
        if count > 0 {
            line.push(' ');
        }
        let told = without_token(word, after_bearer);
        after_bearer = word
            .get(word.len().saturating_sub(6)..)
            .is_some_and(|end| end.eq_ignore_ascii_case("bearer"));
        line.extend(told.chars().filter(|c| !c.is_control()));
        if line.chars().count() > SHOWN_CHARACTERS_MAX {
            line = line.chars().take(SHOWN_CHARACTERS_MAX).collect();
            line.push('…');
            break;
        }
    }
    line
}

/// A word that is no token: a JSON Web Token is known by its beginning (`{"` in base64), an opaque one
/// by the word before it.
fn without_token(word: &str, after_bearer: bool) -> Cow<'_, str> {
    const LENGTH_MIN: usize = 20;
    let from = if after_bearer {
        Some(0)
    } else {
        word.find("eyJ")
    };
    let Some((before, token)) = from.and_then(|at| word.split_at_checked(at)) else {
        return word.into();
    };
    let of_token =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '/' | '+' | '=');
    let end = token.find(|c| !of_token(c)).unwrap_or(token.len());
    let (token, after) = token.split_at_checked(end).unwrap_or((token, ""));
    if token.len() < LENGTH_MIN {
        return word.into();
    }
    format!("{before}{TOKEN}{after}").into()
}

/// As [`shown`], for bytes that may be anything.
pub fn shown_bytes(bytes: &[u8]) -> String {
    let start = bytes.get(..4 * SHOWN_CHARACTERS_MAX).unwrap_or(bytes);
    match shown(&String::from_utf8_lossy(start)) {
        text if text.is_empty() => "(empty body)".to_owned(),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_escapes_and_length_do_not_reach_a_log() {
        assert_eq!(shown("a\r\nTrace\u{1b}[2J  b"), "a Trace[2J b");
        assert_eq!(shown(&"x".repeat(5_000)).chars().count(), 201);
        assert_eq!(shown_bytes(b" \n"), "(empty body)");
        assert_eq!(shown_bytes(&[0xff, b'a']), "\u{fffd}a");
    }

    #[test]
    fn a_token_that_is_repeated_is_not_shown() {
        let jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln";
        for (text, expected) in [
            (
                format!("<p>Authorization: Bearer {jwt}</p>"),
                "<p>Authorization: Bearer [token]</p>",
            ),
            (
                format!("{{\"token\":\"{jwt}\"}} no"),
                "{\"token\":\"[token]\"} no",
            ),
            (
                "bearer ya29.a0AfB_byC1234567890xyz, gone".to_owned(),
                "bearer [token], gone",
            ),
            (
                "Bearer token is missing".to_owned(),
                "Bearer token is missing",
            ),
            ("ey eyJ short".to_owned(), "ey eyJ short"),
        ] {
            assert_eq!(shown(&text), expected);
        }
    }
}

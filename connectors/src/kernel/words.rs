//! A vendor's words, made fit for an error text or a log line.

/// Longest piece of a vendor's answer that is shown, in characters.
pub const SHOWN_CHARACTERS_MAX: usize = 200;

/// One line of at most [`SHOWN_CHARACTERS_MAX`] characters without control characters.
pub fn shown(text: &str) -> String {
    let mut line = String::new();
    for (count, word) in text.split_whitespace().enumerate() {
        if count > 0 {
            line.push(' ');
        }
        line.extend(word.chars().filter(|c| !c.is_control()));
        if line.chars().count() > SHOWN_CHARACTERS_MAX {
            line = line.chars().take(SHOWN_CHARACTERS_MAX).collect();
            line.push('…');
            break;
        }
    }
    line
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
}

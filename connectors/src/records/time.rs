//! Times as the vendors write them, read without a general parser: every head needs one.

use chrono::{DateTime, NaiveDate, Utc};

/// Reads `2026-05-23T17:35:00` with or without a fraction, `Z` or offset. Without a zone it is UTC
/// (Office 365 writes it so). `None` when it is no time.
pub(crate) fn instant(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let (head, tail) = (bytes.get(..19)?, bytes.get(19..)?);
    let fraction = tail.strip_suffix(b"Z").unwrap_or(tail);
    let Some(nanos) = nanoseconds(fraction) else {
        return DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|time| time.to_utc());
    };
    let punctuation = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let joined = matches!(head.get(10), Some(b'T' | b' '));
    if !joined
        || punctuation
            .iter()
            .any(|(at, byte)| head.get(*at) != Some(byte))
    {
        return None;
    }
    let part = |from: usize, until: usize| number(head.get(from..until)?);
    let date =
        NaiveDate::from_ymd_opt(i32::try_from(part(0, 4)?).ok()?, part(5, 7)?, part(8, 10)?)?;
    let time = date.and_hms_nano_opt(part(11, 13)?, part(14, 16)?, part(17, 19)?, nanos)?;
    Some(time.and_utc())
}

/// `.5` is half a second, nothing is none; anything else is no fraction.
fn nanoseconds(fraction: &[u8]) -> Option<u32> {
    let Some(digits) = fraction.strip_prefix(b".") else {
        return fraction.is_empty().then_some(0);
    };
    let digits = digits.get(..digits.len().min(9))?;
    let missing = u32::try_from(9 - digits.len()).ok()?;
    Some(number(digits)? * 10_u32.pow(missing))
}

/// At most nine digits and nothing else.
fn number(digits: &[u8]) -> Option<u32> {
    let all = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    all.then(|| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_of_a_time_is_read() {
        for (text, expected) in [
            ("2021-04-16T12:07:14", "2021-04-16T12:07:14Z"),
            ("2021-04-16T12:07:14Z", "2021-04-16T12:07:14Z"),
            ("2021-04-16 12:07:14", "2021-04-16T12:07:14Z"),
            ("2022-08-02T07:12:16.443Z", "2022-08-02T07:12:16.443Z"),
            (
                "2021-04-16T12:07:14.0000001Z",
                "2021-04-16T12:07:14.000000100Z",
            ),
            ("2021-04-16T14:07:14+02:00", "2021-04-16T12:07:14Z"),
            ("2021-04-16T14:07:14.5+02:00", "2021-04-16T12:07:14.5Z"),
        ] {
            let expected: DateTime<Utc> = expected.parse().unwrap();
            assert_eq!(instant(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "2021-04-16",
            "2021-13-16T12:07:14",
            "2021-04-16T25:07:14",
            "2021-04-16T12:07:14.",
            "2021-04-16T12:07:14.xZ",
            "2021-04-16T12-07-14",
            "1627376273000",
            "é021-04-16T12:07:14",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}

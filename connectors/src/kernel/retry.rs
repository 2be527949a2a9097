//! How long to wait before the next try.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use http::header::RETRY_AFTER;

/// Longest wait a vendor may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// What `Retry-After` asks for, as seconds or as a date, capped at [`RETRY_AFTER_MAX`].
pub fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        (date.with_timezone(&Utc) - now)
            .to_std()
            .unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Back-off with full jitter: between nothing and `first` doubled once per earlier try, at most
/// `longest`. `random` lies in `[0, 1)`.
pub fn full_jitter(tries: u32, first: Duration, longest: Duration, random: f64) -> Duration {
    let grown = first.saturating_mul(2_u32.saturating_pow(tries));
    grown.min(longest).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms_and_capped() {
        let now = "2026-05-23T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            ("Sat, 23 May 2026 12:00:30 GMT", Some(30)),
            ("Sat, 23 May 2026 11:00:00 GMT", Some(0)),
            ("999999999", Some(3_600)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_cap_and_spreads_over_all_of_it() {
        let wait = |tries, random| {
            full_jitter(
                tries,
                Duration::from_secs(1),
                Duration::from_mins(5),
                random,
            )
        };
        assert_eq!(wait(0, 1.0), Duration::from_secs(1));
        assert_eq!(wait(4, 0.5), Duration::from_secs(8));
        assert_eq!(wait(60, 1.0), Duration::from_mins(5));
        assert_eq!(wait(60, 0.0), Duration::ZERO);
    }
}

//! The range of a backfill, as people write it.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use exfilwatch_model::Window;

use crate::cli::failure::{Code, Failure};
use crate::pipeline::job::RANGE_MAX;

/// The span from `since` to `until`, or to the present.
pub(crate) fn window(
    since: &str,
    until: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Window, Failure> {
    let from = time("--since", since, now)?;
    let usage = |what: String| Failure::new(Code::Usage, what);
    if from >= now {
        return Err(usage(format!(
            "--since {since} lies in the future: it is {now} now"
        )));
    }
    let end = match until {
        Some(text) => time("--until", text, now)?,
        None => now,
    };
    if end <= from {
        let until = until.unwrap_or("now");
        return Err(
            usage(format!("--until {until} is not after --since {since}"))
                .help("the range runs from --since to --until; both times of a day need a zone"),
        );
    }
    if end > now {
        tracing::warn!(until = %end, "the range ends in the future; it is read up to the present");
    }
    if end.min(now) - from > RANGE_MAX {
        let days = RANGE_MAX.num_days();
        let what =
            format!("--since {since} is more than {days} days back: no vendor keeps so much");
        return Err(usage(what).help("name a later start"));
    }
    Window::new(from, end.min(now)).ok_or_else(|| usage("the range is empty".to_owned()))
}

/// A time, a date or an age, as people write it.
pub(crate) fn time(flag: &str, text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Failure> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    if let Some(time) = to_the_minute(text) {
        return Ok(time);
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    if let Some(time) = age(text).and_then(|age| now.checked_sub_signed(age)) {
        return Ok(time);
    }
    let zoneless = text.replace(' ', "T");
    let short = NaiveDateTime::parse_from_str(&zoneless, "%Y-%m-%dT%H:%M");
    if zoneless.parse::<NaiveDateTime>().is_ok() || short.is_ok() {
        let what = format!("{flag} {text:?} has no zone: it could be meant in any");
        return Err(Failure::new(Code::Usage, what).help("write 2026-05-01T00:00:00Z or +02:00"));
    }
    let what = format!("{flag} {text:?} is neither a time, a date nor an age");
    Err(Failure::new(Code::Usage, what)
        .help("write 2026-05-01T00:00:00Z, 2026-05-01 (UTC), 36h or 7d"))
}

/// `2026-05-01T09:00Z`, as the tables write it.
fn to_the_minute(text: &str) -> Option<DateTime<Utc>> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix('z'))?;
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M").ok()?;
    Some(time.and_utc())
}

/// `30m`, `36h`, `7d`.
pub(crate) fn age(text: &str) -> Option<TimeDelta> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1))?;
    let number: i64 = number.parse().ok().filter(|number| *number >= 0)?;
    match unit {
        "m" => TimeDelta::try_minutes(number),
        "h" => TimeDelta::try_hours(number),
        "d" => TimeDelta::try_days(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-05-08T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_range_is_written_as_time_date_or_age() {
        for (text, wanted) in [
            ("2026-05-01T02:00:00+02:00", "2026-05-01T00:00:00Z"),
            ("2026-05-01", "2026-05-01T00:00:00Z"),
            ("2026-05-01T09:05Z", "2026-05-01T09:05:00Z"),
            ("36h", "2026-05-07T00:00:00Z"),
            ("7d", "2026-05-01T12:00:00Z"),
            ("30m", "2026-05-08T11:30:00Z"),
        ] {
            let wanted: DateTime<Utc> = wanted.parse().unwrap();
            assert_eq!(time("--since", text, now()).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write() {
        for (since, until, says) in [
            ("", None, "neither"),
            ("yesterday", None, "neither"),
            ("7", None, "neither"),
            ("7w", None, "neither"),
            ("-7d", None, "neither"),
            ("2026-13-01", None, "neither"),
            ("99999999999999d", None, "neither"),
            ("ü", None, "neither"),
            ("2026-05-01T00:00:00", None, "no zone"),
            ("2026-05-01 00:00:00", None, "no zone"),
            ("2026-05-01 09:05", None, "no zone"),
            ("2026-05-01T25:05Z", None, "neither"),
            ("2026-05-09", None, "in the future"),
            ("2d", Some("3d"), "is not after"),
            ("2026-05-02", Some("2026-05-01"), "is not after"),
        ] {
            let failure = window(since, until, now()).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{since}");
            assert!(failure.message.contains(says), "{since}: {failure}");
        }
    }

    #[test]
    fn a_range_that_ends_in_the_future_ends_now() {
        let window = window("1d", Some("2026-06-01"), now()).unwrap();
        assert_eq!(window.until(), now());
    }
}

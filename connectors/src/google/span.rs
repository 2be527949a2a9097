//! The frozen windows that are the work items of this connector. Pure.
//!
//! The Reports API lists newest first, so nothing may be concluded from a page but the last. A
//! window is therefore fixed before its first page and done only after its last.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use exfilwatch_model::{Gap, GapCause, GapState, StreamId, Window, WorkItem};

use super::applications::ALERT_CENTER;
use crate::FetchError;

/// How far back the vendor keeps activities. Of alerts it does not say; no more is read.
pub const REACH: TimeDelta = TimeDelta::days(180);
/// How far every poll looks back before the cursor.
pub const HOT: TimeDelta = TimeDelta::minutes(5);
/// Longest window; their ends lie on multiples of it.
pub const SPAN_LONGEST: TimeDelta = TimeDelta::hours(1);
/// Most windows of one listing.
pub const SPANS_MAX: usize = 200;

/// What a listing comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The windows, oldest first.
    pub windows: Vec<Window>,
    /// What the vendor does not keep any more.
    pub gap: Option<Window>,
    /// Everything before this is in the windows.
    pub covered_until: DateTime<Utc>,
    /// Whether more windows follow.
    pub more: bool,
}

/// How to cut: what the vendor makes known late, and how wide a window may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How far the last window's end stays behind the present.
    pub lag: TimeDelta,
    /// Longest window.
    pub width: TimeDelta,
}

/// The oldest start that is asked for; a minute passes between asking and being read.
pub fn lowest(now: DateTime<Utc>) -> DateTime<Utc> {
    floor(now - REACH) + TimeDelta::minutes(1)
}

/// The windows from `covered_until` to the present less the lag.
pub fn plan(covered_until: DateTime<Utc>, now: DateTime<Utc>, cut: Cut) -> Plan {
    let Cut { lag, width } = cut;
    let lowest = lowest(now);
    let gap = Window::new(covered_until, lowest);
    let base = covered_until.max(lowest);
    let end = floor(now - lag);
    let whole = Window::new((base - HOT).max(lowest), end).filter(|_| end > base);
    let mut windows = whole.map_or_else(Vec::new, |whole| whole.pieces(width));
    let more = windows.len() > SPANS_MAX;
    windows.truncate(SPANS_MAX);
    let covered_until = windows.last().map_or(base, Window::until);
    Plan {
        windows,
        gap,
        covered_until,
        more,
    }
}

/// The windows that cover a span again.
pub fn again(span: Window, now: DateTime<Utc>, width: TimeDelta) -> Vec<Window> {
    let from = span.from().max(lowest(now));
    Window::new(from, span.until()).map_or_else(Vec::new, |span| span.pieces(width))
}

/// The item of a window. `read_again` makes a key of its own for a window that is read once more.
pub fn item(stream: &StreamId, window: Window, read_again: Option<DateTime<Utc>>) -> WorkItem {
    let body = format!("{}/{}", text(window.from()), text(window.until()));
    let key = match read_again {
        None => body.clone(),
        Some(at) => format!("{body}@{}", text(at)),
    };
    WorkItem {
        stream: stream.clone(),
        key,
        body,
        from: window.from(),
        expires: Some(window.from() + REACH),
        attempts: 0,
        next_try: None,
        last_error: None,
    }
}

/// The window of an item.
pub fn of(item: &WorkItem) -> Result<Window, FetchError> {
    let read = |(from, until): (&str, &str)| Window::new(from.parse().ok()?, until.parse().ok()?);
    item.body
        .split_once('/')
        .and_then(read)
        .ok_or_else(|| FetchError::Poison {
            what: format!("item {} of {} names no window", item.key, item.stream),
        })
}

/// The gap of a span that is no longer kept.
pub fn gap(stream: &StreamId, window: Window, now: DateTime<Utc>) -> Gap {
    let reason = if stream.name() == ALERT_CENTER {
        "older than the 180 days that are read of the Alert Center"
    } else {
        "older than the 180 days for which the vendor keeps activities"
    };
    let found = (GapState::Lost, GapCause::NotListed);
    Gap::new(stream.clone(), window, found, reason, now)
}

/// As the API wants it: UTC with milliseconds and Z.
pub fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn floor(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(at.timestamp(), 0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_poll_is_one_small_window_and_a_late_start_many_of_an_hour() {
        let now = at("2026-05-23T12:30:10Z");
        let cut = Cut {
            lag: TimeDelta::minutes(3),
            width: SPAN_LONGEST,
        };
        let poll = plan(at("2026-05-23T12:26:00Z"), now, cut);
        assert_eq!(poll.windows.len(), 1);
        assert_eq!(poll.windows[0].from(), at("2026-05-23T12:21:00Z"));
        assert_eq!(poll.covered_until, at("2026-05-23T12:27:10Z"));
        let late = plan(now - TimeDelta::days(20), now, cut);
        assert_eq!(late.windows.len(), SPANS_MAX);
        assert!(late.more && late.gap.is_none());
    }

    #[test]
    fn a_window_survives_the_work_list_and_is_told_from_its_second_reading() {
        let stream: StreamId = "t/google_workspace/drive".parse().unwrap();
        let now = at("2026-05-23T12:30:10.250Z");
        let window = Window::new(now - TimeDelta::hours(1), now).unwrap();
        let (first, second) = (
            item(&stream, window, None),
            item(&stream, window, Some(now)),
        );
        assert_eq!(of(&first).unwrap(), window);
        assert_eq!(of(&second).unwrap(), window);
        assert_ne!(first.key, second.key);
        let broken = WorkItem {
            body: "x".into(),
            ..first
        };
        assert!(matches!(of(&broken), Err(FetchError::Poison { .. })));
    }

    proptest! {
        #[test]
        fn windows_leave_no_hole_up_to_the_lag(
            behind in 0_i64..20_000_000, lag in 0_i64..900, width in 600_i64..=3_600,
        ) {
            let now = at("2026-05-23T12:30:10Z");
            let start = now - TimeDelta::seconds(behind);
            let (lag, width) = (TimeDelta::seconds(lag), TimeDelta::seconds(width));
            let mut covered = start;
            loop {
                let step = plan(covered, now, Cut { lag, width });
                if let Some(gap) = step.gap {
                    prop_assert_eq!(gap.from(), covered);
                    prop_assert!(step.windows.first().is_none_or(|w| w.from() <= gap.until()));
                } else {
                    prop_assert!(step.windows.first().is_none_or(|w| w.from() <= covered));
                }
                for pair in step.windows.windows(2) {
                    prop_assert_eq!(pair[0].until(), pair[1].from());
                }
                prop_assert!(step.windows.iter().all(|w| w.length() <= width));
                covered = step.covered_until;
                if !step.more {
                    break;
                }
            }
            prop_assert!(covered >= (now - lag).min(start));
        }
    }
}

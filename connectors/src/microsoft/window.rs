//! Which window a listing asks for next. Pure.
//!
//! Windows are over the time at which content became available, start inclusive, end exclusive,
//! at most 24 hours, at most 7 days back (AF20030, AF20055). Their ends lie on a fixed grid, since
//! the service was seen to answer differently to the same span cut differently.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::Window;

/// How far back the service lists. It refuses from 7 days on; the rest is room for clocks.
pub const REACH: TimeDelta = TimeDelta::minutes(167 * 60 + 55);
/// The newest content is left to settle so long.
pub const SETTLE: TimeDelta = TimeDelta::seconds(60);
/// How far every poll looks back before the cursor.
pub const HOT: TimeDelta = TimeDelta::minutes(5);
/// Longest window asked for.
pub const WINDOW_LONGEST: TimeDelta = TimeDelta::hours(6);
/// A first cursor may lie so far below the reach and is lifted to it without calling it a gap:
/// "seven days back" is meant as "all there is".
pub const FIRST_TOLERANCE: TimeDelta = TimeDelta::minutes(10);

const SECOND: TimeDelta = TimeDelta::seconds(1);
const MINUTE: TimeDelta = TimeDelta::minutes(1);
const HOUR: TimeDelta = TimeDelta::hours(1);

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The window, if there is anything new.
    pub window: Option<Window>,
    /// What lies below the reach and cannot be listed any more.
    pub gap: Option<Window>,
    /// Everything before this is listed when the window is.
    pub covered_until: DateTime<Utc>,
    /// Whether there is another window after this one.
    pub more: bool,
}

/// The lowest start the service takes now: to the second, since that is what a request can say.
pub fn lowest(now: DateTime<Utc>) -> DateTime<Utc> {
    let exact = now - REACH;
    let second = floor(exact, SECOND);
    if second < exact {
        second + SECOND
    } else {
        second
    }
}

/// The next window after `covered_until`.
pub fn plan(covered_until: DateTime<Utc>, now: DateTime<Utc>) -> Plan {
    let lowest = lowest(now);
    let horizon = floor(now - SETTLE, MINUTE);
    let gap = Window::new(covered_until, lowest);
    let base = covered_until.max(lowest);
    let end = horizon.min(floor(base, WINDOW_LONGEST) + WINDOW_LONGEST);
    let start = floor(base - HOT, HOT).max(lowest);
    if end <= base {
        return Plan {
            window: None,
            gap,
            covered_until: base,
            more: false,
        };
    }
    Plan {
        window: Window::new(start, end),
        gap,
        covered_until: end,
        more: end < horizon,
    }
}

/// The windows that cover a span listed before, as far as the service still lists it. Their starts
/// lie on the grid of hours (of five minutes for a span shorter than that), and longer spans are cut
/// at the lines of [`WINDOW_LONGEST`]: a start that moved with every pass could fall upon a blob and
/// list another in its place that holds a part of it.
pub fn again(span: Window, now: DateTime<Utc>) -> Vec<Window> {
    let grid = if span.length() < HOUR { HOT } else { HOUR };
    let mut from = floor(span.from(), grid).max(lowest(now));
    // Down, not up: the part of a minute above is above the cursor and is listed by the next poll.
    let until = floor(span.until().min(now), MINUTE);
    let mut windows = Vec::new();
    while from < until {
        let end = if until - from <= WINDOW_LONGEST {
            until
        } else {
            floor(from, WINDOW_LONGEST) + WINDOW_LONGEST
        };
        windows.extend(Window::new(from, end));
        from = end;
    }
    windows
}

fn floor(at: DateTime<Utc>, step: TimeDelta) -> DateTime<Utc> {
    let step = step.num_seconds().max(1);
    DateTime::from_timestamp(at.timestamp().div_euclid(step) * step, 0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_poll_looks_back_five_minutes_and_leaves_the_last_one_alone() {
        let plan = plan(at("2026-05-23T12:03:00Z"), at("2026-05-23T12:05:30Z"));
        let window = plan.window.unwrap();
        assert_eq!(window.from(), at("2026-05-23T11:55:00Z"));
        assert_eq!(window.until(), at("2026-05-23T12:04:00Z"));
        assert_eq!(plan.covered_until, window.until());
        assert!(!plan.more && plan.gap.is_none());
    }

    #[test]
    fn nothing_new_asks_for_nothing() {
        let covered = at("2026-05-23T12:03:00Z");
        let plan = plan(covered, at("2026-05-23T12:04:10Z"));
        assert_eq!(
            (plan.window, plan.covered_until, plan.more),
            (None, covered, false)
        );
    }

    #[test]
    fn eight_days_down_is_a_gap_up_to_the_reach_and_listing_goes_on_from_there() {
        let now = at("2026-05-23T12:00:10Z");
        let plan = plan(now - TimeDelta::days(8), now);
        let gap = plan.gap.unwrap();
        assert_eq!(gap.from(), now - TimeDelta::days(8));
        assert_eq!(gap.until(), at("2026-05-16T12:05:10Z"));
        assert_eq!(plan.window.unwrap().from(), gap.until());
    }

    #[test]
    fn clamp_is_exact() {
        for (now, lowest_start) in [
            ("2026-05-23T12:00:10Z", "2026-05-16T12:05:10Z"),
            ("2026-05-23T12:00:10.001Z", "2026-05-16T12:05:11Z"),
            ("2026-05-23T11:55:00Z", "2026-05-16T12:00:00Z"),
        ] {
            let (now, lowest_start) = (at(now), at(lowest_start));
            assert_eq!(lowest(now), lowest_start);
            for (covered, gap_seconds) in [(0, 0), (-1, 1), (-86_400, 86_400), (1, 0)] {
                let plan = plan(lowest_start + TimeDelta::seconds(covered), now);
                let gap = plan.gap.map_or(0, |gap| gap.length().num_seconds());
                assert_eq!(gap, gap_seconds, "{now} {covered}");
                assert_eq!(plan.window.unwrap().from(), lowest_start);
            }
        }
    }

    #[test]
    fn what_is_listed_again_starts_on_the_grid_whatever_the_minute() {
        let span = |minutes: i64, until: &str| {
            let until = at(until);
            Window::new(until - TimeDelta::minutes(minutes), until).unwrap()
        };
        let starts = |span: Window, now: &str| -> Vec<String> {
            let windows = again(span, at(now));
            windows
                .iter()
                .map(|window| window.from().format("%H:%M:%S").to_string())
                .collect()
        };
        assert_eq!(
            starts(span(5, "2026-05-23T12:03:00Z"), "2026-05-23T12:05:00Z"),
            ["11:55:00"]
        );
        for minute in [1, 17, 59] {
            let until = format!("2026-05-23T12:{minute:02}:00Z");
            assert_eq!(
                starts(span(60, &until), "2026-05-23T13:30:00Z"),
                ["11:00:00"]
            );
        }
        let all = again(
            span(7 * 1_440, "2026-05-23T12:00:00Z"),
            at("2026-05-23T12:00:10Z"),
        );
        assert_eq!(all[0].from(), at("2026-05-16T12:05:10Z"));
        assert!(
            all.iter()
                .skip(1)
                .all(|w| floor(w.from(), WINDOW_LONGEST) == w.from())
        );
        assert!(all.windows(2).all(|two| two[0].until() == two[1].from()));
    }

    proptest! {
        #[test]
        fn catching_up_leaves_no_hole_and_breaks_no_rule_of_the_service(
            behind in 0_i64..900_000,
            now in 1_700_000_000_i64..1_900_000_000,
        ) {
            let now = DateTime::from_timestamp(now, 0).unwrap();
            let start = now - TimeDelta::seconds(behind);
            let mut covered = start;
            for _ in 0..60 {
                let step = plan(covered, now);
                if let Some(gap) = step.gap {
                    prop_assert_eq!(gap.from(), covered);
                    prop_assert!(gap.until() <= now - REACH + MINUTE);
                }
                if let Some(window) = step.window {
                    prop_assert!(window.length() <= TimeDelta::hours(24));
                    prop_assert!(window.from() >= now - REACH);
                    prop_assert!(window.until() <= now);
                    prop_assert!(window.from() <= covered.max(lowest(now)));
                    prop_assert_eq!(window.until(), step.covered_until);
                }
                covered = step.covered_until;
                if !step.more {
                    break;
                }
            }
            prop_assert!(covered >= start && now - covered <= TimeDelta::seconds(behind.min(120)).max(TimeDelta::zero()));
        }
    }
}

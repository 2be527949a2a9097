//! When a stream had content, by the hour, over four weeks: how long it may be silent.
//!
//! The rule, which an operator can check by hand: a stream is silent when it has had no content for
//! more than twice as long as its longest pause of the last four weeks, and for more than
//! [`SilenceOptions::hours_min`]. In its first eight days, when no weekend may have been seen yet,
//! for more than three days at least. A stream that never had content is never silent. Hours are
//! those of the listing (availability or event time), and silence ends where listing has come to:
//! what is not listed yet is no silence.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use exfilwatch_model::StreamId;
use serde::{Deserialize, Serialize};

/// Hours that are remembered.
const HOURS_MAX: i64 = 28 * 24;
/// A stream that is known for so long has been seen over a weekend.
const LEARNED_HOURS: i64 = 8 * 24;
/// Silence allowed before that.
const LEARNING_HOURS_MIN: i64 = 72;
/// How many times its longest pause a stream may be silent.
const PAUSES: i64 = 2;

/// What an operator says of silence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SilenceOptions {
    /// Silence that is always allowed, in hours.
    pub hours_min: u32,
    /// Silence that is allowed of a stream whatever its habit, in hours, by `tenant/connector/name`;
    /// 0 allows any.
    pub hours: BTreeMap<String, u32>,
}

/// The hours in which a stream had content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Text", from = "Text")]
pub struct Habit {
    /// Hours since the epoch, at most [`HOURS_MAX`] back from the last.
    active: BTreeSet<i64>,
    /// The first there ever was.
    first: Option<i64>,
}

/// As it is stored: the last hour, and a bit for each before it, the last one first.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Text {
    first: Option<i64>,
    last: i64,
    hours: String,
}

fn hour(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(3_600)
}

fn start_of(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(hour * 3_600, 0).unwrap_or_default()
}

impl Habit {
    /// There was content at this instant. Whether that is news.
    pub fn mark(&mut self, at: DateTime<Utc>) -> bool {
        let hour = hour(at);
        if self
            .active
            .last()
            .is_some_and(|last| last - hour >= HOURS_MAX)
        {
            return false;
        }
        let news = self.active.insert(hour);
        self.first = Some(self.first.map_or(hour, |first| first.min(hour)));
        if let Some(last) = self.active.last().copied() {
            self.active = self.active.split_off(&(last - HOURS_MAX + 1));
        }
        news
    }

    /// End of the last hour with content.
    pub fn last(&self) -> Option<DateTime<Utc>> {
        Some(start_of(self.active.last()? + 1))
    }

    /// A silence that was told of is over: it is no habit, and does not count as a pause.
    pub fn forget_silence(&mut self, since: DateTime<Utc>) {
        let from = hour(since);
        let until = self.active.range(from..).next().copied();
        self.active.extend(from..until.unwrap_or(from));
    }

    /// The longest stretch of hours without content between two with it.
    fn longest_pause(&self) -> i64 {
        let next = self.active.iter().skip(1);
        let pauses = self
            .active
            .iter()
            .zip(next)
            .map(|(one, next)| next - one - 1);
        pauses.max().unwrap_or(0)
    }

    /// Hours of silence that are allowed; `None` allows any.
    pub fn allowed_hours(&self, stream: &StreamId, options: &SilenceOptions) -> Option<i64> {
        if let Some(hours) = options.hours.get(&stream.to_string()) {
            return (*hours > 0).then(|| i64::from(*hours));
        }
        let known = self.active.last()? - self.first?;
        let least = if known >= LEARNED_HOURS {
            i64::from(options.hours_min)
        } else {
            i64::from(options.hours_min).max(LEARNING_HOURS_MIN)
        };
        Some((PAUSES * self.longest_pause()).max(least))
    }

    /// Since when the stream is silent, and how long it may be, where it is longer: listing has come to
    /// `low_water`.
    pub fn silent_since(
        &self,
        stream: &StreamId,
        low_water: DateTime<Utc>,
        options: &SilenceOptions,
    ) -> Option<(DateTime<Utc>, i64)> {
        let since = self.last()?;
        let allowed = self.allowed_hours(stream, options)?;
        ((low_water - since).num_hours() > allowed).then_some((since, allowed))
    }
}

impl From<Habit> for Text {
    fn from(habit: Habit) -> Self {
        let last = habit.active.last().copied().unwrap_or(0);
        let earliest = habit.active.first().copied().unwrap_or(last);
        let digits = (last - earliest) / 4 + 1;
        let digit = |number: i64| {
            let bits = (0..4).filter(|bit| habit.active.contains(&(last - number * 4 - bit)));
            let value: u32 = bits.map(|bit| 8 >> bit).sum();
            char::from_digit(value, 16).unwrap_or('0')
        };
        let hours = if habit.active.is_empty() {
            String::new()
        } else {
            (0..digits).map(digit).collect()
        };
        Self {
            first: habit.first,
            last,
            hours,
        }
    }
}

impl From<Text> for Habit {
    fn from(text: Text) -> Self {
        let digits = text.hours.chars().map(|c| c.to_digit(16).unwrap_or(0));
        let bits = digits.flat_map(|digit| [8, 4, 2, 1].map(|bit| digit & bit != 0));
        let hours = (0..HOURS_MAX).zip(bits).filter(|(_, active)| *active);
        Self {
            active: hours.map(|(back, _)| text.last - back).collect(),
            first: text.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn stream() -> StreamId {
        "contoso/office365/Audit.Exchange".parse().unwrap()
    }

    fn options() -> SilenceOptions {
        SilenceOptions {
            hours_min: 24,
            hours: BTreeMap::new(),
        }
    }

    /// Office hours, Monday to Friday.
    fn office(weeks: i64) -> Habit {
        let mut habit = Habit::default();
        for day in (0..weeks * 7).filter(|day| day % 7 < 5) {
            for hour in 8..18 {
                habit.mark(at(day * 24 + hour));
            }
        }
        habit
    }

    #[test]
    fn a_stream_that_never_had_content_is_never_silent() {
        let habit = Habit::default();
        assert_eq!(habit.silent_since(&stream(), at(10_000), &options()), None);
    }

    #[test]
    fn a_weekend_is_no_silence_and_half_a_week_without_content_is() {
        let habit = office(2);
        let last = at(11 * 24 + 18);
        assert_eq!(habit.last(), Some(last));
        // From Friday 18:00 to Monday 8:00 are 62 hours.
        let allowed = habit.allowed_hours(&stream(), &options());
        assert_eq!(allowed, Some(124));
        let after =
            |hours| habit.silent_since(&stream(), last + TimeDelta::hours(hours), &options());
        assert_eq!(after(124), None);
        assert_eq!(after(125), Some((last, 124)));
    }

    #[test]
    fn in_the_first_days_a_silence_of_less_than_three_is_allowed() {
        let mut habit = Habit::default();
        for hour in 0..48 {
            habit.mark(at(hour));
        }
        assert_eq!(habit.silent_since(&stream(), at(48 + 72), &options()), None);
        assert!(
            habit
                .silent_since(&stream(), at(48 + 73), &options())
                .is_some()
        );
        for hour in 48..240 {
            habit.mark(at(hour));
        }
        assert_eq!(
            habit.allowed_hours(&stream(), &options()),
            Some(24),
            "learned"
        );
    }

    #[test]
    fn an_operator_may_fix_the_hours_of_a_stream_or_allow_any() {
        let mut options = options();
        options.hours.insert(stream().to_string(), 6);
        let last = at(11 * 24 + 18);
        let habit = office(2);
        let found = habit.silent_since(&stream(), last + TimeDelta::hours(7), &options);
        assert_eq!(found, Some((last, 6)));
        options.hours.insert(stream().to_string(), 0);
        assert_eq!(habit.silent_since(&stream(), at(9_000), &options), None);
    }

    #[test]
    fn a_silence_that_was_told_of_does_not_become_a_habit() {
        let mut habit = office(2);
        let since = habit.last().unwrap();
        habit.mark(since + TimeDelta::hours(300));
        assert!(habit.longest_pause() >= 299);
        habit.forget_silence(since);
        assert_eq!(habit.longest_pause(), 62);
    }

    proptest! {
        #[test]
        fn a_habit_is_stored_whole_whatever_the_order_of_arrival(
            mut hours in prop::collection::vec(0..2_000_i64, 0..60),
        ) {
            let mut habit = Habit::default();
            for hour in &hours {
                habit.mark(at(*hour));
            }
            let text = serde_json::to_string(&habit).unwrap();
            prop_assert!(text.len() < 300, "{}", text);
            prop_assert_eq!(&serde_json::from_str::<Habit>(&text).unwrap(), &habit);
            let mut other = Habit::default();
            hours.sort_unstable();
            hours.reverse();
            for hour in &hours {
                other.mark(at(*hour));
            }
            prop_assert_eq!(other.last(), habit.last());
            prop_assert_eq!(other.longest_pause(), habit.longest_pause());
        }
    }
}

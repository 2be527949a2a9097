//! Time: the one seam through which the clock is read, and half-open spans of it.
//!
//! A rate other than 1 exists only for `demo` and for tests; everything that asks for the time
//! asks a [`Clock`], so a run can be repeated.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Where the time comes from.
pub trait Clock: Send + Sync + Debug {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;

    /// How long to really wait so that `virtual_wait` passes on this clock.
    fn real(&self, virtual_wait: Duration) -> Duration {
        virtual_wait
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the clock"
        )]
        Utc::now()
    }
}

/// A clock that started at `origin` when `started` was, and runs `rate` times as fast.
#[derive(Debug, Clone, Copy)]
pub struct RatedClock {
    origin: DateTime<Utc>,
    started: Instant,
    rate: f64,
}

impl RatedClock {
    /// `rate` is virtual seconds per real second; values below 0.001 count as 0.001.
    pub fn new(origin: DateTime<Utc>, started: Instant, rate: f64) -> Self {
        Self {
            origin,
            started,
            rate: rate.max(0.001),
        }
    }
}

impl Clock for RatedClock {
    fn now(&self) -> DateTime<Utc> {
        let passed = self.started.elapsed().mul_f64(self.rate);
        self.origin + TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX)
    }

    fn real(&self, virtual_wait: Duration) -> Duration {
        virtual_wait.div_f64(self.rate)
    }
}

/// A span of time, `from` inclusive, `until` exclusive. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Window {
    /// `None` when the span would be empty or turned round.
    pub fn new(from: DateTime<Utc>, until: DateTime<Utc>) -> Option<Self> {
        (from < until).then_some(Self { from, until })
    }

    /// First instant inside.
    pub fn from(&self) -> DateTime<Utc> {
        self.from
    }

    /// First instant after.
    pub fn until(&self) -> DateTime<Utc> {
        self.until
    }

    /// Length; always positive.
    pub fn length(&self) -> TimeDelta {
        self.until - self.from
    }

    /// Whether the instant lies inside.
    pub fn holds(&self, at: DateTime<Utc>) -> bool {
        self.from <= at && at < self.until
    }

    /// Cuts the span into pieces whose ends lie on multiples of `step` since the epoch, so that
    /// two runs over overlapping spans ask for the same pieces. The first and last piece may be
    /// shorter. `step` is rounded up to one second.
    pub fn pieces(&self, step: TimeDelta) -> Vec<Self> {
        let step = step.num_seconds().max(1);
        let mut pieces = Vec::new();
        let mut from = self.from;
        while from < self.until {
            let next = (from.timestamp().div_euclid(step) + 1).saturating_mul(step);
            let end = DateTime::from_timestamp(next, 0)
                .unwrap_or(self.until)
                .min(self.until);
            pieces.push(Self { from, until: end });
            from = end;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn pieces_lie_on_the_grid_and_cover_the_window_without_a_hole() {
        let window = Window::new(at("2026-05-01T00:30:00Z"), at("2026-05-01T03:10:00Z")).unwrap();
        let pieces = window.pieces(TimeDelta::hours(1));
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces.first().unwrap().from(), window.from());
        assert_eq!(pieces.last().unwrap().until(), window.until());
        for pair in pieces.windows(2) {
            assert_eq!(pair[0].until(), pair[1].from());
            assert_eq!(pair[0].until().timestamp() % 3600, 0);
        }
    }

    #[test]
    fn an_empty_or_turned_window_cannot_be_made() {
        let t = at("2026-05-01T00:00:00Z");
        assert!(Window::new(t, t).is_none());
        assert!(Window::new(t + TimeDelta::seconds(1), t).is_none());
    }

    #[test]
    fn a_rated_clock_shortens_real_waits() {
        let clock = RatedClock::new(at("2026-05-01T00:00:00Z"), Instant::now(), 60.0);
        assert_eq!(clock.real(Duration::from_secs(60)), Duration::from_secs(1));
        assert!(clock.now() >= at("2026-05-01T00:00:00Z"));
    }
}

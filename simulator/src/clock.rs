//! The virtual clock: a start instant, a rate, and a way to stop or set it.
//!
//! Servers use it for visibility, expiry, token lifetimes and the Date header. The application may
//! run its own clock from the same [`ClockOrigin`]. Elapsed time is tokio's, so a test that pauses
//! tokio's time pauses this clock too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// The origin of a clock as plain numbers, to start an equal clock elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockOrigin {
    /// Virtual time at the origin, Unix milliseconds.
    pub base_unix_ms: i64,
    /// Virtual seconds per real second.
    pub rate: f64,
    /// Real time at the origin, Unix milliseconds.
    pub real_start_unix_ms: i64,
}

/// A clock that runs at a rate, can be stopped and set. Clones share one state.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    base_ms: i64,
    rate: f64,
    since: Instant,
    stopped: bool,
}

impl State {
    fn now_ms(&self) -> i64 {
        if self.stopped {
            return self.base_ms;
        }
        let elapsed_ms = self.since.elapsed().as_secs_f64() * 1000.0 * self.rate;
        #[allow(clippy::cast_possible_truncation)] // Saturates; a span of 2^63 ms is out of reach.
        let elapsed_ms = elapsed_ms as i64;
        self.base_ms.saturating_add(elapsed_ms)
    }

    fn rebase(&mut self, base_ms: i64) {
        self.base_ms = base_ms;
        self.since = Instant::now();
    }
}

impl VirtualClock {
    /// A running clock that shows `start` now and gains `rate` virtual seconds per real second.
    pub fn running(start: DateTime<Utc>, rate: f64) -> Self {
        Self::with(start, rate, false)
    }

    /// A clock that stands at `start` until it is set, advanced or resumed (rate 1).
    pub fn stopped(start: DateTime<Utc>) -> Self {
        Self::with(start, 1.0, true)
    }

    fn with(start: DateTime<Utc>, rate: f64, stopped: bool) -> Self {
        let base_ms = start.timestamp_millis();
        let since = Instant::now();
        Self {
            state: Arc::new(Mutex::new(State {
                base_ms,
                rate,
                since,
                stopped,
            })),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual time, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.lock().now_ms()
    }

    /// Virtual time.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.now_ms()).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Virtual seconds per real second.
    pub fn rate(&self) -> f64 {
        self.lock().rate
    }

    /// The present instant as an origin. It is only meaningful for a running clock.
    pub fn origin(&self) -> ClockOrigin {
        let state = *self.lock();
        ClockOrigin {
            base_unix_ms: state.now_ms(),
            rate: state.rate,
            real_start_unix_ms: real_unix_ms(),
        }
    }

    /// Stops the clock where it is.
    pub fn pause(&self) {
        let mut state = self.lock();
        let now = state.now_ms();
        state.rebase(now);
        state.stopped = true;
    }

    /// Lets a stopped clock run on.
    pub fn resume(&self) {
        let mut state = self.lock();
        let now = state.now_ms();
        state.rebase(now);
        state.stopped = false;
    }

    /// Sets the virtual time; running or stopped stays as it was.
    pub fn set(&self, time: DateTime<Utc>) {
        self.lock().rebase(time.timestamp_millis());
    }

    /// Moves the virtual time forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        let now = state.now_ms();
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        state.rebase(now.saturating_add(by_ms));
    }

    /// Changes the rate without a jump.
    pub fn set_rate(&self, rate: f64) {
        let mut state = self.lock();
        let now = state.now_ms();
        state.rebase(now);
        state.rate = rate;
    }
}

/// The machine's time, for a simulator whose clients go by it too.
pub fn real_now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(real_unix_ms()).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The only place of the crate that reads the machine's clock: the origin for another process.
#[allow(clippy::disallowed_methods)]
fn real_unix_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_clock_gains_its_rate_and_keeps_its_time_when_the_rate_changes() {
        let clock = VirtualClock::running(start(), 60.0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now_ms(), start().timestamp_millis() + 120_000);
        clock.set_rate(1.0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now_ms(), start().timestamp_millis() + 121_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_clock_moves_only_when_told() {
        let clock = VirtualClock::stopped(start());
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(clock.now(), start());
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now_ms(), start().timestamp_millis() + 5_000);
        clock.resume();
        tokio::time::advance(Duration::from_secs(1)).await;
        clock.pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now_ms(), start().timestamp_millis() + 6_000);
    }
}

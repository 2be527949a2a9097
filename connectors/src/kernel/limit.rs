//! Quotas: streams, jobs and connectors with the same quota key share one limiter and one pause.
//!
//! The limiter runs on tokio's time and follows the rate of our [`Clock`], so that a demo at a
//! hundred times the speed is not held to the real minute, and paused time works in tests.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exfilwatch_model::Clock;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota as Rate, RateLimiter};
use tokio::time::{Instant, sleep_until};

use super::retry::full_jitter;

/// First pause after a throttled request where the vendor names none.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const PAUSE_LONGEST: Duration = Duration::from_mins(5);

/// All quotas of a process, by key. Lives as long as the process: one entry per tenant.
#[derive(Debug)]
pub struct Quotas {
    clock: Arc<dyn Clock>,
    table: Mutex<BTreeMap<String, Arc<Quota>>>,
}

impl Quotas {
    /// Waits follow this clock's rate.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            table: Mutex::default(),
        }
    }

    /// The quota of that key. The first caller's `requests_per_minute` holds for all.
    pub fn quota(&self, key: &str, requests_per_minute: NonZeroU32) -> Arc<Quota> {
        locked(&self.table)
            .entry(key.to_owned())
            .or_insert_with(|| Arc::new(Quota::new(self.clock.clone(), requests_per_minute)))
            .clone()
    }
}

/// tokio's time as governor wants it.
#[derive(Debug, Clone)]
struct TokioClock {
    origin: Instant,
}

impl GovernorClock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// One quota: so many requests a minute, and a pause when the vendor says stop.
#[derive(Debug)]
pub struct Quota {
    clock: Arc<dyn Clock>,
    governor_clock: TokioClock,
    limiter: Limiter,
    pause: Mutex<Pause>,
}

#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    throttled_in_a_row: u32,
}

impl Quota {
    fn new(clock: Arc<dyn Clock>, requests_per_minute: NonZeroU32) -> Self {
        // A burst of three seconds' worth keeps a poll of five streams from waiting in line. It is taken
        // off the steady rate: no minute may have more than the quota, else the vendor refuses.
        let burst = NonZeroU32::new(requests_per_minute.get() / 20).unwrap_or(NonZeroU32::MIN);
        let steady = requests_per_minute.get().saturating_sub(burst.get());
        let per_request = Duration::from_mins(1) / steady.max(1);
        let rate = Rate::with_period(clock.real(per_request).max(Duration::from_nanos(1)))
            .unwrap_or(Rate::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let governor_clock = TokioClock {
            origin: Instant::now(),
        };
        Self {
            limiter: RateLimiter::direct_with_clock(rate, governor_clock.clone()),
            clock,
            governor_clock,
            pause: Mutex::default(),
        }
    }

    /// Waits until a request may be made. Safe to cancel: nothing is taken before it returns.
    pub async fn ready(&self) {
        loop {
            let wake = match self.paused_until() {
                Some(until) => until,
                None => match self.limiter.check() {
                    Ok(()) => return,
                    Err(not_yet) => {
                        Instant::now() + not_yet.wait_time_from(self.governor_clock.now())
                    }
                },
            };
            sleep_until(wake).await;
        }
    }

    /// The vendor said stop: nobody with this key asks before `after`, or a back-off of our own.
    pub fn throttled(&self, after: Option<Duration>, random: f64) {
        let mut pause = locked(&self.pause);
        let wait = after.unwrap_or_else(|| {
            // Half of it is sure, the other half jitter: a pause of nothing would be no pause.
            let half = PAUSE_FIRST / 2;
            half + full_jitter(pause.throttled_in_a_row, half, PAUSE_LONGEST, random)
        });
        pause.throttled_in_a_row = pause.throttled_in_a_row.saturating_add(1);
        let until = Instant::now() + self.clock.real(wait);
        pause.until = Some(pause.until.map_or(until, |earlier| earlier.max(until)));
    }

    /// A request went through: the next back-off starts small again.
    pub fn went_through(&self) {
        locked(&self.pause).throttled_in_a_row = 0;
    }

    /// Waits so long on our clock.
    pub async fn wait(&self, wait: Duration) {
        tokio::time::sleep(self.clock.real(wait)).await;
    }

    fn paused_until(&self) -> Option<Instant> {
        let mut pause = locked(&self.pause);
        if pause.until.is_some_and(|until| until <= Instant::now()) {
            pause.until = None;
        }
        pause.until
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these tables whole: they are changed in single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_model::{RatedClock, SystemClock};

    const MINUTE: Duration = Duration::from_mins(1);

    fn rpm(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    async fn time_for(quota: &Quota, requests: u32) -> Duration {
        let started = Instant::now();
        for _ in 0..requests {
            quota.ready().await;
        }
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_one_key_share_the_quota_and_others_do_not() {
        let quotas = Quotas::new(Arc::new(SystemClock));
        let (a, same, other) = (
            quotas.quota("t1", rpm(60)),
            quotas.quota("t1", rpm(60)),
            quotas.quota("t2", rpm(60)),
        );
        assert!(Arc::ptr_eq(&a, &same));
        let spent = time_for(&a, 20).await + time_for(&same, 20).await;
        assert!(spent >= Duration::from_secs(36), "{spent:?}");
        assert!(time_for(&other, 3).await < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_than_the_quota_and_nine_tenths_of_it_are_used() {
        let quota = Quotas::new(Arc::new(SystemClock)).quota("t", rpm(600));
        let started = Instant::now();
        let mut made = Vec::new();
        for _ in 0..3_000 {
            quota.ready().await;
            made.push(started.elapsed());
        }
        for (index, at) in made.iter().enumerate() {
            let minute = made[index..]
                .iter()
                .take_while(|later| **later < *at + MINUTE);
            assert!(minute.count() <= 600, "in the minute from {at:?}");
        }
        assert!(
            started.elapsed().as_secs_f64() < 300.0 / 0.9,
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_and_the_back_off_grows_until_something_goes_through() {
        let quotas = Quotas::new(Arc::new(SystemClock));
        let quota = quotas.quota("t", rpm(6_000));
        quota.throttled(Some(Duration::from_secs(90)), 0.0);
        assert!(time_for(&quota, 1).await >= Duration::from_secs(90));
        for _ in 0..4 {
            quota.throttled(None, 0.99);
        }
        assert!(time_for(&quota, 1).await > Duration::from_secs(8));
        quota.went_through();
        quota.throttled(None, 0.99);
        assert!(time_for(&quota, 1).await < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn waits_follow_the_clocks_rate() {
        let origin = "2026-05-23T12:00:00Z".parse().unwrap();
        let clock = RatedClock::new(origin, std::time::Instant::now(), 100.0);
        let quota = Quotas::new(Arc::new(clock)).quota("t", rpm(60));
        let spent = time_for(&quota, 101).await;
        assert!(spent < Duration::from_millis(1_500), "{spent:?}");
    }
}

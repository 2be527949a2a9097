//! Quotas: streams, jobs and connectors with the same quota key share one limiter and one pause.
//!
//! While the live line asks, the jobs beside it have at most half of the quota ([`as_job`]): the
//! other half is the live line's alone, and it may use all of it.
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
/// The live line counts as asking so long after its last request.
const LIVE_FOR: Duration = Duration::from_mins(10);

tokio::task_local! {
    /// Set while a job's calls are made.
    static IN_A_JOB: ();
}

/// Runs calls as a job's: they leave half of each quota to the live line while it asks. Counts for
/// what is awaited inside, not for tasks that are spawned inside.
pub async fn as_job<F: Future>(calls: F) -> F::Output {
    IN_A_JOB.scope((), calls).await
}

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
    /// What all jobs together may take of it while the live line asks.
    jobs: Limiter,
    pause: Mutex<Pause>,
    /// When the live line last wanted to ask.
    live: Mutex<Option<Instant>>,
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
        let burst = (requests_per_minute.get() / 20).max(1);
        let steady = requests_per_minute.get().saturating_sub(burst);
        let per_request = Duration::from_mins(1) / steady.max(1);
        let governor_clock = TokioClock {
            origin: Instant::now(),
        };
        let limiter = |per_request: Duration, burst: u32| {
            let rate = Rate::with_period(clock.real(per_request).max(Duration::from_nanos(1)))
                .unwrap_or(Rate::per_second(NonZeroU32::MIN))
                .allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
            RateLimiter::direct_with_clock(rate, governor_clock.clone())
        };
        Self {
            limiter: limiter(per_request, burst),
            jobs: limiter(per_request * 2, burst / 2),
            clock,
            governor_clock,
            pause: Mutex::default(),
            live: Mutex::default(),
        }
    }

    /// Waits until a request may be made. Safe to cancel: of the quota nothing is taken before it
    /// returns (a job that is cancelled may have taken from the jobs' share).
    pub async fn ready(&self) {
        if IN_A_JOB.try_with(|()| ()).is_err() {
            *locked(&self.live) = Some(Instant::now());
        } else if self.live_asks() {
            self.free(&self.jobs).await;
        }
        self.free(&self.limiter).await;
    }

    /// Whether the live line asked of late.
    pub fn live_asks(&self) -> bool {
        let live_for = self.clock.real(LIVE_FOR);
        locked(&self.live).is_some_and(|last| last.elapsed() < live_for)
    }

    /// Takes one request from a limiter, outside of pauses.
    async fn free(&self, limiter: &Limiter) {
        loop {
            let wake = match self.paused_until() {
                Some(until) => until,
                None => match limiter.check() {
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

    /// How long each of so many requests of the live line waits, when one is due every `every`.
    async fn waits_of_the_live_line(
        quota: &Quota,
        requests: u32,
        every: Duration,
    ) -> Vec<Duration> {
        let mut waits = Vec::new();
        let mut due = Instant::now();
        for _ in 0..requests {
            sleep_until(due).await;
            quota.ready().await;
            waits.push(due.elapsed());
            due += every;
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_leaves_the_live_line_its_half_and_has_all_of_it_alone() {
        let quota = Quotas::new(Arc::new(SystemClock)).quota("t", rpm(600));
        let alone = as_job(time_for(&quota, 300)).await;
        assert!(alone < Duration::from_secs(31), "{alone:?}");
        // Four greedy tasks of a job for ever; the live line asks at just its half.
        let jobs: Vec<_> = (0..4)
            .map(|_| {
                let quota = quota.clone();
                tokio::spawn(as_job(async move {
                    let mut taken = 0_u32;
                    let end = Instant::now() + Duration::from_mins(5);
                    while Instant::now() < end {
                        quota.ready().await;
                        taken += 1;
                    }
                    taken
                }))
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let waits = waits_of_the_live_line(&quota, 1_100, Duration::from_millis(220)).await;
        // What the job had in its hands when the live line came is over soon; after that nothing is
        // waited for but one request that is just being made (105 ms).
        let slow: Vec<_> = waits
            .iter()
            .skip(50)
            .filter(|w| **w > Duration::from_millis(110))
            .collect();
        assert!(
            slow.is_empty(),
            "{} of {} waited: {slow:?}",
            slow.len(),
            waits.len()
        );
        let mut by_jobs = 0;
        for job in jobs {
            by_jobs += job.await.unwrap();
        }
        // 20 s alone at 9.5 a second, and 280 s at half of that: with more the live line would have
        // had less to fall back on, though it did not ask for it.
        assert!((1_400..=1_600).contains(&by_jobs), "{by_jobs} by jobs");
    }

    #[tokio::test(start_paused = true)]
    async fn the_live_line_may_use_the_whole_quota_whatever_jobs_want() {
        let quota = Quotas::new(Arc::new(SystemClock)).quota("t", rpm(600));
        let jobs: Vec<_> = (0..8)
            .map(|_| {
                let quota = quota.clone();
                tokio::spawn(as_job(async move { time_for(&quota, 10_000).await }))
            })
            .collect();
        let spent = time_for(&quota, 600).await;
        for job in jobs {
            job.abort();
        }
        // At least half: 600 requests at 285 a minute.
        assert!(spent <= Duration::from_secs(127), "{spent:?}");
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

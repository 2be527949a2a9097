//! How many requests go to an address at a time, and how fast: one at first, one more after a round of
//! successes, half as many when the receiver is in trouble.
//!
//! Between lanes and receivers this is the place that decides it: a lane does not know addresses, and
//! several lanes share them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Most requests at a time.
const AT_A_TIME_MAX: usize = 4;
/// How long the pace stays halved when the receiver nears its capacity.
const SLOW: Duration = Duration::from_secs(30);

/// The pace of one address.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: usize,
    running: usize,
    /// Successes since the limit changed.
    successes: usize,
    /// Until when the pace is halved.
    slow_until: Option<Instant>,
    /// With one request at a time half the pace is a pause as long as the request took.
    pauses: bool,
    not_before: Instant,
}

/// The right to one request; it ends with it.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    began: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                limit: 1,
                running: 0,
                successes: 0,
                slow_until: None,
                pauses: false,
                not_before: Instant::now(),
            }),
            freed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Turn<'_> {
        loop {
            let freed = self.freed.notified();
            match self.try_turn(Instant::now()) {
                Ok(turn) => return turn,
                Err(Some(not_before)) => sleep_until(not_before).await,
                Err(None) => freed.await,
            }
        }
    }

    /// A turn; or until when it has to wait, where that is known.
    fn try_turn(&self, now: Instant) -> Result<Turn<'_>, Option<Instant>> {
        let mut state = self.state();
        if state.running >= state.limit {
            return Err(None);
        }
        if now < state.not_before {
            return Err(Some(state.not_before));
        }
        state.running += 1;
        Ok(Turn {
            pace: self,
            began: now,
        })
    }

    /// The receiver took a request.
    pub(super) fn taken(&self) {
        let mut state = self.state();
        state.successes += 1;
        let is_slow = state.slow_until.is_some_and(|until| Instant::now() < until);
        if !is_slow {
            state.slow_until = None;
            state.pauses = false;
            if state.successes >= state.limit && state.limit < AT_A_TIME_MAX {
                state.limit += 1;
                state.successes = 0;
                self.freed.notify_one();
            }
        }
    }

    /// The receiver is busy or failing, or gave no answer.
    pub(super) fn in_trouble(&self) {
        let mut state = self.state();
        state.limit = (state.limit / 2).max(1);
        state.successes = 0;
    }

    /// The receiver took a request and nears its capacity: half the pace for a while.
    pub(super) fn slow_down(&self) {
        let now = Instant::now();
        let mut state = self.state();
        if state.slow_until.is_none_or(|until| until <= now) {
            state.pauses = state.limit == 1;
            state.limit = (state.limit / 2).max(1);
            state.successes = 0;
        }
        state.slow_until = Some(now + SLOW);
    }

    /// As at the beginning: on a new channel the first request alone brings the balancer's cookie.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        state.limit = 1;
        state.successes = 0;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.pace.state();
        state.running -= 1;
        if state.pauses && state.slow_until.is_some_and(|until| now < until) {
            state.not_before = now + (now - self.began);
        }
        drop(state);
        self.pace.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns that can be had at once.
    fn room(pace: &Pace) -> usize {
        let mut turns = Vec::new();
        while let Ok(turn) = pace.try_turn(Instant::now()) {
            turns.push(turn);
        }
        turns.len()
    }

    #[tokio::test(start_paused = true)]
    async fn it_grows_by_one_a_round_and_is_halved_in_trouble() {
        let pace = Pace::new();
        let mut seen = vec![room(&pace)];
        for _ in 0..10 {
            pace.taken();
            seen.push(room(&pace));
        }
        assert_eq!(seen, [1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]);
        pace.in_trouble();
        assert_eq!(room(&pace), 2);
        pace.in_trouble();
        pace.in_trouble();
        assert_eq!(room(&pace), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn near_its_capacity_it_is_halved_once_and_for_a_while() {
        let pace = Pace::new();
        (0..6).for_each(|_| pace.taken());
        pace.slow_down();
        pace.slow_down();
        (0..6).for_each(|_| pace.taken());
        assert_eq!(room(&pace), 2);
        tokio::time::advance(SLOW).await;
        (0..6).for_each(|_| pace.taken());
        assert_eq!(room(&pace), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_is_halved_by_pauses() {
        let pace = Pace::new();
        pace.slow_down();
        let began = Instant::now();
        for _ in 0..3 {
            let _turn = pace.turn().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }
}

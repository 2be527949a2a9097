//! The listing task of one stream: asks the connector what there is, hands it to the worker, and
//! goes on only from a cursor that the worker has committed.
//!
//! Each poll lists what is new and looks again over the last minutes; at longer intervals over
//! more (design, "Polling defaults"): what came late is found so. The whole retention is a job's
//! (`job::reconcile`).

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{Connector, FetchError, Listing, Schedule, Standing};
use exfilwatch_model::{Clock, Cursor, StreamId, Window, WorkItem};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::pipeline::fetch::{Message, Pass};

/// First wait after a listing failed; doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Longest wait after a listing failed.
const RETRY_MAX: Duration = Duration::from_secs(900);
/// Wait while credentials or a permission are refused.
const HOLD: Duration = Duration::from_secs(900);
/// Wait while auditing is off.
const AUDITING_OFF: Duration = Duration::from_secs(3_600);

/// What the listing of one stream works with.
#[derive(Debug)]
pub(crate) struct ListingTask {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) stream: StreamId,
    pub(crate) cursor: Cursor,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) shutdown: CancellationToken,
}

impl ListingTask {
    /// Lists until shutdown, or until the worker is gone.
    pub(crate) async fn run(mut self) {
        let schedule = self.connector.schedule(&self.stream);
        let mut again = Again::new(self.clock.now());
        let mut failures = 0_u32;
        loop {
            let wait = match self.poll_once(&schedule, &mut again).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => {
                    failures = 0;
                    self.connector.poll_interval()
                }
                Err(Stop::Gone) => return,
                Err(Stop::Failed(error)) => {
                    failures += 1;
                    wait_after(&error, failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(self.clock.real(wait)) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    /// Lists once, and again where that is due. Whether to go on at once.
    async fn poll_once(&mut self, schedule: &Schedule, again: &mut Again) -> Result<bool, Stop> {
        let began = self.clock.now();
        let listing = self.connector.list(&self.stream, &self.cursor).await;
        let more = listing.as_ref().is_ok_and(|listing| listing.more);
        let standing = listing
            .as_ref()
            .map_or_else(|_| Standing::default(), |listing| listing.standing.clone());
        let held = matches!(standing, Standing::Held { .. } | Standing::Withheld(_));
        let taken = self.hand_over(listing, (Pass::New, None, began)).await?;
        if !taken || held {
            return Ok(false);
        }
        if more {
            return Ok(true);
        }
        let now = self.clock.now();
        let until = self.cursor.covered_until;
        let span = again.due(schedule, now);
        let Some(window) = Window::new(until - span, until) else {
            return Ok(false);
        };
        let found = self.connector.relist(&self.stream, window).await;
        let listing = found.map(|items| Listing {
            items,
            cursor: self.cursor.clone(),
            gaps: Vec::new(),
            more: false,
            standing,
        });
        // A pass that failed or was not taken is due again.
        if self
            .hand_over(listing, (Pass::Again, Some(window), now))
            .await?
        {
            again.done(schedule, now, span);
        }
        Ok(false)
    }

    /// Hands a listing to the session. Whether it was taken.
    async fn hand_over(
        &mut self,
        outcome: Result<Listing, FetchError>,
        (pass, span, began): (Pass, Option<Window>, DateTime<Utc>),
    ) -> Result<bool, Stop> {
        let failed = outcome.as_ref().err().cloned();
        let (reply, answer) = oneshot::channel();
        let message = Message::Listed {
            stream: self.stream.clone(),
            outcome,
            pass,
            span,
            began,
            reply,
        };
        self.messages.send(message).await.map_err(|_| Stop::Gone)?;
        let listed = answer.await.map_err(|_| Stop::Gone)?;
        match (failed, listed.cursor) {
            (Some(error), _) => Err(Stop::Failed(error)),
            (None, Some(cursor)) => {
                self.cursor = cursor;
                Ok(listed.taken)
            }
            (None, None) => Err(Stop::Gone),
        }
    }
}

enum Stop {
    /// The worker has ended.
    Gone,
    /// The vendor did not answer as hoped.
    Failed(FetchError),
}

fn wait_after(error: &FetchError, failures: u32) -> Duration {
    let doubled = RETRY_FIRST * 2_u32.pow(failures.saturating_sub(1).min(10));
    match error {
        FetchError::Retry { after, .. } | FetchError::Throttled { after, .. } => {
            after.unwrap_or(doubled.min(RETRY_MAX))
        }
        FetchError::AuditingDisabled { .. } => AUDITING_OFF,
        FetchError::Auth { .. } | FetchError::Permission { .. } | FetchError::Hold { .. } => HOLD,
        _ => RETRY_MAX,
    }
}

/// When which span is to be listed again. The overlap is due at every start.
#[derive(Debug)]
struct Again {
    overlap_at: DateTime<Utc>,
}

impl Again {
    fn new(now: DateTime<Utc>) -> Self {
        Self { overlap_at: now }
    }

    /// The span that is due now, the longest only: it holds the shorter ones.
    fn due(&self, schedule: &Schedule, now: DateTime<Utc>) -> TimeDelta {
        if now >= self.overlap_at {
            schedule.overlap
        } else {
            schedule.hot
        }
    }

    /// The span was listed.
    fn done(&mut self, schedule: &Schedule, now: DateTime<Utc>, span: TimeDelta) {
        if span >= schedule.overlap {
            self.overlap_at = now + schedule.overlap_every;
        }
    }
}

/// Items of a listing that are neither open nor done.
pub(crate) fn only_new<E>(
    items: Vec<WorkItem>,
    mut is_known: impl FnMut(&WorkItem) -> Result<bool, E>,
) -> Result<Vec<WorkItem>, E> {
    let mut new = Vec::new();
    for item in items {
        if !is_known(&item)? {
            new.push(item);
        }
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule {
            hot: TimeDelta::minutes(5),
            overlap: TimeDelta::hours(1),
            overlap_every: TimeDelta::minutes(15),
            retention: TimeDelta::days(7),
            retention_every: TimeDelta::days(1),
        }
    }

    #[test]
    fn the_longest_span_that_is_due_is_listed_again_until_it_worked() {
        let start = DateTime::UNIX_EPOCH;
        let schedule = schedule();
        let minutes = |n| start + TimeDelta::minutes(n);
        let mut again = Again::new(minutes(60));
        assert_eq!(
            again.due(&schedule, minutes(60)),
            schedule.overlap,
            "at every start"
        );
        again.done(&schedule, minutes(60), schedule.overlap);
        assert_eq!(again.due(&schedule, minutes(61)), schedule.hot);
        assert_eq!(again.due(&schedule, minutes(75)), schedule.overlap);
        assert_eq!(
            again.due(&schedule, minutes(76)),
            schedule.overlap,
            "not done yet"
        );
        again.done(&schedule, minutes(76), schedule.overlap);
        assert_eq!(again.due(&schedule, minutes(77)), schedule.hot);
    }

    #[test]
    fn a_vendor_that_asks_for_patience_is_given_it() {
        let asked = FetchError::Throttled {
            what: "429".into(),
            after: Some(Duration::from_secs(77)),
        };
        assert_eq!(wait_after(&asked, 5), Duration::from_secs(77));
        let plain = FetchError::Retry {
            what: "503".into(),
            after: None,
        };
        assert_eq!(wait_after(&plain, 1), Duration::from_secs(5));
        assert_eq!(wait_after(&plain, 3), Duration::from_secs(20));
        assert_eq!(wait_after(&plain, 30), RETRY_MAX);
    }
}

//! Subscriptions: looked at first, started only where needed, and seldom.
//!
//! The service takes one start in 15 minutes and answers 429 with "Please retry again after 14m
//! 56s" otherwise. So the time of the last start is kept in the stream's cursor, which the store
//! keeps, whether the start worked or not; a listing that tried one comes back at once, so that it
//! is stored.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use exfilwatch_model::Cursor;
use serde::{Deserialize, Serialize};

use super::answer::{ALREADY_ENABLED, DISABLED_HELP};
use super::feed::Feed;
use crate::kernel::words::shown;
use crate::{FetchError, Standing};

/// Between two starts of one content type.
pub(super) const START_EVERY: TimeDelta = TimeDelta::minutes(15);
/// The same after [`STARTS_OFTEN`] vain ones.
const START_LATER: TimeDelta = TimeDelta::hours(1);
/// Vain starts at the shorter interval.
const STARTS_OFTEN: u32 = 3;
/// Between two looks at the list of subscriptions.
pub(super) const LOOK_EVERY: TimeDelta = TimeDelta::hours(6);
/// The same while the subscription is off: somebody may turn it on.
const LOOK_WHILE_OFF: TimeDelta = TimeDelta::minutes(5);
/// How long the first content may take, by the documentation.
const FIRST_CONTENT: TimeDelta = TimeDelta::hours(12);

/// What a stream's cursor keeps besides how far it is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// Last look at the list of subscriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) looked_at: Option<DateTime<Utc>>,
    /// Last start, vain or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<DateTime<Utc>>,
    /// Since when there has been no content at all; `None` once there was some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting_since: Option<DateTime<Utc>>,
    /// Starts since content was last listed.
    pub(super) vain_starts: u32,
    /// Why it is off, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) off: Option<String>,
    /// Whether content was ever listed from this cursor: then some may be lost when the subscription
    /// is off.
    pub(super) listed: bool,
}

impl State {
    /// Out of a cursor. What cannot be read counts as nothing known: the list is looked at again.
    pub(super) fn of(cursor: &Cursor) -> Self {
        serde_json::from_str(&cursor.state).unwrap_or_default()
    }

    /// A cursor that holds it.
    pub(super) fn into_cursor(self, covered_until: DateTime<Utc>) -> Cursor {
        Cursor {
            covered_until,
            state: serde_json::to_string(&self).unwrap_or_default(),
        }
    }

    /// Whether the list must be looked at before the next listing.
    pub(super) fn look_is_due(&self, now: DateTime<Utc>) -> bool {
        let every = if self.off.is_some() {
            LOOK_WHILE_OFF
        } else {
            LOOK_EVERY
        };
        self.looked_at
            .is_none_or(|at| now - at >= every || at > now)
    }

    /// How the stream stands.
    pub(super) fn standing(&self, content_type: &str, now: DateTime<Utc>) -> Standing {
        if let Some(why) = &self.off {
            let next = self.next_start(now).unwrap_or(now).round_subsecs(0);
            return Standing::Held {
                what: format!(
                    "the subscription to {content_type} is off: {why}; it is started again at \
                     {next}"
                ),
                help: DISABLED_HELP.to_owned(),
            };
        }
        match self.waiting_since {
            Some(since) if now - since < FIRST_CONTENT => Standing::Waiting {
                what: format!(
                    "subscribed at {}; the first content may take up to 12 hours",
                    since.round_subsecs(0)
                ),
            },
            Some(since) => Standing::Waiting {
                what: format!(
                    "subscribed at {}, and nothing has been published since: there may be nothing \
                     to publish, or unified auditing is off",
                    since.round_subsecs(0)
                ),
            },
            None => Standing::Flowing,
        }
    }

    /// When a start is allowed again; `None` where it is now.
    fn next_start(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let every = if self.vain_starts >= STARTS_OFTEN {
            START_LATER
        } else {
            START_EVERY
        };
        let next = self.started_at? + every;
        // A time in the future is the work of a clock that was wrong.
        (next > now && next - now <= every).then_some(next)
    }
}

/// What a process remembers of the subscriptions besides what cursors keep: a job has a cursor of
/// its own, and must not start what a listing has just started.
#[derive(Debug, Default)]
pub(super) struct Care {
    by_type: Mutex<BTreeMap<String, Remembered>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Remembered {
    looked: bool,
    started_at: Option<DateTime<Utc>>,
}

impl Care {
    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Remembered>> {
        self.by_type.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process has looked at the list for this content type.
    pub(super) fn has_looked(&self, content_type: &str) -> bool {
        self.table()
            .get(content_type)
            .is_some_and(|known| known.looked)
    }

    fn looked(&self, content_type: &str) {
        let mut table = self.table();
        table.entry(content_type.to_owned()).or_default().looked = true;
    }

    fn started_at(&self, content_type: &str) -> Option<DateTime<Utc>> {
        self.table().get(content_type)?.started_at
    }

    fn started(&self, content_type: &str, at: DateTime<Utc>) {
        let mut table = self.table();
        table.entry(content_type.to_owned()).or_default().started_at = Some(at);
    }
}

/// What came out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subscription {
    /// It is enabled, by the list.
    Enabled,
    /// It was started just now.
    Started {
        /// Content was listed before: what was published meanwhile is lost.
        interrupted: bool,
    },
    /// It is off, and the state says why.
    Off,
}

/// Looks at the list; starts the subscription where it is missing, or where the content listing
/// has `refused` it, and a start is allowed. An error means that nothing was found out.
pub(super) async fn ensure(
    feed: &Feed,
    content_type: &str,
    state: &mut State,
    refused: bool,
) -> Result<Subscription, FetchError> {
    let listed = feed.subscriptions().await?;
    // The answer's Date has told the vendor's time.
    let now = feed.client.wire().now();
    feed.care.looked(content_type);
    state.looked_at = Some(now);
    let enabled = listed.get(content_type).copied();
    if enabled == Some(true) && !refused {
        return Ok(Subscription::Enabled);
    }
    let how = match enabled {
        Some(false) => "it is disabled",
        Some(true) => "it is listed as enabled, but its content is refused",
        None => "it is not there",
    };
    state.started_at = state.started_at.max(feed.care.started_at(content_type));
    if state.next_start(now).is_some() {
        state.off.get_or_insert_with(|| how.to_owned());
        return Ok(Subscription::Off);
    }
    state.started_at = Some(now);
    feed.care.started(content_type, now);
    match feed.start(content_type).await {
        Ok(()) => {}
        Err(refusal) if refusal.code == ALREADY_ENABLED => {}
        // Nobody knows whether it was started; the next look will tell.
        Err(refusal) if matches!(refusal.error, FetchError::Retry { .. }) => {
            return Err(refusal.error);
        }
        Err(refusal) => {
            state.vain_starts = state.vain_starts.saturating_add(1);
            state.off = Some(format!("{how}: {}", shown(&refusal.error.to_string())));
            return Ok(Subscription::Off);
        }
    }
    tracing::info!(
        content_type,
        "subscription started; the first content may take up to 12 hours"
    );
    let interrupted = state.listed;
    // Counts as vain until a listing shows that it worked.
    state.vain_starts = state.vain_starts.saturating_add(1);
    state.off = None;
    if !interrupted {
        state.waiting_since = Some(now);
    }
    Ok(Subscription::Started { interrupted })
}

//! Subscriptions: looked at first, started only where needed, and seldom.
//!
//! The service takes one start in 15 minutes and answers 429 with "Please retry again after 14m
//! 56s" otherwise. So the time of the last start is kept in the stream's cursor, which the store
//! keeps, and a listing that started one comes back at once, so that it is stored.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::Cursor;
use serde::{Deserialize, Serialize};

use super::answer::{ALREADY_ENABLED, SUBSCRIPTION_DISABLED};
use super::feed::Feed;
use crate::FetchError;

/// Between two starts of one content type.
pub(super) const START_EVERY: TimeDelta = TimeDelta::minutes(15);
/// Between two looks at the list of subscriptions.
pub(super) const LOOK_EVERY: TimeDelta = TimeDelta::hours(6);

/// What a stream's cursor keeps besides how far it is listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Last look at the list of subscriptions that found this one enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) looked_at: Option<DateTime<Utc>>,
    /// Last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<DateTime<Utc>>,
    /// Whether it has been enabled before: then content may be lost when it is not any more.
    #[serde(default)]
    pub(super) was_enabled: bool,
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
        self.looked_at
            .is_none_or(|at| now - at >= LOOK_EVERY || at > now)
    }
}

/// What came out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subscription {
    /// It is enabled, and was before.
    Enabled,
    /// It was started just now.
    Started {
        /// It had been enabled before: what was published meanwhile is lost.
        interrupted: bool,
    },
}

/// Looks at the list, unless `refused` by the content listing as not subscribed; starts the
/// subscription where it is missing and a start is allowed.
pub(super) async fn ensure(
    feed: &Feed,
    content_type: &str,
    state: &mut State,
    now: DateTime<Utc>,
    refused: bool,
) -> Result<Subscription, FetchError> {
    let listed = feed.subscriptions().await?;
    let enabled = listed.get(content_type).copied();
    if enabled == Some(true) && !refused {
        state.looked_at = Some(now);
        state.was_enabled = true;
        return Ok(Subscription::Enabled);
    }
    let how = match enabled {
        Some(false) => "disabled",
        Some(true) => "listed as enabled, but its content is refused",
        None => "not there",
    };
    if let Some(started_at) = state.started_at {
        let wait = started_at + START_EVERY - now;
        if wait > TimeDelta::zero() && wait <= START_EVERY {
            return Err(wait_for_start(content_type, how, wait));
        }
    }
    match feed.start(content_type).await {
        Ok(()) => {}
        Err(refusal) if refusal.code == ALREADY_ENABLED => {}
        Err(refusal) => {
            let too_soon = matches!(refusal.error, FetchError::Throttled { .. })
                || refusal.code == SUBSCRIPTION_DISABLED;
            if too_soon {
                return Err(wait_for_start(content_type, how, START_EVERY));
            }
            return Err(refusal.error);
        }
    }
    tracing::info!(
        content_type,
        "subscription started; the first content may take up to 12 hours"
    );
    let interrupted = state.was_enabled;
    state.started_at = Some(now);
    state.looked_at = Some(now);
    state.was_enabled = true;
    Ok(Subscription::Started { interrupted })
}

fn wait_for_start(content_type: &str, how: &str, wait: TimeDelta) -> FetchError {
    FetchError::Retry {
        what: format!(
            "the subscription to {content_type} is {how}; it can be started again in {} minutes",
            wait.num_minutes().max(1)
        ),
        after: wait.to_std().ok(),
    }
}

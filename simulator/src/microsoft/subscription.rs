//! Subscriptions: start (one request in 15 minutes), stop, list.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use serde::Serialize;
use serde_json::{Value, json};

use super::errors::Problem;
use super::{FeedPath, Microsoft, Query, Service};
use crate::reply;

/// One start request in so many milliseconds.
const START_EVERY_MS: i64 = 15 * 60_000;
/// A start so soon after a stop finds the subscription still disabled.
const STOP_SETTLES_MS: i64 = 60_000;

/// State of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscriptionStatus {
    /// Never started, hence not listed.
    Absent,
    /// Content is collected.
    Enabled,
    /// Stopped, or disabled by an administrator.
    Disabled,
}

#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) status: SubscriptionStatus,
    pub(super) since_ms: i64,
    pub(super) start_calls: u64,
    pub(super) barred: bool,
    last_start_ms: Option<i64>,
    stopped_ms: Option<i64>,
}

impl Subscription {
    pub(super) fn enabled_at(since_ms: i64) -> Self {
        let status = SubscriptionStatus::Enabled;
        Self {
            status,
            since_ms,
            start_calls: 0,
            barred: false,
            last_start_ms: None,
            stopped_ms: None,
        }
    }

    pub(super) fn absent() -> Self {
        Self {
            status: SubscriptionStatus::Absent,
            ..Self::enabled_at(0)
        }
    }

    fn start(&mut self, now_ms: i64) -> Result<(), Response> {
        self.start_calls += 1;
        if let Some(last) = self
            .last_start_ms
            .filter(|last| now_ms - last < START_EVERY_MS)
        {
            return Err(too_frequent(START_EVERY_MS - (now_ms - last)));
        }
        self.last_start_ms = Some(now_ms);
        let stopped = |stopped: i64| now_ms - stopped < STOP_SETTLES_MS;
        if self.barred || self.stopped_ms.is_some_and(stopped) {
            return Err(Problem::SubscriptionDisabled.response());
        }
        if self.status == SubscriptionStatus::Enabled {
            return Err(Problem::AlreadyEnabled.response());
        }
        self.status = SubscriptionStatus::Enabled;
        self.since_ms = now_ms;
        Ok(())
    }
}

fn too_frequent(wait_ms: i64) -> Response {
    let seconds = (wait_ms + 999) / 1000;
    let message = format!(
        "Too many frequent subscription start requests. Please retry again after {}m {}s",
        seconds / 60,
        seconds % 60
    );
    let body = json!({ "error": { "code": "AF429", "message": message } });
    let mut response = reply::json(429, body.to_string());
    response
        .headers_mut()
        .insert(RETRY_AFTER, http::HeaderValue::from(seconds));
    response
}

fn shown(content_type: &str, status: SubscriptionStatus) -> Value {
    json!({ "contentType": content_type, "status": status, "webhook": null })
}

pub(super) async fn start(
    State(service): Service,
    Path((_, tenant)): FeedPath,
    RawQuery(query): Query,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service
        .start(&tenant, query.as_deref(), &headers, &body)
        .unwrap_or_else(|refusal| refusal)
}

pub(super) async fn stop(
    State(service): Service,
    Path((_, tenant)): FeedPath,
    RawQuery(query): Query,
    headers: HeaderMap,
) -> Response {
    service
        .stop(&tenant, query.as_deref(), &headers)
        .unwrap_or_else(|refusal| refusal)
}

pub(super) async fn list(
    State(service): Service,
    Path((_, tenant)): FeedPath,
    RawQuery(query): Query,
    headers: HeaderMap,
) -> Response {
    let call = match service.admit("ListSubscriptions", (&tenant, query.as_deref()), &headers) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    let state = service.state();
    let rows: Vec<Value> = state
        .subscriptions
        .iter()
        .filter(|((number, _), found)| {
            *number == call.tenant && found.status != SubscriptionStatus::Absent
        })
        .map(|((_, content_type), found)| shown(content_type, found.status))
        .collect();
    reply::json(200, Value::Array(rows).to_string())
}

impl Microsoft {
    fn start(
        &self,
        tenant: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, Response> {
        let call = self.admit("StartSubscription", (tenant, query), headers)?;
        let content_type = Self::content_type(&call)?;
        if !body.is_empty() && serde_json::from_slice::<Value>(body).is_err() {
            return Err(Problem::WrongType("body".into(), "webhook").response());
        }
        let mut state = self.state();
        state
            .subscriptions
            .entry((call.tenant, content_type))
            .or_insert_with(Subscription::absent)
            .start(call.now_ms)?;
        let body = shown(content_type, SubscriptionStatus::Enabled);
        Ok(reply::json(200, body.to_string()))
    }

    fn stop(
        &self,
        tenant: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response, Response> {
        let call = self.admit("StopSubscription", (tenant, query), headers)?;
        let content_type = Self::content_type(&call)?;
        let mut state = self.state();
        match state.subscriptions.get_mut(&(call.tenant, content_type)) {
            Some(found) if found.status != SubscriptionStatus::Absent => {
                found.status = SubscriptionStatus::Disabled;
                found.stopped_ms = Some(call.now_ms);
                Ok(reply::custom(204, String::new(), &[]))
            }
            _ => Err(Problem::NoSubscription.response()),
        }
    }
}

//! Content: the listing with its windows and pages, and the blobs.
//!
//! A window is over `contentCreated`: start inclusive, end exclusive. Blobs may be listed before
//! they can be read, listed twice, and are gone seven days after they were made.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::errors::Problem;
use super::subscription::SubscriptionStatus;
use super::{Call, FeedPath, Microsoft, Query, Service};
use crate::reply;
use crate::world::{Blob, RETENTION_OFFICE365_MS, milliseconds_with_zone, seconds_without_zone};

const DAY_MS: i64 = 86_400_000;

pub(super) async fn list(
    State(service): Service,
    Path((version, tenant)): FeedPath,
    RawQuery(query): Query,
    headers: HeaderMap,
) -> Response {
    service
        .list_content((&version, &tenant), query.as_deref(), &headers)
        .unwrap_or_else(|refusal| refusal)
}

pub(super) async fn blob(
    State(service): Service,
    Path((_, tenant, content_id)): Path<(String, String, String)>,
    RawQuery(query): Query,
    headers: HeaderMap,
) -> Response {
    let call = match service.admit("GetBlob", (&tenant, query.as_deref()), &headers) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    service
        .read_blob(&call, &content_id, &headers)
        .unwrap_or_else(|refusal| refusal)
}

impl Microsoft {
    fn list_content(
        &self,
        (version, tenant): (&str, &str),
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response, Response> {
        let call = self.admit("ListContent", (tenant, query), headers)?;
        let content_type = Self::content_type(&call)?;
        let since_ms = self.subscribed_since(call.tenant, content_type)?;
        let (start, end) = self.window(&call)?;
        let mut listed: Vec<(i64, &Blob)> = self
            .blobs(call.tenant, content_type)
            .iter()
            .flat_map(|blob| blob.listed_ms.iter().map(move |at| (*at, blob)))
            .filter(|(at, _)| (start..end).contains(at) && *at <= call.now_ms && *at >= since_ms)
            .collect();
        listed.sort_by(|a, b| (a.0, &a.1.content_id).cmp(&(b.0, &b.1.content_id)));
        let skip = match call.query.get("nextPage") {
            Some(text) => page_offset(text).ok_or_else(|| Problem::NextPageInvalid.response())?,
            None => 0,
        };
        let page_items = self.inner.options.page_items.max(1);
        let base = format!("{}/api/v1.0/{}/activity/feed", call.origin, call.tenant_id);
        let items: Vec<Value> = listed
            .iter()
            .skip(skip)
            .take(page_items)
            .map(|(at, blob)| item(&base, content_type, *at, blob))
            .collect();
        let mut response = reply::json(200, Value::Array(items).to_string());
        if skip + page_items < listed.len() {
            let next = next_page(
                &call,
                version,
                content_type,
                (start, end, skip + page_items),
            );
            if let Ok(value) = HeaderValue::from_str(&next) {
                response.headers_mut().insert("NextPageUri", value);
            }
        }
        Ok(response)
    }

    fn blobs(&self, tenant: usize, content_type: &'static str) -> &[Blob] {
        self.inner
            .world
            .blobs
            .get(&(tenant, content_type))
            .map_or(&[], Vec::as_slice)
    }

    /// From when on the subscription has content, or AF20022/AF20023.
    fn subscribed_since(&self, tenant: usize, content_type: &'static str) -> Result<i64, Response> {
        let state = self.state();
        let found = state.subscriptions.get(&(tenant, content_type));
        match found.map_or(SubscriptionStatus::Absent, |found| found.status) {
            SubscriptionStatus::Absent => Err(Problem::NoSubscription.response()),
            SubscriptionStatus::Disabled => Err(Problem::SubscriptionDisabled.response()),
            SubscriptionStatus::Enabled if self.inner.options.content_before_subscription => {
                Ok(i64::MIN)
            }
            SubscriptionStatus::Enabled => Ok(found.map_or(i64::MIN, |found| found.since_ms)),
        }
    }

    /// The window of a listing: both ends or neither, at most 24 hours, at most 7 days back.
    fn window(&self, call: &Call) -> Result<(i64, i64), Response> {
        let invalid = || Problem::WindowInvalid.response();
        let (start, end) = match (call.query.get("startTime"), call.query.get("endTime")) {
            (None, None) => (call.now_ms - DAY_MS, call.now_ms),
            (Some(start), Some(end)) => (
                parse_time(start).ok_or_else(invalid)?,
                parse_time(end).ok_or_else(invalid)?,
            ),
            _ => return Err(Problem::WindowTooWide.response()),
        };
        if start >= end {
            return Err(invalid());
        }
        let oldest = call.now_ms
            - RETENTION_OFFICE365_MS
            - self.inner.options.window_slack_seconds.saturating_mul(1000);
        if end - start > DAY_MS || start < oldest {
            return Err(Problem::WindowTooWide.response());
        }
        Ok((start, end))
    }

    fn read_blob(
        &self,
        call: &Call,
        content_id: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Response> {
        if !content_id.contains('$') {
            return Err(Problem::ContentIdInvalid(content_id.to_owned()).response());
        }
        let found = self
            .inner
            .world
            .blobs
            .range((call.tenant, "")..(call.tenant + 1, ""))
            .flat_map(|(_, blobs)| blobs)
            .find(|blob| blob.content_id == content_id);
        let blob = found
            .filter(|blob| blob.ready_ms <= call.now_ms)
            .ok_or_else(|| Problem::ContentUnknown(content_id.to_owned()).response())?;
        if blob.expires_ms() <= call.now_ms {
            return Err(Problem::ContentExpired(content_id.to_owned()).response());
        }
        let records = &self.inner.world.sheet().records;
        let mut body = vec![b'['];
        for (position, record) in blob
            .records
            .iter()
            .filter_map(|n| records.get(*n))
            .enumerate()
        {
            if position > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&record.body);
        }
        body.push(b']');
        Ok(reply::json_encoded(headers, body))
    }
}

fn item(base: &str, content_type: &str, created_ms: i64, blob: &Blob) -> Value {
    // Microsoft's links hold the id with "$" as it is or as "%24".
    let coded = blob.ready_ms % 2 == 0;
    let id = if coded {
        blob.content_id.replace('$', "%24")
    } else {
        blob.content_id.clone()
    };
    json!({
        "contentType": content_type,
        "contentId": blob.content_id,
        "contentUri": format!("{base}/audit/{id}"),
        "contentCreated": milliseconds_with_zone(created_ms),
        "contentExpiration": milliseconds_with_zone(blob.expires_ms()),
    })
}

/// The link to the next page: complete, on the path version of the service's own choice.
fn next_page(
    call: &Call,
    version: &str,
    content_type: &str,
    (start, end, skip): (i64, i64, usize),
) -> String {
    // The service hands out links under "v1" even where the call came by "v1.0".
    let version = version.strip_suffix(".0").unwrap_or(version);
    format!(
        "{}/api/{version}/{}/activity/feed/subscriptions/content?contentType={content_type}\
         &startTime={}&endTime={}&nextPage={}",
        call.origin,
        call.tenant_id,
        precise(start),
        precise(end),
        format_args!("2015{skip:08}"),
    )
}

/// The window's end in a link: to the millisecond where the default window needs it.
fn precise(unix_ms: i64) -> String {
    if unix_ms % 1000 == 0 {
        seconds_without_zone(unix_ms)
    } else {
        milliseconds_with_zone(unix_ms)
    }
}

fn page_offset(text: &str) -> Option<usize> {
    text.strip_prefix("2015")
        .filter(|digits| digits.len() == 8)?
        .parse()
        .ok()
}

/// `YYYY-MM-DD`, with `THH:MM`, with `THH:MM:SS`; `Z` and `+00:00` are accepted.
fn parse_time(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|day| day.and_hms_opt(0, 0, 0));
    let time = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    day.or(time).map(|time| time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_time_formats_are_read_and_a_blank_for_a_plus_is_not() {
        for (text, read) in [
            ("2026-05-23", true),
            ("2026-05-23T17:35", true),
            ("2026-05-23T17:35:00", true),
            ("2026-05-23T17:35:00Z", true),
            ("2026-05-23T17:35:00+00:00", true),
            ("2026-05-23T17:35:00 00:00", false),
            ("yesterday", false),
        ] {
            assert_eq!(parse_time(text).is_some(), read, "{text}");
        }
    }
}

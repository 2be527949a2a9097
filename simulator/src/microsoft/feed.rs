//! Content: the listing with its windows and pages, and the blobs.
//!
//! A window is over `contentCreated`: start inclusive, end exclusive. Blobs may be listed before
//! they can be read, listed twice, and are gone seven days after they were made.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use uuid::Uuid;

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
        let mut lines = self.lines(&call, content_type, (start, end));
        lines.retain(|line| line.created_ms <= call.now_ms && line.created_ms >= since_ms);
        if self.inner.options.listing_shuffled {
            lines
                .sort_by_key(|line| Uuid::new_v5(&Uuid::NAMESPACE_OID, line.content_id.as_bytes()));
        } else {
            lines.sort_by(|a, b| (a.created_ms, &a.content_id).cmp(&(b.created_ms, &b.content_id)));
        }
        let place = match call.query.get("nextPage") {
            Some(text) => Place::read(text).ok_or_else(|| Problem::NextPageInvalid.response())?,
            None => Place::default(),
        };
        let page_items = self.inner.options.page_items.max(1);
        let shown = if place.empty { 0 } else { page_items };
        let base = format!("{}/api/v1.0/{}/activity/feed", call.origin, call.tenant_id);
        let items: Vec<Value> = lines
            .iter()
            .skip(place.skip)
            .take(shown)
            .map(|line| item(&base, content_type, line))
            .collect();
        let mut response = reply::json(200, Value::Array(items).to_string());
        let skip = place.skip + shown;
        if skip < lines.len() {
            let every = self.inner.options.empty_page_every;
            let empty = every > 0 && !place.empty && (skip / page_items).is_multiple_of(every);
            let next = next_page(
                &call,
                version,
                content_type,
                (start, end),
                Place { skip, empty },
            );
            if let Ok(value) = HeaderValue::from_str(&next) {
                response.headers_mut().insert("NextPageUri", value);
            }
        }
        // The service is an ASP.NET one and says so right behind the link to the next page.
        for (name, value) in [
            ("x-aspnet-version", "4.0.30319"),
            ("x-powered-by", "ASP.NET"),
        ] {
            let name = HeaderName::from_static(name);
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }

    /// The lines of a listing of `start..end`: the world's blobs and those published by hand.
    fn lines(
        &self,
        call: &Call,
        content_type: &'static str,
        (start, end): (i64, i64),
    ) -> Vec<Line> {
        let window = start..end;
        let partial = |at: i64| self.inner.options.partial_at_start && at / 1000 == start / 1000;
        let own = self.blobs(call.tenant, content_type).iter();
        let own = own.flat_map(|blob| blob.listed_ms.iter().map(move |at| (*at, blob)));
        let mut lines: Vec<Line> = own
            .filter(|(at, _)| window.contains(at))
            .map(|(at, blob)| Line {
                created_ms: at,
                expires_ms: blob.expires_ms(),
                content_id: blob.content_id.clone(),
                // Microsoft's links hold the id with "$" as it is or as "%24".
                coded: blob.ready_ms % 2 == 0,
            })
            .collect();
        let state = self.state();
        let by_hand = state.published.iter().filter(|blob| {
            (blob.tenant, blob.content_type) == (call.tenant, content_type)
                && window.contains(&blob.created_ms)
        });
        lines.extend(by_hand.map(|blob| Line {
            created_ms: blob.created_ms,
            expires_ms: blob.expires_ms,
            content_id: blob.content_id.clone(),
            coded: false,
        }));
        for line in &mut lines {
            if partial(line.created_ms) {
                line.content_id.insert_str(0, PARTIAL);
            }
        }
        lines
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
            SubscriptionStatus::Enabled => {
                let wait_ms = self.inner.options.first_content_after_seconds * 1000;
                Ok(found.map_or(i64::MIN, |found| found.since_ms.saturating_add(wait_ms)))
            }
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
        let (whole_id, partial) = match content_id.strip_prefix(PARTIAL) {
            Some(whole_id) if self.inner.options.partial_at_start => (whole_id, true),
            _ => (content_id, false),
        };
        let by_hand = self
            .state()
            .published
            .iter()
            .find(|blob| blob.tenant == call.tenant && blob.content_id == whole_id)
            .cloned();
        let found = self
            .inner
            .world
            .blobs
            .range((call.tenant, "")..(call.tenant + 1, ""))
            .flat_map(|(_, blobs)| blobs)
            .find(|blob| blob.content_id == whole_id);
        let times = match (&by_hand, found) {
            (Some(blob), _) => Some((blob.ready_ms, blob.expires_ms)),
            (None, Some(blob)) => Some((blob.ready_ms, blob.expires_ms())),
            (None, None) => None,
        };
        let expires_ms = times
            .filter(|(ready_ms, _)| *ready_ms <= call.now_ms)
            .map(|(_, expires_ms)| expires_ms)
            .ok_or_else(|| Problem::ContentUnknown(content_id.to_owned()).response())?;
        if expires_ms <= call.now_ms {
            return Err(Problem::ContentExpired(content_id.to_owned()).response());
        }
        if let Some(blob) = by_hand {
            return Ok(reply::json_encoded(headers, half(&blob.body, partial)));
        }
        let records = &self.inner.world.sheet().records;
        let numbers = found.map_or(&[][..], |blob| &blob.records);
        let numbers = if partial {
            numbers.get(numbers.len() / 2..).unwrap_or_default()
        } else {
            numbers
        };
        let mut body = vec![b'['];
        for (position, record) in numbers.iter().filter_map(|n| records.get(*n)).enumerate() {
            if position > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&record.body);
        }
        body.push(b']');
        Ok(reply::json_encoded(headers, body))
    }
}

/// Begins the id of a blob that holds the later half of another's records.
const PARTIAL: &str = "9";

/// The body, or the later half of its records where it is an array of JSON.
fn half(body: &[u8], partial: bool) -> Vec<u8> {
    match serde_json::from_slice::<Vec<Value>>(body) {
        Ok(mut all) if partial => Value::from(all.split_off(all.len() / 2)).to_string().into(),
        _ => body.to_vec(),
    }
}

/// A line of a listing.
#[derive(Debug)]
struct Line {
    created_ms: i64,
    expires_ms: i64,
    content_id: String,
    coded: bool,
}

/// Where a page of a listing begins, as `nextPage` says it; an empty page only links on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    skip: usize,
    empty: bool,
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        let (head, digits) = text.split_at_checked(4)?;
        let empty = match head {
            "2015" => false,
            "2016" => true,
            _ => return None,
        };
        let skip = (digits.len() == 8).then(|| digits.parse().ok())??;
        Some(Self { skip, empty })
    }

    fn text(self) -> String {
        format!(
            "{}{:08}",
            if self.empty { "2016" } else { "2015" },
            self.skip
        )
    }
}

fn item(base: &str, content_type: &str, line: &Line) -> Value {
    let id = if line.coded {
        line.content_id.replace('$', "%24")
    } else {
        line.content_id.clone()
    };
    json!({
        "contentType": content_type,
        "contentId": line.content_id,
        "contentUri": format!("{base}/audit/{id}"),
        "contentCreated": milliseconds_with_zone(line.created_ms),
        "contentExpiration": milliseconds_with_zone(line.expires_ms),
    })
}

/// The link to the next page: complete, on the path version of the service's own choice.
fn next_page(
    call: &Call,
    version: &str,
    content_type: &str,
    (start, end): (i64, i64),
    place: Place,
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
        place.text(),
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

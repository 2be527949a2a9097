//! `activities.list`: newest first, pages by an opaque token, both ends of the window inclusive.
//!
//! A page token is only good with the same other parameters, and dies after a while. Items become
//! visible late, so a walk that takes long may or may not see one that came in between.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::Value;

use super::{Google, SCOPE_AUDIT, Token, errors};
use crate::reply;
use crate::sheet::Record;
use crate::world::RETENTION_GOOGLE_MS;

/// Page size where none is asked for, and the largest.
const ITEMS_MAX: usize = 1_000;

/// Longest window of the log of mail, milliseconds.
const GMAIL_SPAN_MS: i64 = 30 * 86_400_000;

/// Applications the API knows; others are refused.
const APPLICATIONS: [&str; 42] = [
    "access_transparency",
    "access_evaluation",
    "admin",
    "admin_data_action",
    "assignments",
    "calendar",
    "chat",
    "chrome",
    "chrome_sync",
    "classroom",
    "cloud_search",
    "contacts",
    "context_aware_access",
    "data_migration",
    "data_studio",
    "directory_sync",
    "drive",
    "gcp",
    "gemini_in_workspace_apps",
    "gemini_notebook",
    "gmail",
    "gplus",
    "graduation",
    "groups",
    "groups_enterprise",
    "jamboard",
    "keep",
    "ldap",
    "login",
    "meet",
    "meet_hardware",
    "mobile",
    "profile",
    "rules",
    "saml",
    "takeout",
    "tasks",
    "token",
    "user_accounts",
    "vault",
    "voice",
    "workspace_studio",
];

/// Parameters that make a request a filter query, with a quota of its own.
const FILTERS: [&str; 5] = [
    "eventName",
    "filters",
    "actorIpAddress",
    "orgUnitID",
    "groupIdFilter",
];

pub(super) async fn list(
    State(service): State<Google>,
    Path((user, application)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    service
        .list(&user, &application, &query, &headers)
        .unwrap_or_else(|refusal| refusal)
}

/// What one request asks for.
#[derive(Debug)]
struct Walk {
    start_ms: i64,
    end_ms: i64,
    items: usize,
    /// Hash of everything that must stay the same from page to page.
    parameters: u64,
    /// Position in the newest-first list to go on at.
    position: usize,
}

impl Google {
    fn list(
        &self,
        user: &str,
        application: &str,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
    ) -> Result<Response, Response> {
        let now_ms = self.inner.clock.now_ms();
        let token = self.authenticate(headers, now_ms)?;
        let filtered = user != "all" || FILTERS.iter().any(|name| query.contains_key(*name));
        self.check_quota(token.tenant, filtered, now_ms)?;
        self.check_admission(application)?;
        if !APPLICATIONS.contains(&application) {
            return Err(errors::invalid("Invalid value for application name"));
        }
        let walk = self.walk((user, application), query, now_ms)?;
        if application == "gmail" {
            check_gmail(query, &walk)?;
        }
        let written = self.written(token.tenant, application);
        let key = (token.tenant, application.to_owned());
        let numbers = self
            .inner
            .world
            .activities
            .get(&key)
            .map_or(&[][..], Vec::as_slice);
        let records = &self.inner.world.sheet().records;
        let mut all: Vec<&Record> = numbers.iter().filter_map(|n| records.get(*n)).collect();
        if !written.is_empty() {
            all.extend(&written);
            all.sort_by_key(|record| std::cmp::Reverse(record.event_ms));
        }
        let mut items: Vec<&Record> = Vec::new();
        let mut position = walk.position;
        let empty = self.next_page_is_empty();
        let room = if empty { 0 } else { walk.items };
        let wanted = |record: &Record| {
            (walk.start_ms..=walk.end_ms).contains(&record.event_ms)
                && record.visible_from_ms <= now_ms
                && matches_filters(record, user, query)
        };
        let mut more = false;
        for (index, record) in all.into_iter().enumerate().skip(walk.position) {
            if !wanted(record) {
                continue;
            }
            if items.len() >= room {
                (more, position) = (true, index);
                break;
            }
            items.push(record);
        }
        let next = more.then(|| self.page_token(walk.parameters, position, now_ms));
        Ok(reply::json_encoded(headers, page(&items, next.as_deref())))
    }

    /// A token that is known, alive, and for this administrator of a Workspace.
    fn authenticate(&self, headers: &HeaderMap, now_ms: i64) -> Result<Token, Response> {
        let token = self.token_of(headers, now_ms)?;
        if !token.scopes.contains(SCOPE_AUDIT) {
            return Err(errors::insufficient_scope());
        }
        match self.membership(&token.subject) {
            Some((_, true)) => Ok(token),
            _ => Err(errors::not_authorized()),
        }
    }

    /// A token that is known and alive.
    pub(super) fn token_of(&self, headers: &HeaderMap, now_ms: i64) -> Result<Token, Response> {
        let text = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(errors::stale_token)?;
        let token = self
            .state()
            .tokens
            .get(text)
            .cloned()
            .ok_or_else(errors::stale_token)?;
        if token.expires_ms <= now_ms {
            return Err(errors::stale_token());
        }
        Ok(token)
    }

    /// What an administrator or the project's owner switched off.
    fn check_admission(&self, application: &str) -> Result<(), Response> {
        let state = self.state();
        if state.api_disabled {
            let project = &self.inner.app.project_id;
            return Err(errors::service_disabled("Admin SDK API", project));
        }
        if state.day_used_up {
            return Err(errors::daily_quota());
        }
        if state.barred.contains(application) {
            return Err(errors::not_authorized());
        }
        Ok(())
    }

    /// Activities put in by hand, newest last.
    fn written(&self, tenant: usize, application: &str) -> Vec<Record> {
        let state = self.state();
        let key = (tenant, application.to_owned());
        state.written.get(&key).cloned().unwrap_or_default()
    }

    fn check_quota(&self, tenant: usize, filtered: bool, now_ms: i64) -> Result<(), Response> {
        let options = &self.inner.options;
        let limit = if filtered {
            options.filtered_requests_per_minute
        } else {
            options.requests_per_minute
        };
        if limit == 0 {
            return Ok(());
        }
        let minute = now_ms.div_euclid(60_000);
        let mut state = self.state();
        let (seen, count) = state
            .requests
            .entry((tenant, filtered))
            .or_insert((minute, 0));
        if *seen != minute {
            (*seen, *count) = (minute, 0);
        }
        *count += 1;
        if *count > limit {
            return Err(reply::google_quota(options.quota_status));
        }
        Ok(())
    }

    fn walk(
        &self,
        (user, application): (&str, &str),
        query: &HashMap<String, String>,
        now_ms: i64,
    ) -> Result<Walk, Response> {
        let oldest = now_ms - RETENTION_GOOGLE_MS;
        let start_ms = time_of(query, "startTime")?.unwrap_or(oldest);
        let end_ms = time_of(query, "endTime")?.unwrap_or(now_ms);
        // Google says the same of a window that is the wrong way round and of one that is too old.
        if start_ms > end_ms || start_ms < oldest {
            return Err(errors::invalid("Start time cannot be after end time."));
        }
        let items = match query.get("maxResults").map(|text| text.parse::<usize>()) {
            None => ITEMS_MAX,
            Some(Ok(items)) if (1..=ITEMS_MAX).contains(&items) => items,
            Some(_) => return Err(errors::invalid("Invalid value for maxResults")),
        };
        let items = items.min(self.inner.options.page_items_max.max(1));
        let mut pairs: Vec<(&String, &String)> = query
            .iter()
            .filter(|(name, _)| *name != "pageToken")
            .collect();
        pairs.sort_unstable();
        let mut hasher = DefaultHasher::new();
        (user, application, pairs).hash(&mut hasher);
        let parameters = hasher.finish();
        let position = match query.get("pageToken") {
            None => 0,
            Some(token) => read_page_token(token, parameters, now_ms)
                .ok_or_else(|| errors::invalid("Invalid value for page token"))?,
        };
        Ok(Walk {
            start_ms,
            end_ms,
            items,
            parameters,
            position,
        })
    }

    /// Counts pages; true where this one must be empty although there is more.
    fn next_page_is_empty(&self) -> bool {
        let every = self.inner.options.empty_page_every;
        let mut state = self.state();
        state.pages += 1;
        every > 0 && state.pages.is_multiple_of(every)
    }

    fn page_token(&self, parameters: u64, position: usize, now_ms: i64) -> String {
        let expires = now_ms + self.inner.options.page_token_lifetime_seconds * 1000;
        URL_SAFE_NO_PAD.encode(format!("A:{expires}:{parameters:016x}:{position}"))
    }
}

/// The position in a page token, if it is ours, alive, and of the same parameters.
fn read_page_token(token: &str, parameters: u64, now_ms: i64) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let mut parts = text.strip_prefix("A:")?.split(':');
    let expires: i64 = parts.next()?.parse().ok()?;
    let same = u64::from_str_radix(parts.next()?, 16).ok()? == parameters;
    let position = parts.next()?.parse().ok()?;
    (same && expires > now_ms).then_some(position)
}

/// The log of mail needs both ends, no more than thirty days apart.
fn check_gmail(query: &HashMap<String, String>, walk: &Walk) -> Result<(), Response> {
    let both = query.contains_key("startTime") && query.contains_key("endTime");
    if both && walk.end_ms - walk.start_ms <= GMAIL_SPAN_MS {
        return Ok(());
    }
    Err(errors::invalid(
        "Start and end time are required for gmail and may be 30 days apart at most.",
    ))
}

fn time_of(query: &HashMap<String, String>, name: &str) -> Result<Option<i64>, Response> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|_| errors::invalid(&format!("Invalid value for {name}")))?;
    Ok(Some(time.timestamp_millis()))
}

/// `userKey`, `eventName` and `actorIpAddress`; other filters are ignored, as wrong ones are.
fn matches_filters(record: &Record, user: &str, query: &HashMap<String, String>) -> bool {
    let (name, address) = (query.get("eventName"), query.get("actorIpAddress"));
    if user == "all" && name.is_none() && address.is_none() {
        return true;
    }
    let Ok(item) = serde_json::from_slice::<Value>(&record.body) else {
        return false;
    };
    let at = |pointer: &str| {
        item.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let is_user = user == "all" || at("/actor/email") == user || at("/actor/profileId") == user;
    let has_event = name.is_none_or(|name| {
        let events = item.get("events").and_then(Value::as_array);
        let named = |event: &Value| event.get("name").and_then(Value::as_str) == Some(name);
        events.is_some_and(|events| events.iter().any(named))
    });
    is_user && has_event && address.is_none_or(|address| at("/ipAddress") == address)
}

/// The reply: `items` is absent when empty.
fn page(items: &[&Record], next: Option<&str>) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    for item in items {
        item.id.hash(&mut hasher);
    }
    let etag = hasher.finish();
    let mut body =
        format!("{{\"kind\":\"admin#reports#activities\",\"etag\":\"\\\"{etag:016x}\\\"\"")
            .into_bytes();
    if let Some(next) = next {
        body.extend_from_slice(format!(",\"nextPageToken\":\"{next}\"").as_bytes());
    }
    if !items.is_empty() {
        body.extend_from_slice(b",\"items\":[");
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&item.body);
        }
        body.push(b']');
    }
    body.push(b'}');
    body
}

//! Searches: submitting one, and looking at how it stands.

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::records::record_type_exists;
use super::{Call, problem, throttled};
use crate::microsoft::{Microsoft, Service};
use crate::reply;

const DAY_MS: i64 = 86_400_000;

/// A search that was submitted.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(super) id: String,
    pub(super) tenant: usize,
    /// Roles of the token that submitted it: they decide what is found.
    pub(super) roles: Vec<String>,
    pub(super) body: Value,
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
    pub(super) record_types: Vec<String>,
    pub(super) created_ms: i64,
    pub(super) runs_from_ms: i64,
    pub(super) ends_ms: i64,
    pub(super) ends_as: &'static str,
    pub(super) limit: usize,
    /// How often its first page was read.
    pub(super) readings: usize,
}

impl Query {
    pub(super) fn status(&self, now_ms: i64) -> &'static str {
        match now_ms {
            _ if now_ms < self.runs_from_ms => "notStarted",
            _ if now_ms < self.ends_ms => "running",
            _ => self.ends_as,
        }
    }
}

pub(super) async fn create(
    State(service): Service,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service
        .submit(uri.path(), &headers, &body)
        .unwrap_or_else(|refusal| refusal)
}

pub(super) async fn look(
    State(service): Service,
    uri: Uri,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let admitted = service.admit_to_searches(uri.path(), &headers);
    let query = admitted.and_then(|call| Ok((service.query(&call, &id)?, call)));
    match query {
        Ok((query, call)) => reply::json(200, service.shown(&query, call.now_ms).to_string()),
        Err(refusal) => refusal,
    }
}

impl Microsoft {
    /// As for every call to Graph, and the version must know the search.
    pub(super) fn admit_to_searches(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Call, Response> {
        let call = self.admit_to_graph(headers)?;
        let version = path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        if !self.state().graph.habits.versions.contains(&version) {
            let message = "Resource not found for the segment 'auditLog'.";
            return Err(problem(400, "BadRequest", message));
        }
        if !call
            .roles
            .iter()
            .any(|role| role.starts_with("AuditLogsQuery"))
        {
            let message = "Insufficient permissions: the required scopes are missing in the token.";
            return Err(problem(403, "Forbidden", message));
        }
        Ok(call)
    }

    fn submit(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> Result<Response, Response> {
        let call = self.admit_to_searches(path, headers)?;
        let invalid = || problem(400, "BadRequest", "Invalid request data");
        let body: Value = serde_json::from_slice(body).map_err(|_| invalid())?;
        let time = |name: &str| {
            let text = body.get(name).and_then(Value::as_str)?;
            DateTime::parse_from_rfc3339(text)
                .ok()
                .map(|time| time.timestamp_millis())
        };
        let (Some(from_ms), Some(until_ms)) =
            (time("filterStartDateTime"), time("filterEndDateTime"))
        else {
            return Err(invalid());
        };
        if until_ms <= from_ms {
            return Err(invalid());
        }
        let record_types = body.get("recordTypeFilters").and_then(Value::as_array);
        let record_types: Vec<String> = record_types
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        if let Some(unknown) = record_types.iter().find(|name| !record_type_exists(name)) {
            let message = format!("Requested value '{unknown}' was not found.");
            return Err(problem(400, "BadRequest", &message));
        }
        let query = self.enqueue(call, body, (from_ms, until_ms), record_types)?;
        let shown = self.shown(&query, query.created_ms);
        Ok(reply::json(201, shown.to_string()))
    }

    fn enqueue(
        &self,
        call: Call,
        body: Value,
        (from_ms, until_ms): (i64, i64),
        record_types: Vec<String>,
    ) -> Result<Query, Response> {
        let now_ms = call.now_ms;
        let mut state = self.state();
        let graph = &mut state.graph;
        let habits = &graph.habits;
        let own = || {
            graph
                .queries
                .iter()
                .filter(|query| query.tenant == call.tenant)
        };
        let recent = own()
            .filter(|query| query.created_ms > now_ms - DAY_MS)
            .count();
        let busy = own().filter(|query| query.ends_ms > now_ms).count();
        if recent >= habits.submissions_per_day || busy >= habits.concurrent_max {
            return Err(throttled(Some(600)));
        }
        let runs_from_ms = now_ms + habits.queued_seconds * 1000;
        let query = Query {
            id: Uuid::new_v4().to_string(),
            tenant: call.tenant,
            roles: call.roles,
            body,
            from_ms,
            until_ms,
            record_types,
            created_ms: now_ms,
            runs_from_ms,
            ends_ms: runs_from_ms + habits.running_seconds * 1000,
            ends_as: habits.ends_as,
            limit: habits.record_count_limit,
            readings: 0,
        };
        graph.queries.push(query.clone());
        Ok(query)
    }

    pub(super) fn query(&self, call: &Call, id: &str) -> Result<Query, Response> {
        let state = self.state();
        let mut queries = state.graph.queries.iter();
        queries
            .find(|query| query.tenant == call.tenant && query.id == id)
            .cloned()
            .ok_or_else(|| problem(404, "NotFound", "The requested query does not exist."))
    }

    fn shown(&self, query: &Query, now_ms: i64) -> Value {
        let status = query.status(now_ms);
        let time = |ms: i64| {
            let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
            time.to_rfc3339_opts(SecondsFormat::Secs, true)
        };
        let mut shown = json!({
            "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#security/auditLog/queries/$entity",
            "id": query.id,
            "displayName": query.body.get("displayName"),
            "filterStartDateTime": time(query.from_ms),
            "filterEndDateTime": time(query.until_ms),
            "recordTypeFilters": query.record_types,
            "operationFilters": [],
            "status": status,
        });
        let counts = self.state().graph.habits.counts;
        if let (true, "succeeded", Some(members)) = (counts, status, shown.as_object_mut()) {
            let found = self.found(query).len();
            members.insert("approximateReturnedRecordCount".to_owned(), json!(found));
            members.insert(
                "isRecordCountLimitExceeded".to_owned(),
                json!(found > query.limit),
            );
            members.insert("recordCountLimit".to_owned(), json!(query.limit));
        }
        shown
    }
}

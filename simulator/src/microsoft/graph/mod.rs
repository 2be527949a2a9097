//! Microsoft Graph: the audit-log search, and the tenant's domains.
//!
//! Written from the reference ("auditLogQuery resource type", 2026-09; "Use the Microsoft Graph API",
//! 2026-06) and from what users report of the service: it queues, it truncates without an error, it
//! pages unreliably. [`GraphHabits`] says which of that it does.

mod queries;
mod records;

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::token::ISSUER;
use super::{Microsoft, Service};
use crate::jwt::Assertion;
use crate::reply;

pub(super) use self::queries::Query;

/// Role that opens the audit log of every workload.
pub const ROLE_AUDIT_ALL: &str = "AuditLogsQuery.Read.All";
/// A domain that is entered in every tenant, and whose owner never proved to be it.
const UNVERIFIED: &str = "not-proven.example";
/// Role that opens the list of domains.
pub const ROLE_DOMAINS: &str = "Domain.Read.All";

/// Whose id is in `auditData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditDataId {
    /// The record's own, as in the feed.
    Own,
    /// None.
    Missing,
    /// Another one than in the feed, also in the record around it.
    Other,
}

/// What the audit-log search does. The defaults are what the reference promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphHabits {
    /// Virtual seconds a search waits before it runs.
    pub queued_seconds: i64,
    /// Virtual seconds it runs.
    pub running_seconds: i64,
    /// How a search ends: `succeeded`, `failed` or `cancelled`.
    pub ends_as: &'static str,
    /// Virtual seconds until a record can be searched for.
    pub lag_seconds: i64,
    /// Records a search gives at most.
    pub record_count_limit: usize,
    /// Submissions in 24 virtual hours.
    pub submissions_per_day: usize,
    /// Searches that wait or run at the same time.
    pub concurrent_max: usize,
    /// Largest `$top`.
    pub top_max: usize,
    /// Every so many pages one is short though others follow, every second of them empty; 0 for never.
    pub short_page_every: usize,
    /// So many readings of a search leave out some records, each others.
    pub unstable_readings: usize,
    /// So many readings of a search have a link that leads to the page it stands on.
    pub looping_readings: usize,
    /// Origin of the links to next pages, where it is not the caller's own.
    pub link_origin: Option<String>,
    /// Whether `approximateReturnedRecordCount` is given.
    pub counts: bool,
    /// Whose id is in `auditData`.
    pub audit_data_id: AuditDataId,
    /// Versions of Graph that know the search.
    pub versions: &'static [&'static str],
}

impl Default for GraphHabits {
    fn default() -> Self {
        Self {
            queued_seconds: 30,
            running_seconds: 300,
            ends_as: "succeeded",
            lag_seconds: 3_600,
            record_count_limit: 1_000_000,
            submissions_per_day: 200,
            concurrent_max: 50,
            top_max: 1_000,
            short_page_every: 0,
            unstable_readings: 0,
            looping_readings: 0,
            link_origin: None,
            counts: true,
            audit_data_id: AuditDataId::Own,
            versions: &["v1.0", "beta"],
        }
    }
}

/// What changes while the service runs.
#[derive(Debug)]
pub(super) struct GraphState {
    pub(super) habits: GraphHabits,
    pub(super) roles: BTreeSet<String>,
    pub(super) queries: Vec<Query>,
}

impl GraphState {
    pub(super) fn new(habits: GraphHabits) -> Self {
        Self {
            habits,
            roles: [ROLE_AUDIT_ALL, ROLE_DOMAINS].map(String::from).into(),
            queries: Vec::new(),
        }
    }
}

/// A call that passed the checks all operations share.
#[derive(Debug)]
struct Call {
    /// Number of the tenant.
    tenant: usize,
    roles: Vec<String>,
    now_ms: i64,
}

pub(super) fn router() -> Router<Microsoft> {
    let mut router = Router::new().route("/v1.0/domains", get(domains));
    for version in ["v1.0", "beta"] {
        let root = format!("/{version}/security/auditLog/queries");
        router = router
            .route(&root, post(queries::create))
            .route(&format!("{root}/{{id}}"), get(queries::look))
            .route(&format!("{root}/{{id}}/records"), get(records::list));
    }
    router
}

impl Microsoft {
    /// Sets the application permissions on Graph that new tokens carry.
    pub fn set_graph_roles(&self, roles: &[&str]) {
        self.state().graph.roles = roles.iter().map(|role| (*role).to_owned()).collect();
    }

    /// Changes what the audit-log search does.
    pub fn change_graph(&self, change: impl FnOnce(&mut GraphHabits)) {
        change(&mut self.state().graph.habits);
    }

    /// How many searches of the audit log were submitted and taken.
    pub fn audit_searches(&self) -> usize {
        self.state().graph.queries.len()
    }

    /// The bodies of the searches that were submitted and taken, in order.
    pub fn audit_search_bodies(&self) -> Vec<Value> {
        let state = self.state();
        state
            .graph
            .queries
            .iter()
            .map(|query| query.body.clone())
            .collect()
    }

    /// Token, audience and tenant.
    fn admit_to_graph(&self, headers: &HeaderMap) -> Result<Call, Response> {
        let now_ms = self.inner.clock.now_ms();
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .and_then(Assertion::parse)
            .ok_or_else(|| {
                invalid_token("CompactToken parsing failed with error code: 80049217")
            })?;
        if token.seconds("exp").is_none_or(|exp| exp * 1000 <= now_ms)
            || token.claim("iss") != ISSUER
        {
            return Err(invalid_token(
                "Lifetime validation failed, the token is expired.",
            ));
        }
        let audience = token.claim("aud");
        let own = self
            .inner
            .options
            .graph_roots
            .iter()
            .any(|root| root == audience);
        if !own && !audience.ends_with(reply::host(headers)) {
            return Err(invalid_token(
                "Access token validation failure. Invalid audience.",
            ));
        }
        let tenant = self
            .number_of_guid(token.claim("tid"))
            .ok_or_else(|| invalid_token("Invalid tenant."))?;
        let roles = token.claims.get("roles").and_then(Value::as_array);
        let roles = roles.into_iter().flatten().filter_map(Value::as_str);
        Ok(Call {
            tenant,
            roles: roles.map(str::to_owned).collect(),
            now_ms,
        })
    }
}

async fn domains(State(service): Service, headers: HeaderMap) -> Response {
    let call = match service.admit_to_graph(&headers) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    if !call.roles.iter().any(|role| role == ROLE_DOMAINS) {
        return problem(
            403,
            "Authorization_RequestDenied",
            "Insufficient privileges to complete the operation.",
        );
    }
    let tenant = service.inner.world.tenants().get(call.tenant);
    let names = tenant.map(|tenant| {
        let (domain, initial) = (tenant.domain.clone(), tenant.onmicrosoft.clone());
        [domain, initial, UNVERIFIED.to_owned()]
    });
    let domain = |(number, name): (usize, String)| {
        json!({
            "id": name,
            "authenticationType": "Managed",
            "isAdminManaged": true,
            "isDefault": number == 0,
            "isInitial": number == 1,
            "isRoot": true,
            "isVerified": name != UNVERIFIED,
            "supportedServices": ["Email", "OfficeCommunicationsOnline"],
        })
    };
    let value: Vec<Value> = names
        .into_iter()
        .flatten()
        .enumerate()
        .map(domain)
        .collect();
    let body = json!({
        "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#domains",
        "value": value,
    });
    reply::json(200, body.to_string())
}

fn invalid_token(message: &str) -> Response {
    problem(401, "InvalidAuthenticationToken", message)
}

/// An error as Graph words it.
fn problem(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "error": {
        "code": code,
        "message": message,
        "innerError": {
            "date": "2026-05-01T00:00:00",
            "request-id": "5a4c9b1e-0c3e-4d7f-9a57-2c8f1f0e6d11",
            "client-request-id": "5a4c9b1e-0c3e-4d7f-9a57-2c8f1f0e6d11",
        },
    }});
    reply::json(status, body.to_string())
}

/// 429, with the wait that the documentation of throttling promises.
pub(crate) fn throttled(retry_after_seconds: Option<u32>) -> Response {
    let mut response = problem(
        429,
        "TooManyRequests",
        "Too many requests. Please try again later.",
    );
    if let Some(seconds) = retry_after_seconds {
        let value = HeaderValue::from(seconds);
        response
            .headers_mut()
            .insert(http::header::RETRY_AFTER, value);
    }
    response
}

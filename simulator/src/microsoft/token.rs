//! The token endpoints: client secret, or an assertion signed with the registered certificate.
//!
//! Refusals carry `error`, `error_codes` and an AADSTS text with a trace id, as Microsoft's do.

use std::collections::{BTreeSet, HashMap};

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use chrono::DateTime;
use http::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Microsoft, Service, ServiceState};
use crate::jwt::{self, Assertion};
use crate::reply;

pub(super) const ISSUER: &str = "https://sts.simulator.invalid/";

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How far the clocks may differ, seconds.
const SKEW_SECONDS: i64 = 300;
/// Longest life of an assertion, seconds.
const ASSERTION_SECONDS_MAX: i64 = 86_400;
/// Roots of all clouds. Those that are not this service's own belong to other clouds.
const ROOTS: [&str; 7] = [
    "https://manage.office.com",
    "https://manage-gcc.office.com",
    "https://manage.office365.us",
    "https://manage.protection.apps.mil",
    "https://graph.microsoft.com",
    "https://graph.microsoft.us",
    "https://dod-graph.microsoft.us",
];
/// Login hosts of all clouds.
const LOGIN_HOSTS: [&str; 2] = ["login.microsoftonline.com", "login.microsoftonline.us"];

/// Version of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

pub(super) async fn v1(
    State(service): Service,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service
        .token(Version::V1, &tenant, &headers, &body)
        .unwrap_or_else(|refusal| refusal)
}

pub(super) async fn v2(
    State(service): Service,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service
        .token(Version::V2, &tenant, &headers, &body)
        .unwrap_or_else(|refusal| refusal)
}

/// The configuration of a tenant's login, which Microsoft's libraries read before all else.
pub(super) async fn discovery(
    State(service): Service,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(tenant) = service.resolve(&tenant) else {
        return tenant_unknown(service.now(), "invalid_tenant", &tenant);
    };
    let base = format!("{}/{tenant}", reply::origin(&headers));
    let body = json!({
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "issuer": format!("{base}/v2.0"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "response_types_supported": ["code", "id_token"],
        "tenant_region_scope": "EU",
        "cloud_instance_name": "microsoftonline.com",
    });
    reply::json(200, body.to_string())
}

/// An address without its scheme: in process the simulator may stand behind either.
fn without_scheme(address: &str) -> &str {
    address
        .strip_prefix("https://")
        .or(address.strip_prefix("http://"))
        .unwrap_or(address)
}

/// The root a token is asked for, without `/.default` and without a last slash.
fn asked_root(version: Version, form: &HashMap<String, String>) -> &str {
    let text = match version {
        Version::V1 => form.get("resource"),
        Version::V2 => form.get("scope"),
    };
    let text = text.map_or("", String::as_str);
    text.strip_suffix(".default")
        .unwrap_or(text)
        .trim_end_matches('/')
}

impl Microsoft {
    fn token(
        &self,
        version: Version,
        tenant: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, Response> {
        let form: HashMap<String, String> =
            url::form_urlencoded::parse(body).into_owned().collect();
        let now = self.now();
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        if field("grant_type") != "client_credentials" {
            return Err(refuse(
                now,
                400,
                "unsupported_grant_type",
                (70003, "The app requested an unsupported grant type."),
            ));
        }
        let tid = self
            .resolve(tenant)
            .ok_or_else(|| tenant_unknown(now, "invalid_request", tenant))?;
        self.check_client(field("client_id"), &form, headers, now)?;
        let root = asked_root(version, &form);
        let options = &self.inner.options;
        let own = options
            .roots
            .iter()
            .chain(&options.graph_roots)
            .any(|own| own == root);
        if !own && ROOTS.contains(&root) {
            return Err(refusal(now, 900_382));
        }
        if without_scheme(root) != reply::host(headers) && !own {
            let text = format!("The resource principal named {root} was not found in the tenant.");
            return Err(refuse(now, 400, "invalid_resource", (500_011, &text)));
        }
        Ok(self.issue(version, &tid, root, now))
    }

    /// Virtual time, Unix seconds.
    fn now(&self) -> i64 {
        self.inner.clock.now_ms().div_euclid(1000)
    }

    /// Tenant id of a GUID or a domain in the path.
    fn resolve(&self, tenant: &str) -> Option<String> {
        let tenant = tenant.to_ascii_lowercase();
        let found = self.inner.world.tenants().iter().find(|known| {
            known.tenant_id.is_some_and(|id| id.to_string() == tenant)
                || known.domain == tenant
                || known.onmicrosoft == tenant
        });
        found
            .and_then(|known| known.tenant_id)
            .map(|id| id.to_string())
    }

    fn check_client(
        &self,
        client_id: &str,
        form: &HashMap<String, String>,
        headers: &HeaderMap,
        now: i64,
    ) -> Result<(), Response> {
        if client_id != self.inner.app.client_id {
            let text = format!(
                "Application with identifier '{client_id}' was not found in the directory."
            );
            return Err(refuse(now, 400, "unauthorized_client", (700_016, &text)));
        }
        if let Some(assertion) = form.get("client_assertion") {
            let kind = form.get("client_assertion_type").map_or("", String::as_str);
            if kind != ASSERTION_TYPE {
                return Err(invalid_client(
                    now,
                    50027,
                    "JWT token is invalid or malformed.",
                ));
            }
            return self.check_assertion(assertion, headers, now);
        }
        let Some(secret) = form.get("client_secret") else {
            let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
            return Err(invalid_client(now, 7_000_218, text));
        };
        let state = self.state();
        if *secret != state.secret {
            return Err(refusal(now, 7_000_215));
        }
        if state.secret_expired {
            return Err(refusal(now, 7_000_222));
        }
        Ok(())
    }

    fn check_assertion(&self, text: &str, headers: &HeaderMap, now: i64) -> Result<(), Response> {
        let app = &self.inner.app;
        let Some(assertion) = Assertion::parse(text) else {
            return Err(invalid_client(
                now,
                50027,
                "JWT token is invalid or malformed.",
            ));
        };
        // Microsoft's own library pads the thumbprint, the documentation does not: both are taken.
        let is = |name: &str, own: &str| assertion.header_text(name).trim_end_matches('=') == own;
        let registered = self.state().certificate.clone();
        let by_sha256 = is("x5t#S256", &registered.thumbprint_sha256);
        let thumbprint = match assertion.header_text("alg") {
            "PS256" => by_sha256,
            "RS256" => by_sha256 || is("x5t", &registered.thumbprint_sha1),
            _ => false,
        };
        if !thumbprint || !assertion.is_signed_by(&registered.public_key_der) {
            return Err(refusal(now, 700_027));
        }
        let audience = assertion.claim("aud");
        let ours = without_scheme(audience)
            .split_once('/')
            .is_some_and(|(authority, _)| {
                authority == reply::host(headers) || LOGIN_HOSTS.contains(&authority)
            });
        if !ours || !audience.ends_with("/token") {
            return Err(invalid_client(
                now,
                700_023,
                "Client assertion audience claim does not match Realm issuer.",
            ));
        }
        if assertion.claim("iss") != app.client_id || assertion.claim("sub") != app.client_id {
            return Err(invalid_client(
                now,
                700_021,
                "Client assertion application identifier doesn't match 'client_id' parameter.",
            ));
        }
        let expires = assertion.seconds("exp").unwrap_or(i64::MIN);
        let starts = assertion.seconds("nbf").unwrap_or(now);
        let in_time = now <= expires + SKEW_SECONDS && starts <= now + SKEW_SECONDS;
        if !in_time || expires - starts > ASSERTION_SECONDS_MAX {
            return Err(refusal(now, 700_024));
        }
        let fresh = self
            .state()
            .assertion_ids
            .insert(assertion.claim("jti").to_owned());
        if assertion.claim("jti").is_empty() || !fresh {
            return Err(invalid_client(
                now,
                50_013,
                "Assertion failed: the 'jti' was used before or is missing.",
            ));
        }
        Ok(())
    }

    /// The permissions on the API that the token is for. Behind the own address are all of them.
    fn roles_for<'s>(&self, root: &str, state: &'s ServiceState) -> Vec<&'s String> {
        let options = &self.inner.options;
        let feed = !options.graph_roots.iter().any(|graph| graph == root);
        let graph = !options.roots.iter().any(|feed| feed == root);
        let of = |roles: &'s BTreeSet<String>, wanted: bool| roles.iter().filter(move |_| wanted);
        of(&state.roles, feed)
            .chain(of(&state.graph.roles, graph))
            .collect()
    }

    fn issue(&self, version: Version, tid: &str, root: &str, now: i64) -> Response {
        let lifetime = self.inner.options.token_lifetime_seconds;
        let mut state = self.state();
        state.tokens_issued += 1;
        let claims = json!({
            "aud": root,
            "iss": ISSUER,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "appid": self.inner.app.client_id,
            "tid": tid,
            "roles": self.roles_for(root, &state),
            "ver": "1.0",
        });
        let token = jwt::unsigned(&claims, state.tokens_issued);
        let body = match version {
            Version::V1 => json!({
                "token_type": "Bearer",
                "expires_in": lifetime.to_string(),
                "ext_expires_in": lifetime.to_string(),
                "expires_on": (now + lifetime).to_string(),
                "not_before": now.to_string(),
                "resource": root,
                "access_token": token,
            }),
            Version::V2 => json!({
                "token_type": "Bearer",
                "expires_in": lifetime,
                "ext_expires_in": lifetime,
                "access_token": token,
            }),
        };
        reply::json(200, body.to_string())
    }
}

/// The refusal with this number, as Microsoft words it.
pub(crate) fn refusal(now: i64, code: u32) -> Response {
    let (status, error, text) = match code {
        7_000_215 => (
            401,
            "invalid_client",
            "Invalid client secret provided. Ensure the secret being sent in the request is the \
             client secret value, not the client secret ID, for a secret added to app.",
        ),
        7_000_222 => (
            401,
            "invalid_client",
            "The provided client secret keys are expired.",
        ),
        700_016 => (
            400,
            "unauthorized_client",
            "Application with identifier was not found in the directory.",
        ),
        90_002 => (
            400,
            "invalid_request",
            "Tenant not found. Check to make sure you have the correct tenant ID and are signing \
             into the correct cloud.",
        ),
        700_027 => (
            401,
            "invalid_client",
            "Client assertion failed signature validation.",
        ),
        700_024 => (
            401,
            "invalid_client",
            "Client assertion is not within its valid time range.",
        ),
        65_001 => (
            400,
            "invalid_grant",
            "The user or administrator has not consented to use the application.",
        ),
        900_382 => (
            400,
            "invalid_request",
            "Confidential Client is not supported in Cross Cloud request.",
        ),
        50_196 => (
            400,
            "invalid_grant",
            "The server terminated an operation because it encountered a client request loop.",
        ),
        90_033 => (
            503,
            "temporarily_unavailable",
            "A transient error has occurred. Please try again.",
        ),
        _ => (400, "invalid_request", "The request was refused."),
    };
    refuse(now, status, error, (code, text))
}

fn tenant_unknown(now: i64, error: &str, tenant: &str) -> Response {
    let text =
        format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
    refuse(now, 400, error, (90002, &text))
}

fn invalid_client(now: i64, code: u32, text: &str) -> Response {
    refuse(now, 401, "invalid_client", (code, text))
}

/// A refusal at a time (Unix seconds), as Microsoft words it.
fn refuse(now: i64, status: u16, error: &str, (code, text): (u32, &str)) -> Response {
    let trace = Uuid::new_v4().to_string();
    let at = DateTime::from_timestamp(now, 0).unwrap_or_default();
    let timestamp = at.format("%Y-%m-%d %H:%M:%SZ").to_string();
    let description = format!(
        "AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {trace} Timestamp: {timestamp}"
    );
    let body: Value = json!({
        "error": error,
        "error_description": description,
        "error_codes": [code],
        "timestamp": timestamp,
        "trace_id": trace,
        "correlation_id": trace,
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    reply::json(status, body.to_string())
}

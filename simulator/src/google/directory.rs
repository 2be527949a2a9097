//! The Directory API: the customer's domains and domain aliases.
//!
//! "REST Resource: domains" and "… domainAliases", Admin SDK Directory API (2026-04). Every Workspace
//! has its mail domain, a test alias that Google makes (`<domain>.test-google-a.com`), and a second
//! domain whose owner never proved to be its own.

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{Google, errors};
use crate::reply;

/// The scope both calls need.
pub const SCOPE_DOMAINS: &str = "https://www.googleapis.com/auth/admin.directory.domain.readonly";

/// Domain of every Workspace that is entered and not verified.
const UNVERIFIED: &str = "not-proven.example";
const CREATED_MS: &str = "1577836800000";

pub(super) async fn domains(
    State(service): State<Google>,
    Path(customer): Path<String>,
    headers: HeaderMap,
) -> Response {
    let tenant = match service.customer(&customer, &headers) {
        Ok(tenant) => tenant,
        Err(refusal) => return refusal,
    };
    let domain = service.domain_of(tenant);
    let body = json!({
        "kind": "admin#directory#domains",
        "etag": "\"sim\"",
        "domains": [
            {
                "kind": "admin#directory#domain",
                "etag": "\"sim1\"",
                "domainName": domain,
                "isPrimary": true,
                "verified": true,
                "creationTime": CREATED_MS,
                "domainAliases": [alias(&domain)],
            },
            {
                "kind": "admin#directory#domain",
                "etag": "\"sim2\"",
                "domainName": UNVERIFIED,
                "isPrimary": false,
                "verified": false,
                "creationTime": CREATED_MS,
            },
        ],
    });
    reply::json_encoded(&headers, body.to_string().into())
}

pub(super) async fn aliases(
    State(service): State<Google>,
    Path(customer): Path<String>,
    headers: HeaderMap,
) -> Response {
    let tenant = match service.customer(&customer, &headers) {
        Ok(tenant) => tenant,
        Err(refusal) => return refusal,
    };
    let body = json!({
        "kind": "admin#directory#domainAliases",
        "etag": "\"sim\"",
        "domainAliases": [alias(&service.domain_of(tenant))],
    });
    reply::json_encoded(&headers, body.to_string().into())
}

fn alias(domain: &str) -> Value {
    json!({
        "kind": "admin#directory#domainAlias",
        "etag": "\"sim3\"",
        "domainAliasName": format!("{domain}.test-google-a.com"),
        "parentDomainName": domain,
        "verified": true,
        "creationTime": CREATED_MS,
    })
}

impl Google {
    /// Number of the tenant that may be asked about: one's own customer, by an administrator with
    /// the scope.
    fn customer(&self, customer: &str, headers: &HeaderMap) -> Result<usize, Response> {
        let token = self.token_of(headers, self.inner.clock.now_ms())?;
        if !token.scopes.contains(SCOPE_DOMAINS) {
            return Err(errors::insufficient_scope());
        }
        let own = self.inner.world.tenants().get(token.tenant);
        let own_id = own.and_then(|tenant| tenant.customer_id.as_deref());
        let is_own = customer == "my_customer" || own_id == Some(customer);
        match self.membership(&token.subject) {
            Some((tenant, true)) if is_own => Ok(tenant),
            _ => Err(errors::forbidden()),
        }
    }

    fn domain_of(&self, tenant: usize) -> String {
        let tenant = self.inner.world.tenants().get(tenant);
        tenant
            .map(|tenant| tenant.domain.clone())
            .unwrap_or_default()
    }
}

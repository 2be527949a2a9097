//! `alerts.list` of the Alert Center, v1beta1, with alerts that tests raise and change.
//!
//! The filter knows the fields the reference lists (`createTime`, `startTime`, `endTime`, `type`,
//! `source`, `alertId`) and refuses others; the list can be sorted by `createTime` both ways and by
//! `updateTime` downwards, and comes in any order without. Service accounts with delegation only.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::extract::{RawQuery, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat, Utc};
use http::HeaderMap;
use serde_json::{Value, json};

use super::{Google, SCOPE_ALERTS, errors};
use crate::reply;

/// Alerts a page where no size is asked for.
const PAGE_DEFAULT: usize = 50;

/// An alert as it stands.
#[derive(Debug, Clone)]
pub(super) struct Alert {
    tenant: usize,
    id: String,
    kind: String,
    source: String,
    data: Value,
    status: String,
    created: DateTime<Utc>,
    updated: DateTime<Utc>,
    version: u64,
}

impl Alert {
    fn body(&self, customer: &str) -> Value {
        let at = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
        json!({
            "customerId": customer,
            "alertId": self.id,
            "createTime": at(self.created),
            "startTime": at(self.created),
            "type": self.kind,
            "source": self.source,
            "data": self.data,
            "metadata": {
                "customerId": customer,
                "alertId": self.id,
                "status": self.status,
                "updateTime": at(self.updated),
                "severity": "HIGH",
                "etag": format!("m{}=", self.version),
            },
            "updateTime": at(self.updated),
            "etag": format!("v{}=", self.version),
        })
    }
}

pub(super) async fn list(
    State(service): State<Google>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    service
        .list_alerts(&query, &headers)
        .unwrap_or_else(|refusal| refusal)
}

fn invalid(message: &str) -> Response {
    errors::modern(400, "INVALID_ARGUMENT", None, message)
}

impl Google {
    /// Raises an alert of a type and source now; gives its id.
    pub fn raise_alert(
        &self,
        alias: &str,
        kind: &str,
        source: &str,
        data: Value,
    ) -> Option<String> {
        let tenants = self.inner.world.tenants();
        let tenant = tenants.iter().position(|tenant| tenant.alias == alias)?;
        let now = self.inner.clock.now();
        let mut state = self.state();
        let id = format!("a1e27000-0000-4000-8000-{:012}", state.alerts.len() + 1);
        state.alerts.push(Alert {
            tenant,
            id: id.clone(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            data,
            status: "NOT_STARTED".to_owned(),
            created: now,
            updated: now,
            version: 1,
        });
        Some(id)
    }

    /// An administrator works on an alert: it has another status, `updateTime` and `etag` now.
    pub fn change_alert(&self, id: &str, status: &str) {
        let now = self.inner.clock.now();
        let mut state = self.state();
        if let Some(alert) = state.alerts.iter_mut().find(|alert| alert.id == id) {
            status.clone_into(&mut alert.status);
            alert.updated = now;
            alert.version += 1;
        }
    }

    fn list_alerts(
        &self,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
    ) -> Result<Response, Response> {
        let now_ms = self.inner.clock.now_ms();
        let token = self.token_of(headers, now_ms)?;
        if !token.scopes.contains(SCOPE_ALERTS) {
            let reason = Some("ACCESS_TOKEN_SCOPE_INSUFFICIENT");
            let message = "Request had insufficient authentication scopes.";
            return Err(errors::modern(403, "PERMISSION_DENIED", reason, message));
        }
        let denied = || {
            let message = "The caller does not have permission";
            errors::modern(403, "PERMISSION_DENIED", None, message)
        };
        let is_admin = self
            .membership(&token.subject)
            .is_some_and(|(_, admin)| admin);
        if !token.delegated || !is_admin {
            return Err(denied());
        }
        let tenant = self.inner.world.tenants().get(token.tenant);
        let customer = tenant
            .and_then(|tenant| tenant.customer_id.as_deref())
            .map(|id| id.strip_prefix('C').unwrap_or(id).to_owned())
            .unwrap_or_default();
        if query
            .get("customerId")
            .is_some_and(|asked| *asked != customer)
        {
            return Err(denied());
        }
        let field = |name: &str| query.get(name).map_or("", String::as_str);
        let filter = Filter::parse(field("filter")).ok_or_else(|| invalid("Invalid filter."))?;
        let mut alerts: Vec<Alert> = self.state().alerts.clone();
        alerts.retain(|alert| alert.tenant == token.tenant && filter.admits(alert));
        sort(&mut alerts, field("orderBy"))?;
        let size = match field("pageSize") {
            "" | "0" => PAGE_DEFAULT,
            text => text.parse().map_err(|_| invalid("Invalid page size."))?,
        };
        let size = size.min(self.inner.options.page_items_max.max(1));
        let mut hasher = DefaultHasher::new();
        (field("filter"), field("orderBy")).hash(&mut hasher);
        let parameters = hasher.finish();
        let start = match field("pageToken") {
            "" => 0,
            token => position(token, parameters).ok_or_else(|| invalid("Invalid page token."))?,
        };
        let rest = alerts.get(start..).unwrap_or_default();
        let mut page = json!({});
        let shown: Vec<Value> = rest.iter().take(size).map(|a| a.body(&customer)).collect();
        if !shown.is_empty() {
            page["alerts"] = Value::Array(shown);
        }
        if rest.len() > size {
            let text = format!("L:{parameters:016x}:{}", start + size);
            page["nextPageToken"] = json!(URL_SAFE_NO_PAD.encode(text));
        }
        Ok(reply::json_encoded(headers, page.to_string().into_bytes()))
    }
}

fn position(token: &str, parameters: u64) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (same, position) = text.strip_prefix("L:")?.split_once(':')?;
    (u64::from_str_radix(same, 16).ok()? == parameters).then_some(())?;
    position.parse().ok()
}

fn sort(alerts: &mut [Alert], order: &str) -> Result<(), Response> {
    match order.replace("_t", "T").as_str() {
        // "May be returned in arbitrary order": neither of the orders there are.
        "" => alerts.sort_by_key(|alert| {
            let mut hasher = DefaultHasher::new();
            alert.id.hash(&mut hasher);
            hasher.finish()
        }),
        "createTime asc" => alerts.sort_by_key(|alert| alert.created),
        "createTime desc" => alerts.sort_by_key(|alert| std::cmp::Reverse(alert.created)),
        "updateTime desc" => alerts.sort_by_key(|alert| std::cmp::Reverse(alert.updated)),
        _ => return Err(invalid("Invalid order by.")),
    }
    Ok(())
}

/// Comparisons joined by AND.
#[derive(Debug)]
struct Filter(Vec<(String, String, String)>);

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        for part in text.split(" AND ").filter(|part| !part.trim().is_empty()) {
            let operators = [">=", "<=", "!=", "=", ">", "<"];
            let operator = operators
                .into_iter()
                .find(|operator| part.contains(operator))?;
            let (name, value) = part.split_once(operator)?;
            let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
            let is_time = matches!(name.trim(), "createTime" | "startTime" | "endTime");
            let is_text = matches!(name.trim(), "type" | "source" | "alertId");
            if !(is_time && value.parse::<DateTime<Utc>>().is_ok() || is_text) {
                return None;
            }
            parts.push((
                name.trim().to_owned(),
                operator.to_owned(),
                value.to_owned(),
            ));
        }
        Some(Self(parts))
    }

    fn admits(&self, alert: &Alert) -> bool {
        self.0.iter().all(|(name, operator, value)| {
            let order = match name.as_str() {
                "type" => alert.kind.cmp(value),
                "source" => alert.source.cmp(value),
                "alertId" => alert.id.cmp(value),
                _ => alert
                    .created
                    .cmp(&value.parse().unwrap_or(DateTime::UNIX_EPOCH)),
            };
            match operator.as_str() {
                ">=" => order.is_ge(),
                "<=" => order.is_le(),
                "=" => order.is_eq(),
                "!=" => order.is_ne(),
                ">" => order.is_gt(),
                _ => order.is_lt(),
            }
        })
    }
}

//! What a search found, and its pages.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, Uri};
use serde_json::{Value, json};

use super::queries::Query;
use super::{AuditDataId, GraphHabits, ROLE_AUDIT_ALL, problem};
use crate::microsoft::{Microsoft, Service, parse_query};
use crate::reply;
use crate::sheet::Record;

/// The log is kept for so long without a better licence.
const RETENTION_MS: i64 = 180 * 86_400_000;
/// Records of a page where the caller does not say.
const PAGE_RECORDS: usize = 150;

/// Names of record types, by the number that stands in the record.
const RECORD_TYPES: [(i64, &str); 30] = [
    (1, "exchangeAdmin"),
    (2, "exchangeItem"),
    (3, "exchangeItemGroup"),
    (4, "sharePoint"),
    (6, "sharePointFileOperation"),
    (7, "oneDrive"),
    (8, "azureActiveDirectory"),
    (9, "azureActiveDirectoryAccountLogon"),
    (10, "dataCenterSecurityCmdlet"),
    (11, "complianceDLPSharePoint"),
    (13, "complianceDLPExchange"),
    (14, "sharePointSharingOperation"),
    (15, "azureActiveDirectoryStsLogon"),
    (18, "securityComplianceCenterEOPCmdlet"),
    (19, "exchangeAggregatedOperation"),
    (20, "powerBIAudit"),
    (24, "discovery"),
    (25, "microsoftTeams"),
    (33, "complianceDLPSharePointClassification"),
    (36, "sharePointListOperation"),
    (37, "sharePointCommentOperation"),
    (40, "securityComplianceAlerts"),
    (50, "exchangeItemAggregated"),
    (52, "dataInsightsRestApiAudit"),
    (54, "sharePointListItemOperation"),
    (55, "sharePointContentTypeOperation"),
    (56, "sharePointFieldOperation"),
    (63, "dlpEndpoint"),
    (107, "complianceDLPExchangeClassification"),
    (108, "complianceDLPEndpoint"),
];

pub(super) fn record_type_exists(name: &str) -> bool {
    RECORD_TYPES.iter().any(|(_, known)| *known == name)
}

fn record_type_of(record: &Value) -> &'static str {
    let number = record.get("RecordType").and_then(Value::as_i64);
    let known = RECORD_TYPES
        .iter()
        .find(|(known, _)| Some(*known) == number);
    known.map_or("unknownFutureValue", |(_, name)| name)
}

/// Role that opens the records of one workload.
fn workload_role(stream: &str, record: &Value) -> &'static str {
    match stream {
        "office365/Audit.Exchange" => "AuditLogsQuery-Exchange.Read.All",
        "office365/Audit.AzureActiveDirectory" => "AuditLogsQuery-Entra.Read.All",
        "office365/Audit.SharePoint" => {
            if record.get("Workload").and_then(Value::as_str) == Some("OneDrive") {
                "AuditLogsQuery-OneDrive.Read.All"
            } else {
                "AuditLogsQuery-SharePoint.Read.All"
            }
        }
        _ => ROLE_AUDIT_ALL,
    }
}

pub(super) async fn list(
    State(service): Service,
    uri: Uri,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    service
        .read_records((uri.path(), &id), &parse_query(query.as_deref()), &headers)
        .unwrap_or_else(|refusal| refusal)
}

/// Which page is asked for: by which reading of the search, and from which record on.
#[derive(Debug, Clone, Copy)]
struct Place {
    reading: usize,
    offset: usize,
    page: usize,
}

impl Place {
    fn parse(token: &str) -> Option<Self> {
        let mut parts = token.split('.').map(|part| part.parse().ok());
        Some(Self {
            reading: parts.next()??,
            offset: parts.next()??,
            page: parts.next()??,
        })
    }
}

impl Microsoft {
    fn read_records(
        &self,
        (path, id): (&str, &str),
        asked: &HashMap<String, String>,
        headers: &HeaderMap,
    ) -> Result<Response, Response> {
        let call = self.admit_to_searches(path, headers)?;
        let query = self.query(&call, id)?;
        let habits = self.state().graph.habits.clone();
        let top = match asked.get("$top").map(|top| top.parse::<usize>()) {
            None => PAGE_RECORDS,
            Some(Ok(top)) if top <= habits.top_max => top.max(1),
            Some(top) => {
                let message = format!(
                    "The limit of '{}' for Top query has been exceeded. The value from the incoming \
                     request is '{}'.",
                    habits.top_max,
                    top.map_or_else(|_| "?".to_owned(), |top| top.to_string())
                );
                return Err(problem(400, "BadRequest", &message));
            }
        };
        let place = match asked.get("$skiptoken") {
            Some(token) => Place::parse(token)
                .ok_or_else(|| problem(400, "BadRequest", "Skip token is not valid."))?,
            None => self.new_reading(id),
        };
        let found = if query.status(call.now_ms) == "succeeded" {
            self.found_in(&query, place.reading)
        } else {
            Vec::new()
        };
        let origin = habits
            .link_origin
            .clone()
            .unwrap_or_else(|| reply::origin(headers));
        let root = format!("{origin}{path}?$top={top}&$skiptoken=");
        Ok(self.page(&found, place, (top, &root), &habits))
    }

    fn new_reading(&self, id: &str) -> Place {
        let mut state = self.state();
        let mut reading = 0;
        if let Some(query) = state.graph.queries.iter_mut().find(|query| query.id == id) {
            query.readings += 1;
            reading = query.readings;
        }
        Place {
            reading,
            offset: 0,
            page: 1,
        }
    }

    fn page(
        &self,
        found: &[usize],
        place: Place,
        (top, root): (usize, &str),
        habits: &GraphHabits,
    ) -> Response {
        let every = habits.short_page_every;
        let length = match every > 0 && place.page.is_multiple_of(every) {
            true if place.page.is_multiple_of(2 * every) => 0,
            true => top.div_ceil(2),
            false => top,
        };
        let records = &self.inner.world.sheet().records;
        let numbers = found.iter().skip(place.offset).take(length);
        let value: Vec<Value> = numbers
            .filter_map(|number| records.get(*number))
            .map(|record| rendered(record, habits.audit_data_id))
            .collect();
        let mut body = json!({
            "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#security/auditLog/queries/records",
            "value": value,
        });
        let next = place.offset + length;
        if let (true, Some(members)) = (next < found.len(), body.as_object_mut()) {
            let looping = place.reading <= habits.looping_readings && place.page > 1;
            let (offset, page) = if looping {
                (place.offset, place.page)
            } else {
                (next, place.page + 1)
            };
            let link = format!("{root}{}.{offset}.{page}", place.reading);
            members.insert("@odata.nextLink".to_owned(), json!(link));
        }
        reply::json(200, body.to_string())
    }

    /// Numbers of the records that a search found, without its limit.
    pub(super) fn found(&self, query: &Query) -> Vec<usize> {
        let world = &self.inner.world;
        let lag_ms = self.state().graph.habits.lag_seconds * 1000;
        let alias = world
            .tenants()
            .get(query.tenant)
            .map(|tenant| tenant.alias.as_str());
        let all = query.roles.iter().any(|role| role == ROLE_AUDIT_ALL);
        let found = |record: &Record| {
            let in_time = (query.from_ms..query.until_ms).contains(&record.event_ms)
                && record.event_ms + lag_ms <= query.ends_ms
                && record.event_ms >= query.created_ms - RETENTION_MS;
            if !in_time
                || Some(&*record.tenant) != alias
                || !record.stream.starts_with("office365/")
            {
                return false;
            }
            let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
            let role = workload_role(&record.stream, &body);
            let record_type = record_type_of(&body);
            (all || query.roles.iter().any(|own| own == role))
                && (query.record_types.is_empty()
                    || query.record_types.iter().any(|asked| asked == record_type))
        };
        let records = world.sheet().records.iter().enumerate();
        let found = records.filter(|(_, record)| found(record));
        found.map(|(number, _)| number).collect()
    }

    /// As [`Microsoft::found`], as one reading of the search gives it.
    fn found_in(&self, query: &Query, reading: usize) -> Vec<usize> {
        let mut found = self.found(query);
        found.truncate(query.limit);
        if reading <= self.state().graph.habits.unstable_readings {
            found.retain(|number| {
                let mut hasher = DefaultHasher::new();
                (number, reading).hash(&mut hasher);
                !hasher.finish().is_multiple_of(12)
            });
        }
        found
    }
}

/// A record of Graph around the record of the audit log: its members in another order and other
/// characters escaped than in the feed, and an annotation added.
fn rendered(record: &Record, audit_data_id: AuditDataId) -> Value {
    let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
    let text = |name: &str| body.get(name).cloned().unwrap_or_default();
    let mut id = json!(record.id);
    let mut data = body.as_object().cloned().unwrap_or_default();
    match audit_data_id {
        AuditDataId::Own => {}
        AuditDataId::Missing => {
            data.remove("Id");
        }
        AuditDataId::Other => {
            let other = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, record.id.as_bytes());
            id = json!(other.to_string());
            data.insert("Id".to_owned(), id.clone());
        }
    }
    let annotation = "#microsoft.graph.security.defaultAuditData";
    data.insert("@odata.type".to_owned(), json!(annotation));
    let created = text("CreationTime").as_str().map(|time| format!("{time}Z"));
    json!({
        "@odata.type": "#microsoft.graph.security.auditLogRecord",
        "id": id,
        "createdDateTime": created,
        "auditLogRecordType": record_type_of(&body),
        "operation": text("Operation"),
        "organizationId": text("OrganizationId"),
        "userType": "regular",
        "userId": text("UserId"),
        "service": text("Workload"),
        "objectId": text("ObjectId"),
        "userPrincipalName": text("UserId"),
        "clientIp": text("ClientIP"),
        "administrativeUnits": [""],
        "auditData": data,
    })
}

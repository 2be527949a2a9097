//! The members of the document, in the order they are written. A closed set: no map of ours
//! decides which members exist.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Mode, Severity};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// An OCSF Detection Finding; borrows from the finding. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Serialize)]
pub struct Document<'a> {
    pub(crate) activity_id: u8,
    pub(crate) activity_name: &'static str,
    pub(crate) category_uid: u8,
    pub(crate) category_name: &'static str,
    pub(crate) class_uid: u16,
    pub(crate) class_name: &'static str,
    pub(crate) type_uid: u32,
    pub(crate) type_name: &'static str,
    pub(crate) time: i64,
    pub(crate) start_time: i64,
    pub(crate) end_time: i64,
    pub(crate) severity_id: u8,
    pub(crate) severity: &'static str,
    pub(crate) status_id: u8,
    pub(crate) status: &'static str,
    pub(crate) is_alert: bool,
    pub(crate) risk_score: u8,
    pub(crate) count: u64,
    pub(crate) message: Cow<'a, str>,
    pub(crate) metadata: Metadata<'a>,
    pub(crate) finding_info: FindingInfo<'a>,
    pub(crate) cloud: Cloud<'a>,
    pub(crate) action_id: u8,
    pub(crate) action: &'static str,
    pub(crate) disposition_id: u8,
    pub(crate) disposition: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) evidences: Vec<EvidenceItem<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) observables: Vec<Observable<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<Resource<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remediation: Option<Remediation<'a>>,
    pub(crate) unmapped: Unmapped<'a>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Metadata<'a> {
    pub(crate) version: &'static str,
    /// UUIDv5 of finding uid and revision.
    pub(crate) uid: Uuid,
    pub(crate) product: Product,
    pub(crate) profiles: [&'static str; 2],
    pub(crate) log_name: &'a str,
    pub(crate) event_code: &'a str,
    pub(crate) correlation_uid: Uuid,
    pub(crate) logged_time: i64,
    pub(crate) tenant_uid: &'a str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Product {
    pub(crate) name: &'static str,
    pub(crate) vendor_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct FindingInfo<'a> {
    pub(crate) uid: Uuid,
    pub(crate) title: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) desc: Option<&'a str>,
    pub(crate) created_time: i64,
    pub(crate) first_seen_time: i64,
    pub(crate) last_seen_time: i64,
    pub(crate) analytic: Analytic<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) attacks: Vec<Attack<'a>>,
    pub(crate) data_sources: [String; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) related_events: Vec<RelatedEvent<'a>>,
    pub(crate) related_events_count: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Analytic<'a> {
    pub(crate) type_id: u8,
    pub(crate) r#type: &'static str,
    pub(crate) uid: Uuid,
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Attack<'a> {
    pub(crate) version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tactic: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tactics: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) technique: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sub_technique: Option<Named<'a>>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Named<'a> {
    pub(crate) uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct RelatedEvent<'a> {
    pub(crate) uid: &'a str,
    pub(crate) product: Product,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cloud<'a> {
    pub(crate) provider: &'static str,
    pub(crate) account: Account<'a>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Account<'a> {
    pub(crate) uid: &'a str,
    pub(crate) name: &'a str,
    pub(crate) type_id: u8,
    pub(crate) r#type: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct EvidenceItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<Actor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) src_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<EvidenceData<'a>>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Actor<'a> {
    pub(crate) user: User<'a>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct User<'a> {
    pub(crate) name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email_addr: Option<&'a str>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct EvidenceData<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) time: DateTime<Utc>,
    pub(crate) operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<&'a RawValue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Observable<'a> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) type_id: u8,
    pub(crate) r#type: &'static str,
    pub(crate) value: Cow<'a, str>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Resource<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    pub(crate) r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<User<'a>>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Remediation<'a> {
    pub(crate) desc: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) references: &'a [String],
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Unmapped<'a> {
    pub(crate) exfilwatch: Ours<'a>,
}

/// What OCSF has no place for, under our own words.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ours<'a> {
    pub(crate) detection: &'a str,
    pub(crate) alert: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) suppressed_by: Option<String>,
    pub(crate) severity: Severity,
    pub(crate) tenant: &'a str,
    pub(crate) entity_type: &'a str,
    pub(crate) entity: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) external_domain: Option<Cow<'a, str>>,
    pub(crate) count: u64,
    pub(crate) first_time: DateTime<Utc>,
    pub(crate) last_time: DateTime<Utc>,
    pub(crate) trip_time: DateTime<Utc>,
    pub(crate) mode: Mode,
    pub(crate) revision: u32,
    pub(crate) update_reason: Option<&'static str>,
    pub(crate) incident_uid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threshold: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window_seconds: Option<i64>,
    pub(crate) event_ids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matched: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) values: Option<&'a BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) false_positives: &'a [String],
    /// Something was left out to keep a receiver's size limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) truncated: bool,
}

//! A finding as a risk event of Splunk Enterprise Security's risk-based alerting: flat, in the names that
//! its searches read (`risk_object`, `risk_score`, …).

use std::borrow::Cow;

use exfilwatch_model::Finding;
use serde::Serialize;
use uuid::Uuid;

use super::text::{cut_chars, cut_json};

/// Longest value, in bytes as written.
const VALUE_BYTES_MAX: usize = 200;
/// Longest message, in characters.
const MESSAGE_CHARS_MAX: usize = 512;
/// Most techniques named.
const TECHNIQUES_MAX: usize = 10;

#[derive(Debug, Serialize)]
struct Event<'a> {
    search_name: Cow<'a, str>,
    risk_object: Cow<'a, str>,
    risk_object_type: &'static str,
    risk_score: u8,
    risk_message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threat_object: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threat_object_type: Option<&'static str>,
    #[serde(rename = "annotations.mitre_attack")]
    mitre_attack: &'a [String],
    detection: &'a str,
    finding_uid: Uuid,
    incident_uid: Uuid,
    tenant: &'a str,
}

/// The event; `None` for a later revision, whose risk is counted already: Enterprise Security adds scores up.
pub fn event(finding: &Finding) -> Result<Option<String>, serde_json::Error> {
    if finding.revision > 1 {
        return Ok(None);
    }
    let object = finding.user.as_deref().unwrap_or(&finding.entity);
    let (threat, kind) = match (&finding.external_domain, &finding.src) {
        (Some(domain), _) => (Some(domain), Some("domain")),
        (None, Some(address)) => (Some(address), Some("ip_address")),
        (None, None) => (None, None),
    };
    let techniques = &finding.rule.techniques;
    serde_json::to_string(&Event {
        search_name: cut_json(&finding.rule.title, VALUE_BYTES_MAX),
        risk_object: cut_json(object, VALUE_BYTES_MAX),
        risk_object_type: if finding.user.is_some() {
            "user"
        } else {
            "other"
        },
        risk_score: finding.risk_score,
        risk_message: cut_chars(&finding.message, MESSAGE_CHARS_MAX),
        threat_object: threat.map(|text| cut_json(text, VALUE_BYTES_MAX)),
        threat_object_type: kind,
        mitre_attack: techniques.get(..TECHNIQUES_MAX).unwrap_or(techniques),
        detection: &finding.rule.detection,
        finding_uid: finding.uid,
        incident_uid: finding.incident_uid,
        tenant: finding.tenant.as_str(),
    })
    .map(Some)
}

//! A finding as a Splunk event: flat keys first, the OCSF document below `ocsf`.
//!
//! Splunk's automatic field extraction stops after 5,000 characters, so the event is never longer:
//! parts of the document are left out in the order of [`Part::ORDER`], then the document itself,
//! then the drill-down; `truncated` says so. The flat keys always stand.

use std::borrow::Cow;
use std::fmt::Write;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{Finding, Mode, Product, Severity, UpdateReason};
use serde::Serialize;
use uuid::Uuid;

use super::ocsf::{Document, Part};
use super::text::{cut_chars, cut_json};

/// Largest event, in bytes.
pub const EVENT_BYTES_MAX: usize = 5_000;
/// Longest flat value, in bytes as written.
const VALUE_BYTES_MAX: usize = 200;
/// Longest message, in characters.
const MESSAGE_CHARS_MAX: usize = 512;
/// Most ids in the drill-down search.
const DRILLDOWN_IDS_MAX: usize = 10;
/// Most techniques named flat.
const TECHNIQUES_MAX: usize = 10;

#[derive(Debug, Serialize)]
struct Flat<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_domain: Option<Cow<'a, str>>,
    signature: Cow<'a, str>,
    detection: &'a str,
    rule_id: Uuid,
    severity: Severity,
    risk_score: u8,
    risk_object: Cow<'a, str>,
    risk_object_type: &'static str,
    mitre_technique_id: &'a [String],
    count: u64,
    finding_uid: Uuid,
    incident_uid: Uuid,
    revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_reason: Option<&'static str>,
    first_time: DateTime<Utc>,
    last_time: DateTime<Utc>,
    trip_time: DateTime<Utc>,
    mode: Mode,
    alert: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed_by: Option<String>,
    tenant: &'a str,
    app: &'static str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drilldown: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ocsf: Option<Document<'a>>,
}

/// The event, at most [`EVENT_BYTES_MAX`] bytes of JSON.
pub fn event(finding: &Finding) -> Result<String, serde_json::Error> {
    let mut flat = flat(finding);
    let mut text = serde_json::to_string(&flat)?;
    for part in Part::ORDER {
        if text.len() <= EVENT_BYTES_MAX {
            return Ok(text);
        }
        flat.truncated = true;
        if let Some(document) = &mut flat.ocsf {
            document.leave_out(part);
        }
        text = serde_json::to_string(&flat)?;
    }
    if text.len() > EVENT_BYTES_MAX {
        flat.ocsf = None;
        text = serde_json::to_string(&flat)?;
    }
    if text.len() > EVENT_BYTES_MAX {
        flat.drilldown = None;
        flat.message = cut_json(&finding.message, VALUE_BYTES_MAX);
        text = serde_json::to_string(&flat)?;
    }
    Ok(text)
}

fn flat(finding: &Finding) -> Flat<'_> {
    let cut = |text: &'_ str| cut_json(text, VALUE_BYTES_MAX).into_owned().into();
    let some = |text: &Option<String>| text.as_deref().map(cut);
    let rule = &finding.rule;
    Flat {
        user: some(&finding.user),
        src: some(&finding.src),
        dest: some(&finding.external_domain),
        target: some(&finding.target),
        external_domain: some(&finding.external_domain),
        signature: cut(&rule.title),
        detection: &rule.detection,
        rule_id: rule.id,
        severity: finding.severity,
        risk_score: finding.risk_score,
        risk_object: cut(finding.user.as_deref().unwrap_or(&finding.entity)),
        risk_object_type: if finding.user.is_some() {
            "user"
        } else {
            "other"
        },
        mitre_technique_id: rule
            .techniques
            .get(..TECHNIQUES_MAX)
            .unwrap_or(&rule.techniques),
        count: finding.count,
        finding_uid: finding.uid,
        incident_uid: finding.incident_uid,
        revision: finding.revision,
        update_reason: finding.update_reason.map(UpdateReason::as_str),
        first_time: finding.first_time,
        last_time: finding.last_time,
        trip_time: finding.trip_time,
        mode: finding.mode,
        alert: finding.alert,
        suppressed_by: finding.suppressed.as_ref().map(ToString::to_string),
        tenant: finding.tenant.as_str(),
        app: rule.product.as_str(),
        message: cut_chars(&finding.message, MESSAGE_CHARS_MAX),
        drilldown: drilldown(finding),
        truncated: false,
        ocsf: Some(document(finding)),
    }
}

/// The document, without what stands flat beside it and would cost room.
fn document(finding: &Finding) -> Document<'_> {
    let mut document = Document::new(finding);
    let ours = &mut document.unmapped.exfilwatch;
    (ours.target, ours.external_domain) = (None, None);
    document
}

/// A search for the records behind the finding, as this emitter sends them.
fn drilldown(finding: &Finding) -> Option<String> {
    let (sourcetype, member) = match finding.rule.product {
        Product::M365 => ("o365:management:activity".to_owned(), "Id"),
        Product::GoogleWorkspace => (
            format!("gws:reports:{}", finding.stream),
            "id.uniqueQualifier",
        ),
    };
    let mut ids = String::new();
    for id in finding.event_ids.iter().take(DRILLDOWN_IDS_MAX) {
        let id = match finding.rule.product {
            Product::M365 => id.as_str(),
            // time/uniqueQualifier/applicationName
            Product::GoogleWorkspace => id.split('/').nth(1).unwrap_or(id),
        };
        let comma = if ids.is_empty() { "" } else { "," };
        let quoted = id.replace('\\', "\\\\").replace('"', "\\\"");
        write!(ids, "{comma}\"{quoted}\"").ok()?;
    }
    if ids.is_empty() {
        return None;
    }
    let earliest = finding.first_time.timestamp();
    let latest = (finding.last_time + TimeDelta::seconds(1)).timestamp();
    Some(format!(
        "index=* sourcetype={sourcetype} {member} IN ({ids}) earliest={earliest} latest={latest}"
    ))
}

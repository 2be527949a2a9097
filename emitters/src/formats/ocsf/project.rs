//! From a finding to the document.

use std::borrow::Cow;
use std::net::IpAddr;

use exfilwatch_model::{Finding, Product as Vendor, Severity, UpdateReason};
use uuid::Uuid;

use super::document::{
    Account, Actor, Analytic, Attack, Cloud, Document, Endpoint, EvidenceData, EvidenceItem,
    FindingInfo, Metadata, Named, Ours, Product, RelatedEvent, Remediation, Unmapped, User,
};
use super::subjects::{observables, resources};
use crate::formats::attack;
use crate::formats::text::cut_chars;

/// Most event ids that become `related_events`; `unmapped.exfilwatch.event_ids` has them all.
const RELATED_EVENTS_MAX: usize = 20;
/// Longest `message`, in characters.
const MESSAGE_CHARS_MAX: usize = 512;
/// What a finding's product is called in `metadata.product`.
const OURSELVES: Product = Product {
    name: "exfilwatch",
    vendor_name: "exfilwatch",
    version: Some(env!("CARGO_PKG_VERSION")),
};

impl<'a> Document<'a> {
    /// The whole document of a finding.
    pub fn new(finding: &'a Finding) -> Self {
        let activity = Activity::of(finding);
        Self {
            activity_id: activity.id,
            activity_name: activity.name,
            category_uid: 2,
            category_name: "Findings",
            class_uid: 2004,
            class_name: "Detection Finding",
            type_uid: 200_400 + u32::from(activity.id),
            type_name: activity.type_name,
            time: finding.trip_time.timestamp_millis(),
            start_time: finding.first_time.timestamp_millis(),
            end_time: finding.last_time.timestamp_millis(),
            severity_id: finding.severity.ocsf_id(),
            severity: severity_caption(finding.severity),
            status_id: if finding.suppressed.is_some() { 3 } else { 1 },
            status: if finding.suppressed.is_some() {
                "Suppressed"
            } else {
                "New"
            },
            is_alert: finding.alert,
            risk_score: finding.risk_score,
            count: finding.count,
            message: cut_chars(&finding.message, MESSAGE_CHARS_MAX),
            metadata: metadata(finding),
            finding_info: finding_info(finding),
            cloud: cloud(finding),
            action_id: 3,
            action: "Observed",
            disposition_id: 17,
            disposition: "Logged",
            evidences: evidences(finding),
            observables: observables(finding),
            resources: resources(finding),
            remediation: (!finding.rule.triage.is_empty()).then(|| Remediation {
                desc: &finding.rule.triage,
                references: &finding.rule.references,
            }),
            unmapped: Unmapped {
                exfilwatch: ours(finding),
            },
        }
    }
}

struct Activity {
    id: u8,
    name: &'static str,
    type_name: &'static str,
}

impl Activity {
    fn of(finding: &Finding) -> Self {
        match (finding.update_reason, finding.revision) {
            (Some(UpdateReason::Closed), _) => Self {
                id: 3,
                name: "Close",
                type_name: "Detection Finding: Close",
            },
            (None, 0..=1) => Self {
                id: 1,
                name: "Create",
                type_name: "Detection Finding: Create",
            },
            (Some(_) | None, _) => Self {
                id: 2,
                name: "Update",
                type_name: "Detection Finding: Update",
            },
        }
    }
}

fn severity_caption(severity: Severity) -> &'static str {
    match severity {
        Severity::Informational => "Informational",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

fn vendor(product: Vendor) -> Product {
    match product {
        Vendor::M365 => Product {
            name: "Microsoft 365",
            vendor_name: "Microsoft",
            version: None,
        },
        Vendor::GoogleWorkspace => Product {
            name: "Google Workspace",
            vendor_name: "Google",
            version: None,
        },
    }
}

fn metadata(finding: &Finding) -> Metadata<'_> {
    Metadata {
        version: "1.5.0",
        uid: Uuid::new_v5(&finding.uid, finding.revision.to_string().as_bytes()),
        product: OURSELVES,
        profiles: ["cloud", "security_control"],
        log_name: &finding.stream,
        event_code: &finding.rule.detection,
        correlation_uid: finding.incident_uid,
        logged_time: finding.fetched_at.timestamp_millis(),
        tenant_uid: finding.tenant.as_str(),
    }
}

fn finding_info(finding: &Finding) -> FindingInfo<'_> {
    let rule = &finding.rule;
    let related = finding.event_ids.iter().take(RELATED_EVENTS_MAX);
    FindingInfo {
        uid: finding.uid,
        title: Cow::Borrowed(&rule.title),
        desc: (!rule.description.is_empty()).then_some(rule.description.as_str()),
        created_time: finding.fetched_at.timestamp_millis(),
        first_seen_time: finding.first_time.timestamp_millis(),
        last_seen_time: finding.last_time.timestamp_millis(),
        analytic: Analytic {
            type_id: 1,
            r#type: "Rule",
            uid: rule.id,
            name: &rule.title,
            version: &rule.version,
        },
        attacks: attacks(&rule.tactics, &rule.techniques),
        data_sources: [format!("{}:{}", rule.product, finding.stream)],
        related_events: related
            .map(|uid| RelatedEvent {
                uid,
                product: vendor(rule.product),
            })
            .collect(),
        related_events_count: finding.count,
    }
}

/// One entry per technique, each with all tactics; tactics alone where a rule names no technique.
fn attacks<'a>(tactics: &'a [String], techniques: &'a [String]) -> Vec<Attack<'a>> {
    let named = |uid: &'a str, name| Named { uid, name };
    let tactic = |uid: &'a String| named(uid, attack::tactic(uid));
    if techniques.is_empty() {
        return tactics
            .iter()
            .map(|uid| Attack {
                version: attack::VERSION,
                tactic: Some(tactic(uid)),
                tactics: vec![],
                technique: None,
                sub_technique: None,
            })
            .collect();
    }
    techniques
        .iter()
        .map(|id| {
            let parent = id.split('.').next().unwrap_or(id);
            Attack {
                version: attack::VERSION,
                tactic: None,
                tactics: tactics.iter().map(tactic).collect(),
                technique: Some(named(parent, attack::technique(parent))),
                sub_technique: (parent != id).then(|| named(id, attack::technique(id))),
            }
        })
        .collect()
}

fn cloud(finding: &Finding) -> Cloud<'_> {
    let (type_id, caption) = match finding.rule.product {
        Vendor::GoogleWorkspace => (15, "Google Workspace"),
        Vendor::M365 => (17, "M365 Tenant"),
    };
    Cloud {
        provider: vendor(finding.rule.product).name,
        account: Account {
            uid: finding.tenant.as_str(),
            name: finding.tenant.as_str(),
            type_id,
            r#type: caption,
        },
    }
}

pub(super) fn user(name: &str) -> User<'_> {
    User {
        name,
        email_addr: name.contains('@').then_some(name),
    }
}

pub(super) fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn endpoint(src: &str) -> Endpoint<'_> {
    let address = is_address(src);
    Endpoint {
        ip: address.then_some(src),
        name: (!address).then_some(src),
    }
}

/// The records; who and from where stand in the first entry, also when no record is quoted.
fn evidences(finding: &Finding) -> Vec<EvidenceItem<'_>> {
    let mut actor = finding
        .user
        .as_deref()
        .map(|name| Actor { user: user(name) });
    let mut source = finding.src.as_deref().map(endpoint);
    if finding.evidence.is_empty() && (actor.is_some() || source.is_some()) {
        return vec![EvidenceItem {
            actor,
            src_endpoint: source,
            data: None,
        }];
    }
    finding
        .evidence
        .iter()
        .map(|evidence| EvidenceItem {
            actor: actor.take(),
            src_endpoint: source.take(),
            data: Some(EvidenceData {
                event_id: &evidence.event_id,
                time: evidence.time,
                operation: &evidence.operation,
                record: evidence.record.as_deref(),
            }),
        })
        .collect()
}

fn ours(finding: &Finding) -> Ours<'_> {
    Ours {
        detection: &finding.rule.detection,
        alert: finding.alert,
        suppressed_by: finding.suppressed.as_ref().map(ToString::to_string),
        severity: finding.severity,
        tenant: finding.tenant.as_str(),
        entity_type: &finding.entity_type,
        entity: Cow::Borrowed(&finding.entity),
        target: finding.target.as_deref().map(Cow::Borrowed),
        external_domain: finding.external_domain.as_deref().map(Cow::Borrowed),
        count: finding.count,
        first_time: finding.first_time,
        last_time: finding.last_time,
        trip_time: finding.trip_time,
        mode: finding.mode,
        revision: finding.revision,
        update_reason: finding.update_reason.map(UpdateReason::as_str),
        incident_uid: finding.incident_uid,
        threshold: finding.threshold,
        window_seconds: finding.window_seconds,
        event_ids: &finding.event_ids,
        matched: Some(&finding.matched),
        values: Some(&finding.values),
        false_positives: &finding.rule.false_positives,
        truncated: false,
    }
}

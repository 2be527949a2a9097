//! One finding, one record of each vendor and one internal item, shared by the tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part"
)]

pub(crate) mod collector;
pub(crate) mod hec;
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_model::{
    Envelope, Evidence, Finding, Kind, MessagePart, Mode, Product, Provenance, RuleFacts, Severity,
    StreamId, TenantId, finding_uid,
};
use uuid::Uuid;

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub(crate) fn finding() -> Finding {
    let tenant = TenantId::new("contoso").unwrap();
    let rule_id = Uuid::from_u128(0x5d6f_2a4e_58a3_4f0b_9c3e_0d2f_6b7a_8c91);
    let uid = finding_uid(&tenant, rule_id, "user", "alice@contoso.example", "20781");
    let list = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    Finding {
        uid,
        incident_uid: uid,
        tenant,
        rule: Arc::new(RuleFacts {
            id: rule_id,
            detection: "gws.drive.mass_share_external".to_owned(),
            title: "Many Drive files shared outside".to_owned(),
            description: "One person shares many files with people outside in a short time."
                .to_owned(),
            version: "0a1b2c3d4e5f".to_owned(),
            product: Product::GoogleWorkspace,
            tactics: list(&["TA0010"]),
            techniques: list(&["T1567.002", "T1537"]),
            triage: "1. Ask the owner.\n2. Take the shares back.".to_owned(),
            false_positives: list(&["A project hand-over"]),
            references: list(&["https://attack.mitre.org/techniques/T1567/002/"]),
        }),
        stream: "drive".to_owned(),
        alert: true,
        suppressed: None,
        severity: Severity::High,
        risk_score: 72,
        mode: Mode::Live,
        revision: 1,
        update_reason: None,
        entity_type: "user".to_owned(),
        entity: "alice@contoso.example".to_owned(),
        message: "alice@contoso.example shared 2 files with rival.example in 60 s (threshold 2)"
            .to_owned(),
        count: 2,
        event_ids: list(&[
            "2026-11-24T02:15:00.000Z/-720229394436/drive",
            "2026-11-24T02:16:00.000Z/720229394437/drive",
        ]),
        first_time: at("2026-11-24T02:15:00Z"),
        last_time: at("2026-11-24T02:16:00Z"),
        trip_time: at("2026-11-24T02:16:00Z"),
        fetched_at: at("2026-11-24T02:20:00.123Z"),
        user: Some("alice@contoso.example".to_owned()),
        src: Some("198.51.100.7".to_owned()),
        target: Some("bob@rival.example".to_owned()),
        external_domain: Some("rival.example".to_owned()),
        values: BTreeMap::from([
            ("external_domain".to_owned(), list(&["rival.example"])),
            ("object".to_owned(), list(&["1AbC", "1DeF"])),
            ("object_name".to_owned(), list(&["Q3.xlsx", "plans.docx"])),
            ("target".to_owned(), list(&["bob@rival.example"])),
        ]),
        matched: BTreeMap::from([("operation".to_owned(), "change_user_access".to_owned())]),
        threshold: Some(2),
        window_seconds: Some(60),
        evidence: vec![Evidence {
            event_id: "2026-11-24T02:15:00.000Z/-720229394436/drive".to_owned(),
            time: at("2026-11-24T02:15:00Z"),
            operation: "change_user_access".to_owned(),
            record: Some(serde_json::from_str(r#"{"kind":"admin#reports#activity"}"#).unwrap()),
        }],
        provenance: provenance(),
    }
}

fn provenance() -> Provenance {
    let values = |field: &str, shown: &str| MessagePart::Values {
        field: field.to_owned(),
        shown: vec![shown.to_owned()],
        more: 0,
    };
    let text = |text: &str| MessagePart::Text(text.to_owned());
    Provenance {
        message: vec![
            values("actor", "alice@contoso.example"),
            text(" shared 2 files with "),
            values("external_domain", "rival.example"),
            text(" in 60 s (threshold 2)"),
        ],
        target: Some("target".to_owned()),
        entity: Some("actor".to_owned()),
    }
}

/// A finding in which every text is long and hostile and every list is full.
pub(crate) fn worst_finding() -> Finding {
    let mut finding = finding();
    let nasty = "\u{0}\n\"\\]<134>1 ü\u{202e}😀".repeat(60);
    finding.message.clone_from(&nasty);
    let rule = Arc::make_mut(&mut finding.rule);
    rule.title.clone_from(&nasty);
    rule.description.clone_from(&nasty);
    rule.triage.clone_from(&nasty);
    finding.entity.clone_from(&nasty);
    finding.user = Some(nasty.clone());
    finding.src = Some(nasty.clone());
    finding.target = Some(nasty.clone());
    finding.external_domain = Some(nasty.clone());
    finding.event_ids = (0..1_000).map(|n| format!("event-{n}")).collect();
    let many: Vec<String> = (0..30).map(|n| format!("{n}{nasty}")).collect();
    for values in finding.values.values_mut() {
        values.clone_from(&many);
    }
    finding.matched.insert("nasty".to_owned(), nasty);
    finding
}

pub(crate) fn stream(text: &str) -> StreamId {
    text.parse().unwrap()
}

pub(crate) fn finding_envelope(finding: &Finding) -> Envelope {
    Envelope {
        kind: Kind::Findings,
        stream: stream("contoso/google_workspace/drive"),
        id: finding.uid.to_string(),
        time: Some(finding.trip_time),
        fetched_at: finding.fetched_at,
        payload: serde_json::to_vec(finding).unwrap().into(),
    }
}

/// A record of office365, with members in an order and spelling of its own.
pub(crate) const OFFICE365: &str = r#"{"CreationTime":"2026-11-24T02:15:00","Id":"6f0d","Operation":"New-InboxRule","RecordType":1,"Workload":"Exchange","UserId":"alice@contoso.example", "Parameters":[{"Name":"ForwardTo","Value":"Bj\u00f6rn ü <b@rival.example>"}]}"#;

/// A record of google with two events.
pub(crate) const GOOGLE: &str = r#"{"kind":"admin#reports#activity","id":{"time":"2026-11-24T02:15:00.000Z","uniqueQualifier":"-72","applicationName":"drive"},"etag":"\"x\"","actor":{"email":"alice@contoso.example"},"ipAddress":"198.51.100.7","events":[{"type":"acl_change","name":"change_user_access","parameters":[{"name":"doc_id","value":"1AbC"}]},{"type":"access","name":"view"}],"resourceDetails": [1.10]}"#;

pub(crate) fn event(stream_id: &str, id: &str, record: &str) -> Envelope {
    Envelope {
        kind: Kind::Events,
        stream: stream(stream_id),
        id: id.to_owned(),
        time: Some(at("2026-11-24T02:15:00Z")),
        fetched_at: at("2026-11-24T02:20:00.123Z"),
        payload: Bytes::copy_from_slice(record.as_bytes()),
    }
}

pub(crate) fn office365(id: &str) -> Envelope {
    let record = OFFICE365.replace("6f0d", id);
    event("contoso/office365/Audit.Exchange", id, &record)
}

pub(crate) fn google() -> Envelope {
    event(
        "contoso/google_workspace/drive",
        "2026-11-24T02:15:00.000Z/-72/drive",
        GOOGLE,
    )
}

pub(crate) fn heartbeat() -> Envelope {
    Envelope {
        kind: Kind::Internal,
        stream: stream("contoso/office365/Audit.Exchange"),
        id: "collector.heartbeat:contoso/office365/Audit.Exchange:1795486800000".to_owned(),
        time: None,
        fetched_at: at("2026-11-24T02:20:00Z"),
        payload: Bytes::from_static(br#"{"type":"collector.heartbeat","lag_seconds":12}"#),
    }
}

//! Items that only show whether the way to a receiver is open: marked as such, and about nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{
    Envelope, Finding, Kind, Mode, NameError, Product, Provenance, RuleFacts, Severity, StreamId,
    TenantId, finding_uid,
};
use serde_json::json;
use uuid::Uuid;

use crate::pipeline::notice::Notice;
use crate::pipeline::step::finding_envelope;

/// Dotted name of what says it is a test, and type of the internal item.
pub const NAME: &str = "exfilwatch.test";
/// Sigma id that no rule has. Never changed.
const RULE_ID: Uuid = Uuid::from_u128(0x8f1d_24a7_3c5e_4d0b_9a62_17e5_c0f3_b846);
const SAYS: &str =
    "This is a test of the way to this receiver (exfilwatch emitter test): nothing happened";

/// An item of the kind. `None` only when it cannot be written.
pub fn item(
    kind: Kind,
    tenant: &TenantId,
    now: DateTime<Utc>,
) -> Result<Option<Envelope>, NameError> {
    let stream = StreamId::new(tenant.clone(), "exfilwatch", "test")?;
    Ok(match kind {
        Kind::Findings | Kind::Signals => {
            let finding = finding(&stream, kind == Kind::Findings, now);
            finding_envelope(&stream, &finding)
        }
        Kind::Internal => {
            let notice = Notice {
                stream,
                name: NAME,
                at: now,
                facts: json!({ "message": SAYS }),
                gap: None,
            };
            notice.frame(tenant).items.pop()
        }
        Kind::Events => Some(Envelope {
            kind,
            id: format!("{NAME}:{}", now.timestamp_millis()),
            time: Some(now),
            fetched_at: now,
            payload: json!({ "Operation": NAME, "CreationTime": now, "Message": SAYS })
                .to_string()
                .into(),
            stream,
        }),
    })
}

fn finding(stream: &StreamId, alert: bool, now: DateTime<Utc>) -> Finding {
    let scope = now.timestamp_millis().to_string();
    let uid = finding_uid(stream.tenant(), RULE_ID, "test", NAME, &scope);
    Finding {
        uid,
        incident_uid: uid,
        tenant: stream.tenant().clone(),
        rule: Arc::new(RuleFacts {
            id: RULE_ID,
            detection: NAME.to_owned(),
            title: "Test of a receiver: nothing happened".to_owned(),
            description: SAYS.to_owned(),
            version: "000000000001".to_owned(),
            product: Product::M365,
            tactics: Vec::new(),
            techniques: Vec::new(),
            triage: "Nothing is to be done.".to_owned(),
            false_positives: vec!["Always: it is a test".to_owned()],
            references: Vec::new(),
        }),
        stream: stream.name().to_owned(),
        alert,
        suppressed: None,
        severity: Severity::Informational,
        risk_score: 0,
        mode: Mode::Live,
        revision: 1,
        update_reason: None,
        entity_type: "test".to_owned(),
        entity: NAME.to_owned(),
        message: SAYS.to_owned(),
        count: 1,
        event_ids: Vec::new(),
        first_time: now,
        last_time: now,
        trip_time: now,
        fetched_at: now,
        user: None,
        src: None,
        target: None,
        external_domain: None,
        values: BTreeMap::new(),
        matched: BTreeMap::new(),
        threshold: None,
        window_seconds: None,
        evidence: Vec::new(),
        provenance: Provenance::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_item_that_says_what_it_is() {
        let tenant = TenantId::new("contoso").unwrap();
        for kind in Kind::ALL {
            let item = item(kind, &tenant, DateTime::UNIX_EPOCH).unwrap().unwrap();
            assert_eq!(item.kind, kind);
            let text = std::str::from_utf8(&item.payload).unwrap();
            assert!(
                text.contains(NAME) && text.contains("nothing happened"),
                "{text}"
            );
        }
    }
}

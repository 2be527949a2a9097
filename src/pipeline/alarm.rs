//! The finding `x.audit.gap`: an audit log that is silent, switched off, or whose gaps are about to
//! become losses; and what was lost of our own state. It is about our sight and not about a record, so no rule can say it; it goes
//! through the finding table and the findings lane like any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use exfilwatch_detectors::Pack;
use exfilwatch_detectors::catalogue::Summary;
use exfilwatch_model::{
    Finding, MessagePart, Mode, Product, Provenance, RuleFacts, Severity, StreamId, UpdateReason,
    finding_uid,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::pipeline::ledger::SilenceOptions;

/// Dotted name of the detection.
pub const DETECTION: &str = "x.audit.gap";
/// Sigma id of the detection. Never changed.
const RULE_ID: Uuid = Uuid::from_u128(0x3b0c_7f52_95d1_4e0a_8a6e_61d7_20c4_f9b3);
/// Changes with what the detection does.
const VERSION: &str = "000000000001";
const TITLE: &str = "Audit log silent, switched off or lost";
const DESCRIPTION: &str = "An audit log has gone silent for longer than its habit, was switched off, \
    or has a gap that is not filled and that the vendor soon drops; or something of the collector's own \
    state was lost. Switching the log off is what an \
    intruder does first; and whatever happens meanwhile is seen by no detection.";
const TRIAGE: &str = "What happened: see `reason`: silence (no content for longer than the stream's \
habit), off (auditing or the subscription is switched off), unfilled (a gap that is about to be, or is, \
lost), rebuilt (the collector's store was lost and made anew), items_lost (what waited for delivery is \
lost).
Why it matters: no detection sees what an audit log does not say, and switching it off is a known step \
of intruders (T1562.008).
Check:
  1. Is auditing on? Office 365: Get-AdminAuditLogConfig | fl UnifiedAuditLogIngestionEnabled. Google: \
the Admin console's reporting settings and licences.
  2. Who changed it, and when: Set-AdminAuditLogConfig, Set-Mailbox -AuditEnabled, licence and \
subscription changes in the other streams just before `first_time`.
  3. Is it us: exfilwatch status, exfilwatch gaps, exfilwatch doctor (secret expired, consent withdrawn)?
  4. Is it the vendor: the service health page, other tenants at the same time?
Contain: switch auditing on again; read the interval again (exfilwatch backfill --since … --until …) \
before the vendor drops it, also after a loss of our own state; who could write to the state folder? \
What is lost for good: exfilwatch gaps acknowledge ID --reason …";

/// What an operator says of these findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlarmOptions {
    /// How long a stream may be silent.
    pub silence: SilenceOptions,
    /// So long before the vendor drops what is in an open gap it is told.
    pub gap_warning: chrono::TimeDelta,
}

/// `x.audit.gap` of a tenant: when it fires, and whether it is run at present. Clones share that.
#[derive(Debug, Clone)]
pub struct Alarms {
    options: AlarmOptions,
    is_run: Arc<AtomicBool>,
}

impl Alarms {
    /// Of a tenant for which it is run, or not.
    pub fn new(options: AlarmOptions, is_run: bool) -> Self {
        Self {
            options,
            is_run: Arc::new(AtomicBool::new(is_run)),
        }
    }

    /// When it fires; `None` where it is switched off.
    pub fn get(&self) -> Option<&AlarmOptions> {
        self.is_run.load(Ordering::Relaxed).then_some(&self.options)
    }

    /// Switches it, for every clone. What was raised stays until it is over.
    pub fn switch(&self, is_run: bool) {
        self.is_run.store(is_run, Ordering::Relaxed);
    }
}

/// Why it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No content for longer than the stream's habit.
    Silence,
    /// Auditing or the subscription is switched off.
    Off,
    /// A gap that is about to be lost, or is.
    Unfilled,
    /// Our own store was lost and made anew.
    Rebuilt,
    /// Items that waited for delivery are lost.
    ItemsLost,
}

impl Reason {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Off => "off",
            Self::Unfilled => "unfilled",
            Self::Rebuilt => "rebuilt",
            Self::ItemsLost => "items_lost",
        }
    }

    fn severity(self) -> (Severity, u8) {
        match self {
            Self::Silence | Self::Unfilled | Self::Rebuilt => (Severity::Medium, 50),
            Self::Off | Self::ItemsLost => (Severity::High, 75),
        }
    }
}

/// One that was raised and is not over. Kept in the stream's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// Why.
    pub reason: Reason,
    /// Begin of the period: part of the finding's id.
    pub since: DateTime<Utc>,
}

/// What is said of it.
#[derive(Debug, Clone)]
pub struct Alarm<'a> {
    /// The stream that is not seen.
    pub stream: &'a StreamId,
    /// Whose records it has.
    pub product: Product,
    /// Why, and since when.
    pub raised: &'a Raised,
    /// One sentence.
    pub message: String,
    /// Figures that made it fire.
    pub matched: BTreeMap<String, String>,
}

impl Alarm<'_> {
    /// The finding as it stands at `now`.
    pub fn finding(&self, now: DateTime<Utc>) -> Finding {
        let (stream, raised) = (self.stream, self.raised);
        let entity = format!("{}/{}", stream.connector(), stream.name());
        let period = raised.since.timestamp();
        let scope = format!("{}:{period}", raised.reason.as_str());
        let uid = finding_uid(stream.tenant(), RULE_ID, "stream", &entity, &scope);
        let (severity, risk_score) = raised.reason.severity();
        let mut matched = self.matched.clone();
        matched.insert("reason".to_owned(), raised.reason.as_str().to_owned());
        Finding {
            uid,
            incident_uid: uid,
            tenant: stream.tenant().clone(),
            rule: Arc::new(facts(self.product)),
            stream: stream.name().to_owned(),
            alert: true,
            suppressed: None,
            severity,
            risk_score,
            mode: Mode::Live,
            revision: 1,
            update_reason: None,
            entity_type: "stream".to_owned(),
            entity: exfilwatch_model::identity::normal_entity(&entity),
            message: self.message.clone(),
            count: 1,
            event_ids: Vec::new(),
            first_time: raised.since.min(now),
            last_time: now,
            trip_time: now,
            fetched_at: now,
            user: None,
            src: None,
            target: Some(entity),
            external_domain: None,
            values: BTreeMap::new(),
            matched,
            threshold: None,
            window_seconds: None,
            evidence: Vec::new(),
            provenance: Provenance {
                message: vec![MessagePart::Text(self.message.clone())],
                ..Provenance::default()
            },
        }
    }

    /// Its last word.
    pub fn over(&self, now: DateTime<Utc>) -> Finding {
        Finding {
            update_reason: Some(UpdateReason::Closed),
            ..self.finding(now)
        }
    }
}

/// The detection in words, for the catalogue of the rules.
pub fn summary() -> Summary {
    let facts = facts(Product::M365);
    let level = |reason: Reason| reason.severity().0.as_str();
    let (severity, risk) = Reason::Silence.severity();
    Summary {
        name: facts.detection,
        id: facts.id,
        title: facts.title,
        level: severity,
        risk,
        pack: Pack::Exfil,
        alert: "yes",
        product: None,
        service: Some("any audit log".to_owned()),
        operations: Vec::new(),
        status: None,
        identity: "log, reason, begin of the period (of a gap: its day)".to_owned(),
        conditions: vec![
            format!(
                "silence for longer than its habit: {}",
                level(Reason::Silence)
            ),
            format!("switched off: {}", level(Reason::Off)),
            format!(
                "a gap near its expiry or lost, or our own store lost: {}",
                level(Reason::Unfilled)
            ),
            format!(
                "items lost that waited for delivery: {}",
                level(Reason::ItemsLost)
            ),
        ],
        description: facts.description,
        triage: facts.triage,
        false_positives: facts.false_positives,
        attack: [facts.tactics, facts.techniques].concat(),
        references: facts.references,
        equivalents: Some(std::collections::BTreeMap::new()),
        tests: Vec::new(),
        file: "built in".to_owned(),
        version: facts.version,
    }
}

fn facts(product: Product) -> RuleFacts {
    RuleFacts {
        id: RULE_ID,
        detection: DETECTION.to_owned(),
        title: TITLE.to_owned(),
        description: DESCRIPTION.to_owned(),
        version: VERSION.to_owned(),
        product,
        tactics: vec!["TA0005".to_owned()],
        techniques: vec!["T1562.008".to_owned()],
        triage: TRIAGE.to_owned(),
        false_positives: vec![
            "Holidays longer than any pause of the last four weeks".to_owned(),
            "A service that is no longer used".to_owned(),
        ],
        references: vec!["https://attack.mitre.org/techniques/T1562/008/".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_period_of_the_same_stream_is_one_finding_and_another_is_another() {
        let stream: StreamId = "contoso/office365/Audit.Exchange".parse().unwrap();
        let at = |hours| DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hours);
        let uid = |reason, since, now| {
            let raised = Raised {
                reason,
                since: at(since),
            };
            let alarm = Alarm {
                stream: &stream,
                product: Product::M365,
                raised: &raised,
                message: String::new(),
                matched: BTreeMap::new(),
            };
            assert_eq!(alarm.over(at(now)).uid, alarm.finding(at(now)).uid);
            alarm.finding(at(now)).uid
        };
        let first = uid(Reason::Silence, 5, 100);
        assert_eq!(first, uid(Reason::Silence, 5, 200));
        assert_ne!(first, uid(Reason::Silence, 6, 100));
        assert_ne!(first, uid(Reason::Off, 5, 100));
    }
}

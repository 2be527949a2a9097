//! One act, one alert: of the findings about one record only one asks to be looked at, the others
//! are signals beside it, in the same incident.
//!
//! Only rules for which each record is a finding take part. All their findings about a record come
//! with the same page, so the outcome does not depend on the order of arrival.

use std::collections::HashMap;

use exfilwatch_model::{Finding, Severity};
use uuid::Uuid;

use crate::rules::{Kind, Rule, RuleSet};

/// Leaves one alert to each record.
pub(super) fn one_alert_each(rules: &RuleSet, findings: &mut [Finding]) {
    let mut by_record: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, finding) in findings.iter().enumerate() {
        let rule = rules.rule(finding.rule.id);
        if let (true, Some(record)) = (
            finding.alert && rule.is_some_and(is_of_records),
            finding.event_ids.first(),
        ) {
            by_record.entry(record.clone()).or_default().push(place);
        }
    }
    for places in by_record.into_values().filter(|places| places.len() > 1) {
        let of = |place: &usize| findings.get(*place);
        let alerts: Vec<&Finding> = places.iter().filter_map(of).collect();
        let Some(first) = alerts
            .iter()
            .max_by_key(|finding| rank(rules, finding, &alerts))
        else {
            continue;
        };
        let (uid, incident) = (first.uid, first.incident_uid);
        for place in places {
            if let Some(finding) = findings.get_mut(place) {
                finding.alert = finding.uid == uid;
                finding.incident_uid = incident;
            }
        }
    }
}

fn is_of_records(rule: &Rule) -> bool {
    matches!(&rule.kind, Kind::Single { fields, .. } if fields.is_empty())
}

/// What decides: not to be superseded by another, the severity, the risk; the id at last.
fn rank(
    rules: &RuleSet,
    finding: &Finding,
    alerts: &[&Finding],
) -> (bool, Severity, u8, std::cmp::Reverse<Uuid>) {
    let supersedes = |other: &&Finding| {
        rules
            .rule(other.rule.id)
            .is_some_and(|rule| rule.supersedes.contains(&finding.rule.detection))
    };
    (
        !alerts.iter().any(supersedes),
        finding.severity,
        finding.risk_score,
        std::cmp::Reverse(finding.uid),
    )
}

//! The answer sheet: what was produced, when it became visible, and which findings are due.
//!
//! Records and due findings are written down by the generators and attack scripts themselves.
//! [`Sheet::judge`] compares findings somebody else made with what is due; it detects nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

/// One vendor record as the service would deliver it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Alias of the tenant.
    pub tenant: Arc<str>,
    /// `office365/<content type>` or `google_workspace/<application>`.
    pub stream: Arc<str>,
    /// Office 365 `Id`; Google `id.time/id.uniqueQualifier/id.applicationName`.
    pub id: String,
    /// The record, byte for byte.
    pub body: Bytes,
    /// When the event happened, Unix milliseconds.
    pub event_ms: i64,
    /// From when on a caller can get it, Unix milliseconds.
    pub visible_from_ms: i64,
    /// Until when a caller can get it, Unix milliseconds.
    pub listable_until_ms: i64,
    /// Number of `events[]` elements (1 for Office 365): a Splunk lane emits one event for each.
    pub elements: usize,
}

/// A finding a correct detector must raise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueFinding {
    /// Detection name.
    pub detection: String,
    /// Alias of the tenant.
    pub tenant: String,
    /// The script that caused it, or `ordinary life`.
    pub script: String,
    /// Who did it, and to whom, as text.
    pub entity: String,
    /// The entity the finding is keyed on, in lower case (a destination, a network address), where a
    /// detection may make several findings of the same records; else empty.
    pub keyed_on: String,
    /// Whether it counts records over a window (true) or tells of single ones (false), where the
    /// detection does both; `None` where it does not matter.
    pub counted: Option<bool>,
    /// The outside domain, where the detection makes one finding for each; else empty.
    pub external_domain: String,
    /// All event ids that belong to it.
    pub event_ids: Vec<String>,
    /// Event time of the first, Unix milliseconds.
    pub first_ms: i64,
    /// Event time of the last, Unix milliseconds.
    pub last_ms: i64,
    /// How many finding ids it may have: 2 when a burst crosses midnight UTC.
    pub ids_max: u8,
}

/// A finding somebody raised, reduced to what the sheet can judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFinding {
    /// Detection name.
    pub detection: String,
    /// Alias of the tenant.
    pub tenant: String,
    /// The finding's stable id.
    pub uid: String,
    /// Whom or what it is about, as the finding says; empty where that is not known.
    pub entity: String,
    /// Whether it counts records over a window; `None` where that is not known.
    pub counted: Option<bool>,
    /// The outside domain it is about; empty where it names none.
    pub external_domain: String,
    /// Event ids of its latest revision.
    pub event_ids: Vec<String>,
}

/// The outcome of a comparison. Everything but `met` is empty for a perfect detector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Due findings that were raised, with the ids they were raised under.
    pub met: Vec<(DueFinding, BTreeSet<String>)>,
    /// Due findings of which some event id stands in no finding of that detection.
    pub missing: Vec<DueFinding>,
    /// Due findings raised under more ids than allowed.
    pub split: Vec<(DueFinding, BTreeSet<String>)>,
    /// Findings of a detection the sheet knows that no due or tolerated record explains.
    pub unexpected: Vec<SeenFinding>,
}

/// The answer sheet of a world.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// All records, in order of tenant, stream and event time.
    pub records: Vec<Record>,
    /// The findings that are due.
    pub due: Vec<DueFinding>,
    /// `(detection, tenant, event id)` that may be raised without being due.
    pub tolerated: BTreeSet<(String, String, String)>,
}

/// The detections the scripts know; findings of others are not judged.
pub const DETECTIONS: [&str; 14] = [
    "gws.drive.external_share",
    "gws.drive.mass_share_external",
    "gws.drive.suspicious_sharing",
    "gws.drive.visibility_changed_external",
    "gws.mail.forwarding_external",
    "o365.ediscovery.export",
    "o365.ediscovery.export_alert",
    "o365.mail.forwarding_admin_multi",
    "o365.mail.forwarding_external",
    "o365.mail.forwarding_user_multi",
    "o365.mail.inbox_rule_forwarding",
    "o365.mail.mailbox_forwarding_enabled",
    "o365.mail.transport_rule_forwarding",
    "o365.sharepoint.mass_share_external",
];

impl DueFinding {
    /// The finding contradicts nothing the due finding states; it may leave things open.
    fn may_be(&self, seen: &SeenFinding) -> bool {
        self.stated(seen)
            .all(|(own, other)| other.is_none_or(|other| own.eq_ignore_ascii_case(other)))
    }

    /// The finding says all that the due finding states.
    fn surely_is(&self, seen: &SeenFinding) -> bool {
        self.stated(seen)
            .all(|(own, other)| other.is_some_and(|other| own.eq_ignore_ascii_case(other)))
    }

    /// What the due finding states, each beside what the other says of it, if anything.
    fn stated<'a>(
        &'a self,
        seen: &'a SeenFinding,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let yes_or_no = |counted: bool| if counted { "yes" } else { "no" };
        let text = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        [
            (text(&self.keyed_on), text(&seen.entity)),
            (text(&self.external_domain), text(&seen.external_domain)),
            (self.counted.map(yes_or_no), seen.counted.map(yes_or_no)),
        ]
        .into_iter()
        .filter_map(|(own, other)| Some((own?, other)))
    }
}

impl Sheet {
    /// Records of one stream, in event order: what `forward` and `replay` read from files.
    pub fn records_of<'a>(
        &'a self,
        tenant: &'a str,
        stream: &'a str,
    ) -> impl Iterator<Item = (&'a str, Bytes)> + 'a {
        self.records
            .iter()
            .filter(move |record| &*record.tenant == tenant && &*record.stream == stream)
            .map(|record| (record.id.as_str(), record.body.clone()))
    }

    /// All `(tenant, stream)` pairs that have records.
    pub fn streams(&self) -> BTreeSet<(Arc<str>, Arc<str>)> {
        let pair = |record: &Record| (record.tenant.clone(), record.stream.clone());
        self.records.iter().map(pair).collect()
    }

    /// Due findings all of whose events are visible at `now_ms`.
    pub fn due_at(&self, now_ms: i64) -> Vec<&DueFinding> {
        let visible: HashMap<&str, i64> = self
            .records
            .iter()
            .map(|r| (r.id.as_str(), r.visible_from_ms))
            .collect();
        let shown = |id: &String| visible.get(id.as_str()).is_some_and(|from| *from <= now_ms);
        self.due
            .iter()
            .filter(|due| due.event_ids.iter().all(shown))
            .collect()
    }

    /// Compares findings as they finally stand with what is due: every event of a due finding must
    /// stand in one. Detections the scripts do not know are left out.
    pub fn judge(&self, seen: &[SeenFinding]) -> Verdict {
        self.judged(seen, true)
    }

    /// Compares findings that may still grow with what is due: a due finding is met when some of
    /// its events stand in one, since a detector need not tell of every further event at once.
    pub fn judge_growing(&self, seen: &[SeenFinding]) -> Verdict {
        self.judged(seen, false)
    }

    fn judged(&self, seen: &[SeenFinding], whole: bool) -> Verdict {
        let mut by_event: BTreeMap<(&str, &str, &str), Vec<&SeenFinding>> = BTreeMap::new();
        for finding in seen {
            for id in &finding.event_ids {
                let key = (
                    finding.detection.as_str(),
                    finding.tenant.as_str(),
                    id.as_str(),
                );
                by_event.entry(key).or_default().push(finding);
            }
        }
        let mut verdict = Verdict::default();
        for due in &self.due {
            let mut matching: BTreeMap<&str, bool> = BTreeMap::new();
            let mut complete = true;
            for id in &due.event_ids {
                let key = (due.detection.as_str(), due.tenant.as_str(), id.as_str());
                let found = by_event.get(&key).into_iter().flatten().copied();
                let fitting: Vec<&SeenFinding> = found.filter(|seen| due.may_be(seen)).collect();
                complete &= !fitting.is_empty();
                matching.extend(
                    fitting
                        .iter()
                        .map(|seen| (seen.uid.as_str(), due.surely_is(seen))),
                );
            }
            let uids = matching.keys().map(|uid| (*uid).to_owned()).collect();
            let sure = matching.values().filter(|sure| **sure).count();
            let split = sure > usize::from(due.ids_max) || matching.len() > self.ids_allowed(due);
            let found = if whole {
                complete
            } else {
                !matching.is_empty()
            };
            match (found, split) {
                (false, _) => verdict.missing.push(due.clone()),
                (true, true) => verdict.split.push((due.clone(), uids)),
                (true, false) => verdict.met.push((due.clone(), uids)),
            }
        }
        verdict.unexpected = self.unexplained(seen);
        verdict
    }

    /// One record may be part of several due findings (a share with people of several domains):
    /// their ids together bound how many findings may name its events.
    fn ids_allowed(&self, due: &DueFinding) -> usize {
        let same = |other: &&DueFinding| {
            (&other.detection, &other.tenant) == (&due.detection, &due.tenant)
                && other.event_ids.iter().any(|id| due.event_ids.contains(id))
        };
        self.due
            .iter()
            .filter(same)
            .map(|other| usize::from(other.ids_max))
            .sum()
    }

    fn unexplained(&self, seen: &[SeenFinding]) -> Vec<SeenFinding> {
        let due: BTreeSet<(&str, &str, &str)> = self
            .due
            .iter()
            .flat_map(|due| {
                let key = |id| (due.detection.as_str(), due.tenant.as_str(), id);
                due.event_ids.iter().map(move |id| key(id.as_str()))
            })
            .collect();
        let explained = |finding: &SeenFinding, id: &String| {
            let key = (
                finding.detection.as_str(),
                finding.tenant.as_str(),
                id.as_str(),
            );
            let owned = || {
                (
                    finding.detection.clone(),
                    finding.tenant.clone(),
                    id.clone(),
                )
            };
            due.contains(&key) || self.tolerated.contains(&owned())
        };
        seen.iter()
            .filter(|finding| DETECTIONS.contains(&finding.detection.as_str()))
            .filter(|finding| {
                finding.event_ids.is_empty()
                    || !finding.event_ids.iter().all(|id| explained(finding, id))
            })
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(ids_max: u8) -> DueFinding {
        DueFinding {
            detection: "gws.drive.external_share".into(),
            tenant: "contoso".into(),
            script: "test".into(),
            entity: "a".into(),
            keyed_on: String::new(),
            counted: None,
            external_domain: String::new(),
            event_ids: vec!["1".into(), "2".into()],
            first_ms: 0,
            last_ms: 1,
            ids_max,
        }
    }

    fn seen(uid: &str, ids: &[&str]) -> SeenFinding {
        SeenFinding {
            detection: "gws.drive.external_share".into(),
            tenant: "contoso".into(),
            uid: uid.into(),
            entity: String::new(),
            counted: None,
            external_domain: String::new(),
            event_ids: ids.iter().map(|&id| id.into()).collect(),
        }
    }

    #[test]
    fn judging_tells_met_missing_split_and_unexpected_apart() {
        let sheet = |ids_max| Sheet {
            due: vec![due(ids_max)],
            ..Sheet::default()
        };
        assert_eq!(sheet(1).judge(&[seen("u", &["1", "2"])]).met.len(), 1);
        assert_eq!(sheet(1).judge(&[seen("u", &["1"])]).missing.len(), 1);
        let two = [seen("u", &["1"]), seen("v", &["2"])];
        assert_eq!(sheet(1).judge(&two).split.len(), 1);
        assert_eq!(sheet(2).judge(&two).met.len(), 1);
        let stray = [seen("u", &["1", "2"]), seen("w", &["3"])];
        assert_eq!(sheet(1).judge(&stray).unexpected.len(), 1);
    }

    #[test]
    fn one_record_may_be_due_for_several_domains_and_each_has_a_finding_of_its_own() {
        let of = |domain: &str| DueFinding {
            external_domain: domain.into(),
            ..due(1)
        };
        let sheet = Sheet {
            due: vec![of("a.example"), of("b.example")],
            ..Sheet::default()
        };
        let seen_of = |uid: &str, domain: &str| SeenFinding {
            external_domain: domain.into(),
            ..seen(uid, &["1", "2"])
        };
        let (a, b) = (seen_of("u", "a.example"), seen_of("v", "B.example"));
        assert_eq!(sheet.judge(&[a.clone(), b.clone()]).met.len(), 2);
        assert_eq!(
            sheet.judge(std::slice::from_ref(&a)).missing,
            [of("b.example")]
        );
        let third = seen_of("w", "b.example");
        assert_eq!(sheet.judge(&[a, b, third]).split[0].0, of("b.example"));
    }

    #[test]
    fn findings_of_the_same_records_are_told_apart_by_what_they_are_keyed_on_and_how_they_count() {
        let keyed = |entity: &str, counted| DueFinding {
            keyed_on: entity.into(),
            counted,
            ..due(1)
        };
        let dues = [
            keyed("x@a.example", Some(true)),
            keyed("203.0.113.9", Some(true)),
            keyed("", Some(false)),
        ];
        let sheet = Sheet {
            due: dues.to_vec(),
            ..Sheet::default()
        };
        let seen_of = |uid: &str, entity: &str, counted| SeenFinding {
            entity: entity.into(),
            counted: Some(counted),
            ..seen(uid, &["1", "2"])
        };
        let mut all = vec![
            seen_of("u", "X@a.example", true),
            seen_of("v", "203.0.113.9", true),
            seen_of("w", "alice", false),
        ];
        assert_eq!(sheet.judge(&all).met.len(), 3);
        for (left_out, missing) in dues.iter().enumerate() {
            let mut fewer = all.clone();
            fewer.remove(left_out);
            assert_eq!(sheet.judge(&fewer).missing, std::slice::from_ref(missing));
        }
        all.push(seen_of("z", "203.0.113.9", true));
        assert!(
            sheet
                .judge(&all)
                .split
                .iter()
                .any(|(due, _)| *due == dues[1])
        );
    }

    #[test]
    fn a_growing_finding_is_met_by_some_of_its_events() {
        let sheet = Sheet {
            due: vec![due(1)],
            ..Sheet::default()
        };
        let seen = [seen("u", &["1"])];
        assert_eq!(sheet.judge_growing(&seen).met.len(), 1);
        assert_eq!(sheet.judge_growing(&[]).missing.len(), 1);
    }
}

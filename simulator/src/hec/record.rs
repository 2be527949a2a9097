//! What the collector indexed, so that a test can ask: all of it, or ids only for long runs.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use serde_json::Value;

use crate::sheet::{SeenFinding, Sheet};

/// What to keep of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Envelope and body.
    Everything,
    /// Ids, hashes and counts; bodies of findings only.
    Ids,
}

/// One indexed event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Indexed {
    /// As in the envelope.
    pub sourcetype: Option<String>,
    /// As in the envelope.
    pub source: Option<String>,
    /// As in the envelope.
    pub host: Option<String>,
    /// As in the envelope.
    pub index: Option<String>,
    /// As in the envelope, as text.
    pub time: Option<String>,
    /// Indexed fields.
    pub fields: Option<Value>,
    /// The vendor's id, if the event is a vendor record: Office 365 `Id`, Google
    /// `time/uniqueQualifier/applicationName`.
    pub record_id: Option<String>,
    /// `finding_uid`, if the event is a finding.
    pub finding_uid: Option<String>,
    /// Hash of the event's bytes.
    pub hash: u64,
    /// Length of the event.
    pub bytes: usize,
    /// The event as it stood in the body; empty where only ids are kept.
    pub event: Bytes,
}

impl Indexed {
    /// An event without its envelope.
    pub(super) fn of_event(event: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        event.hash(&mut hasher);
        let parsed: Value = serde_json::from_slice(event).unwrap_or_default();
        let text = |pointer: &str| parsed.pointer(pointer).and_then(Value::as_str);
        let google = match (
            text("/id/time"),
            text("/id/uniqueQualifier"),
            text("/id/applicationName"),
        ) {
            (Some(time), Some(qualifier), Some(application)) => {
                Some(format!("{time}/{qualifier}/{application}"))
            }
            _ => None,
        };
        let finding_uid = text("/finding_uid").map(ToOwned::to_owned);
        let office365 = || text("/Id").map(ToOwned::to_owned);
        Self {
            record_id: google.or_else(office365),
            finding_uid,
            hash: hasher.finish(),
            bytes: event.len(),
            event: Bytes::copy_from_slice(event),
            ..Self::default()
        }
    }
}

/// Everything the collector indexed.
#[derive(Debug, Clone)]
pub struct Recorded {
    keep: Keep,
    /// Requests that were read, refused or not.
    pub requests: u64,
    /// Requests answered with an error after the body was read.
    pub refused: u64,
    /// Events by sourcetype.
    pub by_sourcetype: BTreeMap<String, u64>,
    /// The events, in order of arrival; findings only where only ids are kept.
    pub events: Vec<Indexed>,
    /// By vendor record: distinct bodies (hashes), each with the number of times it came.
    bodies: BTreeMap<String, BTreeMap<u64, u32>>,
}

impl Recorded {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            keep,
            requests: 0,
            refused: 0,
            by_sourcetype: BTreeMap::new(),
            events: Vec::new(),
            bodies: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, event: Indexed) {
        let sourcetype = event.sourcetype.clone().unwrap_or_default();
        *self.by_sourcetype.entry(sourcetype).or_default() += 1;
        if let Some(id) = &event.record_id {
            *self
                .bodies
                .entry(id.clone())
                .or_default()
                .entry(event.hash)
                .or_default() += 1;
        }
        if self.keep == Keep::Everything || event.finding_uid.is_some() {
            self.events.push(event);
        }
    }

    /// Number of events indexed.
    pub fn count(&self) -> u64 {
        self.by_sourcetype.values().sum()
    }

    /// Ids of vendor records that arrived at least once.
    pub fn record_ids(&self) -> BTreeSet<&str> {
        self.bodies.keys().map(String::as_str).collect()
    }

    /// Events that were the same bytes as an earlier event of the same record.
    pub fn duplicates(&self) -> u64 {
        let extra = |count: &u32| u64::from(count.saturating_sub(1));
        self.bodies
            .values()
            .flat_map(BTreeMap::values)
            .map(extra)
            .sum()
    }

    /// Ids of the sheet's records of which fewer distinct bodies arrived than there are: for
    /// Office 365 one a record, for Google one for each element of `events[]`.
    pub fn missing(&self, sheet: &Sheet) -> Vec<String> {
        let mut due: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &sheet.records {
            *due.entry(record.id.as_str()).or_default() += record.elements;
        }
        let arrived = |id: &str| self.bodies.get(id).map_or(0, BTreeMap::len);
        due.iter()
            .filter(|(id, count)| arrived(id) < **count)
            .map(|(id, _)| (*id).into())
            .collect()
    }

    /// Ids that arrived and that the sheet does not know.
    pub fn unknown(&self, sheet: &Sheet) -> Vec<String> {
        let known: BTreeSet<&str> = sheet.records.iter().map(|r| r.id.as_str()).collect();
        self.bodies
            .keys()
            .filter(|id| !known.contains(id.as_str()))
            .cloned()
            .collect()
    }

    /// Bodies of the findings, by `finding_uid`, in order of arrival.
    pub fn findings(&self) -> BTreeMap<&str, Vec<&Bytes>> {
        let mut found: BTreeMap<&str, Vec<&Bytes>> = BTreeMap::new();
        for event in &self.events {
            if let Some(uid) = &event.finding_uid {
                found.entry(uid).or_default().push(&event.event);
            }
        }
        found
    }

    /// Findings for [`Sheet::judge`]: the union of the event ids of all revisions of each, read
    /// from the OCSF document below `ocsf` (`unmapped.exfilwatch`), or from an event that is one.
    pub fn seen_findings(&self) -> Vec<SeenFinding> {
        self.findings()
            .into_iter()
            .filter_map(|(uid, bodies)| seen_finding(uid, &bodies))
            .collect()
    }
}

fn seen_finding(uid: &str, bodies: &[&Bytes]) -> Option<SeenFinding> {
    let mut seen: Option<SeenFinding> = None;
    for body in bodies {
        let parsed: Value = serde_json::from_slice(body).ok()?;
        let details = ["/ocsf/unmapped/exfilwatch", "/unmapped/exfilwatch"]
            .iter()
            .find_map(|pointer| parsed.pointer(pointer))?;
        let text = |name: &str| {
            let value = details
                .get(name)
                .or_else(|| parsed.get(name))
                .and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let ids = details.get("event_ids").and_then(Value::as_array);
        let ids = ids.into_iter().flatten().filter_map(Value::as_str);
        let finding = seen.get_or_insert_with(|| SeenFinding {
            detection: text("detection"),
            tenant: text("tenant"),
            uid: uid.to_owned(),
            entity: text("entity"),
            counted: Some(details.get("window_seconds").is_some()),
            external_domain: text("external_domain"),
            event_ids: Vec::new(),
        });
        for id in ids {
            if !finding.event_ids.iter().any(|known| known == id) {
                finding.event_ids.push(id.to_owned());
            }
        }
    }
    seen
}

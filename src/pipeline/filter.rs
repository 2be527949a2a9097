//! Which items go to a receiver, by what its configuration says of tenants, findings and records.
//!
//! Tenants are told by the header of a frame. The rest needs a look into each item, and where nothing is
//! asked of items none is taken.

use std::borrow::Cow;

use exfilwatch_connectors::records::google::GoogleRecords;
use exfilwatch_connectors::records::microsoft::Microsoft365Records;
use exfilwatch_emitters::FilterOptions;
use exfilwatch_model::{
    Domains, Envelope, Kind, LiveDomains, Patterns, Product, RawRecord, Severity, StreamId,
};
use serde::Deserialize;

use crate::pipeline::step::Readers;

/// What an emitter's filter and that of its route let through together.
#[derive(Debug, Clone, Default)]
pub struct ItemFilter {
    parts: Vec<Part>,
    /// Where operations are asked for.
    readers: Option<Readers>,
}

/// One of the filters.
#[derive(Debug, Clone)]
struct Part {
    tenants: Patterns,
    severity_min: Option<Severity>,
    detectors: Patterns,
    streams: Patterns,
    include: Patterns,
    exclude: Patterns,
}

/// What is looked at of a finding.
#[derive(Deserialize)]
struct FindingHead<'a> {
    severity: Severity,
    #[serde(borrow)]
    rule: RuleHead<'a>,
}

#[derive(Deserialize)]
struct RuleHead<'a> {
    #[serde(borrow)]
    detection: Cow<'a, str>,
}

impl ItemFilter {
    /// Lets through what all of the filters do.
    pub fn new(filters: &[&FilterOptions]) -> Self {
        let part = |options: &FilterOptions| Part {
            tenants: Patterns::new(&options.tenants),
            severity_min: options.severity_min,
            detectors: Patterns::new(&options.detectors),
            streams: Patterns::new(&options.streams),
            include: Patterns::new(&options.include),
            exclude: Patterns::new(&options.exclude),
        };
        let said = filters
            .iter()
            .filter(|options| ***options != FilterOptions::default());
        let parts: Vec<Part> = said.map(|options| part(options)).collect();
        let asks = !parts.iter().all(Part::takes_every_operation);
        Self {
            readers: asks.then(readers),
            parts,
        }
    }

    /// The tenants, one list for each filter.
    pub fn tenants(&self) -> Vec<Patterns> {
        let lists = self.parts.iter().map(|part| part.tenants.clone());
        lists.filter(|list| !list.is_empty()).collect()
    }

    /// Whether every record of a stream goes out.
    pub fn takes_all_of(&self, stream: &StreamId) -> bool {
        let name = format!("{}/{}", stream.connector(), stream.name());
        self.parts.iter().all(|part| {
            part.tenants.take(stream.tenant().as_str())
                && part.streams.take(&name)
                && part.takes_every_operation()
        })
    }

    /// Whether items of the kind need no look.
    pub fn passes_all(&self, kind: Kind) -> bool {
        self.parts.iter().all(|part| part.passes_all(kind))
    }

    /// Whether an item of a tenant that is taken goes out. What cannot be read does: the receiver may
    /// make more of it.
    pub fn takes(&self, item: &Envelope) -> bool {
        match item.kind {
            Kind::Internal => true,
            Kind::Findings | Kind::Signals => {
                let head = serde_json::from_slice::<FindingHead<'_>>(&item.payload);
                head.map_or(true, |head| {
                    self.parts.iter().all(|part| part.takes_finding(&head))
                })
            }
            Kind::Events => self.takes_record(item),
        }
    }

    fn takes_record(&self, item: &Envelope) -> bool {
        let stream = format!("{}/{}", item.stream.connector(), item.stream.name());
        if !self.parts.iter().all(|part| part.streams.take(&stream)) {
            return false;
        }
        let Some(readers) = &self.readers else {
            return true;
        };
        let record = RawRecord::new(item.payload.clone());
        let operations = readers.of(product_of(&item.stream)).operations(&record);
        let Ok(operations) = operations else {
            return true;
        };
        self.parts
            .iter()
            .all(|part| part.takes_operations(&operations))
    }
}

impl Part {
    fn passes_all(&self, kind: Kind) -> bool {
        match kind {
            Kind::Internal => true,
            Kind::Findings | Kind::Signals => {
                self.severity_min.is_none() && self.detectors.is_empty()
            }
            Kind::Events => self.streams.is_empty() && self.takes_every_operation(),
        }
    }

    fn takes_finding(&self, head: &FindingHead<'_>) -> bool {
        self.severity_min.is_none_or(|least| head.severity >= least)
            && self.detectors.take(&head.rule.detection)
    }

    fn takes_every_operation(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// A record without an operation is nobody's to leave out, and is not among those that are named.
    fn takes_operations(&self, operations: &[Cow<'_, str>]) -> bool {
        let wanted = |operation: &Cow<'_, str>| {
            self.include.take(operation)
                && (self.exclude.is_empty() || !self.exclude.take(operation))
        };
        match operations {
            [] => self.include.is_empty(),
            operations => operations.iter().any(wanted),
        }
    }
}

/// The product whose records a stream holds.
pub fn product_of(stream: &StreamId) -> Product {
    match stream.connector() {
        "google_workspace" => Product::GoogleWorkspace,
        _ => Product::M365,
    }
}

/// Operations do not depend on what is inside or outside.
fn readers() -> Readers {
    let domains = LiveDomains::from(Domains::default());
    Readers {
        m365: std::sync::Arc::new(Microsoft365Records::new(domains.clone())),
        google: std::sync::Arc::new(GoogleRecords::new(domains)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use serde_json::json;

    fn item(kind: Kind, stream: &str, payload: &serde_json::Value) -> Envelope {
        Envelope {
            kind,
            stream: stream.parse().unwrap(),
            id: "x".into(),
            time: None,
            fetched_at: DateTime::UNIX_EPOCH,
            payload: payload.to_string().into(),
        }
    }

    fn filter(options: serde_json::Value) -> ItemFilter {
        let options: FilterOptions = serde_json::from_value(options).unwrap();
        ItemFilter::new(&[&FilterOptions::default(), &options])
    }

    fn record(operation: &str) -> Envelope {
        let payload = json!({ "Id": "1", "Operation": operation });
        item(Kind::Events, "contoso/office365/Audit.SharePoint", &payload)
    }

    fn activity(operations: &[&str]) -> Envelope {
        let events: Vec<_> = operations
            .iter()
            .map(|name| json!({ "name": name }))
            .collect();
        let payload = json!({ "id": { "uniqueQualifier": "1" }, "events": events });
        item(Kind::Events, "contoso/google_workspace/drive", &payload)
    }

    fn finding(severity: &str, detection: &str) -> Envelope {
        let payload = json!({ "severity": severity, "rule": { "detection": detection } });
        item(
            Kind::Findings,
            "contoso/office365/Audit.SharePoint",
            &payload,
        )
    }

    #[test]
    fn records_are_told_by_operation_and_stream() {
        let quiet = filter(json!({ "exclude": ["FileAccessed", "view"] }));
        assert!(!quiet.takes(&record("FileAccessed")));
        assert!(quiet.takes(&record("FileDownloaded")));
        assert!(!quiet.takes(&activity(&["view"])));
        assert!(
            quiet.takes(&activity(&["view", "download"])),
            "for the download"
        );
        let few = filter(json!({ "include": ["File*", "!FilePreviewed"] }));
        assert!(few.takes(&record("FileAccessed")));
        assert!(!few.takes(&record("FilePreviewed")));
        assert!(!few.takes(&activity(&["view"])));
        assert!(!few.takes(&activity(&[])), "no operation is none of these");
        assert!(quiet.takes(&activity(&[])), "nor of those left out");
        let unreadable = item(Kind::Events, "contoso/office365/x", &json!(1));
        assert!(few.takes(&unreadable), "nobody knows what it is");
        let google = filter(json!({ "streams": ["google_workspace/*"] }));
        assert!(google.takes(&activity(&["view"])) && !google.takes(&record("FileAccessed")));
        assert!(
            google.takes(&finding("low", "a.b")),
            "findings are not records"
        );
    }

    #[test]
    fn all_records_of_a_stream_are_taken_where_no_filter_leaves_one_out() {
        let stream: StreamId = "contoso/office365/Audit.SharePoint".parse().unwrap();
        let all = |options| filter(options).takes_all_of(&stream);
        assert!(all(json!({})));
        assert!(all(
            json!({ "tenants": ["contoso"], "streams": ["office365/*"] })
        ));
        assert!(all(json!({ "severity_min": "high" })), "of findings");
        assert!(!all(json!({ "tenants": ["fabrikam"] })));
        assert!(!all(json!({ "streams": ["google_workspace/*"] })));
        assert!(!all(json!({ "exclude": ["FileAccessed"] })));
        assert!(!all(
            json!({ "tenants": ["contoso"], "include": ["File*"] })
        ));
    }

    #[test]
    fn findings_are_told_by_severity_and_detection() {
        let urgent = filter(json!({ "severity_min": "high", "detectors": ["o365.*"] }));
        assert!(urgent.takes(&finding("critical", "o365.mailbox.rule")));
        assert!(!urgent.takes(&finding("medium", "o365.mailbox.rule")));
        assert!(!urgent.takes(&finding("critical", "gws.drive.share")));
        assert!(
            urgent.takes(&record("FileAccessed")),
            "records are not findings"
        );
        let unreadable = item(Kind::Findings, "contoso/office365/x", &json!(1));
        assert!(urgent.takes(&unreadable));
    }

    #[test]
    fn where_nothing_is_asked_nothing_is_looked_at() {
        let all = filter(json!({}));
        assert!(Kind::ALL.iter().all(|kind| all.passes_all(*kind)));
        let some = filter(json!({ "tenants": ["a"], "severity_min": "low" }));
        assert!(!some.passes_all(Kind::Findings) && some.passes_all(Kind::Events));
        assert_eq!(some.tenants(), [Patterns::new(&["a"])]);
    }
}

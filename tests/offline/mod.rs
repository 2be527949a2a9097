//! An invented tenant's records through the real readers into an engine, as the pipeline takes them: look,
//! normalise what is wanted, detect.

use std::sync::Arc;

use chrono::DateTime;
use exfilwatch_connectors::RecordReader;
use exfilwatch_connectors::records::{GoogleRecords, Microsoft365Records};
use exfilwatch_detectors::{Engine, RuleSet};
use exfilwatch_model::{Domains, JobId, RawRecord, TenantId};
use exfilwatch_simulator::Record;
use exfilwatch_simulator::world::Tenant;

/// An engine, and the readers of one tenant's records.
pub(crate) struct Offline {
    pub(crate) engine: Engine,
    google: GoogleRecords,
    microsoft: Microsoft365Records,
}

impl Offline {
    pub(crate) fn new(rules: Arc<RuleSet>, tenant: &Tenant) -> Self {
        let domains = Arc::new(Domains::new(&tenant.internal_domains(), &[]));
        let id = TenantId::new(&tenant.alias).unwrap();
        Self {
            engine: Engine::new(rules, id, JobId::new("offline").unwrap()),
            google: GoogleRecords::new(domains.clone()),
            microsoft: Microsoft365Records::new(domains),
        }
    }

    pub(crate) fn observe(&mut self, record: &Record) {
        let reader: &dyn RecordReader = if record.stream.starts_with("office365/") {
            &self.microsoft
        } else {
            &self.google
        };
        let raw = RawRecord::new(record.body.clone());
        let operations = reader.operations(&raw).unwrap();
        if self.engine.wants(reader.product(), &operations) {
            for event in reader.normalise(&raw, DateTime::UNIX_EPOCH).unwrap() {
                self.engine.observe(&event);
            }
        }
    }
}

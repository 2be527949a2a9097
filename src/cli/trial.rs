//! A trial: rules run over records, for their findings only. Nothing is kept or sent.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_detectors::{Counters, Engine, RuleSet};
use exfilwatch_model::{Finding, JobId, NameError, Product, RawRecord, TenantId};
use uuid::Uuid;

use crate::pipeline::step::Readers;

/// What was read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    /// Of them, what some rule wanted to see.
    pub(crate) wanted: u64,
    pub(crate) malformed: u64,
}

/// What was found. One is large, and they are put in order.
pub(crate) type Found = Vec<Box<Finding>>;

/// The rules of one tenant, at work.
#[derive(Debug)]
pub(crate) struct Trial {
    engine: Engine,
    rules: Arc<RuleSet>,
    readers: Readers,
    /// Stands in for the time of fetching.
    now: DateTime<Utc>,
    pub(crate) totals: Totals,
    /// The last word on each finding. Boxed: they are many, large, and put in order at the end.
    findings: HashMap<Uuid, Box<Finding>>,
}

impl Trial {
    pub(crate) fn new(
        tenant: TenantId,
        rules: Arc<RuleSet>,
        readers: Readers,
        now: DateTime<Utc>,
    ) -> Result<Self, NameError> {
        Ok(Self {
            engine: Engine::new(rules.clone(), tenant, JobId::new("replay")?),
            rules,
            readers,
            now,
            totals: Totals::default(),
            findings: HashMap::new(),
        })
    }

    /// Shows the rules a record.
    pub(crate) fn observe(&mut self, product: Product, record: &RawRecord) {
        self.totals.records += 1;
        let reader = self.readers.of(product);
        let Ok(operations) = reader.operations(record) else {
            return;
        };
        let (product, text) = (reader.product(), record.bytes());
        if !(self.rules).wants_record(product, &operations, text, reader) {
            return;
        }
        let fields = self.rules.fields(product, &operations);
        match reader.normalise_for(record, self.now, &fields) {
            Ok(events) => {
                self.totals.wanted += 1;
                for event in &events {
                    self.engine.observe(event);
                }
            }
            Err(error) => {
                self.totals.malformed += 1;
                tracing::warn!(%error, "a record was left out");
            }
        }
    }

    /// Takes up what was found, now and then, so that the evidence is at hand.
    pub(crate) fn collect(&mut self) {
        // Nothing is kept, so nobody else takes the changes of memory away.
        self.engine.drop_changes();
        let found = self.engine.collect(self.now);
        let boxed = |finding: Finding| (finding.uid, Box::new(finding));
        self.findings.extend(found.into_iter().map(boxed));
    }

    /// What the detectors remember, and which bounds were hit.
    pub(crate) fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// All findings, by time.
    pub(crate) fn finish(mut self) -> Found {
        self.collect();
        self.engine.settle(DateTime::<Utc>::MAX_UTC);
        self.collect();
        let mut findings: Found = self.findings.into_values().collect();
        findings.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        findings
    }
}

/// No two findings have the same place.
fn order(finding: &Finding) -> (DateTime<Utc>, &str, Uuid) {
    (finding.trip_time, &finding.rule.detection, finding.uid)
}

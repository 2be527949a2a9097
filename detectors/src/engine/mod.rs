//! The engine: all detectors of one tenant and one job.
//!
//! Events go in by `observe`; `collect` gives the findings they touch, once per page. Pure: the
//! time comes in as an argument, and memory goes out as small changes for the commit.

mod act;
mod baseline;
mod block;
mod condition;
mod delta;
mod entry;
pub(crate) mod explain;
mod finding;
mod further;
mod history;
mod incident;
mod ledger;
mod memory;
mod novelty;
pub(crate) mod period;
mod quotes;
mod series;
mod shown;
pub(crate) mod sigma;
mod single;
mod stored;
mod trailing;
mod window;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Event, Finding, JobId, Product, TenantId, field};

use crate::contract::{BadState, Baseline, Counters, Detector, StateChange};
use crate::native;
use crate::rules::{Kind, Rule, RuleSet};
pub(crate) use baseline::DAY_MS;
pub(crate) use entry::{SEPARATOR, View};
pub(crate) use finding::Scope;
use incident::Incidents;
use memory::{Bounds, Share};
pub use shown::Shown;
use single::Single;
use window::Windows;

/// All detectors of one tenant and one job.
#[derive(Debug)]
pub struct Engine {
    rules: Arc<RuleSet>,
    /// In the order of the rule set's index: rules, then native detectors.
    detectors: Vec<Box<dyn Detector>>,
    places: HashMap<String, usize>,
    found: Vec<usize>,
    /// Detectors that hear what the others find.
    listeners: Vec<usize>,
    /// Stored values of detectors that are gone, to be taken away.
    orphans: Vec<(String, StateChange)>,
    orphan_entries: u64,
    /// What the detectors' windows take of the memory that the process has for them.
    share: Share,
    bounds: Bounds,
}

impl Engine {
    /// An engine without memory.
    pub fn new(rules: Arc<RuleSet>, tenant: TenantId, job: JobId) -> Self {
        let scope = Scope { tenant, job };
        let mut detectors: Vec<Box<dyn Detector>> = Vec::with_capacity(rules.rules().len());
        for place in 0..rules.rules().len() {
            detectors.push(detector(&rules, place, &scope));
        }
        for native in native::REGISTRY {
            detectors.push((native.build)(&scope.tenant, &scope.job));
        }
        let places = detectors
            .iter()
            .map(|d| d.id().to_owned())
            .zip(0..)
            .collect();
        let listens = |rule: &Rule| matches!(rule.kind, Kind::Incident { .. });
        let listeners = (0..)
            .zip(rules.rules())
            .filter_map(|(place, rule)| listens(rule).then_some(place))
            .collect();
        Self {
            rules,
            detectors,
            places,
            found: Vec::new(),
            listeners,
            orphans: Vec::new(),
            orphan_entries: 0,
            share: Share::default(),
            bounds: Bounds::default(),
        }
    }

    /// The rules it runs.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Whether some detector wants a record with these operations.
    pub fn wants(&self, product: Product, operations: &[Cow<'_, str>]) -> bool {
        self.rules.wants(product, operations)
    }

    /// Shows an event to the detectors that may want it. The same event again changes nothing.
    pub fn observe(&mut self, event: &Event) {
        let operation = event.text(field::OPERATION).unwrap_or_default();
        let mut found = std::mem::take(&mut self.found);
        self.rules
            .index()
            .find(event.product, &operation, &mut found);
        let shown = Shown::new(event);
        for place in &found {
            if let Some(detector) = self.detectors.get_mut(*place) {
                detector.observe(&shown);
            }
        }
        self.found = found;
    }

    /// The findings of all that was touched since the last call, as they stand now, revision 1.
    /// Called once per page.
    pub fn collect(&mut self, fetched_at: DateTime<Utc>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for detector in &mut self.detectors {
            detector.collect(fetched_at, &mut findings);
        }
        act::one_alert_each(&self.rules, &mut findings);
        // Those that listen say something of what the others have found; nobody listens to them.
        for listener in &self.listeners {
            if let Some(detector) = self.detectors.get_mut(*listener) {
                for finding in findings.iter().filter(|one| counts(&self.rules, one)) {
                    detector.hear(finding);
                }
            }
        }
        for listener in &self.listeners {
            if let Some(detector) = self.detectors.get_mut(*listener) {
                detector.collect(fetched_at, &mut findings);
            }
        }
        self.hold_memory();
        findings
    }

    /// Holds the bound on what the windows of all tenants and jobs remember: the detector that remembers
    /// most forgets its oldest hours.
    fn hold_memory(&mut self) {
        self.tell_memory();
        while self.share.is_beyond(self.bounds) {
            let largest = self.detectors.iter_mut().max_by_key(|one| one.bytes());
            if !largest.is_some_and(|largest| largest.shed()) {
                return;
            }
            self.tell_memory();
        }
    }

    fn tell_memory(&mut self) {
        self.share
            .set(self.detectors.iter().map(|one| one.bytes()).sum());
    }

    /// Says that everything before an instant has come, but for what is late
    /// ([`Detector::settle`]). At the end of what is bounded: [`DateTime::MAX_UTC`].
    pub fn settle(&mut self, until: DateTime<Utc>) {
        for detector in &mut self.detectors {
            detector.settle(until);
        }
    }

    /// The findings that become final with this watermark, as they finally stand. Called before
    /// [`Engine::evict`] with the same watermark.
    pub fn close(&self, watermark: DateTime<Utc>, fetched_at: DateTime<Utc>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for detector in &self.detectors {
            detector.close(watermark, fetched_at, &mut findings);
        }
        findings
    }

    /// Forgets what no event at or after `watermark` can still change.
    pub fn evict(&mut self, watermark: DateTime<Utc>) {
        for detector in &mut self.detectors {
            detector.evict(watermark);
        }
    }

    /// Changes of memory since the last call, each with the id of its detector.
    pub fn drain_changes(&mut self) -> Vec<(String, StateChange)> {
        let mut changes = std::mem::take(&mut self.orphans);
        for detector in &mut self.detectors {
            let of_one = detector.drain_changes();
            changes.extend(
                of_one
                    .into_iter()
                    .map(|change| (detector.id().to_owned(), change)),
            );
        }
        changes
    }

    /// The same where nobody stores them.
    pub fn drop_changes(&mut self) {
        self.orphans.clear();
        for detector in &mut self.detectors {
            detector.drop_changes();
        }
    }

    /// Whether a detector of this id is one of its.
    pub fn runs(&self, detector: &str) -> bool {
        self.places.contains_key(detector)
    }

    /// Puts a stored value back. What belongs to a detector that is gone is counted, and taken
    /// away by the next [`Engine::drain_changes`].
    pub fn restore(&mut self, detector: &str, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        let place = self.places.get(detector).copied();
        if let Some(known) = place.and_then(|place| self.detectors.get_mut(place)) {
            return known.restore(key, value);
        }
        self.orphan_entries += 1;
        let change = StateChange {
            key: key.to_vec(),
            value: None,
        };
        self.orphans.push((detector.to_owned(), change));
        Ok(())
    }

    /// What is known of the past, each with the id of its detector: another line can learn it by
    /// [`Engine::restore`], at any time.
    pub fn past(&self) -> Vec<(String, StateChange)> {
        let mut past = Vec::new();
        let mut of_one = Vec::new();
        for detector in &self.detectors {
            detector.past(&mut of_one);
            past.extend(
                of_one
                    .drain(..)
                    .map(|fact| (detector.id().to_owned(), fact)),
            );
        }
        past
    }

    /// What is known of the past by each detector that measures events against it, by detection.
    pub fn baselines(&self) -> Vec<Baseline> {
        self.detectors
            .iter()
            .filter_map(|one| one.baseline())
            .collect()
    }

    /// Takes in what a detector of another job remembers, as if its events had been observed here.
    /// What belongs to no detector of ours is left out.
    pub fn absorb(&mut self, detector: &str, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        let place = self.places.get(detector).copied();
        match place.and_then(|place| self.detectors.get_mut(place)) {
            Some(known) => known.absorb(key, value),
            None => Ok(()),
        }
    }

    /// What all detectors remember, and which bounds were hit.
    pub fn counters(&self) -> Counters {
        let mut all = Counters {
            outdated_entries: self.orphan_entries,
            ..Counters::default()
        };
        for detector in &self.detectors {
            all += detector.counters();
        }
        all
    }
}

/// What is agreed, or only tried, is no part of an incident.
fn counts(rules: &RuleSet, finding: &Finding) -> bool {
    let rule = rules.rule(finding.rule.id);
    finding.suppressed.is_none() && !rule.is_some_and(|rule| rule.tuned.is_shadow)
}

/// The detector of a rule.
pub(crate) fn detector(rules: &Arc<RuleSet>, place: usize, scope: &Scope) -> Box<dyn Detector> {
    let kind = rules.at(place).map(|rule| &rule.kind);
    let (rules, scope) = (Arc::clone(rules), scope.clone());
    match kind {
        Some(Kind::Incident { .. }) => Box::new(Incidents::new(rules, place, scope)),
        Some(Kind::Window { .. }) => Box::new(Windows::new(rules, place, scope)),
        Some(Kind::Single { .. }) | None => Box::new(Single::new(rules, place, scope)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::SourceFile;
    use chrono::TimeDelta;

    /// Shares of so many minutes, one each; what is remembered of them within some bounds.
    fn remembered(minutes: i64, bounds: Bounds) -> (Counters, usize) {
        let file = SourceFile {
            name: "rules.yml".into(),
            text: include_str!("../../tests/common/rules.yml").into(),
        };
        let rules = Arc::new(RuleSet::from_files(&[file], &[], &[]).unwrap());
        let mut engine = Engine::new(rules, TenantId::new("corp").unwrap(), JobId::live());
        engine.bounds = bounds;
        for minute in 0..minutes {
            let time = DateTime::UNIX_EPOCH + TimeDelta::minutes(minute);
            let id = format!("r{minute}").into();
            let product = Product::GoogleWorkspace;
            let mut event = Event::new(product, id, 0, time, bytes::Bytes::new());
            event.set("operation", "change_user_access");
            event.set("actor", "alice@corp.example");
            event.set("target", format!("t{minute}@x.example"));
            event.set("external_domain", "x.example");
            event.set("is_external", true);
            engine.observe(&event);
            if minute % 100 == 0 {
                drop(engine.collect(time));
            }
        }
        drop(engine.collect(DateTime::UNIX_EPOCH));
        let mut counters = Counters::default();
        let windows = engine.detectors.iter().filter(|one| one.bytes() > 0);
        windows.for_each(|one| counters += one.counters());
        (
            counters,
            engine.detectors.iter().map(|one| one.bytes()).sum(),
        )
    }

    #[test]
    fn where_memory_is_short_the_oldest_hours_go_and_that_is_counted() {
        let (all, bytes) = remembered(1_200, Bounds::default());
        assert_eq!(all.shed_entries, 0);
        let bounds = Bounds {
            process_bytes: 0,
            own_bytes: bytes / 2,
        };
        let (some, bytes) = remembered(1_200, bounds);
        assert!(bytes <= bounds.own_bytes);
        assert!(some.shed_entries > 0 && some.entries > all.entries / 4);
        assert_eq!(some.entries + some.shed_entries, all.entries);
    }
}

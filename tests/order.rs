//! What is found depends on the set of records alone: for every rule, the records of all its cases as one
//! history, in any order, over any restarts, and read twice, give the same findings.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_connectors::RecordReader;
use exfilwatch_connectors::records::{GoogleRecords, Microsoft365Records};
use exfilwatch_detectors::{DetectorsOptions, Engine, Pack, RuleSet, cases};
use exfilwatch_model::{Domains, Event, Finding, JobId, Product, RawRecord, TenantId};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use uuid::Uuid;

/// Most events of a rule: bursts of thousands say no more about order than those of hundreds.
const EVENTS_MAX: usize = 1_500;

static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
    let options = DetectorsOptions {
        packs: Pack::ALL.to_vec(),
        ..DetectorsOptions::default()
    };
    Arc::new(RuleSet::load(&options).unwrap())
});

/// What happened, and what an engine that reads it in order finds.
struct History {
    detection: String,
    events: Vec<Event>,
    found: Found,
}

impl History {
    fn new(detection: &str, events: Vec<Event>) -> Self {
        Self {
            detection: detection.to_owned(),
            found: in_order(&events),
            events,
        }
    }

    fn is_told(&self) -> bool {
        let own = format!("{} ", self.detection);
        self.found.values().any(|said| said.starts_with(&own))
    }
}

/// A history of each detection out of all its cases. Where that says nothing, since one case is the past
/// of another that the rule learns from, a history of each case too.
static HISTORIES: LazyLock<Vec<History>> = LazyLock::new(|| {
    let mut cases: BTreeMap<&str, Vec<Vec<Event>>> = BTreeMap::new();
    for rule in RULES.rules() {
        let of_detection = cases.entry(&rule.facts.detection).or_default();
        for case in rule.tests.iter() {
            let events = cases::events(rule, case, &mut read).unwrap();
            let events = events.into_iter().map(|event| of_case(event, &case.name));
            of_detection.push(events.take(EVENTS_MAX).collect());
        }
    }
    let mut histories = Vec::new();
    for (detection, cases) in cases {
        let all = cases.concat().into_iter().take(EVENTS_MAX).collect();
        let whole = History::new(detection, all);
        if !whole.is_told() {
            let alone = cases.into_iter().map(|case| History::new(detection, case));
            histories.extend(alone);
        }
        histories.push(whole);
    }
    histories
});

fn read(product: Product, bytes: &[u8], domains: &Domains) -> Result<Vec<Event>, String> {
    let domains = Arc::new(domains.clone());
    let reader: Box<dyn RecordReader> = match product {
        Product::M365 => Box::new(Microsoft365Records::new(domains)),
        Product::GoogleWorkspace => Box::new(GoogleRecords::new(domains)),
    };
    let record = RawRecord::new(Bytes::copy_from_slice(bytes));
    let events = reader.normalise(&record, DateTime::UNIX_EPOCH);
    events.map_err(|error| error.to_string())
}

/// Cases use the same ids; in one history they are different records.
fn of_case(mut event: Event, case: &str) -> Event {
    event.record_id = format!("{}/{case}", event.record_id).into();
    event
}

/// Everything a finding says but when it was fetched and as what revision.
type Found = BTreeMap<Uuid, String>;

fn note(found: &mut Found, findings: Vec<Finding>) {
    for finding in findings {
        let mut ids = finding.event_ids.clone();
        ids.sort();
        let said = format!(
            "{} {} {} {} {:?} {} {} {} {ids:?}",
            finding.rule.detection,
            finding.entity,
            finding.count,
            finding.alert,
            finding.severity,
            finding.first_time,
            finding.last_time,
            finding.incident_uid,
        );
        found.insert(finding.uid, said);
    }
}

fn engine() -> Engine {
    let tenant = TenantId::new("order").unwrap();
    Engine::new(RULES.clone(), tenant, JobId::new("order").unwrap())
}

fn in_order(events: &[Event]) -> Found {
    let mut engine = engine();
    let mut found = Found::new();
    for event in events {
        engine.observe(event);
    }
    engine.settle(DateTime::<Utc>::MAX_UTC);
    note(&mut found, engine.collect(DateTime::UNIX_EPOCH));
    found
}

/// In pages of some events each; after every third page the engine is made anew from what it had stored.
fn in_pages(events: &[&Event], page: usize) -> Found {
    let mut engine = engine();
    let mut found = Found::new();
    let mut stored: BTreeMap<(String, Vec<u8>), Vec<u8>> = BTreeMap::new();
    for (number, events) in events.chunks(page).enumerate() {
        for event in events {
            engine.observe(event);
        }
        note(&mut found, engine.collect(DateTime::UNIX_EPOCH));
        for (detector, change) in engine.drain_changes() {
            let key = (detector, change.key);
            match change.value {
                Some(value) => stored.insert(key, value),
                None => stored.remove(&key),
            };
        }
        if number % 3 == 2 {
            engine = self::engine();
            for ((detector, key), value) in &stored {
                engine.restore(detector, key, value).unwrap();
            }
        }
    }
    engine.settle(DateTime::<Utc>::MAX_UTC);
    note(&mut found, engine.collect(DateTime::UNIX_EPOCH));
    found
}

#[test]
fn every_rule_finds_something_in_its_history() {
    let mut told: BTreeMap<&str, bool> = BTreeMap::new();
    for history in HISTORIES.iter() {
        *told.entry(&history.detection).or_default() |= history.is_told();
    }
    let silent: Vec<&str> = told
        .iter()
        .filter(|(_, told)| !**told)
        .map(|(name, _)| *name)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
    println!("{} detections, {} histories", told.len(), HISTORIES.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_restarts_and_repetition_change_nothing(seed: u64, page in 1_usize..60) {
        for History { detection, events, found: wanted } in HISTORIES.iter() {
            let mut shuffled: Vec<&Event> = events.iter().collect();
            shuffled.shuffle(&mut StdRng::seed_from_u64(seed));
            let again = shuffled.clone();
            shuffled.extend(again);
            let page = page.max(events.len() / 20);
            prop_assert_eq!(&in_pages(&shuffled, page), wanted, "{}", detection);
        }
    }
}

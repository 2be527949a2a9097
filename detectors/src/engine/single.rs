//! Rules that look at one event at a time.
//!
//! Each record is a finding, or the records that share the values of the identity's fields (and
//! period) are one; later records update it.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::identity::normal_entity;
use exfilwatch_model::{Event, Finding};

use super::entry::{Entry, EntryId, key_of};
use super::finding::{Material, Scope};
use super::ledger::Ledger;
use super::period;
use super::quotes::Quotes;
use crate::contract::{BadState, Counters, Detector, Interest, StateChange};
use crate::rules::{Kind, Need, Rule, RuleSet};

/// A single-record rule at work for one tenant and job.
#[derive(Debug)]
pub(crate) struct Single {
    rules: Arc<RuleSet>,
    place: usize,
    id: String,
    scope: Scope,
    ledger: Ledger,
    quotes: Quotes,
    dirty: BTreeSet<String>,
}

impl Single {
    pub(crate) fn new(rules: Arc<RuleSet>, place: usize, scope: Scope) -> Self {
        let rule = rules.rules().get(place);
        Self {
            id: rule
                .map(|rule| rule.facts.id.to_string())
                .unwrap_or_default(),
            ledger: Ledger::new(rule.map_or(0, |rule| rule.layout.fingerprint)),
            rules,
            place,
            scope,
            quotes: Quotes::default(),
            dirty: BTreeSet::new(),
        }
    }

    fn finding(&self, rule: &Rule, key: &str, fetched_at: DateTime<Utc>) -> Option<Finding> {
        let entries = self.ledger.entries(key, i64::MIN, i64::MAX);
        Material {
            rule,
            scope: &self.scope,
            quotes: &self.quotes,
            entries: &entries,
            trip: 0,
            level: rule.level,
            tier: None,
            // The key says all, and stays the same whichever record comes first.
            uid_entity: "",
            uid_scope: key,
            fetched_at,
        }
        .finding()
    }
}

/// What tells findings of the rule apart: the record, or the identity's values and the period.
fn key(event: &Event, fields: &[String], period_ms: Option<i64>) -> String {
    let mut parts: Vec<String> = fields
        .iter()
        .map(|name| {
            event
                .text(name)
                .map(|text| normal_entity(&text))
                .unwrap_or_default()
        })
        .collect();
    if parts.iter().all(String::is_empty) {
        parts = vec![event.record_id.to_string()];
    }
    if let Some(period_ms) = period_ms {
        parts.push(period::number(event.time.timestamp_millis(), period_ms).to_string());
    }
    key_of(&parts)
}

impl Detector for Single {
    fn id(&self) -> &str {
        &self.id
    }

    fn wants(&self) -> Interest {
        interest(&self.rules, self.place)
    }

    fn observe(&mut self, event: &Event) {
        let Some(rule) = self.rules.rules().get(self.place) else {
            return;
        };
        let Kind::Single {
            matcher,
            fields,
            period_ms,
        } = &rule.kind
        else {
            return;
        };
        if !matcher.matches(event) {
            return;
        }
        if is_late(rule, &self.ledger, event) {
            self.ledger.count_late();
            return;
        }
        let key = key(event, fields, *period_ms);
        let entry = Entry::new(event, &rule.layout, 0, rule.flags(event));
        self.quotes.put(&event.record_id, &event.raw);
        if self.ledger.insert(&key, EntryId::new(&key, event), entry) {
            self.dirty.insert(key);
        }
    }

    fn collect(&mut self, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let dirty = std::mem::take(&mut self.dirty);
        if let Some(rule) = self.rules.rules().get(self.place) {
            out.extend(
                dirty
                    .iter()
                    .filter_map(|key| self.finding(rule, key, fetched_at)),
            );
        }
        self.quotes.close_page();
    }

    fn close(&self, watermark: DateTime<Utc>, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let Some(rule) = self.rules.rules().get(self.place) else {
            return;
        };
        let watermark_ms = watermark.timestamp_millis();
        let before_ms = period::final_before_ms(rule, watermark_ms);
        let done_ms = self
            .ledger
            .watermark_ms()
            .map_or(i64::MIN, |known_ms| period::final_before_ms(rule, known_ms));
        let mut keys: Vec<_> = self.ledger.touched(done_ms, before_ms);
        keys.dedup_by(|(one, _), (other, _)| one == other);
        for (key, _) in keys {
            // Hops are coarser than the watermark: a key is closed when its last event is passed.
            let last_ms = self
                .ledger
                .entries(&key, i64::MIN, i64::MAX)
                .last()
                .map(|(id, _)| id.time_ms);
            if last_ms.is_some_and(|last_ms| (done_ms..before_ms).contains(&last_ms)) {
                out.extend(self.finding(rule, &key, fetched_at));
            }
        }
    }

    fn evict(&mut self, watermark: DateTime<Utc>) {
        let Some(rule) = self.rules.rules().get(self.place) else {
            return;
        };
        let watermark_ms = watermark.timestamp_millis();
        self.ledger
            .evict(watermark_ms, period::keep_from_ms(rule, watermark_ms));
    }

    fn drain_changes(&mut self) -> Vec<StateChange> {
        self.ledger.drain()
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        self.ledger.restore(key, value).map_err(|reason| BadState {
            detector: self.id.clone(),
            reason,
        })
    }

    fn counters(&self) -> Counters {
        self.ledger.counters()
    }
}

/// What a rule wants.
pub(crate) fn interest(rules: &RuleSet, place: usize) -> Interest {
    let nothing = || Interest {
        product: None,
        operations: vec![String::new()],
        need: Need::Nothing,
    };
    rules
        .rules()
        .get(place)
        .map_or_else(nothing, |rule| rule.interest.clone())
}

/// Whether all that an event could belong to is final.
pub(crate) fn is_late(rule: &Rule, ledger: &Ledger, event: &Event) -> bool {
    let keep_from_ms = ledger
        .watermark_ms()
        .map(|at| period::keep_from_ms(rule, at));
    keep_from_ms.is_some_and(|keep_from_ms| event.time.timestamp_millis() < keep_from_ms)
}

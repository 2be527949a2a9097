//! Rules that look at one event at a time.
//!
//! Each record is a finding, or the records that share the values of the identity's fields (and
//! period) are one; later records update it. A rule may ask that some values of the event are new.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Event, Finding};

use super::baseline::KIND_ORIGIN;
use super::entry::{Entry, EntryId, SEPARATOR, Values, hash_of, key_of};
use super::finding::{Material, Scope};
use super::ledger::Ledger;
use super::novelty::{KIND_DAY, Novelty};
use super::period;
use super::quotes::Quotes;
use super::shown::Shown;
use crate::contract::{BadState, Baseline, Counters, Detector, Interest, StateChange};
use crate::rules::{FirstSeen, Kind, Rule, RuleSet};

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
    novelty: Novelty,
    /// Everything before it has come. Not stored: told again soon after a restart.
    settled_ms: i64,
}

impl Single {
    pub(crate) fn new(rules: Arc<RuleSet>, place: usize, scope: Scope) -> Self {
        let rule = rules.at(place);
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
            novelty: Novelty::default(),
            settled_ms: i64::MIN,
        }
    }

    fn finding(&self, rule: &Rule, key: &str, fetched_at: DateTime<Utc>) -> Option<Finding> {
        let mut entries = self.ledger.entries(key, i64::MIN, i64::MAX);
        if let Some(rule) = first_seen(rule) {
            entries.retain(|(time_ms, entry)| self.is_new(rule, *time_ms, entry));
        }
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

impl Single {
    /// Whether an event is told as the first of its values.
    fn is_new(&self, rule: &FirstSeen, time_ms: i64, entry: &Entry) -> bool {
        time_ms < self.settled_ms
            && self.novelty.origin.is_learned(rule.learn_ms, time_ms)
            && self.novelty.is_first(rule, entry.value, time_ms)
    }
}

fn first_seen(rule: &Rule) -> Option<&FirstSeen> {
    match &rule.kind {
        Kind::Single { first_seen, .. } => first_seen.as_ref(),
        Kind::Window { .. } | Kind::Incident { .. } => None,
    }
}

/// The value of an event that is to be new; `None` where it lacks a part.
fn new_value(event: &Event, fields: &[String]) -> Option<u64> {
    let values = Values::of(event, fields);
    (values.missing == 0).then(|| hash_of(&key_of(values.text)))
}

/// What tells findings of the rule apart: the record, or the identity's values and the period.
fn key(event: &Event, fields: &[String], period_ms: Option<i64>) -> String {
    let values = Values::of(event, fields);
    let mut parts = if values.empty == fields.len() {
        event.record_id.to_string()
    } else {
        values.text
    };
    if let Some(period_ms) = period_ms {
        let number = period::number(event.time.timestamp_millis(), period_ms);
        parts.push(SEPARATOR);
        parts.push_str(&number.to_string());
    }
    key_of(parts)
}

impl Detector for Single {
    fn id(&self) -> &str {
        &self.id
    }

    fn wants(&self) -> Vec<Interest> {
        interests(&self.rules, self.place)
    }

    fn observe(&mut self, shown: &Shown<'_>) {
        let event = shown.event;
        let Some(rule) = self.rules.at(self.place) else {
            return;
        };
        let Kind::Single {
            matcher,
            fields,
            period_ms,
            first_seen,
        } = &rule.kind
        else {
            return;
        };
        if !matcher.matches(event) {
            return;
        }
        let mut value = 0;
        if let Some(new) = first_seen {
            let Some(known) = new_value(event, &new.fields) else {
                return;
            };
            value = known;
            let time_ms = event.time.timestamp_millis();
            self.novelty.note(value, time_ms);
            let is_told = new.told.as_ref().is_none_or(|told| told.matches(event));
            if !is_told || !self.novelty.is_first(new, value, time_ms) {
                return;
            }
        }
        if is_late(rule, &self.ledger, event.time.timestamp_millis()) {
            self.ledger.count_late();
            return;
        }
        let key = key(event, fields, *period_ms);
        let entry = Entry::new(event, &rule.layout, value, rule.flags(event));
        self.quotes.put(shown);
        if self.ledger.insert(&key, EntryId::new(&key, event), &entry) {
            self.dirty.insert(key);
        }
    }

    fn settle(&mut self, until: DateTime<Utc>) {
        let until_ms = until.timestamp_millis();
        let rule = self.rules.at(self.place);
        if until_ms <= self.settled_ms || rule.and_then(first_seen).is_none() {
            return;
        }
        let touched = self.ledger.touched(self.settled_ms, until_ms);
        self.dirty.extend(touched.map(|(key, _)| key.to_owned()));
        self.settled_ms = until_ms;
    }

    fn collect(&mut self, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let dirty = std::mem::take(&mut self.dirty);
        if let Some(rule) = self.rules.at(self.place) {
            out.extend(
                dirty
                    .iter()
                    .filter_map(|key| self.finding(rule, key, fetched_at)),
            );
        }
        self.quotes.close_page();
    }

    fn close(&self, watermark: DateTime<Utc>, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let Some(rule) = self.rules.at(self.place) else {
            return;
        };
        let watermark_ms = watermark.timestamp_millis();
        let before_ms = period::final_before_ms(rule, watermark_ms);
        let done_ms = self
            .ledger
            .watermark_ms()
            .map_or(i64::MIN, |known_ms| period::final_before_ms(rule, known_ms));
        // Hops are coarser than the watermark: a key is closed when its last event is passed.
        let is_due = |key: &str| {
            let moments = self.ledger.moments(key, i64::MIN, i64::MAX);
            let last_ms = moments.last().map(|moment| moment.time_ms);
            last_ms.is_some_and(|last_ms| (done_ms..before_ms).contains(&last_ms))
        };
        let touched = self.ledger.touched(done_ms, before_ms);
        let due: BTreeSet<&str> = touched
            .map(|(key, _)| key)
            .filter(|key| is_due(key))
            .collect();
        out.extend(
            due.into_iter()
                .filter_map(|key| self.finding(rule, key, fetched_at)),
        );
    }

    fn evict(&mut self, watermark: DateTime<Utc>) {
        let Some(rule) = self.rules.at(self.place) else {
            return;
        };
        let watermark_ms = watermark.timestamp_millis();
        let keep_from_ms = period::keep_from_ms(rule, watermark_ms);
        self.ledger.evict(watermark_ms, keep_from_ms);
        if let Some(rule) = first_seen(rule) {
            self.novelty.evict(rule, keep_from_ms);
        }
    }

    fn drain_changes(&mut self) -> Vec<StateChange> {
        let mut changes = self.ledger.drain();
        self.novelty.drain(&mut changes);
        changes
    }

    fn drop_changes(&mut self) {
        self.ledger.drop_changes();
        self.novelty.drop_changes();
    }

    fn past(&self, out: &mut Vec<StateChange>) {
        self.novelty.past(out);
    }

    fn baseline(&self) -> Option<Baseline> {
        let rule = self.rules.at(self.place)?;
        first_seen(rule)?;
        self.novelty.origin.baseline(rule, self.novelty.values())
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        let restored = match key {
            [KIND_DAY, day @ ..] => self.novelty.restore(day, value).ok_or_else(cut),
            [KIND_ORIGIN] => self.novelty.origin.restore(value).ok_or_else(cut),
            _ => self.ledger.restore(key, value),
        };
        restored.map_err(|reason| BadState {
            detector: self.id.clone(),
            reason,
        })
    }

    fn absorb(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        let bad = |reason| BadState {
            detector: self.id.clone(),
            reason,
        };
        let foreign = self.ledger.foreign(key, value).map_err(bad)?;
        let (Some((key, id, entry)), Some(rule)) = (foreign, self.rules.at(self.place)) else {
            return Ok(());
        };
        if !is_late(rule, &self.ledger, id.time_ms) && self.ledger.insert(&key, id, &entry) {
            self.dirty.insert(key);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.ledger.bytes()
    }

    fn shed(&mut self) -> bool {
        self.ledger.shed()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.ledger.counters();
        counters.entries += self.novelty.len() as u64;
        counters.shed_entries += self.novelty.shed;
        counters
    }
}

/// What is wrong with a value of the past that has the wrong length.
pub(super) fn cut() -> String {
    "a value of the past is cut".to_owned()
}

/// What a rule wants.
pub(crate) fn interests(rules: &RuleSet, place: usize) -> Vec<Interest> {
    let rule = rules.at(place);
    rule.map(|rule| rule.interests.clone()).unwrap_or_default()
}

/// Whether all that an event could belong to is final.
pub(crate) fn is_late(rule: &Rule, ledger: &Ledger, time_ms: i64) -> bool {
    let keep_from_ms = ledger
        .watermark_ms()
        .map(|at| period::keep_from_ms(rule, at));
    keep_from_ms.is_some_and(|keep_from_ms| time_ms < keep_from_ms)
}

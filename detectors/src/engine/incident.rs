//! Findings about one person that together say more than each: of two families, two tactics and two
//! records at least, with enough risk within a span.
//!
//! It hears the findings of the other detectors, signals too, in both clouds. A finding counts in every
//! hour from its first event to its last: those only grow while events come in, whatever their order,
//! so what was said stays true. (The event at which a window was met can move.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::identity::normal_entity;
use exfilwatch_model::{
    Evidence, Finding, MessagePart, Mode, Provenance, Severity, field, finding_uid,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entry::{cut, hash_of};
use super::finding::{Scope, span};
use super::ledger::HOP_MS;
use super::period;
use super::shown::Shown;
use super::single::interests;
use crate::contract::{BadState, Counters, Detector, Interest, StateChange};
use crate::rules::{Kind, Rule, RuleSet, Tier};

/// Most findings remembered of one person; the earliest go.
const FACTS_MAX: usize = 200;
/// Most findings remembered of all; those of the person with the earliest go.
const ALL_FACTS_MAX: usize = 100_000;
/// Records of a finding that are remembered.
const RECORDS_MAX: usize = 3;
/// Longest text remembered, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Names that the message shows.
const SHOWN_MAX: usize = 5;
/// First byte of a key in the store.
const KIND_FACT: u8 = b'i';
/// The key of the watermark.
const KIND_WATERMARK: u8 = b'w';

/// What is remembered of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fact {
    person: String,
    detection: String,
    tactics: BTreeSet<String>,
    records: Vec<String>,
    stream: String,
    first_ms: i64,
    last_ms: i64,
    risk: u8,
    /// Events of the finding.
    #[serde(default)]
    count: u64,
}

impl Fact {
    fn of(person: &str, finding: &Finding) -> Self {
        let records = finding.event_ids.iter().take(RECORDS_MAX);
        Self {
            person: person.to_owned(),
            detection: cut(&finding.rule.detection, TEXT_BYTES_MAX).to_owned(),
            tactics: finding.rule.tactics.iter().take(10).cloned().collect(),
            records: records
                .map(|id| cut(id, TEXT_BYTES_MAX).to_owned())
                .collect(),
            stream: finding.stream.clone(),
            first_ms: finding.first_time.timestamp_millis(),
            last_ms: finding.last_time.timestamp_millis(),
            risk: finding.risk_score,
            count: finding.count,
        }
    }

    /// Detections of one family look at one thing: `o365.mail`.
    fn family(&self) -> &str {
        self.detection
            .rsplit_once('.')
            .map_or(self.detection.as_str(), |(family, _)| family)
    }
}

/// The rule at work for one tenant and job.
#[derive(Debug)]
pub(crate) struct Incidents {
    rules: Arc<RuleSet>,
    place: usize,
    id: String,
    scope: Scope,
    people: BTreeMap<String, BTreeMap<Uuid, Fact>>,
    facts: usize,
    dirty: BTreeSet<(String, i64)>,
    changes: BTreeMap<(u64, Uuid), Option<String>>,
    watermark_ms: Option<i64>,
    watermark_changed: bool,
    counters: Counters,
}

impl Incidents {
    pub(crate) fn new(rules: Arc<RuleSet>, place: usize, scope: Scope) -> Self {
        let rule = rules.at(place);
        Self {
            id: rule
                .map(|rule| rule.facts.id.to_string())
                .unwrap_or_default(),
            rules,
            place,
            scope,
            people: BTreeMap::new(),
            facts: 0,
            dirty: BTreeSet::new(),
            changes: BTreeMap::new(),
            watermark_ms: None,
            watermark_changed: false,
            counters: Counters::default(),
        }
    }

    fn rule(&self) -> Option<(&Rule, &[Tier], i64)> {
        let rule = self.rules.at(self.place)?;
        match &rule.kind {
            Kind::Incident { tiers, period_ms } => Some((rule, tiers, *period_ms)),
            Kind::Single { .. } | Kind::Window { .. } => None,
        }
    }

    fn put(&mut self, uid: Uuid, fact: &Fact) {
        let person = fact.person.clone();
        let known = self.people.entry(person.clone()).or_default();
        if known.get(&uid) == Some(fact) {
            return;
        }
        let old = known.insert(uid, fact.clone());
        self.facts += usize::from(old.is_none());
        self.changes
            .insert((hash_of(&person), uid), Some(person.clone()));
        self.touch(&person, fact.first_ms, fact.last_ms);
        self.hold(&person);
    }

    /// The periods of all windows that hold some of a span.
    fn touch(&mut self, person: &str, first_ms: i64, last_ms: i64) {
        let Some((rule, _, period_ms)) = self.rule() else {
            return;
        };
        let until_ms = last_ms.saturating_add(period::longest_span_ms(rule));
        let numbers = period::number(first_ms, period_ms)..=period::number(until_ms, period_ms);
        self.dirty
            .extend(numbers.map(|number| (person.to_owned(), number)));
    }

    fn hold(&mut self, person: &str) {
        if self
            .people
            .get(person)
            .is_some_and(|facts| facts.len() > FACTS_MAX)
        {
            self.shed_earliest_of(&person.to_owned());
        }
        if self.facts > ALL_FACTS_MAX {
            let earliest = |facts: &BTreeMap<Uuid, Fact>| facts.values().map(|f| f.last_ms).min();
            let first = self.people.iter().min_by_key(|(_, facts)| earliest(facts));
            if let Some(person) = first.map(|(person, _)| person.clone()) {
                self.shed_earliest_of(&person);
            }
        }
    }

    fn shed_earliest_of(&mut self, person: &String) {
        let facts = self.people.get(person);
        let earliest = facts.and_then(|facts| {
            let by_time = |(uid, fact): &(&Uuid, &Fact)| (fact.last_ms, **uid);
            facts.iter().min_by_key(by_time).map(|(uid, _)| *uid)
        });
        if let Some(uid) = earliest {
            self.remove(person, uid);
            self.counters.shed_entries += 1;
        }
    }

    fn remove(&mut self, person: &String, uid: Uuid) {
        let Some(facts) = self.people.get_mut(person) else {
            return;
        };
        if facts.remove(&uid).is_some() {
            self.facts -= 1;
            self.changes.insert((hash_of(person), uid), None);
        }
        if facts.is_empty() {
            self.people.remove(person);
        }
    }

    fn finding(&self, (person, number): (&str, i64), fetched_at: DateTime<Utc>) -> Option<Finding> {
        let (rule, tiers, period_ms) = self.rule()?;
        let mut facts: Vec<&Fact> = self.people.get(person)?.values().collect();
        facts.sort_by(|a, b| by_time(a).cmp(&by_time(b)));
        let from_ms = period::start_ms(number, period_ms);
        let hours = active_hours(&facts, from_ms, from_ms.saturating_add(period_ms));
        let met = tiers.iter().find_map(|tier| {
            let windows = hours.iter().map(|hour| within(&facts, *hour, tier.span_ms));
            let mut enough = windows.filter(|window| is_enough(window, tier.threshold));
            let first = enough.next()?;
            let trip_ms = first.iter().map(|fact| fact.first_ms).max()?;
            let mut all = first;
            for window in enough {
                all.extend(window);
            }
            Some((tier, trip_ms, all))
        });
        let (tier, trip_ms, all) = met?;
        let facts: Vec<&Fact> = facts
            .into_iter()
            .filter(|fact| all.iter().any(|known| std::ptr::eq(*known, *fact)))
            .collect();
        Some(self.told(rule, tier, (person, number), &facts, trip_ms, fetched_at))
    }

    fn told(
        &self,
        rule: &Rule,
        tier: &Tier,
        (person, number): (&str, i64),
        facts: &[&Fact],
        trip_ms: i64,
        fetched_at: DateTime<Utc>,
    ) -> Finding {
        let tenant = self.scope.tenant.clone();
        let kind = rule.entity_type.as_str();
        let uid = finding_uid(&tenant, rule.facts.id, kind, person, &number.to_string());
        let names: BTreeSet<&str> = facts.iter().map(|fact| fact.detection.as_str()).collect();
        let tactics: BTreeSet<String> = facts.iter().flat_map(|f| f.tactics.clone()).collect();
        let mut event_ids: Vec<String> = Vec::new();
        for id in facts.iter().flat_map(|fact| &fact.records) {
            if !event_ids.contains(id) {
                event_ids.push(id.clone());
            }
        }
        let list = |texts: &BTreeSet<&str>| texts.iter().map(|&text| text.to_owned()).collect();
        let values = BTreeMap::from([
            ("detection".to_owned(), list(&names)),
            ("tactic".to_owned(), tactics.into_iter().collect()),
        ]);
        let first_ms = facts.iter().map(|fact| fact.first_ms).min();
        let last_ms = facts.iter().map(|fact| fact.last_ms).max();
        let last_time = time(last_ms.unwrap_or(trip_ms));
        let provenance = Provenance {
            message: message(person, &names, tier),
            target: None,
            entity: Some(field::ACTOR.to_owned()),
        };
        let would_alert = rule.alerts_by_itself();
        let suppressed = rule.suppression_of(would_alert, person, last_time);
        Finding {
            uid,
            incident_uid: uid,
            tenant,
            rule: Arc::clone(&rule.facts),
            stream: facts.first().map(|f| f.stream.clone()).unwrap_or_default(),
            alert: would_alert && suppressed.is_none(),
            suppressed,
            severity: rule.severity(tier.level, 0, 0),
            risk_score: risk_of(facts),
            mode: Mode::from(&self.scope.job),
            revision: 1,
            update_reason: None,
            entity_type: rule.entity_type.clone(),
            entity: person.to_owned(),
            message: provenance.message(),
            // Grows with every record of every finding, so that the last word has all that came.
            count: facts.iter().map(|fact| fact.count).sum(),
            event_ids,
            first_time: time(first_ms.unwrap_or(trip_ms)),
            last_time,
            trip_time: time(trip_ms),
            fetched_at,
            user: Some(person.to_owned()),
            src: None,
            target: None,
            external_domain: None,
            values,
            matched: BTreeMap::new(),
            threshold: Some(tier.threshold),
            window_seconds: Some(tier.span_ms / 1_000),
            evidence: facts
                .iter()
                .take(SHOWN_MAX)
                .map(|fact| evidence(fact))
                .collect(),
            provenance,
        }
    }
}

/// Whether all events of a finding of the rule have one actor, whatever events come.
fn is_about_one(rule: &Rule) -> bool {
    let is_actor = |name: &String| name == field::ACTOR;
    match &rule.kind {
        Kind::Single { fields, .. } => fields.is_empty() || fields.iter().any(is_actor),
        Kind::Window { bases, .. } => bases.iter().all(|base| base.key.iter().any(is_actor)),
        Kind::Incident { .. } => false,
    }
}

/// Findings by time; of one time in an order of their own.
fn by_time(fact: &Fact) -> (i64, &str, &[String]) {
    (fact.first_ms, &fact.detection, &fact.records)
}

fn hour_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOP_MS)
}

/// The hours of a period in which some finding is active.
fn active_hours(facts: &[&Fact], from_ms: i64, until_ms: i64) -> BTreeSet<i64> {
    let hours = |fact: &&Fact| {
        let first = hour_of(fact.first_ms.max(from_ms));
        first..=hour_of(fact.last_ms.min(until_ms - 1))
    };
    facts.iter().flat_map(hours).collect()
}

/// What was active in the hours of a span that ends with one.
fn within<'a>(facts: &[&'a Fact], hour: i64, span_ms: i64) -> Vec<&'a Fact> {
    let from = hour - span_ms / HOP_MS;
    let is_inside = |fact: &&&Fact| hour_of(fact.last_ms) > from && hour_of(fact.first_ms) <= hour;
    facts.iter().filter(is_inside).copied().collect()
}

/// Two families of different tactics, two records, and enough risk.
fn is_enough(facts: &[&Fact], least: u64) -> bool {
    let mut families: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
    for fact in facts {
        let tactics = families.entry(fact.family()).or_default();
        tactics.extend(&fact.tactics);
    }
    let tactics: BTreeSet<&BTreeSet<&String>> = families.values().collect();
    let records: BTreeSet<&String> = facts.iter().flat_map(|fact| &fact.records).collect();
    tactics.len() >= 2 && records.len() >= 2 && risk_sum(facts) >= least
}

/// The risk of each detection once: ten shares are not ten times one.
fn risk_sum(facts: &[&Fact]) -> u64 {
    let mut risks: BTreeMap<&str, u8> = BTreeMap::new();
    for fact in facts {
        let risk = risks.entry(&fact.detection).or_default();
        *risk = (*risk).max(fact.risk);
    }
    risks.values().map(|risk| u64::from(*risk)).sum()
}

fn risk_of(facts: &[&Fact]) -> u8 {
    u8::try_from(risk_sum(facts).min(100)).unwrap_or(100)
}

fn message(person: &str, names: &BTreeSet<&str>, tier: &Tier) -> Vec<MessagePart> {
    let shown: Vec<&str> = names.iter().copied().take(SHOWN_MAX).collect();
    let more = names.len() - shown.len();
    let list = shown.join(", ");
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let (kinds, window) = (names.len(), span(tier.span_ms));
    vec![
        MessagePart::Values {
            field: field::ACTOR.to_owned(),
            shown: vec![person.to_owned()],
            more: 0,
        },
        MessagePart::Text(format!(
            ": {kinds} detections of different kinds within {window}: {list}{rest}"
        )),
    ]
}

fn evidence(fact: &Fact) -> Evidence {
    Evidence {
        event_id: fact.records.first().cloned().unwrap_or_default(),
        time: time(fact.first_ms),
        operation: fact.detection.clone(),
        record: None,
    }
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

fn key_of(hash: u64, uid: Uuid) -> Vec<u8> {
    let mut key = vec![KIND_FACT];
    key.extend_from_slice(&hash.to_be_bytes());
    key.extend_from_slice(uid.as_bytes());
    key
}

impl Detector for Incidents {
    fn id(&self) -> &str {
        &self.id
    }

    fn wants(&self) -> Vec<Interest> {
        interests(&self.rules, self.place)
    }

    fn observe(&mut self, _shown: &Shown<'_>) {}

    fn hear(&mut self, finding: &Finding) {
        let rule = self.rules.rule(finding.rule.id);
        let user = finding
            .user
            .as_deref()
            .filter(|_| rule.is_some_and(is_about_one));
        let Some(person) = user.map(normal_entity) else {
            return;
        };
        let person = cut(&person, TEXT_BYTES_MAX).to_owned();
        if person.is_empty() || finding.severity == Severity::Informational {
            return;
        }
        let keep_from_ms = self.watermark_ms.and_then(|at| {
            let (rule, ..) = self.rule()?;
            Some(period::keep_from_ms(rule, at))
        });
        if keep_from_ms.is_some_and(|from| finding.last_time.timestamp_millis() < from) {
            self.counters.late_events += 1;
            return;
        }
        self.put(finding.uid, &Fact::of(&person, finding));
    }

    fn settle(&mut self, _until: DateTime<Utc>) {}

    fn collect(&mut self, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let dirty = std::mem::take(&mut self.dirty);
        let open = self.watermark_ms.and_then(|at| {
            let (_, _, period_ms) = self.rule()?;
            Some(period::number(at, period_ms))
        });
        for (person, number) in &dirty {
            if open.is_none_or(|open| *number >= open) {
                out.extend(self.finding((person, *number), fetched_at));
            }
        }
    }

    fn close(&self, watermark: DateTime<Utc>, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let Some((_, _, period_ms)) = self.rule() else {
            return;
        };
        let until = period::number(watermark.timestamp_millis(), period_ms);
        let done = self.watermark_ms.map(|at| period::number(at, period_ms));
        for (person, facts) in &self.people {
            let numbers = |fact: &Fact| {
                let first = period::number(fact.first_ms, period_ms);
                first..=period::number(fact.last_ms, period_ms)
            };
            let numbers: BTreeSet<i64> = facts
                .values()
                .flat_map(numbers)
                .filter(|number| *number < until && done.is_none_or(|done| *number >= done))
                .collect();
            out.extend(
                numbers
                    .into_iter()
                    .filter_map(|number| self.finding((person, number), fetched_at)),
            );
        }
    }

    fn evict(&mut self, watermark: DateTime<Utc>) {
        let watermark_ms = watermark.timestamp_millis();
        if self.watermark_ms.is_some_and(|known| known >= watermark_ms) {
            return;
        }
        let Some((rule, ..)) = self.rule() else {
            return;
        };
        let keep_from_ms = period::keep_from_ms(rule, watermark_ms);
        self.watermark_ms = Some(watermark_ms);
        self.watermark_changed = true;
        let old: Vec<(String, Uuid)> = self
            .people
            .iter()
            .flat_map(|(person, facts)| {
                let old = facts.iter().filter(|(_, f)| f.last_ms < keep_from_ms);
                old.map(|(uid, _)| (person.clone(), *uid))
            })
            .collect();
        for (person, uid) in old {
            self.remove(&person, uid);
        }
    }

    fn drain_changes(&mut self) -> Vec<StateChange> {
        let mut drained = Vec::new();
        for ((hash, uid), person) in std::mem::take(&mut self.changes) {
            let fact = person.and_then(|person| self.people.get(&person)?.get(&uid));
            drained.push(StateChange {
                key: key_of(hash, uid),
                value: fact.and_then(|fact| serde_json::to_vec(fact).ok()),
            });
        }
        if std::mem::take(&mut self.watermark_changed) {
            drained.push(StateChange {
                key: vec![KIND_WATERMARK],
                value: self.watermark_ms.map(|at| at.to_be_bytes().to_vec()),
            });
        }
        drained
    }

    fn past(&self, _out: &mut Vec<StateChange>) {}

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        let bad = |reason: &str| BadState {
            detector: self.id.clone(),
            reason: reason.to_owned(),
        };
        match key {
            [KIND_WATERMARK] => {
                let bytes = value
                    .try_into()
                    .map_err(|_| bad("a watermark has 8 bytes"))?;
                self.watermark_ms = Some(i64::from_be_bytes(bytes));
            }
            [KIND_FACT, rest @ ..] => {
                let uid = rest.get(8..).and_then(|uid| Uuid::from_slice(uid).ok());
                let uid = uid.ok_or_else(|| bad("a key of a finding has 25 bytes"))?;
                let fact: Fact = serde_json::from_slice(value)
                    .map_err(|_| bad("what is remembered of a finding is cut"))?;
                self.facts += 1;
                self.people
                    .entry(fact.person.clone())
                    .or_default()
                    .insert(uid, fact);
            }
            _ => return Err(bad("a key of an unknown kind")),
        }
        Ok(())
    }

    /// It hears the findings that the other detectors' absorbed events give, and needs no more.
    fn absorb(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), BadState> {
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters {
            entries: self.facts as u64,
            keys: self.people.len() as u64,
            ..self.counters
        }
    }
}

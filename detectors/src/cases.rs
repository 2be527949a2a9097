//! The cases in rule files: raw vendor records in, expected findings out.
//!
//! A case exercises reader and rule together. The reader lives elsewhere, so it comes in as a
//! closure.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{
    Domains, Event, Finding, JobId, Lists, NameError, Product, TenantId, field,
};
use serde_json::Value;
use uuid::Uuid;

use crate::contract::Interest;
use crate::engine::{Engine, Scope, detector};
use crate::rules::{Case, Expectation, Kind, Repeat, Rule, RuleSet};

/// Domains of the tenant in a case that names none.
const INTERNAL_DOMAIN: &str = "corp.example";

/// Turns the bytes of a raw record into events, given product and domains; or says why not.
pub type ReadRecord<'a> = dyn FnMut(Product, &[u8], &Domains) -> Result<Vec<Event>, String> + 'a;

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseOutcome {
    /// The rule.
    pub rule: Uuid,
    /// Its detection name.
    pub detection: String,
    /// Its file.
    pub file: String,
    /// The case.
    pub case: String,
    /// What was expected and what was found instead; `None` when the case passed.
    pub failure: Option<String>,
}

/// Runs the cases of all rules.
pub fn run(rules: &Arc<RuleSet>, read: &mut ReadRecord<'_>) -> Result<Vec<CaseOutcome>, NameError> {
    let scope = Scope {
        tenant: TenantId::new("case")?,
        job: JobId::new("case")?,
    };
    let mut outcomes = Vec::new();
    for (place, rule) in rules.rules().iter().enumerate() {
        for case in rule.tests.iter() {
            let found = findings(rules, place, rule, &scope, case, read);
            let failure = match found {
                Ok(found) => difference(&case.expect, &found),
                Err(problem) => Some(problem),
            };
            outcomes.push(CaseOutcome {
                rule: rule.facts.id,
                detection: rule.facts.detection.clone(),
                file: rule.file.clone(),
                case: case.name.clone(),
                failure,
            });
        }
    }
    Ok(outcomes)
}

fn findings(
    rules: &Arc<RuleSet>,
    place: usize,
    rule: &Rule,
    scope: &Scope,
    case: &Case,
    read: &mut ReadRecord<'_>,
) -> Result<Vec<Finding>, String> {
    let events = events(rule, case, read)?;
    Ok(match rule.kind {
        Kind::Incident { .. } => found_by_all(rules, rule, scope, &events),
        Kind::Single { .. } | Kind::Window { .. } => found_by_one(rules, place, scope, &events),
    })
}

/// The events of a case, in the order of its records.
pub fn events(rule: &Rule, case: &Case, read: &mut ReadRecord<'_>) -> Result<Vec<Event>, String> {
    let internal = case.internal_domains.clone();
    let internal = internal.unwrap_or_else(|| vec![INTERNAL_DOMAIN.to_owned()]);
    let lists = Lists::new(case.people.clone(), case.apps.clone());
    let domains = Domains::new(&internal, &case.partners).with_lists(Arc::new(lists));
    let mut events = Vec::new();
    for (record, number) in records(case)?.iter().zip(1..) {
        let product = product_of(rule, record);
        let of_record = read(product, record.to_string().as_bytes(), &domains)
            .map_err(|reason| format!("record {number} cannot be read: {reason}"))?;
        events.extend(of_record);
    }
    Ok(events)
}

/// Whose record it is. Of a rule over both products, Google's are known by their `id`.
fn product_of(rule: &Rule, record: &Value) -> Product {
    let of_other = |interest: &Interest| interest.product != Some(rule.facts.product);
    if rule.interests.iter().any(of_other) || rule.interests.is_empty() {
        let is_google = record.pointer("/id/applicationName").is_some();
        if is_google {
            Product::GoogleWorkspace
        } else {
            Product::M365
        }
    } else {
        rule.facts.product
    }
}

/// What a rule alone says of events.
fn found_by_one(
    rules: &Arc<RuleSet>,
    place: usize,
    scope: &Scope,
    events: &[Event],
) -> Vec<Finding> {
    let mut detector = detector(rules, place, scope);
    let mut wanted = Vec::new();
    for event in events {
        let operation = event.text(field::OPERATION).unwrap_or_default();
        rules.index().find(event.product, &operation, &mut wanted);
        if wanted.contains(&place) {
            detector.observe(event);
        }
    }
    let mut found = Vec::new();
    detector.settle(DateTime::<Utc>::MAX_UTC);
    detector.collect(DateTime::<Utc>::UNIX_EPOCH, &mut found);
    found
}

/// What a rule that listens to the others says.
fn found_by_all(
    rules: &Arc<RuleSet>,
    rule: &Rule,
    scope: &Scope,
    events: &[Event],
) -> Vec<Finding> {
    let mut engine = Engine::new(Arc::clone(rules), scope.tenant.clone(), scope.job.clone());
    for event in events {
        engine.observe(event);
    }
    engine.settle(DateTime::<Utc>::MAX_UTC);
    let mut found = engine.collect(DateTime::<Utc>::UNIX_EPOCH);
    found.retain(|finding| finding.rule.id == rule.facts.id);
    found
}

/// The records of a case, the repeated ones written out.
fn records(case: &Case) -> Result<Vec<Value>, String> {
    let mut records = case.records.clone();
    if let Some(repeat) = &case.repeat {
        if repeat.count > Repeat::COUNT_MAX {
            return Err(format!("repeat.count is above {}", Repeat::COUNT_MAX));
        }
        for i in 0..repeat.count {
            records.push(repeated(repeat, i)?);
        }
    }
    Ok(records)
}

fn repeated(repeat: &Repeat, i: usize) -> Result<Value, String> {
    let mut record = repeat.record.clone();
    for (pointer, text) in &repeat.vary {
        set(&mut record, pointer, text.replace("{i}", &i.to_string()))?;
    }
    if let Some(vary) = &repeat.vary_time {
        let time = vary
            .at(i)
            .ok_or_else(|| format!("vary_time.start {:?} is no time", vary.start))?;
        set(&mut record, &vary.pointer, time)?;
    }
    Ok(record)
}

fn set(record: &mut Value, pointer: &str, text: String) -> Result<(), String> {
    let place = record.pointer_mut(pointer);
    let place = place.ok_or_else(|| format!("the record has nothing at {pointer:?}"))?;
    *place = Value::String(text);
    Ok(())
}

/// What is not as expected; `None` when all is.
fn difference(expect: &Expectation, found: &[Finding]) -> Option<String> {
    let is_each = |is: &dyn Fn(&Finding) -> bool| found.iter().all(is);
    let is_one = |is: &dyn Fn(&Finding) -> bool| found.iter().any(is);
    let is_as_expected = found.len() == expect.findings
        && expect
            .severity
            .is_none_or(|s| is_each(&|f| f.severity == s))
        && expect.alert.is_none_or(|a| is_each(&|f| f.alert == a))
        && expect.count.is_none_or(|c| is_one(&|f| f.count == c))
        && expect
            .entity
            .as_ref()
            .is_none_or(|e| is_one(&|f| f.entity == *e));
    if is_as_expected {
        return None;
    }
    let expected = [
        Some(format!("{} findings", expect.findings)),
        expect.severity.map(|s| format!("severity {}", s.as_str())),
        expect.alert.map(|alert| format!("alert {alert}")),
        expect
            .entity
            .as_ref()
            .map(|entity| format!("entity {entity}")),
        expect.count.map(|count| format!("count {count}")),
    ];
    let expected: Vec<String> = expected.into_iter().flatten().collect();
    let got: Vec<String> = found.iter().map(shown).collect();
    let (expected, got) = (expected.join(", "), got.join("; "));
    Some(format!("expected {expected}; found {}: {got}", found.len()))
}

fn shown(finding: &Finding) -> String {
    format!(
        "severity {}, alert {}, entity {}, count {}",
        finding.severity.as_str(),
        finding.alert,
        finding.entity,
        finding.count
    )
}

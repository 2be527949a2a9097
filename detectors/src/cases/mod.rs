//! The cases in rule files: raw vendor records in, expected findings out.
//!
//! A case exercises reader and rule together. The reader lives elsewhere, so it comes in as a
//! closure.

mod explain;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{
    Domains, Event, Finding, JobId, Lists, NameError, Place, Places, Product, TenantId, field,
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::contract::Interest;
use crate::engine::{Engine, Scope, Shown, detector};
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
    pub failure: Option<Failure>,
}

/// Why a case failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What is not as expected, field by field of `expect`.
    pub differences: Vec<Difference>,
    /// What in the rule and the records led to that, a sentence each.
    pub reasons: Vec<String>,
}

/// A field of `expect` that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field.
    pub field: &'static str,
    /// What the case expects.
    pub expected: String,
    /// What was found.
    pub got: String,
}

impl Failure {
    /// The case could not be tried at all.
    fn of_problem(problem: String) -> Self {
        Self {
            differences: Vec::new(),
            reasons: vec![problem],
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differences = self.differences.iter().map(|difference| {
            let Difference {
                field,
                expected,
                got,
            } = difference;
            format!("{field}: expected {expected}, got {got}")
        });
        let lines: Vec<String> = differences.chain(self.reasons.iter().cloned()).collect();
        f.write_str(&lines.join("\n"))
    }
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
            let failure = match seen(rule, case, read) {
                Ok(events) => {
                    let found = findings(rules, place, rule, &scope, &events);
                    let differences = differences(&case.expect, &found);
                    (!differences.is_empty()).then(|| Failure {
                        reasons: explain::reasons(rule, &case.expect, &found, &events),
                        differences,
                    })
                }
                Err(problem) => Some(Failure::of_problem(problem)),
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

/// The events of a case, in the order of its records.
pub fn events(rule: &Rule, case: &Case, read: &mut ReadRecord<'_>) -> Result<Vec<Event>, String> {
    let seen = seen(rule, case, read)?;
    Ok(seen.into_iter().map(|seen| seen.event).collect())
}

/// Where the addresses of a case are.
#[derive(Debug)]
struct Regions(BTreeMap<IpAddr, String>);

impl Places for Regions {
    fn place(&self, address: IpAddr) -> Place {
        Place {
            asn: None,
            region: self.0.get(&address).cloned(),
        }
    }
}

/// An event of a case, and the number of the record it comes from.
struct Seen {
    record: usize,
    event: Event,
}

fn seen(rule: &Rule, case: &Case, read: &mut ReadRecord<'_>) -> Result<Vec<Seen>, String> {
    let internal = case.internal_domains.clone();
    let internal = internal.unwrap_or_else(|| vec![INTERNAL_DOMAIN.to_owned()]);
    let mut lists = Lists::new(case.people.clone(), case.apps.clone());
    if !case.places.is_empty() {
        lists.places = Some(Arc::new(Regions(case.places.clone())));
    }
    let domains = Domains::new(&internal, &case.partners).with_lists(Arc::new(lists));
    let mut events = Vec::new();
    for (record, number) in records(case)?.iter().zip(1..) {
        let product = product_of(rule, record);
        let of_record = read(product, record.to_string().as_bytes(), &domains)
            .map_err(|reason| format!("record {number} cannot be read: {reason}"))?;
        events.extend(of_record.into_iter().map(|event| Seen {
            record: number,
            event,
        }));
    }
    Ok(events)
}

fn findings(
    rules: &Arc<RuleSet>,
    place: usize,
    rule: &Rule,
    scope: &Scope,
    events: &[Seen],
) -> Vec<Finding> {
    match rule.kind {
        Kind::Incident { .. } => found_by_all(rules, rule, scope, events),
        Kind::Single { .. } | Kind::Window { .. } => found_by_one(rules, place, scope, events),
    }
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
    events: &[Seen],
) -> Vec<Finding> {
    let mut detector = detector(rules, place, scope);
    let mut wanted = Vec::new();
    for Seen { event, .. } in events {
        let operation = event.text(field::OPERATION).unwrap_or_default();
        rules.index().find(event.product, &operation, &mut wanted);
        if wanted.contains(&place) {
            detector.observe(&Shown::new(event));
        }
    }
    let mut found = Vec::new();
    detector.settle(DateTime::<Utc>::MAX_UTC);
    detector.collect(DateTime::<Utc>::UNIX_EPOCH, &mut found);
    found
}

/// What a rule that listens to the others says.
fn found_by_all(rules: &Arc<RuleSet>, rule: &Rule, scope: &Scope, events: &[Seen]) -> Vec<Finding> {
    let mut engine = Engine::new(Arc::clone(rules), scope.tenant.clone(), scope.job.clone());
    for Seen { event, .. } in events {
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

/// What is not as expected.
fn differences(expect: &Expectation, found: &[Finding]) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |field, expected: Option<String>, got: Vec<String>, is_met: bool| {
        if let Some(expected) = expected.filter(|_| !is_met) {
            let got = if got.is_empty() {
                "no finding".to_owned()
            } else {
                got.join(", ")
            };
            differences.push(Difference {
                field,
                expected,
                got,
            });
        }
    };
    let of_each = |text: &dyn Fn(&Finding) -> String| found.iter().map(text).collect::<Vec<_>>();
    // Of each finding, or of one of them; a case that expects some and finds none says so once.
    let each = |is: &dyn Fn(&Finding) -> bool| found.iter().all(is);
    let one = |is: &dyn Fn(&Finding) -> bool| found.is_empty() || found.iter().any(is);
    compare(
        "findings",
        Some(expect.findings.to_string()),
        vec![found.len().to_string()],
        found.len() == expect.findings,
    );
    compare(
        "severity",
        expect.severity.map(|s| s.as_str().to_owned()),
        of_each(&|f| f.severity.as_str().to_owned()),
        expect.severity.is_none_or(|s| each(&|f| f.severity == s)),
    );
    compare(
        "alert",
        expect.alert.map(|alert| alert.to_string()),
        of_each(&|f| f.alert.to_string()),
        expect.alert.is_none_or(|a| each(&|f| f.alert == a)),
    );
    compare(
        "entity",
        expect.entity.clone(),
        of_each(&|f| f.entity.clone()),
        expect
            .entity
            .as_ref()
            .is_none_or(|e| one(&|f| f.entity == *e)),
    );
    compare(
        "count",
        expect.count.map(|count| count.to_string()),
        of_each(&|f| f.count.to_string()),
        expect.count.is_none_or(|c| one(&|f| f.count == c)),
    );
    differences
}

#[cfg(test)]
mod tests;

//! The library of acts: for each detection that must be there (M in `detectors/rules/NAMES`) somebody does,
//! amid ordinary life, what it is for. Each must be told, by the detection that the sheet names, as one
//! alert an act, with evidence and with what the analyst should do.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

mod documents;
#[path = "../offline/mod.rs"]
mod offline;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_detectors::{DetectorsOptions, RuleSet};
use exfilwatch_model::{Finding, Product};
use exfilwatch_simulator::world::PEOPLE_MIN;
use exfilwatch_simulator::{AttackPlan, DueFinding, Record, TenantOptions, World, WorldOptions};
use offline::Offline;
use uuid::Uuid;

/// Detections that no record of a vendor raises: the collector itself does.
const OF_THE_COLLECTOR: [&str; 1] = ["x.audit.gap"];

/// Incidents name the findings about a person, so their records are those of other alerts.
const INCIDENTS: [&str; 1] = ["x.risk.incident"];

fn world() -> World {
    let from: DateTime<Utc> = "2026-05-04T00:00:00Z".parse().unwrap();
    World::invent(WorldOptions {
        tenants: vec![TenantOptions {
            people: PEOPLE_MIN,
            ..TenantOptions::new("contoso")
        }],
        attacks: AttackPlan::Library {
            first: from + TimeDelta::days(8) + TimeDelta::minutes(10),
            step: TimeDelta::minutes(8),
        },
        records_per_day: 300,
        ..WorldOptions::new(11, from, from + TimeDelta::days(9))
    })
}

/// With every pack alerting, so that what each rule would say is seen.
fn rules() -> RuleSet {
    let options: DetectorsOptions =
        serde_json::from_value(serde_json::json!({ "packs": ["exfil", "identity", "posture"] }))
            .unwrap();
    RuleSet::load(&options).unwrap()
}

/// Every finding as it finally stands.
fn findings(world: &World) -> Vec<Finding> {
    let tenant = &world.tenants()[0];
    let mut offline = Offline::new(Arc::new(rules()), tenant);
    let mut records: Vec<&Record> = world.sheet().records.iter().collect();
    records.sort_by_key(|record| record.event_ms);
    for record in records {
        offline.observe(record);
    }
    offline.engine.settle(DateTime::<Utc>::MAX_UTC);
    offline.engine.collect(DateTime::UNIX_EPOCH)
}

/// A burst, or a single record, is one act. A chain is of as many as it has records.
fn incidents_max(due: &DueFinding) -> usize {
    const CHAIN_MAX: usize = 3;
    let records = due.event_ids.len();
    if records > CHAIN_MAX { 1 } else { records }
}

/// The names of the detections that must be there.
fn must() -> BTreeSet<&'static str> {
    let names = include_str!("../../detectors/rules/NAMES");
    let lines = names.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut columns = line.split('|').map(str::trim);
            let name = columns.next()?;
            (columns.nth(1) == Some("M")).then_some(name)
        })
        .collect()
}

#[test]
fn every_detection_that_must_be_there_has_an_act() {
    let world = world();
    let due: BTreeSet<&str> = world
        .sheet()
        .due
        .iter()
        .map(|due| due.detection.as_str())
        .collect();
    let without: Vec<&str> = must()
        .into_iter()
        .filter(|name| !due.contains(name) && !OF_THE_COLLECTOR.contains(name))
        .collect();
    assert!(without.is_empty(), "no act for {without:?}");
}

#[test]
fn every_act_is_told_once_with_evidence_and_advice() {
    let world = world();
    let findings = findings(&world);
    let mut wrong: Vec<String> = Vec::new();
    let mut told = 0;
    let ordinary = |script: &str| script == "ordinary life";
    for due in world
        .sheet()
        .due
        .iter()
        .filter(|due| !ordinary(&due.script))
    {
        let own: BTreeSet<&str> = due.event_ids.iter().map(String::as_str).collect();
        let about =
            |finding: &&Finding| finding.event_ids.iter().any(|id| own.contains(id.as_str()));
        let by_all: Vec<&Finding> = findings.iter().filter(about).collect();
        let named = |finding: &&&Finding| finding.rule.detection == due.detection;
        let Some(finding) = by_all.iter().find(named) else {
            let others: Vec<&str> = by_all.iter().map(|f| f.rule.detection.as_str()).collect();
            wrong.push(format!(
                "{}: not told: {} (told: {others:?})",
                due.detection, due.script
            ));
            continue;
        };
        told += 1;
        if finding.evidence.is_empty() || finding.rule.triage.is_empty() {
            wrong.push(format!("{}: no evidence or no advice", due.detection));
        }
        let single = |finding: &&&Finding| {
            finding.alert && !INCIDENTS.contains(&finding.rule.detection.as_str())
        };
        let alerts: BTreeSet<(Uuid, &str)> = by_all
            .iter()
            .filter(single)
            .map(|finding| (finding.incident_uid, finding.rule.detection.as_str()))
            .collect();
        let incidents: BTreeSet<Uuid> = alerts.iter().map(|(incident, _)| *incident).collect();
        if incidents.len() > incidents_max(due) {
            wrong.push(format!("{}: several incidents: {alerts:?}", due.script));
        }
    }
    println!("{told} acts told, {} findings", findings.len());
    wrong.sort();
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

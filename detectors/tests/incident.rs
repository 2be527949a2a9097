//! Findings about one person that together say more than each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Share, at, engine};
use exfilwatch_detectors::Engine;
use exfilwatch_model::{Finding, Severity};

fn observe(engine: &mut Engine, shares: &[(&str, &str, &str)]) {
    for (id, time, target) in shares {
        engine.observe(&Share::new(id, time).to(target, 0).event());
    }
}

fn incidents(engine: &mut Engine) -> Vec<Finding> {
    let mut found = engine.collect(at("2026-05-10T00:00:00Z"));
    found.retain(|finding| finding.rule.detection == "test.incident");
    found
}

#[test]
fn two_families_two_tactics_and_enough_risk_are_an_incident() {
    let mut engine = engine();
    let shares = [
        ("r1", "2026-05-01T10:00:00Z", "a@gmail.com"),
        ("r2", "2026-05-01T10:30:00Z", "b@x.example"),
    ];
    observe(&mut engine, &shares);
    let found = incidents(&mut engine);
    assert_eq!(found.len(), 1);
    let incident = &found[0];
    assert_eq!(incident.entity, "alice@corp.example");
    assert_eq!(incident.severity, Severity::High);
    assert!(incident.alert);
    assert!(incident.values["detection"].contains(&"other.free_mail".to_owned()));
    assert_eq!(incident.values["tactic"], ["TA0009", "TA0010"]);
    assert_eq!(incident.event_ids, ["r1", "r2"]);
    assert!(
        incidents(&mut engine).is_empty(),
        "nothing new, nothing said"
    );
}

#[test]
fn one_record_or_one_family_is_none() {
    let mut engine = engine();
    observe(
        &mut engine,
        &[("r1", "2026-05-01T10:00:00Z", "a@gmail.com")],
    );
    assert!(incidents(&mut engine).is_empty(), "all of one record");
    let mut engine = common::engine();
    let shares = [
        ("r1", "2026-05-01T10:00:00Z", "a@x.example"),
        ("r2", "2026-05-01T10:30:00Z", "b@x.example"),
    ];
    observe(&mut engine, &shares);
    assert!(incidents(&mut engine).is_empty(), "all of one family");
}

#[test]
fn what_was_heard_outlives_a_restart_and_is_over_in_time() {
    let mut engine = engine();
    observe(
        &mut engine,
        &[("r1", "2026-05-01T10:00:00Z", "a@gmail.com")],
    );
    assert!(incidents(&mut engine).is_empty());
    let mut next = common::engine();
    for (detector, change) in engine.drain_changes() {
        next.restore(&detector, &change.key, &change.value.unwrap())
            .unwrap();
    }
    observe(&mut next, &[("r2", "2026-05-01T10:30:00Z", "b@x.example")]);
    assert_eq!(incidents(&mut next).len(), 1);
    next.evict(at("2026-06-01T00:00:00Z"));
    assert_eq!(next.counters().entries, 0);
}

//! Rules over several rules: all of them, in any order or in theirs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use chrono::TimeDelta;
use common::{Share, at, engine};
use exfilwatch_model::{Event, Finding};
use proptest::prelude::*;

const START: &str = "2026-05-01T10:00:00Z";
const DOMAINS: [&str; 3] = ["gmail.com", "partner.example", "x.example"];

/// A share `minute` minutes after the start, with somebody in the domain of that place.
fn share(id: &str, minute: i64, domain: usize) -> Event {
    let mut share = Share::new(id, START).to(&format!("bob@{}", DOMAINS[domain]), 0);
    share.time += TimeDelta::minutes(minute);
    share.event()
}

fn found(events: &[Event], detection: &str) -> Vec<Finding> {
    let mut engine = engine();
    for event in events {
        engine.observe(event);
    }
    let mut found = engine.collect(at("2026-05-10T00:00:00Z"));
    found.retain(|finding| finding.rule.detection == detection);
    found
}

fn sequence(steps: &[(i64, usize)]) -> Vec<Event> {
    let event =
        |(i, (minute, domain)): (usize, &(i64, usize))| share(&format!("r{i}"), *minute, *domain);
    steps.iter().enumerate().map(event).collect()
}

#[test]
fn all_rules_within_the_span_in_any_order() {
    let together = found(&sequence(&[(0, 2), (60, 0), (179, 1)]), "test.together");
    assert_eq!(together.len(), 1);
    assert_eq!(together[0].count, 3);
    assert_eq!(together[0].entity, "alice@corp.example");
    assert_eq!(together[0].trip_time, at("2026-05-01T12:59:00Z"));
    let too_late = sequence(&[(0, 2), (60, 0), (180, 1)]);
    assert!(found(&too_late, "test.together").is_empty());
    let one_missing = sequence(&[(0, 2), (60, 0), (70, 0)]);
    assert!(found(&one_missing, "test.together").is_empty());
}

#[test]
fn in_their_order_or_not_at_all() {
    assert_eq!(
        found(&sequence(&[(0, 0), (60, 1), (120, 2)]), "test.chain").len(),
        1
    );
    for wrong in [
        [(0, 1), (60, 0), (120, 2)],
        [(0, 2), (60, 1), (120, 0)],
        [(0, 0), (60, 2), (120, 1)],
    ] {
        assert!(
            found(&sequence(&wrong), "test.chain").is_empty(),
            "{wrong:?}"
        );
    }
    // A first step that is too old does not hide a later one.
    let again = [(0, 0), (100, 0), (200, 1), (270, 2)];
    assert_eq!(found(&sequence(&again), "test.chain").len(), 1);
}

#[test]
fn at_one_instant_any_order_will_do() {
    let at_once = sequence(&[(5, 2), (5, 1), (5, 0)]);
    assert_eq!(found(&at_once, "test.chain").len(), 1);
}

#[test]
fn an_alias_joins_different_fields() {
    let mut sent = share("r1", 10, 1);
    sent.set("target", "alice@corp.example");
    let joined = found(&[share("r0", 0, 0), sent.clone()], "test.alias");
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].entity, "alice@corp.example");
    sent.set("target", "somebody@corp.example");
    assert!(found(&[share("r0", 0, 0), sent], "test.alias").is_empty());
}

/// Whether some three events, one of each domain, lie within the span; in order where asked.
fn by_hand(steps: &[(i64, usize)], ordered: bool) -> bool {
    let of = |domain: usize| {
        steps
            .iter()
            .filter(move |step| step.1 == domain)
            .map(|step| step.0)
    };
    of(0).any(|a| {
        of(1).any(|b| {
            of(2).any(|c| {
                let in_order = !ordered || (a <= b && b <= c);
                in_order && a.max(b).max(c) - a.min(b).min(c) < 180
            })
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequences_are_found_as_looking_by_hand_says(
        steps in prop::collection::vec((0..60_i64, 0..3_usize), 1..12),
    ) {
        let steps: Vec<_> = steps.into_iter().map(|(m, d)| (m * 10, d)).collect();
        let events = sequence(&steps);
        prop_assert_eq!(!found(&events, "test.together").is_empty(), by_hand(&steps, false));
        prop_assert_eq!(!found(&events, "test.chain").is_empty(), by_hand(&steps, true));
    }
}

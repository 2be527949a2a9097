//! Findings are a function of the set of events: any order, any pages, any restart, any replay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Share, at, engine, essence};
use exfilwatch_detectors::{Engine, StateChange};
use exfilwatch_model::{Event, Finding};
use proptest::prelude::*;

/// Records of two days: few people, few addresses, times that often fall on window boundaries.
fn records() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let record = (
        0..2_880_i64,
        0..3_usize,
        prop::collection::vec(0..8_usize, 1..3),
    );
    prop::collection::vec(record, 1..40).prop_map(|records| {
        records
            .into_iter()
            .enumerate()
            .map(|(i, (minute, actor, targets))| {
                let time = at("2026-05-01T00:00:00Z") + TimeDelta::minutes(minute / 10 * 10);
                share_record(i, time, actor, &targets)
            })
            .collect()
    })
}

fn share_record(i: usize, time: DateTime<Utc>, actor: usize, targets: &[usize]) -> Vec<Event> {
    let domains = ["gmail.com", "partner.example", "x.example"];
    targets
        .iter()
        .zip(0..)
        .map(|(target, part)| {
            let mut share = Share::new(&format!("r{i}"), "2026-05-01T00:00:00Z")
                .to(&format!("t{target}@{}", domains[target % 3]), part);
            share.time = time;
            let mut event = share.event();
            event.set("actor", format!("u{actor}@corp.example"));
            event
        })
        .collect()
}

/// The store: what was committed, by detector and key.
type Store = BTreeMap<(String, Vec<u8>), Vec<u8>>;

fn commit(engine: &mut Engine, store: &mut Store) {
    for (detector, StateChange { key, value }) in engine.drain_changes() {
        assert!(key.len() <= 512);
        match value {
            Some(value) => {
                assert!(value.len() <= 4_096);
                store.insert((detector, key), value);
            }
            None => {
                store.remove(&(detector, key));
            }
        }
    }
}

fn restarted(store: &Store) -> Engine {
    let mut engine = engine();
    for ((detector, key), value) in store {
        engine.restore(detector, key, value).unwrap();
    }
    engine
}

/// Runs records in pages; a restart before the pages named. Gives the last word on each finding.
fn run(records: &[Vec<Event>], page: usize, restarts: &[usize]) -> Vec<String> {
    let fetched_at = at("2026-05-10T00:00:00Z");
    let (mut engine, mut store) = (engine(), Store::new());
    let mut last: BTreeMap<_, Finding> = BTreeMap::new();
    for (number, page) in records.chunks(page.max(1)).enumerate() {
        if restarts.contains(&number) {
            engine = restarted(&store);
        }
        for event in page.iter().flatten() {
            engine.observe(event);
        }
        for finding in engine.collect(fetched_at) {
            last.insert(finding.uid, finding);
        }
        commit(&mut engine, &mut store);
    }
    engine.settle(DateTime::<Utc>::MAX_UTC);
    for finding in engine.collect(fetched_at) {
        last.insert(finding.uid, finding);
    }
    essence(&last.into_values().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_pages_restarts_and_replays_change_nothing(
        (records, shuffled) in records().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle())),
        page in 1..12_usize,
        restarts in prop::collection::vec(0..20_usize, 0..4),
    ) {
        let expected = run(&records, records.len(), &[]);
        prop_assert_eq!(&run(&shuffled, page, &restarts), &expected);
        let mut newest_first = records.clone();
        newest_first.sort_by_key(|record| std::cmp::Reverse(record[0].time));
        prop_assert_eq!(&run(&newest_first, page, &restarts), &expected);
        let twice = [shuffled, records].concat();
        prop_assert_eq!(&run(&twice, page, &restarts), &expected);
    }

    #[test]
    fn windows_are_as_counting_by_hand_says(records in records()) {
        let events: Vec<&Event> = records.iter().flatten().collect();
        let mut engine = engine();
        for event in &events { engine.observe(event); }
        let found = engine.collect(at("2026-05-10T00:00:00Z"));
        let mut found: Vec<(String, i64, u64)> = found
            .iter()
            .filter(|f| f.rule.detection == "test.burst")
            .map(|f| (f.entity.clone(), f.trip_time.timestamp().div_euclid(86_400), f.count))
            .collect();
        found.sort();
        prop_assert_eq!(found, by_hand(&events));
    }

    #[test]
    fn closing_says_what_collecting_said(records in records()) {
        let fetched_at = at("2026-05-10T00:00:00Z");
        let mut engine = engine();
        for event in records.iter().flatten() { engine.observe(event); }
        engine.settle(DateTime::<Utc>::MAX_UTC);
        let found = engine.collect(fetched_at);
        let (mut closed, mut store) = (Vec::new(), Store::new());
        for day in 0..12 {
            let watermark = at("2026-05-01T05:00:00Z") + TimeDelta::hours(day * 24);
            engine.settle(watermark);
            closed.extend(engine.close(watermark, fetched_at));
            engine.evict(watermark);
            commit(&mut engine, &mut store);
            engine = restarted(&store);
        }
        prop_assert_eq!(essence(&closed), essence(&found));
        prop_assert_eq!(engine.counters().entries, 0);
    }
}

/// The rule `test.burst`, written the slow way from its definition.
fn by_hand(events: &[&Event]) -> Vec<(String, i64, u64)> {
    let external = |e: &&&Event| e.is("is_external");
    let events: Vec<&&Event> = events.iter().filter(external).collect();
    let mut actors: Vec<_> = events
        .iter()
        .map(|e| e.text("actor").unwrap().into_owned())
        .collect();
    actors.sort();
    actors.dedup();
    let mut all = Vec::new();
    for actor in actors {
        let own: Vec<_> = events
            .iter()
            .filter(|e| e.text("actor").unwrap() == actor)
            .collect();
        for period in -1..4_i64 {
            let day = at("2026-05-01T00:00:00Z").timestamp() / 86_400 + period;
            let mut covered = std::collections::BTreeSet::new();
            for end in own
                .iter()
                .filter(|e| e.time.timestamp().div_euclid(86_400) == day)
            {
                for (span, least) in [(TimeDelta::hours(1), 3), (TimeDelta::hours(24), 4)] {
                    let inside: Vec<_> = own
                        .iter()
                        .filter(|e| e.time <= end.time && e.time > end.time - span)
                        .collect();
                    let targets: std::collections::BTreeSet<_> = inside
                        .iter()
                        .map(|e| e.text("target").unwrap().into_owned())
                        .collect();
                    if targets.len() >= least {
                        covered.extend(inside.iter().map(|e| (e.record_id.clone(), e.part)));
                    }
                }
            }
            if !covered.is_empty() {
                all.push((actor.clone(), day, covered.len() as u64));
            }
        }
    }
    all
}

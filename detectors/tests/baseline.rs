//! What is measured against the past: values that are new, counts above what is usual.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Share, at, engine};
use exfilwatch_detectors::Engine;
use exfilwatch_model::{Event, Finding};

fn share(id: &str, time: &str, target: &str) -> Event {
    Share::new(id, time).to(target, 0).event()
}

/// Shares with `people` different people on a day of May, a minute apart from ten o'clock.
fn day(day: u32, people: usize) -> Vec<Event> {
    let event = |i: usize| {
        let target = format!("p{day}-{i}@x.example");
        let mut share = Share::new(&format!("r{day}-{i}"), "2026-05-01T10:00:00Z").to(&target, 0);
        share.time +=
            TimeDelta::days(i64::from(day) - 1) + TimeDelta::minutes(i.try_into().unwrap());
        share.event()
    };
    (0..people).map(event).collect()
}

fn found(engine: &mut Engine, detection: &str) -> Vec<Finding> {
    let mut found = engine.collect(at("2026-06-10T00:00:00Z"));
    found.retain(|finding| finding.rule.detection == detection);
    found
}

fn observe(engine: &mut Engine, events: &[Event]) {
    for event in events {
        engine.observe(event);
    }
}

/// A restart: memory from what was stored.
fn restarted(engine: &mut Engine) -> Engine {
    let mut next = common::engine();
    for (detector, change) in engine.drain_changes() {
        if let Some(value) = change.value {
            next.restore(&detector, &change.key, &value).unwrap();
        }
    }
    next
}

#[test]
fn only_the_first_of_a_value_is_told_and_only_when_its_past_has_come() {
    let mut engine = engine();
    observe(
        &mut engine,
        &[
            share("r3", "2026-05-03T10:00:00Z", "new@x.example"),
            share("r2", "2026-05-03T09:00:00Z", "known@x.example"),
        ],
    );
    engine.settle(at("2026-05-03T08:00:00Z"));
    assert!(
        found(&mut engine, "test.first").is_empty(),
        "pages come newest first"
    );
    let past = share("r1", "2026-05-01T10:00:00Z", "known@x.example");
    observe(&mut engine, &[past]);
    engine.settle(at("2026-05-03T11:00:00Z"));
    let told = found(&mut engine, "test.first");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].event_ids, ["r3"]);
    // What was known long ago is new again.
    observe(
        &mut engine,
        &[share("r4", "2026-05-07T10:00:00Z", "new@x.example")],
    );
    engine.settle(DateTime::<Utc>::MAX_UTC);
    let told = found(&mut engine, "test.first");
    assert!(told.iter().any(|finding| finding.event_ids == ["r4"]));
}

#[test]
fn nothing_is_new_while_the_detector_learns() {
    let mut engine = engine();
    observe(
        &mut engine,
        &[
            share("r1", "2026-05-01T10:00:00Z", "a@x.example"),
            share("r2", "2026-05-01T15:59:59Z", "b@x.example"),
            share("r3", "2026-05-01T16:00:00Z", "c@x.example"),
        ],
    );
    engine.settle(DateTime::<Utc>::MAX_UTC);
    let told = found(&mut engine, "test.first");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].event_ids, ["r3"]);
}

#[test]
fn more_than_usual_is_measured_by_the_days_before() {
    let mut engine = engine();
    observe(
        &mut engine,
        &[day(1, 4), day(2, 6), day(3, 12), day(4, 25)].concat(),
    );
    engine.settle(DateTime::<Utc>::MAX_UTC);
    let told = found(&mut engine, "test.unusual");
    // Day 3 has 12, not above twice 6; day 4 has 25, above twice 12.
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].trip_time, at("2026-05-04T10:24:00Z"));
}

#[test]
fn the_past_outlives_its_entries_and_a_restart() {
    let mut engine = engine();
    observe(&mut engine, &[day(1, 4), day(2, 6), day(3, 12)].concat());
    engine.evict(at("2026-05-04T09:00:00Z"));
    let mut engine = restarted(&mut engine);
    observe(&mut engine, &day(4, 24));
    engine.settle(DateTime::<Utc>::MAX_UTC);
    assert!(
        found(&mut engine, "test.unusual").is_empty(),
        "24 is twice 12, not above"
    );
    let more = share("more", "2026-05-04T11:00:00Z", "one-more@x.example");
    observe(&mut engine, &[more]);
    engine.settle(DateTime::<Utc>::MAX_UTC);
    assert_eq!(found(&mut engine, "test.unusual").len(), 1);
}

#[test]
fn what_another_line_has_learned_is_merged() {
    let mut learning = engine();
    observe(&mut learning, &[day(1, 4), day(2, 40)].concat());
    learning.evict(at("2026-05-02T00:00:00Z"));
    let mut live = engine();
    observe(&mut live, &day(4, 60));
    for (detector, fact) in learning.past() {
        live.restore(&detector, &fact.key, &fact.value.unwrap())
            .unwrap();
    }
    live.settle(DateTime::<Utc>::MAX_UTC);
    let told = live.collect(at("2026-06-10T00:00:00Z"));
    let of = |name: &str| told.iter().filter(|f| f.rule.detection == name).count();
    assert_eq!(of("test.unusual"), 0, "60 is not above twice 40");
    assert_eq!(
        of("test.first"),
        60,
        "the past of another line ends the learning"
    );
}

#[test]
fn a_burst_over_midnight_is_not_measured_against_its_own_first_part() {
    let mut engine = engine();
    // 12 people a minute apart from 23:55 on, after two days with four.
    let mut burst = day(3, 12);
    for (event, minute) in burst.iter_mut().zip(0..) {
        event.time = at("2026-05-03T23:55:00Z") + TimeDelta::minutes(minute);
    }
    observe(&mut engine, &[day(1, 4), day(2, 4), burst].concat());
    engine.settle(DateTime::<Utc>::MAX_UTC);
    let told = found(&mut engine, "test.unusual");
    // Nine people are more than twice four: the fourth minute of the next day.
    let trips: Vec<_> = told.iter().map(|finding| finding.trip_time).collect();
    assert_eq!(trips, [at("2026-05-04T00:03:00Z")]);
}

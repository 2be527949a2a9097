//! The engine from outside: rules in, events in, findings out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Share, at, engine, rules, shares};
use exfilwatch_model::{Event, Product, Severity};

#[test]
fn a_record_gives_one_finding_with_all_that_an_analyst_needs() {
    let mut engine = engine();
    engine.observe(
        &Share::new("r1", "2026-05-01T10:00:00Z")
            .to("bob@gmail.com", 0)
            .event(),
    );
    engine.observe(
        &Share::new("r1", "2026-05-01T10:00:00Z")
            .to("eve@evil.example", 1)
            .event(),
    );
    let findings = engine.collect(at("2026-05-01T10:05:00Z"));
    let of_record: Vec<_> = findings
        .iter()
        .filter(|f| f.rule.detection == "test.share")
        .collect();
    assert_eq!(of_record.len(), 1);
    let finding = of_record[0];
    assert_eq!(finding.count, 2);
    assert_eq!(finding.event_ids, ["r1"]);
    assert_eq!(finding.severity, Severity::High, "free mail raises");
    assert!(finding.alert);
    assert_eq!(finding.entity, "alice@corp.example");
    assert_eq!(
        finding.message,
        "alice@corp.example shared Plan with 2 people: bob@gmail.com, eve@evil.example"
    );
    assert_eq!(
        finding.values["target"],
        ["bob@gmail.com", "eve@evil.example"]
    );
    assert_eq!(finding.matched["operation"], "change_user_access");
    assert_eq!(finding.evidence.len(), 1);
    assert!(
        finding.evidence[0]
            .record
            .as_ref()
            .unwrap()
            .get()
            .contains("r1")
    );
    assert_eq!(finding.rule.tactics, ["TA0010"]);
    assert_eq!(finding.rule.techniques, ["T1567.002"]);
    assert_eq!(finding.fetched_at, at("2026-05-01T10:05:00Z"));
    assert!(
        engine.collect(at("2026-05-01T10:06:00Z")).is_empty(),
        "nothing new, nothing said"
    );
}

#[test]
fn severity_falls_only_when_all_events_allow_it() {
    let mut engine = engine();
    engine.observe(
        &Share::new("r1", "2026-05-01T10:00:00Z")
            .to("a@partner.example", 0)
            .event(),
    );
    engine.observe(
        &Share::new("r2", "2026-05-01T10:00:00Z")
            .to("a@partner.example", 0)
            .event(),
    );
    engine.observe(
        &Share::new("r2", "2026-05-01T10:00:00Z")
            .to("a@other.example", 1)
            .event(),
    );
    let findings = engine.collect(at("2026-05-01T10:05:00Z"));
    let severity = |id: &str| {
        let of_record = |f: &&exfilwatch_model::Finding| {
            f.rule.detection == "test.share" && f.event_ids == [id]
        };
        findings.iter().find(of_record).unwrap().severity
    };
    assert_eq!(severity("r1"), Severity::Low);
    assert_eq!(severity("r2"), Severity::Medium);
}

#[test]
fn records_with_the_same_identity_are_one_finding_per_period() {
    let mut engine = engine();
    let days = [
        "2026-05-01T10:00:00Z",
        "2026-05-01T23:59:59Z",
        "2026-05-02T00:00:00Z",
    ];
    for (i, time) in days.iter().enumerate() {
        engine.observe(
            &Share::new(&format!("r{i}"), time)
                .to("a@x.example", 0)
                .event(),
        );
    }
    let findings = engine.collect(at("2026-05-03T00:00:00Z"));
    let mut counts: Vec<u64> = findings
        .iter()
        .filter(|f| f.rule.detection == "test.share_per_day")
        .map(|f| f.count)
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn findings_about_one_act_share_an_incident() {
    let mut engine = engine();
    let mut alert = Share::new("alert-record", "2026-05-01T10:02:00Z").event();
    alert.set("operation", "AlertTriggered");
    alert.set("cause_id", "r1");
    engine.observe(
        &Share::new("r1", "2026-05-01T10:00:00Z")
            .to("a@x.example", 0)
            .event(),
    );
    engine.observe(&alert);
    let findings = engine.collect(at("2026-05-01T10:05:00Z"));
    let of = |name: &str| findings.iter().find(|f| f.rule.detection == name).unwrap();
    assert_eq!(
        of("test.share").incident_uid,
        of("test.vendor_alert").incident_uid
    );
    assert_ne!(of("test.share").uid, of("test.vendor_alert").uid);
    assert!(!of("test.vendor_alert").alert, "a signal");
}

/// Findings of the window rule of three targets in an hour.
fn windows(events: &[Event]) -> Vec<exfilwatch_model::Finding> {
    let mut engine = engine();
    for event in events {
        engine.observe(event);
    }
    let findings = engine.collect(at("2026-05-05T00:00:00Z"));
    findings
        .into_iter()
        .filter(|f| f.rule.detection == "test.burst")
        .collect()
}

#[test]
fn a_window_holds_its_end_and_not_its_start() {
    for (times, count) in [
        // (t - 1 h, t]: an event exactly one hour before is out.
        (["10:00:00", "10:30:00", "11:00:00"], None),
        (["10:00:01", "10:30:00", "11:00:00"], Some(3)),
        (["10:00:00", "10:00:00", "10:00:00"], Some(3)),
        (["10:00:00", "10:59:59", "10:59:59"], Some(3)),
    ] {
        let events: Vec<Event> = times
            .iter()
            .enumerate()
            .map(|(i, time)| {
                let time = format!("2026-05-01T{time}Z");
                Share::new(&format!("r{i}"), &time)
                    .to(&format!("t{i}@x.example"), 0)
                    .event()
            })
            .collect();
        let found = windows(&events);
        assert_eq!(found.first().map(|f| f.count), count, "{times:?}");
        assert!(found.len() <= 1);
    }
}

#[test]
fn only_distinct_values_count_but_all_their_events_belong() {
    let mut events = shares("a", "2026-05-01T10:00:00Z", 60, &["x@a.example"; 10]);
    assert!(windows(&events).is_empty());
    events.extend(shares(
        "b",
        "2026-05-01T10:10:00Z",
        60,
        &["y@a.example", "z@a.example"],
    ));
    let found = windows(&events);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].count, found[0].event_ids.len()), (12, 12));
    assert_eq!(found[0].severity, Severity::High);
    assert_eq!(found[0].threshold, Some(3));
    assert_eq!(found[0].window_seconds, Some(3_600));
    assert_eq!(found[0].trip_time, at("2026-05-01T10:11:00Z"));
    assert_eq!(found[0].evidence.len(), 5);
    assert_eq!(
        found[0].message,
        "alice@corp.example shared with 3 people within 1 h (at least 3)"
    );
}

#[test]
fn the_highest_tier_reached_decides() {
    let targets = ["a@x.example", "b@x.example", "c@x.example", "d@x.example"];
    let slow = shares("s", "2026-05-01T02:00:00Z", 3_600, &targets);
    let found = windows(&slow);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Medium, "four in a day");
    assert_eq!(found[0].window_seconds, Some(86_400));
    let mut both = slow;
    both.extend(shares("f", "2026-05-01T12:00:00Z", 60, &targets));
    let found = windows(&both);
    assert_eq!((found.len(), found[0].severity), (1, Severity::High));
    assert_eq!(found[0].count, 8);
}

#[test]
fn a_burst_over_midnight_gives_at_most_two() {
    let targets: Vec<String> = (0..60).map(|i| format!("t{i}@x.example")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let found = windows(&shares("m", "2026-05-01T23:30:00Z", 60, &targets));
    assert_eq!(found.len(), 2);
    assert_ne!(found[0].uid, found[1].uid);
    // The second day's finding holds the first day's events that its windows reach.
    assert_eq!(found.iter().map(|f| f.count).min(), Some(30));
}

#[test]
fn an_event_without_key_or_value_enters_no_window() {
    let mut events = shares(
        "k",
        "2026-05-01T10:00:00Z",
        60,
        &["a@x.example", "b@x.example"],
    );
    let third = Share::new("k9", "2026-05-01T10:05:00Z")
        .to("c@x.example", 0)
        .event();
    let strip = |name: &str| {
        let mut bare = Event::new(
            Product::GoogleWorkspace,
            "k9".into(),
            0,
            third.time,
            third.raw.clone(),
        );
        for (field, value) in third.fields().filter(|(field, _)| *field != name) {
            bare.set(field.to_owned(), value.clone());
        }
        bare
    };
    for name in ["actor", "target"] {
        events.push(strip(name));
        assert!(windows(&events).is_empty(), "without {name}");
        events.pop();
    }
    events.push(third.clone());
    assert_eq!(windows(&events).len(), 1);
}

#[test]
fn an_event_dated_next_year_changes_nothing_but_itself() {
    let events = shares(
        "n",
        "2026-05-01T10:00:00Z",
        60,
        &["a@x.example", "b@x.example", "c@x.example"],
    );
    let before = windows(&events);
    let mut with = vec![
        Share::new("future", "2027-05-01T10:00:00Z")
            .to("f@x.example", 0)
            .event(),
    ];
    with.extend(events);
    let after = windows(&with);
    assert_eq!(common::essence(&before), common::essence(&after));
}

#[test]
fn a_late_event_is_counted_and_changes_nothing_that_is_over() {
    let mut engine = engine();
    let targets = ["a@x.example", "b@x.example", "c@x.example"];
    for event in shares("l", "2026-05-01T10:00:00Z", 60, &targets) {
        engine.observe(&event);
    }
    assert!(!engine.collect(at("2026-05-01T11:00:00Z")).is_empty());
    let watermark = at("2026-05-20T00:00:00Z");
    let closed = engine.close(watermark, watermark);
    assert!(
        closed
            .iter()
            .any(|f| f.rule.detection == "test.burst" && f.count == 3)
    );
    engine.evict(watermark);
    assert_eq!(engine.counters().entries, 0);
    assert!(engine.close(watermark, watermark).is_empty(), "closed once");
    engine.observe(
        &Share::new("old", "2026-05-01T10:00:00Z")
            .to("d@x.example", 0)
            .event(),
    );
    assert!(engine.collect(watermark).is_empty());
    assert!(engine.counters().late_events > 0);
}

#[test]
fn fifty_thousand_events_on_one_key_are_fine_and_the_bound_shows() {
    let mut engine = common::engine_without(&["test.share*", "test.volume"]);
    let start = at("2026-05-01T10:00:00Z");
    let mut latest = 0;
    for i in 0..50_000_u32 {
        let mut share = Share::new(&format!("r{i}"), "2026-05-01T10:00:00Z");
        share.time = start + chrono::TimeDelta::milliseconds(i64::from(i) * 50);
        engine.observe(&share.to(&format!("t{i}@x.example"), 0).event());
        if i % 10_000 == 9_999 {
            let found = engine.collect(start);
            let burst = found.iter().find(|f| f.rule.detection == "test.burst");
            latest = burst.map_or(latest, |f| f.count);
        }
    }
    assert_eq!(latest, 10_000, "the earliest of the hour stay");
    assert!(engine.counters().capped_entries >= 40_000);
}

#[test]
fn only_what_may_match_is_wanted() {
    let rules = rules();
    let wants = |product, name: &'static str| rules.wants(product, &[name.into()]);
    assert!(wants(Product::GoogleWorkspace, "change_user_access"));
    assert!(wants(Product::GoogleWorkspace, "alerttriggered"));
    assert!(!wants(Product::GoogleWorkspace, "view"));
    assert!(!wants(Product::M365, "change_user_access"));
}

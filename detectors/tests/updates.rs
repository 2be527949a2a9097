//! The finding table: what is sent, when, and as what revision.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Share, at, engine, rules, shares};
use exfilwatch_detectors::updates::{self, Revision, close, close_due, revise};
use exfilwatch_model::finding::REVISIONS_MAX;
use exfilwatch_model::{Event, Finding, Severity, UpdateReason};

#[test]
fn a_finding_is_sent_again_only_when_there_is_something_to_say() {
    let rules = rules();
    let mut engine = engine();
    let mut state = None;
    let mut page = |engine: &mut exfilwatch_detectors::Engine, events: &[Event]| {
        for event in events {
            engine.observe(event);
        }
        let found = engine.collect(at("2026-05-01T12:00:00Z"));
        let burst = found
            .into_iter()
            .find(|f| f.rule.detection == "test.burst")?;
        let expires = rules.expiry(&burst);
        let Revision { state: next, send } = updates::revise(state.as_ref(), burst, expires);
        state = Some(next);
        send.map(|f| (f.revision, f.update_reason, f.count))
    };
    let targets: Vec<String> = (0..20).map(|i| format!("t{i}@x.example")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let events = shares("u", "2026-05-01T10:00:00Z", 60, &targets);
    assert_eq!(page(&mut engine, &events[..2]), None, "below the threshold");
    assert_eq!(page(&mut engine, &events[..3]), Some((1, None, 3)));
    assert_eq!(
        page(&mut engine, &events[3..4]),
        None,
        "one more is no news"
    );
    let doubled = Some(UpdateReason::CountDoubled);
    assert_eq!(page(&mut engine, &events[4..6]), Some((2, doubled, 6)));
    let domain = Share::new("d", "2026-05-01T10:30:00Z")
        .to("a@new.example", 0)
        .event();
    let reason = Some(UpdateReason::NewExternalDomain);
    assert_eq!(page(&mut engine, &[domain]), Some((3, reason, 7)));
    let mut network = Share::new("i", "2026-05-01T10:31:00Z")
        .to("b@x.example", 0)
        .event();
    network.set("source_ip", "198.51.100.7");
    let reason = Some(UpdateReason::NewSourceNetwork);
    assert_eq!(page(&mut engine, &[network.clone()]), Some((4, reason, 8)));
    network.record_id = "i2".into();
    network.set("source_ip", "198.51.100.99");
    assert_eq!(page(&mut engine, &[network]), None, "the same network");
    let later = shares("e", "2026-05-01T13:00:00Z", 60, &targets[..3]);
    let reason = Some(UpdateReason::NewEpisode);
    assert_eq!(page(&mut engine, &later[..1]), Some((5, reason, 10)));
}

/// A finding of the window rule, as three shares make it.
fn burst() -> Finding {
    let mut engine = engine();
    let targets = ["a@x.example", "b@x.example", "c@x.example"];
    for event in &shares("b", "2026-05-01T10:00:00Z", 60, &targets) {
        engine.observe(event);
    }
    let found = engine.collect(at("2026-05-01T12:00:00Z"));
    found
        .into_iter()
        .find(|f| f.rule.detection == "test.burst")
        .unwrap()
}

#[test]
fn a_finding_never_goes_back() {
    let finding = burst();
    let expires = rules().expiry(&finding);
    assert_eq!(expires, at("2026-05-02T00:00:00Z"));
    let first = revise(None, finding.clone(), expires);
    assert_eq!(first.send.as_ref().map(|f| f.revision), Some(1));
    let mut less = finding.clone();
    less.count = 1;
    less.severity = Severity::Low;
    less.alert = false;
    let Revision { state, send } = revise(Some(&first.state), less.clone(), expires);
    assert!(send.is_none());
    assert_eq!(
        (state.count, state.severity, state.alert),
        (3, Severity::High, true)
    );
    less.severity = Severity::Critical;
    let raised = revise(Some(&state), less, expires);
    assert_eq!(
        raised.send.unwrap().update_reason,
        Some(UpdateReason::SeverityRaised)
    );
    assert_eq!((raised.state.count, raised.state.alert), (3, true));
}

#[test]
fn a_signal_that_becomes_a_finding_is_sent_as_one() {
    let mut finding = burst();
    finding.alert = false;
    let first = revise(None, finding.clone(), finding.last_time);
    finding.alert = true;
    let next = revise(Some(&first.state), finding.clone(), finding.last_time);
    assert!(next.send.unwrap().alert && next.state.alert);
}

#[test]
fn revisions_are_bounded_but_a_raise_and_the_close_always_go() {
    let mut finding = burst();
    finding.severity = Severity::Medium;
    let expires = rules().expiry(&finding);
    let mut state = revise(None, finding.clone(), expires).state;
    let mut sent = 1;
    for _ in 0..40 {
        finding.count *= 2;
        let next = revise(Some(&state), finding.clone(), expires);
        sent += u32::from(next.send.is_some());
        state = next.state;
    }
    assert_eq!((sent, state.revision), (REVISIONS_MAX, REVISIONS_MAX));
    finding.severity = Severity::High;
    let raised = revise(Some(&state), finding.clone(), expires);
    assert_eq!(raised.send.map(|f| f.revision), Some(REVISIONS_MAX + 1));
    assert!(
        close(&raised.state, finding.clone()).is_none(),
        "nothing was held back"
    );
    finding.count += 1;
    let closed = close(&raised.state, finding).unwrap();
    assert_eq!(closed.update_reason, Some(UpdateReason::Closed));
    assert_eq!(closed.revision, REVISIONS_MAX + 2);
}

#[test]
fn a_state_is_due_when_its_time_is_over() {
    let finding = burst();
    let expires = rules().expiry(&finding);
    let state = revise(None, finding, expires).state;
    let after = expires + chrono::TimeDelta::seconds(1);
    assert!(close_due([&state], expires).is_empty());
    assert_eq!(close_due([&state], after), [state.uid]);
}

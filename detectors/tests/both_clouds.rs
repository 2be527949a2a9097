//! A window over both clouds, that must hold enough of more than one thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Share, at, engine};
use exfilwatch_model::{Event, Product};

fn share(id: &str, actor: &str, target: &str) -> Event {
    let mut event = Share::new(id, "2026-05-01T10:00:00Z").to(target, 0).event();
    event.set("actor", actor);
    event
}

/// The same in Office 365.
fn sharing_set(id: &str, actor: &str, target: &str) -> Event {
    let google = share(id, actor, target);
    let mut event = Event::new(
        Product::M365,
        google.record_id.clone(),
        0,
        google.time,
        google.raw.clone(),
    );
    for name in ["actor", "target", "is_external", "external_domain"] {
        event.set_some(name, google.get(name).cloned());
    }
    event.set("operation", "SharingSet");
    event.set("service", "SharePoint");
    event
}

fn domains(events: &[Event]) -> Vec<(String, u64)> {
    let mut engine = engine();
    for event in events {
        engine.observe(event);
    }
    let found = engine.collect(at("2026-05-10T00:00:00Z"));
    let slow = found.iter().filter(|f| f.rule.detection == "test.slow");
    slow.map(|f| (f.entity.clone(), f.count)).collect()
}

#[test]
fn people_and_documents_are_counted_over_both_clouds() {
    let events = [
        share("r1", "alice@corp.example", "a@x.example"),
        share("r2", "alice@corp.example", "b@x.example"),
        sharing_set("r3", "bob@corp.example", "c@x.example"),
    ];
    assert_eq!(domains(&events), [("x.example".to_owned(), 3)]);
}

#[test]
fn enough_of_one_thing_is_not_enough() {
    let two_targets = [
        share("r1", "alice@corp.example", "a@x.example"),
        sharing_set("r2", "bob@corp.example", "a@x.example"),
        share("r3", "bob@corp.example", "b@x.example"),
    ];
    assert!(domains(&two_targets).is_empty());
    let one_actor = [
        share("r1", "alice@corp.example", "a@x.example"),
        share("r2", "alice@corp.example", "b@x.example"),
        sharing_set("r3", "alice@corp.example", "c@x.example"),
    ];
    assert!(domains(&one_actor).is_empty());
}

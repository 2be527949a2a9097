//! A day of a simulated tenant, with late, doubled and reordered content and every passing fault:
//! in the end each record of the answer sheet has arrived.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;

use chrono::TimeDelta;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use support::{Caller, Stage, at};

fn world() -> WorldOptions {
    let from = at("2026-03-03T00:00:00Z");
    WorldOptions {
        records_per_day: 1_500,
        ..WorldOptions::new(7, from, from + TimeDelta::days(1))
    }
}

/// A share of the calls of each kind fails in each of the ways that pass.
fn passing_faults(endpoints: &[Endpoint]) -> FaultScript {
    let faults = [
        (
            0.03,
            Fault::Throttle {
                retry_after_seconds: Some(20),
            },
        ),
        (
            0.03,
            Fault::Throttle {
                retry_after_seconds: None,
            },
        ),
        (0.03, Fault::Outage),
        (0.03, Fault::HtmlPage { status: 502 }),
        (0.03, Fault::Reset),
        (0.03, Fault::ResetAfter),
        (0.03, Fault::Truncate { bytes: 300 }),
    ];
    let mut rules = Vec::new();
    for endpoint in endpoints {
        for (share, fault) in &faults {
            rules.push(FaultRule::new(*endpoint, fault.clone()).with_probability(*share));
        }
    }
    FaultScript { seed: 3, rules }
}

fn missing(stage: &Stage, caller: &Caller, kind: &str) -> (usize, Vec<String>) {
    let streams: BTreeSet<String> = caller
        .connector
        .streams()
        .iter()
        .map(|stream| format!("{kind}/{}", stream.name()))
        .collect();
    let due: Vec<_> = stage
        .simulator
        .sheet()
        .records
        .iter()
        .filter(|record| streams.contains(&*record.stream))
        .collect();
    let missing = due
        .iter()
        .filter(|record| !caller.seen.contains_key(&record.id))
        .map(|record| {
            format!(
                "{} {} visible at {}",
                record.stream, record.id, record.visible_from_ms
            )
        })
        .collect();
    (due.len(), missing)
}

async fn live(stage: &Stage, caller: &mut Caller, hours: usize, overlap: TimeDelta) {
    for hour in 0..hours {
        for _ in 0..4 {
            caller.poll().await;
            stage.pass(TimeDelta::minutes(15)).await;
        }
        if hour % 2 == 1 {
            caller.relist(overlap).await;
        }
    }
}

/// Polls and reconciles until nothing is open; a call that fails is made again, as a pipeline does.
async fn settle(stage: &Stage, caller: &mut Caller, retention: TimeDelta) {
    for _ in 0..4 {
        caller.poll().await;
        caller.relist(retention).await;
        stage.pass(TimeDelta::minutes(30)).await;
    }
    for _ in 0..30 {
        stage.pass(TimeDelta::minutes(5)).await;
        caller.fetch().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_office365_record_arrives_through_late_blobs_and_faults() {
    let start = world().from;
    let options = SimulatorOptions {
        start: Some(start),
        ..SimulatorOptions::default()
    };
    let stage = Stage::new(world(), options);
    stage.faults(passing_faults(&[Endpoint::ContentList, Endpoint::Blob]));
    let mut caller = stage.office365(stage.office365_options());
    caller.start(start);
    live(&stage, &mut caller, 24, TimeDelta::hours(1)).await;
    // The longest delay passes; the daily reconciliation finds what came late.
    stage.pass(TimeDelta::hours(23)).await;
    settle(&stage, &mut caller, TimeDelta::hours(48)).await;
    assert!(caller.open.is_empty(), "{:?}", caller.open.values().next());
    let (due, missing) = missing(&stage, &caller, "office365");
    assert!(due > 500, "the sheet has only {due} records");
    assert_eq!(missing, Vec::<String>::new());
    assert!(caller.malformed.is_empty() && caller.gaps.is_empty());
    let microsoft = stage.simulator.microsoft();
    assert_eq!(microsoft.calls_without_publisher(), 0);
    for stream in caller.connector.streams() {
        assert_eq!(
            microsoft.start_calls("contoso", stream.name()),
            1,
            "{stream}"
        );
    }
    let tokens = microsoft.tokens_issued();
    assert!(
        (24..40).contains(&tokens),
        "{tokens} tokens in 24 busy hours"
    );
}

#[tokio::test(start_paused = true)]
async fn every_google_record_arrives_through_late_items_and_faults() {
    let start = world().from;
    let mut options = SimulatorOptions {
        start: Some(start),
        ..SimulatorOptions::default()
    };
    options.google.page_items_max = 20;
    options.google.empty_page_every = 7;
    let stage = Stage::new(world(), options);
    stage.faults(passing_faults(&[Endpoint::Activities]));
    let mut caller = stage.google(stage.google_options());
    caller.start(start);
    live(&stage, &mut caller, 24, TimeDelta::minutes(90)).await;
    stage.pass(TimeDelta::hours(4)).await;
    settle(&stage, &mut caller, TimeDelta::days(2)).await;
    assert!(caller.open.is_empty(), "{:?}", caller.open.values().next());
    let (due, missing) = missing(&stage, &caller, "google_workspace");
    assert!(due > 300, "the sheet has only {due} records");
    assert_eq!(missing, Vec::<String>::new());
    assert!(caller.malformed.is_empty() && caller.gaps.is_empty());
}

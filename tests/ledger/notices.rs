//! Everything the collector says of itself arrives at the receiver.

use chrono::TimeDelta;
use exfilwatch::pipeline::ledger::Interval;
use exfilwatch_connectors::FetchError;
use exfilwatch_model::{Gap, GapCause, GapState, Window};

use crate::process::{Setting, start};
use crate::vendor::{Content, stream};

#[tokio::test]
async fn gaps_losses_holds_malformed_records_and_heartbeats_reach_the_receiver() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let (vendor, receiver) = (&setting.vendor, &setting.receiver);
    let hours = |hours| start() - TimeDelta::hours(hours);
    vendor.publish(hours(10), Content::Malformed("beside".into()));
    vendor.publish(hours(9), Content::Gone);
    let window = Window::new(hours(8), hours(7)).unwrap();
    let found = (GapState::Open, GapCause::SwitchedOff);
    vendor.script().gaps = vec![Gap::new(stream(), window, found, "was off", start())];
    let process = setting.start(folder.path()).await;
    let said = |name: &str| receiver.said(name);
    process
        .until("the notices", |_| {
            [
                "collector.malformed",
                "collector.loss",
                "collector.gap",
                "collector.heartbeat",
            ]
            .iter()
            .all(|name| !said(name).is_empty())
        })
        .await;
    assert!(receiver.has("beside"), "the neighbour of what is malformed");
    let loss = &said("collector.loss")[0];
    assert_eq!(loss["state"], "lost");
    assert!(
        loss["reason"].as_str().unwrap().contains("blob-1"),
        "{loss}"
    );
    let gap = &said("collector.gap")[0];
    assert_eq!(
        (&gap["state"], &gap["cause"]),
        (&"open".into(), &"switched_off".into())
    );
    assert_eq!(
        said("collector.malformed")[0]["reason"],
        "not a JSON object"
    );
    process.until_listed_and_ticked(&setting.clock).await;
    setting.clock.pass(TimeDelta::minutes(6));
    process
        .until("a heartbeat that knows how far we are", |_| {
            let beats = said("collector.heartbeat");
            beats.iter().any(|beat| beat["low_water"].is_string())
        })
        .await;

    vendor.script().error = Some(FetchError::Permission {
        what: "403".into(),
        help: "grant it".into(),
    });
    process
        .until("the hold", |_| !said("collector.degraded").is_empty())
        .await;
    assert_eq!(said("collector.degraded")[0]["help"], "grant it");
    vendor.script().error = None;
    process
        .until("the recovery", |_| !said("collector.recovered").is_empty())
        .await;
    assert_eq!(said("collector.degraded").len(), 1, "told once");
    process.end().await;
}

#[tokio::test]
async fn two_items_of_the_same_instant_that_are_lost_are_two_in_the_ledger() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let at = start() - TimeDelta::hours(3);
    setting.vendor.publish(at, Content::Gone);
    setting.vendor.publish(at, Content::Gone);
    let process = setting.start(folder.path()).await;
    process
        .until("both gaps", |process| process.gaps().len() == 2)
        .await;
    let lost: Vec<_> = process
        .intervals()
        .into_iter()
        .filter(Interval::is_gap)
        .collect();
    assert_eq!(lost.len(), 1, "shown as one stretch of time");
    assert_eq!((lost[0].gaps.len(), lost[0].parts), (2, 2));
    process
        .until("both notices", |_| {
            setting.receiver.said("collector.loss").len() == 2
        })
        .await;
    process.end().await;
}

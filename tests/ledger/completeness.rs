//! What may be called complete, and when; and what a lost store leaves unknown.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::pipeline::ledger::IntervalState;
use exfilwatch_connectors::FetchError;
use exfilwatch_model::{GapCause, GapState};

use crate::process::{Process, Setting, start};
use crate::vendor::Content;

fn complete_until(process: &Process) -> Option<DateTime<Utc>> {
    let intervals = process.intervals();
    let complete = intervals
        .iter()
        .filter(|one| one.state == IntervalState::Complete);
    complete.map(|one| one.until).max()
}

#[tokio::test]
async fn an_item_that_fails_keeps_its_time_open_until_it_is_fetched() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting
        .vendor
        .publish(start() - TimeDelta::days(5), Content::Fails);
    setting
        .vendor
        .record(start() - TimeDelta::hours(30), "young");
    let process = setting.start(folder.path()).await;
    process
        .until("the other record", |_| setting.receiver.has("young"))
        .await;
    process
        .until("a tick", |process| process.health().low_water.is_some())
        .await;
    assert_eq!(complete_until(&process), None);
    setting.vendor.heal("healed");
    setting.clock.pass(TimeDelta::minutes(20));
    process.until_listed_and_ticked(&setting.clock).await;
    // As far as the first listing came after the settle horizon.
    let expected = start() - TimeDelta::days(4) - TimeDelta::minutes(1);
    process
        .until("completeness", |process| {
            complete_until(process).is_some_and(|at| at >= expected)
        })
        .await;
    assert!(setting.receiver.has("healed"));
    let settling = process.intervals().into_iter().next_back().unwrap();
    assert!(
        settling.settling && settling.until >= setting.clock.now(),
        "{settling:?}"
    );
    process.end().await;
}

#[tokio::test]
async fn a_process_that_ended_before_it_had_listed_anything_is_gone_on_with_where_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting {
        is_new: true,
        ..Setting::new()
    };
    setting
        .vendor
        .record(start() - TimeDelta::hours(20), "early");
    setting.vendor.script().error = Some(FetchError::Retry {
        what: "503".into(),
        after: None,
    });
    let process = setting.start(folder.path()).await;
    process
        .until("a ledger", |process| !process.intervals().is_empty())
        .await;
    process.end().await;
    // The daily pass is not due yet.
    setting.clock.pass(TimeDelta::hours(23));
    setting.vendor.script().error = None;
    let process = setting.start(folder.path()).await;
    process
        .until("what came before", |_| setting.receiver.has("early"))
        .await;
    process.end().await;
}

#[tokio::test]
async fn time_that_was_listed_when_it_was_fresh_is_complete_only_after_the_daily_pass() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let process = setting.start(folder.path()).await;
    process.until_listed_and_ticked(&setting.clock).await;
    // Most of a day passes in polls that list only what is new.
    for _ in 0..23 {
        setting.clock.pass(TimeDelta::hours(1));
        process.until_listed_and_ticked(&setting.clock).await;
    }
    let fresh = complete_until(&process).unwrap();
    // Only the first listing came after the settle horizon of what it listed.
    assert_eq!(fresh, start() - TimeDelta::days(4));
    let late = start() - TimeDelta::hours(60);
    setting.vendor.publish_late(
        late,
        setting.clock.now(),
        Content::Records(vec!["late".into()]),
    );
    for _ in 0..2 {
        setting.clock.pass(TimeDelta::hours(1));
        process.until_listed_and_ticked(&setting.clock).await;
    }
    process
        .until("the late one", |_| setting.receiver.has("late"))
        .await;
    let settled = start() + TimeDelta::hours(24) - TimeDelta::days(4);
    process
        .until("the pass", |process| {
            complete_until(process).is_some_and(|at| at >= settled)
        })
        .await;
    let health = process.health();
    assert_eq!(health.records_late, 1, "{health:?}");
    assert!(health.late_hint().unwrap().contains("lag_seconds"));
    process.end().await;
}

#[tokio::test]
async fn a_lost_store_leaves_an_open_interval_until_it_is_read_again() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting
        .vendor
        .record(start() - TimeDelta::hours(2), "before");
    let process = setting.start(folder.path()).await;
    process
        .until("the record", |_| setting.receiver.has("before"))
        .await;
    process.until_listed_and_ticked(&setting.clock).await;
    process.end().await;
    let mut state = setting.open(folder.path());
    state.write_mirror(setting.clock.now()).unwrap();
    drop(state);
    setting.clock.pass(TimeDelta::hours(1));
    setting
        .vendor
        .record(setting.clock.now() - TimeDelta::minutes(30), "after");
    let db = folder.path().join("store/db");
    let length = std::fs::metadata(&db).unwrap().len();
    std::fs::write(&db, vec![0xAA; usize::try_from(length).unwrap()]).unwrap();

    setting.vendor.script().error = Some(FetchError::Retry {
        what: "503".into(),
        after: None,
    });
    let process = setting.start(folder.path()).await;
    let lost = |process: &Process| {
        let gaps = process.gaps();
        gaps.into_iter()
            .find(|gap| gap.cause == GapCause::StoreLost)
    };
    process
        .until("the gap", |process| lost(process).is_some())
        .await;
    let gap = lost(&process).unwrap();
    assert_eq!(gap.state, GapState::Open);
    assert!(gap.window.until() >= setting.clock.now());
    assert!(
        gap.window.from() >= start() - TimeDelta::minutes(2),
        "from the mirror's low-water"
    );
    setting.vendor.script().error = None;
    setting.clock.pass(TimeDelta::minutes(10));
    let filled = |process: &Process| lost(process).unwrap().state == GapState::Filled;
    process.until("the second reading", filled).await;
    assert!(setting.receiver.has("after"));
    process
        .until("the notice", |_| {
            let said = setting.receiver.said("collector.gap");
            said.iter().any(|gap| gap["state"] == "open")
                && said.iter().any(|gap| gap["state"] == "filled")
        })
        .await;
    process.end().await;
}

/// A stream that nobody asked for by name and that is not given is no trouble, however long; from when
/// on it is given, it is read from where it began.
#[tokio::test]
async fn a_stream_that_is_withheld_is_told_and_counts_as_no_gap_and_no_lag() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let vendor = &setting.vendor;
    vendor.script().withheld = true;
    vendor.record(start() - TimeDelta::hours(2), "waits");
    let process = setting.start(folder.path()).await;
    process
        .until("the reason", |process| process.health().waiting.is_some())
        .await;
    for _ in 0..10 {
        setting.clock.pass(TimeDelta::days(1));
        let listings = vendor.script().listings;
        process
            .until("polls", |_| vendor.script().listings > listings + 1)
            .await;
    }
    let health = process.health();
    let waiting = health.waiting.unwrap();
    assert!(waiting.contains("not delegated") && waiting.contains("delegate it"));
    assert_eq!((health.held, health.low_water), (None, None));
    assert_eq!(process.gaps(), []);
    assert_eq!(vendor.script().relisted, [], "nothing to be reconciled");
    for name in ["collector.degraded", "collector.gap", "collector.loss"] {
        assert!(setting.receiver.said(name).is_empty(), "{name}");
    }
    assert!(setting.receiver.found("off").is_empty());

    vendor.script().withheld = false;
    process
        .until("what waited", |_| setting.receiver.has("waits"))
        .await;
    process.until_listed_and_ticked(&setting.clock).await;
    assert_eq!(process.health().waiting, None);
    process.end().await;

    // Taken away again while nothing runs: it was read, and that is told.
    vendor.script().withheld = true;
    let process = setting.start(folder.path()).await;
    process
        .until("word of it", |_| {
            !setting.receiver.said("collector.degraded").is_empty()
        })
        .await;
    assert!(process.health().held.is_some());
    process.end().await;
}

//! Rows of the failure table about the line from the vendor to the receiver: nothing is lost on the way,
//! whatever fails in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use exfilwatch_state::{StateError, Step, Steps};
use tokio_util::sync::CancellationToken;

use crate::process::{Setting, start};
use crate::vendor::Content;

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("r{number}")).collect()
}

#[tokio::test]
async fn sink_down_then_up_no_loss() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting.receiver.failures_left.store(8, Ordering::SeqCst);
    setting
        .vendor
        .publish(start() - TimeDelta::hours(2), Content::Records(ids(300)));
    let process = setting.start(folder.path()).await;
    process
        .until("everything", |_| setting.receiver.records().len() == 300)
        .await;
    assert_eq!(setting.receiver.failures_left.load(Ordering::SeqCst), 0);
    process.end().await;
    assert!(setting.receiver.records().values().all(|count| *count == 1));
}

#[tokio::test]
async fn emit_fails_then_retry() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting.vendor.record(start() - TimeDelta::hours(2), "once");
    setting.receiver.failures_left.store(3, Ordering::SeqCst);
    let process = setting.start(folder.path()).await;
    process
        .until("the retry", |_| setting.receiver.has("once"))
        .await;
    // The vendor repeats it: seen counts by the commit, not by the first try to send.
    setting.vendor.record(start(), "once");
    setting.vendor.record(start(), "other");
    setting.clock.pass(TimeDelta::minutes(5));
    process
        .until("the other", |_| setting.receiver.has("other"))
        .await;
    process.end().await;
    assert_eq!(setting.receiver.records()["once"], 1);
}

#[tokio::test]
async fn restart_resumes() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting
        .vendor
        .record(start() - TimeDelta::hours(2), "before");
    let process = setting.start(folder.path()).await;
    process
        .until("the first", |_| setting.receiver.has("before"))
        .await;
    process.until_listed_and_ticked(&setting.clock).await;
    process.end().await;
    // Published while nobody looked.
    setting.clock.pass(TimeDelta::hours(40));
    setting
        .vendor
        .record(start() + TimeDelta::hours(1), "meanwhile");
    setting
        .vendor
        .record(start() + TimeDelta::hours(39), "just now");
    let process = setting.start(folder.path()).await;
    process
        .until("both", |_| {
            setting.receiver.has("meanwhile") && setting.receiver.has("just now")
        })
        .await;
    process.end().await;
    assert!(setting.receiver.records().values().all(|count| *count == 1));
}

#[tokio::test]
async fn crash_before_ack() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let block = CancellationToken::new();
    *setting.receiver.blocked.lock().unwrap() = Some(block.clone());
    setting
        .vendor
        .publish(start() - TimeDelta::hours(2), Content::Records(ids(20)));
    let process = setting.start(folder.path()).await;
    process
        .until("the commit", |process| process.health().records == 20)
        .await;
    process
        .until("the send", |_| {
            setting.receiver.offered.load(Ordering::SeqCst) > 0
        })
        .await;
    process.cut_off().await;
    assert_eq!(setting.receiver.records().len(), 0);
    *setting.receiver.blocked.lock().unwrap() = None;
    let process = setting.start(folder.path()).await;
    process
        .until("everything", |_| setting.receiver.records().len() == 20)
        .await;
    process.end().await;
}

#[tokio::test]
async fn store_write_fails() {
    let (mut setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let broken = Arc::new(AtomicBool::new(false));
    let fails = broken.clone();
    setting.steps = Steps::new(move |step| {
        if step == Step::FramesAppended && fails.load(Ordering::SeqCst) {
            return Err(StateError::Invalid {
                reason: "the disk is full".into(),
            });
        }
        Ok(())
    });
    let process = setting.start(folder.path()).await;
    process.until_listed_and_ticked(&setting.clock).await;
    broken.store(true, Ordering::SeqCst);
    setting.vendor.publish(start(), Content::Records(ids(10)));
    setting.clock.pass(TimeDelta::minutes(5));
    // The tenant starts again and again from the store, and goes on when the disk is mended.
    let listings = setting.vendor.script().listings;
    process
        .until("new tries", |_| {
            setting.vendor.script().listings > listings + 3
        })
        .await;
    assert_eq!(setting.receiver.records().len(), 0);
    broken.store(false, Ordering::SeqCst);
    process
        .until("everything", |_| setting.receiver.records().len() == 10)
        .await;
    process.end().await;
    assert!(setting.receiver.records().values().all(|count| *count == 1));
}

#[tokio::test]
async fn sink_blocked_1h() {
    let (mut setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting.budget_bytes = 4 << 20;
    let block = CancellationToken::new();
    *setting.receiver.blocked.lock().unwrap() = Some(block.clone());
    for number in 0..60_u8 {
        let ids = (0..100)
            .map(|id| format!("m{number}-{id}{}", "x".repeat(1_500)))
            .collect();
        let at = start() + TimeDelta::minutes(number.into());
        setting.vendor.publish(at, Content::Records(ids));
    }
    let process = setting.start(folder.path()).await;
    for _ in 0..61 {
        setting.clock.pass(TimeDelta::minutes(1));
        let listings = setting.vendor.script().listings;
        process
            .until("a poll", |_| setting.vendor.script().listings > listings)
            .await;
    }
    process
        .until("the pause", |process| {
            process.pipeline.shared().watch.copy().paused
        })
        .await;
    let taken = process.health().records;
    assert!(taken < 6_000, "fetching stands still: {taken}");
    *setting.receiver.blocked.lock().unwrap() = None;
    block.cancel();
    process
        .until("everything", |_| setting.receiver.records().len() == 6_000)
        .await;
    process.end().await;
    assert!(setting.receiver.records().values().all(|count| *count == 1));
}

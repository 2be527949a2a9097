//! `x.audit.gap`: raised once, with the same id, and closed when it is over.

use chrono::TimeDelta;
use exfilwatch::pipeline::ledger;
use exfilwatch_connectors::FetchError;
use exfilwatch_model::GapState;
use serde_json::Value;

use crate::process::{Receiver, SILENCE_HOURS, Setting, start};
use crate::vendor::Content;

/// The two revisions of one finding.
fn raised_and_closed(receiver: &Receiver, reason: &str) -> bool {
    let found = receiver.found(reason);
    let said: Vec<_> = found
        .iter()
        .map(|finding| {
            (
                finding["revision"].as_u64(),
                finding["update_reason"].as_str(),
            )
        })
        .collect();
    let ids: std::collections::BTreeSet<_> = found
        .iter()
        .map(|finding| finding["uid"].to_string())
        .collect();
    assert!(ids.len() <= 1, "one finding under two ids");
    said == [(Some(1), None), (Some(2), Some("closed"))]
}

#[tokio::test]
async fn stream_silent_alarm() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let (vendor, receiver, clock) = (&setting.vendor, &setting.receiver, &setting.clock);
    vendor.record(start() - TimeDelta::hours(1), "spoken");
    let process = setting.start(folder.path()).await;
    process
        .until("the record", |_| receiver.has("spoken"))
        .await;
    clock.pass(TimeDelta::hours(SILENCE_HOURS.into()));
    process.until_listed_and_ticked(clock).await;
    assert_eq!(
        receiver.found("silence").len(),
        0,
        "as long as it may be silent"
    );
    clock.pass(TimeDelta::hours(2));
    process
        .until("the finding", |_| receiver.found("silence").len() == 1)
        .await;
    let finding = &receiver.found("silence")[0];
    assert_eq!(finding["rule"]["detection"], "x.audit.gap");
    assert_eq!(finding["rule"]["techniques"][0], "T1562.008");
    assert_eq!(finding["stream"], "Audit.General");
    // A restart neither forgets it nor tells it again.
    process.end().await;
    let process = setting.start(folder.path()).await;
    clock.pass(TimeDelta::hours(1));
    process.until_listed_and_ticked(clock).await;
    assert_eq!(receiver.found("silence").len(), 1);
    vendor.record(clock.now(), "again");
    clock.pass(TimeDelta::minutes(5));
    process
        .until("its end", |_| raised_and_closed(receiver, "silence"))
        .await;
    process.end().await;
}

#[tokio::test]
async fn a_stream_that_never_had_records_is_not_called_silent() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let process = setting.start(folder.path()).await;
    for _ in 0..5 {
        setting.clock.pass(TimeDelta::hours(20));
        process.until_listed_and_ticked(&setting.clock).await;
    }
    assert_eq!(setting.receiver.found("silence"), Vec::<Value>::new());
    process.end().await;
}

#[tokio::test]
async fn auditing_switched_off_is_a_finding_until_it_is_on_again() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let receiver = &setting.receiver;
    let process = setting.start(folder.path()).await;
    process.until_listed_and_ticked(&setting.clock).await;
    setting.vendor.script().error = Some(FetchError::AuditingDisabled {
        what: "the unified audit log is off".into(),
        help: "Set-AdminAuditLogConfig".into(),
    });
    process
        .until("the finding", |_| receiver.found("off").len() == 1)
        .await;
    assert_eq!(receiver.found("off")[0]["severity"], "high");
    setting.vendor.script().error = None;
    process
        .until("its end", |_| raised_and_closed(receiver, "off"))
        .await;
    process.end().await;
}

#[tokio::test]
async fn an_open_gap_is_a_finding_a_day_before_the_vendor_drops_it_and_over_when_acknowledged() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let (receiver, clock) = (&setting.receiver, &setting.clock);
    // The vendor drops it in three days.
    setting
        .vendor
        .publish(start() - TimeDelta::days(4), Content::Poison);
    let process = setting.start(folder.path()).await;
    process
        .until("the gap", |process| process.gaps().len() == 1)
        .await;
    clock.pass(TimeDelta::hours(46));
    process.until_listed_and_ticked(clock).await;
    assert_eq!(
        receiver.found("unfilled").len(),
        0,
        "more than a day is left"
    );
    clock.pass(TimeDelta::hours(3));
    process
        .until("the finding", |_| receiver.found("unfilled").len() == 1)
        .await;
    let gap = process.gaps().remove(0);
    assert_eq!(
        receiver.found("unfilled")[0]["matched"]["gap_id"],
        gap.id.as_str()
    );
    let known = ledger::acknowledge(&process.gaps(), &gap.id[..6], "a test", clock.now()).unwrap();
    let commit = ledger::acknowledged(&known, clock.now());
    process
        .pipeline
        .shared()
        .committer
        .commit(commit)
        .await
        .unwrap();
    process
        .until("its end", |_| raised_and_closed(receiver, "unfilled"))
        .await;
    let kept = process.gaps().remove(0);
    assert_eq!((kept.state, kept.is_due()), (GapState::Lost, false));
    assert_eq!(kept.acknowledged.unwrap().reason, "a test");
    process.end().await;
}

#[tokio::test]
async fn a_gap_that_nobody_filled_in_time_is_lost() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting
        .vendor
        .publish(start() - TimeDelta::days(5), Content::Poison);
    let process = setting.start(folder.path()).await;
    process
        .until("the gap", |process| process.gaps().len() == 1)
        .await;
    assert_eq!(process.gaps()[0].state, GapState::Open);
    setting.clock.pass(TimeDelta::days(3));
    process
        .until("the loss", |process| {
            process
                .gaps()
                .iter()
                .any(|gap| gap.state == GapState::Lost && gap.is_due())
        })
        .await;
    process
        .until("the notice", |_| {
            !setting.receiver.said("collector.loss").is_empty()
        })
        .await;
    assert!(process.health().gap_open_seconds == 0);
    process.end().await;
}

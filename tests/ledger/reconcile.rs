//! Reconciliation by hand: what is missing is fetched, and the numbers add up.

use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;

use crate::process::{Setting, start};
use crate::vendor::Content;

#[tokio::test]
async fn what_the_vendor_showed_late_is_fetched_and_the_account_adds_up() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let (vendor, receiver) = (&setting.vendor, &setting.receiver);
    let hours = |hours| start() - TimeDelta::hours(hours);
    vendor.record(hours(50), "one");
    vendor.record(hours(40), "two");
    let process = setting.start(folder.path()).await;
    process
        .until("both", |_| receiver.has("one") && receiver.has("two"))
        .await;
    process.until_listed_and_ticked(&setting.clock).await;
    let late = vec!["one".to_owned(), "late".to_owned()];
    vendor.publish(hours(45), Content::Records(late));
    vendor.publish(hours(44), Content::Gone);
    vendor.publish(hours(43), Content::Fails);
    let reconciling = process.reconcile(None);
    // What fails is tried again after its waits.
    let passing = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            setting.clock.pass(TimeDelta::minutes(1));
        }
    };
    let account = tokio::select! {
        account = reconciling => account,
        () = passing => unreachable!(),
    };
    assert_eq!((account.listed, account.done_before), (5, 2), "{account:?}");
    let rest = (
        account.fetched,
        account.lost,
        account.missing,
        account.failing,
    );
    assert_eq!(rest, (1, 1, 1, 1), "{account:?}");
    assert_eq!(
        (account.records, account.records_new, account.records_late),
        (2, 1, 1)
    );
    assert!(!account.is_whole());
    process
        .until("the late one", |_| receiver.has("late"))
        .await;
    assert_eq!(
        receiver.records()["one"],
        1,
        "delivered before, and not again"
    );

    vendor.heal("healed");
    setting.clock.pass(TimeDelta::hours(1));
    process
        .until("the healed one", |_| receiver.has("healed"))
        .await;
    let account = process.reconcile(Some(hours(44))).await;
    assert_eq!((account.listed, account.done_before), (3, 3), "{account:?}");
    assert!(account.is_whole());
    process.end().await;
}

#[tokio::test]
async fn what_the_live_line_gives_up_meanwhile_is_lost_and_not_fetched() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let vendor = &setting.vendor;
    vendor.record(start() - TimeDelta::hours(3), "whole");
    vendor.publish(start() - TimeDelta::hours(2), Content::Fails);
    let process = setting.start(folder.path()).await;
    process
        .until("the first", |_| setting.receiver.has("whole"))
        .await;
    process
        .until("a failure", |process| process.health().failures > 0)
        .await;
    vendor.script().relisted.clear();
    // The live line lists hours again, a reconciliation days.
    let is_day = |window: &exfilwatch_model::Window| window.length() > TimeDelta::hours(2);
    let blob = start() - TimeDelta::hours(2);
    let relists = || {
        let script = vendor.script();
        let mut days = script.relisted.iter().filter(|window| is_day(window));
        days.any(|window| window.holds(blob))
    };
    let giving_up = async {
        while !relists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        vendor.drop_failing();
        setting.clock.pass(TimeDelta::minutes(1));
    };
    let (account, ()) = tokio::join!(process.reconcile(None), giving_up);
    let counts = (account.listed, account.done_before, account.fetched);
    assert_eq!(counts, (2, 1, 0), "{account:?}");
    assert_eq!((account.lost, account.missing), (1, 0), "{account:?}");
    assert!(!account.is_whole());
    process.end().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_listed_has_an_account_that_says_so() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    setting.vendor.script().error = Some(FetchError::Auth {
        what: "AADSTS7000215".into(),
        help: "a new secret".into(),
    });
    let process = setting.start(folder.path()).await;
    let account = process.reconcile(None).await;
    let error = account.error.as_ref().unwrap();
    assert!(error.contains("AADSTS7000215") && !account.is_whole());
    process.end().await;
}

#[tokio::test]
async fn a_reconciliation_that_was_killed_goes_on_at_the_day_it_had_reached() {
    let (setting, folder) = (Setting::new(), tempfile::tempdir().unwrap());
    let vendor = &setting.vendor;
    let process = setting.start(folder.path()).await;
    process.until_listed_and_ticked(&setting.clock).await;
    let days = |days| start() - TimeDelta::days(days) + TimeDelta::hours(1);
    vendor.record(days(5), "first day");
    vendor.publish(days(3), Content::Hangs);
    setting.clock.pass(TimeDelta::hours(25));
    process
        .until("the third day", |_| {
            let script = vendor.script();
            script.relisted.iter().any(|window| window.holds(days(3)))
                && setting.receiver.has("first day")
        })
        .await;
    process.cut_off().await;
    vendor.heal("healed");
    vendor.script().relisted.clear();

    let process = setting.start(folder.path()).await;
    let reconciled = |process: &crate::process::Process| process.health().reconciled;
    process
        .until("the account", |process| {
            reconciled(process).is_some_and(|account| account.ended.is_some())
        })
        .await;
    assert!(setting.receiver.has("healed"));
    let account = reconciled(&process).unwrap();
    let counts = (account.listed, account.fetched, account.done_before);
    assert_eq!(counts, (2, 2, 0), "over both runs: {account:?}");
    let again = vendor.script().relisted.clone();
    let days_again = again
        .iter()
        .filter(|window| window.length() > TimeDelta::hours(2));
    assert!(
        days_again.clone().count() > 0 && days_again.clone().all(|day| day.until() > days(3)),
        "what was finished is not listed again: {again:?}"
    );
    process.end().await;
}

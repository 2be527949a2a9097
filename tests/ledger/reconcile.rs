//! Reconciliation by hand: what is missing is fetched, and the numbers add up.

use chrono::TimeDelta;
use exfilwatch::pipeline::reconcile::ReconcileRequest;
use exfilwatch_connectors::FetchError;

use crate::process::{Setting, start};
use crate::vendor::{Content, stream};

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
    let reconciler = process.pipeline.shared().reconciler.clone();
    let streams = [stream()];
    let reconciling = reconciler.reconcile(ReconcileRequest::default(), &streams);
    // What fails is tried again after its waits.
    let passing = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            setting.clock.pass(TimeDelta::minutes(1));
        }
    };
    let accounts = tokio::select! {
        accounts = reconciling => accounts,
        () = passing => unreachable!(),
    };
    let account = &accounts[0];
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
    let request = ReconcileRequest {
        since: Some(hours(44)),
        ..ReconcileRequest::default()
    };
    let account = reconciler.reconcile(request, &streams).await.remove(0);
    assert_eq!((account.listed, account.done_before), (3, 3), "{account:?}");
    assert!(account.is_whole());
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
    let reconciler = process.pipeline.shared().reconciler.clone();
    let accounts = reconciler
        .reconcile(ReconcileRequest::default(), &[stream()])
        .await;
    let error = accounts[0].error.as_ref().unwrap();
    assert!(error.contains("AADSTS7000215") && !accounts[0].is_whole());
    process.end().await;
}

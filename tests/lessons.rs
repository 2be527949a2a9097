//! What jobs leave of the past for the live line: used, bounded and written in parts, also where no
//! live line ever takes it out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::ingest::Ingest;
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{LESSONS_EACH, Purpose, StepConfig};
use exfilwatch::pipeline::{Parts, Pipeline};
use exfilwatch_detectors::{DetectorsOptions, RuleSet};
use exfilwatch_model::{JobId, Page, Product, RawRecord, SystemClock, TenantId};
use exfilwatch_state::{Commit, Options, State, StateError, Step, Steps, WindowChange};
use tokio_util::sync::CancellationToken;

fn day(number: i64) -> DateTime<Utc> {
    "2026-05-04T09:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(number)
}

fn tenant() -> TenantId {
    TenantId::new("contoso").unwrap()
}

/// A pipeline without receivers.
fn start(folder: &std::path::Path, steps: Steps) -> Pipeline {
    let options = Options {
        sync: false,
        steps,
        ..Options::default()
    };
    Pipeline::start(Parts {
        state: State::open(folder, day(0), options).unwrap().state,
        routes: Vec::new(),
        clock: Arc::new(SystemClock),
        budget_bytes: u64::MAX,
        shutdown: CancellationToken::new(),
        drain: Duration::from_secs(5),
    })
    .unwrap()
}

/// With the only rule that looks at mail that is read by an application which is new to the mailbox.
fn ingest(pipeline: &Pipeline, job: JobId) -> Ingest {
    let shared = pipeline.shared();
    let all = RuleSet::load(&DetectorsOptions::default()).unwrap();
    let only = all.only(&["o365.mail.access_by_new_client".to_owned()]);
    let budget = shared.seen_budget.clone();
    let today = day(0).date_naive();
    let config = StepConfig {
        memory: TenantMemory::load(&*shared.store, tenant(), today, budget).unwrap(),
        job,
        readers: app::readers(&["corp.example"], &[]),
        rules: Arc::new(only.unwrap()).into(),
        forwards_events: false,
        purpose: Purpose::Deliver,
        live_since: day(-1_000),
    };
    let (store, committer) = (shared.store.clone(), shared.committer.clone());
    Ingest::restore(config, store, committer, shared.watch.clone()).unwrap()
}

fn job(number: i64) -> JobId {
    JobId::new(&format!("backfill-{number}")).unwrap()
}

/// Alice's mail is read on a day, by these applications.
async fn read(ingest: &mut Ingest, on: DateTime<Utc>, apps: &[String]) {
    let record = |app: &String| {
        let at = on.format("%Y-%m-%dT%H:%M:%S");
        let text = format!(
            r#"{{"CreationTime":"{at}","Id":"{on}-{app}","Operation":"MailItemsAccessed","RecordType":50,"ResultStatus":"Succeeded","UserType":0,"Workload":"Exchange","UserId":"alice@corp.example","MailboxOwnerUPN":"alice@corp.example","LogonType":0,"ClientAppId":"{app}","OperationProperties":[{{"Name":"MailAccessType","Value":"Bind"}}]}}"#
        );
        RawRecord::new(Bytes::from(text))
    };
    for apps in apps.chunks(1_000) {
        let page = Page {
            stream: "contoso/office365/Audit.Exchange".parse().unwrap(),
            item: "blob".into(),
            records: apps.iter().map(record).collect(),
            malformed: vec![],
            fetched_at: on,
            last: true,
        };
        let products = vec![Product::M365; page.records.len()];
        ingest
            .page(&page, &products, Commit::default())
            .await
            .unwrap();
    }
}

fn lessons(pipeline: &Pipeline) -> Vec<WindowChange> {
    let store = &pipeline.shared().store;
    store.windows(&JobId::lessons(), &tenant()).unwrap()
}

fn found(pipeline: &Pipeline) -> usize {
    pipeline.shared().store.findings(&tenant()).unwrap().len()
}

#[tokio::test]
async fn a_tenant_that_is_only_backfilled_keeps_what_still_counts_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start(folder.path(), Steps::default());
    let mut most = 0;
    for week in 0..12 {
        let now = day(7 * week);
        let apps: Vec<String> = (0..5).map(|n| format!("{week}-{n}")).collect();
        let mut one = ingest(&pipeline, job(week));
        read(&mut one, now, &apps).await;
        one.end(now).await.unwrap();
        pipeline
            .shared()
            .store
            .forget_job_windows(&job(week))
            .unwrap();
        most = most.max(lessons(&pipeline).len());
    }
    // Fourteen days, the lateness and the day over which they reach: three or four weeks of five.
    assert!((15..=25).contains(&most), "{most} lessons");

    // What an earlier job has seen is not new to a later one.
    let before = found(&pipeline);
    let mut next = ingest(&pipeline, job(100));
    let now = day(7 * 11 + 3);
    read(&mut next, now, &["11-0".to_owned(), "unheard".to_owned()]).await;
    next.end(now).await.unwrap();
    assert_eq!(found(&pipeline), before + 1, "only the unheard is new");

    // The live line takes all of it in, and out of the store.
    let mut live = ingest(&pipeline, JobId::live());
    live.learn(now).await.unwrap();
    assert_eq!(lessons(&pipeline), []);
    let again = day(7 * 11 + 5);
    let mut counts = Vec::new();
    for apps in [&[][..], &["unheard".to_owned()], &["other".to_owned()]] {
        read(&mut live, again, apps).await;
        let then = again + TimeDelta::days(1);
        live.stage_tick(then, Some(then));
        live.flush(then).await.unwrap();
        counts.push(found(&pipeline));
    }
    let whole = counts[0];
    assert_eq!(
        counts,
        [whole, whole, whole + 1],
        "the live line has learned"
    );
    pipeline.stop().await;
}

#[tokio::test]
async fn many_lessons_are_written_in_parts_and_what_was_interrupted_is_made_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (commits, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, failing) = (commits.clone(), fails.clone());
    let steps = Steps::new(move |step| {
        if step != Step::Prepared {
            return Ok(());
        }
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        if number == failing.load(Ordering::SeqCst) {
            let reason = "the disk is full".into();
            return Err(StateError::Invalid { reason });
        }
        Ok(())
    });
    let pipeline = start(folder.path(), steps);
    let number = 2 * LESSONS_EACH + 10;
    let apps: Vec<String> = (0..number).map(|n| n.to_string()).collect();
    let mut one = ingest(&pipeline, job(0));
    read(&mut one, day(0), &apps).await;
    // The second part cannot be written.
    let before = commits.load(Ordering::SeqCst);
    fails.store(before + 2, Ordering::SeqCst);
    one.end(day(0)).await.unwrap_err();
    let (part, whole) = (lessons(&pipeline).len(), number + 1);
    assert!((1..whole).contains(&part), "{part} lessons of {whole}");

    one.end(day(0)).await.unwrap();
    assert_eq!(lessons(&pipeline).len(), whole, "each value and the origin");
    let parts = commits.load(Ordering::SeqCst) - before;
    assert!(parts >= 4, "{parts} commits");

    // The same once more: nothing is to be written.
    let before = commits.load(Ordering::SeqCst);
    one.end(day(0)).await.unwrap();
    assert_eq!(commits.load(Ordering::SeqCst), before);
    pipeline.stop().await;
}

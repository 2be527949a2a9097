//! Windows of the Reports API: what is late, on a boundary, interrupted or too old.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;
use exfilwatch_model::GapState;
use exfilwatch_simulator::google::GoogleOptions;
use exfilwatch_simulator::{Endpoint, Fault, FaultRule, FaultScript};
use futures::StreamExt;
use support::quiet::{START, asked, caller, item, only, quiet as stage, text, write};
use support::{WrongClock, at};

#[tokio::test(start_paused = true)]
async fn google_event_appears_3h_late_and_is_found_by_the_overlap_or_the_daily_pass() {
    for (application, by_overlap) in [("login", true), ("meet", true), ("drive", false)] {
        let stage = stage(GoogleOptions::default());
        let start = at(START);
        let mut caller = caller(&stage, &[application], start - TimeDelta::minutes(10));
        let late = TimeDelta::minutes(170);
        let id = write(&stage, application, start, late, -1);
        let schedule = caller.connector.schedule(&caller.connector.streams()[0]);
        for _ in 0..7 {
            caller.poll().await;
            stage.pass(TimeDelta::minutes(30)).await;
            caller.poll().await;
            caller.relist(schedule.overlap).await;
        }
        assert_eq!(caller.seen.contains_key(&id), by_overlap, "{application}");
        caller.relist(schedule.retention).await;
        assert!(caller.seen.contains_key(&id), "{application}");
        assert_eq!(schedule.retention, TimeDelta::days(4));
    }
}

#[tokio::test(start_paused = true)]
async fn google_event_on_boundary_ms_is_not_lost_between_two_windows() {
    let stage = stage(GoogleOptions::default());
    let from = at(START) - TimeDelta::hours(5);
    let mut caller = caller(&stage, &["drive"], from);
    // On the grid of a catch-up, and a millisecond on each side.
    let mut ids = Vec::new();
    for (n, hour) in (0..).zip(["08", "09", "10"]) {
        for offset in [-1, 0, 1] {
            let when = at(&format!("2026-03-03T{hour}:00:00Z"));
            let when = when + TimeDelta::milliseconds(offset);
            ids.push(write(
                &stage,
                "drive",
                when,
                TimeDelta::minutes(1),
                n * 10 + offset,
            ));
        }
    }
    caller.poll().await;
    // On the end of the last window, which is where the next poll goes on.
    let stream = caller.connector.streams()[0].clone();
    let end = caller.cursors[&stream].covered_until;
    ids.push(write(&stage, "drive", end, TimeDelta::minutes(4), 99));
    stage.pass(TimeDelta::minutes(5)).await;
    caller.poll().await;
    for id in &ids {
        assert!(caller.seen.contains_key(id), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn google_inclusive_start_repeats_a_record_and_its_fingerprint_is_the_same() {
    let stage = stage(GoogleOptions::default());
    let start = at(START);
    let mut caller = caller(&stage, &["drive"], start - TimeDelta::minutes(10));
    let id = write(&stage, "drive", start, TimeDelta::minutes(1), -5);
    for _ in 0..6 {
        stage.pass(TimeDelta::minutes(1)).await;
        caller.poll().await;
    }
    assert!(caller.seen[&id] >= 2, "windows overlap: {:?}", caller.seen);
    assert_eq!(
        caller.fingerprints.len(),
        1,
        "and the record is known by its fingerprint"
    );
}

#[tokio::test(start_paused = true)]
async fn google_no_time_is_neither_dropped_nor_a_panic() {
    let stage = stage(GoogleOptions::default());
    let start = at(START);
    let mut caller = caller(&stage, &["admin"], start - TimeDelta::minutes(10));
    let body =
        r#"{"id":{"uniqueQualifier":"7","applicationName":"admin"},"events":[{"name":"X"}]}"#;
    let when = [start, start + TimeDelta::minutes(1)];
    stage
        .simulator
        .google()
        .write("contoso", "admin", body, when);
    stage.pass(TimeDelta::minutes(5)).await;
    caller.poll().await;
    assert!(caller.errors.is_empty() && caller.malformed.is_empty());
    let ids: Vec<&String> = caller.seen.keys().collect();
    assert!(ids.len() == 1 && ids[0].starts_with("digest:"), "{ids:?}");
    // It stands at the time its page was read.
    let record = exfilwatch_model::RawRecord::new(Bytes::from_static(body.as_bytes()));
    let reader = caller.connector.records();
    assert_eq!(reader.head(&record).unwrap().time, None);
    let events = reader.normalise(&record, start).unwrap();
    assert_eq!((events.len(), events[0].time), (1, start));
}

#[tokio::test(start_paused = true)]
async fn google_crash_mid_pagination_begins_the_same_window_again_and_loses_nothing() {
    let stage = stage(GoogleOptions {
        page_items_max: 5,
        ..GoogleOptions::default()
    });
    let from = at(START) - TimeDelta::minutes(50);
    let ids: Vec<String> = (0..40)
        .map(|n| {
            write(
                &stage,
                "drive",
                from + TimeDelta::minutes(n),
                TimeDelta::zero(),
                n,
            )
        })
        .collect();
    let mut caller = caller(&stage, &["drive"], from - TimeDelta::minutes(1));
    let stream = caller.connector.streams()[0].clone();
    caller.list(&stream).await;
    let item = caller.open.values().next().unwrap().clone();
    let mut pages = caller.connector.fetch(&item).await.unwrap();
    for _ in 0..3 {
        assert!(!pages.next().await.unwrap().unwrap().last);
    }
    // The process dies here: newest pages read, older ones not; the item is still in the work list.
    drop(pages);
    let (cursors, open) = (caller.cursors.clone(), caller.open.clone());
    let mut restarted = stage.google(only(&stage, &["drive"]));
    (restarted.cursors, restarted.open) = (cursors, open);
    let before = asked(&stage, "/activity/").len();
    restarted.fetch().await;
    assert!(!asked(&stage, "/activity/")[before].contains("pageToken"));
    for id in &ids {
        assert!(restarted.seen.contains_key(id), "{id}");
    }
    assert!(restarted.open.is_empty());
}

#[tokio::test(start_paused = true)]
async fn google_stale_page_token_begins_the_same_frozen_window_at_its_first_page() {
    let stage = stage(GoogleOptions {
        page_items_max: 5,
        page_token_lifetime_seconds: 60,
        ..GoogleOptions::default()
    });
    let from = at(START) - TimeDelta::minutes(50);
    let ids: Vec<String> = (0..20)
        .map(|n| {
            write(
                &stage,
                "drive",
                from + TimeDelta::minutes(n),
                TimeDelta::zero(),
                n,
            )
        })
        .collect();
    let mut caller = caller(&stage, &["drive"], from - TimeDelta::minutes(1));
    let stream = caller.connector.streams()[0].clone();
    caller.list(&stream).await;
    let item = caller.open.values().next().unwrap().clone();
    let mut pages = caller.connector.fetch(&item).await.unwrap();
    let first = pages.next().await.unwrap().unwrap();
    stage.pass(TimeDelta::minutes(2)).await;
    let mut records = first.records;
    let mut last = false;
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        last = page.last;
        records.extend(page.records);
    }
    assert!(last);
    let reader = caller.connector.records();
    let read: std::collections::BTreeSet<String> = records
        .iter()
        .map(|record| reader.head(record).unwrap().id_text())
        .collect();
    assert!(ids.iter().all(|id| read.contains(id)), "{read:?}");
    let firsts: Vec<String> = asked(&stage, "/activity/")
        .into_iter()
        .filter(|url| !url.contains("pageToken"))
        .collect();
    assert_eq!(firsts.len(), 2);
    assert_eq!(firsts[0], firsts[1], "the same window, to the millisecond");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_too_old_is_a_gap_when_listed_and_a_loss_when_it_waited_too_long() {
    let stage = stage(GoogleOptions::default());
    let start = at(START);
    let mut caller = caller(&stage, &["drive"], start - TimeDelta::days(200));
    let stream = caller.connector.streams()[0].clone();
    caller.list(&stream).await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    let gap = &caller.gaps[0];
    assert_eq!((caller.gaps.len(), gap.state), (1, GapState::Lost));
    assert_eq!(gap.window.from(), start - TimeDelta::days(200));
    assert!((gap.window.until() - (start - TimeDelta::days(180))).abs() < TimeDelta::minutes(2));
    // An item that waited until a part of it was too old: the rest is read, the loss is said.
    let oldest = start - TimeDelta::days(180);
    let kept = write(
        &stage,
        "drive",
        oldest + TimeDelta::minutes(20),
        TimeDelta::zero(),
        1,
    );
    let body = format!(
        "{}/{}",
        text(oldest - TimeDelta::minutes(30)),
        text(oldest + TimeDelta::minutes(30))
    );
    let item = item(&caller, &body);
    let read: Vec<_> = caller.connector.fetch(&item).await.unwrap().collect().await;
    let (error, pages) = read.split_last().unwrap();
    let error = error.as_ref().unwrap_err();
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
    assert!(error.to_string().contains("180 days"), "{error}");
    let reader = caller.connector.records();
    let ids: Vec<String> = pages
        .iter()
        .flat_map(|page| &page.as_ref().unwrap().records)
        .map(|record| reader.head(record).unwrap().id_text())
        .collect();
    assert_eq!(ids, [kept]);
}

#[tokio::test(start_paused = true)]
async fn a_start_the_vendor_calls_too_old_is_recomputed_from_its_own_clock() {
    let mut stage = stage(GoogleOptions::default());
    // Our clock is slow: what we take for just kept is gone by the vendor's.
    let slow = WrongClock(stage.simulator.clock().clone(), -TimeDelta::minutes(10));
    stage.surroundings.clock = Arc::new(slow);
    let caller = caller(&stage, &["drive"], at(START));
    let oldest = at(START) - TimeDelta::days(180);
    let body = format!(
        "{}/{}",
        text(oldest - TimeDelta::minutes(5)),
        text(oldest + TimeDelta::minutes(40))
    );
    let read: Vec<_> = caller
        .connector
        .fetch(&item(&caller, &body))
        .await
        .unwrap()
        .collect()
        .await;
    let error = read.last().unwrap().as_ref().unwrap_err();
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
    let starts = asked(&stage, "startTime");
    assert_eq!(
        starts.len(),
        2,
        "refused once, then the part that is kept: {starts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn windows_of_gmail_have_both_ends_and_never_span_thirty_days() {
    let stage = stage(GoogleOptions::default());
    let start = at(START);
    let mut caller = caller(&stage, &["gmail"], start - TimeDelta::days(61));
    let id = write(
        &stage,
        "gmail",
        start - TimeDelta::days(45),
        TimeDelta::zero(),
        3,
    );
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert!(caller.seen.contains_key(&id));
    assert!(
        asked(&stage, "/gmail")
            .iter()
            .all(|url| url.contains("startTime=") && url.contains("endTime="))
    );
}

#[tokio::test(start_paused = true)]
async fn a_window_that_cannot_be_read_now_waits_in_the_work_list_and_holds_up_no_other() {
    let stage = stage(GoogleOptions::default());
    let from = at(START) - TimeDelta::hours(3);
    let ids: Vec<String> = (0..6)
        .map(|n| {
            write(
                &stage,
                "drive",
                from + TimeDelta::minutes(20 * n),
                TimeDelta::zero(),
                n,
            )
        })
        .collect();
    let mut caller = caller(&stage, &["drive"], from);
    let down = FaultRule::new(Endpoint::Activities, Fault::Outage).calls(1, 3);
    stage.faults(FaultScript {
        seed: 1,
        rules: vec![down],
    });
    caller.poll().await;
    assert_eq!(caller.open.len(), 1);
    assert!(caller.errors.is_empty() && !caller.seen.is_empty());
    stage.pass(TimeDelta::minutes(2)).await;
    caller.fetch().await;
    assert!(caller.open.is_empty());
    assert!(ids.iter().all(|id| caller.seen.contains_key(id)));
}

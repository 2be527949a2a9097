//! Windows of the Reports API: what is late, on a boundary, interrupted, too much or too old.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::google::SLICE_PAGES_MAX;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::options::GoogleWorkspaceOptions;
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{Cursor, GapState, StreamId, WorkItem};
use exfilwatch_simulator::google::GoogleOptions;
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use futures::{StreamExt, stream};
use support::{Caller, Stage, WrongClock, at};

const START: &str = "2026-03-03T12:00:00Z";

/// A quiet tenant: what the tests write into its log themselves is all there is of that day.
fn stage(google: GoogleOptions) -> Stage {
    let start = at(START);
    let world = WorldOptions {
        records_per_day: 1,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, start - TimeDelta::days(40), start - TimeDelta::days(39))
    };
    let options = SimulatorOptions {
        start: Some(start),
        google,
        ..SimulatorOptions::default()
    };
    Stage::new(world, options)
}

fn only(stage: &Stage, applications: &[&str]) -> GoogleWorkspaceOptions {
    GoogleWorkspaceOptions {
        applications: Some(applications.iter().map(ToString::to_string).collect()),
        ..stage.google_options()
    }
}

fn caller(stage: &Stage, applications: &[&str], from: DateTime<Utc>) -> Caller {
    let mut caller = stage.google(only(stage, applications));
    caller.start(from);
    caller
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Writes an activity that is listed `late` after it happened; gives its id.
fn write(stage: &Stage, application: &str, when: DateTime<Utc>, late: TimeDelta, n: i64) -> String {
    let body = format!(
        r#"{{"kind":"admin#reports#activity","id":{{"time":"{}","uniqueQualifier":"{n}","applicationName":"{application}","customerId":"C1"}},"actor":{{"email":"a@contoso.example"}},"events":[{{"type":"access","name":"view"}}]}}"#,
        text(when)
    );
    let google = stage.simulator.google();
    google.write("contoso", application, &body, [when, when + late]);
    format!("{}/{n}/{application}", text(when))
}

fn asked(stage: &Stage, part: &str) -> Vec<String> {
    let asked = stage.transport.asked.lock().unwrap();
    asked
        .iter()
        .filter(|url| url.contains(part))
        .cloned()
        .collect()
}

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
async fn more_pages_than_limit_make_narrower_slices_and_quiet_ones_wider_again() {
    let stage = stage(GoogleOptions {
        page_items_max: 1,
        ..GoogleOptions::default()
    });
    let hour = at("2026-03-03T10:00:00Z");
    let ids: Vec<String> = (0..400)
        .map(|n| {
            write(
                &stage,
                "drive",
                hour + TimeDelta::seconds(9 * n),
                TimeDelta::zero(),
                n,
            )
        })
        .collect();
    let mut caller = caller(&stage, &["drive"], hour);
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    for id in &ids {
        assert!(caller.seen.contains_key(id), "{id}");
    }
    // No slice was followed beyond its limit.
    let mut run = 0;
    for url in asked(&stage, "/activity/") {
        run = if url.contains("pageToken") {
            run + 1
        } else {
            1
        };
        assert!(run <= SLICE_PAGES_MAX, "{url}");
    }
    // What comes next is cut narrower at once, so that a finished slice is a finished item.
    let stream = caller.connector.streams()[0].clone();
    let again = |caller: &Caller| {
        let window = exfilwatch_model::Window::new(hour, hour + TimeDelta::hours(2)).unwrap();
        let (connector, stream) = (caller.connector.clone(), stream.clone());
        async move { connector.relist(&stream, window).await.unwrap().len() }
    };
    assert!(again(&caller).await > 2);
    for _ in 0..6 {
        stage.pass(TimeDelta::hours(3)).await;
        caller.poll().await;
    }
    assert_eq!(again(&caller).await, 2, "an hour each, as before");
}

#[tokio::test(start_paused = true)]
async fn a_window_of_one_second_without_end_is_set_aside() {
    let stage = stage(GoogleOptions::default());
    let endless = Endless::default();
    let mut surroundings = stage.surroundings.clone();
    surroundings.transport = Some(Arc::new(endless));
    let stage = Stage {
        surroundings,
        ..stage
    };
    let caller = caller(&stage, &["drive"], at(START) - TimeDelta::hours(2));
    let item = item(&caller, "2026-03-03T10:00:00.000Z/2026-03-03T10:00:01.000Z");
    let read: Vec<_> = caller.connector.fetch(&item).await.unwrap().collect().await;
    let error = read.last().unwrap().as_ref().unwrap_err();
    assert!(matches!(error, FetchError::Poison { .. }), "{error:?}");
    assert!(read.iter().flatten().all(|page| !page.last));
}

/// Always a page, always another one after it.
#[derive(Debug, Default)]
struct Endless(Mutex<u64>);

#[async_trait]
impl Transport for Endless {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        let body = if request.uri().path().ends_with("/token") {
            r#"{"access_token":"t","expires_in":3599}"#.to_owned()
        } else {
            format!(r#"{{"nextPageToken":"t{count}"}}"#)
        };
        let body = stream::iter([Ok(Bytes::from(body))]).boxed();
        Ok(http::Response::new(body))
    }
}

fn item(caller: &Caller, body: &str) -> WorkItem {
    WorkItem {
        stream: caller.connector.streams()[0].clone(),
        key: body.into(),
        body: body.into(),
        from: at(body.split_once('/').unwrap().0),
        expires: None,
        attempts: 0,
        next_try: None,
        last_error: None,
    }
}

/// A Drive with so many events a second, all day. A page holds a tenth of what a real one does and
/// so does the second, which gives as many pages as 500 events a second and pages of 1,000.
#[derive(Debug)]
struct Busy {
    asked: Mutex<usize>,
}

const EVERY_MS: i64 = 20;
const PAGE: i64 = 100;

#[async_trait]
impl Transport for Busy {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        let url: url::Url = request.uri().to_string().parse().unwrap();
        if url.path().ends_with("/token") {
            let body = Bytes::from_static(br#"{"access_token":"t","expires_in":3599}"#);
            return Ok(http::Response::new(stream::iter([Ok(body)]).boxed()));
        }
        *self.asked.lock().unwrap() += 1;
        let value = |name: &str| {
            let found = url.query_pairs().find(|(known, _)| known == name);
            found.map(|(_, value)| value.into_owned())
        };
        let ms = |name: &str| at(&value(name).unwrap()).timestamp_millis();
        let newest = ms("endTime").div_euclid(EVERY_MS);
        let oldest = (ms("startTime") + EVERY_MS - 1).div_euclid(EVERY_MS);
        let first = value("pageToken").map_or(newest, |token| token.parse().unwrap());
        let next = first - PAGE;
        let items: Vec<String> = (oldest.max(next + 1)..=first)
            .rev()
            .map(|n| format!(r#"{{"id":{{"uniqueQualifier":"{n}"}}}}"#))
            .collect();
        let token = if next >= oldest {
            format!(r#","nextPageToken":"{next}""#)
        } else {
            String::new()
        };
        let body = format!(r#"{{"items":[{}]{token}}}"#, items.join(","));
        let body = stream::iter([Ok(Bytes::from(body))]).boxed();
        Ok(http::Response::new(body))
    }
}

/// Reads all items of a listing; gives the numbers of their records.
async fn read_all(connector: &dyn Connector, items: &[WorkItem], seen: &mut Vec<i64>) {
    for item in items {
        let mut pages = connector.fetch(item).await.unwrap();
        let mut last = false;
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            last = page.last;
            for record in &page.records {
                let text = std::str::from_utf8(record.bytes()).unwrap();
                let number = text.split('"').nth(5).unwrap();
                seen.push(number.parse().unwrap());
            }
        }
        assert!(last, "{}", item.key);
    }
}

#[tokio::test(start_paused = true)]
async fn drive_500eps_catches_up_with_an_hour_within_the_quota_and_stays_there() {
    let mut stage = stage(GoogleOptions::default());
    let busy = Arc::new(Busy {
        asked: Mutex::default(),
    });
    stage.surroundings.transport = Some(busy.clone());
    let connector = stage.google(only(&stage, &["drive"])).connector;
    let stream: StreamId = connector.streams()[0].clone();
    let from = at(START) - TimeDelta::hours(1);
    let mut cursor = Cursor {
        covered_until: from,
        state: String::new(),
    };
    let lag = TimeDelta::minutes(3);
    let mut seen = Vec::new();
    let started = stage.simulator.clock().now();
    let mut caught_up = None;
    for _ in 0..200 {
        let listing = connector.list(&stream, &cursor).await.unwrap();
        read_all(&*connector, &listing.items, &mut seen).await;
        cursor = listing.cursor;
        let now = stage.simulator.clock().now();
        if now - cursor.covered_until < lag + TimeDelta::minutes(2) {
            let since = *caught_up.get_or_insert(now);
            if now - since > TimeDelta::minutes(10) {
                break;
            }
            stage.pass(TimeDelta::minutes(1)).await;
        } else {
            assert!(caught_up.is_none(), "fell behind again at {now}");
        }
    }
    let caught_up = caught_up.expect("it catches up") - started;
    assert!(caught_up < TimeDelta::minutes(12), "{caught_up}");
    seen.sort_unstable();
    seen.dedup();
    let first = from.timestamp_millis().div_euclid(EVERY_MS);
    let last = cursor.covered_until.timestamp_millis().div_euclid(EVERY_MS);
    let missing: Vec<i64> = (first..=last)
        .filter(|n| seen.binary_search(n).is_err())
        .take(3)
        .collect();
    assert_eq!(missing, Vec::<i64>::new());
    let minutes = (stage.simulator.clock().now() - started).num_minutes() + 1;
    let asked = i64::try_from(*busy.asked.lock().unwrap()).unwrap();
    assert!(asked <= 600 * minutes + 600, "{asked} in {minutes} minutes");
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
async fn google_clock_skew_10min_in_either_direction_costs_one_refused_assertion_and_no_record() {
    // An assertion of the past is good while it lasts; one of the future is refused.
    for (minutes, assertions) in [(-10, 1), (10, 2)] {
        let mut stage = stage(GoogleOptions::default());
        let wrong = WrongClock(stage.simulator.clock().clone(), TimeDelta::minutes(minutes));
        stage.surroundings.clock = Arc::new(wrong);
        let start = at(START);
        let mut caller = caller(&stage, &["drive"], start - TimeDelta::minutes(30));
        let mut ids = vec![write(
            &stage,
            "drive",
            start - TimeDelta::minutes(20),
            TimeDelta::zero(),
            1,
        )];
        // Inside a window that a fast clock takes for the past.
        ids.push(write(
            &stage,
            "drive",
            start + TimeDelta::minutes(2),
            TimeDelta::zero(),
            2,
        ));
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{minutes}: {:?}", caller.errors);
        assert_eq!(stage.simulator.google().tokens_issued(), 1, "{minutes}");
        assert_eq!(
            stage.simulator.faults().calls(Endpoint::GoogleToken),
            assertions,
            "{minutes}"
        );
        for _ in 0..8 {
            stage.pass(TimeDelta::minutes(2)).await;
            caller.poll().await;
        }
        for id in &ids {
            assert!(caller.seen.contains_key(id), "{minutes}: {id}");
        }
        assert!(caller.open.is_empty(), "{minutes}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_expires_mid_pages_and_the_walk_goes_on_with_the_same_parameters() {
    let stage = stage(GoogleOptions {
        page_items_max: 5,
        ..GoogleOptions::default()
    });
    let from = at(START) - TimeDelta::minutes(50);
    for n in 0..20 {
        write(
            &stage,
            "drive",
            from + TimeDelta::minutes(n),
            TimeDelta::zero(),
            n,
        );
    }
    let mut caller = caller(&stage, &["drive"], from - TimeDelta::minutes(1));
    let stream = caller.connector.streams()[0].clone();
    caller.list(&stream).await;
    let item = caller.open.values().next().unwrap().clone();
    let mut pages = caller.connector.fetch(&item).await.unwrap();
    let mut count = pages.next().await.unwrap().unwrap().records.len();
    stage.simulator.google().drop_tokens();
    while let Some(page) = pages.next().await {
        count += page.unwrap().records.len();
    }
    assert_eq!(count, 20, "every record once, none twice");
    let asked = asked(&stage, "/activity/");
    assert_eq!(
        asked[1], asked[2],
        "the refused page is asked for again as it was"
    );
    assert_eq!(stage.simulator.google().tokens_issued(), 2);
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

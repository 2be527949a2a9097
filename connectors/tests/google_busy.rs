//! More activities than a window can hold: slices, their widths, and catching up within the quota.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use exfilwatch_connectors::google::SLICE_PAGES_MAX;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{Cursor, StreamId, WorkItem};
use exfilwatch_simulator::google::GoogleOptions;
use futures::{StreamExt, stream};
use support::quiet::{START, asked, caller, item, only, quiet as stage, write};
use support::{Caller, Stage, at};

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

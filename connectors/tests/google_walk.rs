//! The walk over the pages of one frozen window, against answers written by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{Page, WorkItem};
use exfilwatch_simulator::{SimulatorOptions, WorldOptions};
use futures::{StreamExt, stream};
use support::{Caller, GOOGLE, Stage, at};

/// Gives these bodies for the pages, one after the other, and the last one for ever.
#[derive(Debug)]
struct Pages {
    bodies: Vec<String>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Pages {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        let url = request.uri().to_string();
        let body = if url.ends_with("/token") {
            r#"{"access_token":"t","expires_in":3599}"#.to_owned()
        } else {
            let mut asked = self.asked.lock().unwrap();
            asked.push(url);
            self.bodies[(asked.len() - 1).min(self.bodies.len() - 1)].clone()
        };
        let body = stream::iter([Ok(Bytes::from(body))]).boxed();
        Ok(http::Response::new(body))
    }
}

fn window(bodies: &[&str]) -> (Arc<Pages>, Caller, WorkItem) {
    let until = at("2026-03-03T12:00:00Z");
    let world = WorldOptions {
        records_per_day: 10,
        ..WorldOptions::new(1, until - TimeDelta::days(1), until)
    };
    let mut stage = Stage::new(world, SimulatorOptions::default());
    let pages = Arc::new(Pages {
        bodies: bodies.iter().map(ToString::to_string).collect(),
        asked: Mutex::default(),
    });
    stage.surroundings.transport = Some(pages.clone());
    let mut options = stage.google_options();
    options.applications = Some(vec!["drive".into()]);
    let caller = stage.google(options);
    let item = WorkItem {
        stream: caller.connector.streams()[0].clone(),
        key: "k".into(),
        body: "2026-03-03T10:00:00.000Z/2026-03-03T11:00:00.000Z".into(),
        from: at("2026-03-03T10:00:00Z"),
        expires: None,
        attempts: 0,
        next_try: None,
        last_error: None,
    };
    (pages, caller, item)
}

async fn read(connector: &dyn Connector, item: &WorkItem) -> Vec<Result<Page, FetchError>> {
    connector.fetch(item).await.unwrap().collect().await
}

const ITEM: &str = r#"{"id":{"time":"2026-03-03T10:30:00.000Z","uniqueQualifier":"-1"}}"#;

fn page(items: usize, next: Option<&str>) -> String {
    let items = vec![ITEM; items].join(",");
    let next = next.map_or_else(String::new, |token| {
        format!(r#","nextPageToken":"{token}""#)
    });
    format!(r#"{{"kind":"admin#reports#activities","items":[{items}]{next}}}"#)
}

#[tokio::test(start_paused = true)]
async fn params_constant_over_pages_and_only_the_last_page_is_last() {
    let empty = r#"{"kind":"k","nextPageToken":"a+b/c="}"#;
    let (pages, caller, item) = window(&[&page(1_000, Some("t 1")), empty, &page(3, None)]);
    let read = read(&*caller.connector, &item).await;
    let shown: Vec<(usize, bool)> = read
        .iter()
        .map(|p| p.as_ref().unwrap())
        .map(|p| (p.records.len(), p.last))
        .collect();
    assert_eq!(shown, [(1_000, false), (0, false), (3, true)]);
    let first = format!(
        "{GOOGLE}/admin/reports/v1/activity/users/all/applications/drive\
         ?startTime=2026-03-03T10:00:00.000Z&endTime=2026-03-03T11:00:00.000Z&maxResults=1000"
    );
    let expected = [
        first.clone(),
        format!("{first}&pageToken=t+1"),
        format!("{first}&pageToken=a%2Bb%2Fc%3D"),
    ];
    assert_eq!(*pages.asked.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_was_left_begins_again_at_the_first_page_without_a_token() {
    let (pages, caller, item) = window(&[&page(2, Some("t1")), &page(2, None)]);
    let mut left = caller.connector.fetch(&item).await.unwrap();
    assert!(!left.next().await.unwrap().unwrap().last);
    drop(left);
    let again = read(&*caller.connector, &item).await;
    assert!(again.last().unwrap().as_ref().unwrap().last);
    assert!(!pages.asked.lock().unwrap()[1].contains("pageToken"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_ends_or_repeats_itself_is_left() {
    let long = "x".repeat(5_000);
    for (bodies, word) in [
        (
            vec![
                page(1, Some("t1")),
                page(1, Some("t2")),
                page(1, Some("t1")),
            ],
            "twice",
        ),
        (vec![page(1, Some("same"))], "twice"),
        (vec![page(1, Some(&long))], "too long"),
        (vec!["[]".to_owned()], "not a whole page"),
        (vec![page(1, None).replace("]}", "")], "not a whole page"),
    ] {
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        let (_, caller, item) = window(&bodies);
        let read = read(&*caller.connector, &item).await;
        let error = read.last().unwrap().as_ref().unwrap_err();
        assert!(matches!(error, FetchError::Retry { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(read.iter().flatten().all(|page| !page.last));
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_names_no_window_is_poison() {
    let (_, caller, mut item) = window(&[&page(0, None)]);
    item.body = "nonsense".into();
    let error = caller.connector.fetch(&item).await.err().unwrap();
    assert!(matches!(error, FetchError::Poison { .. }));
}

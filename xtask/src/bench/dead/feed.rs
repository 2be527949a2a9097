//! A tenant's audit log: so many records a minute of a clock that only the benchmark moves, made when
//! they are fetched.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{Connector, FetchError, Listing, PageStream, RecordReader, Standing};
use exfilwatch_model::{Clock, Cursor, Page, RawRecord, StreamId, Window, WorkItem};
use futures::StreamExt;

/// What stands before a record's number.
pub(super) const ID_PREFIX: &[u8] = br#""Id":"dead0000-0000-4000-8000-"#;
/// Records of a blob: some of them at most are under way when fetching is paused.
const BLOB_RECORDS: usize = 1_000;
/// So many times shorter than on this clock are waits.
const WAITS_SHORTER: u32 = 60;

/// Moved by the benchmark only.
#[derive(Debug)]
pub(super) struct StandingClock(Mutex<DateTime<Utc>>);

impl StandingClock {
    pub(super) fn new(at: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(at)))
    }

    pub(super) fn pass(&self, time: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }
}

impl Clock for StandingClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn real(&self, wait: Duration) -> Duration {
        wait / WAITS_SHORTER
    }
}

/// Records without their time and id, which come first in each.
pub(super) fn templates(file: &Path, count: usize) -> Result<Arc<[String]>> {
    let lines = BufReader::new(File::open(file)?).lines().take(count);
    let template = |line: std::io::Result<String>| {
        let line = line?;
        let (_, after) = line
            .split_once(r#""Id":""#)
            .context("a record without an id")?;
        let (_, rest) = after.split_once('"').context("an id without an end")?;
        Ok(rest.to_owned())
    };
    lines.map(template).collect()
}

/// The log of a tenant.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) stream: StreamId,
    pub(super) a_minute: usize,
    pub(super) begins: DateTime<Utc>,
    pub(super) minutes: usize,
    pub(super) clock: Arc<StandingClock>,
    pub(super) reader: Arc<dyn RecordReader>,
    pub(super) templates: Arc<[String]>,
    /// Records that were asked for.
    pub(super) fetched: AtomicUsize,
}

impl Feed {
    pub(super) fn records(&self) -> usize {
        self.a_minute * self.minutes
    }

    fn minute(&self, minute: usize) -> DateTime<Utc> {
        self.begins + TimeDelta::minutes(i64::try_from(minute).unwrap_or(i64::MAX))
    }

    fn items(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<WorkItem> {
        let minutes = (0..self.minutes).map(|minute| (minute, self.minute(minute)));
        let due = minutes.filter(|(_, at)| from <= *at && *at < until);
        let blobs = due.flat_map(|(minute, at)| {
            let records = minute * self.a_minute..(minute + 1) * self.a_minute;
            records.step_by(BLOB_RECORDS).map(move |first| (first, at))
        });
        let item = |(first, at): (usize, DateTime<Utc>)| WorkItem {
            stream: self.stream.clone(),
            key: format!("blob-{first}"),
            body: first.to_string(),
            from: at,
            expires: Some(at + TimeDelta::days(7)),
            attempts: 0,
            next_try: None,
            last_error: None,
        };
        blobs.map(item).collect()
    }
}

/// The record of a number.
fn record(templates: &[String], number: usize, at: DateTime<Utc>) -> RawRecord {
    let rest = templates.get(number % templates.len().max(1));
    let rest = rest.map_or("}", String::as_str);
    let id = String::from_utf8_lossy(ID_PREFIX);
    let time = at.format("%Y-%m-%dT%H:%M:%S");
    let text = format!(r#"{{"CreationTime":"{time}",{id}{number:012}"{rest}"#);
    RawRecord::new(Bytes::from(text))
}

#[async_trait]
impl Connector for Feed {
    fn kind(&self) -> &'static str {
        "office365"
    }

    fn streams(&self) -> Vec<StreamId> {
        vec![self.stream.clone()]
    }

    fn quota_key(&self) -> String {
        format!("office365/{}", self.stream.tenant())
    }

    fn settle(&self, _stream: &StreamId) -> TimeDelta {
        TimeDelta::days(1)
    }

    fn first_cursor(&self, _stream: &StreamId, window: Window) -> Cursor {
        Cursor {
            covered_until: window.from(),
            state: String::new(),
        }
    }

    async fn list(&self, _stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError> {
        let until = (self.clock.now() - TimeDelta::minutes(1)).max(cursor.covered_until);
        Ok(Listing {
            items: self.items(cursor.covered_until, until),
            cursor: Cursor {
                covered_until: until,
                state: String::new(),
            },
            gaps: Vec::new(),
            more: false,
            standing: Standing::Flowing,
        })
    }

    async fn relist(
        &self,
        _stream: &StreamId,
        window: Window,
    ) -> Result<Vec<WorkItem>, FetchError> {
        Ok(self.items(window.from(), window.until()))
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        let first: usize = item.body.parse().unwrap_or(0);
        let minute_end = (first / self.a_minute + 1) * self.a_minute;
        let numbers = first..(first + BLOB_RECORDS).min(minute_end);
        self.fetched.fetch_add(numbers.len(), Ordering::SeqCst);
        let page = Page {
            stream: self.stream.clone(),
            item: item.key.clone(),
            records: numbers
                .map(|number| record(&self.templates, number, item.from))
                .collect(),
            malformed: Vec::new(),
            fetched_at: self.clock.now(),
            last: true,
        };
        Ok(futures::stream::iter([Ok(page)]).boxed())
    }

    fn records(&self) -> &dyn RecordReader {
        &*self.reader
    }
}

//! A vendor that publishes blobs when the test says so, and fails as it says.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch_connectors::{
    Connector, FetchError, Listing, PageStream, RecordReader, Standing, Withheld,
};
use exfilwatch_model::{Cursor, Gap, Malformed, Page, RawRecord, StreamId, Window, WorkItem};

use crate::process::TestClock;

/// What fetching a blob gives.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Records with these ids.
    Records(Vec<String>),
    /// A record, and bytes that are none.
    Malformed(String),
    /// It is no more.
    Gone,
    /// It can never be read.
    Poison,
    /// The vendor fails.
    Fails,
    /// The vendor does not answer.
    Hangs,
}

#[derive(Debug, Clone)]
struct Blob {
    at: DateTime<Utc>,
    /// Not listed before.
    shown_from: DateTime<Utc>,
    content: Content,
}

#[derive(Debug, Default)]
pub(crate) struct Script {
    blobs: Vec<Blob>,
    /// Each listing ends with it.
    pub(crate) error: Option<FetchError>,
    /// It is not given to us.
    pub(crate) withheld: bool,
    /// Reported by the next listing.
    pub(crate) gaps: Vec<Gap>,
    /// Listings answered.
    pub(crate) listings: usize,
    /// Spans listed again.
    pub(crate) relisted: Vec<Window>,
}

/// One content type of one tenant.
#[derive(Debug)]
pub(crate) struct Vendor {
    clock: Arc<TestClock>,
    reader: Arc<dyn RecordReader>,
    script: Mutex<Script>,
}

pub(crate) fn stream() -> StreamId {
    "contoso/office365/Audit.General".parse().unwrap()
}

impl Vendor {
    pub(crate) fn new(clock: Arc<TestClock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            reader: app::readers(&["contoso.example"], &[]).m365,
            script: Mutex::default(),
        })
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// A blob that became available at `at` and was listed at once.
    pub(crate) fn publish(&self, at: DateTime<Utc>, content: Content) {
        self.publish_late(at, at, content);
    }

    /// A blob that became available at `at`, but is listed only from `shown_from` on.
    pub(crate) fn publish_late(
        &self,
        at: DateTime<Utc>,
        shown_from: DateTime<Utc>,
        content: Content,
    ) {
        self.script().blobs.push(Blob {
            at,
            shown_from,
            content,
        });
    }

    /// One record.
    pub(crate) fn record(&self, at: DateTime<Utc>, id: &str) {
        self.publish(at, Content::Records(vec![id.to_owned()]));
    }

    /// What failed so far is no more.
    pub(crate) fn drop_failing(&self) {
        for blob in &mut self.script().blobs {
            if matches!(blob.content, Content::Fails) {
                blob.content = Content::Gone;
            }
        }
    }

    /// What failed so far works from now on.
    pub(crate) fn heal(&self, id: &str) {
        for blob in &mut self.script().blobs {
            if matches!(blob.content, Content::Fails | Content::Hangs) {
                blob.content = Content::Records(vec![id.to_owned()]);
            }
        }
    }

    fn items(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<WorkItem> {
        let now = self.clock.now();
        let script = self.script();
        let listed = script
            .blobs
            .iter()
            .enumerate()
            .filter(|(_, blob)| from <= blob.at && blob.at < until && blob.shown_from <= now);
        let item = |(number, blob): (usize, &Blob)| WorkItem {
            stream: stream(),
            key: format!("blob-{number}"),
            body: number.to_string(),
            from: blob.at,
            expires: Some(blob.at + TimeDelta::days(7)),
            attempts: 0,
            next_try: None,
            last_error: None,
        };
        listed.map(item).collect()
    }
}

fn record(id: &str) -> RawRecord {
    let text = format!(
        r#"{{"Id":"{id}","CreationTime":"2026-05-04T05:00:00","Operation":"Nothing","RecordType":6,"UserId":"a@contoso.example","Workload":"SharePoint"}}"#
    );
    RawRecord::new(Bytes::from(text))
}

#[async_trait]
impl Connector for Vendor {
    fn kind(&self) -> &'static str {
        "office365"
    }

    fn streams(&self) -> Vec<StreamId> {
        vec![stream()]
    }

    fn quota_key(&self) -> String {
        "office365/test".to_owned()
    }

    /// As late as Google's.
    fn settle(&self, _stream: &StreamId) -> TimeDelta {
        TimeDelta::days(4)
    }

    fn first_cursor(&self, _stream: &StreamId, window: Window) -> Cursor {
        Cursor {
            covered_until: window.from(),
            state: String::new(),
        }
    }

    async fn list(&self, _stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError> {
        if let Some(error) = self.script().error.clone() {
            return Err(error);
        }
        if let Some(withheld) = self.withheld(&stream()).await {
            self.script().listings += 1;
            return Ok(Listing {
                items: Vec::new(),
                cursor: cursor.clone(),
                gaps: Vec::new(),
                more: false,
                standing: Standing::Withheld(withheld),
            });
        }
        let until = (self.clock.now() - TimeDelta::minutes(1)).max(cursor.covered_until);
        let items = self.items(cursor.covered_until, until);
        let mut script = self.script();
        script.listings += 1;
        Ok(Listing {
            items,
            cursor: Cursor {
                covered_until: until,
                state: String::new(),
            },
            gaps: std::mem::take(&mut script.gaps),
            more: false,
            standing: Standing::Flowing,
        })
    }

    async fn withheld(&self, _stream: &StreamId) -> Option<Withheld> {
        self.script().withheld.then(|| Withheld {
            what: "the scope is not delegated".to_owned(),
            help: "delegate it".to_owned(),
        })
    }

    async fn relist(
        &self,
        _stream: &StreamId,
        window: Window,
    ) -> Result<Vec<WorkItem>, FetchError> {
        if let Some(error) = self.script().error.clone() {
            return Err(error);
        }
        self.script().relisted.push(window);
        Ok(self.items(window.from(), window.until()))
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        let number: usize = item.body.parse().unwrap();
        let content = self.script().blobs[number].content.clone();
        let what = format!("blob {number}");
        let (records, malformed) = match content {
            Content::Records(ids) => (ids, vec![]),
            Content::Malformed(id) => (
                vec![id],
                vec![Malformed {
                    bytes: Bytes::from(format!("no record {number}")),
                    reason: "not a JSON object".to_owned(),
                }],
            ),
            Content::Gone => return Err(FetchError::Gone { what }),
            Content::Poison => return Err(FetchError::Poison { what }),
            Content::Hangs => std::future::pending().await,
            Content::Fails => return Err(FetchError::Retry { what, after: None }),
        };
        let page = Page {
            stream: stream(),
            item: item.key.clone(),
            records: records.iter().map(|id| record(id)).collect(),
            malformed,
            fetched_at: self.clock.now(),
            last: true,
        };
        Ok(Box::pin(futures::stream::iter([Ok(page)])))
    }

    fn records(&self) -> &dyn RecordReader {
        &*self.reader
    }
}

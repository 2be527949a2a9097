//! Reads the pages of a search that has ended.
//!
//! The service's paging is not to be trusted: the same search read twice was seen to give other counts
//! (langwatch PR 7142, 2026-08), a page to fail or to break off in the middle after some 20,000 records
//! (msgraph-sdk-powershell issues 2677 and 2927), a page to be short and not the last
//! (microsoft-graph-docs issue 16188). So:
//!
//! - only a page without a link to the next one is the last, however short the others are;
//! - a page that fails restarts the reading from its first page, with smaller pages, not the search;
//! - what a reading gives twice, or a count that is not what the service says it should be, makes
//!   the search be read once more, until a reading brings nothing new; their union is the answer.
//!   Where no reading is the same as another, the search counts as cut.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use exfilwatch_model::{Page, WorkItem};
use futures::{StreamExt, stream};

use super::record::unwrapped;
use super::streams::{READ_ALL, belongs};
use super::{CollectionPage, Graph, Question};
use crate::kernel::client::{Refusal, broken};
use crate::kernel::pages::PageMaker;
use crate::kernel::words::shown_bytes;
use crate::{FetchError, PageStream};

/// Records of a search at which it counts as cut where the service names no limit of its own.
pub(super) const RECORDS_MAX: u64 = 1_000_000;
/// Records asked for in a page.
const PAGE_RECORDS: u32 = 1_000;
/// Fewest that are asked for when larger pages fail.
const PAGE_RECORDS_MIN: u32 = 50;
/// Pages of one reading: of the smallest size they hold more than [`RECORDS_MAX`].
const PAGES_MAX: usize = 25_000;
/// Times that readings of a search begin again because a page failed.
const RESTARTS_MAX: u32 = 6;
/// Readings of a search; if the last still brought something new, the search counts as cut.
const READINGS_MAX: u32 = 4;
/// Times in a row that the service may ask for a pause.
const PAUSES_MAX: u32 = 10;
/// How far the count may be from what the service says it is about: one in so many.
const COUNT_TOLERANCE: u64 = 100;
/// First pause before a reading begins again; doubled each time …
const RESTART_PAUSE: Duration = Duration::from_secs(10);
/// … up to this. Also where the service asks for a pause and does not say how long.
const PAUSE_LONGEST: Duration = Duration::from_mins(2);

/// What the service says of the number of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// About so many there are.
    pub(super) approximately: Option<u64>,
    /// More it would not give.
    pub(super) limit: Option<u64>,
}

/// What a finished reading calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Whole,
    Again,
    Unstable,
}

struct Reading {
    graph: Arc<Graph>,
    records: String,
    counts: Counts,
    what: String,
    /// The stream's name.
    stream: String,
    /// Path of the page to read next; `None` when all is read.
    next: Option<String>,
    /// Links of this reading, for one that leads back.
    links: HashSet<String>,
    page_records: u32,
    /// Digests of what all readings brought: eight bytes a record, as many as the limit.
    seen: HashSet<u64>,
    /// Elements of this reading …
    elements: u64,
    /// … and those of them that no reading brought before.
    fresh: u64,
    readings: u32,
    restarts: u32,
    pauses: u32,
    maker: PageMaker,
    ready: VecDeque<Page>,
}

/// The pages of a search. `records` is the path of its records.
pub(super) fn pages(
    graph: Arc<Graph>,
    item: &WorkItem,
    records: &str,
    counts: Counts,
    what: String,
) -> PageStream {
    let mut reading = Reading {
        graph,
        records: records.to_owned(),
        counts,
        what,
        stream: item.stream.name().to_owned(),
        next: None,
        links: HashSet::new(),
        page_records: PAGE_RECORDS,
        seen: HashSet::new(),
        elements: 0,
        fresh: 0,
        readings: 0,
        restarts: 0,
        pauses: 0,
        maker: PageMaker::new(item.stream.clone(), item.key.clone()),
        ready: VecDeque::new(),
    };
    reading.begin();
    stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.page().await?.map(|page| (page, reading)))
    })
    .boxed()
}

impl Reading {
    async fn page(&mut self) -> Result<Option<Page>, FetchError> {
        while self.ready.is_empty() {
            let Some(path) = self.next.clone() else {
                return Ok(None);
            };
            match self.read(&path).await {
                Ok(body) => self.take(&body).await?,
                Err(refusal) => self.failed(refusal).await?,
            }
        }
        Ok(self.ready.pop_front())
    }

    async fn read(&self, path: &str) -> Result<Bytes, Refusal> {
        let question = Question {
            path,
            what: &self.what,
            permission: READ_ALL,
        };
        self.graph.get(question).await
    }

    async fn take(&mut self, body: &Bytes) -> Result<(), FetchError> {
        self.pauses = 0;
        let Ok(page) = serde_json::from_slice::<CollectionPage<'_>>(body) else {
            // The end, where a page breaks off, says more than its beginning.
            let tail = body.get(body.len().saturating_sub(100)..).unwrap_or(body);
            let why = format!("a page is not whole JSON; it ends in {}", shown_bytes(tail));
            return self.restart(&why, true).await;
        };
        let now = self.graph.client().wire().clock().now();
        for element in page.value {
            let record = unwrapped(body, element);
            self.elements += 1;
            if !self.seen.insert(record.digest) {
                continue;
            }
            self.fresh += 1;
            if belongs(&self.stream, record.record_type.as_deref()) {
                self.ready.extend(self.maker.add(record.element, now));
            }
        }
        let limit = self.counts.limit.unwrap_or(RECORDS_MAX);
        if self.seen.len() as u64 >= limit {
            return Err(self.truncated(&format!(
                "it gave {limit} records, which is the most it gives"
            )));
        }
        match page.next {
            Some(link) => self.follow(&link).await,
            None => self.ended(),
        }
    }

    async fn follow(&mut self, link: &str) -> Result<(), FetchError> {
        match self.graph.next_path(link, &self.what) {
            Ok(path) if self.links.len() < PAGES_MAX && self.links.insert(path.clone()) => {
                self.next = Some(path);
                Ok(())
            }
            Ok(_) => {
                self.restart("the link to the next page came twice", false)
                    .await
            }
            Err(why) => self.restart(&why.to_string(), false).await,
        }
    }

    /// The last page of a reading has been read.
    fn ended(&mut self) -> Result<(), FetchError> {
        self.readings += 1;
        match self.verdict() {
            Verdict::Again => self.begin(),
            Verdict::Unstable => {
                let why = format!("{READINGS_MAX} readings brought something new each");
                return Err(self.truncated(&why));
            }
            Verdict::Whole => {
                if self.is_off() {
                    tracing::warn!(
                        search = %self.what, records = self.seen.len(), said = ?self.counts.approximately,
                        "two readings agree, but not with the count the service gives"
                    );
                }
                self.next = None;
                let now = self.graph.client().wire().clock().now();
                self.ready.push_back(self.maker.cut(now, true));
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Verdict {
        let stable = if self.readings == 1 {
            self.elements == self.fresh && !self.is_off()
        } else {
            self.fresh == 0
        };
        match stable {
            true => Verdict::Whole,
            false if self.readings < READINGS_MAX => Verdict::Again,
            false => Verdict::Unstable,
        }
    }

    /// Whether the count is not about what the service says. Where it says nothing, nothing is sure.
    fn is_off(&self) -> bool {
        let said = self.counts.approximately;
        said.is_none_or(|said| said.abs_diff(self.seen.len() as u64) * COUNT_TOLERANCE > said)
    }

    /// From the first page.
    fn begin(&mut self) {
        self.links.clear();
        self.elements = 0;
        self.fresh = 0;
        self.next = Some(format!("{}?$top={}", self.records, self.page_records));
    }

    async fn failed(&mut self, refusal: Refusal) -> Result<(), FetchError> {
        let why = refusal.to_string();
        let first = self.links.is_empty();
        match refusal.error {
            FetchError::Throttled { after, .. } if self.pauses < PAUSES_MAX => {
                self.pauses += 1;
                self.wait(after.unwrap_or(PAUSE_LONGEST)).await;
                Ok(())
            }
            FetchError::Hold { .. } if is_about_page_size(&why) && self.shrink() => {
                self.begin();
                Ok(())
            }
            // Too large, or the server failed over it.
            FetchError::Retry { .. } | FetchError::Poison { .. } => self.restart(&why, true).await,
            // A link has expired.
            FetchError::Hold { .. } | FetchError::Gone { .. } if !first => {
                self.restart(&why, false).await
            }
            error => Err(error),
        }
    }

    async fn restart(&mut self, why: &str, smaller: bool) -> Result<(), FetchError> {
        if self.restarts >= RESTARTS_MAX {
            let why = format!("begun again {RESTARTS_MAX} times: {why}");
            return Err(broken(&self.what, &why));
        }
        tracing::debug!(search = %self.what, why, "reading begins again");
        let pause = RESTART_PAUSE * 2_u32.saturating_pow(self.restarts);
        self.restarts += 1;
        if smaller {
            self.shrink();
        }
        self.wait(pause.min(PAUSE_LONGEST)).await;
        self.begin();
        Ok(())
    }

    /// Halves the pages; false where they are as small as they get.
    fn shrink(&mut self) -> bool {
        let before = self.page_records;
        self.page_records = (before / 2).max(PAGE_RECORDS_MIN);
        self.page_records < before
    }

    async fn wait(&self, pause: Duration) {
        let clock = self.graph.client().wire().clock();
        tokio::time::sleep(clock.real(pause)).await;
    }

    fn truncated(&self, why: &str) -> FetchError {
        FetchError::Truncated {
            what: format!("{}: {why}", self.what),
        }
    }
}

/// "The limit of '50' for Top query has been exceeded."
fn is_about_page_size(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("$top") || words.contains("top query") || words.contains("page size")
}

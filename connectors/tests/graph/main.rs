//! The audit log searched through Microsoft Graph: what is found is what the feed would have brought,
//! however the service pages, cuts and fails, and what cannot be found is said.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod identity;
mod pages;
mod searches;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use exfilwatch_connectors::options::{AuditSearch, Cloud, Office365Options, RecordIdentity};
use exfilwatch_connectors::{Archive, Connector, FetchError, PageStream};
use exfilwatch_model::{StreamId, Window, WorkItem};
use exfilwatch_simulator::microsoft::{AuditDataId, GraphHabits, ROLE_AUDIT_ALL};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use futures::StreamExt;
use support::{Caller, Stage, at};

const GENERAL: &str = "Audit.General";

fn world() -> WorldOptions {
    let from = at("2026-03-03T00:00:00Z");
    WorldOptions {
        records_per_day: 900,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(9, from, from + TimeDelta::days(1))
    }
}

fn day() -> Window {
    Window::new(world().from, world().until).unwrap()
}

/// The day has passed, and everything is there.
fn stage() -> Stage {
    let mut options = SimulatorOptions {
        start: Some(world().until + TimeDelta::hours(2)),
        ..SimulatorOptions::default()
    };
    options.microsoft.subscribed = true;
    Stage::new(world(), options)
}

/// The same, eight days later: the feed no longer has it.
async fn old_stage(change: impl FnOnce(&mut GraphHabits)) -> Stage {
    let stage = stage();
    stage.simulator.microsoft().change_graph(change);
    stage.pass(TimeDelta::days(8)).await;
    stage
}

fn stream(connector: &dyn Connector, name: &str) -> StreamId {
    let mut streams = connector.streams().into_iter();
    streams.find(|stream| stream.name() == name).unwrap()
}

/// Identities as the seen index has them, by record id, and how often each came.
type Seen = BTreeMap<(String, u64), usize>;

/// Reads pages to their last one, or to an error.
async fn read(
    connector: &dyn Connector,
    mut pages: PageStream,
    seen: &mut Seen,
) -> Result<(), FetchError> {
    let mut last = false;
    while let Some(page) = pages.next().await {
        let page = page?;
        assert!(!last, "a page after the last");
        assert!(page.malformed.is_empty(), "{:?}", page.malformed);
        last = page.last;
        for record in &page.records {
            let head = connector.records().head(record).unwrap();
            let identity = (head.id_text(), head.fingerprint(&[3; 16]));
            *seen.entry(identity).or_default() += 1;
        }
    }
    assert!(last, "no last page");
    Ok(())
}

/// The smallest caller an archive can have: halves what is cut, submits again what is gone.
struct Searcher<'c> {
    connector: &'c dyn Connector,
    seen: Seen,
    gaps: Vec<Window>,
    submissions: usize,
    /// Whether what stays cut is searched part by part.
    by_part: bool,
}

impl<'c> Searcher<'c> {
    fn new(caller: &'c Caller) -> Self {
        Self {
            connector: &*caller.connector,
            seen: Seen::new(),
            gaps: Vec::new(),
            submissions: 0,
            by_part: true,
        }
    }

    fn archive(&self) -> &'c dyn Archive {
        self.connector.archive().unwrap()
    }

    async fn search(&mut self, stream: &StreamId, window: Window) -> WorkItem {
        self.submissions += 1;
        self.archive().search(stream, window).await.unwrap()
    }

    async fn span(&mut self, stream: &StreamId, span: Window) {
        let mut open = vec![span];
        while let Some(window) = open.pop() {
            let item = self.search(stream, window).await;
            let outcome = self.fetch(&item).await;
            match outcome {
                Ok(()) => {}
                Err(FetchError::Truncated { .. }) => match self.archive().limits().halves(window) {
                    Some(halves) => open.extend(halves),
                    None if self.by_part => self.by_part(stream, window).await,
                    None => self.gaps.push(window),
                },
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    async fn by_part(&mut self, stream: &StreamId, window: Window) {
        let parts = self.archive().parts(stream);
        let mut missing = parts.is_empty();
        for part in parts {
            self.submissions += 1;
            let item = self
                .archive()
                .search_part(stream, window, Some(&part))
                .await;
            match self.fetch(&item.unwrap()).await {
                Ok(()) => {}
                Err(FetchError::Truncated { .. }) => missing = true,
                Err(other) => panic!("{other:?}"),
            }
        }
        if missing {
            self.gaps.push(window);
        }
    }

    async fn fetch(&mut self, item: &WorkItem) -> Result<(), FetchError> {
        let pages = self.archive().fetch(item).await?;
        read(self.connector, pages, &mut self.seen).await
    }

    fn ids(&self) -> BTreeSet<String> {
        self.seen.keys().map(|(id, _)| id.clone()).collect()
    }
}

/// What the feed brings of the day.
async fn feed(stage: &Stage, options: Office365Options) -> Seen {
    let mut caller = stage.office365(options);
    caller.start(world().from);
    let mut seen = Seen::new();
    for stream in caller.connector.streams() {
        caller.list(&stream).await;
    }
    for item in caller.open.values() {
        let pages = caller.connector.fetch(item).await.unwrap();
        read(&*caller.connector, pages, &mut seen).await.unwrap();
    }
    seen
}

/// Ids of the sheet's records of a stream.
fn due(stage: &Stage, stream: &str) -> BTreeSet<String> {
    let stream = format!("office365/{stream}");
    let records = stage.simulator.sheet().records.iter();
    let own = records.filter(|record| *record.stream == *stream);
    own.map(|record| record.id.clone()).collect()
}

/// Searches the day for one stream, and expects all of it, once each.
async fn all_of(stage: &Stage, name: &str) -> usize {
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, name);
    searcher.span(&stream, day()).await;
    let due = due(stage, name);
    assert!(due.len() > 30, "only {} records of {name}", due.len());
    assert_eq!(searcher.ids(), due);
    assert!(searcher.gaps.is_empty());
    searcher.submissions
}

fn faults(stage: &Stage, rules: Vec<FaultRule>) {
    stage.faults(FaultScript { seed: 1, rules });
}

//! What a fetch means for the store: its pages, the item as finished, tried or given up.

use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;
use exfilwatch_model::{Gap, GapCause, GapState, Page, Window, WorkItem};
use exfilwatch_state::{Commit, Quarantined, StateError};
use tokio::sync::oneshot;

use super::Session;
use super::take::After;
use crate::pipeline::worklist::{DONE_KEPT_MAX, ItemKey, after_failure, done_item, key_of};

/// What an item may hold when it has no expiry of its own to tell (google: windows of an hour).
const WINDOW_SPAN: TimeDelta = TimeDelta::hours(1);
/// Tries of one item that hold its stream when they are refused. One that is refused over and over
/// while others come says nothing of its stream, and must not stop it.
const HOLDS_BY_ITEM_MAX: u32 = 3;

impl Session<'_> {
    pub(super) fn page(&mut self, item: ItemKey, page: &Page, reply: oneshot::Sender<()>) {
        let Some(connector) = self.by_stream.get(&page.stream) else {
            return;
        };
        let products = vec![connector.records().product(); page.records.len()];
        if !page.records.is_empty()
            && let Some(listed_at) = self.work.item(&item).map(|item| item.from)
        {
            self.heard(&page.stream, listed_at);
        }
        let with = if page.last {
            self.done(&item)
        } else {
            Commit::default()
        };
        self.ingest.stage_page(page, &products, with);
        // A page says nothing of a listing that is refused.
        if self
            .held
            .get(&page.stream)
            .is_some_and(|hold| hold.by_fetch)
        {
            self.works_again(&page.stream);
        }
        self.after.push(After::Page {
            item,
            last: page.last,
            reply,
        });
    }

    /// The item as finished, remembered as long as the vendor may list it again.
    pub(super) fn done(&self, key: &ItemKey) -> Commit {
        let now = self.shared.clock.now();
        let item = self.work.item(key).into_iter();
        Commit {
            done: item.map(|item| done_item(item, now)).collect(),
            ..Commit::default()
        }
    }

    pub(super) fn ended(
        &mut self,
        key: &ItemKey,
        outcome: Result<(), FetchError>,
    ) -> Result<(), StateError> {
        self.work.release(key);
        let Err(error) = outcome else { return Ok(()) };
        let now = self.shared.clock.now();
        let Some(item) = self.work.item(key).cloned() else {
            return Ok(());
        };
        match &error {
            FetchError::Gone { what } => self.give_up(&item, what, GapState::Lost, None)?,
            FetchError::Poison { what } => {
                let (stream, key) = (item.stream.clone(), item.key.clone());
                let body = item.body.clone().into();
                let entry = Quarantined::new(stream, key, what.clone(), now, body);
                self.give_up(&item, what, GapState::Open, Some(entry))?;
            }
            FetchError::Throttled { after, .. } => {
                let asked = after.and_then(|after| TimeDelta::from_std(after).ok());
                let wait = asked.unwrap_or(TimeDelta::seconds(30));
                self.work.put([WorkItem {
                    next_try: Some(now + wait),
                    ..item
                }]);
            }
            _ => {
                let tried = after_failure(&item, now, &error.to_string(), rand_share());
                let with = Commit {
                    work: vec![tried.clone()],
                    ..Commit::default()
                };
                self.ingest.stage_commit(with);
                self.after.push(After::Tried(tried));
                let error = if item.attempts < HOLDS_BY_ITEM_MAX {
                    error
                } else {
                    let what = error.to_string();
                    FetchError::Retry { what, after: None }
                };
                self.failed(&item.stream, &error, true);
            }
        }
        Ok(())
    }

    /// The item cannot be had: the ledger says so, and the item is finished.
    pub(super) fn give_up(
        &mut self,
        item: &WorkItem,
        what: &str,
        state: GapState,
        quarantined: Option<Quarantined>,
    ) -> Result<(), StateError> {
        let key = key_of(item);
        tracing::error!(stream = %item.stream, item = %item.key, reason = %what, "item given up");
        let mut with = self.done(&key);
        for done in &mut with.done {
            done.given_up = true;
        }
        with.quarantined.extend(quarantined);
        let is_blob = item
            .expires
            .is_some_and(|at| at - item.from < DONE_KEPT_MAX);
        let span = if is_blob {
            TimeDelta::seconds(1)
        } else {
            WINDOW_SPAN
        };
        if let Some(window) = Window::new(item.from, item.from + span) {
            let stream = item.stream.clone();
            let reason = format!("item {} of {stream} could not be fetched: {what}", item.key);
            let found_at = self.shared.clock.now();
            let gap = Gap::new(
                stream,
                window,
                (state, GapCause::NotFetched),
                &reason,
                found_at,
            );
            self.note_gap(gap)?;
        }
        self.ingest.stage_commit(with);
        self.after.push(After::Finished(key));
        Ok(())
    }
}

fn rand_share() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

//! The items of a slice, fetched several at a time and committed together as they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use exfilwatch_connectors::kernel::limit::as_job;
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{StreamId, WorkItem};
use exfilwatch_state::Commit;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::JobError;
use super::account::SliceAccount;
use super::calls::{TRIES_MAX, interruptible, refused, wait_while_paused};
use super::reader::Reader;
use crate::pipeline::fetch::{Message, fetch};
use crate::pipeline::ledger::TRIES_WAITED_FOR;
use crate::pipeline::step::Counts;
use crate::pipeline::worklist::{ItemKey, WorkList, after_failure, done_item};

/// Messages waiting for the job; fetches wait above it. All that wait share one commit.
pub(super) const MESSAGES_MAX: usize = 32;
/// How often an item may be throttled: it is not its fault, but nothing goes on for ever.
const THROTTLED_MAX: u32 = 200;
/// Wait after a throttled item where the vendor names none.
const THROTTLED_WAIT: TimeDelta = TimeDelta::seconds(30);
/// How often items that wait are looked at, by the run's clock, and the least of it in real time.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(20);

/// An item that could not be had.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) item: WorkItem,
    pub(super) error: FetchError,
}

/// The fetches of a slice.
struct Fetches {
    stream: StreamId,
    work: WorkList,
    throttled: BTreeMap<ItemKey, u32>,
    /// As many as may use the network at the same time.
    slots: Arc<Semaphore>,
    messages: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    tasks: JoinSet<()>,
    missed: Vec<Missed>,
}

impl Reader<'_> {
    /// Fetches all items of one stream. Returns those that could not be had.
    pub(super) async fn fetch_all(
        &mut self,
        connector: &Arc<dyn Connector>,
        items: Vec<WorkItem>,
        slice: &mut SliceAccount,
    ) -> Result<Vec<Missed>, JobError> {
        let mut fetches = Fetches {
            stream: slice.stream.clone(),
            work: WorkList::default(),
            throttled: BTreeMap::new(),
            slots: Arc::new(Semaphore::new(connector.fetch_concurrency().max(1))),
            messages: mpsc::channel(MESSAGES_MAX),
            tasks: JoinSet::new(),
            missed: Vec::new(),
        };
        fetches.work.put(items);
        let look = self.shared.clock.real(LOOK).max(LOOK_MIN);
        let shutdown = self.shared.shutdown.clone();
        while fetches.work.open_of(&fetches.stream) > 0 {
            wait_while_paused(self.shared, slice.stream.tenant()).await?;
            self.start(connector, &mut fetches);
            let next = tokio::time::timeout(look, fetches.messages.1.recv());
            if let Ok(Some(message)) = interruptible(&shutdown, next).await? {
                self.take_all(connector, message, &mut fetches, slice)
                    .await?;
            }
            panicked(&mut fetches.tasks)?;
        }
        Ok(fetches.missed)
    }

    fn start(&self, connector: &Arc<dyn Connector>, fetches: &mut Fetches) {
        let streams = std::slice::from_ref(&fetches.stream);
        // Twice as many as may use the network: half of them wait for the store.
        while fetches.work.busy_of(streams) < 2 * connector.fetch_concurrency() {
            let Some(item) = fetches.work.take(self.shared.clock.now(), |_| true) else {
                return;
            };
            let (messages, slots) = (fetches.messages.0.clone(), fetches.slots.clone());
            let fetch = fetch(connector.clone(), item, messages, slots);
            fetches.tasks.spawn(as_job(fetch));
        }
    }

    /// Takes a message and all that wait behind it, in one commit.
    async fn take_all(
        &mut self,
        connector: &Arc<dyn Connector>,
        first: Message,
        fetches: &mut Fetches,
        slice: &mut SliceAccount,
    ) -> Result<(), JobError> {
        let mut replies = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Page { item, page, reply } => {
                    let counts = self.stage(&**connector, &page, slice);
                    if let Some(item) = fetches.work.item(&item) {
                        self.note_late(&**connector, item, counts);
                    }
                    replies.push(reply);
                }
                Message::Ended { item, outcome } => {
                    self.ended(&item, outcome, fetches, slice)?;
                }
                // Nothing of a job lists or watches by message.
                Message::Listed { .. } | Message::Panicked(_) => {}
            }
            next = match replies.len() {
                MESSAGES_MAX.. => None,
                _ => fetches.messages.1.try_recv().ok(),
            };
        }
        self.flush(replies).await
    }

    /// Takes a page in; it counts when it is flushed.
    pub(super) fn stage(
        &mut self,
        connector: &dyn Connector,
        page: &exfilwatch_model::Page,
        slice: &mut SliceAccount,
    ) -> Counts {
        let products = vec![connector.records().product(); page.records.len()];
        let counts = self.ingest.stage_page(page, &products, Commit::default());
        slice.add(&counts);
        self.reports.read(&counts);
        counts
    }

    /// Writes what was staged and lets the fetches go on.
    pub(super) async fn flush(
        &mut self,
        replies: Vec<oneshot::Sender<()>>,
    ) -> Result<(), JobError> {
        self.ingest.flush(self.shared.clock.now()).await?;
        for reply in replies {
            if reply.send(()).is_err() {
                tracing::debug!("a fetch ended before its page was answered");
            }
        }
        Ok(())
    }

    fn ended(
        &mut self,
        key: &ItemKey,
        outcome: Result<(), FetchError>,
        fetches: &mut Fetches,
        slice: &mut SliceAccount,
    ) -> Result<(), JobError> {
        fetches.work.release(key);
        let error = match outcome.map_or_else(refused, |()| Ok(Ok(())))? {
            Ok(()) => {
                slice.items += 1;
                if let Some(item) = fetches.work.item(key).filter(|_| self.reconciles()) {
                    // Listed again it is known.
                    let done = vec![done_item(item, self.shared.clock.now())];
                    self.ingest.stage_commit(Commit {
                        done,
                        ..Commit::default()
                    });
                }
                fetches.work.finish(key);
                return Ok(());
            }
            Err(error) => error,
        };
        let Some(item) = fetches.work.item(key).cloned() else {
            return Ok(());
        };
        let now = self.shared.clock.now();
        let tries_max = if self.reconciles() {
            TRIES_WAITED_FOR
        } else {
            TRIES_MAX
        };
        let again = match &error {
            FetchError::Throttled { after, .. } => {
                let times = fetches.throttled.entry(key.clone()).or_default();
                *times += 1;
                let asked = after.and_then(|after| TimeDelta::from_std(after).ok());
                (*times < THROTTLED_MAX).then(|| WorkItem {
                    next_try: Some(now + asked.unwrap_or(THROTTLED_WAIT)),
                    ..item.clone()
                })
            }
            FetchError::Retry { .. } if item.attempts < tries_max => {
                Some(after_failure(&item, now, &error.to_string(), 1.0))
            }
            _ => None,
        };
        if let Some(again) = again {
            tracing::debug!(item = %item.key, %error, "will be tried again");
            fetches.work.put([again]);
            return Ok(());
        }
        fetches.work.finish(key);
        fetches.missed.push(Missed { item, error });
        Ok(())
    }
}

/// A task that panicked ends the job: its item would be waited for for ever.
pub(super) fn panicked(tasks: &mut JoinSet<()>) -> Result<(), JobError> {
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended
            && error.is_panic()
        {
            return Err(JobError::Panicked(error.to_string()));
        }
    }
    Ok(())
}

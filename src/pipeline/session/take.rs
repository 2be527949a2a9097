//! Messages of the tasks: taken together, written in one commit, and answered once it is durable.

use exfilwatch_model::{Cursor, StreamId, WorkItem};
use tokio::sync::oneshot;

use super::{End, Session};
use crate::pipeline::fetch::{Listed, Message};
use crate::pipeline::watch::StreamHealth;
use crate::pipeline::worklist::ItemKey;

/// Messages waiting for the session; tasks wait above it. All that wait share one commit.
pub(super) const MESSAGES_MAX: usize = 32;

/// What changes in memory once the commit is durable.
pub(super) enum After {
    /// A listing: its new items, its cursor, and who waits for it.
    Listed {
        stream: StreamId,
        items: Vec<WorkItem>,
        cursor: Cursor,
        reply: oneshot::Sender<Listed>,
    },
    /// A page; with the item's last one the item is finished.
    Page {
        item: ItemKey,
        last: bool,
        reply: oneshot::Sender<()>,
    },
    /// An item that failed and waits.
    Tried(WorkItem),
    /// An item that was given up.
    Finished(ItemKey),
}

impl Session<'_> {
    /// Takes a message and all that wait behind it, in one commit.
    pub(super) async fn take_all(&mut self, first: Message) -> Result<(), End> {
        self.take(first)?;
        while self.after.len() < MESSAGES_MAX
            && let Ok(message) = self.messages.1.try_recv()
        {
            self.take(message)?;
        }
        self.ingest.flush(self.shared.clock.now()).await?;
        self.gaps = None;
        for after in std::mem::take(&mut self.after) {
            self.follow(after);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Listed {
                stream,
                outcome: Ok(listing),
                pass,
                span,
                began,
                reply,
            } => {
                self.listed(stream, listing, (pass, span, began), reply)?;
            }
            Message::Listed {
                stream,
                outcome: Err(error),
                reply,
                ..
            } => {
                self.failed(&stream, &error, false);
                answer(reply, self.not_taken(&stream));
            }
            Message::Page { item, page, reply } => self.page(item, &page, reply),
            Message::Panicked(why) => return Err(End::Rebuild(why)),
            Message::Ended { item, outcome } => self.ended(&item, outcome)?,
        }
        Ok(())
    }

    /// Memory follows the store: what was staged is durable now.
    pub(super) fn follow(&mut self, after: After) {
        match after {
            After::Listed {
                stream,
                items,
                cursor,
                reply,
            } => {
                let listed = items.len() as u64;
                self.work.put(items);
                self.cursors.insert(stream.clone(), cursor);
                let now = self.shared.clock.now();
                self.shared.watch.stream(&stream, |health| {
                    health.last_success = Some(now);
                    health.items_listed += listed;
                });
                self.show(&stream);
                answer(
                    reply,
                    Listed {
                        taken: true,
                        ..self.not_taken(&stream)
                    },
                );
            }
            After::Page { item, last, reply } => {
                if last {
                    self.work.finish(&item);
                    let fetched = |health: &mut StreamHealth| health.items_fetched += 1;
                    self.shared.watch.stream(&item.0, fetched);
                    self.show(&item.0);
                }
                answer(reply, ());
            }
            After::Tried(item) => self.work.put([item]),
            After::Finished(item) => {
                self.work.finish(&item);
                let lost = |health: &mut StreamHealth| health.items_lost += 1;
                self.shared.watch.stream(&item.0, lost);
                self.show(&item.0);
            }
        }
    }

    pub(super) fn show(&self, stream: &StreamId) {
        let open = self.work.open_of(stream);
        self.shared
            .watch
            .stream(stream, |health| health.open_items = open);
    }
}

pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("a task ended before it was answered");
    }
}

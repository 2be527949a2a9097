//! What the tasks of a tenant bring to its worker, and the task that fetches one item.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_connectors::{Connector, FetchError, Listing, PageStream};
use exfilwatch_model::{Cursor, Page, StreamId, Window, WorkItem};
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use crate::pipeline::worklist::{ItemKey, key_of};

/// What was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// What is new.
    New,
    /// A span that had been listed before.
    Again,
}

/// The answer to a listing.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The cursor to go on from.
    pub(crate) cursor: Option<Cursor>,
    /// False when there is work enough: to be listed again later.
    pub(crate) taken: bool,
}

/// What the tasks send to the worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// A listing came back; answered with the committed cursor, and whether it was taken.
    Listed {
        stream: StreamId,
        outcome: Result<Listing, FetchError>,
        pass: Pass,
        /// What was listed; what is new where `None`.
        span: Option<Window>,
        /// When it was asked for.
        began: DateTime<Utc>,
        reply: oneshot::Sender<Listed>,
    },
    /// A page of an item; answered when it is committed.
    Page {
        item: ItemKey,
        page: Page,
        reply: oneshot::Sender<()>,
    },
    /// A task ended by a panic.
    Panicked(String),
    /// The fetch of an item is over.
    Ended {
        item: ItemKey,
        outcome: Result<(), FetchError>,
    },
}

/// Fetches one item and hands its pages to the worker. A slot is what it needs to use the network; it
/// gives it back before the last commit, so that the next fetch does not wait for the store.
pub(crate) async fn fetch(
    connector: Arc<dyn Connector>,
    item: WorkItem,
    messages: mpsc::Sender<Message>,
    slots: Arc<Semaphore>,
) {
    let key = key_of(&item);
    // Slots are never closed; without one the fetch would go on unbounded.
    let Ok(slot) = slots.acquire().await else {
        return;
    };
    let opened = connector.fetch(&item).await;
    let outcome = bring(opened, &item, &messages, Some(slot)).await;
    if messages
        .send(Message::Ended { item: key, outcome })
        .await
        .is_err()
    {
        tracing::debug!("a fetch ended after its worker");
    }
}

/// Hands the pages of an item on, each answered when it is committed. Fine once the last was. The slot
/// is given back when all pages are read.
pub(crate) async fn bring(
    opened: Result<PageStream, FetchError>,
    item: &WorkItem,
    messages: &mpsc::Sender<Message>,
    slot: Option<SemaphorePermit<'_>>,
) -> Result<(), FetchError> {
    let mut pages = opened?;
    let mut complete = false;
    // The commit of the page before; the next page is read meanwhile, and not handed over before.
    let mut committed: Option<oneshot::Receiver<()>> = None;
    while let Some(page) = pages.next().await {
        let page = page?;
        if let Some(before) = committed.take()
            && before.await.is_err()
        {
            return Ok(());
        }
        complete = page.last;
        let (reply, answer) = oneshot::channel();
        let message = Message::Page {
            item: key_of(item),
            page,
            reply,
        };
        if messages.send(message).await.is_err() {
            return Ok(());
        }
        committed = Some(answer);
    }
    drop(pages);
    drop(slot);
    if let Some(last) = committed
        && last.await.is_err()
    {
        return Ok(());
    }
    if complete {
        return Ok(());
    }
    let what = format!(
        "item {} of {} ended before its last page",
        item.key, item.stream
    );
    Err(FetchError::Retry { what, after: None })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use chrono::DateTime;
    use exfilwatch_connectors::{PageStream, RecordReader};
    use exfilwatch_model::Window;
    use futures::stream;
    use tokio::time::timeout;

    use super::*;

    /// Two pages an item, and how many were read.
    #[derive(Debug, Default)]
    struct TwoPages {
        read: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Connector for TwoPages {
        fn kind(&self) -> &'static str {
            "office365"
        }

        fn streams(&self) -> Vec<StreamId> {
            vec![stream()]
        }

        fn quota_key(&self) -> String {
            "test".into()
        }

        fn first_cursor(&self, _: &StreamId, _: Window) -> Cursor {
            unreachable!("nothing is listed")
        }

        async fn list(&self, _: &StreamId, _: &Cursor) -> Result<Listing, FetchError> {
            unreachable!("nothing is listed")
        }

        async fn relist(&self, _: &StreamId, _: Window) -> Result<Vec<WorkItem>, FetchError> {
            unreachable!("nothing is listed")
        }

        async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
            let (read, key) = (self.read.clone(), item.key.clone());
            let pages = stream::iter([false, true]).map(move |last| {
                read.fetch_add(1, Ordering::SeqCst);
                Ok(Page {
                    stream: stream(),
                    item: key.clone(),
                    records: vec![],
                    malformed: vec![],
                    fetched_at: DateTime::UNIX_EPOCH,
                    last,
                })
            });
            Ok(pages.boxed())
        }

        fn records(&self) -> &dyn RecordReader {
            unreachable!("nothing is read")
        }
    }

    fn stream() -> StreamId {
        "contoso/office365/Audit.General".parse().unwrap()
    }

    fn item(key: &str) -> WorkItem {
        WorkItem {
            stream: stream(),
            key: key.into(),
            body: String::new(),
            from: DateTime::UNIX_EPOCH,
            expires: None,
            attempts: 0,
            next_try: None,
            last_error: None,
        }
    }

    /// The next page: its item, whether it is the last, and who waits for its commit. `None` where
    /// nobody brings one.
    async fn page(
        messages: &mut mpsc::Receiver<Message>,
    ) -> Option<(String, bool, oneshot::Sender<()>)> {
        loop {
            // Paused time: it passes only when nobody has anything left to do.
            match timeout(Duration::from_secs(1), messages.recv()).await {
                Ok(Some(Message::Page { item, page, reply })) => {
                    return Some((item.1, page.last, reply));
                }
                Ok(Some(Message::Ended { outcome, .. })) => outcome.unwrap(),
                Ok(other) => panic!("{other:?}"),
                Err(_) => return None,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_fetch_begins_while_the_last_page_waits_for_its_commit() {
        let (sender, mut messages) = mpsc::channel(8);
        let (connector, slots) = (Arc::new(TwoPages::default()), Arc::new(Semaphore::new(1)));
        for key in ["a", "b"] {
            let (connector, sender) = (connector.clone(), sender.clone());
            tokio::spawn(fetch(connector, item(key), sender, slots.clone()));
        }
        let (first, last, commit) = page(&mut messages).await.unwrap();
        assert_eq!((first.as_str(), last), ("a", false));
        assert!(
            page(&mut messages).await.is_none(),
            "one slot, one page at a time"
        );
        assert_eq!(
            connector.read.load(Ordering::SeqCst),
            2,
            "the second is read meanwhile"
        );
        commit.send(()).unwrap();
        let (first, last, uncommitted) = page(&mut messages).await.unwrap();
        assert_eq!((first.as_str(), last), ("a", true));
        let (second, last, _) = page(&mut messages).await.unwrap();
        assert_eq!((second.as_str(), last), ("b", false));
        assert!(
            !uncommitted.is_closed(),
            "the item ends with its commit only"
        );
    }
}

//! What the tasks of a tenant bring to its worker, and the task that fetches one item.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_connectors::{Connector, FetchError, Listing};
use exfilwatch_model::{Cursor, Page, StreamId, Window, WorkItem};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};

use crate::pipeline::worklist::{ItemKey, key_of};

/// What was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// What is new.
    New,
    /// A span that had been listed before.
    Again,
    /// The whole retention.
    Whole,
    /// A span that was asked for by hand.
    Asked,
}

/// The answer to a listing.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The cursor to go on from.
    pub(crate) cursor: Option<Cursor>,
    /// Everything before it was listed again after it had settled.
    pub(crate) checked_until: Option<DateTime<Utc>>,
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
        /// Number of the order by which it is reconciled by hand.
        order: Option<u64>,
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

/// Fetches one item and hands its pages to the worker, one at a time.
pub(crate) async fn fetch(
    connector: Arc<dyn Connector>,
    item: WorkItem,
    messages: mpsc::Sender<Message>,
) {
    let key = key_of(&item);
    let outcome = fetch_pages(&*connector, &item, &messages).await;
    if messages
        .send(Message::Ended { item: key, outcome })
        .await
        .is_err()
    {
        tracing::debug!("a fetch ended after its worker");
    }
}

async fn fetch_pages(
    connector: &dyn Connector,
    item: &WorkItem,
    messages: &mpsc::Sender<Message>,
) -> Result<(), FetchError> {
    let mut pages = connector.fetch(item).await?;
    let mut complete = false;
    while let Some(page) = pages.next().await {
        let page = page?;
        complete = page.last;
        let (reply, committed) = oneshot::channel();
        let message = Message::Page {
            item: key_of(item),
            page,
            reply,
        };
        if messages.send(message).await.is_err() || committed.await.is_err() {
            return Ok(());
        }
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

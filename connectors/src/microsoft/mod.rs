//! The Office 365 Management Activity API: one connector per tenant, one stream per content type.
//!
//! Listing finds blobs by the time they became available; fetching splits a blob into records
//! while it streams. What the service demands of a client is in spec/connectors.md section 1.

mod answer;
mod application;
mod blob;
pub mod cloud;
mod feed;
pub mod graph;
mod subscription;
mod token;
pub mod window;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use exfilwatch_model::{Cursor, Gap, GapCause, GapState, StreamId, TenantId, Window, WorkItem};
use uuid::Uuid;

use self::application::{Api, client, guid};
use self::feed::{Blob, Feed, Listed};
use self::graph::search::AuditLogSearch;
use self::subscription::{State, Subscription};
use crate::kernel::client::Refusal;
use crate::kernel::surroundings::{
    BuildError, Surroundings, invalid, origin, requests_per_minute, required,
};
use crate::kernel::url_guard::{Origin, UrlGuard};
use crate::kernel::words::shown;
use crate::options::Office365Options;
use crate::{
    Archive, Connector, FetchError, Listing, NoArchive, PageStream, RecordReader, Schedule,
    Standing,
};

/// The kind, as in the configuration.
pub const KIND: &str = "office365";
/// The content types there are.
pub const CONTENT_TYPES: [&str; 5] = [
    "Audit.AzureActiveDirectory",
    "Audit.Exchange",
    "Audit.SharePoint",
    "Audit.General",
    "DLP.All",
];

/// Longest key of a work item, in bytes; longer ids are replaced by a hash.
const KEY_BYTES_MAX: usize = 512;
/// A work item's body that begins so holds no path but why there is none.
const REFUSED: &str = "refused: ";

const REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
const FETCH_CONCURRENCY: u32 = 4;
const POLL_INTERVAL_SECONDS: u64 = 60;

/// The connector of one tenant.
#[derive(Debug)]
pub struct Office365 {
    feed: Feed,
    streams: Vec<StreamId>,
    quota_key: String,
    poll_interval: Duration,
    fetch_concurrency: usize,
    archive: Result<AuditLogSearch, NoArchive>,
    records: Arc<dyn RecordReader>,
}

impl Office365 {
    /// Checks the options and reads the credential once. Sends nothing.
    pub fn new(
        options: &Office365Options,
        records: Arc<dyn RecordReader>,
        surroundings: &Surroundings,
    ) -> Result<Self, BuildError> {
        let tenant = required(options.tenant.as_ref(), "tenant", "our alias of the tenant")?;
        let tenant_id = guid("tenant_id", options.tenant_id.as_deref())?;
        let publisher = match options.publisher_identifier.as_deref() {
            Some(given) => guid("publisher_identifier", Some(given))?,
            None => tenant_id.clone(),
        };
        let own_root = cloud::api_root(options.cloud.unwrap_or_default());
        let api = origin("api_root", options.api_root.as_ref(), own_root)?;
        let quota_key = format!("{KIND}/{tenant_id}");
        let rpm = requests_per_minute(options.requests_per_minute, REQUESTS_PER_MINUTE)?;
        Ok(Self {
            streams: streams(tenant, options.content_types.as_deref())?,
            feed: Feed {
                client: client(
                    options,
                    &Api {
                        origin: &api,
                        audience: own_root,
                        quota_key: &quota_key,
                        requests_per_minute: rpm,
                        classify: answer::classify,
                    },
                    surroundings,
                )?,
                guard: guard(api, own_root, &tenant_id)?,
                tenant_id,
                publisher,
            },
            quota_key,
            poll_interval: Duration::from_secs(
                options
                    .poll_interval_seconds
                    .unwrap_or(POLL_INTERVAL_SECONDS)
                    .max(1),
            ),
            fetch_concurrency: options
                .fetch_concurrency
                .unwrap_or(FETCH_CONCURRENCY)
                .max(1) as usize,
            archive: AuditLogSearch::build(options, surroundings)?,
            records,
        })
    }

    fn now(&self) -> DateTime<Utc> {
        self.feed.client.wire().now()
    }

    /// The work items of a listing. What cannot be fetched becomes an item, too: fetching it says
    /// why, and the caller quarantines it.
    fn items(&self, stream: &StreamId, listed: Vec<Listed>, window: Window) -> Vec<WorkItem> {
        let item = |key: String, body: String, from, expires| WorkItem {
            stream: stream.clone(),
            key,
            body,
            from,
            expires,
            attempts: 0,
            next_try: None,
            last_error: None,
        };
        listed
            .into_iter()
            .map(|listed| match listed {
                Listed::Blob(blob) => {
                    let body = self.body_of(&blob);
                    let key = key_of(&blob.id);
                    item(key, body, blob.created, blob.expires)
                }
                Listed::Other(text) => {
                    let body = format!("{REFUSED}not understood: {}", shown(&text));
                    item(hashed(&text), body, window.from(), None)
                }
            })
            .collect()
    }

    fn body_of(&self, blob: &Blob) -> String {
        match self.feed.guard.take(&blob.uri) {
            Ok(path_and_query) => path_and_query.to_owned(),
            Err(why) => format!("{REFUSED}its URL is not followed: {why}"),
        }
    }
}

#[async_trait]
impl Connector for Office365 {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn streams(&self) -> Vec<StreamId> {
        self.streams.clone()
    }

    fn quota_key(&self) -> String {
        self.quota_key.clone()
    }

    fn schedule(&self, _stream: &StreamId) -> Schedule {
        Schedule::OFFICE365
    }

    fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    fn fetch_concurrency(&self) -> usize {
        self.fetch_concurrency
    }

    fn first_cursor(&self, _stream: &StreamId, window: Window) -> Cursor {
        let lowest = window::lowest(self.now());
        let asked = window.from();
        let from = if asked >= lowest - window::FIRST_TOLERANCE {
            asked.max(lowest)
        } else {
            asked
        };
        State::default().into_cursor(from)
    }

    async fn list(&self, stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError> {
        let now = self.now();
        let content_type = stream.name();
        let mut state = State::of(cursor);
        if state.look_is_due(now) {
            let found =
                subscription::ensure(&self.feed, content_type, &mut state, now, false).await?;
            if let Subscription::Started { interrupted } = found {
                return Ok(started(stream, cursor, state, now, interrupted));
            }
        }
        let plan = window::plan(cursor.covered_until, now);
        let mut items = Vec::new();
        if let Some(window) = plan.window {
            match self.feed.content(content_type, window).await {
                Ok(listed) => items = self.items(stream, listed, window),
                Err(refusal) if is_unsubscribed(&refusal) => {
                    let interrupted = state.was_enabled;
                    subscription::ensure(&self.feed, content_type, &mut state, now, true).await?;
                    return Ok(started(stream, cursor, state, now, interrupted));
                }
                Err(refusal) => return Err(refusal.error),
            }
        }
        let gaps = plan
            .gap
            .map(|window| {
                let reason = "not listed while the service still kept it (7 days): search the \
                              audit log of that span by other means";
                let found = (GapState::Open, GapCause::NotListed);
                Gap::new(stream.clone(), window, found, reason, now)
            })
            .into_iter()
            .collect();
        Ok(Listing {
            items,
            cursor: state.into_cursor(plan.covered_until),
            gaps,
            more: plan.more,
            standing: Standing::Flowing,
        })
    }

    async fn relist(&self, stream: &StreamId, window: Window) -> Result<Vec<WorkItem>, FetchError> {
        let mut items = Vec::new();
        for piece in window::again(window, self.now()) {
            let listed = self.feed.content(stream.name(), piece).await?;
            items.extend(self.items(stream, listed, piece));
        }
        Ok(items)
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        let what = format!("blob {} of {}", shown(&item.key), item.stream.name());
        if let Some(why) = item.body.strip_prefix(REFUSED) {
            return Err(FetchError::Poison {
                what: format!("{what}: {why}"),
            });
        }
        match self.feed.blob(&item.body, &what).await {
            Ok(response) => {
                let clock = self.feed.client.wire().clock().clone();
                blob::pages(response, item, clock, what)
            }
            // A blob that is not (yet) on this shard is tried until it must be gone.
            Err(refusal) => Err(match refusal.error {
                FetchError::Retry { what, .. }
                    if item.expires.is_some_and(|at| at < self.now()) =>
                {
                    FetchError::Gone { what }
                }
                error => error,
            }),
        }
    }

    fn archive(&self) -> Result<&dyn Archive, NoArchive> {
        match &self.archive {
            Ok(archive) => Ok(archive),
            Err(why) => Err(why.clone()),
        }
    }

    fn records(&self) -> &dyn RecordReader {
        &*self.records
    }
}

fn is_unsubscribed(refusal: &Refusal) -> bool {
    matches!(
        refusal.code.as_str(),
        answer::NOT_SUBSCRIBED | answer::SUBSCRIPTION_DISABLED
    )
}

/// A listing that only stores the start of a subscription, and asks to be called again.
fn started(
    stream: &StreamId,
    cursor: &Cursor,
    state: State,
    now: DateTime<Utc>,
    interrupted: bool,
) -> Listing {
    let lost = Window::new(cursor.covered_until, now).filter(|_| interrupted);
    let gaps = lost
        .map(|window| {
            let reason = "the subscription was off: what was published meanwhile may be missing; \
                          find out who turned it off";
            let found = (GapState::Open, GapCause::SwitchedOff);
            Gap::new(stream.clone(), window, found, reason, now)
        })
        .into_iter()
        .collect();
    Listing {
        items: Vec::new(),
        cursor: state.into_cursor(cursor.covered_until),
        gaps,
        more: true,
        standing: Standing::Flowing,
    }
}

fn key_of(content_id: &str) -> String {
    if content_id.is_empty() || content_id.len() > KEY_BYTES_MAX {
        hashed(content_id)
    } else {
        content_id.to_owned()
    }
}

fn hashed(text: &str) -> String {
    format!(
        "hash:{}",
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
    )
}

fn streams(tenant: &TenantId, given: Option<&[String]>) -> Result<Vec<StreamId>, BuildError> {
    let key = "content_types";
    let mut names: Vec<&str> = match given {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => CONTENT_TYPES.to_vec(),
    };
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(invalid(key, "[]", "name at least one content type"));
    }
    names
        .into_iter()
        .map(|name| {
            if !CONTENT_TYPES.contains(&name) {
                return Err(invalid(
                    key,
                    name,
                    format!("there are {}", CONTENT_TYPES.join(", ")),
                ));
            }
            StreamId::new(tenant.clone(), KIND, name).map_err(|e| invalid(key, name, e.to_string()))
        })
        .collect()
}

fn guard(api: Origin, own_root: &str, tenant_id: &str) -> Result<UrlGuard, BuildError> {
    let own = origin("cloud", None, own_root)?;
    // The reference writes v1.0; links to the next page were seen with v1.
    let prefixes = ["v1.0", "v1"].map(|v| format!("/api/{v}/{tenant_id}/activity/feed/"));
    Ok(UrlGuard::new(api, vec![own], &prefixes))
}

//! The Office 365 Management Activity API: one connector per tenant, one stream per content type.
//!
//! Listing finds blobs by the time they became available; fetching splits a blob into records
//! while it streams. What the service demands of a client is in spec/connectors.md section 1.

mod aadsts;
mod answer;
mod application;
mod blob;
pub mod cloud;
mod diagnosis;
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
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Cursor, Gap, GapCause, GapState, StreamId, TenantId, Window, WorkItem};
use uuid::Uuid;

use self::application::{Api, client, guid};
use self::feed::{Blob, Feed, Listed};
use self::graph::search::AuditLogSearch;
use self::subscription::{Care, State, Subscription};
use self::window::Plan;
use crate::kernel::body::BLOB_BYTES_MAX;
use crate::kernel::client::Refusal;
use crate::kernel::surroundings::{
    BuildError, Surroundings, invalid, origin, requests_per_minute, required,
};
use crate::kernel::url_guard::{Origin, UrlGuard};
use crate::kernel::words::shown;
use crate::options::Office365Options;
use crate::{
    Archive, Connector, Cost, Depth, FetchError, Listing, NoArchive, PageStream, RecordReader,
    Schedule,
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

/// Why there is a gap below the clamp.
const NOT_LISTED_IN_TIME: (GapCause, &str) = (
    GapCause::NotListed,
    "not listed while the service still kept it (7 days): search the \
    audit log of that span by other means",
);
/// Why there is a gap behind an interruption.
const WAS_OFF: (GapCause, &str) = (
    GapCause::SwitchedOff,
    "the subscription was off: what was published meanwhile may be missing; find \
    out who turned it off",
);

const REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
const FETCH_CONCURRENCY: u32 = 4;
const POLL_INTERVAL_SECONDS: u64 = 60;

/// The connector of one tenant.
#[derive(Debug)]
pub struct Office365 {
    feed: Feed,
    streams: Vec<StreamId>,
    quota_key: String,
    requests_per_minute: NonZeroU32,
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
                blob_bytes_max: options.blob_bytes_max.unwrap_or(BLOB_BYTES_MAX).max(1),
                care: Care::default(),
            },
            quota_key,
            requests_per_minute: rpm,
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

    /// What is new since `covered_until`. A window that is refused as too old is cut anew once: the
    /// call may have waited for its quota while the clamp moved on.
    async fn newest(
        &self,
        content_type: &str,
        covered_until: DateTime<Utc>,
    ) -> Result<(Plan, Vec<Listed>), Refusal> {
        let mut plan = window::plan(covered_until, self.now());
        let mut again = true;
        loop {
            let Some(window) = plan.window else {
                return Ok((plan, Vec::new()));
            };
            match self.feed.content(content_type, window).await {
                Ok(listed) => return Ok((plan, listed)),
                Err(refusal) if is_bad_window(&refusal) && again => {
                    again = false;
                    plan = window::plan(covered_until, self.now());
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// A listing that only stores what was done about the subscription. After a start it asks to be
    /// called again.
    fn subscribed(
        &self,
        stream: &StreamId,
        cursor: &Cursor,
        state: State,
        found: Subscription,
    ) -> Listing {
        let now = self.now();
        let interrupted = found == Subscription::Started { interrupted: true };
        let gap = interrupted.then(|| self.interrupted(stream, cursor.covered_until));
        Listing {
            items: Vec::new(),
            gaps: gap.flatten().into_iter().collect(),
            more: matches!(found, Subscription::Started { .. }),
            standing: state.standing(stream.name(), now),
            cursor: state.into_cursor(cursor.covered_until),
        }
    }

    /// What may have been lost while a subscription was off. What lies below the clamp is another
    /// gap, which the listing notes.
    fn interrupted(&self, stream: &StreamId, since: DateTime<Utc>) -> Option<Gap> {
        let now = self.now();
        let window = Window::new(since.max(window::lowest(now)), now)?;
        Some(gap(stream, window, WAS_OFF, now))
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
                    item(key, body, blob.created, Some(blob.expires))
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

    fn cost(&self, _stream: &StreamId) -> Option<Cost> {
        Some(Cost {
            requests_per_minute: self.requests_per_minute.get(),
            reach: window::REACH,
            listing_span: Some(window::WINDOW_LONGEST),
            page_records: None,
        })
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
        let content_type = stream.name();
        let mut state = State::of(cursor);
        // Once in a process also because the answer tells the vendor's time, by which windows are cut.
        if state.look_is_due(self.now()) || !self.feed.care.has_looked(content_type) {
            match subscription::ensure(&self.feed, content_type, &mut state, false).await {
                Ok(Subscription::Enabled) => {}
                Ok(found) => return Ok(self.subscribed(stream, cursor, state, found)),
                // A stream that flows does not depend on a list that cannot be had just now.
                Err(FetchError::Retry { what, .. }) if state.listed && state.off.is_none() => {
                    tracing::debug!(%what, "the subscriptions will be looked at later");
                }
                Err(error) => return Err(error),
            }
        } else if state.off.is_some() {
            return Ok(self.subscribed(stream, cursor, state, Subscription::Off));
        }
        let (plan, listed) = match self.newest(content_type, cursor.covered_until).await {
            Ok(found) => found,
            Err(refusal) if is_unsubscribed(&refusal) => {
                let found =
                    subscription::ensure(&self.feed, content_type, &mut state, true).await?;
                return Ok(self.subscribed(stream, cursor, state, found));
            }
            Err(refusal) => return Err(refusal.error),
        };
        let now = self.now();
        let items = plan
            .window
            .map_or_else(Vec::new, |window| self.items(stream, listed, window));
        if !items.is_empty() {
            state.waiting_since = None;
        }
        // "All there is" begins at the clamp, which has moved on by some seconds since.
        let moved_on = |gap: &Window| !state.listed && gap.length() <= window::FIRST_TOLERANCE;
        let below = plan.gap.filter(|gap| !moved_on(gap));
        let mut gaps: Vec<Gap> = below
            .map(|window| gap(stream, window, NOT_LISTED_IN_TIME, now))
            .into_iter()
            .collect();
        if plan.window.is_some() {
            if state.off.take().is_some() && state.listed {
                gaps.extend(self.interrupted(stream, cursor.covered_until));
            }
            state.listed = true;
            state.vain_starts = 0;
        }
        Ok(Listing {
            items,
            gaps,
            more: plan.more,
            standing: state.standing(content_type, now),
            cursor: state.into_cursor(plan.covered_until),
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
        if let Some(at) = item.expires.filter(|at| *at <= self.now()) {
            let last = item.last_error.as_deref().unwrap_or("it was not asked for");
            return Err(FetchError::Gone {
                what: format!("{what}: expired at {at}; last: {last}"),
            });
        }
        match self.feed.blob(&item.body, &what).await {
            Ok(response) => {
                let clock = self.feed.client.wire().clock().clone();
                blob::pages(response, item, (what, self.feed.blob_bytes_max), clock)
            }
            Err(refusal) => Err(match refusal.error {
                // One blob that is refused does not hold its stream: it waits by itself until it
                // expires, and its loss is noted then.
                FetchError::Hold { what, .. } => FetchError::Retry { what, after: None },
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

    async fn diagnose(&self, depth: Depth) -> Vec<Check> {
        self.look(depth).await
    }

    fn records(&self) -> &dyn RecordReader {
        &*self.records
    }
}

fn gap(
    stream: &StreamId,
    window: Window,
    (cause, reason): (GapCause, &str),
    found_at: DateTime<Utc>,
) -> Gap {
    let found = (GapState::Open, cause);
    Gap::new(stream.clone(), window, found, reason, found_at)
}

fn is_bad_window(refusal: &Refusal) -> bool {
    matches!(
        refusal.code.as_str(),
        answer::WINDOW_REFUSED | answer::WINDOW_INVALID
    )
}

fn is_unsubscribed(refusal: &Refusal) -> bool {
    matches!(
        refusal.code.as_str(),
        answer::NOT_SUBSCRIBED | answer::SUBSCRIPTION_DISABLED
    )
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

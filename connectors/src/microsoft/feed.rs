//! The calls of the Management Activity API: URLs, and bodies read into what they say.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::Window;
use http::{HeaderMap, Method, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{BAD_NEXT_PAGE, instead};
use super::subscription::Care;
use crate::FetchError;
use crate::kernel::body::{BODY_BYTES_MAX, Body};
use crate::kernel::client::{Ask, Client, Refusal, broken, unread};
use crate::kernel::transport::BodyStream;
use crate::kernel::url_guard::{Refused, UrlGuard};
use crate::records::time::instant;

/// Most pages of one listing.
pub(super) const LISTING_PAGES_MAX: usize = 1_000;
/// How long the service keeps a blob.
const BLOB_LIFE: TimeDelta = TimeDelta::days(7);
/// Times a walk begins again because its link to the next page went bad.
const RESTARTS_MAX: usize = 1;

/// One tenant's feed.
#[derive(Debug)]
pub(super) struct Feed {
    /// Calls with token and quota.
    pub(super) client: Client,
    /// The one origin.
    pub(super) guard: UrlGuard,
    /// The tenant's GUID.
    pub(super) tenant_id: String,
    /// GUID that picks the throttling pool.
    pub(super) publisher: String,
    /// Most bytes of a blob, decoded.
    pub(super) blob_bytes_max: usize,
    /// What this process did about the subscriptions.
    pub(super) care: Care,
}

/// An element of a content listing, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listed {
    /// A blob.
    Blob(Blob),
    /// Something else: its bytes.
    Other(String),
}

/// A blob that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// Opaque key.
    pub(super) id: String,
    /// Where it is, by the server.
    pub(super) uri: String,
    /// When it became available.
    pub(super) created: DateTime<Utc>,
    /// When the service drops it.
    pub(super) expires: DateTime<Utc>,
}

/// As it stands in the listing.
#[derive(Debug, Deserialize)]
struct BlobLine {
    #[serde(rename = "contentId")]
    id: String,
    #[serde(rename = "contentUri", default)]
    uri: String,
    #[serde(rename = "contentCreated")]
    created: String,
    #[serde(rename = "contentExpiration", default)]
    expires: Option<String>,
}

impl BlobLine {
    /// `None` where nobody can tell when it was made: then not even its loss could be dated.
    fn read(self) -> Option<Blob> {
        let created = instant(&self.created)?;
        let expires = self.expires.as_deref().and_then(instant);
        Some(Blob {
            id: self.id,
            uri: self.uri,
            created,
            // Seven days is what the documentation says. An end before the beginning is no end.
            expires: expires
                .filter(|at| *at > created)
                .unwrap_or(created + BLOB_LIFE),
        })
    }
}

/// A line of the list of subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionLine {
    content_type: String,
    #[serde(default)]
    status: String,
}

impl Feed {
    /// Which content types are subscribed, and whether they are enabled. Absent: never started.
    pub(super) async fn subscriptions(&self) -> Result<BTreeMap<String, bool>, Refusal> {
        self.subscriptions_asked(true).await
    }

    /// The same, and whether to be patient about it.
    pub(super) async fn subscriptions_asked(
        &self,
        patient: bool,
    ) -> Result<BTreeMap<String, bool>, Refusal> {
        let what = "list of subscriptions";
        let mut ask = self.ask(Method::GET, "subscriptions/list", "", what);
        ask.patient = patient;
        let body = self.read(&ask).await?.1;
        let lines: Vec<SubscriptionLine> =
            serde_json::from_slice(&body).map_err(|_| instead(what, &body))?;
        let enabled = |line: SubscriptionLine| {
            let enabled = line.status.eq_ignore_ascii_case("enabled");
            (line.content_type, enabled)
        };
        Ok(lines.into_iter().map(enabled).collect())
    }

    /// Starts a subscription. Called once: the service allows one start in 15 minutes.
    pub(super) async fn start(&self, content_type: &str) -> Result<(), Refusal> {
        let query = format!("contentType={content_type}");
        let what = format!("start of the subscription to {content_type}");
        let mut ask = self.ask(Method::POST, "subscriptions/start", &query, &what);
        ask.patient = false;
        self.client.call(&ask).await.map(drop)
    }

    /// All pages of the content listing of a window.
    pub(super) async fn content(
        &self,
        content_type: &str,
        window: Window,
    ) -> Result<Vec<Listed>, Refusal> {
        let mut restarts = 0;
        loop {
            match self.walk(content_type, window).await {
                Err(refusal) if refusal.code == BAD_NEXT_PAGE && restarts < RESTARTS_MAX => {
                    restarts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn walk(&self, content_type: &str, window: Window) -> Result<Vec<Listed>, Refusal> {
        let mut ask = self.listing(content_type, window);
        let what = ask.what.clone();
        let mut seen = HashSet::new();
        let mut listed = Vec::new();
        for _ in 0..LISTING_PAGES_MAX {
            let (headers, body) = self.read(&ask).await?;
            listed.extend(read_page(&what, &body)?);
            let Some(next) = next_page(&headers) else {
                return Ok(listed);
            };
            ask.url = self
                .server_given(&next)
                .map_err(|why| broken(&what, &format!("the link to the next page: {why}")))?;
            if !seen.insert(ask.url.clone()) {
                return Err(broken(&what, "the link to the next page came twice").into());
            }
        }
        Err(broken(&what, &format!("more than {LISTING_PAGES_MAX} pages")).into())
    }

    /// A blob, unread. `path_and_query` stood in a work item and is checked again.
    pub(super) async fn blob(
        &self,
        path_and_query: &str,
        what: &str,
    ) -> Result<Response<BodyStream>, Refusal> {
        self.guard
            .check(path_and_query)
            .map_err(|why| FetchError::Poison {
                what: format!("{what}: {why}"),
            })?;
        let ask = Ask {
            method: Method::GET,
            url: self.with_publisher(&self.guard.origin().at(path_and_query)),
            what: what.to_owned(),
            patient: true,
        };
        self.client.call(&ask).await
    }

    /// The question for the first page of the content listing of a window.
    pub(super) fn listing(&self, content_type: &str, window: Window) -> Ask {
        // Without fraction and zone, as the reference writes them: a "+" would turn into a blank.
        let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S").to_string();
        let (start, end) = (time(window.from()), time(window.until()));
        let query = format!("contentType={content_type}&startTime={start}&endTime={end}");
        let what = format!("listing of {content_type} from {start} to {end}");
        self.ask(Method::GET, "subscriptions/content", &query, &what)
    }

    /// The answer to a question, with its headers.
    pub(super) async fn read(&self, ask: &Ask) -> Result<(HeaderMap, Bytes), Refusal> {
        let response = self.client.call(ask).await?;
        let headers = response.headers().clone();
        let body = match Body::new(response, BODY_BYTES_MAX) {
            Ok(body) => body.read_all().await,
            Err(error) => Err(error),
        };
        let body = body.map_err(|error| unread(&ask.what, &error))?;
        Ok((headers, body))
    }

    fn ask(&self, method: Method, operation: &str, query: &str, what: &str) -> Ask {
        let root = self.guard.origin().as_str();
        let tenant = &self.tenant_id;
        let url = format!("{root}/api/v1.0/{tenant}/activity/feed/{operation}?{query}");
        Ask {
            method,
            url: self.with_publisher(&url),
            what: what.to_owned(),
            patient: true,
        }
    }

    fn server_given(&self, url: &str) -> Result<String, Refused> {
        let path_and_query = self.guard.take(url)?;
        Ok(self.with_publisher(&self.guard.origin().at(path_and_query)))
    }

    /// The publisher goes with every call, and is put behind what is there, byte for byte.
    fn with_publisher(&self, url: &str) -> String {
        if url.to_ascii_lowercase().contains("publisheridentifier=") {
            return url.to_owned();
        }
        let joint = match url.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        format!("{url}{joint}PublisherIdentifier={}", self.publisher)
    }
}

pub(super) fn read_page(what: &str, body: &Bytes) -> Result<Vec<Listed>, Refusal> {
    let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|_| instead(what, body))?;
    let read = |element: &RawValue| {
        let line = serde_json::from_str::<BlobLine>(element.get());
        let blob = line.ok().and_then(BlobLine::read);
        blob.map_or_else(|| Listed::Other(element.get().to_owned()), Listed::Blob)
    };
    Ok(elements.into_iter().map(read).collect())
}

/// The documentation calls the header by two names; their case does not matter.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let value = headers
        .get("NextPageUri")
        .or_else(|| headers.get("NextPageUrl"))?;
    // What is no text is kept as something that the guard refuses: it is not the last page.
    let text = value.to_str().unwrap_or("\u{fffd}").trim();
    (!text.is_empty()).then(|| text.to_owned())
}

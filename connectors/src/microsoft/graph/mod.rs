//! Microsoft Graph: a client with tokens of its own audience, for the audit-log search and for what
//! else is asked of Graph (the tenant's domains).
//!
//! The token goes to Graph's origin only; of a link to the next page, path and query are taken.

mod answer;
mod domains;
mod reading;
mod record;
pub mod search;
mod streams;

use std::collections::HashSet;
use std::num::NonZeroU32;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

pub(super) use self::streams::missing_permission;
use super::application::{Api, client, tenant_id};
use super::cloud;
use crate::FetchError;
use crate::kernel::body::{BODY_BYTES_MAX, Body, BodyError};
use crate::kernel::client::{Ask, Client, Refusal, broken, unread};
use crate::kernel::surroundings::{BuildError, Surroundings, origin};
use crate::kernel::url_guard::UrlGuard;
use crate::kernel::words::shown_bytes;
use crate::options::Office365Options;

/// Most pages of one collection.
pub const PAGES_MAX: usize = 1_000;
/// Longest link to a next page, in bytes: its token is long, and it is not stored.
const LINK_BYTES_MAX: usize = 16 << 10;
/// Graph allows far more; a search is polled and paged, and nothing else is asked in numbers.
const REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(120).unwrap();

/// What is asked of Graph.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Path and query on Graph's origin (`/v1.0/domains`).
    pub path: &'a str,
    /// What is asked for, in words, for errors.
    pub what: &'a str,
    /// The permission it takes, for the help of an error.
    pub permission: &'a str,
}

/// Graph, for one tenant and application.
#[derive(Debug)]
pub struct Graph {
    client: Client,
    guard: UrlGuard,
    quota_key: String,
}

/// One page of a collection, unread.
#[derive(Debug, Deserialize)]
struct CollectionPage<'a> {
    #[serde(borrow)]
    value: Vec<&'a RawValue>,
    #[serde(rename = "@odata.nextLink", default)]
    next: Option<String>,
}

impl Graph {
    /// Checks the options and reads the credential once. Sends nothing.
    pub fn new(
        options: &Office365Options,
        surroundings: &Surroundings,
    ) -> Result<Self, BuildError> {
        let own_root = cloud::graph_root(options.cloud.unwrap_or_default());
        let graph = origin("graph_root", options.graph_root.as_ref(), own_root)?;
        let own = origin("cloud", None, own_root)?;
        let quota_key = format!("graph/{}", tenant_id(options)?);
        let api = Api {
            origin: &graph,
            audience: own_root,
            quota_key: &quota_key,
            requests_per_minute: REQUESTS_PER_MINUTE,
            classify: answer::classify,
        };
        let prefixes = ["/v1.0/", "/beta/"].map(str::to_owned);
        Ok(Self {
            client: client(options, &api, surroundings)?,
            guard: UrlGuard::new(graph, vec![own], &prefixes).up_to(LINK_BYTES_MAX),
            quota_key,
        })
    }

    /// Requests of Graph with the same key share one quota, which is not the feed's.
    pub fn quota_key(&self) -> &str {
        &self.quota_key
    }

    /// The client, for its clocks.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The application permissions in the token; `None` where they cannot be read from it.
    pub async fn roles(&self) -> Result<Option<Vec<String>>, FetchError> {
        let claims = self.client.claims().await?;
        Ok(claims.map(|claims| {
            let roles = claims.get("roles").and_then(serde_json::Value::as_array);
            let texts = roles.into_iter().flatten().filter_map(|role| role.as_str());
            texts.map(str::to_owned).collect()
        }))
    }

    /// The body of a GET.
    pub async fn get(&self, question: Question<'_>) -> Result<Bytes, Refusal> {
        self.send(Method::GET, question, &Bytes::new()).await
    }

    /// The body that answers a POST. Sent once: a repeated one would do its work twice.
    pub async fn post(&self, question: Question<'_>, body: &Bytes) -> Result<Bytes, Refusal> {
        self.send(Method::POST, question, body).await
    }

    /// All elements of a collection that fits in memory.
    pub async fn collection(
        &self,
        question: Question<'_>,
    ) -> Result<Vec<Box<RawValue>>, FetchError> {
        let what = question.what;
        let mut elements = Vec::new();
        let mut seen = HashSet::new();
        let mut path = question.path.to_owned();
        for _ in 0..PAGES_MAX {
            let body = self
                .get(Question {
                    path: &path,
                    ..question
                })
                .await?;
            let page: CollectionPage<'_> = serde_json::from_slice(&body)
                .map_err(|_| broken(what, &format!("not understood: {}", shown_bytes(&body))))?;
            elements.extend(page.value.into_iter().map(ToOwned::to_owned));
            let Some(next) = page.next else {
                return Ok(elements);
            };
            path = self.next_path(&next, what)?;
            if !seen.insert(path.clone()) {
                return Err(broken(what, "the link to the next page came twice"));
            }
        }
        Err(broken(what, &format!("more than {PAGES_MAX} pages")))
    }

    /// Path and query of a link to a next page.
    fn next_path(&self, link: &str, what: &str) -> Result<String, FetchError> {
        self.guard
            .take(link)
            .map(str::to_owned)
            .map_err(|why| broken(what, &format!("the link to the next page: {why}")))
    }

    async fn send(
        &self,
        method: Method,
        question: Question<'_>,
        body: &Bytes,
    ) -> Result<Bytes, Refusal> {
        let what = question.what;
        let ask = Ask {
            patient: method == Method::GET,
            method,
            url: self.guard.origin().at(question.path),
            what: what.to_owned(),
        };
        let response = self
            .client
            .call_with(&ask, body)
            .await
            .map_err(|refusal| with_help(refusal, question.permission))?;
        let body = match Body::new(response, BODY_BYTES_MAX) {
            Ok(body) => body.read_all().await,
            Err(error) => Err(error),
        };
        body.map_err(|error: BodyError| unread(what, &error).into())
    }
}

/// Names the permission that is missing.
fn with_help(mut refusal: Refusal, permission: &str) -> Refusal {
    if let FetchError::Permission { help, .. } = &mut refusal.error {
        *help = grant(permission);
    }
    refusal
}

/// What to do where a permission is missing.
fn grant(permission: &str) -> String {
    format!(
        "grant the application the permission {permission} (application, Microsoft Graph), with \
         admin consent; it may take some minutes to work"
    )
}

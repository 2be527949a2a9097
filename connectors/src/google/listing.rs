//! One listing, page by page: all parameters but the page token stay the same, and a token lives in
//! its listing only. A token of one window used in another was the cause of many lost activities.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::Method;

use super::answer::BAD_PAGE_TOKEN;
use super::page::{self, ApiPage, TOKEN_BYTES_MAX};
use crate::FetchError;
use crate::kernel::body::{BODY_BYTES_MAX, Body};
use crate::kernel::client::{Ask, Client, Refusal, broken, unread};

/// Most pages of one listing: five million activities.
pub(super) const PAGES_MAX: usize = 5_000;
/// How often a listing begins again at its first page because its token was refused.
const RESTARTS_MAX: u32 = 2;

/// A listing that has not ended yet.
#[derive(Debug)]
pub(super) struct Listing {
    client: Arc<Client>,
    /// The URL of the first page, without a page token.
    url: String,
    what: String,
    /// The member that holds the elements.
    member: &'static str,
    token: Option<String>,
    seen: HashSet<u64>,
    pages: usize,
    restarts: u32,
}

impl Listing {
    /// Nothing is asked yet. `what` says in words what is listed.
    pub(super) fn new(
        client: Arc<Client>,
        url: String,
        what: String,
        member: &'static str,
    ) -> Self {
        Self {
            client,
            url,
            what,
            member,
            token: None,
            seen: HashSet::new(),
            pages: 0,
            restarts: 0,
        }
    }

    /// Pages read since the listing began (again).
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// The next page; the listing goes on while [`ApiPage::next`] is there.
    pub(super) async fn next(&mut self) -> Result<ApiPage, Refusal> {
        let page = loop {
            match self.ask().await {
                Ok(page) => break page,
                Err(refusal) if refusal.code == BAD_PAGE_TOKEN && self.may_restart() => {
                    tracing::debug!(what = %self.what, "the page token died; from the first page");
                    self.restart();
                }
                Err(refusal) => return Err(refusal),
            }
        };
        self.pages += 1;
        if let Some(token) = &page.next {
            self.follow(token)?;
        }
        Ok(page)
    }

    fn may_restart(&self) -> bool {
        self.token.is_some() && self.restarts < RESTARTS_MAX
    }

    fn restart(&mut self) {
        self.restarts += 1;
        self.token = None;
        self.seen.clear();
        self.pages = 0;
    }

    fn follow(&mut self, token: &str) -> Result<(), FetchError> {
        let what = &self.what;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(broken(what, "the token of the next page is too long"));
        }
        let mut hasher = DefaultHasher::new();
        token.hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            return Err(broken(what, "the token of the next page came twice"));
        }
        if self.pages >= PAGES_MAX {
            let what = format!("{what}: more than {PAGES_MAX} pages");
            return Err(FetchError::Poison { what });
        }
        self.token = Some(token.to_owned());
        Ok(())
    }

    async fn ask(&self) -> Result<ApiPage, Refusal> {
        let what = &self.what;
        let mut url = self.url.clone();
        if let Some(token) = &self.token {
            url.push_str("&pageToken=");
            url.extend(url::form_urlencoded::byte_serialize(token.as_bytes()));
        }
        let ask = Ask {
            method: Method::GET,
            url,
            what: what.clone(),
            patient: true,
        };
        let response = self.client.call(&ask).await?;
        let body = match Body::new(response, BODY_BYTES_MAX) {
            Ok(body) => body.read_all().await,
            Err(error) => Err(error),
        };
        let body = body.map_err(|error| unread(what, &error))?;
        let page = page::read(&body, self.member);
        page.ok_or_else(|| broken(what, "the body is not a whole page").into())
    }
}

//! The walk over all pages of one frozen window.
//!
//! All parameters but the page token stay the same from page to page, and the token lives in this
//! walk only: a token of one window used in another was the cause of many lost activities.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use exfilwatch_model::{Page, WorkItem};
use futures::{StreamExt, stream};
use http::Method;

use super::page::{self, ApiPage, TOKEN_BYTES_MAX};
use crate::kernel::body::{BODY_BYTES_MAX, Body};
use crate::kernel::client::{Ask, Client, broken, unread};
use crate::kernel::pages::PageMaker;
use crate::{FetchError, PageStream};

/// Most pages of one window: five million activities in an hour.
pub(super) const WALK_PAGES_MAX: usize = 5_000;

/// A walk that has not begun yet.
pub(super) struct Walk {
    /// Makes the calls.
    pub(super) client: Arc<Client>,
    /// The URL of the first page, without a page token.
    pub(super) url: String,
    /// What is asked for, in words.
    pub(super) what: String,
}

struct Walking {
    walk: Walk,
    maker: PageMaker,
    ready: VecDeque<Page>,
    token: Option<String>,
    seen: HashSet<String>,
    pages: usize,
    ended: bool,
}

impl Walk {
    /// The pages of the item. Nothing is asked before the first is wanted.
    pub(super) fn pages(self, item: &WorkItem) -> PageStream {
        let walking = Walking {
            walk: self,
            maker: PageMaker::new(item.stream.clone(), item.key.clone()),
            ready: VecDeque::new(),
            token: None,
            seen: HashSet::new(),
            pages: 0,
            ended: false,
        };
        stream::try_unfold(walking, |mut walking| async move {
            Ok(walking.next().await?.map(|page| (page, walking)))
        })
        .boxed()
    }
}

impl Walking {
    async fn next(&mut self) -> Result<Option<Page>, FetchError> {
        while self.ready.is_empty() && !self.ended {
            let page = self.ask().await?;
            self.take(page)?;
        }
        Ok(self.ready.pop_front())
    }

    async fn ask(&self) -> Result<ApiPage, FetchError> {
        let what = &self.walk.what;
        let mut url = self.walk.url.clone();
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
        let response = self.walk.client.call(&ask).await?;
        let body = match Body::new(response, BODY_BYTES_MAX) {
            Ok(body) => body.read_all().await,
            Err(error) => Err(error),
        };
        let body = body.map_err(|error| unread(what, &error))?;
        page::read(&body).ok_or_else(|| broken(what, "the body is not a whole page"))
    }

    fn take(&mut self, page: ApiPage) -> Result<(), FetchError> {
        let what = &self.walk.what;
        let now = self.walk.client.wire().clock().now();
        for element in page.elements {
            self.ready.extend(self.maker.add(element, now));
        }
        self.ended = page.next.is_none();
        // Each page of the API ends a page of ours: what was read is committed before the next.
        self.ready.push_back(self.maker.cut(now, self.ended));
        self.pages += 1;
        if let Some(token) = page.next {
            if token.len() > TOKEN_BYTES_MAX {
                return Err(broken(what, "the token of the next page is too long"));
            }
            if !self.seen.insert(token.clone()) {
                return Err(broken(what, "the token of the next page came twice"));
            }
            if self.pages >= WALK_PAGES_MAX {
                return Err(FetchError::Poison {
                    what: format!("{what}: more than {WALK_PAGES_MAX} pages"),
                });
            }
            self.token = Some(token);
        }
        Ok(())
    }
}

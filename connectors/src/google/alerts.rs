//! The Alert Center: alerts that were made in a window, and alerts that were changed in it.
//!
//! "alerts.list" and "Supported query filter fields", Alert Center API v1beta1 (2026-04). The filter
//! knows `createTime` and not `updateTime`; by the time of the last change a list can be sorted, but
//! not filtered. So the changed ones are read from the newest on until a page lies before the window.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{Page, Window, WorkItem};
use futures::{StreamExt, stream};
use serde::Deserialize;

use super::listing::Listing;
use super::span::text;
use crate::kernel::client::Client;
use crate::kernel::pages::PageMaker;
use crate::kernel::split::Element;
use crate::kernel::url_guard::Origin;
use crate::{FetchError, PageStream};

/// The API's origin.
pub const ALERTS_ROOT: &str = "https://alertcenter.googleapis.com";
/// Widest window: alerts are few.
pub(super) const WINDOW: TimeDelta = TimeDelta::days(1);
/// Alerts a page, at most.
const PAGE_ALERTS: u32 = 500;

/// The calls to the Alert Center: a token and a quota of their own.
#[derive(Debug)]
pub(super) struct AlertCenter {
    /// Makes the calls.
    pub(super) client: Arc<Client>,
    /// Where the API is.
    pub(super) root: Origin,
    /// The customer without its leading C, where one is named.
    pub(super) customer: Option<String>,
}

/// Which of the two lists is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Made,
    Changed,
}

struct Walking {
    client: Arc<Client>,
    maker: PageMaker,
    ready: VecDeque<Page>,
    window: Window,
    lists: VecDeque<(List, Listing)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    update_time: Option<DateTime<Utc>>,
    create_time: Option<DateTime<Utc>>,
}

impl AlertCenter {
    /// The pages of an item. Nothing is asked before the first is wanted.
    pub(super) fn pages(&self, item: &WorkItem, window: Window) -> PageStream {
        let list = |list: List, words: &str| {
            let what = format!("alerts {words} in {}", item.body);
            let url = self.url(list, window);
            (list, Listing::new(self.client.clone(), url, what, "alerts"))
        };
        let walking = Walking {
            client: self.client.clone(),
            maker: PageMaker::new(item.stream.clone(), item.key.clone()),
            ready: VecDeque::new(),
            window,
            lists: VecDeque::from([list(List::Made, "made"), list(List::Changed, "changed")]),
        };
        stream::try_unfold(walking, |mut walking| async move {
            Ok(walking.next().await?.map(|page| (page, walking)))
        })
        .boxed()
    }

    /// The URL of the alerts made in a window.
    pub(super) fn made(&self, window: Window) -> String {
        self.url(List::Made, window)
    }

    fn url(&self, list: List, window: Window) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("pageSize", &PAGE_ALERTS.to_string());
        match list {
            List::Made => {
                let filter = format!(
                    "createTime >= \"{}\" AND createTime <= \"{}\"",
                    text(window.from()),
                    text(window.until())
                );
                query.append_pair("filter", &filter);
                query.append_pair("orderBy", "createTime asc");
            }
            List::Changed => {
                query.append_pair("orderBy", "updateTime desc");
            }
        }
        if let Some(customer) = &self.customer {
            query.append_pair("customerId", customer);
        }
        self.root.at(&format!("/v1beta1/alerts?{}", query.finish()))
    }
}

impl Walking {
    async fn next(&mut self) -> Result<Option<Page>, FetchError> {
        loop {
            if let Some(page) = self.ready.pop_front() {
                return Ok(Some(page));
            }
            let Some((list, mut listing)) = self.lists.pop_front() else {
                return Ok(None);
            };
            let page = listing.next().await?;
            let now = self.client.wire().clock().now();
            let mut reaches_back = false;
            for element in page.elements {
                let changed = changed_at(&element);
                reaches_back |= changed.is_none_or(|at| at >= self.window.from());
                if list == List::Made || changed.is_none_or(|at| self.is_within(at)) {
                    self.ready.extend(self.maker.add(element, now));
                }
            }
            // An order that is not kept costs a page: only one that lies before the window whole
            // ends the list.
            if page.next.is_some() && (list == List::Made || reaches_back) {
                self.lists.push_front((list, listing));
            }
            let last = self.lists.is_empty();
            self.ready.push_back(self.maker.cut(now, last));
        }
    }

    fn is_within(&self, at: DateTime<Utc>) -> bool {
        (self.window.from()..=self.window.until()).contains(&at)
    }
}

/// When an alert was last changed; `None` where it does not say.
fn changed_at(element: &Element) -> Option<DateTime<Utc>> {
    let Element::Record(record) = element else {
        return None;
    };
    let times: Changed = serde_json::from_slice(record.bytes()).ok()?;
    times.update_time.or(times.create_time)
}

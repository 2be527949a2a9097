//! The walk over one frozen window, in slices, each a listing of its own.
//!
//! The Reports API lists newest first, so nothing is concluded from a page but a slice's last. A
//! slice with more pages than a slice may have is begun again, half as wide: what was read twice is
//! dropped by whoever keeps what was seen.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{Page, Window, WorkItem};
use futures::{StreamExt, stream};

use super::answer::BAD_START;
use super::listing::Listing;
use super::pace::{Pace, SLICE_PAGES_MAX};
use super::span::{self, text};
use crate::kernel::client::{Client, Refusal};
use crate::kernel::pages::PageMaker;
use crate::{FetchError, PageStream};

/// A window whose start lies within this of the oldest that is kept may be too old by the vendor's
/// own reckoning; its word is taken.
const TOO_OLD_DOUBT: TimeDelta = TimeDelta::days(1);

/// A walk that has not begun yet.
pub(super) struct Walk {
    /// Makes the calls.
    pub(super) client: Arc<Client>,
    /// How wide to cut.
    pub(super) pace: Arc<Pace>,
    /// URL of the first page of a slice.
    pub(super) url: Box<dyn Fn(Window) -> String + Send + Sync>,
    /// What is walked, in words.
    pub(super) what: String,
    /// The window.
    pub(super) window: Window,
}

struct Walking {
    walk: Walk,
    maker: PageMaker,
    ready: VecDeque<Page>,
    /// What is left of the window; `None` at the end.
    left: Option<Window>,
    slice: Option<(Window, Listing)>,
    /// Up to where the vendor no longer keeps what the window asks for.
    lost_until: Option<DateTime<Utc>>,
    /// How the walk ends, decided once when nothing is left.
    end: Option<Result<(), FetchError>>,
}

impl Walk {
    /// The pages of the item. Nothing is asked before the first is wanted.
    pub(super) fn pages(self, item: &WorkItem) -> PageStream {
        let walking = Walking {
            maker: PageMaker::new(item.stream.clone(), item.key.clone()),
            ready: VecDeque::new(),
            left: Some(self.window),
            slice: None,
            lost_until: None,
            end: None,
            walk: self,
        };
        stream::try_unfold(walking, |mut walking| async move {
            Ok(walking.next().await?.map(|page| (page, walking)))
        })
        .boxed()
    }
}

impl Walking {
    async fn next(&mut self) -> Result<Option<Page>, FetchError> {
        loop {
            if let Some(page) = self.ready.pop_front() {
                return Ok(Some(page));
            }
            if let Some(end) = self.end.take() {
                return end.map(|()| None);
            }
            if self.left.is_none() {
                return Ok(None);
            }
            self.step().await?;
        }
    }

    /// Reads a page of the slice at hand, or opens the next slice.
    async fn step(&mut self) -> Result<(), FetchError> {
        let Some((slice, mut listing)) = self.slice.take() else {
            self.open();
            return Ok(());
        };
        let page = match listing.next().await {
            Ok(page) => page,
            Err(refusal) if refusal.code == BAD_START => return self.too_old(slice, refusal),
            Err(refusal) => return Err(refusal.error),
        };
        let now = self.walk.client.wire().clock().now();
        for element in page.elements {
            self.ready.extend(self.maker.add(element, now));
        }
        if page.next.is_none() {
            self.walk.pace.read(slice, listing.pages());
            self.left = self
                .left
                .and_then(|left| Window::new(slice.until(), left.until()));
        } else if listing.pages() < SLICE_PAGES_MAX || !self.walk.pace.too_wide(slice) {
            self.slice = Some((slice, listing));
        } else {
            let what = &self.walk.what;
            tracing::debug!(%what, pages = SLICE_PAGES_MAX, "more pages than a slice may have");
        }
        self.decide_end();
        let last = matches!(self.end, Some(Ok(())));
        // Each page of the API ends a page of ours: what was read is committed before the next.
        self.ready.push_back(self.maker.cut(now, last));
        Ok(())
    }

    fn open(&mut self) {
        let Some(left) = self.left else { return };
        let lowest = span::lowest(self.walk.client.wire().now());
        if left.from() < lowest {
            self.give_up_until(lowest);
            return;
        }
        let slice = left.pieces(self.walk.pace.width()).first().copied();
        let slice = slice.unwrap_or(left);
        let what = format!(
            "{} in {}/{}",
            self.walk.what,
            text(slice.from()),
            text(slice.until())
        );
        let url = (self.walk.url)(slice);
        let listing = Listing::new(self.walk.client.clone(), url, what, "items");
        self.slice = Some((slice, listing));
    }

    /// The vendor says that the start is after the end, which is also what it says of a start that
    /// is too old. The answer's Date has just told us the right time.
    fn too_old(&mut self, slice: Window, refusal: Refusal) -> Result<(), FetchError> {
        let lowest = span::lowest(self.walk.client.wire().now());
        if slice.from() < lowest {
            self.give_up_until(lowest);
        } else if slice.from() < lowest + TOO_OLD_DOUBT {
            self.give_up_until(lowest + TOO_OLD_DOUBT);
        } else {
            return Err(refusal.error);
        }
        Ok(())
    }

    fn give_up_until(&mut self, until: DateTime<Utc>) {
        let Some(left) = self.left else { return };
        self.lost_until = Some(until.min(left.until()));
        self.left = Window::new(until, left.until());
        self.decide_end();
    }

    fn decide_end(&mut self) {
        if self.left.is_none() {
            self.end = Some(match (self.lost_until, self.ends_early()) {
                (Some(until), _) => Err(self.gone(until)),
                (None, Some(error)) => Err(error),
                (None, None) => Ok(()),
            });
        }
    }

    /// A window whose end is yet to come was cut before the vendor's first answer told that our
    /// clock is ahead. It is read again once its time has come.
    fn ends_early(&self) -> Option<FetchError> {
        let ahead = self.walk.window.until() - self.walk.client.wire().now();
        let after = ahead.to_std().ok().filter(|wait| !wait.is_zero())?;
        Some(FetchError::Retry {
            what: format!(
                "{} until {}, which by the vendor's clock is yet to come: set this machine's clock \
                 by NTP",
                self.walk.what,
                text(self.walk.window.until())
            ),
            after: Some(after),
        })
    }

    fn gone(&self, until: DateTime<Utc>) -> FetchError {
        FetchError::Gone {
            what: format!(
                "{}: what happened from {} to {} is older than the 180 days for which the vendor \
                 keeps activities",
                self.walk.what,
                text(self.walk.window.from()),
                text(until)
            ),
        }
    }
}

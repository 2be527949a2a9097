//! The seam to a vendor's archive: what it keeps beyond what `list` gives, searched by event time.
//!
//! An archive fills gaps and reads what is older than the feed reaches. It is slow (a search takes
//! minutes to hours) and its searches are few, so the caller plans, counts and remembers them:
//! the archive itself keeps no durable state. What the caller must do stands at [`Archive`].

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{StreamId, Window, WorkItem};

use crate::{FetchError, PageStream};

/// What an archive allows, and how it is best asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// How far back it is kept.
    pub reach: TimeDelta,
    /// Records may become searchable so long after their event: a younger span is not whole yet.
    pub lag: TimeDelta,
    /// The span to search first.
    pub slice: TimeDelta,
    /// The span below which halving ends.
    pub slice_shortest: TimeDelta,
    /// Searches submitted in any 24 hours, for all streams and jobs with the same
    /// [`Archive::quota_key`].
    pub submissions_per_day: u32,
    /// Searches that may be submitted and not yet read at the same time, for the same.
    pub parallel: usize,
}

/// A span of event time, divided by what an archive can say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Searchable {
    /// Too old: the vendor no longer has it.
    pub lost: Option<Window>,
    /// Can be searched now.
    pub now: Option<Window>,
    /// Too young: to be searched when [`ArchiveLimits::lag`] has passed.
    pub later: Option<Window>,
}

impl ArchiveLimits {
    /// Divides a span.
    pub fn divide(&self, span: Window, now: DateTime<Utc>) -> Searchable {
        let (lowest, settled) = (now - self.reach, now - self.lag);
        let between = |from: DateTime<Utc>, until: DateTime<Utc>| Window::new(from, until);
        Searchable {
            lost: between(span.from(), span.until().min(lowest)),
            now: between(span.from().max(lowest), span.until().min(settled)),
            later: between(span.from().max(settled), span.until()),
        }
    }

    /// The halves of a span, at a whole second; `None` where it is not to be halved any more.
    pub fn halves(&self, span: Window) -> Option<[Window; 2]> {
        let half = TimeDelta::seconds(span.length().num_seconds() / 2);
        if half < self.slice_shortest || half.is_zero() {
            return None;
        }
        let middle = span.from() + half;
        Some([
            Window::new(span.from(), middle)?,
            Window::new(middle, span.until())?,
        ])
    }
}

/// Why there is no archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoArchive(
    /// One sentence for an operator.
    pub String,
);

/// A vendor's archive.
///
/// # What the caller must do
///
/// 1. [`ArchiveLimits::divide`] the span; what is lost is a lost gap. Cut the rest into slices.
/// 2. Count submissions **durably**, by [`Archive::quota_key`]: write the instant of a submission
///    *before* calling [`Archive::search`] (a crash then counts one too many, never one too few),
///    and do not call it while [`ArchiveLimits::submissions_per_day`] instants lie within the last
///    24 hours. Keep at most [`ArchiveLimits::parallel`] items that are submitted and not read.
/// 3. Store the [`WorkItem`] that `search` gives before anything else: its body names the search, so
///    that a restart goes on with it by [`Archive::fetch`] instead of submitting again.
/// 4. Commit the pages of `fetch` as those of any item. Pages may repeat records (of the same
///    search, of the feed): the seen index drops them, since identities are those of the feed.
///    Pages that came before an error may be kept.
/// 5. Only after the last page ([`exfilwatch_model::Page::last`]) is the slice read. Then, and not
///    earlier, may its part of a gap be called filled.
///
/// # Errors, besides what [`FetchError`] says of each
///
/// - `Truncated`, from `fetch`, before or after pages: the answer is not whole. Drop the item, put
///   the two [`ArchiveLimits::halves`] in its place; where there are none, its [`Archive::parts`]; where
///   there are none of those, or one of them is cut, it is a gap.
/// - `Gone`, from `fetch`: the search is no more (failed, cancelled, took more than a day, deleted
///   by the vendor), the records may well be there. Submit it again, a few times; then it is a gap.
/// - `Gone`, from `search`: the span is older than [`ArchiveLimits::reach`]: a lost gap.
/// - `Throttled` and `Retry`, from `search`: submit again after `after`, and count that again.
/// - `Permission`: the token may not read all records of this stream. The span must not be called
///   filled: with too few permissions the vendor answers with a part, and does not say so.
#[async_trait]
pub trait Archive: Send + Sync + Debug {
    /// What it allows.
    fn limits(&self) -> ArchiveLimits;

    /// Submissions with the same key share [`ArchiveLimits::submissions_per_day`] and
    /// [`ArchiveLimits::parallel`].
    fn quota_key(&self) -> String;

    /// Whether the credential may read all records of the stream. Submits nothing.
    async fn check(&self, stream: &StreamId) -> Result<(), FetchError>;

    /// Submits a search over a span of event time.
    async fn search(&self, stream: &StreamId, window: Window) -> Result<WorkItem, FetchError> {
        self.search_part(stream, window, None).await
    }

    /// Names of parts that are together all records of a stream, so that a span that is cut and not
    /// to be halved any more can be searched part by part. Empty where there are none.
    fn parts(&self, stream: &StreamId) -> Vec<String>;

    /// Submits a search over a span of event time, for one of [`Archive::parts`] where it is given.
    async fn search_part(
        &self,
        stream: &StreamId,
        window: Window,
        part: Option<&str>,
    ) -> Result<WorkItem, FetchError>;

    /// Waits until the search has ended, and reads it. May wait for hours before it returns; may be
    /// dropped while it does, and called again for the same item, also after a restart.
    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ArchiveLimits = ArchiveLimits {
        reach: TimeDelta::days(180),
        lag: TimeDelta::days(1),
        slice: TimeDelta::days(1),
        slice_shortest: TimeDelta::minutes(15),
        submissions_per_day: 150,
        parallel: 5,
    };

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_span_is_divided_into_lost_now_and_later_without_a_hole() {
        let now = at("2026-07-01T00:00:00Z");
        let span = Window::new(at("2025-12-01T00:00:00Z"), at("2026-06-30T12:00:00Z")).unwrap();
        let parts = LIMITS.divide(span, now);
        let (lost, middle, later) = (
            parts.lost.unwrap(),
            parts.now.unwrap(),
            parts.later.unwrap(),
        );
        assert_eq!((lost.from(), later.until()), (span.from(), span.until()));
        assert_eq!(lost.until(), at("2026-01-02T00:00:00Z"));
        assert_eq!(
            (middle.from(), middle.until()),
            (lost.until(), later.from())
        );
        assert_eq!(later.from(), at("2026-06-30T00:00:00Z"));
        let old = Window::new(at("2025-01-01T00:00:00Z"), at("2025-02-01T00:00:00Z")).unwrap();
        let parts = LIMITS.divide(old, now);
        assert_eq!(
            (parts.lost, parts.now, parts.later),
            (Some(old), None, None)
        );
    }

    #[test]
    fn a_day_is_halved_down_to_a_quarter_of_an_hour_and_no_further() {
        let from = at("2026-05-01T00:00:00Z");
        let mut span = Window::new(from, from + TimeDelta::days(1)).unwrap();
        let mut times = 0;
        while let Some([first, second]) = LIMITS.halves(span) {
            assert_eq!((first.from(), second.until()), (span.from(), span.until()));
            assert_eq!(first.until(), second.from());
            span = second;
            times += 1;
        }
        assert_eq!(times, 6);
        assert!(span.length() >= TimeDelta::minutes(15) && span.length() < TimeDelta::minutes(30));
    }
}

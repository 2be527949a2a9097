//! The plan of a job: what it will take, before it is begun. What is not known is said so.
//!
//! How much there is, is measured by a probe: three hours spread over the range are listed, and one
//! item of each is read up to its first page. Nothing of it is kept.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::kernel::limit::as_job;
use exfilwatch_connectors::{Connector, Cost};
use exfilwatch_model::{Clock, StreamId, Window};
use futures::{FutureExt, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{JobRequest, span_of};

/// Hours that are looked at.
const PROBES: i32 = 3;
/// Span of each.
const PROBE: TimeDelta = TimeDelta::hours(1);
/// Longest time a stream's probe may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Streams probed at the same time.
const AT_ONCE: usize = 4;

/// What one stream takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamPlan {
    /// The stream.
    pub stream: StreamId,
    /// Records in the span that is read, roughly; `None` where unknown.
    pub records: Option<u64>,
    /// Requests, roughly; `None` where unknown.
    pub requests: Option<u64>,
    /// Requests a minute that the job may make; `None` where the connector names no limit.
    pub requests_per_minute: Option<u32>,
    /// Minutes at that rate; streams of one quota key share it, so their minutes add up.
    pub minutes: Option<u64>,
    /// What of the wanted range the vendor does not list any more.
    pub outside: Option<Window>,
    /// Whether its archive can be asked for that, or why not.
    pub archive: Option<String>,
    /// What the numbers rest on.
    pub basis: String,
}

/// What a job takes for one tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The range that was asked for.
    pub wanted: Window,
    /// The range that is read: windows at its edges are to be whole.
    pub read: Window,
    /// Whether a live line is at work beside it, which keeps half of the quota.
    pub beside_live: bool,
    /// By stream.
    pub streams: Vec<StreamPlan>,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// The connectors of the tenant.
    pub connectors: &'a [Arc<dyn Connector>],
    /// The longest window of a rule.
    pub longest: TimeDelta,
    /// See [`Plan::beside_live`].
    pub beside_live: bool,
}

/// Makes the plan of a job for one tenant.
pub async fn plan(request: &JobRequest, basis: Basis<'_>, clock: &dyn Clock) -> Plan {
    let now = clock.now();
    let beside_live = basis.beside_live;
    let read = span_of(request, basis.longest, now);
    let spans = Spans {
        wanted: request.window,
        read,
        now,
    };
    let mut plans = Vec::new();
    for connector in basis.connectors {
        let streams = connector.streams().into_iter();
        for stream in streams.filter(|stream| request.is_for(stream)) {
            if connector.withheld(&stream).await.is_some() {
                continue;
            }
            plans.push(of_stream(connector.clone(), stream, spans, beside_live).boxed());
        }
    }
    Plan {
        wanted: request.window,
        read,
        beside_live,
        streams: stream::iter(plans).buffered(AT_ONCE).collect().await,
    }
}

#[derive(Debug, Clone, Copy)]
struct Spans {
    wanted: Window,
    read: Window,
    now: DateTime<Utc>,
}

async fn of_stream(
    connector: Arc<dyn Connector>,
    stream: StreamId,
    spans: Spans,
    beside_live: bool,
) -> StreamPlan {
    let cost = connector.cost(&stream);
    let lowest = cost.map(|cost| spans.now - cost.reach);
    let outside = lowest.and_then(|lowest| {
        // A range that was asked for to the very edge is not called cut.
        let until = spans.wanted.until().min(lowest);
        Window::new(spans.wanted.from(), until).filter(|w| w.length() > TimeDelta::minutes(10))
    });
    let archive = outside.map(|_| match connector.archive() {
        Ok(_) => "searched in the vendor's archive, which takes minutes to hours a day".to_owned(),
        Err(none) => none.to_string(),
    });
    let listed = match lowest {
        Some(lowest) => Window::new(spans.read.from().max(lowest), spans.read.until()),
        None => Some(spans.read),
    };
    let probe = match listed {
        Some(listed) => {
            let probe = as_job(probe(&*connector, &stream, listed));
            let timely = tokio::time::timeout(PATIENCE, probe).await;
            timely.unwrap_or_else(|_| Err("the probe took too long".to_owned()))
        }
        None => Err("nothing of it is listed any more".to_owned()),
    };
    let rate = cost.map(|cost| {
        let all = cost.requests_per_minute;
        if beside_live { (all / 2).max(1) } else { all }
    });
    let (records, requests, basis) = match (&probe, listed) {
        (Ok(probe), Some(listed)) => (
            probe.records(listed),
            cost.and_then(|cost| probe.requests(listed, cost)),
            probe.basis(),
        ),
        (Err(why), _) => (None, None, format!("unknown: {why}")),
        (Ok(_), None) => (None, None, "unknown".to_owned()),
    };
    StreamPlan {
        stream,
        records,
        requests,
        requests_per_minute: rate,
        minutes: rate.and_then(|rate| Some(requests?.div_ceil(rate.into()))),
        outside,
        archive,
        basis,
    }
}

/// What the probe saw.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Probe {
    hours: f64,
    items: usize,
    /// Items that were read, and the records on their first pages.
    read: usize,
    records: usize,
    /// Some item had more pages than the one that was read.
    more: bool,
}

async fn probe(
    connector: &dyn Connector,
    stream: &StreamId,
    span: Window,
) -> Result<Probe, String> {
    let mut probe = Probe::default();
    for window in probes(span) {
        let items = connector.relist(stream, window).await;
        let items = items.map_err(|error| error.to_string())?;
        probe.hours += window.length().as_seconds_f64() / 3_600.0;
        probe.items += items.len();
        let Some(item) = items.first() else { continue };
        let pages = connector.fetch(item).await;
        let mut pages = pages.map_err(|error| error.to_string())?;
        if let Some(page) = pages.next().await {
            let page = page.map_err(|error| error.to_string())?;
            probe.read += 1;
            probe.records += page.records.len();
            probe.more |= !page.last;
        }
    }
    Ok(probe)
}

/// Hours spread over a span, each within it.
fn probes(span: Window) -> Vec<Window> {
    if span.length() <= PROBE * PROBES {
        return vec![span];
    }
    let step = span.length() / PROBES;
    let start = |number| span.from() + step * number + (step - PROBE) / 2;
    let windows = (0..PROBES).filter_map(|n| Window::new(start(n), start(n) + PROBE));
    windows.collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
impl Probe {
    /// Items in a span, at the rate that was seen.
    fn items_in(&self, span: Window) -> f64 {
        let hours = span.length().as_seconds_f64() / 3_600.0;
        self.items as f64 / self.hours.max(f64::MIN_POSITIVE) * hours
    }

    fn records_each(&self) -> Option<f64> {
        match (self.items, self.read) {
            (0, _) => Some(0.0),
            (_, 0) => None,
            (_, read) => Some(self.records as f64 / read as f64),
        }
    }

    fn records(&self, span: Window) -> Option<u64> {
        Some((self.items_in(span) * self.records_each()?).ceil() as u64)
    }

    fn requests(&self, span: Window, cost: Cost) -> Option<u64> {
        let listings = cost.listing_span.map_or(0.0, |each| {
            span.length().as_seconds_f64() / each.as_seconds_f64()
        });
        let pages_each = match cost.page_records {
            Some(page) => (self.records_each()? / page as f64).ceil().max(1.0),
            None => 1.0,
        };
        Some((listings.ceil() + self.items_in(span) * pages_each).ceil() as u64)
    }

    fn basis(&self) -> String {
        let at_least = if self.more { ", at least" } else { "" };
        format!(
            "{} items of {:.0} hours looked at, {} of them read{at_least}",
            self.items, self.hours, self.read
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::job::common;

    fn window(from: i64, until: i64) -> Window {
        let at = |hours| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        Window::new(at(from), at(until)).unwrap()
    }

    #[test]
    fn three_hours_are_spread_over_the_range_and_a_short_one_is_looked_at_whole() {
        let hours = probes(window(0, 72));
        assert_eq!(hours.len(), 3);
        for (number, hour) in (0..).zip(&hours) {
            assert_eq!(hour.length(), PROBE);
            assert!(common(*hour, window(24 * number, 24 * (number + 1))) == Some(*hour));
        }
        assert_eq!(probes(window(5, 7)), [window(5, 7)]);
    }

    #[test]
    fn requests_and_records_follow_from_what_was_seen() {
        let seen = Probe {
            hours: 3.0,
            items: 30,
            read: 3,
            records: 600,
            more: false,
        };
        let day = window(0, 24);
        let blobs = Cost {
            requests_per_minute: 1_000,
            reach: TimeDelta::days(7),
            listing_span: Some(TimeDelta::hours(6)),
            page_records: None,
        };
        assert_eq!(seen.records(day), Some(48_000), "240 items of 200");
        assert_eq!(
            seen.requests(day, blobs),
            Some(244),
            "4 listings, 240 blobs"
        );
        let windows = Probe {
            items: 3,
            records: 6_000,
            ..seen
        };
        let pages = Cost {
            listing_span: None,
            page_records: Some(1_000),
            ..blobs
        };
        assert_eq!(
            windows.requests(day, pages),
            Some(48),
            "24 windows of 2 pages"
        );
        let nothing = Probe {
            hours: 3.0,
            ..Probe::default()
        };
        assert_eq!(nothing.records(day), Some(0));
        let not_read = Probe { read: 0, ..seen };
        assert_eq!(not_read.records(day), None, "unknown is not nought");
    }
}

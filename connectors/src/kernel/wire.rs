//! The transport with our time-outs, and what the vendor's clock says.
//!
//! Waiting is bounded here for every transport: for the head of a response, for each piece of a
//! body, and for a body as a whole. Only time spent waiting for the network counts, so a caller
//! who takes his time over a page does not lose the rest of a blob.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::Clock;
use futures::{StreamExt, stream};
use http::header::DATE;
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, timeout};

use super::transport::{BodyStream, Transport, TransportError};

/// Longest wait for the head of a response. Services were seen to take a minute over a large blob.
pub const HEAD_WAIT: Duration = Duration::from_secs(90);
/// Longest wait for the next piece of a body.
pub const IDLE_WAIT: Duration = Duration::from_secs(90);
/// Longest wait for a body, all its pieces together …
pub const BODY_WAIT: Duration = Duration::from_mins(2);
/// … and a second more for so many bytes that did come: a thin line is no reason to give up.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// A difference between the clocks below this is the resolution of `Date` and the time on the way.
const SKEW_NOISE: TimeDelta = TimeDelta::seconds(5);
/// The time on the way, really; where our clock runs fast, more of its time passes meanwhile.
const WAY: Duration = Duration::from_secs(1);
/// From here on the operator should know.
const SKEW_WARN: TimeDelta = TimeDelta::seconds(60);

/// A transport, a clock, and the difference between that clock and the vendor's.
#[derive(Debug)]
pub struct Wire {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    skew_ms: AtomicI64,
}

impl Wire {
    /// The clocks are taken to agree until a response says otherwise.
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            transport,
            clock,
            skew_ms: AtomicI64::new(0),
        }
    }

    /// Our clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The vendor's time: ours, corrected by the `Date` headers seen.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now() + self.skew()
    }

    /// How far the vendor's clock is ahead of ours.
    pub fn skew(&self) -> TimeDelta {
        TimeDelta::milliseconds(self.skew_ms.load(Ordering::Relaxed))
    }

    /// Sends the request; the body that comes back gives up by itself when it stalls.
    pub async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<BodyStream>, TransportError> {
        let response = timeout(HEAD_WAIT, self.transport.send(request))
            .await
            .map_err(|_| {
                TransportError(format!("no answer within {} seconds", HEAD_WAIT.as_secs()))
            })??;
        self.note_date(response.headers());
        Ok(response.map(bounded))
    }

    fn note_date(&self, headers: &HeaderMap) {
        let Some(date) = headers
            .get(DATE)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| DateTime::parse_from_rfc2822(text).ok())
        else {
            return;
        };
        let measured = date.with_timezone(&Utc) - self.clock.now();
        let noise = self.noise();
        let warn = SKEW_WARN.max(noise);
        let skew = if measured.abs() < noise {
            TimeDelta::zero()
        } else {
            measured
        };
        let before = self.skew_ms.load(Ordering::Relaxed);
        // A jump is taken at once (the first look, a clock that was set); small changes smoothed.
        let next = if (skew.num_milliseconds() - before).abs() > warn.num_milliseconds() {
            skew.num_milliseconds()
        } else {
            (3 * before + skew.num_milliseconds()) / 4
        };
        self.skew_ms.store(next, Ordering::Relaxed);
        let warned = TimeDelta::milliseconds(before).abs() >= warn;
        if !warned && TimeDelta::milliseconds(next).abs() >= warn {
            tracing::warn!(
                skew_seconds = next / 1_000,
                "this machine's clock differs from the vendor's: set it by NTP"
            );
        }
    }

    fn noise(&self) -> TimeDelta {
        let real = self.clock.real(WAY).as_secs_f64().max(f64::EPSILON);
        let way = WAY.mul_f64(WAY.as_secs_f64() / real);
        TimeDelta::from_std(way).map_or(SKEW_NOISE, |way| SKEW_NOISE.max(way))
    }
}

/// A body, what was waited for it and how many bytes came.
type Bounded = (Option<BodyStream>, Duration, u64);

fn bounded(body: BodyStream) -> BodyStream {
    stream::unfold(
        (Some(body), Duration::ZERO, 0),
        |(body, waited, came): Bounded| async move {
            let mut body = body?;
            let all = BODY_WAIT + Duration::from_secs(came / BODY_BYTES_PER_SECOND_MIN);
            let allowed = IDLE_WAIT.min(all.saturating_sub(waited));
            let started = Instant::now();
            match timeout(allowed, body.next()).await {
                Ok(Some(Ok(piece))) => {
                    let came = came.saturating_add(piece.len() as u64);
                    Some((Ok(piece), (Some(body), waited + started.elapsed(), came)))
                }
                Ok(Some(Err(error))) => Some((Err(error), (None, waited, came))),
                Ok(None) => None,
                Err(_) => {
                    let error = TransportError("the body stalled or took too long".to_owned());
                    Some((Err(error), (None, waited, came)))
                }
            }
        },
    )
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::transport::Transport;
    use async_trait::async_trait;

    #[derive(Debug)]
    struct Fixed(DateTime<Utc>);
    impl Clock for Fixed {
        fn now(&self) -> DateTime<Utc> {
            self.0
        }
    }

    /// What a server does wrong.
    #[derive(Debug)]
    enum Slow {
        Head,
        Body,
        Drip,
        Not,
    }

    #[async_trait]
    impl Transport for Slow {
        async fn send(&self, _: Request<Bytes>) -> Result<Response<BodyStream>, TransportError> {
            let drip = |every: u64, pieces: usize| {
                stream::iter(0..pieces)
                    .then(move |_| async move {
                        tokio::time::sleep(Duration::from_secs(every)).await;
                        Ok(Bytes::from_static(b"x"))
                    })
                    .boxed()
            };
            let body = match self {
                Self::Head => {
                    tokio::time::sleep(Duration::from_hours(1)).await;
                    drip(0, 1)
                }
                Self::Body => drip(3_600, 1),
                Self::Drip => drip(20, 1_000),
                Self::Not => drip(0, 3),
            };
            let response = Response::builder().header(DATE, "Sat, 23 May 2026 12:10:00 GMT");
            Ok(response.body(body).unwrap())
        }
    }

    fn wire(slow: Slow) -> Wire {
        let now = "2026-05-23T12:00:00Z".parse().unwrap();
        Wire::new(Arc::new(slow), Arc::new(Fixed(now)))
    }

    #[tokio::test(start_paused = true)]
    async fn slow_heads_stalled_bodies_and_drips_end_in_an_error() {
        for (slow, within) in [(Slow::Head, 91), (Slow::Body, 91), (Slow::Drip, 121)] {
            let name = format!("{slow:?}");
            let wire = wire(slow);
            let started = Instant::now();
            let failed = match wire.send(Request::new(Bytes::new())).await {
                Err(_) => true,
                Ok(response) => {
                    response
                        .into_body()
                        .any(|p| async move { p.is_err() })
                        .await
                }
            };
            assert!(failed, "{name}");
            assert!(started.elapsed() < Duration::from_secs(within), "{name}");
        }
    }

    #[tokio::test]
    async fn the_vendors_clock_is_followed_when_it_differs() {
        let wire = wire(Slow::Not);
        assert_eq!(wire.skew(), TimeDelta::zero());
        let response = wire.send(Request::new(Bytes::new())).await.unwrap();
        assert_eq!(response.into_body().count().await, 3);
        assert_eq!(wire.skew(), TimeDelta::minutes(10));
        assert_eq!(wire.now().to_rfc3339(), "2026-05-23T12:10:00+00:00");
    }
}

//! `/healthz`, `/readyz` and `/metrics`, when `run` is told an address.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::TimeDelta;
use exfilwatch_model::{Clock, Kind};
use exfilwatch_state::StateStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::pipeline::committer::chain;
use crate::pipeline::watch::Watch;
use crate::serve::metrics;

/// What the answers are made from.
#[derive(Debug, Clone)]
pub struct Status {
    /// The pipeline.
    pub watch: Watch,
    /// What waits in quarantine.
    pub store: Arc<dyn StateStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// A finding that waits longer makes the process unready.
    pub finding_wait_max: TimeDelta,
}

/// The routes.
pub fn router(status: Status) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metric_page))
        .with_state(status)
}

/// Serves until shutdown.
pub async fn serve(
    listener: TcpListener,
    status: Status,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(status))
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

/// Binds the address; anything but loopback is refused, since nothing here asks who is asking.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let why = format!("{address} is not a loopback address; put a proxy in front of 127.0.0.1");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    TcpListener::bind(address).await
}

async fn ready(State(status): State<Status>) -> Response {
    let late = late_findings(&status);
    if late.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, late.join("\n") + "\n").into_response()
}

fn late_findings(status: &Status) -> Vec<String> {
    let now = status.clock.now();
    let shown = status.watch.copy();
    let late = shown
        .lanes
        .keys()
        .filter(|lane| lane.kind == Kind::Findings)
        .filter_map(|lane| {
            let since = shown.lane_health(lane).oldest?;
            let waits = now - since;
            (waits > status.finding_wait_max).then(|| {
                format!(
                    "{} ({}): a finding waits for {} s, more than {}: exfilwatch status says why",
                    lane.emitter,
                    lane.route,
                    waits.num_seconds(),
                    status.finding_wait_max.num_seconds()
                )
            })
        });
    late.collect()
}

async fn metric_page(State(status): State<Status>) -> Response {
    let page = move || {
        // What streams and lanes do is wanted most when the store is in trouble.
        let entries = status.store.quarantined().inspect_err(|error| {
            tracing::warn!(error = %chain(error), "the metrics leave out the quarantine, which cannot be read");
        });
        let now = status.clock.now();
        metrics::text(&status.watch.copy(), entries.ok().as_deref(), now)
    };
    match tokio::task::spawn_blocking(page).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            let why = format!("the page could not be made: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use exfilwatch_state::{LaneId, Options, State};

    #[derive(Debug)]
    struct Fixed(DateTime<Utc>);

    impl Clock for Fixed {
        fn now(&self) -> DateTime<Utc> {
            self.0
        }
    }

    #[test]
    fn a_finding_that_waits_too_long_makes_us_unready() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        let (watch, folder) = (Watch::default(), tempfile::tempdir().unwrap());
        let state = State::open(folder.path(), now, Options::default());
        let status = Status {
            watch: watch.clone(),
            store: state.unwrap().state.store(),
            clock: Arc::new(Fixed(now)),
            finding_wait_max: TimeDelta::minutes(5),
        };
        let lane = |kind| LaneId {
            emitter: "splunk_hec.main".into(),
            route: "all".into(),
            kind,
        };
        watch.lane(&lane(Kind::Events)).lock().unwrap().oldest = Some(DateTime::UNIX_EPOCH);
        assert!(late_findings(&status).is_empty(), "events may wait");
        let health = watch.lane(&lane(Kind::Findings));
        health.lock().unwrap().oldest = Some(now - TimeDelta::minutes(4));
        assert!(late_findings(&status).is_empty());
        health.lock().unwrap().oldest = Some(now - TimeDelta::minutes(6));
        assert_eq!(late_findings(&status).len(), 1);
    }

    #[tokio::test]
    async fn only_loopback_is_served() {
        assert!(bind("0.0.0.0:0".parse().unwrap()).await.is_err());
        assert!(bind("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }
}

//! Where the browser comes back to: a small server on 127.0.0.1 for the time of one login.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::output::plain;

/// What a browser brought, and where to answer: `None` when it was the right thing.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) query: String,
    pub(super) reply: oneshot::Sender<Option<String>>,
}

/// The server.
#[derive(Debug)]
pub(super) struct Redirect {
    /// What to give as redirect.
    pub(super) url: String,
    answers: mpsc::Receiver<Answered>,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Redirect {
    /// Listens on that port of 127.0.0.1, or on any free one for 0.
    pub(super) async fn listen(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (sender, answers) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(came_back)).with_state(sender);
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stopped)
                .await
        });
        Ok(Self {
            url,
            answers,
            stop,
            server,
        })
    }

    /// The next visit that brings a query.
    pub(super) async fn next(&mut self) -> Option<Answered> {
        self.answers.recv().await
    }

    /// Ends the server once the last answer is written.
    pub(super) async fn said(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(2), &mut self.server).await;
        tracing::debug!(?ended, "the redirect is no longer listened to");
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn came_back(
    State(answers): State<mpsc::Sender<Answered>>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(query) = query else {
        return page(StatusCode::BAD_REQUEST, "Nothing was brought back.");
    };
    let (reply, outcome) = oneshot::channel();
    if answers.send(Answered { query, reply }).await.is_err() {
        return page(StatusCode::GONE, "This login is over.");
    }
    match outcome.await {
        Ok(None) => page(
            StatusCode::OK,
            "exfilwatch may now read the audit logs. You can close this page.",
        ),
        Ok(Some(why)) => page(StatusCode::BAD_REQUEST, &why),
        Err(_) => page(StatusCode::GONE, "This login is over."),
    }
}

/// Plain text: what came in a query must not become a page of its own.
fn page(status: StatusCode, words: &str) -> Response {
    let headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("cache-control", "no-store"),
        ("connection", "close"),
    ];
    (status, headers, format!("{}\n", plain(words))).into_response()
}

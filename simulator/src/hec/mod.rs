//! A Splunk HTTP event collector: event, raw, ack and health, with the reply codes and the prefix
//! rule of the real one, and a record of what was indexed.
//!
//! It is as lenient as Splunk (the content type is ignored, times may be strings) and as strict
//! (unknown envelope members, blank events). It must not know what our client sends.

mod ack;
mod condition;
mod event;
mod journal;
mod record;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use uuid::Uuid;

pub use self::condition::{Condition, Poison, Takes};
pub use self::record::{Indexed, Keep, Recorded};
use crate::reply;

/// Reply codes, with status and text.
const CODES: [(u16, u16, &str); 29] = [
    (0, 200, "Success"),
    (1, 403, "Token disabled"),
    (2, 401, "Token is required"),
    (3, 401, "Invalid authorization"),
    (4, 403, "Invalid token"),
    (5, 400, "No data"),
    (6, 400, "Invalid data format"),
    (7, 400, "Incorrect index"),
    (8, 500, "Internal server error"),
    (9, 503, "Server is busy"),
    (10, 400, "Data channel is missing"),
    (11, 400, "Invalid data channel"),
    (12, 400, "Event field is required"),
    (13, 400, "Event field cannot be blank"),
    (14, 400, "ACK is disabled"),
    (15, 400, "Error in handling indexed fields"),
    (16, 400, "Query string authorization is not enabled"),
    (17, 200, "HEC is healthy"),
    (18, 503, "HEC is unhealthy, queues are full"),
    (19, 503, "HEC is unhealthy, ack service unavailable"),
    (
        20,
        503,
        "HEC is unhealthy, queues are full, ack service unavailable",
    ),
    (21, 400, "Invalid token"),
    (22, 400, "Token disabled"),
    (23, 503, "Server is shutting down"),
    (24, 200, "HEC queue is approaching its capacity limit"),
    (25, 200, "HEC ACK is approaching its capacity limit"),
    (26, 429, "HEC queue is at capacity"),
    (27, 429, "HEC ACK channel is at capacity"),
    (
        28,
        400,
        "Data channel is missing. If you have multiple indexers, sticky session is needed",
    ),
];

/// Set-up of the collector and of its one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HecOptions {
    /// Whether the token has indexer acknowledgement.
    pub use_ack: bool,
    /// From indexing to the acknowledgement; tokio's time.
    pub ack_after: Duration,
    /// Acknowledgements never come.
    pub ack_never: bool,
    /// Most acknowledgements kept for a channel; more are answered with code 27.
    pub acks_max: usize,
    /// A channel that is idle for so long loses its acknowledgements (`maxIdleTime`).
    pub ack_idle_max: Duration,
    /// Name of a cookie that repeats the channel, for balancers (`channel_cookie`).
    pub channel_cookie: Option<String>,
    /// Events that are never taken.
    pub poison: Vec<Poison>,
    /// A body is taken whole or not at all, and the reply names no event: as what speaks HEC and is not
    /// Splunk may do.
    pub whole_bodies: bool,
    /// Indexes the token may write to; empty means any.
    pub indexes: BTreeSet<String>,
    /// Largest body, decoded.
    pub content_bytes_max: usize,
    /// Largest event.
    pub event_bytes_max: usize,
    /// Whether a gzip body is understood (415 where not).
    pub gzip: bool,
    /// What to keep of what was indexed.
    pub keep: Keep,
}

impl Default for HecOptions {
    fn default() -> Self {
        Self {
            use_ack: true,
            ack_after: Duration::from_millis(50),
            ack_never: false,
            acks_max: 1_000_000,
            ack_idle_max: Duration::from_mins(10),
            channel_cookie: None,
            poison: Vec::new(),
            whole_bodies: false,
            indexes: BTreeSet::new(),
            content_bytes_max: 838_860_800,
            event_bytes_max: 5_242_880,
            gzip: true,
            keep: Keep::Everything,
        }
    }
}

/// The simulated collector. Clones share one state.
#[derive(Debug, Clone)]
pub struct Hec {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<ServiceState>,
}

#[derive(Debug)]
struct ServiceState {
    options: HecOptions,
    token: String,
    disabled: bool,
    conditions: condition::Conditions,
    acks: ack::Channels,
    recorded: Recorded,
    journal: Option<journal::Journal>,
}

impl Hec {
    /// A collector with one token.
    pub fn new(options: HecOptions, token: String) -> Self {
        let recorded = Recorded::new(options.keep);
        let acks = ack::Channels::default();
        let state = ServiceState {
            options,
            token,
            disabled: false,
            conditions: condition::Conditions::default(),
            acks,
            recorded,
            journal: None,
        };
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
            }),
        }
    }

    /// From now on events go to a file, a line each, and are acknowledged when they are on disk:
    /// what came within [`HecOptions::ack_after`] together.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.journal = Some(journal::Journal::open(path, state.options.ack_after)?);
        Ok(())
    }

    /// The routes, without faults; [`crate::Simulator`] adds those.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for path in ["", "/event", "/event/1.0"] {
            let path = format!("/services/collector{path}");
            router = router.route(&path, post(event::take).options(options_reply));
        }
        for path in ["/raw", "/raw/1.0"] {
            let path = format!("/services/collector{path}");
            router = router.route(&path, post(event::take_raw).options(options_reply));
        }
        for path in ["/health", "/health/1.0"] {
            let path = format!("/services/collector{path}");
            router = router.route(&path, get(health).options(options_reply));
        }
        router
            .route(
                "/services/collector/ack",
                post(ack::query).options(options_reply),
            )
            .layer(DefaultBodyLimit::disable())
            .with_state(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, ServiceState> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What was indexed so far: a copy.
    pub fn recorded(&self) -> Recorded {
        self.state().recorded.clone()
    }

    /// Looks at what was indexed without a copy.
    pub fn look<T>(&self, look: impl FnOnce(&Recorded) -> T) -> T {
        look(&self.state().recorded)
    }

    /// Forgets what was indexed.
    pub fn clear(&self) {
        let mut state = self.state();
        state.recorded = Recorded::new(state.options.keep);
    }

    /// Changes the set-up while it runs.
    pub fn configure(&self, change: impl FnOnce(&mut HecOptions)) {
        change(&mut self.state().options);
    }

    /// Replaces the token, as a rotation does; the old one is then invalid.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.state().token);
    }

    /// Answers the next bodies it can read like this, one each.
    pub fn answer_next(&self, conditions: impl IntoIterator<Item = Condition>) {
        self.state().conditions.extend(conditions);
    }

    /// Disables or enables the token.
    pub fn disable_token(&self, disabled: bool) {
        self.state().disabled = disabled;
    }

    /// An indexer restart: acknowledgement ids begin at 0 again, outstanding ones are forgotten.
    pub fn restart(&self) {
        self.state().acks = ack::Channels::default();
    }
}

impl ServiceState {
    /// Codes 2, 3, 4, 16 and 1.
    fn check_token(&self, headers: &HeaderMap, query: &[(String, String)]) -> Result<(), Response> {
        let Some(value) = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
        else {
            let in_query = query.iter().any(|(name, _)| name == "token");
            return Err(answer(if in_query { 16 } else { 2 }));
        };
        let token = value.strip_prefix("Splunk ").ok_or_else(|| answer(3))?;
        if token != self.token {
            return Err(answer(4));
        }
        if self.disabled {
            return Err(answer(1));
        }
        Ok(())
    }

    /// The channel of a call: code 10 where one is needed and missing, 11 where it is no GUID.
    fn channel(
        &self,
        headers: &HeaderMap,
        query: &[(String, String)],
    ) -> Result<Option<String>, Response> {
        let header = headers
            .get("x-splunk-request-channel")
            .and_then(|value| value.to_str().ok());
        let named = query
            .iter()
            .find(|(name, _)| name == "channel")
            .map(|(_, value)| value.as_str());
        match header.or(named) {
            None if self.options.use_ack => Err(answer(10)),
            None => Ok(None),
            Some(channel) if Uuid::parse_str(channel).is_ok() => Ok(Some(channel.to_lowercase())),
            Some(_) => Err(answer(11)),
        }
    }
}

/// The reply of a code without further members.
fn answer(code: u16) -> Response {
    answer_with(code, None, None)
}

fn answer_with(code: u16, invalid_event: Option<usize>, ack_id: Option<u64>) -> Response {
    let (status, text) = CODES
        .iter()
        .find(|(known, _, _)| *known == code)
        .map_or((500, "Internal server error"), |(_, status, text)| {
            (*status, *text)
        });
    let mut body = json!({ "text": text, "code": code });
    if let Some(members) = body.as_object_mut() {
        if let Some(number) = invalid_event {
            members.insert("invalid-event-number".into(), json!(number));
        }
        if let Some(id) = ack_id {
            members.insert("ackId".into(), json!(id));
        }
    }
    reply::json(status, body.to_string())
}

/// A body as it was before it was compressed: 415 where gzip is not understood, 413 over the limit,
/// code 6 where it is not gzip at all.
fn decoded(headers: &HeaderMap, body: Bytes, options: &HecOptions) -> Result<Bytes, Response> {
    let limit = options.content_bytes_max;
    if body.len() > limit {
        return Err(reply::html(413));
    }
    let encoding = headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    match encoding {
        None | Some("identity") => Ok(body),
        Some("gzip") if options.gzip => {
            let mut decoded = Vec::new();
            let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
            let mut reader = MultiGzDecoder::new(&body[..]).take(bound);
            reader
                .read_to_end(&mut decoded)
                .map_err(|_| answer_with(6, Some(0), None))?;
            if decoded.len() > limit {
                return Err(reply::html(413));
            }
            Ok(decoded.into())
        }
        Some(_) => Err(reply::html(415)),
    }
}

fn query_pairs(query: Option<String>) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .into_owned()
        .collect()
}

async fn options_reply() -> Response {
    let mut response = reply::custom(200, String::new(), &[]);
    response
        .headers_mut()
        .insert("allow", HeaderValue::from_static("GET,POST,OPTIONS"));
    response
}

/// 17 without a token or with a good one; 21 and 22 with a bad one.
async fn health(State(hec): State<Hec>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let state = hec.state();
    if headers.get(AUTHORIZATION).is_none() {
        return answer(17);
    }
    match state.check_token(&headers, &query_pairs(query)) {
        Ok(()) => answer(17),
        Err(_) if state.disabled => answer(22),
        Err(_) => answer(21),
    }
}

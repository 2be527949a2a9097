//! One call of a vendor's API: quota, token, the request, and what to do with its answer.
//!
//! What passes by itself is waited out here, within limits, so that a walk over pages need not
//! start again: a throttled request after its pause, a broken connection or a 5xx after a short
//! back-off, a refused token after one renewal. Everything else goes to the caller as a
//! [`Refusal`], which the vendor's own [`Classify`] has made of the answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use super::auth::TokenCache;
use super::body::{Body, BodyError, SMALL_BODY_BYTES_MAX};
use super::limit::Quota;
use super::retry::full_jitter;
use super::transport::BodyStream;
use super::wire::Wire;
use crate::FetchError;

/// Tries of one call that fail for a passing reason, the first included.
pub const TRIES_MAX: u32 = 3;
/// Pauses for the quota that one call sits out.
pub const PAUSES_MAX: u32 = 6;
/// Longest `Retry-After` that is sat out; after a longer one the caller comes back.
pub const SAT_OUT_MAX: Duration = Duration::from_secs(60);
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(20);

/// A call to make.
#[derive(Debug, Clone)]
pub struct Ask {
    /// GET or POST; a POST has no body.
    pub method: Method,
    /// The whole URL, on the one origin.
    pub url: String,
    /// What is asked for, in words, for errors: no query, no token.
    pub what: String,
    /// Whether passing trouble is waited out. Off where a repeated call would do harm.
    pub patient: bool,
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, decoded; cut short at [`SMALL_BODY_BYTES_MAX`].
    pub body: &'a [u8],
    /// What was asked for, in words.
    pub what: &'a str,
    /// The vendor's time.
    pub now: DateTime<Utc>,
}

/// What the vendor's answer means.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// The vendor's code, as far as one was found (`AF20022`, `rateLimitExceeded`).
    pub code: String,
    /// What the caller must do.
    pub error: FetchError,
}

impl From<Refusal> for FetchError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        Self {
            code: String::new(),
            error,
        }
    }
}

/// How a vendor's answers are understood. By status first, by body second.
pub type Classify = fn(&Answer<'_>) -> Refusal;

/// Calls one vendor's API with one token and one quota.
pub struct Client {
    wire: Arc<Wire>,
    quota: Arc<Quota>,
    tokens: TokenCache,
    classify: Classify,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Puts the parts together.
    pub fn new(wire: Arc<Wire>, quota: Arc<Quota>, tokens: TokenCache, classify: Classify) -> Self {
        Self {
            wire,
            quota,
            tokens,
            classify,
        }
    }

    /// The wire, for its clocks.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Makes the call. A success comes back with its body unread.
    pub async fn call(&self, ask: &Ask) -> Result<Response<BodyStream>, Refusal> {
        let mut failures = 0;
        let mut pauses = 0;
        let mut token = self.tokens.token().await?;
        let mut renewed = false;
        loop {
            self.quota.ready().await;
            let (refusal, status) = match self.once(ask, &token).await {
                Ok(response) => {
                    self.quota.went_through();
                    return Ok(response);
                }
                Err(refused) => refused,
            };
            if status == Some(StatusCode::UNAUTHORIZED) && !renewed {
                token = self.tokens.renewed(&token).await?;
                renewed = true;
                continue;
            }
            match &refusal.error {
                FetchError::Throttled { after, .. } if ask.patient => {
                    self.quota.throttled(*after, rand::random());
                    pauses += 1;
                    if pauses >= PAUSES_MAX || after.is_some_and(|wait| wait > SAT_OUT_MAX) {
                        return Err(refusal);
                    }
                }
                FetchError::Retry { after, .. } if ask.patient && passes(status) => {
                    failures += 1;
                    if failures >= TRIES_MAX || after.is_some_and(|wait| wait > SAT_OUT_MAX) {
                        return Err(refusal);
                    }
                    let wait = after.unwrap_or_else(|| {
                        full_jitter(failures, BACK_OFF_FIRST, BACK_OFF_LONGEST, rand::random())
                    });
                    self.quota.wait(wait).await;
                }
                _ => return Err(refusal),
            }
        }
    }

    /// One request. An error carries the status, if there was one.
    async fn once(
        &self,
        ask: &Ask,
        token: &SecretString,
    ) -> Result<Response<BodyStream>, (Refusal, Option<StatusCode>)> {
        let request = request(ask, token).map_err(|error| (error.into(), None))?;
        let response = self
            .wire
            .send(request)
            .await
            .map_err(|error| (broken(&ask.what, &error.0).into(), None))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let answer = Answer {
            status,
            headers: &headers,
            body: &beginning(response).await,
            what: &ask.what,
            now: self.wire.now(),
        };
        Err(((self.classify)(&answer), Some(status)))
    }
}

/// No answer, or one that says that the server had trouble of its own.
fn passes(status: Option<StatusCode>) -> bool {
    status.is_none_or(|s| s.is_server_error() || s == StatusCode::REQUEST_TIMEOUT)
}

fn request(ask: &Ask, token: &SecretString) -> Result<Request<Bytes>, FetchError> {
    let unusable = || FetchError::Poison {
        what: format!("{}: the request cannot be built", ask.what),
    };
    let mut bearer =
        HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| {
            FetchError::Auth {
                what: format!(
                    "{}: the access token holds characters no header may hold",
                    ask.what
                ),
                help: "check that login_root or token_uri is the vendor's own".to_owned(),
            }
        })?;
    bearer.set_sensitive(true);
    let mut builder = Request::builder()
        .method(ask.method.clone())
        .uri(&ask.url)
        .header(AUTHORIZATION, bearer)
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "gzip");
    if ask.method == Method::POST {
        builder = builder.header(CONTENT_LENGTH, "0");
    }
    builder.body(Bytes::new()).map_err(|_| unusable())
}

/// What there is of an error's body. Trouble while reading it changes nothing: the status decides.
async fn beginning(response: Response<BodyStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(mut body) = Body::new(response, SMALL_BODY_BYTES_MAX) {
        while let Ok(Some(piece)) = body.next().await {
            bytes.extend_from_slice(&piece);
        }
    }
    bytes
}

/// The network failed, or a body was cut short.
pub fn broken(what: &str, why: &str) -> FetchError {
    FetchError::Retry {
        what: format!("{what}: {why}"),
        after: None,
    }
}

/// A body that could not be read, by what the caller must do.
pub fn unread(what: &str, error: &BodyError) -> FetchError {
    match error {
        BodyError::Broken(why) => broken(what, why),
        BodyError::TooLarge(why) => FetchError::Poison {
            what: format!("{what}: {why}"),
        },
    }
}

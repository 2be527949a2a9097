//! One call of a vendor's API: quota, token, the request, and what to do with its answer.
//!
//! What passes by itself is waited out here, within limits, so that a walk over pages need not
//! start again: a throttled request after its pause, a broken connection or a 5xx after a short
//! back-off, a refused token, or a missing permission, after one renewal. Everything else goes to the caller as a
//! [`Refusal`], which the vendor's own [`Classify`] has made of the answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::auth::{Token, TokenCache};
use super::body::{Body, BodyError, SMALL_BODY_BYTES_MAX};
use super::jwt::claims;
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
pub const SAT_OUT_MAX: Duration = Duration::from_mins(1);
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(20);

/// A call to make.
#[derive(Debug, Clone)]
pub struct Ask {
    /// GET or POST.
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

    /// What the current token says of itself (the claims of a JWT); `None` where it is not readable.
    /// Signed for the API and not for us: fit for telling what is missing, not for granting.
    pub async fn claims(&self) -> Result<Option<Value>, FetchError> {
        Ok(claims(&self.tokens.token().await?))
    }

    /// The current token with what is known of it, for a diagnosis.
    pub async fn token(&self) -> Result<Token, FetchError> {
        self.tokens.inspect().await
    }

    /// Makes the call. A success comes back with its body unread.
    pub async fn call(&self, ask: &Ask) -> Result<Response<BodyStream>, Refusal> {
        self.call_with(ask, &Bytes::new()).await
    }

    /// Makes the call with a JSON body, or none where it is empty.
    pub async fn call_with(
        &self,
        ask: &Ask,
        body: &Bytes,
    ) -> Result<Response<BodyStream>, Refusal> {
        let mut failures = 0;
        let mut pauses = 0;
        let mut token = self.tokens.token().await?;
        let mut renewed = false;
        loop {
            self.quota.ready().await;
            let (refusal, status) = match self.once(ask, body, &token).await {
                Ok(response) => {
                    self.quota.went_through();
                    return Ok(response);
                }
                Err(refused) => refused,
            };
            if may_be_stale(status, &refusal.error) && !renewed {
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
        body: &Bytes,
        token: &SecretString,
    ) -> Result<Response<BodyStream>, (Refusal, Option<StatusCode>)> {
        let request = request(ask, body, token).map_err(|error| (error.into(), None))?;
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

/// A refused token, or one that was made before a permission was granted.
fn may_be_stale(status: Option<StatusCode>, error: &FetchError) -> bool {
    status == Some(StatusCode::UNAUTHORIZED)
        || (status == Some(StatusCode::FORBIDDEN) && matches!(error, FetchError::Permission { .. }))
}

/// No answer, or one that says that the server had trouble of its own.
fn passes(status: Option<StatusCode>) -> bool {
    status.is_none_or(|s| s.is_server_error() || s == StatusCode::REQUEST_TIMEOUT)
}

fn request(ask: &Ask, body: &Bytes, token: &SecretString) -> Result<Request<Bytes>, FetchError> {
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
    if !body.is_empty() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    } else if ask.method == Method::POST {
        builder = builder.header(CONTENT_LENGTH, "0");
    }
    builder.body(body.clone()).map_err(|_| unusable())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::auth::TokenSource;
    use crate::kernel::limit::Quotas;
    use crate::kernel::transport::{Transport, TransportError};
    use async_trait::async_trait;
    use chrono::TimeDelta;
    use exfilwatch_model::SystemClock;
    use futures::{StreamExt, stream};
    use std::num::NonZeroU32;
    use std::sync::Mutex;
    use tokio::time::Instant;

    /// Answers with these statuses in turn (0: no answer), then 200; keeps the requests.
    #[derive(Debug, Default)]
    struct Script {
        statuses: Mutex<Vec<u16>>,
        requests: Mutex<Vec<Request<Bytes>>>,
    }

    #[async_trait]
    impl Transport for Script {
        async fn send(
            &self,
            request: Request<Bytes>,
        ) -> Result<Response<BodyStream>, TransportError> {
            self.requests.lock().unwrap().push(request);
            let mut statuses = self.statuses.lock().unwrap();
            let status = if statuses.is_empty() {
                200
            } else {
                statuses.remove(0)
            };
            if status == 0 {
                return Err(TransportError("connection reset".into()));
            }
            let body = stream::iter([Ok(Bytes::from_static(b"body"))]).boxed();
            Ok(Response::builder().status(status).body(body).unwrap())
        }
    }

    #[derive(Debug, Default)]
    struct Numbered(std::sync::atomic::AtomicU32);

    #[async_trait]
    impl TokenSource for Numbered {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }
        async fn request(&self) -> Result<Token, FetchError> {
            let number = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Token {
                value: format!("t{number}").into(),
                ends_at: DateTime::UNIX_EPOCH + TimeDelta::hours(1),
                scope: None,
            })
        }
    }

    fn by_status(answer: &Answer<'_>) -> Refusal {
        assert_eq!(answer.body, b"body");
        let what = answer.status.to_string();
        Refusal::from(match answer.status.as_u16() {
            429 => FetchError::Throttled { what, after: None },
            401 => FetchError::Permission {
                what,
                help: String::new(),
            },
            _ => FetchError::Retry { what, after: None },
        })
    }

    async fn call(statuses: &[u16], patient: bool) -> (Arc<Script>, bool, Duration) {
        let script = Arc::new(Script::default());
        *script.statuses.lock().unwrap() = statuses.to_vec();
        let wire = Arc::new(Wire::new(script.clone(), Arc::new(SystemClock)));
        let quotas = Quotas::new(Arc::new(SystemClock));
        let quota = quotas.quota("k", NonZeroU32::new(60_000).unwrap());
        let tokens = TokenCache::new(Box::<Numbered>::default());
        let client = Client::new(wire, quota, tokens, by_status);
        let ask = Ask {
            method: Method::POST,
            url: "https://api.example/x".into(),
            what: "test".into(),
            patient,
        };
        let started = Instant::now();
        let fine = client.call(&ask).await.is_ok();
        (script, fine, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn passing_trouble_is_waited_out_within_limits_and_the_rest_is_handed_on() {
        let cases: [(&[u16], bool, usize, bool); 11] = [
            (&[], true, 1, true),
            (&[503, 0], true, 3, true),
            (&[503, 503, 503], true, 3, false),
            (&[0, 0, 0, 0], true, 3, false),
            (&[429, 429, 429], true, 4, true),
            (&[429; 9], true, 6, false),
            (&[401], true, 2, true),
            (&[401, 401], true, 2, false),
            (&[404], true, 1, false),
            (&[429], false, 1, false),
            (&[503], false, 1, false),
        ];
        for (statuses, patient, requests, fine) in cases {
            let (script, outcome, _) = call(statuses, patient).await;
            assert_eq!(outcome, fine, "{statuses:?} {patient}");
            assert_eq!(
                script.requests.lock().unwrap().len(),
                requests,
                "{statuses:?} {patient}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_not_sent_again_and_none_shows_in_debug() {
        let (script, fine, _) = call(&[401], true).await;
        assert!(fine);
        let requests = script.requests.lock().unwrap();
        let bearers: Vec<&[u8]> = requests
            .iter()
            .map(|r| r.headers()[AUTHORIZATION].as_bytes())
            .collect();
        assert_eq!(bearers, [&b"Bearer t0"[..], b"Bearer t1"]);
        assert!(!format!("{requests:?}").contains("t0"));
        assert!(requests.iter().all(|r| r.headers()[CONTENT_LENGTH] == "0"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_call_pauses_longer_each_time() {
        let (_, _, short) = call(&[429], true).await;
        let (_, _, long) = call(&[429; 5], true).await;
        assert!(
            short >= Duration::from_millis(500) && short < Duration::from_secs(2),
            "{short:?}"
        );
        assert!(long > Duration::from_millis(2_500), "{long:?}");
    }
}

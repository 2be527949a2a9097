//! The fault script: which call to which endpoint fails, and how.
//!
//! A rule names an endpoint, a span of virtual time or of call numbers, and a probability that is
//! drawn from the script's seed, so a run can be repeated. The first rule that fits decides;
//! delays of earlier rules add up. Rules only describe; `apply` in this file carries them out for
//! every router alike.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use crate::clock::VirtualClock;
use crate::microsoft;
use crate::reply;

/// What a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Every endpoint.
    Any,
    /// Everything of Microsoft.
    Microsoft,
    /// Microsoft's token endpoints.
    MicrosoftToken,
    /// `subscriptions/start`, `stop` and `list`.
    Subscriptions,
    /// `subscriptions/content`.
    ContentList,
    /// A content blob.
    Blob,
    /// Submitting a search of the audit log in Microsoft Graph, and looking at how it stands.
    AuditSearch,
    /// The pages of such a search.
    AuditRecords,
    /// Everything else of Microsoft Graph.
    Graph,
    /// Everything of Google.
    Google,
    /// Google's token endpoint.
    GoogleToken,
    /// Google's consent page and revocation.
    GoogleConsent,
    /// `activities.list`.
    Activities,
    /// `alerts.list` of the Alert Center.
    Alerts,
    /// Domains and aliases in the Directory API.
    Directory,
    /// Everything of the HTTP event collector.
    Hec,
    /// The event and raw endpoints of the collector.
    HecEvent,
    /// The acknowledgement endpoint of the collector.
    HecAck,
    /// The health endpoint of the collector.
    HecHealth,
}

impl Endpoint {
    fn covers(self, call: Self) -> bool {
        let group = match call {
            Self::MicrosoftToken
            | Self::Subscriptions
            | Self::ContentList
            | Self::Blob
            | Self::AuditSearch
            | Self::AuditRecords
            | Self::Graph => Self::Microsoft,
            Self::GoogleToken
            | Self::GoogleConsent
            | Self::Activities
            | Self::Alerts
            | Self::Directory => Self::Google,
            Self::HecEvent | Self::HecAck | Self::HecHealth => Self::Hec,
            Self::Any | Self::Microsoft | Self::Google | Self::Hec => call,
        };
        self == Self::Any || self == call || self == group
    }

    /// The endpoint a path belongs to.
    fn of(path: &str) -> Self {
        let blob = path.contains("/activity/feed/audit/");
        match path {
            _ if path.contains("/services/collector") => match path {
                _ if path.contains("/ack") => Self::HecAck,
                _ if path.contains("/health") => Self::HecHealth,
                _ => Self::HecEvent,
            },
            _ if path.contains("/security/auditLog/queries") => match path {
                _ if path.ends_with("/records") => Self::AuditRecords,
                _ => Self::AuditSearch,
            },
            _ if path.starts_with("/v1.0/") || path.starts_with("/beta/") => Self::Graph,
            _ if blob => Self::Blob,
            _ if path.ends_with("/subscriptions/content") => Self::ContentList,
            _ if path.contains("/activity/feed/") => Self::Subscriptions,
            _ if path.contains("/admin/reports/") => Self::Activities,
            _ if path.starts_with("/v1beta1/alerts") => Self::Alerts,
            _ if path.starts_with("/admin/directory/") => Self::Directory,
            _ if path == "/token" => Self::GoogleToken,
            _ if path == "/revoke" || path.starts_with("/o/oauth2/v2/") => Self::GoogleConsent,
            _ => Self::MicrosoftToken,
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Fault {
    /// A reply instead of the real one.
    Status {
        /// HTTP status.
        status: u16,
        /// Body, as it is.
        #[serde(default)]
        body: String,
        /// Headers besides.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// An HTML page, as proxies send it.
    HtmlPage {
        /// HTTP status.
        status: u16,
    },
    /// The vendor's own "too many requests" (403 with AF429, 403 rateLimitExceeded, 503 code 9).
    Throttle {
        /// `Retry-After` in seconds, if any.
        #[serde(default)]
        retry_after_seconds: Option<u32>,
    },
    /// The real reply after a pause of real time.
    Delay {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// The connection is cut before anything is done or answered.
    Reset,
    /// The call is carried out, then the connection is cut without an answer.
    ResetAfter,
    /// The call is carried out, its answer comes after a pause of real time.
    AnswerLate {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// The body of the real reply is cut after so many bytes.
    Truncate {
        /// Bytes that still arrive.
        bytes: usize,
    },
    /// The body of the real reply comes in pieces, with a pause of real time before each.
    Trickle {
        /// Number of pieces.
        pieces: usize,
        /// Milliseconds before each.
        milliseconds: u64,
    },
    /// A refusal of the Management Activity API in its own words (`AF20022`, `DataServiceException`).
    ActivityError {
        /// The code.
        code: String,
    },
    /// A refusal of Microsoft's token endpoint in its own words.
    TokenError {
        /// The number behind AADSTS.
        aadsts: u32,
    },
    /// The service is down: 503 with an empty body.
    Outage,
}

impl Fault {
    /// A refusal of the Management Activity API by its code.
    pub fn activity(code: &str) -> Self {
        Self::ActivityError { code: code.into() }
    }
}

/// One rule of the script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRule {
    /// What it applies to.
    pub endpoint: Endpoint,
    /// Only paths that contain this text (a tenant GUID, an application).
    #[serde(default)]
    pub path_contains: Option<String>,
    /// From this virtual time on.
    #[serde(default)]
    pub from: Option<DateTime<Utc>>,
    /// Before this virtual time.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
    /// First call it applies to; the calls a rule covers are counted from 1.
    #[serde(default)]
    pub first_call: Option<u64>,
    /// Last call it applies to.
    #[serde(default)]
    pub last_call: Option<u64>,
    /// Share of the calls, 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// What happens.
    pub fault: Fault,
}

fn always() -> f64 {
    1.0
}

impl FaultRule {
    /// A rule for every call to `endpoint`; narrow it by setting fields.
    pub fn new(endpoint: Endpoint, fault: Fault) -> Self {
        Self {
            endpoint,
            path_contains: None,
            from: None,
            until: None,
            first_call: None,
            last_call: None,
            probability: always(),
            fault,
        }
    }

    /// The same rule for calls `first` to `last`, counted from 1.
    pub fn calls(mut self, first: u64, last: u64) -> Self {
        self.first_call = Some(first);
        self.last_call = Some(last);
        self
    }

    /// The same rule for a span of virtual time.
    pub fn between(mut self, from: DateTime<Utc>, until: DateTime<Utc>) -> Self {
        self.from = Some(from);
        self.until = Some(until);
        self
    }

    /// The same rule for a share of the calls.
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    fn applies(&self, now: DateTime<Utc>, call: u64, draw: f64) -> bool {
        self.from.is_none_or(|from| now >= from)
            && self.until.is_none_or(|until| now < until)
            && self.first_call.is_none_or(|first| call >= first)
            && self.last_call.is_none_or(|last| call <= last)
            && draw < self.probability
    }
}

/// The whole script.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultScript {
    /// Seed of the draws.
    #[serde(default)]
    pub seed: u64,
    /// Rules, in order of precedence.
    #[serde(default)]
    pub rules: Vec<FaultRule>,
}

/// The script at work: counts calls and decides. Clones share the counts.
#[derive(Debug, Clone)]
pub struct FaultInjector {
    clock: VirtualClock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    script: FaultScript,
    covered: Vec<u64>,
    calls: HashMap<Endpoint, u64>,
}

impl FaultInjector {
    /// An injector for `script`.
    pub fn new(script: FaultScript, clock: VirtualClock) -> Self {
        let injector = Self {
            clock,
            inner: Arc::default(),
        };
        injector.replace(script);
        injector
    }

    /// Puts another script in place; its calls count from 1.
    pub fn replace(&self, script: FaultScript) {
        let mut inner = self.lock();
        inner.covered = vec![0; script.rules.len()];
        inner.script = script;
    }

    /// How often each endpoint was called so far.
    pub fn calls(&self, endpoint: Endpoint) -> u64 {
        self.lock().calls.get(&endpoint).copied().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, path: &str) -> (Endpoint, Duration, Option<Fault>) {
        let endpoint = Endpoint::of(path);
        let now = self.clock.now();
        let mut guard = self.lock();
        let inner = &mut *guard;
        *inner.calls.entry(endpoint).or_default() += 1;
        let mut delay = Duration::ZERO;
        let seed = inner.script.seed;
        for (index, (rule, covered)) in inner
            .script
            .rules
            .iter()
            .zip(inner.covered.iter_mut())
            .enumerate()
        {
            let there = rule
                .path_contains
                .as_ref()
                .is_none_or(|part| path.contains(part));
            if !rule.endpoint.covers(endpoint) || !there {
                continue;
            }
            *covered += 1;
            if !rule.applies(now, *covered, draw(seed, index, *covered)) {
                continue;
            }
            match rule.fault {
                Fault::Delay { milliseconds } => delay += Duration::from_millis(milliseconds),
                _ => return (endpoint, delay, Some(rule.fault.clone())),
            }
        }
        (endpoint, delay, None)
    }
}

/// A number in [0, 1) that depends on seed, rule and call only.
fn draw(seed: u64, rule: usize, call: u64) -> f64 {
    let mut hasher = DefaultHasher::new();
    (seed, rule, call).hash(&mut hasher);
    let bits = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// The middleware: decides, waits, and spoils the reply where the script says so.
pub(crate) async fn apply(injector: FaultInjector, request: Request, next: Next) -> Response {
    let (endpoint, delay, fault) = injector.decide(request.uri().path());
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let now = injector.clock.now().timestamp();
    match fault {
        None | Some(Fault::Delay { .. }) => next.run(request).await,
        Some(Fault::Status {
            status,
            body,
            headers,
        }) => reply::custom(status, body, &headers),
        Some(Fault::HtmlPage { status }) => reply::html(status),
        Some(Fault::Throttle {
            retry_after_seconds,
        }) => reply::throttled(endpoint, retry_after_seconds),
        Some(Fault::Outage) => reply::custom(503, String::new(), &[]),
        Some(Fault::Reset) => reply::reset(),
        Some(Fault::ResetAfter) => {
            drop(next.run(request).await);
            reply::reset()
        }
        Some(Fault::AnswerLate { milliseconds }) => {
            let response = next.run(request).await;
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            response
        }
        Some(Fault::Trickle {
            pieces,
            milliseconds,
        }) => trickled(next.run(request).await, (pieces, milliseconds)).await,
        Some(Fault::ActivityError { code }) => microsoft::activity_error(&code)
            .unwrap_or_else(|| reply::custom(500, format!("no code {code}"), &[])),
        Some(Fault::TokenError { aadsts }) => microsoft::token_error(now, aadsts),
        Some(Fault::Truncate { bytes }) => truncated(next.run(request).await, bytes).await,
    }
}

/// The same reply, slowly.
async fn trickled(response: Response, (pieces, milliseconds): (usize, u64)) -> Response {
    let (parts, body) = response.into_parts();
    let whole = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let size = whole.len().div_ceil(pieces.max(1)).max(1);
    let pieces: Vec<Bytes> = whole.chunks(size).map(Bytes::copy_from_slice).collect();
    let slowly = futures::stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok::<_, std::convert::Infallible>(piece)
    });
    Response::from_parts(parts, Body::from_stream(slowly))
}

/// The same head with the full length promised, but a body that breaks off.
async fn truncated(response: Response, keep: usize) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let kept: Bytes = whole.slice(..keep.min(whole.len()));
    parts.headers.insert(
        http::header::CONTENT_LENGTH,
        http::HeaderValue::from(whole.len()),
    );
    let broken = async {
        // A pending body makes hyper send what it has, before the error makes it hang up.
        tokio::task::yield_now().await;
        Err(std::io::Error::new(
            std::io::ErrorKind::ConnectionReset,
            "cut by the script",
        ))
    };
    let chunks = futures::stream::iter([Ok(kept)]).chain(futures::stream::once(broken));
    Response::from_parts(parts, Body::from_stream(chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injector(rules: Vec<FaultRule>) -> FaultInjector {
        let clock = VirtualClock::stopped(DateTime::from_timestamp(1_790_000_000, 0).unwrap());
        FaultInjector::new(FaultScript { seed: 7, rules }, clock)
    }

    #[test]
    fn paths_are_told_apart() {
        for (path, endpoint) in [
            ("/t/oauth2/v2.0/token", Endpoint::MicrosoftToken),
            (
                "/api/v1.0/t/activity/feed/subscriptions/list",
                Endpoint::Subscriptions,
            ),
            (
                "/api/v1.0/t/activity/feed/subscriptions/content",
                Endpoint::ContentList,
            ),
            ("/api/v1.0/t/activity/feed/audit/1", Endpoint::Blob),
            ("/v1.0/security/auditLog/queries", Endpoint::AuditSearch),
            ("/beta/security/auditLog/queries/1", Endpoint::AuditSearch),
            (
                "/v1.0/security/auditLog/queries/1/records",
                Endpoint::AuditRecords,
            ),
            ("/v1.0/domains", Endpoint::Graph),
            ("/token", Endpoint::GoogleToken),
            ("/o/oauth2/v2/auth", Endpoint::GoogleConsent),
            ("/revoke", Endpoint::GoogleConsent),
            ("/v1beta1/alerts", Endpoint::Alerts),
            (
                "/admin/directory/v1/customer/my_customer/domains",
                Endpoint::Directory,
            ),
            (
                "/admin/reports/v1/activity/users/all/applications/drive",
                Endpoint::Activities,
            ),
            ("/services/collector/event/1.0", Endpoint::HecEvent),
            ("/services/collector/ack", Endpoint::HecAck),
            ("/services/collector/health", Endpoint::HecHealth),
        ] {
            assert_eq!(Endpoint::of(path), endpoint, "{path}");
        }
    }

    #[test]
    fn a_rule_for_calls_two_and_three_spares_the_first_and_the_fourth() {
        let injector = injector(vec![
            FaultRule::new(Endpoint::Hec, Fault::Outage).calls(2, 3),
        ]);
        let hit = || injector.decide("/services/collector").2.is_some();
        assert_eq!([hit(), hit(), hit(), hit()], [false, true, true, false]);
        assert_eq!(injector.calls(Endpoint::HecEvent), 4);
    }

    #[test]
    fn a_probability_is_kept_roughly_and_the_same_seed_draws_the_same() {
        let draws = |seed| (1..=1000).filter(|call| draw(seed, 0, *call) < 0.3).count();
        assert!((200..400).contains(&draws(1)), "{}", draws(1));
        assert_eq!(draws(9), draws(9));
    }

    #[test]
    fn a_rule_outside_its_span_does_nothing() {
        let start = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let hour = chrono::TimeDelta::hours(1);
        let rule = FaultRule::new(Endpoint::Google, Fault::Reset).between(start, start + hour);
        let injector = injector(vec![rule]);
        assert!(injector.decide("/token").2.is_some());
        injector.clock.set(start + hour);
        assert!(injector.decide("/token").2.is_none());
    }
}

//! The one HTTP client of the crate, and the two calls of the collector.
//!
//! Redirects are off (the token goes to the configured origin only), every call has a time-out,
//! replies are read up to a bound, and the address guard stands in the resolver.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_model::{Clock, SecretSource};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Proxy, Response};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};
use uuid::Uuid;

use super::request::Body;
use crate::address_guard::{GuardedResolver, refusal};
use crate::contract::EmitError;
use crate::environment::Environment;
use crate::error::BuildError;
use crate::options::SplunkHecOptions;
use crate::tls;

/// Shorter tokens would be found in any text.
const HIDDEN_BYTES_MIN: usize = 6;
/// Longest reply read, in bytes; an answer to 1,000 ack ids takes 15 KiB.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Longest wait a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// Name of the channel header.
const CHANNEL: &str = "x-splunk-request-channel";

/// A reply, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) retry_after: Option<Duration>,
}

/// A collector that can be called.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    event_url: Url,
    ack_url: Url,
    token_source: SecretSource,
    environment: Environment,
    token: Mutex<Option<SecretString>>,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// For one of the configured addresses.
    pub(super) fn new(
        (name, member, url): (&str, &'static str, &Url),
        options: &SplunkHecOptions,
        environment: &Environment,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let base = base_url(url).map_err(|why| BuildError::option(name, member, &why))?;
        if base.scheme() == "http" && !is_loopback(&base) {
            tracing::warn!(
                emitter = name,
                "the HEC token travels unencrypted: use https"
            );
        }
        let token = environment.secret(&options.token);
        let token = token.map_err(|source| BuildError::Secret {
            emitter: name.to_owned(),
            member: "token",
            source,
        })?;
        let to = |path: [&str; 3]| {
            let mut url = base.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().extend(path);
            }
            url
        };
        Ok(Self {
            http: http_client(name, options)?,
            event_url: to(["services", "collector", "event"]),
            ack_url: to(["services", "collector", "ack"]),
            token_source: options.token.clone(),
            environment: environment.clone(),
            token: Mutex::new(Some(token)),
            clock,
        })
    }

    /// Sends events on a channel.
    pub(super) async fn send(&self, body: Body, channel: Uuid) -> Result<Reply, EmitError> {
        let mut headers = self.headers(channel)?;
        if body.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.post(&self.event_url, headers, body.bytes).await
    }

    /// Asks which of these ids are acknowledged. Never compressed: the endpoint does not take it.
    pub(super) async fn acks(&self, ids: &[u64], channel: Uuid) -> Result<Reply, EmitError> {
        let mut url = self.ack_url.clone();
        url.query_pairs_mut()
            .append_pair("channel", &channel.to_string());
        let body = serde_json::json!({ "acks": ids }).to_string();
        self.post(&url, self.headers(channel)?, body.into()).await
    }

    /// Reads the token anew before the next call: it may have been rotated.
    pub(super) fn forget_token(&self) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn headers(&self, channel: Uuid) -> Result<HeaderMap, EmitError> {
        let unusable = |what: String| EmitError::Hold {
            what,
            help: "make the HEC token readable again; it is read anew at the next try".to_owned(),
        };
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            let read = self.environment.secret(&self.token_source);
            *kept = Some(read.map_err(|error| unusable(error.to_string()))?);
        }
        let token = kept.as_ref().map_or("", |token| token.expose_secret());
        let mut authorization = HeaderValue::try_from(format!("Splunk {token}"))
            .map_err(|_| unusable("the HEC token holds characters a header cannot".to_owned()))?;
        authorization.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(channel) = HeaderValue::try_from(channel.to_string()) {
            headers.insert(CHANNEL, channel);
        }
        Ok(headers)
    }

    async fn post(&self, url: &Url, headers: HeaderMap, body: Bytes) -> Result<Reply, EmitError> {
        let authorization = headers.get(AUTHORIZATION).cloned();
        let request = self.http.post(url.clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| failed(url, error))?;
        let retry_after = retry_after(response.headers(), self.clock.now());
        let status = response.status();
        let mut body = bounded(response)
            .await
            .map_err(|error| failed(url, error))?;
        if !status.is_success() {
            body = without_token(body, authorization.as_ref());
        }
        Ok(Reply {
            status: status.as_u16(),
            retry_after,
            body,
        })
    }
}

/// What a refusal said, without the token: a proxy may repeat the head it was sent.
fn without_token(body: Vec<u8>, authorization: Option<&HeaderValue>) -> Vec<u8> {
    let sent = authorization.and_then(|value| value.to_str().ok());
    let token = sent
        .and_then(|value| value.strip_prefix("Splunk "))
        .unwrap_or_default();
    if token.len() < HIDDEN_BYTES_MIN {
        return body;
    }
    let text = String::from_utf8_lossy(&body);
    text.replace(token, "[token]").into_bytes()
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > REPLY_BYTES_MAX {
            body.truncate(REPLY_BYTES_MAX);
            break;
        }
    }
    Ok(body)
}

/// A call without an answer. The URL holds no secret; it is shown without its query.
fn failed(url: &Url, error: reqwest::Error) -> EmitError {
    let place = format!("{}{}", url.origin().ascii_serialization(), url.path());
    let error = error.without_url();
    match tls::certificate_trouble(&error) {
        Some(why) => EmitError::Hold {
            what: format!("POST {place}: the certificate is not trusted: {why}"),
            help: "set ca_file to the authority that signed the receiver's certificate, and use \
                   the name that stands in it"
                .to_owned(),
        },
        None => EmitError::Retry {
            what: format!("POST {place}: {}", tls::chain(&error)),
            after: None,
        },
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        (date.to_utc() - now).to_std().unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn http_client(name: &str, options: &SplunkHecOptions) -> Result<reqwest::Client, BuildError> {
    let mut builder = reqwest::Client::builder()
        .redirect(Policy::none())
        .connect_timeout(Duration::from_secs(options.connect_timeout_seconds))
        .timeout(Duration::from_secs(options.request_timeout_seconds))
        .dns_resolver(GuardedResolver)
        // A balancer keeps a channel at one indexer by a cookie; acknowledgements are known there only.
        .cookie_store(true)
        .user_agent(concat!("exfilwatch/", env!("CARGO_PKG_VERSION")))
        .no_proxy();
    if let Some(proxy) = &options.proxy {
        let proxy = Proxy::all(proxy.clone());
        builder = builder.proxy(proxy.map_err(|e| BuildError::option(name, "proxy", &e))?);
    }
    if let Some(path) = &options.ca_file {
        let unusable = |error: &dyn Display| BuildError::option(name, "ca_file", error);
        let certificates = tls::authorities(path).map_err(|error| unusable(&error))?;
        let certificates = certificates.iter().map(|der| Certificate::from_der(der));
        let certificates: Vec<_> = certificates
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(&error))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let client = builder.build();
    client.map_err(|error| BuildError::option(name, "url", &tls::chain(&error)))
}

/// The configured URL without the endpoint's own path, checked.
fn base_url(url: &Url) -> Result<Url, String> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(format!("scheme {} is not https or http", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user and password have no place here: use token".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("write scheme, host and port only, without ? or #".to_owned());
    }
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => Some(v4.into()),
        Some(Host::Ipv6(v6)) => Some(v6.into()),
        Some(Host::Domain(_)) => None,
        None => return Err("it names no host".to_owned()),
    };
    if let Some(why) = address.and_then(refusal) {
        return Err(format!("the address is {why}"));
    }
    let mut base = url.clone();
    let path = url.path().trim_end_matches('/');
    for endpoint in ["/services/collector/event", "/services/collector"] {
        if let Some(prefix) = path.strip_suffix(endpoint) {
            base.set_path(prefix);
            break;
        }
    }
    Ok(base)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(v4)) => v4.is_loopback(),
        Some(Host::Ipv6(v6)) => v6.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_may_be_written_with_or_without_the_endpoint() {
        for (written, base) in [
            ("https://s.example:8088", "https://s.example:8088/"),
            ("https://s.example/splunk/", "https://s.example/splunk/"),
            ("https://s.example/services/collector", "https://s.example/"),
            (
                "https://s.example/p/services/collector/event",
                "https://s.example/p",
            ),
        ] {
            assert_eq!(base_url(&written.parse().unwrap()).unwrap().as_str(), base);
        }
    }

    #[test]
    fn a_url_that_would_leak_or_miss_is_refused() {
        for bad in [
            "ftp://s.example",
            "https://u:p@s.example",
            "https://s.example/?token=1",
            "http://169.254.169.254/",
            "http://[::ffff:169.254.169.254]/",
            "unix:/run/x",
        ] {
            assert!(base_url(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_capped() {
        let now = "2026-11-24T02:14:30Z".parse().unwrap();
        let wait = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            retry_after(&headers, now)
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(RETRY_AFTER_MAX));
        let half_minute = Some(Duration::from_secs(30));
        assert_eq!(wait("Tue, 24 Nov 2026 02:15:00 GMT"), half_minute);
        assert_eq!(wait("Tue, 24 Nov 2026 01:15:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
    }
}

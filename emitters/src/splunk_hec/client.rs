//! The two calls of the collector.
//!
//! Redirects are off (the token goes to the configured origin only), every call has a time-out,
//! replies are read up to a bound, and the address guard stands in the resolver.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use exfilwatch_model::{Clock, SecretSource};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use uuid::Uuid;

use super::request::Body;
use crate::contract::EmitError;
use crate::environment::Environment;
use crate::error::BuildError;
use crate::http_client::{Settings, allowed, bounded, client, is_loopback, retry_after};
use crate::options::SplunkHecOptions;
use crate::tls;

/// Shorter tokens would be found in any text.
const HIDDEN_BYTES_MIN: usize = 6;
/// Longest reply read, in bytes; an answer to 1,000 ack ids takes 15 KiB.
const REPLY_BYTES_MAX: usize = 1 << 20;
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
            http: client(name, &settings(options))?,
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
        let body = bounded(response, REPLY_BYTES_MAX)
            .await
            .map_err(|error| failed(url, error))?;
        // Whatever the status: what is no collector's answer is shown, too.
        let body = without_token(body, authorization.as_ref());
        Ok(Reply {
            status: status.as_u16(),
            retry_after,
            body,
        })
    }
}

/// What was said, without the token: a proxy may repeat the head it was sent.
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

fn settings(options: &SplunkHecOptions) -> Settings<'_> {
    Settings {
        connect_timeout: Duration::from_secs(options.connect_timeout_seconds),
        request_timeout: Duration::from_secs(options.request_timeout_seconds),
        ca_file: options.ca_file.as_deref(),
        proxy: options.proxy.as_ref(),
        // A balancer keeps a channel at one indexer by a cookie; acknowledgements are known there only.
        keeps_cookies: true,
    }
}

/// The configured URL without the endpoint's own path, checked.
fn base_url(url: &Url) -> Result<Url, String> {
    allowed(url)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("write scheme, host and port only, without ? or #".to_owned());
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
}

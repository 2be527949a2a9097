//! The two calls of a collector at one address.
//!
//! Redirects are off (the token goes to the configured origin only), every call has a time-out,
//! replies are read up to a bound, and the address guard stands in the resolver.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use url::Url;
use uuid::Uuid;

use super::deployment::Deployment;
use super::request::Body;
use crate::contract::EmitError;
use crate::cookies::Cookies;
use crate::error::BuildError;
use crate::http_client::{Connector, Settings, allowed, bounded, retry_after, unanswered};
use crate::options::{Ack, SplunkHecOptions};

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

/// A send without a reply.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: EmitError,
    /// The request may have arrived all the same.
    pub(super) maybe_taken: bool,
}

impl From<EmitError> for Unanswered {
    /// Before anything was sent.
    fn from(error: EmitError) -> Self {
        Self {
            error,
            maybe_taken: false,
        }
    }
}

/// The channel of a send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) channel: Uuid,
    /// It stands in the URL as well as in the header.
    pub(super) in_url: bool,
}

/// What all calls to one address share.
#[derive(Debug)]
pub(super) struct Client {
    deployment: Arc<Deployment>,
    connector: Connector,
    event_url: Url,
    ack_url: Url,
}

impl Client {
    /// For one of the configured addresses.
    pub(super) fn new(
        (member, url): (&'static str, &Url),
        deployment: &Arc<Deployment>,
    ) -> Result<Self, BuildError> {
        let name = deployment.facts.name();
        let base = base_url(url).map_err(|why| BuildError::option(name, member, &why))?;
        let to = |path: [&str; 3]| {
            let mut url = base.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().extend(path);
            }
            url
        };
        Ok(Self {
            connector: Connector::new(name, &settings(&deployment.options))?,
            event_url: to(["services", "collector", "event"]),
            ack_url: to(["services", "collector", "ack"]),
            deployment: Arc::clone(deployment),
        })
    }

    pub(super) fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// For messages.
    pub(super) fn address(&self) -> String {
        self.event_url.origin().ascii_serialization()
    }

    /// Connections of their own, with these cookies.
    pub(super) fn connections(
        &self,
        cookies: &Arc<Cookies>,
    ) -> Result<reqwest::Client, BuildError> {
        let keeps = self.deployment.options.ack != Ack::Off;
        self.connector.client(keeps.then_some(cookies))
    }

    /// Sends events on a channel.
    pub(super) async fn send(
        &self,
        http: &reqwest::Client,
        body: Body,
        place: Place,
    ) -> Result<Reply, Unanswered> {
        let mut headers = self.headers(place.channel)?;
        if body.is_gzip() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let url = if place.in_url {
            with_channel(&self.event_url, place.channel)
        } else {
            self.event_url.clone()
        };
        self.post(http, &url, (headers, body.into())).await
    }

    /// Asks which of these ids are acknowledged. Never compressed: the endpoint does not take it.
    pub(super) async fn ask(
        &self,
        http: &reqwest::Client,
        ids: &[u64],
        channel: Uuid,
    ) -> Result<Reply, EmitError> {
        let url = with_channel(&self.ack_url, channel);
        let body = serde_json::json!({ "acks": ids }).to_string();
        let headers = self.headers(channel)?;
        let reply = self.post(http, &url, (headers, body.into())).await;
        reply.map_err(|unanswered| unanswered.error)
    }

    fn headers(&self, channel: Uuid) -> Result<HeaderMap, EmitError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.deployment.token.authorization()?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(channel) = HeaderValue::try_from(channel.to_string()) {
            headers.insert(CHANNEL, channel);
        }
        Ok(headers)
    }

    async fn post(
        &self,
        http: &reqwest::Client,
        url: &Url,
        (headers, body): (HeaderMap, reqwest::Body),
    ) -> Result<Reply, Unanswered> {
        let authorization = headers.get(AUTHORIZATION).cloned();
        let request = http.post(url.clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| failed(url, error))?;
        let retry_after = retry_after(response.headers(), self.deployment.clock.now());
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

fn with_channel(url: &Url, channel: Uuid) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut()
        .append_pair("channel", &channel.to_string());
    url
}

/// A call without an answer. The URL holds no secret; it is shown without its query.
fn failed(url: &Url, error: reqwest::Error) -> Unanswered {
    let place = format!("{}{}", url.origin().ascii_serialization(), url.path());
    let connected = !error.is_connect();
    let error = unanswered(&format!("POST {place}"), &error.without_url());
    Unanswered {
        maybe_taken: connected && matches!(error, EmitError::Retry { .. }),
        error,
    }
}

fn settings(options: &SplunkHecOptions) -> Settings<'_> {
    Settings {
        connect_timeout: Duration::from_secs(options.connect_timeout_seconds),
        request_timeout: Duration::from_secs(options.request_timeout_seconds),
        trust: options.trust(),
        proxy: options.proxy.as_ref(),
    }
}

/// The configured URL without the endpoint's own path, checked.
pub(super) fn base_url(url: &Url) -> Result<Url, String> {
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

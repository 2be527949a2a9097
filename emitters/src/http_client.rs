//! The one place that builds HTTP clients, and what all of them need.
//!
//! Redirects are off (secrets go to the configured origin only), every call has a time-out, replies are
//! read up to a bound, and the address guard stands in the resolver.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use http::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Proxy, Response};
use rustls::ClientConfig;
use url::{Host, Url};

use crate::address_guard::{GuardedResolver, refusal};
use crate::contract::EmitError;
use crate::cookies::Cookies;
use crate::error::BuildError;
use crate::tls::{self, Trust};

/// Longest wait a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// What differs between clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) trust: Trust<'a>,
    pub(crate) proxy: Option<&'a Url>,
}

/// Makes clients of one emitter; files are read once.
#[derive(Debug)]
pub(crate) struct Connector {
    name: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    tls: ClientConfig,
    proxy: Option<Proxy>,
}

impl Connector {
    /// For the emitter `name`.
    pub(crate) fn new(name: &str, settings: &Settings<'_>) -> Result<Self, BuildError> {
        let proxy = settings.proxy.map(|url| Proxy::all(url.clone()));
        let proxy = proxy.transpose();
        Ok(Self {
            name: name.to_owned(),
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
            tls: tls::client_config(name, &settings.trust)?,
            proxy: proxy.map_err(|error| BuildError::option(name, "proxy", &error))?,
        })
    }

    /// A client with connections of its own.
    pub(crate) fn client(
        &self,
        cookies: Option<&Arc<Cookies>>,
    ) -> Result<reqwest::Client, BuildError> {
        let mut builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout)
            .dns_resolver(GuardedResolver)
            .user_agent(concat!("exfilwatch/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(self.tls.clone())
            .no_proxy();
        if let Some(cookies) = cookies {
            builder = builder.cookie_provider(Arc::clone(cookies));
        }
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(proxy.clone());
        }
        let client = builder.build();
        client.map_err(|error| BuildError::option(&self.name, "url", &tls::chain(&error)))
    }
}

/// Whether the URL may be used at all; else why not. A literal address does not meet the resolver, so
/// it is looked at here.
pub(crate) fn allowed(url: &Url) -> Result<(), String> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(format!("scheme {} is not https or http", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user and password have no place in it".to_owned());
    }
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => Some(v4.into()),
        Some(Host::Ipv6(v6)) => Some(v6.into()),
        Some(Host::Domain(_)) => None,
        None => return Err("it names no host".to_owned()),
    };
    match address.and_then(refusal) {
        Some(why) => Err(format!("the address is {why}")),
        None => Ok(()),
    }
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(v4)) => v4.is_loopback(),
        Some(Host::Ipv6(v6)) => v6.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The body, cut at a bound.
pub(crate) async fn bounded(
    mut response: Response,
    bytes_max: usize,
) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > bytes_max {
            body.truncate(bytes_max);
            break;
        }
    }
    Ok(body)
}

/// What the lane is to do about a request without an answer; `what` names the request.
pub(crate) fn unanswered(what: &str, error: &reqwest::Error) -> EmitError {
    let hold = |why: String, help: &str| EmitError::Hold {
        what: format!("{what}: {why}"),
        help: help.to_owned(),
    };
    if let Some(why) = tls::certificate_trouble(error) {
        let why = format!("the certificate is not trusted: {why}");
        return hold(why, tls::TRUST_HELP);
    }
    if let Some(why) = tls::refused_by_alert(error) {
        let why = format!("the receiver ended TLS: {why}");
        return hold(why, tls::IDENTITY_HELP);
    }
    EmitError::Retry {
        what: format!("{what}: {}", tls::chain(error)),
        after: None,
    }
}

/// Seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        (date.to_utc() - now).to_std().unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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

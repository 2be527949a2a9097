//! The seam to the network: one request, one response with a streaming body.
//!
//! [`HttpTransport`] is the one in production and the one place of this crate that builds an HTTP
//! client: rustls, redirects off, no decompression behind our back. Tests put a simulator's router
//! in its place. Time-outs on headers and body are the [`wire`](super::wire)'s business.

use std::error::Error;
use std::fmt::{self, Debug, Write};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Request, Response};
use url::Url;

/// Longest wait for a connection, TLS included.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Idle connections kept per host.
pub const IDLE_CONNECTIONS_MAX: usize = 16;

/// The body of a response, as it comes over the network.
pub type BodyStream = BoxStream<'static, Result<Bytes, TransportError>>;

/// A request that got no whole response. Always worth another try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Carries requests. Implementations follow no redirect and decode nothing.
#[async_trait]
pub trait Transport: Send + Sync + Debug {
    /// Sends the request and returns when the head of the response is there.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<BodyStream>, TransportError>;
}

/// How to reach the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSettings {
    /// A proxy; without one, the system's own setting holds.
    pub proxy: Option<Url>,
    /// PEM file with further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// The other end is this machine (a simulator): no proxy at all, whatever the system says.
    pub loopback: bool,
}

/// The settings do not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The CA file cannot be read, or holds no certificate.
    #[error("ca_file {path}: {why}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The proxy cannot be used. The URL is not repeated: it might hold a password.
    #[error("proxy: {0}")]
    Proxy(&'static str),
    /// The TLS library refuses the settings.
    #[error("HTTP client: {0}")]
    Client(String),
}

/// HTTP over the network.
#[derive(Clone)]
pub struct HttpTransport {
    client: reqwest::Client,
}

impl Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpTransport")
    }
}

impl HttpTransport {
    /// Builds the client. Nothing is connected yet.
    pub fn new(settings: &HttpSettings) -> Result<Self, SettingsError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("exfilwatch/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WAIT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .no_gzip();
        if let Some(proxy) = &settings.proxy {
            builder = builder.proxy(read_proxy(proxy)?);
        } else if settings.loopback {
            builder = builder.no_proxy();
        }
        if let Some(path) = &settings.ca_file {
            let failed = |why: String| SettingsError::CaFile {
                path: path.clone(),
                why,
            };
            let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|e| failed(chain(&e.without_url())))?;
            if certificates.is_empty() {
                return Err(failed("holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder
            .build()
            .map_err(|e| SettingsError::Client(chain(&e.without_url())))?;
        Ok(Self { client })
    }
}

fn read_proxy(url: &Url) -> Result<reqwest::Proxy, SettingsError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SettingsError::Proxy(
            "give the proxy without user name and password",
        ));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SettingsError::Proxy("only http and https proxies work"));
    }
    reqwest::Proxy::all(url.clone()).map_err(|_| SettingsError::Proxy("not a usable proxy URL"))
}

/// An error and its causes in one line. reqwest's own text stops at the first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing into a String cannot fail.
        write!(text, ": {error}").unwrap_or_default();
        cause = error.source();
    }
    text
}

fn failed(error: reqwest::Error) -> TransportError {
    // Without the URL: its query may hold a page token, and a log is no place for one.
    TransportError(chain(&error.without_url()))
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<BodyStream>, TransportError> {
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let response = self.client.execute(request).await.map_err(failed)?;
        let mut head = Response::builder().status(response.status());
        if let Some(headers) = head.headers_mut() {
            *headers = response.headers().clone();
        }
        let body = response.bytes_stream().map(|piece| piece.map_err(failed));
        head.body(body.boxed())
            .map_err(|e| TransportError(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_with_a_password_is_refused_and_not_repeated() {
        let settings = HttpSettings {
            proxy: Some("http://user:hunter2@proxy.example:3128".parse().unwrap()),
            ..HttpSettings::default()
        };
        let error = HttpTransport::new(&settings).unwrap_err().to_string();
        assert!(error.contains("without user name") && !error.contains("hunter2"));
    }

    #[test]
    fn a_ca_file_that_holds_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing here").unwrap();
        let settings = HttpSettings {
            ca_file: Some(path),
            ..HttpSettings::default()
        };
        let error = HttpTransport::new(&settings).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
}

//! Replies all services share: JSON with gzip, HTML pages of proxies, throttling, cut connections.

use std::io::Write;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use crate::fault::Endpoint;

/// Bodies above this size are compressed where the caller allows it.
const GZIP_BYTES_MIN: usize = 256;

/// In process, and behind TLS, the caller's scheme is passed on in this header.
pub(crate) const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The host a caller addressed, with its port.
pub(crate) fn host(headers: &HeaderMap) -> &str {
    headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("localhost")
}

/// The origin a caller addressed, for links in replies: without a last slash.
pub(crate) fn origin(headers: &HeaderMap) -> String {
    let https = headers
        .get(FORWARDED_PROTO)
        .is_some_and(|scheme| scheme == "https");
    let scheme = if https { "https" } else { "http" };
    format!("{scheme}://{}", host(headers))
}

/// Marks a response the loopback server must turn into a cut connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutConnection;

pub(crate) fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A JSON reply.
pub(crate) fn json(status: u16, body: impl Into<Bytes>) -> Response {
    with_type(status, "application/json; charset=utf-8", body.into())
}

pub(crate) fn with_type(status: u16, content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status_of(status);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON reply, compressed where the caller's Accept-Encoding holds gzip.
pub(crate) fn json_encoded(headers: &HeaderMap, body: Vec<u8>) -> Response {
    let accepts = headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().contains("gzip"));
    if !accepts || body.len() < GZIP_BYTES_MIN {
        return json(200, body);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder.write_all(&body).and_then(|()| encoder.finish());
    match packed {
        Ok(packed) => {
            let mut response = json(200, packed);
            response
                .headers_mut()
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        Err(_) => json(200, body),
    }
}

/// An HTML page as a proxy or gateway sends it.
pub(crate) fn html(status: u16) -> Response {
    let status = status_of(status);
    let page =
        format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>");
    with_type(status.as_u16(), "text/html", page.into())
}

/// A reply the script spells out.
pub(crate) fn custom(status: u16, body: String, headers: &[(String, String)]) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status_of(status);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// A connection that is cut: over loopback really, in process as a body that fails.
pub(crate) fn reset() -> Response {
    let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "cut by the script");
    let chunks = futures::stream::iter([Err::<Bytes, _>(broken)]);
    let mut response = Response::new(Body::from_stream(chunks));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.extensions_mut().insert(CutConnection);
    response
}

/// "Too many requests" in the words of the service behind `endpoint`.
pub(crate) fn throttled(endpoint: Endpoint, retry_after_seconds: Option<u32>) -> Response {
    let mut response = match endpoint {
        Endpoint::Activities
        | Endpoint::Alerts
        | Endpoint::Directory
        | Endpoint::Google
        | Endpoint::GoogleConsent
        | Endpoint::GoogleToken => google_quota(403),
        Endpoint::Hec | Endpoint::HecEvent | Endpoint::HecAck | Endpoint::HecHealth => {
            json(503, r#"{"text":"Server is busy","code":9}"#)
        }
        Endpoint::AuditSearch | Endpoint::AuditRecords | Endpoint::Graph => {
            crate::microsoft::graph_throttle(None)
        }
        _ => microsoft_throttle("GetBlob", "00000000-0000-0000-0000-000000000000"),
    };
    if let Some(seconds) = retry_after_seconds {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// 403 with AF429, single quotes included, as Microsoft's documentation prints it.
pub(crate) fn microsoft_throttle(method: &str, publisher: &str) -> Response {
    let body = format!(
        "{{'error':{{'code':'AF429','message':'Too many requests. Method={method}, PublisherId={publisher}'}}}}"
    );
    json(403, body)
}

/// Google's quota error as it comes in practice (403 or 429).
pub(crate) fn google_quota(status: u16) -> Response {
    let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute per user' of service 'admin.googleapis.com'";
    let error = json!({ "error": {
        "code": status,
        "message": message,
        "errors": [{ "message": message, "domain": "usageLimits", "reason": "rateLimitExceeded" }],
        "status": "RESOURCE_EXHAUSTED",
    }});
    json(status, error.to_string())
}

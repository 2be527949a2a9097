//! What Microsoft Graph's refusals mean: by status, since its codes differ from service to service.
//!
//! Bodies are `{"error":{"code","message","innerError"}}` ("Microsoft Graph error responses and
//! resource types", 2026-06), or HTML of a gateway, or nothing.

use http::StatusCode;
use serde_json::Value;

use crate::FetchError;
use crate::kernel::client::{Answer, Refusal};
use crate::kernel::retry::retry_after;
use crate::kernel::words::{shown, shown_bytes};

/// Reads the refusal. The help of a `Permission` names no permission yet: the caller knows it.
pub(super) fn classify(answer: &Answer<'_>) -> Refusal {
    let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
    let member = |name: &str| {
        let found = body.pointer(&format!("/error/{name}"));
        found.and_then(Value::as_str).map(shown).unwrap_or_default()
    };
    let (code, message) = (member("code"), member("message"));
    let words = match (code.as_str(), message.as_str()) {
        ("", "") => shown_bytes(answer.body),
        (code, message) => format!("{code} {message}").trim().to_owned(),
    };
    let what = format!(
        "{}: status {}: {words}",
        answer.what,
        answer.status.as_u16()
    );
    let after = retry_after(answer.headers, answer.now);
    let error = match answer.status {
        StatusCode::TOO_MANY_REQUESTS => FetchError::Throttled { what, after },
        StatusCode::UNAUTHORIZED => FetchError::Auth {
            what,
            help: "check that cloud is the tenant's own and that the application is registered in \
                   this tenant"
                .to_owned(),
        },
        StatusCode::FORBIDDEN => FetchError::Permission {
            what,
            help: String::new(),
        },
        StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::Gone { what },
        status if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
            FetchError::Hold {
                what,
                help: "where Graph has moved the audit-log search, set audit_search; else report these words"
                    .to_owned(),
            }
        }
        _ => FetchError::Retry { what, after },
    };
    Refusal { code, error }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;
    use http::HeaderMap;

    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "9".parse().unwrap());
        classify(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            body: body.as_bytes(),
            what: "GET records",
            now: DateTime::UNIX_EPOCH,
        })
    }

    #[test]
    fn every_status_has_its_decision_whatever_the_body() {
        type Expected = fn(&FetchError) -> bool;
        let cases: [(u16, Expected); 9] = [
            (400, |e| matches!(e, FetchError::Hold { .. })),
            (401, |e| matches!(e, FetchError::Auth { .. })),
            (403, |e| matches!(e, FetchError::Permission { .. })),
            (404, |e| matches!(e, FetchError::Gone { .. })),
            (410, |e| matches!(e, FetchError::Gone { .. })),
            (408, |e| matches!(e, FetchError::Retry { .. })),
            (
                429,
                |e| matches!(e, FetchError::Throttled { after: Some(wait), .. } if *wait == Duration::from_secs(9)),
            ),
            (302, |e| matches!(e, FetchError::Retry { .. })),
            (503, |e| matches!(e, FetchError::Retry { .. })),
        ];
        for (status, expected) in cases {
            for body in [
                "",
                "<html>",
                r#"{"error":{"code":"C","message":"m"}}"#,
                "[1]",
            ] {
                assert!(expected(&refusal(status, body).error), "{status} {body}");
            }
        }
    }

    #[test]
    fn the_vendors_words_are_kept_in_one_line() {
        let refusal = refusal(
            400,
            r#"{"error":{"code":"BadRequest","message":"The limit of\r\n'50' was exceeded.","innerError":{}}}"#,
        );
        assert_eq!(refusal.code, "BadRequest");
        assert_eq!(
            refusal.to_string(),
            "GET records: status 400: BadRequest The limit of '50' was exceeded."
        );
    }
}

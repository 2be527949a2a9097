//! What the Reports API's refusals mean: by status and reason.
//!
//! The documentation says 503 for a used-up quota; in practice it is 403 `rateLimitExceeded` with
//! domain `usageLimits`, or 429 ("Admin SDK: limits and quotas" and field reports, 2026-04).

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::FetchError;
use crate::kernel::client::{Answer, Refusal};
use crate::kernel::retry::retry_after;
use crate::kernel::words::{shown, shown_bytes};

/// Reason of a refusal that is about the page token.
pub(super) const BAD_PAGE_TOKEN: &str = "badPageToken";
/// The quota of a day is used up: this long at least.
const DAILY_QUOTA_WAIT: Duration = Duration::from_mins(15);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Inner,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Inner {
    message: String,
    status: String,
    errors: Vec<Detail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    reason: String,
    message: String,
    location: String,
}

/// Reads the refusal.
pub(super) fn classify(answer: &Answer<'_>) -> Refusal {
    let body: Body = serde_json::from_slice(answer.body).unwrap_or_default();
    let inner = body.error;
    let detail = inner.errors.into_iter().next().unwrap_or_default();
    let message = if inner.message.is_empty() {
        detail.message
    } else {
        inner.message
    };
    let mut code = if detail.reason.is_empty() {
        inner.status
    } else {
        detail.reason
    };
    let about_token = detail.location == "pageToken" || {
        let lower = message.to_ascii_lowercase();
        lower.contains("page token") || lower.contains("pagetoken")
    };
    if answer.status == StatusCode::BAD_REQUEST && about_token {
        BAD_PAGE_TOKEN.clone_into(&mut code);
    }
    let words = match message.as_str() {
        "" => shown_bytes(answer.body),
        words => shown(words),
    };
    let status = answer.status.as_u16();
    let what = format!("{}: status {status}: {} {words}", answer.what, shown(&code));
    let error = error(answer, &code, what);
    Refusal { code, error }
}

fn error(answer: &Answer<'_>, code: &str, what: String) -> FetchError {
    let after = retry_after(answer.headers, answer.now);
    let permission = |what: String, help: &str| FetchError::Permission {
        what,
        help: help.to_owned(),
    };
    match (answer.status, code) {
        (_, "quotaExceeded" | "dailyLimitExceeded") => FetchError::Throttled {
            what,
            after: Some(after.unwrap_or_default().max(DAILY_QUOTA_WAIT)),
        },
        (StatusCode::TOO_MANY_REQUESTS, _)
        | (_, "rateLimitExceeded" | "userRateLimitExceeded" | "RESOURCE_EXHAUSTED") => {
            FetchError::Throttled { what, after }
        }
        (StatusCode::UNAUTHORIZED, _) => permission(
            what,
            "give the subject an administrator role with the Reports privilege, and the service \
             account's client id the scope admin.reports.audit.readonly by domain-wide delegation",
        ),
        (StatusCode::FORBIDDEN, "accessNotConfigured" | "SERVICE_DISABLED") => permission(
            what,
            "enable the Admin SDK API in the service account's project",
        ),
        (StatusCode::FORBIDDEN, _) => permission(
            what,
            "give the subject an administrator role with the Reports privilege for this application",
        ),
        // Bad windows and page tokens: the window is walked again from its first page.
        _ => FetchError::Retry { what, after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use http::HeaderMap;

    fn refusal(status: u16, body: &str) -> Refusal {
        classify(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &HeaderMap::new(),
            body: body.as_bytes(),
            what: "page",
            now: DateTime::UNIX_EPOCH,
        })
    }

    #[test]
    fn every_reason_has_its_decision() {
        let body = |reason: &str| {
            format!(
                r#"{{"error":{{"code":1,"message":"words","errors":[{{"domain":"d","reason":"{reason}","message":"words"}}],"status":"X"}}}}"#
            )
        };
        let cases = [
            (403, body("rateLimitExceeded"), "Throttled"),
            (403, body("userRateLimitExceeded"), "Throttled"),
            (403, body("quotaExceeded"), "Throttled"),
            (429, String::new(), "Throttled"),
            (429, body("rateLimitExceeded"), "Throttled"),
            (401, body("authError"), "Permission"),
            (403, body("insufficientPermissions"), "Permission"),
            (403, body("forbidden"), "Permission"),
            (403, body("accessNotConfigured"), "Permission"),
            (400, body("invalid"), "Retry"),
            (500, body("backendError"), "Retry"),
            (503, "<html>".to_owned(), "Retry"),
        ];
        for (status, body, expected) in cases {
            let error = format!("{:?}", refusal(status, &body).error);
            assert!(error.starts_with(expected), "{status} {body}: {error}");
        }
    }

    #[test]
    fn a_bad_page_token_is_told_from_other_bad_requests() {
        let by_words =
            r#"{"error":{"message":"Invalid page token.","errors":[{"reason":"invalid"}]}}"#;
        let by_place =
            r#"{"error":{"message":"Bad","errors":[{"reason":"invalid","location":"pageToken"}]}}"#;
        assert_eq!(refusal(400, by_words).code, BAD_PAGE_TOKEN);
        assert_eq!(refusal(400, by_place).code, BAD_PAGE_TOKEN);
        assert_ne!(
            refusal(400, r#"{"error":{"message":"Start time"}}"#).code,
            BAD_PAGE_TOKEN
        );
    }
}

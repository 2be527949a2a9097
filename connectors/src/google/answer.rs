//! What the refusals of Google's APIs mean: by status and reason.
//!
//! The documentation says 503 for a used-up quota; in practice it is 403 `rateLimitExceeded` with
//! domain `usageLimits`, or 429 ("Admin SDK: limits and quotas" and field reports, 2026-04). The older
//! APIs name the reason in `errors[]`, the newer ones in `details[]` only.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::FetchError;
use crate::kernel::client::{Answer, Refusal};
use crate::kernel::retry::retry_after;
use crate::kernel::words::{shown, shown_bytes};

/// Reason of a refusal that is about the page token.
pub(super) const BAD_PAGE_TOKEN: &str = "badPageToken";
/// Reason of a refusal that is about the start of the window: after its end, or too old.
pub(super) const BAD_START: &str = "badStart";
/// The quota of a day is used up: this long at least.
const DAILY_QUOTA_WAIT: Duration = Duration::from_mins(15);

/// What has to be granted for an API, in the words of its help.
struct Grants {
    api: &'static str,
    scope: &'static str,
    privilege: &'static str,
}

const REPORTS: Grants = Grants {
    api: "Admin SDK API",
    scope: super::token::SCOPE,
    privilege: "Reports",
};

const ALERTS: Grants = Grants {
    api: "Google Workspace Alert Center API",
    scope: super::token::SCOPE_ALERTS,
    privilege: "Alert Center",
};

const DIRECTORY: Grants = Grants {
    api: "Admin SDK API",
    scope: super::directory::SCOPE,
    privilege: "Domain management",
};

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
    details: Vec<Detail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    reason: String,
    message: String,
    location: String,
}

/// Reads a refusal of the Reports API.
pub(super) fn reports(answer: &Answer<'_>) -> Refusal {
    classify(answer, &REPORTS)
}

/// Reads a refusal of the Alert Center API.
pub(super) fn alerts(answer: &Answer<'_>) -> Refusal {
    classify(answer, &ALERTS)
}

/// Reads a refusal of the Directory API.
pub(super) fn directory(answer: &Answer<'_>) -> Refusal {
    classify(answer, &DIRECTORY)
}

fn classify(answer: &Answer<'_>, grants: &Grants) -> Refusal {
    let body: Body = serde_json::from_slice(answer.body).unwrap_or_default();
    let inner = body.error;
    let first = |details: Vec<Detail>| details.into_iter().find(|detail| !detail.reason.is_empty());
    let modern = first(inner.details).unwrap_or_default();
    let detail = first(inner.errors).unwrap_or_default();
    let message = [&inner.message, &detail.message]
        .into_iter()
        .find(|text| !text.is_empty())
        .cloned()
        .unwrap_or_default();
    let named = [detail.reason, modern.reason, inner.status];
    let code = named.into_iter().find(|text| !text.is_empty());
    let code = special(answer.status, &message, &detail.location)
        .map_or_else(|| code.unwrap_or_default(), str::to_owned);
    let words = match message.as_str() {
        "" => shown_bytes(answer.body),
        words => shown(words),
    };
    let status = answer.status.as_u16();
    let what = format!("{}: status {status}: {} {words}", answer.what, shown(&code));
    let error = error(answer, (&code, &message), what, grants);
    Refusal { code, error }
}

/// Refusals that are told by their words: the vendor has no reason of its own for them.
fn special(status: StatusCode, message: &str, location: &str) -> Option<&'static str> {
    if status != StatusCode::BAD_REQUEST {
        return None;
    }
    let lower = message.to_ascii_lowercase();
    if location == "pageToken" || lower.contains("page token") || lower.contains("pagetoken") {
        Some(BAD_PAGE_TOKEN)
    } else if location == "startTime" || lower.contains("start time") || lower.contains("starttime")
    {
        Some(BAD_START)
    } else {
        None
    }
}

fn error(
    answer: &Answer<'_>,
    (code, message): (&str, &str),
    what: String,
    grants: &Grants,
) -> FetchError {
    let after = retry_after(answer.headers, answer.now);
    let Grants {
        api,
        scope,
        privilege,
    } = grants;
    let permission = |what: String, help: String| FetchError::Permission { what, help };
    let is_quota = answer.status == StatusCode::SERVICE_UNAVAILABLE
        && message.to_ascii_lowercase().contains("quota");
    match (answer.status, code) {
        (_, "quotaExceeded" | "dailyLimitExceeded") => FetchError::Throttled {
            what,
            after: Some(after.unwrap_or_default().max(DAILY_QUOTA_WAIT)),
        },
        (StatusCode::TOO_MANY_REQUESTS, _)
        | (
            _,
            "rateLimitExceeded"
            | "userRateLimitExceeded"
            | "RESOURCE_EXHAUSTED"
            | "RATE_LIMIT_EXCEEDED",
        ) => FetchError::Throttled { what, after },
        _ if is_quota => FetchError::Throttled { what, after },
        (StatusCode::UNAUTHORIZED, _) => permission(
            what,
            format!(
                "give the administrator for whom is read a role with the {privilege} privilege, \
                 and a service account's client id the scope {scope} by domain-wide delegation"
            ),
        ),
        (StatusCode::FORBIDDEN, "accessNotConfigured" | "SERVICE_DISABLED") => permission(
            what,
            format!("enable the {api} in the credential's project; it takes some minutes"),
        ),
        (StatusCode::FORBIDDEN, "insufficientPermissions" | "ACCESS_TOKEN_SCOPE_INSUFFICIENT") => {
            permission(
                what,
                format!("the token lacks the scope {scope}: delegate it, or log in again"),
            )
        }
        (StatusCode::FORBIDDEN, _) => permission(
            what,
            format!(
                "give the administrator for whom is read a role with the {privilege} privilege, \
                 and check that the edition has this log"
            ),
        ),
        // A page token or a start that is refused is mended by whoever walks; so is what passes.
        (StatusCode::BAD_REQUEST, BAD_PAGE_TOKEN | BAD_START) => FetchError::Retry { what, after },
        (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => FetchError::Hold {
            what,
            help: "check the names in `applications` and the `customer_id`".to_owned(),
        },
        _ => FetchError::Retry { what, after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use http::HeaderMap;

    fn refusal(status: u16, body: &str) -> Refusal {
        reports(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &HeaderMap::new(),
            body: body.as_bytes(),
            what: "page",
            now: DateTime::UNIX_EPOCH,
        })
    }

    #[test]
    fn every_reason_has_its_decision() {
        let old = |reason: &str| {
            format!(
                r#"{{"error":{{"code":1,"message":"words","errors":[{{"domain":"d","reason":"{reason}","message":"words"}}],"status":"X"}}}}"#
            )
        };
        let new = |status: &str, reason: &str| {
            format!(
                r#"{{"error":{{"code":1,"message":"words","status":"{status}","details":[{{"@type":"x"}},{{"reason":"{reason}"}}]}}}}"#
            )
        };
        let says = |message: &str| format!(r#"{{"error":{{"message":"{message}"}}}}"#);
        let cases = [
            (403, old("rateLimitExceeded"), "Throttled"),
            (403, old("userRateLimitExceeded"), "Throttled"),
            (403, old("quotaExceeded"), "Throttled"),
            (403, old("dailyLimitExceeded"), "Throttled"),
            (
                403,
                new("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
                "Throttled",
            ),
            (429, String::new(), "Throttled"),
            (429, old("rateLimitExceeded"), "Throttled"),
            (503, says("Quota exceeded for the day's user"), "Throttled"),
            (401, old("authError"), "Permission"),
            (403, old("insufficientPermissions"), "Permission"),
            (403, old("forbidden"), "Permission"),
            (403, old("accessNotConfigured"), "Permission"),
            (
                403,
                new("PERMISSION_DENIED", "SERVICE_DISABLED"),
                "Permission",
            ),
            (403, String::new(), "Permission"),
            (400, old("invalid"), "Hold"),
            (400, says("Start time cannot be after end time."), "Retry"),
            (400, says("Invalid page token."), "Retry"),
            (404, String::new(), "Hold"),
            (500, old("backendError"), "Retry"),
            (502, "<html>".to_owned(), "Retry"),
            (503, "<html>".to_owned(), "Retry"),
            (504, String::new(), "Retry"),
        ];
        for (status, body, expected) in cases {
            let error = format!("{:?}", refusal(status, &body).error);
            assert!(error.starts_with(expected), "{status} {body}: {error}");
        }
    }

    #[test]
    fn the_quota_of_a_day_pauses_a_quarter_of_an_hour_and_that_of_a_minute_not() {
        let body = |reason: &str| format!(r#"{{"error":{{"errors":[{{"reason":"{reason}"}}]}}}}"#);
        for (reason, expected) in [
            ("quotaExceeded", Some(DAILY_QUOTA_WAIT)),
            ("rateLimitExceeded", None),
        ] {
            let FetchError::Throttled { after, .. } = refusal(403, &body(reason)).error else {
                panic!("{reason}");
            };
            assert_eq!(after, expected, "{reason}");
        }
    }

    #[test]
    fn a_refused_permission_has_the_vendors_words_and_says_what_to_do() {
        let body = |reason: &str| {
            format!(r#"{{"error":{{"message":"their words","errors":[{{"reason":"{reason}"}}]}}}}"#)
        };
        for (status, reason, word) in [
            (401, "authError", "Reports privilege"),
            (403, "accessNotConfigured", "enable the Admin SDK API"),
            (
                403,
                "insufficientPermissions",
                "admin.reports.audit.readonly",
            ),
            (403, "forbidden", "Reports privilege"),
        ] {
            let FetchError::Permission { what, help } = refusal(status, &body(reason)).error else {
                panic!("{reason}");
            };
            assert!(
                what.contains("their words") && what.contains(reason),
                "{what}"
            );
            assert!(help.contains(word), "{help}");
        }
    }

    #[test]
    fn a_bad_page_token_and_a_bad_start_are_told_from_other_bad_requests() {
        let by_words =
            r#"{"error":{"message":"Invalid page token.","errors":[{"reason":"invalid"}]}}"#;
        let by_place =
            r#"{"error":{"message":"Bad","errors":[{"reason":"invalid","location":"pageToken"}]}}"#;
        assert_eq!(refusal(400, by_words).code, BAD_PAGE_TOKEN);
        assert_eq!(refusal(400, by_place).code, BAD_PAGE_TOKEN);
        let start = r#"{"error":{"message":"Start time cannot be after end time"}}"#;
        assert_eq!(refusal(400, start).code, BAD_START);
        let other = r#"{"error":{"message":"Bad","errors":[{"reason":"invalid"}]}}"#;
        assert_eq!(refusal(400, other).code, "invalid");
        assert_ne!(refusal(500, by_words).code, BAD_PAGE_TOKEN);
    }
}

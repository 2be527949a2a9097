//! What the Management Activity API's refusals mean: by status first, by code second.
//!
//! Bodies come in several shapes: `{"error":{"code","message"}}`, the same with single quotes,
//! `{"Message":…}`, HTML, nothing. Throttling comes as 403 with AF429 as well as 429 ("Troubleshooting
//! the Office 365 Management Activity API", 2026-06). The codes are in spec/connectors.md 1.9.

use http::StatusCode;
use http::header::LOCATION;
use serde_json::Value;

use crate::FetchError;
use crate::kernel::client::{Answer, Refusal};
use crate::kernel::retry::retry_after;
use crate::kernel::words::{shown, shown_bytes};

/// No subscription for the content type.
pub(super) const NOT_SUBSCRIBED: &str = "AF20022";
/// The subscription was disabled.
pub(super) const SUBSCRIPTION_DISABLED: &str = "AF20023";
/// The subscription is enabled already (undocumented).
pub(super) const ALREADY_ENABLED: &str = "AF20024";
/// The link to the next page is not valid (any more).
pub(super) const BAD_NEXT_PAGE: &str = "AF20031";

/// Longest part of a body in which a bare code is looked for, in bytes.
const CODE_SEARCH_BYTES_MAX: usize = 4_096;

/// Reads the refusal.
pub(super) fn classify(answer: &Answer<'_>) -> Refusal {
    let (code, message) = code_and_message(answer.body);
    let status = answer.status.as_u16();
    let what = match (code.as_str(), message.as_str()) {
        ("", "") => format!(
            "{}: status {status}: {}",
            answer.what,
            shown_bytes(answer.body)
        ),
        ("", message) => format!("{}: status {status}: {message}", answer.what),
        (code, message) => format!("{}: status {status}: {code} {message}", answer.what),
    };
    let error = by_code(answer, &code, &message, &what).unwrap_or_else(|| by_status(answer, what));
    Refusal { code, error }
}

fn by_code(answer: &Answer<'_>, code: &str, message: &str, what: &str) -> Option<FetchError> {
    let what = what.to_owned();
    let after = retry_after(answer.headers, answer.now);
    let auditing = |help: &str| FetchError::AuditingDisabled {
        what: what.clone(),
        help: help.to_owned(),
    };
    let auth = |help: &str| FetchError::Auth {
        what: what.clone(),
        help: help.to_owned(),
    };
    Some(match code {
        "AF429" => FetchError::Throttled { what, after },
        _ if code.ends_with("DataServiceException") && message.contains("does not exist") => {
            auditing(AUDITING_HELP)
        }
        "AF10001" => permission(what),
        "AF20010" => auth("tenant_id is not the tenant the application signs in to: put it right"),
        "AF20011" | "AF20012" => auditing(AUDITING_HELP),
        "AF20013" => auth("tenant_id must be the tenant's GUID, not a domain name"),
        "AF20020" => FetchError::Permission {
            what,
            help: "take this content type out of content_types".to_owned(),
        },
        // The caller starts the subscription; a window is worked out anew; a walk begins again; a
        // blob may not have reached this shard yet; bugs and inner errors are worth another try.
        NOT_SUBSCRIBED
        | SUBSCRIPTION_DISABLED
        | ALREADY_ENABLED
        | "AF20030"
        | "AF20055"
        | BAD_NEXT_PAGE
        | "AF20050"
        | "AF20001"
        | "AF20002"
        | "AF50000"
        | "AF50005"
        | "AF50006" => FetchError::Retry { what, after },
        "AF20051" => FetchError::Gone { what },
        "AF20052" => FetchError::Poison { what },
        _ => return None,
    })
}

const AUDITING_HELP: &str = "turn unified auditing on (Set-AdminAuditLogConfig \
    -UnifiedAuditLogIngestionEnabled $true); it takes up to an hour, and is tried again hourly";

fn permission(what: String) -> FetchError {
    FetchError::Permission {
        what,
        help: "grant the application ActivityFeed.Read (for DLP.All also ActivityFeed.ReadDlp) on \
               Office 365 Management APIs, with admin consent"
            .to_owned(),
    }
}

fn by_status(answer: &Answer<'_>, what: String) -> FetchError {
    let after = retry_after(answer.headers, answer.now);
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => FetchError::Throttled { what, after },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => permission(what),
        status if status.is_redirection() => {
            let host = answer
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| url::Url::parse(text).ok())
                .and_then(|url| url.host_str().map(str::to_owned))
                .unwrap_or_else(|| "an unnamed host".to_owned());
            FetchError::Retry {
                what: format!("{}: a redirect to {host} was not followed", answer.what),
                after,
            }
        }
        _ => FetchError::Retry { what, after },
    }
}

/// Code and message, as far as they are there.
fn code_and_message(body: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(body);
    let value = serde_json::from_str::<Value>(&text)
        .or_else(|_| serde_json::from_str(&mended(&text)))
        .unwrap_or(Value::Null);
    let inner = value.get("error").unwrap_or(&value);
    let member = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| inner.get(name).and_then(Value::as_str))
            .map(shown)
            .unwrap_or_default()
    };
    let mut code = member(&["code", "Code"]);
    if code.is_empty() {
        code = bare_code(&text).unwrap_or_default();
    }
    (code, member(&["message", "Message", "error_description"]))
}

/// Single quotes made double, line breaks inside strings made blanks.
fn mended(text: &str) -> String {
    let mend = |c: char| match c {
        '\'' => '"',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(mend).collect()
}

/// `AF` and at least three digits, anywhere in the text.
fn bare_code(text: &str) -> Option<String> {
    let start = text.as_bytes();
    let start = start.get(..CODE_SEARCH_BYTES_MAX).unwrap_or(start);
    memchr::memmem::find_iter(start, b"AF").find_map(|at| {
        let digits: String = start
            .get(at + 2..)?
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .take(6)
            .map(|b| char::from(*b))
            .collect();
        (digits.len() >= 3).then(|| format!("AF{digits}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use http::HeaderMap;

    fn refusal(status: u16, body: &str) -> Refusal {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().unwrap());
        classify(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            body: body.as_bytes(),
            what: "GET content",
            now: DateTime::UNIX_EPOCH,
        })
    }

    fn kind(error: &FetchError) -> &'static str {
        match error {
            FetchError::Retry { .. } => "retry",
            FetchError::Throttled { .. } => "throttled",
            FetchError::Auth { .. } => "auth",
            FetchError::Permission { .. } => "permission",
            FetchError::Hold { .. } => "hold",
            FetchError::AuditingDisabled { .. } => "auditing",
            FetchError::Gone { .. } => "gone",
            FetchError::Poison { .. } => "poison",
            FetchError::Truncated { .. } => "truncated",
        }
    }

    #[test]
    fn every_documented_refusal_has_its_decision() {
        let code = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"words"}}}}"#);
        let throttled =
            "{'error':{'code':'AF429','message':'Too many requests. Method=GetBlob'}}".to_owned();
        let auditing = r#"{"error":{"code":"Microsoft.Office.Compliance.Audit.DataServiceException","message":"Tenant x does not exist."}}"#;
        let cases = [
            (403, throttled.clone(), "throttled"),
            (429, throttled, "throttled"),
            (429, String::new(), "throttled"),
            (403, code("AF429"), "throttled"),
            (400, "text AF429 text".to_owned(), "throttled"),
            (401, r#"{"Message":"Authorization has been denied for this request."}"#.to_owned(), "permission"),
            (401, String::new(), "permission"),
            (401, code("AF10001"), "permission"),
            (403, "<html>Forbidden</html>".to_owned(), "permission"),
            (400, code("AF20010"), "auth"),
            (400, code("AF20011"), "auditing"),
            (400, code("AF20012"), "auditing"),
            (400, code("AF20013"), "auth"),
            (400, code("AF20020"), "permission"),
            (400, code("AF20022"), "retry"),
            (400, code("AF20023"), "retry"),
            (400, code("AF20030"), "retry"),
            (400, code("AF20055"), "retry"),
            (404, code("AF20050"), "retry"),
            (404, String::new(), "retry"),
            (400, code("AF20051"), "gone"),
            (400, code("AF20052"), "poison"),
            (500, code("AF50000"), "retry"),
            (500, auditing.to_owned(), "auditing"),
            (400, auditing.to_owned(), "auditing"),
            (502, "<html>Bad Gateway</html>".to_owned(), "retry"),
            (302, String::new(), "retry"),
            (400, r#"{"error":{"code":"String reference not set to an instance of a String.\r\nParameter name","message":"s"}}"#.to_owned(), "retry"),
        ];
        for (status, body, expected) in cases {
            let refusal = refusal(status, &body);
            assert_eq!(kind(&refusal.error), expected, "{status} {body}");
        }
    }

    #[test]
    fn the_vendors_wait_and_words_are_kept() {
        let refusal = refusal(
            403,
            "{'error':{'code':'AF429','message':'Too many\r\n requests'}}",
        );
        assert_eq!(refusal.code, "AF429");
        let FetchError::Throttled { what, after } = refusal.error else {
            panic!("not throttled");
        };
        assert_eq!(what, "GET content: status 403: AF429 Too many requests");
        assert_eq!(after, Some(std::time::Duration::from_secs(7)));
    }
}

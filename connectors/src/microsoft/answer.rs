//! What the Management Activity API's refusals mean: by status first, by code second.
//!
//! Bodies come in several shapes: `{"error":{"code","message"}}`, the same with single quotes,
//! `{"Message":…}`, HTML, nothing. Throttling comes as 403 with AF429 as well as 429 ("Troubleshooting
//! the Office 365 Management Activity API", 2026-06). The codes are in spec/connectors.md 1.9.

use std::time::Duration;

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
/// The window is wider than 24 hours or begins more than 7 days ago.
pub(super) const WINDOW_REFUSED: &str = "AF20030";
/// The same, in newer words.
pub(super) const WINDOW_INVALID: &str = "AF20055";
/// Too many requests, whatever the status.
const THROTTLED: &str = "AF429";
/// The link to the next page is not valid (any more).
pub(super) const BAD_NEXT_PAGE: &str = "AF20031";

/// Longest part of a body in which a bare code is looked for, in bytes.
const CODE_SEARCH_BYTES_MAX: usize = 4_096;

/// What a body says.
#[derive(Debug, Default)]
struct Words {
    code: String,
    message: String,
    /// The code stood where a code belongs, not just somewhere in a text: only then an item may be
    /// given up because of it.
    proper: bool,
}

/// Reads the refusal.
pub(super) fn classify(answer: &Answer<'_>) -> Refusal {
    let words = words(answer.body);
    let what = described(answer, &words);
    let after = retry_after(answer.headers, answer.now);
    let error = decided(answer.status, &words, &what, after)
        .unwrap_or_else(|| by_status(answer, what, after));
    Refusal {
        code: words.code,
        error,
    }
}

/// What a success means that holds an error object, or a page, where an array should be.
pub(super) fn instead(what: &str, body: &[u8]) -> Refusal {
    let words = words(body);
    let begins = |with: &[u8]| body.trim_ascii_start().starts_with(with);
    let what = if begins(b"<") {
        format!(
            "{what}: an HTML page came with status 200, from a proxy or a login page: {}",
            shown_bytes(body)
        )
    } else if words.code.is_empty() {
        format!("{what}: not understood: {}", shown_bytes(body))
    } else {
        let Words { code, message, .. } = &words;
        format!("{what}: status 200, but an error: {code} {message}")
    };
    // Like the 400 that it should have been.
    let error = decided(StatusCode::BAD_REQUEST, &words, &what, None)
        .unwrap_or(FetchError::Retry { what, after: None });
    Refusal {
        code: words.code,
        error,
    }
}

fn described(answer: &Answer<'_>, words: &Words) -> String {
    let (what, status) = (answer.what, answer.status.as_u16());
    match (words.code.as_str(), words.message.as_str()) {
        ("", "") => format!("{what}: status {status}: {}", shown_bytes(answer.body)),
        ("", message) => format!("{what}: status {status}: {message}"),
        (code, message) => format!("{what}: status {status}: {code} {message}"),
    }
}

/// The status decides which codes count. `None` where the status is all there is to go by.
fn decided(
    status: StatusCode,
    words: &Words,
    what: &str,
    after: Option<Duration>,
) -> Option<FetchError> {
    let what = what.to_owned();
    if status == StatusCode::TOO_MANY_REQUESTS || words.code == THROTTLED {
        return Some(FetchError::Throttled { what, after });
    }
    if words.code.ends_with("DataServiceException") && words.message.contains("does not exist") {
        return Some(auditing(what));
    }
    if !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
        return None;
    }
    by_code(words, what, after)
}

fn by_code(words: &Words, what: String, after: Option<Duration>) -> Option<FetchError> {
    let auth = |what: String, help: &str| FetchError::Auth {
        what,
        help: help.to_owned(),
    };
    Some(match words.code.as_str() {
        "AF10001" => permission(what),
        "AF20010" => auth(
            what,
            "tenant_id is not the tenant the application signs in to: put it right",
        ),
        "AF20011" | "AF20012" => auditing(what),
        "AF20013" => auth(
            what,
            "tenant_id must be the tenant's GUID, not a domain name",
        ),
        "AF20020" => hold(what, "take this content type out of content_types"),
        "AF20001" | "AF20002" | "AF20003" | "AF20021" | "AF20053" | "AF20054" => hold(
            what,
            "the service finds our request malformed, which is a fault of exfilwatch: report it \
             with this message; it is tried again every 15 minutes",
        ),
        SUBSCRIPTION_DISABLED => hold(what, DISABLED_HELP),
        // The caller starts the subscription; a window is worked out anew; a walk begins again; a
        // blob may not have reached this shard yet; inner errors pass.
        NOT_SUBSCRIBED | ALREADY_ENABLED | WINDOW_REFUSED | WINDOW_INVALID | BAD_NEXT_PAGE
        | "AF20050" | "AF50000" | "AF50005" | "AF50006" => FetchError::Retry { what, after },
        "AF20051" if words.proper => FetchError::Gone { what },
        "AF20052" if words.proper => FetchError::Poison { what },
        _ => return None,
    })
}

/// What to do about a subscription that somebody turned off.
pub(super) const DISABLED_HELP: &str = "find out who turned the subscription off; it is started \
    again by itself, at most every 15 minutes, after three vain tries every hour";

const AUDITING_HELP: &str = "turn unified auditing on (Set-AdminAuditLogConfig \
    -UnifiedAuditLogIngestionEnabled $true) and check tenant_id; it takes up to an hour, and is \
    tried again hourly";

fn auditing(what: String) -> FetchError {
    FetchError::AuditingDisabled {
        what,
        help: AUDITING_HELP.to_owned(),
    }
}

fn hold(what: String, help: &str) -> FetchError {
    FetchError::Hold {
        what,
        help: help.to_owned(),
    }
}

fn permission(what: String) -> FetchError {
    FetchError::Permission {
        what,
        help: "grant the application ActivityFeed.Read (for DLP.All also ActivityFeed.ReadDlp) on \
               Office 365 Management APIs, with admin consent; where it has them, look for a \
               conditional access policy that bars it"
            .to_owned(),
    }
}

fn by_status(answer: &Answer<'_>, what: String, after: Option<Duration>) -> FetchError {
    match answer.status {
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
fn words(body: &[u8]) -> Words {
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
    let code = member(&["code", "Code"]);
    let message = member(&["message", "Message", "error_description"]);
    if code.is_empty() {
        let code = bare_code(&text).unwrap_or_default();
        return Words {
            code,
            message,
            proper: false,
        };
    }
    Words {
        code,
        message,
        proper: true,
    }
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
            (400, code("AF20001"), "hold"),
            (400, code("AF20002"), "hold"),
            (400, code("AF20020"), "hold"),
            (400, code("AF20022"), "retry"),
            (400, code("AF20023"), "hold"),
            (400, code("AF20024"), "retry"),
            (400, code("AF20031"), "retry"),
            (400, code("AF20030"), "retry"),
            (400, code("AF20055"), "retry"),
            (404, code("AF20050"), "retry"),
            (404, String::new(), "retry"),
            (400, code("AF20051"), "gone"),
            (400, code("AF20052"), "poison"),
            (400, "<p>AF20051</p>".to_owned(), "retry"),
            (502, "<p>AF20051</p>".to_owned(), "retry"),
            (502, code("AF20052"), "retry"),
            (503, code("AF10001"), "retry"),
            (500, code("AF50000"), "retry"),
            (500, code("AF50005"), "retry"),
            (500, code("AF50006"), "retry"),
            (408, String::new(), "retry"),
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
    fn an_error_or_a_page_in_place_of_an_array_is_what_it_says() {
        let cases = [
            (
                r#"{"error":{"code":"AF20022","message":"No subscription"}}"#,
                "retry",
                "AF20022",
            ),
            (
                r#"{"error":{"code":"AF20051","message":"expired"}}"#,
                "gone",
                "AF20051",
            ),
            (
                "{'error':{'code':'AF429','message':'Too many'}}",
                "throttled",
                "AF429",
            ),
            (
                r#"{"Message":"An error has occurred."}"#,
                "retry",
                "not understood",
            ),
            (r#"{"error":"x"}"#, "retry", "not understood"),
            (
                " <!DOCTYPE html><html>Sign in</html>",
                "retry",
                "login page",
            ),
            ("", "retry", "empty body"),
        ];
        for (body, expected, word) in cases {
            let refusal = instead("listing", body.as_bytes());
            assert_eq!(kind(&refusal.error), expected, "{body}");
            assert!(
                refusal.error.to_string().contains(word),
                "{}",
                refusal.error
            );
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

//! What refusals of the Microsoft identity platform mean, by the number behind AADSTS.
//!
//! "Microsoft Entra authentication and authorization error codes", 2026-06; spec/connectors.md 1.3.
//! Shared by every API that takes this platform's tokens.

use crate::FetchError;
use crate::kernel::words::shown;

/// A refusal of the token endpoint, read.
#[derive(Debug)]
pub(super) struct Refused {
    /// What the caller must do.
    pub(super) error: FetchError,
    /// Whether a credential that was replaced meanwhile would have been taken.
    pub(super) of_credential: bool,
    /// Whether it is about the time.
    pub(super) of_clock: bool,
}

/// Reads the error and its words.
pub(super) fn refused(error: &str, words: &str) -> Refused {
    let number = number(words);
    let (said, trace) = parts(words);
    let what = format!("Microsoft refused a token: {error}: {said}{trace}");
    let of_credential = matches!(
        number,
        Some(7_000_215 | 7_000_222 | 700_027 | 7_000_218 | 50_012 | 50_013 | 700_030)
    ) || (number.is_none() && error == "invalid_client");
    let error = match number {
        Some(50_196 | 90_033) => FetchError::Retry { what, after: None },
        None if matches!(error, "temporarily_unavailable" | "server_error") => {
            FetchError::Retry { what, after: None }
        }
        _ => FetchError::Auth {
            what,
            help: help(number).to_owned(),
        },
    };
    Refused {
        error,
        of_credential,
        of_clock: number == Some(700_024),
    }
}

fn help(number: Option<u32>) -> &'static str {
    match number {
        Some(7_000_215) => {
            "client_secret is wrong: use the secret's value, not its id; the file is read again \
             every 15 minutes"
        }
        Some(7_000_222) => {
            "the client secret has expired: make a new one and replace the file, which is read \
             again every 15 minutes"
        }
        Some(700_016) => {
            "client_id is not known in this tenant: check client_id and tenant_id, and give admin \
             consent"
        }
        Some(90_002) => "tenant_id names no tenant of this cloud: check tenant_id and cloud",
        Some(700_027) => {
            "upload the certificate to the application, or use the one uploaded: it is read again \
             every 15 minutes"
        }
        Some(700_030 | 50_012 | 50_013) => {
            "the certificate is not taken: check its thumbprint, dates and key against the \
             application's registration"
        }
        Some(700_024) => "this machine's clock is wrong: set it by NTP",
        Some(65_001) => "an administrator must give consent to the application in this tenant",
        Some(900_382) => "cloud does not fit the tenant: set cloud to the tenant's own",
        Some(500_011) => {
            "the API is not known in this tenant: check cloud, and add Office 365 Management APIs \
             to the application with admin consent"
        }
        Some(7_000_112) => "the application is disabled: enable it in Entra",
        Some(53_003) => {
            "a conditional access policy bars the application: except it from the policy, or allow \
             this machine's address"
        }
        _ => {
            "check tenant_id, client_id, cloud and the credential against the application's \
             registration"
        }
    }
}

fn number(words: &str) -> Option<u32> {
    let (_, rest) = words.split_once("AADSTS")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.split_at(end).0.parse().ok()
}

/// The sentence, and the trace id, which Microsoft's support asks for. It stands behind the sentence
/// or in a later line.
fn parts(words: &str) -> (String, String) {
    let (said, rest) = match words.split_once("Trace ID:") {
        Some((said, rest)) => (said, Some(rest)),
        None => (words.lines().next().unwrap_or_default(), None),
    };
    let trace = rest
        .and_then(|rest| rest.split_whitespace().next())
        .map_or_else(String::new, |id| format!(" (Trace ID: {})", shown(id)));
    (shown(said), trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_number_says_what_to_do() {
        for (number, word) in [
            (7_000_215, "secret"),
            (7_000_222, "expired"),
            (700_016, "client_id"),
            (90_002, "tenant_id"),
            (700_027, "certificate"),
            (700_024, "clock"),
            (65_001, "consent"),
            (900_382, "cloud"),
            (500_011, "Office 365 Management APIs"),
            (7_000_112, "disabled"),
            (53_003, "conditional access"),
            (123_456, "registration"),
        ] {
            for joint in ["\r\n", " "] {
                let words =
                    format!("AADSTS{number}: Some words.{joint}Trace ID: abc-1{joint}Timestamp: x");
                let FetchError::Auth { what, help } = refused("invalid_client", &words).error
                else {
                    panic!("{number} is not a matter of credentials");
                };
                assert!(help.contains(word), "{number}: {help}");
                assert!(
                    what.ends_with(&format!("AADSTS{number}: Some words. (Trace ID: abc-1)")),
                    "{what}"
                );
            }
        }
        for number in [50_196, 90_033] {
            let refused = refused("invalid_request", &format!("AADSTS{number}: x"));
            assert!(
                matches!(refused.error, FetchError::Retry { .. }),
                "{number}"
            );
        }
    }
}

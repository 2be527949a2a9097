//! What may be wrong between us and a customer's audit logs: the token, its scope, and whether the
//! subject may read each application.

use chrono::TimeDelta;
use exfilwatch_model::Window;
use exfilwatch_model::diagnosis::{Cause, Check};
use http::Method;

use super::applications::ALERT_CENTER;
use super::token::SCOPE;
use super::{GoogleWorkspace, url};
use crate::diagnosis::{refused, token_refused};
use crate::kernel::client::{Ask, Refusal};
use crate::{Depth, FetchError};

/// A window that is asked for lies so far back …
const LOOKED_BACK: TimeDelta = TimeDelta::hours(1);
/// … and is so short, since only whether it is answered matters.
const WINDOW: TimeDelta = TimeDelta::seconds(10);

impl GoogleWorkspace {
    /// See [`crate::Connector::diagnose`].
    pub(super) async fn look(&self, depth: Depth) -> Vec<Check> {
        let token = match self.client.token().await {
            Ok(token) => token,
            Err(error) => {
                let mut checks = vec![token_refused(&error, token_cause(&error))];
                checks.push(Check::skipped("scopes", "there is no token"));
                if depth == Depth::Service {
                    checks.push(Check::skipped("privilege", "there is no token"));
                    checks.push(Check::skipped("throttling", "there is no token"));
                }
                return checks;
            }
        };
        let until = token.ends_at.format("%H:%M UTC");
        let mut checks = vec![
            Check::ok("token", format!("a token of Google until {until}"))
                .fact("expires_at", token.ends_at.to_rfc3339()),
            scopes(token.scope.as_deref()),
        ];
        if depth == Depth::Service {
            checks.extend(self.applications().await);
        }
        checks
    }

    async fn applications(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        let mut throttled = None;
        let mut disabled = false;
        for stream in &self.streams {
            let application = stream.name();
            if disabled && application != ALERT_CENTER {
                continue;
            }
            match self.glance(application).await {
                Ok(()) => checks.push(
                    Check::ok("privilege", format!("{application} can be read"))
                        .fact("application", application),
                ),
                Err(refusal) if matches!(refusal.error, FetchError::Throttled { .. }) => {
                    checks.push(
                        Check::skipped("privilege", format!("{application}: throttled"))
                            .fact("application", application),
                    );
                    throttled = Some(refusal.error);
                }
                Err(refusal) if application == ALERT_CENTER && self.optional.is_some() => {
                    // Nobody asked for it by name: without it all is well.
                    let error = &refusal.error;
                    let seen = format!("{application} is optional, and not read: {error}");
                    let check = Check::ok("privilege", seen);
                    checks.push(check.fact("application", application));
                }
                Err(refusal) => {
                    checks.push(unreadable(&refusal).fact("application", application));
                    // It holds for the project: the other applications would only repeat it.
                    disabled |= is_disabled(&refusal) && application != ALERT_CENTER;
                }
            }
        }
        checks.push(match throttled {
            Some(error) => refused("throttling", &error),
            None => Check::ok("throttling", "no call was throttled"),
        });
        checks
    }

    /// Whether a short window is answered. Asked once, without patience.
    async fn glance(&self, application: &str) -> Result<(), Refusal> {
        let from = self.now() - LOOKED_BACK;
        let Some(window) = Window::new(from, from + WINDOW) else {
            return Ok(());
        };
        let (client, url, what) = match (application, &self.alerts) {
            (ALERT_CENTER, Some(alerts)) => {
                (&alerts.client, alerts.made(window), "alerts".to_owned())
            }
            _ => {
                let customer = self.customer_id.as_deref();
                let url = url(&self.api, application, customer, window);
                (&self.client, url, format!("activities of {application}"))
            }
        };
        let ask = Ask {
            method: Method::GET,
            url,
            what,
            patient: false,
        };
        client.call(&ask).await.map(drop)
    }
}

/// Google says which scopes it granted, as a rule.
fn scopes(granted: Option<&str>) -> Check {
    let Some(granted) = granted else {
        return Check::ok("scopes", "the endpoint does not say; the calls will show");
    };
    let granted: Vec<&str> = granted.split_whitespace().collect();
    let surplus: Vec<&str> = granted.iter().copied().filter(|s| *s != SCOPE).collect();
    let check = if !granted.contains(&SCOPE) {
        let seen = format!("granted: {}", granted.join(", "));
        Check::failed("scopes", Cause::DelegationMissing, seen)
    } else if surplus.is_empty() {
        Check::ok("scopes", "admin.reports.audit.readonly and no other")
    } else {
        let seen = format!("not needed: {}", surplus.join(", "));
        Check::warning("scopes", Cause::RolesTooMany, seen)
    };
    check.fact("scopes", granted)
}

fn is_disabled(refusal: &Refusal) -> bool {
    matches!(
        refusal.code.as_str(),
        "accessNotConfigured" | "SERVICE_DISABLED"
    )
}

fn unreadable(refusal: &Refusal) -> Check {
    let mut check = refused("privilege", &refusal.error);
    if is_disabled(refusal) {
        check.cause = Some(Cause::ApiNotEnabled);
    } else if let Some(cause) = token_cause(&refusal.error) {
        check.cause = Some(cause);
    } else if matches!(refusal.error, FetchError::Permission { .. }) {
        check.cause = Some(Cause::PrivilegeMissing);
    }
    check
}

/// The cause of a refusal of the token endpoint: its words quote the code.
fn token_cause(error: &FetchError) -> Option<Cause> {
    let FetchError::Auth { what, .. } = error else {
        return None;
    };
    let (_, rest) = what.split_once("refused a token: ")?;
    let code = rest.split(':').next().unwrap_or_default();
    Some(match code {
        "unauthorized_client" => Cause::DelegationMissing,
        "invalid_client" => Cause::ClientSecretWrong,
        "invalid_grant" if rest.contains("expired or revoked") => Cause::RefreshTokenDead,
        "invalid_grant" => Cause::SubjectUnknown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_the_token_endpoint_has_its_cause() {
        for (words, cause) in [
            (
                "unauthorized_client: Client is unauthorized",
                Some(Cause::DelegationMissing),
            ),
            (
                "invalid_grant: Token has been expired or revoked.",
                Some(Cause::RefreshTokenDead),
            ),
            (
                "invalid_grant: Invalid email or User ID",
                Some(Cause::SubjectUnknown),
            ),
            ("invalid_client: x", Some(Cause::ClientSecretWrong)),
            ("x: y", None),
        ] {
            let error = FetchError::Auth {
                what: format!("Google refused a token: {words}"),
                help: String::new(),
            };
            assert_eq!(token_cause(&error), cause, "{words}");
        }
    }

    #[test]
    fn scopes_may_be_missing_too_many_or_unsaid() {
        let more = format!("{SCOPE} https://www.googleapis.com/auth/drive");
        for (granted, cause) in [
            (None, None),
            (Some(SCOPE), None),
            (Some(more.as_str()), Some(Cause::RolesTooMany)),
            (Some("openid"), Some(Cause::DelegationMissing)),
        ] {
            assert_eq!(scopes(granted).cause, cause, "{granted:?}");
        }
    }
}

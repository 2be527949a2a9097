//! What may be wrong between us and a tenant's feed, one small check after the other. Looks only:
//! no subscription is started here.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use exfilwatch_model::Window;
use exfilwatch_model::diagnosis::{Cause, Check};
use serde_json::Value;

use super::Office365;
use super::feed::read_page;
use super::graph::missing_permission;
use crate::diagnosis::{refused, token_refused};
use crate::kernel::client::Refusal;
use crate::kernel::jwt::claims;
use crate::{Depth, FetchError};

const ROLE_READ: &str = "ActivityFeed.Read";
const ROLE_READ_DLP: &str = "ActivityFeed.ReadDlp";
/// Roles of Graph: the search, whole or per workload, and the domains of the tenant.
const SEARCH: &str = "AuditLogsQuery";
const DOMAINS: &str = "Domain.Read.All";
const DLP: &str = "DLP.All";
/// Content of so long is looked for.
const LOOKED_BACK: TimeDelta = TimeDelta::hours(24);

/// The checks of the service, in their order.
const SERVICE: [&str; 4] = ["subscription", "auditing", "content", "throttling"];

impl Office365 {
    /// See [`crate::Connector::diagnose`].
    pub(super) async fn look(&self, depth: Depth) -> Vec<Check> {
        let token = match self.feed.client.token().await {
            Ok(token) => token,
            Err(error) => {
                let mut checks = vec![token_refused(&error, token_cause(&error.to_string()))];
                checks.push(Check::skipped("roles", "there is no token"));
                if depth == Depth::Service {
                    checks.extend(skipped(&SERVICE, "there is no token"));
                }
                return checks;
            }
        };
        let claims = claims(&token.value);
        let audience = text(claims.as_ref(), "aud");
        let mut checks = vec![
            Check::ok(
                "token",
                format!(
                    "a token for {} until {}",
                    audience.as_deref().unwrap_or("an unreadable audience"),
                    token.ends_at.format("%H:%M UTC")
                ),
            )
            .fact("audience", audience)
            .fact("expires_at", token.ends_at.to_rfc3339())
            .fact("token_tenant", text(claims.as_ref(), "tid")),
        ];
        let roles = claims.as_ref().map(roles);
        checks.extend(self.roles(roles.as_deref()));
        checks.extend(self.archive_roles().await);
        if depth == Depth::Service {
            let may_read_dlp = roles.is_none_or(|roles| roles.iter().any(|r| r == ROLE_READ_DLP));
            checks.extend(self.service(may_read_dlp).await);
        }
        checks
    }

    /// What the token lacks, and what it has too much.
    fn roles(&self, roles: Option<&[String]>) -> Vec<Check> {
        let Some(roles) = roles else {
            let seen = "the token cannot be looked into; the calls will show";
            return vec![Check::ok("roles", seen)];
        };
        let has = |role: &str| roles.iter().any(|known| known == role);
        let wants_dlp = self.streams.iter().any(|stream| stream.name() == DLP);
        let wants_more = self.streams.iter().any(|stream| stream.name() != DLP);
        let listed = if roles.is_empty() {
            "the token has no roles".to_owned()
        } else {
            format!("the token has {}", roles.join(", "))
        };
        let needed = if wants_more && !has(ROLE_READ) {
            Check::failed("roles", Cause::RoleMissing, listed)
        } else if wants_dlp && !has(ROLE_READ_DLP) {
            Check::warning("roles", Cause::RoleDlpMissing, listed)
        } else {
            Check::ok("roles", listed)
        };
        let surplus: Vec<&str> = roles
            .iter()
            .map(String::as_str)
            .filter(|role| ![ROLE_READ, ROLE_READ_DLP].contains(role))
            .collect();
        let needed = needed.fact("roles", roles.to_vec());
        let surplus_check = if surplus.is_empty() {
            Check::ok("surplus_roles", "none")
        } else {
            let seen = format!("not needed: {}", surplus.join(", "));
            Check::warning("surplus_roles", Cause::RolesTooMany, seen).fact("surplus", surplus)
        };
        vec![needed, surplus_check]
    }

    /// The token of Graph is another one. Without it the feed goes on, so nothing here fails; but
    /// what an application may do to mail and files stands in this token.
    async fn archive_roles(&self) -> Vec<Check> {
        let Ok(archive) = &self.archive else {
            return vec![Check::ok(
                "archive",
                "no search of the audit log is configured",
            )];
        };
        let roles = match archive.roles().await {
            Ok(Some(roles)) => roles,
            Ok(None) => {
                let seen = "the token of Graph cannot be looked into";
                return vec![Check::ok("archive", seen)];
            }
            Err(error) => {
                let what = error.to_string();
                return vec![Check::warning("archive", Cause::ArchiveNotPermitted, what)];
            }
        };
        let lacking: Vec<String> = self
            .streams
            .iter()
            .filter_map(|stream| missing_permission(stream.name(), &roles))
            .collect();
        let mut checks = vec![
            match lacking.first() {
                None => Check::ok("archive", "the audit log may be searched through Graph"),
                Some(first) => {
                    let seen = format!("the token of Graph lacks {first}");
                    Check::warning("archive", Cause::ArchiveNotPermitted, seen)
                }
            }
            .fact("graph_roles", roles.clone()),
        ];
        let needed = |role: &str| role.starts_with(SEARCH) || role == DOMAINS;
        let surplus: Vec<String> = roles.into_iter().filter(|role| !needed(role)).collect();
        if !surplus.is_empty() {
            let seen = format!("not needed in Graph: {}", surplus.join(", "));
            let check = Check::warning("surplus_roles", Cause::RolesTooMany, seen);
            checks.push(check.fact("surplus", surplus));
        }
        checks
    }

    async fn service(&self, may_read_dlp: bool) -> Vec<Check> {
        let subscribed = match self.feed.subscriptions_asked(false).await {
            Ok(subscribed) => subscribed,
            Err(refusal) => return unlisted(&refusal.error),
        };
        let mut checks = Vec::new();
        let mut listings = Vec::new();
        for stream in &self.streams {
            let content_type = stream.name();
            let enabled = subscribed.get(content_type).copied();
            checks.push(subscription(content_type, enabled));
            if enabled == Some(true) {
                listings.push((content_type, self.glance(content_type).await));
            }
        }
        checks.push(auditing(&listings));
        checks.extend(content(&listings, may_read_dlp));
        checks.push(throttling(&listings));
        checks
    }

    /// How many blobs the first page of the last day lists. Asked once, without patience.
    async fn glance(&self, content_type: &str) -> Result<usize, Refusal> {
        let now = self.now();
        let Some(window) = Window::new(now - LOOKED_BACK, now) else {
            return Ok(0);
        };
        let mut ask = self.feed.listing(content_type, window);
        ask.patient = false;
        let body = self.feed.read(&ask).await?.1;
        Ok(read_page(&ask.what, &body)?.len())
    }
}

type Glances<'a> = [(&'a str, Result<usize, Refusal>)];

fn skipped(checks: &[&'static str], why: &str) -> Vec<Check> {
    checks
        .iter()
        .map(|check| Check::skipped(check, why))
        .collect()
}

/// The list of subscriptions itself was refused: what is known of the rest.
fn unlisted(error: &FetchError) -> Vec<Check> {
    let at = match error {
        FetchError::AuditingDisabled { .. } => "auditing",
        FetchError::Throttled { .. } => "throttling",
        _ => "subscription",
    };
    SERVICE
        .iter()
        .map(|check| {
            if *check == at {
                return refused(check, error);
            }
            let why = match at {
                "auditing" => "auditing is off",
                "throttling" => "the service is throttling",
                _ => "subscriptions cannot be listed",
            };
            Check::skipped(check, why)
        })
        .collect()
}

fn subscription(content_type: &str, enabled: Option<bool>) -> Check {
    let check = match enabled {
        Some(true) => Check::ok("subscription", format!("{content_type} is subscribed")),
        Some(false) => Check::failed(
            "subscription",
            Cause::SubscriptionDisabled,
            format!("{content_type} is disabled"),
        ),
        None => Check::warning(
            "subscription",
            Cause::SubscriptionMissing,
            format!("{content_type} was never subscribed"),
        ),
    };
    check.fact("content_type", content_type)
}

fn auditing(listings: &Glances<'_>) -> Check {
    let refusal = listings.iter().find_map(|(_, outcome)| match outcome {
        Err(refusal) if matches!(refusal.error, FetchError::AuditingDisabled { .. }) => {
            Some(refusal)
        }
        _ => None,
    });
    if let Some(refusal) = refusal {
        return refused("auditing", &refusal.error);
    }
    if listings.iter().any(|(_, outcome)| outcome.is_ok()) {
        return Check::ok("auditing", "the service lists content for the tenant");
    }
    Check::skipped("auditing", "no content could be listed")
}

/// One check for all content types together, and one for each that is refused by itself.
fn content(listings: &Glances<'_>, may_read_dlp: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (content_type, outcome) in listings {
        match outcome {
            Ok(count) => {
                counts.insert(content_type, *count);
            }
            // Known from the roles, from auditing and from throttling.
            Err(_) if *content_type == DLP && !may_read_dlp => {}
            Err(refusal)
                if matches!(
                    refusal.error,
                    FetchError::AuditingDisabled { .. } | FetchError::Throttled { .. }
                ) => {}
            Err(refusal) => {
                checks.push(refused("content", &refusal.error).fact("content_type", *content_type));
            }
        }
    }
    if counts.is_empty() {
        if checks.is_empty() {
            checks.push(Check::skipped("content", "no content could be listed"));
        }
        return checks;
    }
    let listed: Vec<String> = counts
        .iter()
        .map(|(content_type, count)| format!("{content_type}: {count}"))
        .collect();
    let seen = format!(
        "blobs of the last 24 hours, first page: {}",
        listed.join(", ")
    );
    let check = if counts.values().all(|count| *count == 0) {
        Check::warning("content", Cause::FirstContentPending, seen)
    } else {
        Check::ok("content", seen)
    };
    checks.push(check.fact("blobs", serde_json::json!(counts)));
    checks
}

fn throttling(listings: &Glances<'_>) -> Check {
    let refusal = listings.iter().find_map(|(_, outcome)| match outcome {
        Err(refusal) if matches!(refusal.error, FetchError::Throttled { .. }) => Some(refusal),
        _ => None,
    });
    match refusal {
        Some(refusal) => refused("throttling", &refusal.error),
        None => Check::ok("throttling", "no call was throttled"),
    }
}

fn text(claims: Option<&Value>, name: &str) -> Option<String> {
    claims?.get(name)?.as_str().map(str::to_owned)
}

fn roles(claims: &Value) -> Vec<String> {
    let roles = claims.get("roles").and_then(Value::as_array);
    let texts = roles.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// The cause of a refusal of the token endpoint: its words quote the number, AADSTS….
fn token_cause(words: &str) -> Option<Cause> {
    let (_, rest) = words.split_once("AADSTS")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some(match rest.split_at(end).0.parse::<u32>().ok()? {
        7_000_215 | 7_000_218 => Cause::ClientSecretWrong,
        7_000_222 => Cause::ClientSecretExpired,
        700_027 | 700_030 | 50_012 | 50_013 => Cause::CertificateNotUploaded,
        700_016 => Cause::ApplicationUnknown,
        7_000_112 => Cause::ApplicationDisabled,
        90_002 => Cause::TenantUnknown,
        900_382 | 500_011 => Cause::CloudWrong,
        65_001 => Cause::ConsentMissing,
        53_003 => Cause::ConditionalAccess,
        700_024 => Cause::ClockSkew,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_the_token_endpoint_has_its_cause_and_others_have_none() {
        for (words, cause) in [
            (
                "Microsoft refused a token: invalid_client: AADSTS7000222: expired",
                Some(Cause::ClientSecretExpired),
            ),
            ("AADSTS53003", Some(Cause::ConditionalAccess)),
            ("AADSTS1: x", None),
            ("no number", None),
        ] {
            assert_eq!(token_cause(words), cause, "{words}");
        }
    }
}

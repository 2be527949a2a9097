//! What `doctor` can know of a connector from its options alone, and what both vendors' diagnoses
//! share: a refusal read as a check.

use std::path::Path;

use exfilwatch_model::SecretSource;
use exfilwatch_model::diagnosis::{Cause, Check, Endpoint, Tls, Way};
use url::Url;

use crate::FetchError;
use crate::google;
use crate::google::applications::ALERT_CENTER;
use crate::kernel::url_guard::on_loopback;
use crate::microsoft::cloud;
use crate::options::{GoogleWorkspaceOptions, Office365Options};
use crate::registry::AnyOptions;

/// Baseline of the Management Activity API, requests a minute and tenant.
const OFFICE365_PER_MINUTE: u32 = 2_000;
/// Queries a minute, user and project of the Reports API.
const GOOGLE_PER_MINUTE: u32 = 2_400;

impl AnyOptions {
    /// The places in the network this connector talks to: where tokens come from, then the APIs.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        match self {
            Self::Office365(options) => {
                let hosts = cloud::hosts(options.cloud.unwrap_or_default());
                let way = way(options.proxy.as_ref(), options.api_root.as_ref());
                let (way, ca_file) = (&way, options.ca_file.as_deref());
                let login = or_own(options.login_root.as_ref(), hosts.login);
                let api = or_own(options.api_root.as_ref(), hosts.api);
                [
                    place("login", login, way, ca_file),
                    place("api", api, way, ca_file),
                ]
                .into_iter()
                .flatten()
                .collect()
            }
            Self::GoogleWorkspace(options) => google_places(options),
        }
    }

    /// The secrets it reads, each with its key in the configuration.
    pub fn secrets(&self) -> Vec<(&'static str, SecretSource)> {
        match self {
            Self::Office365(options) => office365_secrets(options),
            Self::GoogleWorkspace(options) => google_secrets(options),
        }
    }

    /// By which credential it signs in, in words; never the credential.
    pub fn credential(&self) -> String {
        match self {
            Self::Office365(options) => match (&options.client_secret, &options.certificate) {
                (Some(source), _) => format!("client secret from {}", source_words(source)),
                (None, Some(certificate)) => {
                    format!("certificate {}", certificate.file.display())
                }
                (None, None) => "no credential".to_owned(),
            },
            Self::GoogleWorkspace(options) => {
                match (&options.service_account, &options.refresh_token) {
                    (Some(source), _) => format!(
                        "service account from {} for {}",
                        source_words(source),
                        options.subject.as_deref().unwrap_or("nobody")
                    ),
                    (None, Some(refresh)) => {
                        format!("refresh token from {}", source_words(&refresh.token))
                    }
                    (None, None) => "no credential".to_owned(),
                }
            }
        }
    }

    /// The configured rate against the vendor's limit.
    pub fn quota(&self) -> Check {
        let (rate, default, limit, of) = match self {
            Self::Office365(options) => (
                options.requests_per_minute,
                1_000,
                OFFICE365_PER_MINUTE,
                "tenant",
            ),
            Self::GoogleWorkspace(options) => (
                options.requests_per_minute,
                600,
                GOOGLE_PER_MINUTE,
                "project and user",
            ),
        };
        let rate = rate.unwrap_or(default);
        let seen =
            format!("{rate} requests a minute; the vendor allows about {limit} a minute and {of}");
        let check = if rate > limit {
            Check::warning("quota", Cause::QuotaAboveLimit, seen)
        } else {
            Check::ok("quota", seen)
        };
        check
            .fact("requests_per_minute", rate)
            .fact("limit_per_minute", limit)
    }
}

fn source_words(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => format!("file {}", path.display()),
        SecretSource::Env(name) => format!("environment variable {name}"),
    }
}

fn office365_secrets(options: &Office365Options) -> Vec<(&'static str, SecretSource)> {
    let mut secrets = Vec::new();
    if let Some(source) = &options.client_secret {
        secrets.push(("client_secret", source.clone()));
    }
    if let Some(certificate) = &options.certificate {
        let key = certificate.key_file.as_ref().unwrap_or(&certificate.file);
        secrets.push(("certificate", SecretSource::File(key.clone())));
    }
    secrets
}

fn google_secrets(options: &GoogleWorkspaceOptions) -> Vec<(&'static str, SecretSource)> {
    let mut secrets = Vec::new();
    if let Some(source) = &options.service_account {
        secrets.push(("service_account", source.clone()));
    }
    if let Some(refresh) = &options.refresh_token {
        secrets.push(("refresh_token.client_secret", refresh.client_secret.clone()));
        secrets.push(("refresh_token.token", refresh.token.clone()));
    }
    secrets
}

fn or_own(given: Option<&Url>, own: &str) -> Option<Url> {
    given.cloned().or_else(|| Url::parse(own).ok())
}

fn google_places(options: &GoogleWorkspaceOptions) -> Vec<Endpoint> {
    let way = way(options.proxy.as_ref(), options.api_root.as_ref());
    let (way, ca_file) = (&way, options.ca_file.as_deref());
    let api_root = options.api_root.as_ref();
    let login = or_own(options.token_uri.as_ref(), google::TOKEN_URI);
    let api = or_own(api_root, google::API_ROOT);
    let named = options.applications.iter().flatten();
    let alerts = named.clone().any(|name| name == ALERT_CENTER).then(|| {
        // As the connector has it: one moved API moves the other.
        or_own(
            options.alerts_root.as_ref().or(api_root),
            google::ALERTS_ROOT,
        )
    });
    [
        place("login", login, way, ca_file),
        place("api", api, way, ca_file),
        place("alerts", alerts.flatten(), way, ca_file),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// As [`crate::kernel::surroundings::http_settings`] has it: one proxy setting for all places.
fn way(proxy: Option<&Url>, api_root: Option<&Url>) -> Way {
    match proxy {
        Some(proxy) => Way::Proxy(proxy.to_string()),
        None if api_root.is_some_and(on_loopback) => Way::Direct,
        None => Way::System,
    }
}

fn place(
    name: &'static str,
    url: Option<Url>,
    way: &Way,
    ca_file: Option<&Path>,
) -> Option<Endpoint> {
    let url = url?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some(Endpoint {
        name,
        port: url.port_or_known_default()?,
        tls: (url.scheme() == "https").then(|| Tls {
            name: host.clone(),
            ca_file: ca_file.map(Path::to_owned),
            besides_system: true,
            pin_sha256: Vec::new(),
            verifies: true,
        }),
        host,
        http: true,
        proxy: way.clone(),
    })
}

/// A refusal as a check, with the cause that its kind has where the vendor's code tells no more.
pub(crate) fn refused(check: &'static str, error: &FetchError) -> Check {
    let what = error.to_string();
    match error {
        FetchError::Throttled { .. } => Check::warning(check, Cause::Throttled, what),
        FetchError::Auth { help, .. } => {
            Check::failed(check, Cause::TokenRefused, what).fix(help.clone())
        }
        FetchError::Permission { help, .. } | FetchError::Hold { help, .. } => {
            Check::failed(check, Cause::AccessDenied, what).fix(help.clone())
        }
        FetchError::AuditingDisabled { help, .. } => {
            Check::failed(check, Cause::AuditingOff, what).fix(help.clone())
        }
        FetchError::Retry { .. }
        | FetchError::Gone { .. }
        | FetchError::Truncated { .. }
        | FetchError::Poison { .. } => Check::failed(check, Cause::VendorNoAnswer, what),
    }
}

/// A refused token, with a cause that is known better than its kind.
pub(crate) fn token_refused(error: &FetchError, cause: Option<Cause>) -> Check {
    let mut check = refused("token", error);
    if let Some(cause) = cause {
        check.cause = Some(cause);
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_those_of_the_cloud_or_the_overrides() {
        let options = Office365Options {
            cloud: Some(crate::options::Cloud::GccHigh),
            ..Office365Options::default()
        };
        let places = AnyOptions::Office365(Box::new(options)).endpoints();
        let hosts: Vec<(&str, &str, u16)> = places
            .iter()
            .map(|place| (place.name, place.host.as_str(), place.port))
            .collect();
        assert_eq!(
            hosts,
            [
                ("login", "login.microsoftonline.us", 443),
                ("api", "manage.office365.us", 443)
            ]
        );
        assert!(places.iter().all(|place| place.proxy == Way::System));
        let options = GoogleWorkspaceOptions {
            api_root: Some("http://[::1]:9".parse().unwrap()),
            applications: Some(vec![ALERT_CENTER.to_owned()]),
            ..GoogleWorkspaceOptions::default()
        };
        let places = AnyOptions::GoogleWorkspace(Box::new(options)).endpoints();
        assert_eq!(places[0].host, "oauth2.googleapis.com");
        assert_eq!(places[1].host, "::1");
        assert_eq!((places[2].name, places[2].port), ("alerts", 9));
        assert!(places[1].tls.is_none() && places[1].proxy == Way::Direct);
    }

    #[test]
    fn a_rate_above_the_limit_is_a_warning() {
        for (rate, cause) in [
            (None, None),
            (Some(2_000), None),
            (Some(2_001), Some(Cause::QuotaAboveLimit)),
        ] {
            let options = Office365Options {
                requests_per_minute: rate,
                ..Office365Options::default()
            };
            assert_eq!(
                AnyOptions::Office365(Box::new(options)).quota().cause,
                cause
            );
        }
    }
}

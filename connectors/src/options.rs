//! What an operator may set for each kind of connector.
//!
//! Every member is optional, so that `[defaults.office365]` can be laid under a connector's own
//! table; what must be there in the end is checked when the connector is built, not here. No
//! secret stands in these types, only where to find one ([`SecretSource`]).

use std::collections::BTreeMap;
use std::path::PathBuf;

use exfilwatch_model::{SecretSource, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// The cloud a Microsoft tenant lives in. Fixes the API host, the login host and the audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// The world-wide cloud.
    #[default]
    Commercial,
    /// Government Community Cloud.
    Gcc,
    /// Government Community Cloud High.
    GccHigh,
    /// Department of Defense.
    Dod,
}

/// Which version of Microsoft Graph answers searches of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum AuditSearch {
    /// The released one.
    #[default]
    #[serde(rename = "v1.0")]
    V1,
    /// The preview, into which the search was moved back for a time in 2026.
    #[serde(rename = "beta")]
    Beta,
    /// None: gaps stay open, and what is older than 7 days is not read.
    #[serde(rename = "off")]
    Off,
}

/// By what records of Office 365 are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordIdentity {
    /// Their `Id`, and what is in them.
    #[default]
    Id,
    /// All that is in them but their `Id` (CreationTime, Operation, UserId, ObjectId and the rest).
    /// For a tenant whose audit-log search gives other ids than its feed, so that what both bring is
    /// known to be the same. Two records that differ in nothing but their `Id` count as one.
    Content,
}

/// How a certificate signs the client assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AssertionStyle {
    /// PS256 with `x5t#S256`, what Microsoft's documentation asks for.
    #[default]
    Ps256,
    /// RS256 with `x5t` (SHA-1 thumbprint), the older form.
    Rs256,
}

/// A certificate of the application registered in Entra.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateOptions {
    /// PEM file with the certificate, and with the private key unless `key_file` is set.
    pub file: PathBuf,
    /// PEM file with the private key (PKCS#8 or PKCS#1, RSA, 2048 bits or more).
    pub key_file: Option<PathBuf>,
    /// How the assertion is signed.
    #[serde(default)]
    pub assertion: AssertionStyle,
}

/// `[connectors.office365.<name>]`: the Office 365 Management Activity API of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Office365Options {
    /// Our alias of the tenant, as in `[tenants.<alias>]`.
    #[schemars(with = "Option<String>")]
    pub tenant: Option<TenantId>,
    /// The cloud the tenant lives in. Default: commercial.
    pub cloud: Option<Cloud>,
    /// The tenant's GUID in Entra (not a domain name).
    pub tenant_id: Option<String>,
    /// The application (client) id.
    pub client_id: Option<String>,
    /// Where the client secret is. Either this or `certificate`.
    pub client_secret: Option<SecretSource>,
    /// The application's certificate. Either this or `client_secret`.
    pub certificate: Option<CertificateOptions>,
    /// Content types to read. Default: all five.
    pub content_types: Option<Vec<String>>,
    /// Seconds between two polls of a stream. Default: 60.
    pub poll_interval_seconds: Option<u64>,
    /// GUID sent as `PublisherIdentifier`, which picks the throttling pool. Default: `tenant_id`.
    pub publisher_identifier: Option<String>,
    /// Another origin in place of the cloud's API host (a proxy, a simulator). http only on loopback.
    #[schemars(with = "Option<String>")]
    pub api_root: Option<Url>,
    /// Another origin in place of the cloud's login host. http only on loopback.
    #[schemars(with = "Option<String>")]
    pub login_root: Option<Url>,
    /// Another origin in place of the cloud's Microsoft Graph. http only on loopback.
    #[schemars(with = "Option<String>")]
    pub graph_root: Option<Url>,
    /// Where gaps and what is older than 7 days are searched for. Default: v1.0.
    pub audit_search: Option<AuditSearch>,
    /// By what records are told apart; of all connectors of a tenant where one says `content`.
    /// Default: id.
    pub record_identity: Option<RecordIdentity>,
    /// HTTP proxy for this connector, without user name and password.
    #[schemars(with = "Option<String>")]
    pub proxy: Option<Url>,
    /// PEM file with certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Requests a minute for the whole tenant. Default: 1000.
    pub requests_per_minute: Option<u32>,
    /// Blobs fetched at the same time. Default: 4.
    pub fetch_concurrency: Option<u32>,
    /// Largest blob that is read, in bytes when decoded; a larger one is quarantined. Default: 256
    /// MiB.
    pub blob_bytes_max: Option<usize>,
}

/// A refresh token of an administrator who has granted access to an installed application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshTokenOptions {
    /// The OAuth client's id.
    pub client_id: String,
    /// Where the OAuth client's secret is.
    pub client_secret: SecretSource,
    /// Where the refresh token is. `exfilwatch auth login` keeps it in a file; an environment
    /// variable holds one that was got otherwise.
    pub token: SecretSource,
}

/// `[connectors.google_workspace.<name>]`: the Admin SDK Reports API of one customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoogleWorkspaceOptions {
    /// Our alias of the tenant, as in `[tenants.<alias>]`.
    #[schemars(with = "Option<String>")]
    pub tenant: Option<TenantId>,
    /// E-mail address of the administrator on whose behalf the service account reads.
    pub subject: Option<String>,
    /// Customer id (`C…`). Default: the subject's own customer.
    pub customer_id: Option<String>,
    /// Where the service account's JSON key is. Either this or `refresh_token`.
    pub service_account: Option<SecretSource>,
    /// A refresh token in place of a service account.
    pub refresh_token: Option<RefreshTokenOptions>,
    /// Applications to read: any name the Reports API knows, and `alertcenter` for the Alert Center
    /// (a service account that is delegated the scope apps.alerts too). Default: drive, admin,
    /// login, token, user_accounts, groups, groups_enterprise, calendar, rules, and of a service
    /// account alertcenter where that scope is delegated.
    pub applications: Option<Vec<String>>,
    /// Seconds by which a window's end stays behind the present, per application.
    pub lag_seconds: Option<BTreeMap<String, u32>>,
    /// Seconds that are read again for late records every half hour, per application.
    pub overlap_seconds: Option<BTreeMap<String, u32>>,
    /// Seconds between two polls of a stream. Default: 60.
    pub poll_interval_seconds: Option<u64>,
    /// Another origin in place of `https://admin.googleapis.com`. http only on loopback.
    #[schemars(with = "Option<String>")]
    pub api_root: Option<Url>,
    /// Another origin in place of `https://alertcenter.googleapis.com`. Default: `api_root`, where
    /// that is set. http only on loopback.
    #[schemars(with = "Option<String>")]
    pub alerts_root: Option<Url>,
    /// Another token endpoint in place of the key file's. http only on loopback.
    #[schemars(with = "Option<String>")]
    pub token_uri: Option<Url>,
    /// Another consent page in place of Google's, for `exfilwatch auth login`. http only on loopback.
    #[schemars(with = "Option<String>")]
    pub auth_uri: Option<Url>,
    /// HTTP proxy for this connector, without user name and password.
    #[schemars(with = "Option<String>")]
    pub proxy: Option<Url>,
    /// PEM file with certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Requests a minute for the project and subject. Default: 600.
    pub requests_per_minute: Option<u32>,
    /// Windows fetched at the same time. Default: 4.
    pub fetch_concurrency: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_by_file_or_environment_and_never_given_literally() {
        let read = |text: &str| serde_json::from_str::<Office365Options>(text);
        let options = read(r#"{"client_secret": {"env": "APP_SECRET"}}"#).unwrap();
        assert_eq!(
            options.client_secret,
            Some(SecretSource::Env("APP_SECRET".into()))
        );
        assert!(read(r#"{"client_secret": {"file": "/run/secret"}}"#).is_ok());
        assert!(read(r#"{"client_secret": "hunter2"}"#).is_err());
        assert!(read(r#"{"client_secret": {"value": "hunter2"}}"#).is_err());
    }

    #[test]
    fn a_misspelt_key_is_refused_and_the_known_ones_are_listed() {
        let error = serde_json::from_str::<GoogleWorkspaceOptions>(r#"{"subjekt": "a@b.example"}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("subjekt") && error.contains("subject"),
            "{error}"
        );
    }

    #[test]
    fn clouds_are_written_as_in_the_documentation() {
        for (text, cloud) in [
            ("commercial", Cloud::Commercial),
            ("gcc", Cloud::Gcc),
            ("gcc-high", Cloud::GccHigh),
            ("dod", Cloud::Dod),
        ] {
            let read: Cloud = serde_json::from_value(text.into()).unwrap();
            assert_eq!(read, cloud);
        }
    }
}

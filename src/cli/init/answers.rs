//! What `init` needs to know, and how each answer is read from text. No secret is among it, only
//! where to find one.

use std::path::PathBuf;

use exfilwatch_connectors::options::Cloud;
use exfilwatch_emitters::options::SyslogTransport;
use exfilwatch_model::{SecretSource, TenantId};
use url::Url;
use uuid::Uuid;

/// Everything the files are written from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answers {
    /// Our alias of the tenant.
    pub(super) tenant: TenantId,
    /// The organisation's domains; empty asks the vendors for them.
    pub(super) internal_domains: Vec<String>,
    /// Office 365.
    pub(super) office365: Option<Office365>,
    /// Google Workspace.
    pub(super) google: Option<Google>,
    /// Where findings go; `None` leaves the main file as it is.
    pub(super) receivers: Option<Receivers>,
}

/// How an Office 365 tenant is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Office365 {
    pub(super) cloud: Cloud,
    pub(super) tenant_id: Uuid,
    /// `None` where the main file's defaults have it.
    pub(super) client_id: Option<Uuid>,
    /// `None` where the main file's defaults have it.
    pub(super) credential: Option<Credential>,
    /// Whether DLP records are read; they want a role of their own.
    pub(super) dlp: bool,
    /// Whether application and credential go into the defaults, for all tenants.
    pub(super) shared_app: bool,
}

/// How the application shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// A client secret.
    Secret(SecretSource),
    /// A certificate, PEM.
    Certificate {
        /// With the private key, unless that is in a file of its own.
        file: PathBuf,
        /// The private key.
        key_file: Option<PathBuf>,
    },
}

/// How a Google Workspace customer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Google {
    /// The administrator for whom is read.
    pub(super) subject: Option<String>,
    pub(super) access: Access,
}

/// How access to Google is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// A service account's JSON key.
    ServiceAccount(SecretSource),
    /// An installed application and an administrator's refresh token.
    Installed {
        client_id: String,
        client_secret: SecretSource,
        token: PathBuf,
    },
}

/// Where findings go, and whether raw records go along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Receivers {
    pub(super) splunk: Option<Splunk>,
    pub(super) syslog: Option<Syslog>,
    pub(super) ndjson: Option<PathBuf>,
    pub(super) stdout: bool,
    /// Whether raw records are forwarded too.
    pub(super) events: bool,
}

/// A Splunk HTTP Event Collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Splunk {
    pub(super) url: Url,
    pub(super) token: SecretSource,
    pub(super) ca_file: Option<PathBuf>,
}

/// A syslog receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Syslog {
    pub(super) address: String,
    pub(super) transport: SyslogTransport,
    pub(super) ca_file: Option<PathBuf>,
}

/// An answer without white space around it; control characters have no place in any.
pub(super) fn text(given: &str) -> Result<String, String> {
    let given = given.trim();
    match given {
        "" => Err("an answer is needed".to_owned()),
        _ if given.chars().any(char::is_control) => Err("holds control characters".to_owned()),
        _ => Ok(given.to_owned()),
    }
}

pub(super) fn tenant(given: &str) -> Result<TenantId, String> {
    TenantId::new(given.trim()).map_err(|error| error.to_string())
}

/// A GUID as Entra shows it.
pub(super) fn guid(given: &str) -> Result<Uuid, String> {
    Uuid::parse_str(given.trim()).map_err(|_| {
        "expected a GUID, as in 01234567-89ab-cdef-0123-456789abcdef (not a domain or a name)"
            .to_owned()
    })
}

pub(super) fn cloud(given: &str) -> Result<Cloud, String> {
    serde_json::from_value(given.trim().to_lowercase().into())
        .map_err(|_| "expected commercial, gcc, gcc-high or dod".to_owned())
}

/// The name of a cloud, as in the configuration.
pub(super) fn cloud_name(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Commercial => "commercial",
        Cloud::Gcc => "gcc",
        Cloud::GccHigh => "gcc-high",
        Cloud::Dod => "dod",
    }
}

/// An administrator's address.
pub(super) fn address(given: &str) -> Result<String, String> {
    let given = text(given)?;
    let parts = given.split_once('@');
    let fine = parts.is_some_and(|(name, domain)| !name.is_empty() && domain.contains('.'));
    if fine && !given.contains(char::is_whitespace) {
        Ok(given)
    } else {
        Err("expected an e-mail address".to_owned())
    }
}

pub(super) fn url(given: &str) -> Result<Url, String> {
    let url = Url::parse(given.trim()).map_err(|error| error.to_string())?;
    let http = matches!(url.scheme(), "https" | "http") && url.host().is_some();
    if !http {
        return Err("expected https://host:port".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user name or password may stand in it".to_owned());
    }
    Ok(url)
}

pub(super) fn host_and_port(given: &str) -> Result<String, String> {
    let given = text(given)?;
    let port = given.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(given),
        _ => Err("expected host and port, as in syslog.example:6514".to_owned()),
    }
}

pub(super) fn transport(given: &str) -> Result<SyslogTransport, String> {
    serde_json::from_value(given.trim().to_lowercase().into())
        .map_err(|_| "expected tls, relp_tls, relp, tcp or udp".to_owned())
}

/// The name of a transport, as in the configuration.
pub(super) fn transport_name(transport: SyslogTransport) -> &'static str {
    match transport {
        SyslogTransport::Udp => "udp",
        SyslogTransport::Tcp => "tcp",
        SyslogTransport::Tls => "tls",
        SyslogTransport::Relp => "relp",
        SyslogTransport::RelpTls => "relp_tls",
    }
}

/// A path, or `env:NAME` for a variable of the environment.
pub(super) fn secret_place(given: &str) -> Result<SecretSource, String> {
    let given = text(given)?;
    match given.strip_prefix("env:") {
        Some(name) => variable(name).map(SecretSource::Env),
        None => Ok(SecretSource::File(given.into())),
    }
}

/// The name of an environment variable.
pub(super) fn variable(given: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let given = given.trim();
    let digit_first = given.starts_with(|c: char| c.is_ascii_digit());
    if given.is_empty() || digit_first || !given.chars().all(plain) {
        return Err("expected the NAME of an environment variable, not its value".to_owned());
    }
    Ok(given.to_owned())
}

pub(super) fn path(given: &str) -> Result<PathBuf, String> {
    text(given).map(PathBuf::from)
}

/// Domains separated by commas or blanks, or `auto`.
pub(super) fn domains(given: &str) -> Result<Vec<String>, String> {
    let given = text(given)?;
    if given == "auto" {
        return Ok(Vec::new());
    }
    given
        .split([',', ' '])
        .filter(|domain| !domain.is_empty())
        .map(domain)
        .collect()
}

/// One domain.
pub(super) fn domain(given: &str) -> Result<String, String> {
    let given = text(given)?;
    if given.contains('@') || !given.contains('.') {
        return Err(format!(
            "{given}: expected the part after the @, as in contoso.example"
        ));
    }
    Ok(given)
}

pub(super) fn yes_or_no(given: &str) -> Result<bool, String> {
    match given.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("answer y or n".to_owned()),
    }
}

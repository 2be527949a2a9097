//! What `doctor` says: checks with a verdict, and the closed list of causes it names.
//!
//! Connectors, emitters and the store each check their own part and speak this vocabulary. A cause
//! is a constant that programs may rely on; the words beside it may change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use serde_json::Value;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, or will, but somebody should know.
    Warning,
    /// It does not work.
    Failed,
    /// Not looked at, because an earlier check failed.
    Skipped,
}

/// Whose matter a cause is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The configuration, and the files it names.
    Configuration,
    /// Credentials and permissions at the vendor.
    Access,
    /// The vendor's service, and the way to it.
    Vendor,
    /// A receiver, and the way to it.
    Receiver,
    /// The state folder and its disk.
    State,
}

macro_rules! causes {
    ($($variant:ident $name:literal $area:ident $meaning:literal $fix:literal;)*) => {
        /// What is wrong, as a constant that stays.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause {
            $(#[doc = $meaning] $variant,)*
        }

        impl Cause {
            /// All causes, by area.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The constant, as it stands in JSON.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whose matter it is.
            pub fn area(self) -> Area {
                match self { $(Self::$variant => Area::$area,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What to do where a check knows nothing better.
            pub fn fix(self) -> &'static str {
                match self { $(Self::$variant => $fix,)* }
            }
        }
    };
}

causes! {
    ConfigurationInvalid "configuration_invalid" Configuration
        "the configuration cannot be used"
        "mend what is named; exfilwatch config check says the same, exfilwatch config schema lists all keys";
    TenantLeftOut "tenant_left_out" Configuration
        "an included file is wrong, so its tenants are not polled"
        "mend that file; exfilwatch config check names the lines";
    SecretMissing "secret_missing" Configuration
        "a secret is not where the configuration says"
        "put the secret there: a file of mode 0600 that its service user owns, or the environment variable";
    SecretReadableByOthers "secret_readable_by_others" Configuration
        "others than its owner may read a secret file, so it is refused"
        "chmod 600 the file, and replace the secret: others may have read it";
    SecretUnusable "secret_unusable" Configuration
        "a secret file holds nothing that can be used"
        "put the secret, key or key file there again, as the vendor gave it";
    InternalDomainsUnknown "internal_domains_unknown" Configuration
        "detectors are on, but nobody said which domains are inside"
        "set internal_domains in the tenant's table to all domains of your users, aliases and onmicrosoft.com included";
    ExceptionLapses "exception_lapses" Configuration
        "an exception from alerts lapses within a week, or has lapsed"
        "have its owner renew it (until) or remove it; docs/TUNING.md says what it does";
    QuotaAboveLimit "quota_above_limit" Configuration
        "requests_per_minute is set above what the vendor allows"
        "lower requests_per_minute: the vendor answers the surplus with refusals, and the data comes later";

    NameNotResolved "name_not_resolved" Vendor
        "the vendor's host name has no address here"
        "mend DNS on this machine, or set proxy on the connector where only a proxy resolves outside names";
    ConnectionRefused "connection_refused" Vendor
        "no TCP connection to the vendor, or to the proxy, can be made"
        "open the way in the firewall (TCP 443 to the host named), or set proxy on the connector";
    ProxyRefused "proxy_refused" Vendor
        "the proxy does not let the connection through"
        "have the proxy allow CONNECT to the host named from this machine without a password";
    TlsIntercepted "tls_intercepted" Vendor
        "the vendor's certificate comes from an issuer that this machine does not trust: a TLS-inspecting proxy stands in between"
        "except the host named from inspection; or, if that is not allowed, set ca_file on the connector to the inspecting proxy's authority";
    TlsExpired "tls_expired" Vendor
        "the vendor's certificate is out of its time"
        "check this machine's clock; if it is right, a proxy or a wrong host stands in between: look at the issuer";
    TlsWrongName "tls_wrong_name" Vendor
        "the certificate is for another host"
        "check DNS, proxy and the overrides api_root, login_root and token_uri: the answer comes from another host";
    TlsFailed "tls_failed" Vendor
        "TLS could not be agreed on"
        "see that nothing on the way cuts or downgrades TLS: 1.2 or newer is needed";
    ClockSkew "clock_skew" Access
        "this machine's clock differs from the vendor's by more than a minute"
        "set the clock by NTP: tokens are refused from a few minutes on";
    VendorNoAnswer "vendor_no_answer" Vendor
        "the vendor's service gave no answer that could be understood"
        "try again; if it stays, look at the vendor's status page and at what stands in between";

    ClientSecretWrong "client_secret_wrong" Access
        "the client secret is not the application's"
        "use the secret's value, not its id";
    ClientSecretExpired "client_secret_expired" Access
        "the client secret has expired"
        "make a new client secret and replace the file; it is read again by itself";
    CertificateNotUploaded "certificate_not_uploaded" Access
        "the application does not know the certificate"
        "upload the certificate to the application's registration, or use the one uploaded";
    ApplicationUnknown "application_unknown" Access
        "the application is not known in this tenant"
        "check client_id and tenant_id, and give admin consent in this tenant";
    ApplicationDisabled "application_disabled" Access
        "the application is disabled in the tenant"
        "enable it in Entra (Enterprise applications), and find out who disabled it";
    TenantUnknown "tenant_unknown" Access
        "tenant_id names no tenant of this cloud"
        "check tenant_id (Entra, Overview) and cloud";
    CloudWrong "cloud_wrong" Access
        "the tenant lives in another cloud"
        "set cloud to the tenant's own: commercial, gcc, gcc-high or dod";
    ConsentMissing "consent_missing" Access
        "no administrator has given consent to the application"
        "an administrator of the tenant must give consent to the application's permissions";
    ConditionalAccess "conditional_access" Access
        "a conditional access policy bars the application"
        "except the application from the policy, or allow this machine's address";
    TokenRefused "token_refused" Access
        "the vendor gives no token, for a reason that has no name here"
        "read the vendor's words; check tenant, client id and credential against the registration";
    RoleMissing "role_missing" Access
        "the token lacks ActivityFeed.Read, without which nothing can be read"
        "grant the application role ActivityFeed.Read on Office 365 Management APIs, with admin consent; it may take minutes";
    RoleDlpMissing "role_dlp_missing" Access
        "the token lacks ActivityFeed.ReadDlp, so DLP.All cannot be read; the rest can"
        "grant ActivityFeed.ReadDlp with admin consent, or take DLP.All out of content_types";
    RolesTooMany "roles_too_many" Access
        "the credential may do more than is needed"
        "take the surplus permissions away: whoever steals the credential has them";
    ArchiveNotPermitted "archive_not_permitted" Access
        "the audit log cannot be searched through Microsoft Graph: gaps and what is older than 7 days stay out of reach"
        "grant AuditLogsQuery.Read.All on Microsoft Graph with admin consent, or set audit_search = \"off\"";
    DelegationMissing "delegation_missing" Access
        "the service account is not delegated the scopes asked for"
        "in the Admin console (Security, API controls, Domain-wide delegation) add the service account's numeric client id with the scope; it may take 24 hours";
    SubjectUnknown "subject_unknown" Access
        "Google does not know the subject, or the service account's key"
        "check that subject is an active account of this organisation, and that the key file is current";
    RefreshTokenDead "refresh_token_dead" Access
        "the refresh token is revoked or has expired"
        "sign in again: exfilwatch auth login; a consent screen in Testing lets tokens die after 7 days";
    PrivilegeMissing "privilege_missing" Access
        "the subject may not read the audit log of this application"
        "give the subject an administrator role with the Reports privilege";
    ApiNotEnabled "api_not_enabled" Access
        "the API is not enabled in the service account's project"
        "enable the API in the Google Cloud project of the service account";
    AccessDenied "access_denied" Access
        "the vendor refuses a call for a reason that has no name here"
        "read the vendor's words; check permissions and consent";

    SubscriptionMissing "subscription_missing" Vendor
        "a content type is not subscribed yet"
        "start exfilwatch run, which starts the subscription; the first content takes up to 12 hours";
    SubscriptionDisabled "subscription_disabled" Vendor
        "a subscription is disabled, so its content is lost meanwhile"
        "find out who disabled it; exfilwatch run starts it again, at most once in 15 minutes";
    AuditingOff "auditing_off" Vendor
        "unified auditing is off in the tenant, or not yet set up"
        "Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true; it takes up to an hour";
    FirstContentPending "first_content_pending" Vendor
        "subscriptions are on, but nothing has been published in the last 24 hours"
        "wait: after a first start up to 12 hours pass; if it stays, check that auditing is on and that there is life in the tenant";
    Throttled "throttled" Vendor
        "the vendor refuses calls because there are too many right now"
        "wait; if it stays, lower requests_per_minute and look for another client of the same tenant or project";

    ReceiverNameNotResolved "receiver_name_not_resolved" Receiver
        "the receiver's host name has no address here"
        "check the host in the emitter's table, and DNS on this machine";
    ReceiverUnreachable "receiver_unreachable" Receiver
        "no connection to the receiver, or to its proxy, can be made"
        "check host and port (HEC: 8088, or 443 in Splunk Cloud; syslog over TLS: 6514), the firewall, and that the receiver runs";
    ReceiverTlsUntrusted "receiver_tls_untrusted" Receiver
        "the receiver's certificate comes from an issuer that is not trusted"
        "set ca_file on the emitter to the authority that signed the receiver's certificate";
    ReceiverTlsExpired "receiver_tls_expired" Receiver
        "the receiver's certificate is out of its time"
        "renew the receiver's certificate; check this machine's clock";
    ReceiverTlsWrongName "receiver_tls_wrong_name" Receiver
        "the receiver's certificate is for another name"
        "use the name that stands in the certificate as host (syslog: or as server_name)";
    ReceiverTlsFailed "receiver_tls_failed" Receiver
        "TLS could not be agreed on with the receiver"
        "check that the port speaks TLS, 1.2 or newer";
    HecTokenWrong "hec_token_wrong" Receiver
        "Splunk does not know the HEC token, or it is disabled"
        "check the HEC token and that it is enabled in Splunk (Settings, Data inputs, HTTP Event Collector)";
    HecIndexRefused "hec_index_refused" Receiver
        "the index does not exist, or the token may not write to it"
        "create the index in Splunk or allow it for the token, or change index in the emitter's table";
    HecAckUnavailable "hec_ack_unavailable" Receiver
        "ack = \"on\", but the token has no indexer acknowledgement"
        "turn indexer acknowledgement on for the token, or set ack = \"auto\" and live with HEC's reply as the receipt";
    HecBusy "hec_busy" Receiver
        "Splunk answers that it is busy or unhealthy"
        "nothing is lost, deliveries wait; look at the indexer's queues";
    NotAHec "not_a_hec" Receiver
        "the address answers, but not as a HEC does"
        "check the URL: the port of HEC (8088, or 443 in Splunk Cloud), not the one of Splunk's web pages";
    NotRelp "not_relp" Receiver
        "the address answers, but does not take syslog by RELP"
        "use the port of rsyslog's imrelp, and transport = \"relp_tls\" where it has TLS";
    FileNotWritable "file_not_writable" Receiver
        "the output file cannot be written"
        "make the folder and let the service user write there";

    StateNotWritable "state_not_writable" State
        "the state folder cannot be written"
        "give the folder to the service user (chown), or name another with state.folder";
    StateSyncFails "state_sync_fails" State
        "the file system of the state folder does not make data durable"
        "put the state folder on a local disk: without fsync nothing can be promised";
    StateOpenToOthers "state_open_to_others" State
        "others than the owner may look into the state folder"
        "chmod 700 the folder; exfilwatch run does so by itself";
    DiskSpaceLow "disk_space_low" State
        "the disk has less room than the outbox may come to need"
        "free space, or lower state.outbox_bytes_max: a full disk stops everything";
    StateLocked "state_locked" State
        "another process holds the state folder, and does not answer"
        "end that process, or give this one another folder with --state";
    StateTooNew "state_too_new" State
        "the state was written by a newer exfilwatch"
        "install the newer exfilwatch again";
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One check and how it came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was looked at: `office365.contoso`, `splunk_hec.main`, `state`. Set by the caller of a
    /// component's checks, who knows the name.
    pub subject: String,
    /// Which check (`dns`, `token`, `subscription`).
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What is wrong, if something is.
    pub cause: Option<Cause>,
    /// What was seen; for a skipped check, why it was skipped. Never a secret.
    pub seen: String,
    /// What to do, in a sentence.
    pub fix: Option<String>,
    /// Figures and lists for programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<&'static str, Value>,
}

impl Check {
    fn new(check: &'static str, verdict: Verdict, cause: Option<Cause>, seen: String) -> Self {
        Self {
            subject: String::new(),
            check,
            verdict,
            cause,
            seen,
            fix: cause.map(|cause| cause.fix().to_owned()),
            facts: BTreeMap::new(),
        }
    }

    /// It is as it should be.
    pub fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, None, seen.into())
    }

    /// It works, but.
    pub fn warning(check: &'static str, cause: Cause, seen: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, Some(cause), seen.into())
    }

    /// It does not work.
    pub fn failed(check: &'static str, cause: Cause, seen: impl Into<String>) -> Self {
        Self::new(check, Verdict::Failed, Some(cause), seen.into())
    }

    /// It was not looked at.
    pub fn skipped(check: &'static str, because: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, None, because.into())
    }

    /// Says what to do better than the cause can.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds a fact.
    pub fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.insert(name, value.into());
        self
    }

    /// Names what was looked at.
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Whether what comes after it in the same line of checks makes no sense.
    pub fn stops(&self) -> bool {
        matches!(self.verdict, Verdict::Failed | Verdict::Skipped)
    }
}

/// A place in the network that a component talks to, as far as a look at the way there needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What it is (`login`, `api`, `receiver`).
    pub name: &'static str,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, if it is spoken there.
    pub tls: Option<Tls>,
    /// Whether HTTP is spoken there: then the time can be asked for.
    pub http: bool,
    /// The way there.
    pub proxy: Way,
}

/// What must hold of the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The name it must be for.
    pub name: String,
    /// PEM file with authorities.
    pub ca_file: Option<PathBuf>,
    /// Whether those of the file are trusted besides the system's, or instead.
    pub besides_system: bool,
    /// Keys it may have: SHA-256 in base64. None: any.
    pub pin_sha256: Vec<String>,
    /// Whether authority, name and dates are looked at.
    pub verifies: bool,
}

/// How a connection leaves this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Directly.
    Direct,
    /// As the system's proxy settings say.
    System,
    /// Through this proxy (a URL).
    Proxy(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_cause_has_a_constant_of_its_own_a_meaning_and_a_fix() {
        let names: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(cause.name().chars().all(plain), "{}", cause.name());
            assert!(
                cause.meaning().len() > 20 && !cause.meaning().ends_with('.'),
                "{}",
                cause.name()
            );
            assert!(cause.fix().len() > 10, "{}", cause.name());
        }
    }

    #[test]
    fn a_check_is_written_with_its_cause_as_a_constant() {
        let check = Check::failed("dns", Cause::NameNotResolved, "no address")
            .about("office365.a")
            .fact("host", "h");
        let json = serde_json::to_value(&check).unwrap();
        assert_eq!(json["cause"], "name_not_resolved");
        assert_eq!(json["verdict"], "failed");
        assert_eq!(json["facts"]["host"], "h");
        assert!(json["fix"].as_str().unwrap().contains("DNS"));
    }
}

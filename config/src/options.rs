//! The tables that belong to no component: tenants, the store's place and size, the server, the
//! run.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use exfilwatch_detectors::tuning::TenantDetectors;
use exfilwatch_model::Domains;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// `[tenants.<alias>]`: an organisation whose audit logs are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// The organisation's own domains; what is below one belongs to it. `"auto"` asks Microsoft Graph
    /// and Google for them; in a list it adds what they say to the others.
    pub internal_domains: InternalDomains,
    /// Domains of partners: outside, but marked as known.
    pub partners: Vec<String>,
    /// What the organisation says of its people, apps and counterparts, in files.
    pub lists: ListsOptions,
    /// What is different for the tenant of what the rules say.
    pub detectors: TenantDetectors,
}

/// `[tenants.<alias>.lists]`: CSV files, each with a line of column names (docs/TUNING.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListsOptions {
    /// People: address, aliases, vip, leaver date, manager, service account, groups.
    pub people_file: Option<PathBuf>,
    /// Apps: client id, name, whether it is approved.
    pub apps_file: Option<PathBuf>,
    /// Domains of partners, added to `partners`.
    pub partners_file: Option<PathBuf>,
    /// Domains at which anyone can have a mailbox, added to the built-in ones.
    pub free_mail_file: Option<PathBuf>,
    /// Domains known to imitate the organisation's.
    pub lookalikes_file: Option<PathBuf>,
    /// Days before the leaver date from which on somebody counts as a leaver.
    #[schemars(range(min = 0, max = 365))]
    pub leaver_days: u32,
}

impl Default for ListsOptions {
    fn default() -> Self {
        Self {
            people_file: None,
            apps_file: None,
            partners_file: None,
            free_mail_file: None,
            lookalikes_file: None,
            leaver_days: exfilwatch_model::lists::LEAVER_DAYS,
        }
    }
}

impl Tenant {
    /// Inside and outside: the domains that are listed, and with `"auto"` those that are `known`
    /// otherwise.
    pub fn domains(&self, known: &[String]) -> Domains {
        let mut internal = self.listed_domains();
        if self.asks_for_domains() {
            internal.extend(known.iter().map(String::as_str));
        }
        let partners: Vec<&str> = self.partners.iter().map(String::as_str).collect();
        Domains::new(&internal, &partners)
    }

    /// The domains the operator has listed.
    pub fn listed_domains(&self) -> Vec<&str> {
        match &self.internal_domains {
            InternalDomains::Auto => Vec::new(),
            InternalDomains::List(list) => {
                let listed = list.iter().map(String::as_str);
                listed.filter(|domain| *domain != AUTO).collect()
            }
        }
    }

    /// Whether the vendors are to be asked.
    pub fn asks_for_domains(&self) -> bool {
        match &self.internal_domains {
            InternalDomains::Auto => true,
            InternalDomains::List(list) => list.iter().any(|domain| domain == AUTO),
        }
    }
}

/// Stands for the domains that the vendors tell.
pub(crate) const AUTO: &str = "auto";

/// Where a tenant's own domains come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InternalDomains {
    /// To be asked of the vendor.
    Auto,
    /// Listed by the operator; `"auto"` among them asks the vendor, too.
    #[serde(untagged)]
    List(Vec<String>),
}

impl Default for InternalDomains {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// By hand, because the derived form cannot say which item of the list is wrong.
impl<'de> Deserialize<'de> for InternalDomains {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AutoOrList;
        impl<'de> Visitor<'de> for AutoOrList {
            type Value = InternalDomains;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of domains, or \"auto\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<InternalDomains, E> {
                if text == AUTO {
                    return Ok(InternalDomains::Auto);
                }
                Err(E::custom("expected a list of domains, or \"auto\""))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<InternalDomains, A::Error> {
                let mut list: Vec<String> = Vec::new();
                while let Some(domain) = items.next_element()? {
                    list.push(domain);
                }
                Ok(InternalDomains::List(list))
            }
        }
        deserializer.deserialize_any(AutoOrList)
    }
}

/// `[state]`: where and how much is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateOptions {
    /// The folder of the store, the outbox and the control socket.
    pub folder: PathBuf,
    /// Bytes the outbox may hold. At three quarters of it fetching pauses for the tenants of lanes that
    /// are far behind, at all of it for everybody.
    #[schemars(range(min = 16_777_216_i64))]
    pub outbox_bytes_max: u64,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("exfilwatch-state"),
            outbox_bytes_max: 10 << 30,
        }
    }
}

/// `[serve]`: health and metrics over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServeOptions {
    /// Address for `/healthz`, `/readyz` and `/metrics`; none, nothing is served. Loopback only.
    #[serde(deserialize_with = "loopback")]
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// A finding that waits longer for its receiver makes `/readyz` say no.
    #[schemars(range(min = 1, max = 604_800))]
    pub finding_wait_seconds_max: u64,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listen: None,
            finding_wait_seconds_max: 300,
        }
    }
}

/// An address that only this machine can reach: what is served needs no password.
fn loopback<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let Some(text) = text else { return Ok(None) };
    let example = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    let address: SocketAddr = text
        .parse()
        .map_err(|_| D::Error::custom(format!("expected address and port, as in {example}")))?;
    if !address.ip().is_loopback() {
        let what = format!("only loopback addresses are served without password, as in {example}");
        return Err(D::Error::custom(what));
    }
    Ok(Some(address))
}

/// `[run]`: the long-running poller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunOptions {
    /// Days that are read back when a stream is seen for the first time; 0 starts at the present.
    #[schemars(range(min = 0, max = 180))]
    pub first_read_days: u32,
    /// Seconds between two heartbeats of a stream, so that the receiver sees our absence.
    #[schemars(range(min = 10, max = 86_400))]
    pub heartbeat_interval_seconds: u64,
    /// Hours without content after which a stream may count as silent (`x.audit.gap`), where its
    /// habit does not allow more: twice its longest pause of the last four weeks.
    #[schemars(range(min = 1, max = 672))]
    pub silence_hours_min: u32,
    /// Hours of silence allowed of a stream whatever its habit, by `tenant/connector/name`; 0 allows
    /// any.
    pub silence_hours: BTreeMap<String, u32>,
    /// Hours before the vendor drops what is in an open gap at which `x.audit.gap` fires.
    #[schemars(range(min = 1, max = 144))]
    pub gap_warning_hours: u32,
    /// Seconds a shutdown waits for what is being committed and delivered.
    #[schemars(range(min = 1, max = 600))]
    pub shutdown_timeout_seconds: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            first_read_days: 7,
            heartbeat_interval_seconds: 300,
            silence_hours_min: 24,
            silence_hours: BTreeMap::new(),
            gap_warning_hours: 24,
            shutdown_timeout_seconds: 30,
        }
    }
}

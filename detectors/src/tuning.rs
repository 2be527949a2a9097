//! What an organisation says of the rules: which run, which only count, how much is too much, and what
//! is agreed.
//!
//! Options only; `rules::tuned` makes rules of them. The same keys stand in `[detectors]`, for all
//! tenants, and in `[tenants.<alias>.detectors]`, for one; the tenant's win.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use exfilwatch_model::lists::Allowed;
use exfilwatch_model::network::Network;
use exfilwatch_model::{Severity, domains};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::DetectorsOptions;
use crate::rules::{Pack, Pattern};

/// Most exceptions of a tenant, `[detectors]` included: each is looked at for each finding.
pub const EXCEPTIONS_MAX: usize = 1_000;

/// What becomes of a rule's findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleMode {
    /// What the rule's `alert` says, whether or not its pack is switched on.
    Alert,
    /// The rule runs and is counted; what it would alert about is a signal, and no part of incidents.
    Shadow,
    /// The rule does not run.
    Off,
}

/// `[….detectors.rules."<name or pattern>"]`: what is different of some rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleTuning {
    /// Alerts, counts only, or does not run.
    pub mode: Option<RuleMode>,
    /// In place of the number that the rule's own condition asks for; further tiers keep their ratio
    /// to it.
    #[schemars(range(min = 1_i64))]
    pub threshold: Option<u64>,
    /// Of all findings, whatever the rule, its tiers, `raise` and `lower` say.
    pub severity: Option<Severity>,
}

/// `[….detectors.allow]`: known and agreed. A finding about nothing else is a step less severe; it
/// is not silenced, which only an exception does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AllowOptions {
    /// Domains, each with all below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Addresses of people, who act or to whom something goes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub people: Vec<String>,
    /// Groups of the people list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Ids of apps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<String>,
    /// Addresses and networks that something is done from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// A value, or several of which any will do. Each may hold `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    pub fn values(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::More(values) => values,
        }
    }
}

/// `[[….detectors.exceptions]]`: findings that somebody answers for, until a day. They are signals
/// with the exception's name, and are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExceptionOptions {
    /// What it is called in findings, metrics and warnings.
    pub name: String,
    /// The detection, by name or pattern.
    pub detection: String,
    /// Values of fields, all of which each event of a finding must have.
    pub fields: BTreeMap<String, OneOrMore>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// The last day (UTC) whose events it covers, as in 2026-12-31; at most a year ahead.
    pub until: String,
}

impl ExceptionOptions {
    /// The last day; `None` where it is no date.
    pub fn last_day(&self) -> Option<NaiveDate> {
        self.until.parse().ok()
    }
}

/// `[tenants.<alias>.detectors]`: what is different for one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantDetectors {
    /// Detections that are not run for the tenant, besides those of `[detectors]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
    /// What detections may alert about, in place of the packs of `[detectors]`.
    pub packs: Option<Vec<Pack>>,
    /// Rules by name or pattern.
    pub rules: BTreeMap<String, RuleTuning>,
    /// What is known and agreed, besides that of `[detectors]`.
    pub allow: AllowOptions,
    /// Further exceptions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<ExceptionOptions>,
}

/// What holds for one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuning {
    /// What may alert.
    pub packs: Vec<Pack>,
    /// Rules by name or pattern, for all tenants.
    pub all: BTreeMap<String, RuleTuning>,
    /// The same, of the tenant; it wins.
    pub own: BTreeMap<String, RuleTuning>,
    /// Detections that are not run for the tenant.
    pub disabled: Vec<String>,
    /// All exceptions.
    pub exceptions: Vec<ExceptionOptions>,
}

impl Tuning {
    /// What `[detectors]` and the tenant's own table say together.
    pub fn new(all: &DetectorsOptions, tenant: Option<&TenantDetectors>) -> Self {
        let none = TenantDetectors::default();
        let own = tenant.unwrap_or(&none);
        let exceptions = all.exceptions.iter().chain(&own.exceptions);
        Self {
            packs: own.packs.clone().unwrap_or_else(|| all.packs.clone()),
            all: all.rules.clone(),
            own: own.rules.clone(),
            disabled: own.disabled.clone(),
            exceptions: exceptions.cloned().collect(),
        }
    }

    /// What is said of a detection: each key by the tenant's table before that of all, and in a table
    /// by the name itself before patterns, and by the longer pattern before the shorter.
    pub fn of(&self, detection: &str) -> RuleTuning {
        let name = detection.to_lowercase();
        let (all, own) = (said(&self.all, &name), said(&self.own, &name));
        let is_disabled = |text: &String| Pattern::new(text).matches(&name);
        let disabled = self.disabled.iter().any(is_disabled);
        RuleTuning {
            mode: own.mode.or(disabled.then_some(RuleMode::Off)).or(all.mode),
            threshold: own.threshold.or(all.threshold),
            severity: own.severity.or(all.severity),
        }
    }

    /// Whether a detection is run at all.
    pub fn runs(&self, detection: &str) -> bool {
        self.of(detection).mode != Some(RuleMode::Off)
    }
}

/// What one table says of a detection; the name is in lower case.
fn said(table: &BTreeMap<String, RuleTuning>, name: &str) -> RuleTuning {
    let named = table
        .iter()
        .filter(|(text, _)| Pattern::new(text).matches(name));
    let mut named: Vec<(&String, &RuleTuning)> = named.collect();
    named.sort_by_key(|(text, _)| (!text.contains('*'), text.len()));
    named
        .into_iter()
        .fold(RuleTuning::default(), |known, (_, one)| RuleTuning {
            mode: one.mode.or(known.mode),
            threshold: one.threshold.or(known.threshold),
            severity: one.severity.or(known.severity),
        })
}

impl AllowOptions {
    /// What in it cannot be meant, each with its key.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let domains = self.domains.iter().filter(|text| !is_domain(text));
        let domains = domains.map(|text| {
            let what = "is no domain such as customer.example, which stands for all below it, too";
            ("domains", format!("{text:?} {what}"))
        });
        let networks = self.addresses.iter().map(|text| network(text));
        let addresses = networks
            .filter_map(Result::err)
            .map(|what| ("addresses", what));
        domains.chain(addresses).collect()
    }
}

fn network(text: &str) -> Result<Network, String> {
    text.trim().to_lowercase().parse()
}

fn is_domain(text: &str) -> bool {
    let domain = domains::clean_domain(text);
    let plain = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    domain.contains('.') && !domain.contains("..") && domain.chars().all(plain)
}

/// The allow-lists of `[detectors]` and of a tenant together. What is at fault is left out:
/// [`AllowOptions::faults`] says it.
pub fn allowed(all: &AllowOptions, tenant: &AllowOptions) -> Allowed {
    let both = |list: fn(&AllowOptions) -> &Vec<String>| list(all).iter().chain(list(tenant));
    let lower = |list| both(list).map(|text| text.trim().to_lowercase());
    let domains = both(|options| &options.domains).filter(|text| is_domain(text));
    let networks = both(|options| &options.addresses).filter_map(|text| network(text).ok());
    Allowed {
        domains: domains.map(|text| domains::clean_domain(text)).collect(),
        people: lower(|options| &options.people).collect(),
        groups: lower(|options| &options.groups).collect(),
        apps: lower(|options| &options.apps).collect(),
        networks: networks.collect(),
    }
}

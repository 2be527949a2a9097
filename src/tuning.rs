//! What tenants say of the rules, brought together: each tenant's own form of the rules, and the
//! exceptions with the days they have left.

use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, Utc};
use exfilwatch_config::Config;
use exfilwatch_detectors::RuleSet;
use exfilwatch_detectors::tuning::Tuning;
use exfilwatch_model::TenantId;
use serde::{Deserialize, Serialize};

use crate::cli::failure::{Code, Failure};
use crate::pipeline::alarm;

/// How far ahead an exception may reach.
const AHEAD_MAX: Days = Days::new(366);
/// Days before its end from which on an exception is warned of.
pub const WARNED_DAYS: i64 = 7;

/// An exception as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whose findings it covers.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// The detection, by name or pattern.
    pub detection: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day whose events it covers.
    pub until: NaiveDate,
}

impl Standing {
    /// Days until it lapses: 0 on its last day, less afterwards.
    pub fn days_left(&self, now: DateTime<Utc>) -> i64 {
        (self.until - now.date_naive()).num_days()
    }

    /// What somebody has to be told, if anything.
    pub fn warning(&self, now: DateTime<Utc>) -> Option<String> {
        let Self {
            tenant,
            name,
            owner,
            until,
            ..
        } = self;
        match self.days_left(now) {
            left if left < 0 => Some(format!(
                "exception {name} of {tenant} has lapsed with {until} and covers nothing that came \
                 after: {owner} should renew or remove it"
            )),
            left if left <= WARNED_DAYS => Some(format!(
                "exception {name} of {tenant} lapses with {until}: {owner} should renew it, or let \
                 it end"
            )),
            _ => None,
        }
    }
}

/// What holds for a tenant.
fn tuning(config: &Config, tenant: &TenantId) -> Tuning {
    let own = config.tenants.get(tenant).map(|options| &options.detectors);
    Tuning::new(&config.detectors, own)
}

/// The rules as a tenant wants them.
pub fn rules_of(
    config: &Config,
    rules: &Arc<RuleSet>,
    tenant: &TenantId,
) -> Result<Arc<RuleSet>, Failure> {
    let tuning = tuning(config, tenant);
    if !config.detectors.enabled {
        return Ok(Arc::clone(rules));
    }
    let tuned = rules.tuned(&tuning, &[alarm::DETECTION]);
    tuned.map(Arc::new).map_err(|problems| {
        let what = format!(
            "what [tenants.{tenant}.detectors] or [detectors] says cannot be used\n{}",
            problems.join("\n")
        );
        Failure::new(Code::Usage, what).help("docs/TUNING.md says how rules are tuned")
    })
}

/// Whether a detection that no rule makes is run for a tenant.
pub fn runs(config: &Config, tenant: &TenantId, detection: &str) -> bool {
    config.detectors.runs(detection) && tuning(config, tenant).runs(detection)
}

/// Checks what all tenants say of the rules, and gives their exceptions.
pub fn check(config: &Config, now: DateTime<Utc>) -> Result<Vec<Standing>, Failure> {
    let rules = crate::app::rules(&config.detectors)?;
    for tenant in config.tenants.keys() {
        rules_of(config, &rules, tenant)?;
    }
    let all = standing(config);
    let latest = now.date_naive().checked_add_days(AHEAD_MAX);
    match all
        .iter()
        .find(|one| latest.is_some_and(|latest| one.until > latest))
    {
        Some(one) => {
            let what = format!(
                "exception {} of {} reaches to {}, more than a year ahead",
                one.name, one.tenant, one.until
            );
            Err(Failure::new(Code::Usage, what).help("set `until` to a day within a year"))
        }
        None => Ok(all),
    }
}

/// The exceptions of all tenants.
pub fn standing(config: &Config) -> Vec<Standing> {
    let of_tenant = |tenant: &TenantId| {
        let exceptions = tuning(config, tenant).exceptions.into_iter();
        let standing = exceptions.filter_map(|one| {
            Some(Standing {
                tenant: tenant.to_string(),
                until: one.last_day()?,
                name: one.name,
                detection: one.detection,
                owner: one.owner,
            })
        });
        standing.collect::<Vec<_>>()
    };
    config.tenants.keys().flat_map(of_tenant).collect()
}

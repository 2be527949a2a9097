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

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

    fn config(until: &str, detection: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("exfilwatch.toml");
        let text = format!(
            "[tenants.contoso]\ninternal_domains = [\"contoso.example\"]\n\
             [[tenants.contoso.detectors.exceptions]]\nname = \"agreed\"\n\
             detection = \"{detection}\"\nfields = {{ actor = \"ann@contoso.example\" }}\n\
             owner = \"ann\"\nreason = \"known\"\nuntil = \"{until}\"\n\
             [connectors.office365.contoso]\ntenant = \"contoso\"\ntenant_id = \"{GUID}\"\n\
             client_id = \"{GUID}\"\nclient_secret = {{ env = \"S\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let sources = exfilwatch_config::Sources {
            file: Some(file),
            ..exfilwatch_config::Sources::default()
        };
        exfilwatch_config::load(&sources).unwrap()
    }

    #[test]
    fn an_exception_is_warned_of_a_week_before_its_end_and_after_it() {
        let config = config("2026-05-10", "o365.*");
        for (now, expected) in [
            ("2026-05-02T23:59:59Z", None),
            ("2026-05-03T00:00:00Z", Some("lapses with 2026-05-10")),
            ("2026-05-10T23:59:59Z", Some("lapses with 2026-05-10")),
            ("2026-05-11T00:00:00Z", Some("has lapsed with 2026-05-10")),
        ] {
            let now = now.parse().unwrap();
            let all = check(&config, now).unwrap();
            let told = all.first().unwrap().warning(now);
            match (&told, expected) {
                (Some(told), Some(expected)) => assert!(told.contains(expected), "{now}: {told}"),
                (told, expected) => assert_eq!(told.as_deref(), expected, "{now}"),
            }
        }
    }

    #[test]
    fn an_exception_ends_within_a_year_and_names_a_rule() {
        let now = "2026-05-01T00:00:00Z".parse().unwrap();
        let refused = |config: &Config| check(config, now).unwrap_err().message;
        assert!(check(&config("2027-05-01", "o365.*"), now).is_ok());
        assert!(refused(&config("2028-05-01", "o365.*")).contains("more than a year ahead"));
        let told = refused(&config("2026-06-01", "o356.*"));
        assert!(told.contains("no rule is called `o356.*`"), "{told}");
    }
}

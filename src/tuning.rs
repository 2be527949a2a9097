//! What tenants say of the rules, brought together: each tenant's own form of the rules, and the
//! exceptions with the days they have left.

use std::collections::BTreeMap;
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

/// What tenants say of the rules, as far as it can be used.
#[derive(Debug, Default)]
pub struct Checked {
    /// The rules as each tenant wants them.
    pub rules: BTreeMap<TenantId, Arc<RuleSet>>,
    /// The exceptions of the same tenants.
    pub exceptions: Vec<Standing>,
    /// Whose cannot be used, and why. One tenant's mistake is no reason to stop another.
    pub broken: BTreeMap<TenantId, String>,
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
    if !config.detectors.enabled {
        return Ok(Arc::clone(rules));
    }
    let place = format!("[tenants.{tenant}.detectors]");
    tuned(rules, &tuning(config, tenant), &place)
}

fn tuned(rules: &Arc<RuleSet>, tuning: &Tuning, place: &str) -> Result<Arc<RuleSet>, Failure> {
    let tuned = rules.tuned(tuning, &[alarm::DETECTION]);
    tuned.map(Arc::new).map_err(|problems| {
        let what = format!("what {place} says cannot be used\n{}", problems.join("\n"));
        Failure::new(Code::Usage, what).help("docs/TUNING.md says how rules are tuned")
    })
}

/// Whether a detection that no rule makes is run for a tenant.
pub fn runs(config: &Config, tenant: &TenantId, detection: &str) -> bool {
    config.detectors.runs(detection) && tuning(config, tenant).runs(detection)
}

/// Checks what is said of the rules. A mistake in `[detectors]` is everybody's, and an error; one that
/// a tenant makes is its own.
pub fn check(
    config: &Config,
    rules: &Arc<RuleSet>,
    now: DateTime<Utc>,
) -> Result<Checked, Failure> {
    if config.detectors.enabled {
        let all = Tuning::new(&config.detectors, None);
        tuned(rules, &all, "[detectors]")?;
        not_too_far(&standing("all tenants", all), now)?;
    }
    let mut checked = Checked::default();
    for tenant in config.tenants.keys() {
        let exceptions = standing(tenant.as_str(), tuning(config, tenant));
        let usable = not_too_far(&exceptions, now);
        match usable.and_then(|()| rules_of(config, rules, tenant)) {
            Ok(rules) => {
                checked.rules.insert(tenant.clone(), rules);
                checked.exceptions.extend(exceptions);
            }
            Err(failure) => {
                checked.broken.insert(tenant.clone(), failure.message);
            }
        }
    }
    Ok(checked)
}

/// No exception reaches further ahead than it may.
fn not_too_far(exceptions: &[Standing], now: DateTime<Utc>) -> Result<(), Failure> {
    let latest = now.date_naive().checked_add_days(AHEAD_MAX);
    let is_beyond = |one: &&Standing| latest.is_some_and(|latest| one.until > latest);
    let Some(one) = exceptions.iter().find(is_beyond) else {
        return Ok(());
    };
    let what = format!(
        "exception {} of {} reaches to {}, more than a year ahead",
        one.name, one.tenant, one.until
    );
    Err(Failure::new(Code::Usage, what).help("set `until` to a day within a year"))
}

/// The exceptions of a tenant.
fn standing(tenant: &str, tuning: Tuning) -> Vec<Standing> {
    let standing = tuning.exceptions.into_iter().filter_map(|one| {
        Some(Standing {
            tenant: tenant.to_owned(),
            until: one.last_day()?,
            name: one.name,
            detection: one.detection,
            owner: one.owner,
        })
    });
    standing.collect()
}

#[cfg(test)]
mod tests {
    use exfilwatch_detectors::tuning::RuleTuning;

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

    fn checked(config: &Config, now: &str) -> Result<Checked, Failure> {
        let rules = crate::app::rules(&config.detectors).unwrap();
        check(config, &rules, now.parse().unwrap())
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
            let all = checked(&config, now).unwrap().exceptions;
            let told = all.first().unwrap().warning(now.parse().unwrap());
            match (&told, expected) {
                (Some(told), Some(expected)) => assert!(told.contains(expected), "{now}: {told}"),
                (told, expected) => assert_eq!(told.as_deref(), expected, "{now}"),
            }
        }
    }

    #[test]
    fn an_exception_ends_within_a_year_and_names_a_rule() {
        let now = "2026-05-01T00:00:00Z";
        let refused = |config: &Config| {
            let checked = checked(config, now).unwrap();
            assert!(checked.rules.is_empty() && checked.exceptions.is_empty());
            checked.broken.into_values().next().unwrap()
        };
        let good = checked(&config("2027-05-01", "o365.*"), now).unwrap();
        assert_eq!((good.rules.len(), good.broken.len()), (1, 0));
        assert!(refused(&config("2028-05-01", "o365.*")).contains("more than a year ahead"));
        let told = refused(&config("2026-06-01", "o356.*"));
        assert!(told.contains("no rule is called `o356.*`"), "{told}");
    }

    #[test]
    fn a_mistake_for_all_tenants_is_an_error_and_one_of_a_tenant_is_its_own() {
        let now = "2026-05-01T00:00:00Z";
        let mut config = config("2026-06-01", "o365.*");
        let contoso = config.tenants.first_key_value().unwrap().1.clone();
        let fabrikam = TenantId::new("fabrikam").unwrap();
        config.tenants.insert(fabrikam.clone(), contoso);
        let own = &mut config.tenants.get_mut(&fabrikam).unwrap().detectors;
        own.rules
            .insert("no.such.rule".into(), RuleTuning::default());
        let tuned = checked(&config, now).unwrap();
        assert_eq!(tuned.broken.keys().collect::<Vec<_>>(), [&fabrikam]);
        assert!(tuned.broken[&fabrikam].contains("[tenants.fabrikam.detectors]"));
        assert_eq!(tuned.rules.len(), 1);
        assert!(tuned.exceptions.iter().all(|one| one.tenant == "contoso"));

        let all = &mut config.detectors.rules;
        all.insert("no.such.rule".into(), RuleTuning::default());
        let told = checked(&config, now).unwrap_err().message;
        assert!(
            told.contains("[detectors]") && !told.contains("tenants"),
            "{told}"
        );
    }
}

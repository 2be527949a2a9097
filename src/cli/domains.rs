//! Which domains a tenant has, before it is polled: asks where the configuration says so, and where
//! none is known shows those that its records name.

use exfilwatch_config::{Config, ConnectorOptions};
use exfilwatch_model::TenantId;
use futures::StreamExt;

use crate::app::Tenants;
use crate::cli::failure::{Code, Failure};
use crate::pipeline::own_domains::{TenantDomains, Unsaid};
use crate::pipeline::sample;
use crate::pipeline::worker::Shared;

/// Tenants asked about, or looked at, at the same time.
const AT_ONCE: usize = 16;
/// Domains shown of a tenant.
const SHOWN_MAX: usize = 20;
/// Share of the most frequent domain's records from which another is proposed, too, in percent.
const PROPOSED_PERCENT: usize = 10;

/// Sees to it that what is inside can be told from what is outside, with detectors on. A tenant that
/// lists no domain and does not have them asked for is an error, and so is it when no tenant at all
/// knows one. A tenant whose vendors do not say waits, and the others go on.
pub(crate) async fn demand(
    config: &Config,
    tenants: &Tenants,
    shared: &Shared,
) -> Result<(), Failure> {
    let unsaid = ask_where_unknown(tenants, shared).await;
    if !config.detectors.enabled {
        return Ok(());
    }
    let without: Vec<&TenantId> = tenants
        .domains
        .iter()
        .filter(|domains| domains.unknown())
        .map(TenantDomains::tenant)
        .collect();
    let asked = |tenant: &TenantId| {
        let options = config.tenants.get(tenant);
        options.is_some_and(exfilwatch_config::Tenant::asks_for_domains)
    };
    let all = without.len() == tenants.domains.len();
    if without.is_empty() || (!all && without.iter().all(|tenant| asked(tenant))) {
        for tenant in without {
            tracing::error!(%tenant, "no internal domain is known: the tenant is polled as soon as one is");
        }
        return Ok(());
    }
    let names: Vec<&str> = without.iter().map(|tenant| tenant.as_str()).collect();
    let mut what = format!("no internal domains are known for: {}", names.join(", "));
    for (tenant, unsaid) in &unsaid {
        what += &format!("\n{tenant}: {} does not say: {}", unsaid.kind, unsaid.why);
    }
    let looks = without
        .iter()
        .map(|tenant| look(config, tenants, tenant, shared));
    let looks: Vec<String> = futures::stream::iter(looks)
        .buffered(AT_ONCE)
        .collect()
        .await;
    Err(Failure::new(Code::Usage, what).help(looks.join("\n")))
}

async fn ask_where_unknown(tenants: &Tenants, shared: &Shared) -> Vec<(TenantId, Unsaid)> {
    let unknown = tenants
        .domains
        .iter()
        .filter(|domains| domains.asks() && domains.unknown());
    let answers = unknown.map(|domains| async move {
        let unsaid = domains.ask(shared).await;
        let tenant = domains.tenant().clone();
        let still = domains.unknown();
        let unsaid = unsaid.into_iter().filter(move |_| still);
        unsaid.map(move |unsaid| (tenant.clone(), unsaid)).collect()
    });
    let answers: Vec<Vec<(TenantId, Unsaid)>> = futures::stream::iter(answers)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    answers.into_iter().flatten().collect()
}

/// Domains of a tenant's records, with a line to paste.
async fn look(config: &Config, tenants: &Tenants, tenant: &TenantId, shared: &Shared) -> String {
    let worker = tenants
        .workers
        .iter()
        .find(|worker| worker.step.memory.tenant() == tenant);
    let connectors = worker.map(|worker| worker.connectors.clone());
    let now = shared.clock.now();
    let seen = sample::actor_domains(&connectors.unwrap_or_default(), now).await;
    proposal(tenant, &seen, &named(config, tenant))
}

/// Domains that the configuration itself names (subjects of Google connectors).
fn named(config: &Config, tenant: &TenantId) -> Vec<String> {
    let connectors = config.connectors.iter();
    let own = connectors.filter(|connector| connector.tenant == *tenant);
    let subjects = own.filter_map(|connector| match &connector.options {
        ConnectorOptions::GoogleWorkspace(options) => options.subject.clone(),
        ConnectorOptions::Office365(_) => None,
    });
    subjects
        .filter_map(|subject| Some(subject.rsplit_once('@')?.1.to_owned()))
        .collect()
}

fn proposal(tenant: &TenantId, seen: &[(String, usize)], named: &[String]) -> String {
    let most = seen.first().map_or(0, |(_, count)| *count);
    let frequent = seen
        .iter()
        .filter(|(_, count)| count * 100 >= most * PROPOSED_PERCENT)
        .map(|(domain, _)| domain.clone());
    let mut proposed: Vec<String> = frequent.take(SHOWN_MAX).collect();
    for domain in named {
        if !proposed.contains(domain) {
            proposed.push(domain.clone());
        }
    }
    let listed: Vec<String> = proposed
        .iter()
        .map(|domain| format!("{domain:?}"))
        .collect();
    let line = match listed.as_slice() {
        [] => "internal_domains = [\"…\"]".to_owned(),
        listed => format!("internal_domains = [{}]", listed.join(", ")),
    };
    let shown: Vec<String> = seen
        .iter()
        .take(SHOWN_MAX)
        .map(|(domain, count)| format!("{domain} ({count})"))
        .collect();
    let found = match shown.as_slice() {
        [] => "its records could not be looked at, or name nobody".to_owned(),
        shown => format!(
            "those who act in its records of a day are at: {}",
            shown.join(", ")
        ),
    };
    format!(
        "{tenant}: {found}\nstrike out what is not the organisation's own, add what is missing \
         (every alias and onmicrosoft.com domain), and set\n\n[tenants.{tenant}]\n{line}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frequent_is_proposed_and_what_is_rare_is_only_shown() {
        let tenant = TenantId::new("contoso").unwrap();
        let seen = [
            ("contoso.example".to_owned(), 700),
            ("contoso.onmicrosoft.com".to_owned(), 90),
            ("visitor.example".to_owned(), 2),
        ];
        let text = proposal(&tenant, &seen, &["contoso.example".to_owned()]);
        let line = "\n[tenants.contoso]\ninternal_domains = [\"contoso.example\", \
                    \"contoso.onmicrosoft.com\"]\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("visitor.example (2)"), "{text}");
    }

    #[test]
    fn without_records_the_configuration_may_name_one() {
        let tenant = TenantId::new("contoso").unwrap();
        let text = proposal(&tenant, &[], &["contoso.example".to_owned()]);
        assert!(
            text.contains("internal_domains = [\"contoso.example\"]"),
            "{text}"
        );
        let text = proposal(&tenant, &[], &[]);
        assert!(text.contains("internal_domains = [\"…\"]"), "{text}");
    }
}

//! `doctor`: everything that could be wrong, looked at in order. Each check says how it came out,
//! names the cause by a constant, says what was seen and what to do.
//!
//! Nothing is changed and nothing is delivered. What is peculiar to a vendor, a receiver or the store
//! is looked at in its own crate; here are the way there, the order and the words.

pub(super) mod access;
mod certificate;
mod network;
mod receivers;
pub(super) mod report;
mod secrets;
mod tls;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_config::{Config, ConnectorConfig};
use exfilwatch_connectors::Depth;
use exfilwatch_model::diagnosis::{Cause, Check};
use exfilwatch_model::{Clock, TenantId};
use exfilwatch_state::Budget;
use futures::StreamExt;

use crate::app;
use crate::cli::Common;
use crate::cli::clock::{self, ClockArgs};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::serve::control::{self, Request};
use crate::tuning;

/// Connectors and emitters looked at at the same time.
const AT_ONCE: usize = 8;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Only this tenant's connectors.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Lists the causes there are, as Markdown, and does nothing else.
    #[arg(long)]
    causes: bool,
    #[command(flatten)]
    clock: ClockArgs,
}

/// Runs the command. Ends with the exit code of the first check that failed.
pub(crate) async fn run(args: DoctorArgs, common: Common) -> Outcome {
    if args.causes {
        return report::causes();
    }
    let clock = clock::from_args(&args.clock);
    let checks = match app::load_to_detect(&common, true) {
        Ok(config) => look(&config, &args, &clock).await?,
        Err(failure) => unusable(failure),
    };
    report::print(&checks, common.output)
}

/// There is no configuration: that is all that can be said.
fn unusable(failure: Failure) -> Vec<Check> {
    let mut check = Check::failed(
        "configuration",
        Cause::ConfigurationInvalid,
        failure.message,
    )
    .about("configuration");
    if let Some(help) = failure.help {
        check = check.fix(help);
    }
    let rest = ["connectors", "receivers", "state"].into_iter();
    let rest = rest.map(|what| {
        Check::skipped(what, "the configuration cannot be used").about("configuration")
    });
    std::iter::once(check).chain(rest).collect()
}

async fn look(
    config: &Config,
    args: &DoctorArgs,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Check>, Failure> {
    if let Some(tenant) = &args.tenant
        && !config.tenants.contains_key(tenant)
    {
        let what = format!("there is no tenant {tenant} in the configuration");
        return Err(Failure::new(Code::Usage, what).help("exfilwatch config check lists them"));
    }
    let is_meant = |tenant: &TenantId| args.tenant.as_ref().is_none_or(|wanted| wanted == tenant);
    let mut checks = configuration(config);
    checks.extend(exceptions(config, clock.now()));
    let looking = &access::Looking::new(config, clock);
    let connectors: Vec<&ConnectorConfig> = config
        .connectors
        .iter()
        .filter(|connector| is_meant(&connector.tenant))
        .collect();
    let looks = connectors
        .into_iter()
        .map(|connector| looking.all_of(connector, Depth::Service));
    checks.extend(together(looks).await);
    let tenants = config.tenants.keys().filter(|tenant| is_meant(tenant));
    let looks = tenants.map(|tenant| domains(config, tenant, looking));
    checks.extend(together(looks).await);
    let looks = config
        .emitters
        .iter()
        .map(|emitter| receivers::look(emitter, clock));
    checks.extend(together(looks).await);
    checks.extend(state(config).await);
    Ok(checks)
}

/// Several at a time, in their own order.
async fn together(looks: impl Iterator<Item = impl Future<Output = Vec<Check>>>) -> Vec<Check> {
    let all: Vec<Vec<Check>> = futures::stream::iter(looks)
        .buffered(AT_ONCE)
        .collect()
        .await;
    all.into_iter().flatten().collect()
}

fn configuration(config: &Config) -> Vec<Check> {
    let about = |check: Check| check.about("configuration");
    let (connectors, emitters) = (config.connectors.len(), config.emitters.len());
    let seen = format!(
        "tenants: {}, connectors: {connectors}, emitters: {emitters}",
        config.tenants.len()
    );
    let mut checks = vec![match (connectors, emitters) {
        (0, _) => Check::failed("configuration", Cause::ConfigurationInvalid, seen)
            .fix("nothing is polled: add a [connectors.…] table, or run exfilwatch init"),
        (_, 0) => Check::failed("configuration", Cause::ConfigurationInvalid, seen)
            .fix("nothing is delivered: add an [emitters.…] table"),
        _ => Check::ok("configuration", seen),
    }];
    for disabled in &config.disabled {
        let problems: Vec<String> = disabled.problems.iter().map(ToString::to_string).collect();
        checks.push(Check::failed(
            "configuration",
            Cause::TenantLeftOut,
            problems.join("; "),
        ));
    }
    checks.into_iter().map(about).collect()
}

/// What tenants say of the rules can be used, and no exception is near its end.
fn exceptions(config: &Config, now: DateTime<Utc>) -> Vec<Check> {
    let rules = app::rules(&config.detectors);
    let tuned = rules.and_then(|rules| tuning::check(config, &rules, now));
    let check = match tuned {
        Err(failure) => Check::failed("exceptions", Cause::ConfigurationInvalid, failure.message),
        Ok(tuned) if !tuned.broken.is_empty() => {
            let broken = tuned.broken.iter();
            let broken: Vec<String> = broken
                .map(|(tenant, why)| format!("{tenant}: {why}"))
                .collect();
            Check::failed("exceptions", Cause::TenantLeftOut, broken.join("; "))
        }
        Ok(tuned) => {
            let all = tuned.exceptions;
            let warnings: Vec<String> = all.iter().filter_map(|one| one.warning(now)).collect();
            if warnings.is_empty() {
                Check::ok("exceptions", all.len().to_string())
            } else {
                Check::warning("exceptions", Cause::ExceptionLapses, warnings.join("; "))
            }
        }
    };
    vec![check.about("configuration")]
}

/// Whether inside can be told from outside. With `"auto"` the vendors are asked.
async fn domains(config: &Config, tenant: &TenantId, looking: &access::Looking<'_>) -> Vec<Check> {
    let name = "internal_domains";
    let Some(options) = config.tenants.get(tenant) else {
        return Vec::new();
    };
    let check = if !config.detectors.enabled {
        Check::ok(name, "detectors are off")
    } else if !options.asks_for_domains() {
        match options.listed_domains().len() {
            0 => Check::failed(
                name,
                Cause::InternalDomainsUnknown,
                "no internal domain is configured",
            ),
            _ => Check::ok(name, "configured"),
        }
    } else {
        let (told, refused) = looking.own_domains(tenant).await;
        let known = told.len() + options.listed_domains().len();
        let seen = match refused.as_slice() {
            [] => format!("the vendors name {}", told.join(", ")),
            refused => format!(
                "the vendors name {} domains; not all say: {}",
                told.len(),
                refused.join("; ")
            ),
        };
        match (known, refused.is_empty()) {
            (0, _) => Check::failed(name, Cause::InternalDomainsUnknown, seen),
            (_, false) => Check::warning(name, Cause::InternalDomainsUnknown, seen),
            (_, true) => Check::ok(name, seen),
        }
    };
    vec![check.about(format!("tenants.{tenant}"))]
}

async fn state(config: &Config) -> Vec<Check> {
    let folder = &config.state.folder;
    let answers = control::ask::<serde_json::Value>(folder, &Request::Status).await;
    let budget = Budget {
        outbox_bytes_max: config.state.outbox_bytes_max,
    };
    let checks = exfilwatch_state::diagnose(folder, budget, matches!(answers, Ok(Some(_))));
    checks
        .into_iter()
        .map(|check| check.about("state"))
        .collect()
}

//! SIGHUP: reads the configuration again while `run` goes on, and puts its lists, tuning and rules in
//! place of those so far. What cannot be used changes nothing, and is told.
//!
//! Connectors, emitters and everything else of the process stay as they were started.

use std::collections::BTreeMap;
use std::sync::Arc;

use exfilwatch_config::Config;
use exfilwatch_detectors::RuleSet;
use exfilwatch_model::TenantId;
use tokio::signal::unix::Signal;

use crate::app::{self, Tenants};
use crate::cli::Common;
use crate::cli::failure::{Code, Failure};
use crate::pipeline::own_domains::Configured;
use crate::pipeline::worker::Shared;
use crate::tuning::{self, Standing};

/// Sections of which a change is heard without a restart.
const RELOADED: [&str; 2] = ["detectors.", "tenants."];

/// What it takes to read the configuration again.
#[derive(Debug, Clone)]
pub(crate) struct Reload {
    pub(crate) common: Common,
    pub(crate) tenants: Tenants,
    pub(crate) shared: Shared,
    /// Effective values that need a restart, by path.
    started_with: BTreeMap<String, String>,
}

/// What a tenant is given.
struct Next {
    domains: Configured,
    rules: Arc<RuleSet>,
    raises_alarms: bool,
}

/// All that a configuration changes, checked.
struct Prepared {
    tenants: BTreeMap<TenantId, Next>,
    exceptions: Vec<Standing>,
    /// Tenants that stay as they are, and why.
    left: Vec<String>,
    /// What a restart would change.
    restart: Vec<String>,
}

impl Reload {
    pub(crate) fn new(common: Common, config: &Config, tenants: Tenants, shared: Shared) -> Self {
        Self {
            started_with: fixed(config),
            common,
            tenants,
            shared,
        }
    }

    /// Reloads at each signal, until shutdown.
    pub(crate) async fn serve(self, mut hangup: Signal) {
        loop {
            let more = tokio::select! {
                more = hangup.recv() => more,
                () = self.shared.shutdown.cancelled() => None,
            };
            if more.is_none() {
                return;
            }
            self.reload().await;
        }
    }

    async fn reload(&self) {
        let this = self.clone();
        // Files are read and rules compiled beside the tasks that poll.
        let prepared = tokio::task::spawn_blocking(move || this.prepare()).await;
        let prepared = prepared.unwrap_or_else(|error| {
            let what = "reading the configuration again";
            Err(Failure::caused(Code::Usage, what, &error))
        });
        let now = self.shared.clock.now();
        let outcome = prepared.map(|prepared| self.apply(prepared));
        match outcome {
            Ok(left) if left.is_empty() => {
                tracing::info!(
                    "the configuration was read again: lists, tuning and rules hold from now on"
                );
                self.shared.watch.reloaded(now, None);
            }
            Ok(left) => {
                let why = left.join("; ");
                tracing::error!(%why, "the configuration was read again, but not for all tenants");
                self.shared.watch.reloaded(now, Some(why));
            }
            Err(failure) => {
                let why = failure.message;
                tracing::error!(%why, "the configuration was read again and cannot be used: what held so far stays");
                self.shared.watch.reloaded(now, Some(why));
            }
        }
    }

    fn prepare(&self) -> Result<Prepared, Failure> {
        let config = app::load_to_detect(&self.common, true)?;
        let rules = app::rules(&config.detectors)?;
        let mut tuned = tuning::check(&config, &rules, self.shared.clock.now())?;
        let mut tenants = BTreeMap::new();
        let mut left = Vec::new();
        for domains in &self.tenants.domains {
            let tenant = domains.tenant();
            if !config.tenants.contains_key(tenant) {
                left.push(without(&config, tenant));
                continue;
            }
            if let Some(why) = tuned.broken.get(tenant) {
                left.push(format!("tenant {tenant}: {why}"));
                continue;
            }
            let next = Next {
                domains: app::configured_domains(&config, tenant),
                rules: tuned.rules.remove(tenant).unwrap_or_else(|| rules.clone()),
                raises_alarms: app::raises_alarms(&config, tenant),
            };
            // Who can be asked is known from the start on: to begin with "auto" needs a restart.
            let knows_none = next.domains.listed.is_empty() && !domains.asks();
            if config.detectors.enabled && knows_none {
                left.push(format!(
                    "tenant {tenant}: internal_domains lists no domain, and nobody is asked; a restart is needed \
                     where it says \"auto\" now"
                ));
                continue;
            }
            tenants.insert(tenant.clone(), next);
        }
        // One that was left out at the start is begun by a restart only.
        let connected = config.connectors.iter().map(|one| &one.tenant);
        let is_polled =
            |name: &TenantId| self.tenants.domains.iter().any(|one| one.tenant() == name);
        let begun_later = connected
            .filter(|name| config.tenants.contains_key(*name) && !is_polled(name))
            .map(|name| format!("tenants.{name}"));
        let now = fixed(&config);
        let differs = |path: &&String| self.started_with.get(*path) != now.get(*path);
        let mut restart: Vec<String> = now
            .keys()
            .chain(self.started_with.keys())
            .filter(differs)
            .cloned()
            .chain(begun_later)
            .collect();
        restart.sort();
        restart.dedup();
        Ok(Prepared {
            tenants,
            exceptions: tuned.exceptions,
            left,
            restart,
        })
    }

    /// Puts it in place, and gives those for whom nothing changed.
    fn apply(&self, mut prepared: Prepared) -> Vec<String> {
        if !prepared.restart.is_empty() {
            let keys = prepared.restart.join(", ");
            tracing::warn!(%keys, "these have changed too, and need a restart");
        }
        // Those of tenants that stay as they are stay, too.
        let mut exceptions = self.shared.watch.copy().exceptions;
        for (worker, domains) in self.tenants.workers.iter().zip(&self.tenants.domains) {
            let Some(next) = prepared.tenants.remove(domains.tenant()) else {
                continue;
            };
            // One tenant's trouble is no reason to stop half way.
            if let Err(error) = domains.reconfigure(next.domains, &*self.shared.store) {
                prepared
                    .left
                    .push(format!("tenant {}: {error}", domains.tenant()));
                continue;
            }
            worker.step.rules.set(next.rules);
            worker.alarms.switch(next.raises_alarms);
            let is_its = |one: &Standing| one.tenant == domains.tenant().as_str();
            exceptions.retain(|one| !is_its(one));
            exceptions.extend(
                prepared
                    .exceptions
                    .iter()
                    .filter(|one| is_its(one))
                    .cloned(),
            );
        }
        self.shared.watch.exceptions(exceptions);
        prepared.left
    }
}

/// Why a tenant that is polled is not in the configuration.
fn without(config: &Config, tenant: &TenantId) -> String {
    let names = |name: &String| name == tenant.as_str();
    let disabled = config
        .disabled
        .iter()
        .find(|file| file.tenants.iter().any(names));
    match disabled.and_then(|file| file.problems.first()) {
        Some(problem) => format!("tenant {tenant}: {problem}"),
        None => format!("tenant {tenant} is no longer in the configuration; a restart ends it"),
    }
}

/// Effective values that are read at the start only.
fn fixed(config: &Config) -> BTreeMap<String, String> {
    let shown = config.show().iter();
    let fixed = shown.filter(|shown| !RELOADED.iter().any(|part| shown.path.starts_with(part)));
    fixed
        .map(|shown| (shown.path.clone(), shown.value.to_string()))
        .collect()
}

//! One connector: the way to the vendor, its credential, and what its own crate looks at.

use std::sync::Arc;

use exfilwatch_config::{Config, ConnectorConfig};
use exfilwatch_connectors::kernel::surroundings::{BuildError, Surroundings};
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_connectors::{Connector, Depth};
use exfilwatch_model::diagnosis::{Cause, Check};
use exfilwatch_model::{Clock, TenantId};

use super::network::{self, Side};
use super::secrets::{self, Hidden};
use crate::app;
use crate::cli::environment;
use crate::pipeline::own_domains;

/// What all connectors are looked at with.
pub(crate) struct Looking<'a> {
    config: &'a Config,
    clock: Arc<dyn Clock>,
    surroundings: Surroundings,
}

impl<'a> Looking<'a> {
    /// Over the network, with the process's environment.
    pub(crate) fn new(config: &'a Config, clock: &Arc<dyn Clock>) -> Self {
        Self {
            config,
            clock: clock.clone(),
            surroundings: Surroundings::new(clock.clone(), Arc::new(environment::variable)),
        }
    }

    /// The way there, then the connector itself. What lies behind a broken place is skipped.
    pub(super) async fn all_of(&self, connector: &ConnectorConfig, depth: Depth) -> Vec<Check> {
        let options = app::options_of(connector);
        let mut checks = Vec::new();
        let mut broken = None;
        let mut endpoints = options.endpoints();
        endpoints.dedup_by(|later, first| (&later.host, later.port) == (&first.host, first.port));
        for endpoint in endpoints {
            let seen = network::look(&endpoint, Side::Vendor, &*self.clock).await;
            if seen.iter().any(Check::stops) && broken.is_none() {
                broken = Some(format!("the way to {} is not open", endpoint.host));
            }
            checks.extend(seen);
        }
        // A clock that is wrong is told, and more is seen by going on: the connectors follow the
        // vendor's.
        if let Some(why) = broken.filter(|_| !only_the_clock(&checks)) {
            checks.push(options.quota());
            checks.extend(self.credential(connector).1);
            checks.push(Check::skipped("token", why));
            return named(connector, checks);
        }
        let mut checks = named(connector, checks);
        checks.extend(self.at_connector(connector, depth).await);
        checks
    }

    /// The credential and what the connector's own crate looks at.
    pub(crate) async fn at_connector(
        &self,
        connector: &ConnectorConfig,
        depth: Depth,
    ) -> Vec<Check> {
        let options = app::options_of(connector);
        let (built, mut checks, hidden) = self.credential(connector);
        if let Some(built) = built {
            checks.extend(built.diagnose(depth).await);
        }
        if checks.iter().all(|check| check.check != "token") {
            checks.push(Check::skipped(
                "token",
                "there is no credential to ask with",
            ));
        }
        if depth == Depth::Service {
            checks.push(options.quota());
        }
        let checks = checks.into_iter().map(|mut check| {
            if check.check == "token" {
                check = check.fact("credential", options.credential());
            }
            hidden.redact(check)
        });
        named(connector, checks.collect())
    }

    /// The domains that a tenant's vendors name, and why others do not.
    pub(super) async fn own_domains(&self, tenant: &TenantId) -> (Vec<String>, Vec<String>) {
        let connectors = self.config.connectors.iter();
        let (mut told, mut refused) = (Vec::new(), Vec::new());
        for connector in connectors.filter(|connector| connector.tenant == *tenant) {
            match app::options_of(connector).own_domains(&self.surroundings) {
                Ok(source) => match own_domains::ask_one(&*source).await {
                    (_, Ok(domains)) => told.extend(domains),
                    (kind, Err(why)) => refused.push(format!("{kind}: {why}")),
                },
                Err(error) => refused.push(format!("{}: {error}", connector.name)),
            }
        }
        (told, refused)
    }

    /// Whether its secrets are there and fit for building the connector. Sends nothing.
    fn credential(
        &self,
        connector: &ConnectorConfig,
    ) -> (Option<Arc<dyn Connector>>, Vec<Check>, Hidden) {
        let options = app::options_of(connector);
        let mut checks = Vec::new();
        let mut hidden = Hidden::default();
        for (key, source) in options.secrets() {
            match secrets::of_connector(key, &source) {
                Ok(secret) => hidden.add(&secret),
                Err(check) => checks.push(check),
            }
        }
        if !checks.is_empty() {
            return (None, checks, hidden);
        }
        match self.build(connector) {
            Ok(built) => {
                checks.push(Check::ok("credential", options.credential()));
                (Some(built), checks, hidden)
            }
            Err(error) => (None, vec![unbuildable(&error)], hidden),
        }
    }

    fn build(&self, connector: &ConnectorConfig) -> Result<Arc<dyn Connector>, BuildError> {
        let tenant = self.config.tenants.get(&connector.tenant);
        let domains = tenant.map(|tenant| tenant.domains(&[]));
        let readers = app::readers_of(domains.unwrap_or_default());
        app::build(connector, &readers, &self.surroundings)
    }
}

/// `kind.name` before every check.
fn named(connector: &ConnectorConfig, checks: Vec<Check>) -> Vec<Check> {
    let subject = format!("{}.{}", kind(&app::options_of(connector)), connector.name);
    let about = |check: Check| check.about(subject.clone());
    checks.into_iter().map(about).collect()
}

fn kind(options: &AnyOptions) -> &'static str {
    match options {
        AnyOptions::Office365(_) => "office365",
        AnyOptions::GoogleWorkspace(_) => "google_workspace",
    }
}

fn only_the_clock(checks: &[Check]) -> bool {
    let stopping = checks.iter().filter(|check| check.stops());
    stopping.into_iter().all(|check| check.check == "clock")
}

fn unbuildable(error: &BuildError) -> Check {
    let cause = match error {
        BuildError::Secret { .. } | BuildError::Key { .. } => Cause::SecretUnusable,
        _ => Cause::ConfigurationInvalid,
    };
    Check::failed("credential", cause, error.to_string())
}

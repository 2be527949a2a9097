//! One emitter: the way to its receiver, its secret, and what its own crate looks at.

use std::sync::Arc;

use exfilwatch_config::EmitterConfig;
use exfilwatch_emitters::Environment;
use exfilwatch_emitters::options::EmitterOptions;
use exfilwatch_model::Clock;
use exfilwatch_model::diagnosis::{Cause, Check};

use super::network::{self, Side};
use super::secrets::{self, Hidden};
use crate::cli::environment;

/// Looks at one emitter.
pub(super) async fn look(emitter: &EmitterConfig, clock: &Arc<dyn Clock>) -> Vec<Check> {
    let name = format!("{}.{}", emitter.options.kind(), emitter.name);
    let mut checks = Vec::new();
    let endpoints = emitter.options.endpoints();
    for endpoint in &endpoints {
        checks.extend(network::look(endpoint, Side::Receiver, &**clock).await);
    }
    if endpoints.is_empty() && matches!(emitter.options, EmitterOptions::Syslog(_)) {
        let seen = "UDP: nobody can tell from here whether it is received";
        checks.push(Check::ok("tcp", seen));
    }
    let is_open = !checks.iter().any(Check::stops);
    let mut hidden = Hidden::default();
    let mut has_credential = true;
    for (key, source) in emitter.options.secrets() {
        match secrets::of_emitter(key, &source) {
            Ok(secret) => {
                hidden.add(&secret);
                checks.push(Check::ok("credential", format!("{key} is there")));
            }
            Err(check) => {
                has_credential = false;
                checks.push(check);
            }
        }
    }
    checks.extend(itself(emitter, &name, clock, (is_open, has_credential)).await);
    checks
        .into_iter()
        .map(|check| hidden.redact(check).about(name.clone()))
        .collect()
}

async fn itself(
    emitter: &EmitterConfig,
    name: &str,
    clock: &Arc<dyn Clock>,
    (is_open, has_credential): (bool, bool),
) -> Vec<Check> {
    let is_hec = matches!(emitter.options, EmitterOptions::SplunkHec(_));
    if !has_credential || !is_open {
        let why = if is_open {
            "there is no token to ask with"
        } else {
            "the way to the receiver is not open"
        };
        if !is_hec {
            return Vec::new();
        }
        return ["receiver_token", "receiver_index", "receiver_ack"]
            .map(|check| Check::skipped(check, why))
            .into();
    }
    let environment = Environment::new(environment::variable);
    let build = exfilwatch_emitters::registry::build;
    match build(name, &emitter.options, &environment, clock.clone()) {
        Ok(built) => built.diagnose().await,
        Err(error) => {
            let is_file = matches!(
                emitter.options,
                EmitterOptions::Ndjson(_) | EmitterOptions::Archive(_)
            );
            let cause = if is_file {
                Cause::FileNotWritable
            } else {
                Cause::ConfigurationInvalid
            };
            vec![Check::failed("receiver_options", cause, error.to_string())]
        }
    }
}

//! Kinds of emitters by name: a new one is a line in each of these three places.

use std::sync::Arc;

use exfilwatch_model::Clock;
use serde::{Deserialize, Deserializer};

use crate::archive::Archive;
use crate::contract::Emitter;
use crate::environment::Environment;
use crate::error::BuildError;
use crate::fields::{self, Masked};
use crate::ndjson::{Ndjson, Stdout};
use crate::options::EmitterOptions;
use crate::splunk_hec::{self, SplunkHec};
use crate::syslog::{self, Syslog};
use crate::webhook::{self, Webhook};

/// The kinds, as they stand in `[emitters.KIND.NAME]`.
pub const KINDS: [&str; 6] = [
    "splunk_hec",
    "syslog",
    "ndjson",
    "stdout",
    "archive",
    "webhook",
];

/// Why options of a kind could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E: std::error::Error> {
    /// There is no such kind.
    #[error(transparent)]
    Kind(BuildError),
    /// The table is not what the kind expects.
    #[error(transparent)]
    Table(E),
}

/// Reads the options of a kind. The deserializer's own error is kept, with its place.
pub fn read<'de, D: Deserializer<'de>>(
    kind: &str,
    table: D,
) -> Result<EmitterOptions, ReadError<D::Error>>
where
    D::Error: std::error::Error,
{
    let options = match kind {
        "splunk_hec" => Deserialize::deserialize(table).map(EmitterOptions::SplunkHec),
        "syslog" => Deserialize::deserialize(table).map(EmitterOptions::Syslog),
        "ndjson" => Deserialize::deserialize(table).map(EmitterOptions::Ndjson),
        "stdout" => Deserialize::deserialize(table).map(EmitterOptions::Stdout),
        "archive" => Deserialize::deserialize(table).map(EmitterOptions::Archive),
        "webhook" => Deserialize::deserialize(table).map(EmitterOptions::Webhook),
        _ => {
            return Err(ReadError::Kind(BuildError::UnknownKind {
                kind: kind.to_owned(),
                known: KINDS.join(", "),
            }));
        }
    };
    options.map_err(ReadError::Table)
}

/// What is wrong with options by themselves: no secret, certificate or file is looked at.
pub fn check(name: &str, options: &EmitterOptions) -> Result<(), BuildError> {
    if let Some(fields) = options.fields() {
        fields::check(name, fields, options.send())?;
    }
    match options {
        EmitterOptions::SplunkHec(options) => splunk_hec::check(name, options),
        EmitterOptions::Syslog(options) => syslog::check(name, options),
        EmitterOptions::Webhook(options) => webhook::check(name, options),
        EmitterOptions::Ndjson(_) | EmitterOptions::Archive(_) | EmitterOptions::Stdout(_) => {
            Ok(())
        }
    }
}

/// Makes the emitter `name` (`KIND.NAME`, as it is shown and keyed). Reads secrets and
/// certificates; connects to nothing. `clock` is only for dates a receiver names.
pub fn build(
    name: &str,
    options: &EmitterOptions,
    environment: &Environment,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Emitter>, BuildError> {
    let policy = match options.fields() {
        Some(fields) => fields::policy(name, fields, options.send(), environment)?,
        None => None,
    };
    let emitter: Arc<dyn Emitter> = match options {
        EmitterOptions::SplunkHec(options) => {
            Arc::new(SplunkHec::new(name, options, environment, clock)?)
        }
        EmitterOptions::Syslog(options) => Arc::new(Syslog::new(name, options)?),
        EmitterOptions::Ndjson(options) => Arc::new(Ndjson::new(name, options, clock)?),
        EmitterOptions::Archive(options) => Arc::new(Archive::new(name, options, clock)?),
        EmitterOptions::Webhook(options) => {
            Arc::new(Webhook::new(name, options, environment, clock)?)
        }
        EmitterOptions::Stdout(_) => Arc::new(Stdout::new(name, std::io::stdout())),
    };
    Ok(match policy {
        Some(policy) => Arc::new(Masked::new(emitter, policy)),
        None => emitter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_model::SystemClock;

    #[test]
    fn an_unknown_kind_is_answered_with_the_known_ones() {
        let error = read("splunk", serde_json::json!({})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "emitter kind \"splunk\" is not known: use splunk_hec, syslog, ndjson, stdout, archive, webhook"
        );
    }

    #[test]
    fn every_kind_is_read_and_built_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::new(|name| {
            Some(match name {
                "U" => "https://hooks.example/services/T/B".to_owned(),
                "S" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
                _ => "token".to_owned(),
            })
        });
        for kind in KINDS {
            let table = match kind {
                "splunk_hec" => serde_json::json!({
                    "url": "https://splunk.example:8088",
                    "token": { "env": "T" },
                }),
                "webhook" => serde_json::json!({
                    "url_secret": { "env": "U" },
                    "secret": { "env": "S" },
                }),
                "syslog" => serde_json::json!({ "address": "[::1]:514", "transport": "udp" }),
                "ndjson" => serde_json::json!({ "path": folder.path().join("x.ndjson") }),
                "archive" => serde_json::json!({ "folder": folder.path().join("archive") }),
                _ => serde_json::json!({}),
            };
            let options = read(kind, table).unwrap();
            assert_eq!(options.kind(), kind);
            assert!(!options.send().is_empty());
            let name = format!("{kind}.main");
            let clock = Arc::new(SystemClock);
            let emitter = build(&name, &options, &environment, clock).unwrap();
            assert_eq!(emitter.name(), name);
            let (items, bytes) = emitter.batch_max();
            assert!(items > 0 && bytes > 0);
        }
    }

    #[test]
    fn what_cannot_work_is_said_when_it_is_built() {
        let unset = Environment::new(|_| None);
        for (kind, table, said) in [
            (
                "splunk_hec",
                serde_json::json!({ "url": "https://s.example", "token": { "env": "T" } }),
                "splunk_hec.main: token: environment variable T is not set",
            ),
            (
                "syslog",
                serde_json::json!({ "address": "s.example", "transport": "tcp" }),
                "syslog.main: address: write host:port",
            ),
            (
                "ndjson",
                serde_json::json!({ "path": "no/such/folder/x.ndjson" }),
                "ndjson.main: path: no/such/folder is no folder",
            ),
            (
                "archive",
                serde_json::json!({ "folder": "no/such/archive" }),
                "archive.main: folder: no/such is no folder",
            ),
        ] {
            let options = read(kind, table).unwrap();
            let name = format!("{kind}.main");
            let error = build(&name, &options, &unset, Arc::new(SystemClock)).unwrap_err();
            assert_eq!(error.to_string(), said);
        }
    }
}

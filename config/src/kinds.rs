//! The kinds of connectors and emitters: their names as table names, and how each is read.
//!
//! A new kind is one line in [`CONNECTORS`] or [`EMITTERS`]; schema, defaults and messages follow.

use std::time::Duration;

use exfilwatch_connectors::options::{GoogleWorkspaceOptions, Office365Options};
use exfilwatch_emitters::options::{
    ArchiveOptions, EmitterOptions, NdjsonOptions, SplunkHecOptions, StdoutOptions, SyslogOptions,
    WebhookOptions,
};
use exfilwatch_model::TenantId;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::collect::{Reading, faults_of_part, read};
use crate::origin::Problem;
use crate::shape::Shape;

/// Seconds between two polls where neither connector nor defaults say otherwise.
const POLL_INTERVAL_SECONDS: u64 = 60;

/// The options of one connector, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectorOptions {
    /// `[connectors.office365.NAME]`
    Office365(Office365Options),
    /// `[connectors.google_workspace.NAME]`
    GoogleWorkspace(GoogleWorkspaceOptions),
}

impl ConnectorOptions {
    /// The kind, as in the table name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Office365(_) => "office365",
            Self::GoogleWorkspace(_) => "google_workspace",
        }
    }

    /// The alias of the tenant it reads.
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Office365(options) => options.tenant.as_ref(),
            Self::GoogleWorkspace(options) => options.tenant.as_ref(),
        }
    }

    /// Time between two polls of a stream.
    pub fn poll_interval(&self) -> Duration {
        let seconds = match self {
            Self::Office365(options) => options.poll_interval_seconds,
            Self::GoogleWorkspace(options) => options.poll_interval_seconds,
        };
        Duration::from_secs(seconds.unwrap_or(POLL_INTERVAL_SECONDS))
    }
}

/// A kind and how its tables are read. `T` is the enum over all kinds of the section.
pub(crate) struct Kind<T> {
    /// The table name.
    pub(crate) name: &'static str,
    /// Members of which a table has only one. One of its own displaces those of the defaults.
    pub(crate) one_of: &'static [&'static str],
    pub(crate) shape: fn() -> Shape,
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    pub(crate) read: fn(&Shape, Reading<'_>) -> ReadResult<T>,
    /// What is wrong with `[defaults.<kind>]`.
    pub(crate) faults_of_defaults: fn(&Shape, Reading<'_>) -> Vec<Problem>,
}

/// Options, and all effective values as JSON for `config show`.
pub(crate) struct Read<T> {
    pub(crate) options: T,
    pub(crate) values: Json,
}

/// What reading a table gives: its options, or all that is wrong.
pub(crate) type ReadResult<T> = Result<Read<T>, Vec<Problem>>;

/// The kinds of connectors.
pub(crate) const CONNECTORS: &[Kind<ConnectorOptions>] = &[
    Kind {
        name: "office365",
        one_of: &["certificate", "client_secret"],
        shape: Shape::of::<Office365Options>,
        schema: Office365Options::json_schema,
        read: |shape, reading| read_as(shape, reading, ConnectorOptions::Office365),
        faults_of_defaults: faults_of_part::<Office365Options>,
    },
    Kind {
        name: "google_workspace",
        one_of: &["service_account", "refresh_token"],
        shape: Shape::of::<GoogleWorkspaceOptions>,
        schema: GoogleWorkspaceOptions::json_schema,
        read: |shape, reading| read_as(shape, reading, ConnectorOptions::GoogleWorkspace),
        faults_of_defaults: faults_of_part::<GoogleWorkspaceOptions>,
    },
];

/// The kinds of emitters.
pub(crate) const EMITTERS: &[Kind<EmitterOptions>] = &[
    Kind {
        name: "splunk_hec",
        one_of: &[],
        shape: Shape::of::<SplunkHecOptions>,
        schema: SplunkHecOptions::json_schema,
        read: |shape, reading| read_as(shape, reading, EmitterOptions::SplunkHec),
        faults_of_defaults: faults_of_part::<SplunkHecOptions>,
    },
    Kind {
        name: "syslog",
        one_of: &[],
        shape: Shape::of::<SyslogOptions>,
        schema: SyslogOptions::json_schema,
        read: |shape, reading| read_as(shape, reading, EmitterOptions::Syslog),
        faults_of_defaults: faults_of_part::<SyslogOptions>,
    },
    Kind {
        name: "ndjson",
        one_of: &[],
        shape: Shape::of::<NdjsonOptions>,
        schema: NdjsonOptions::json_schema,
        read: |shape, reading| read_as(shape, reading, EmitterOptions::Ndjson),
        faults_of_defaults: faults_of_part::<NdjsonOptions>,
    },
    Kind {
        name: "stdout",
        one_of: &[],
        shape: Shape::of::<StdoutOptions>,
        schema: StdoutOptions::json_schema,
        read: |shape, reading| read_as(shape, reading, EmitterOptions::Stdout),
        faults_of_defaults: faults_of_part::<StdoutOptions>,
    },
    Kind {
        name: "archive",
        one_of: &[],
        shape: Shape::of::<ArchiveOptions>,
        schema: ArchiveOptions::json_schema,
        read: |shape, reading| read_as(shape, reading, EmitterOptions::Archive),
        faults_of_defaults: faults_of_part::<ArchiveOptions>,
    },
    Kind {
        name: "webhook",
        one_of: &["url", "url_secret"],
        shape: Shape::of::<WebhookOptions>,
        schema: WebhookOptions::json_schema,
        read: |shape, reading| read_as(shape, reading, EmitterOptions::Webhook),
        faults_of_defaults: faults_of_part::<WebhookOptions>,
    },
];

/// Names of the kinds of a section.
pub(crate) fn names<T>(kinds: &[Kind<T>]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.name).collect()
}

fn read_as<O: DeserializeOwned + Serialize, T>(
    shape: &Shape,
    reading: Reading<'_>,
    wrap: fn(O) -> T,
) -> ReadResult<T> {
    let options: O = read(shape, reading)?;
    Ok(Read {
        values: as_json(&options),
        options: wrap(options),
    })
}

/// Effective values as JSON. Options are plain data, so this cannot fail; were it to, nothing is
/// shown.
pub(crate) fn as_json<O: Serialize>(options: &O) -> Json {
    serde_json::to_value(options).unwrap_or_default()
}

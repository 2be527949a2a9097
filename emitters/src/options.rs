//! What can be configured of an emitter. Pure data: the configuration reads it, the constructors
//! check it.
//!
//! `{tenant}` in an index, host name or file name stands for the tenant's alias. Nothing else is
//! replaced, and nothing a record says ever enters these.

use std::path::PathBuf;

use exfilwatch_model::{Kind, SecretSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::fields::FieldsOptions;
use crate::routing::{FilterOptions, Routes, is_default};

/// One configured emitter, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmitterOptions {
    /// `[emitters.splunk_hec.NAME]`
    SplunkHec(Box<SplunkHecOptions>),
    /// `[emitters.syslog.NAME]`
    Syslog(SyslogOptions),
    /// `[emitters.ndjson.NAME]`
    Ndjson(NdjsonOptions),
    /// `[emitters.stdout.NAME]`
    Stdout(StdoutOptions),
    /// `[emitters.archive.NAME]`
    Archive(ArchiveOptions),
    /// `[emitters.webhook.NAME]`
    Webhook(WebhookOptions),
}

impl EmitterOptions {
    /// The name of the kind in configuration and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SplunkHec(_) => "splunk_hec",
            Self::Syslog(_) => "syslog",
            Self::Ndjson(_) => "ndjson",
            Self::Stdout(_) => "stdout",
            Self::Archive(_) => "archive",
            Self::Webhook(_) => "webhook",
        }
    }

    /// The kinds of items it takes.
    pub fn send(&self) -> &[Kind] {
        match self {
            Self::SplunkHec(options) => &options.send,
            Self::Syslog(options) => &options.send,
            Self::Ndjson(options) => &options.send,
            Self::Stdout(options) => &options.send,
            Self::Archive(_) => &[Kind::Events],
            Self::Webhook(options) => &options.send,
        }
    }

    /// What of the personal data in findings goes out; `None` for the archive, which has records only
    /// and is where a pseudonym is looked up.
    pub fn fields(&self) -> Option<&FieldsOptions> {
        match self {
            Self::SplunkHec(options) => Some(&options.fields),
            Self::Syslog(options) => Some(&options.fields),
            Self::Ndjson(options) => Some(&options.fields),
            Self::Stdout(options) => Some(&options.fields),
            Self::Archive(_) => None,
            Self::Webhook(options) => Some(&options.fields),
        }
    }
}

/// A Splunk HTTP Event Collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplunkHecOptions {
    /// Scheme, host and port (`https://splunk.example:8088`). A path is a prefix of
    /// `/services/collector/event`, for proxies.
    #[schemars(with = "String")]
    pub url: Url,
    /// Further addresses of the same deployment (other heavy forwarders, indexers), with the same token.
    /// Batches take turns; one that does not answer is left alone for half a minute.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub more_urls: Vec<Url>,
    /// The HEC token.
    pub token: SecretSource,
    /// What to send: `findings`, `signals`, `internal`, `events`.
    #[serde(default = "findings_and_internal")]
    pub send: Vec<Kind>,
    /// What of the personal data in findings and signals goes out.
    #[serde(default, skip_serializing_if = "FieldsOptions::is_default")]
    pub fields: FieldsOptions,
    /// Index by kind; without one the token's default index is used.
    #[serde(default)]
    pub index: IndexOptions,
    /// `host` of the envelope.
    #[serde(default = "tenant")]
    pub host: String,
    /// `source` of the envelope.
    #[serde(default = "exfilwatch")]
    pub source: String,
    /// In which form raw records are sent.
    #[serde(default)]
    pub shape: Shape,
    /// Whether bodies above 1 KiB are compressed.
    #[serde(default = "yes")]
    pub gzip: bool,
    /// Whether to wait for the indexer's acknowledgement.
    #[serde(default)]
    pub ack: Ack,
    /// Without an acknowledgement for so long, the batch is sent again on a new channel.
    #[serde(default = "ack_timeout_seconds")]
    #[schemars(range(min = 10, max = 600))]
    pub ack_timeout_seconds: u64,
    /// Longest pause between two questions for acknowledgements; the first come sooner.
    #[serde(default = "ack_poll_seconds_max")]
    #[schemars(range(min = 1, max = 300))]
    pub ack_poll_seconds_max: u64,
    /// Most events in a request.
    #[serde(default = "batch_events_max")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_events_max: usize,
    /// Most bytes in a request, before compression; a larger single event goes alone.
    #[serde(default = "batch_bytes_max")]
    #[schemars(range(min = 10_000, max = 800_000_000))]
    pub batch_bytes_max: usize,
    /// Largest event; a larger one is quarantined. Splunk's own limit is 5 MB (`maxEventSize`).
    #[serde(default = "event_bytes_max")]
    #[schemars(range(min = 10_000, max = 800_000_000))]
    pub event_bytes_max: usize,
    /// Time for connection and TLS.
    #[serde(default = "connect_timeout_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub connect_timeout_seconds: u64,
    /// Time for a whole request.
    #[serde(default = "request_timeout_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub request_timeout_seconds: u64,
    /// PEM file with a certificate authority that is trusted besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// The name in the receiver's certificate, where it is not the host of the URL.
    pub server_name: Option<String>,
    /// Keys the receiver may have: SHA-256 of the certificate's public key in base64, as `doctor` shows
    /// it. Alone they replace authority, name and dates; with `ca_file` or `server_name` they are asked
    /// for as well. Of an `https` proxy authority and name are asked, no pin.
    #[serde(default)]
    pub pin_sha256: Vec<String>,
    /// Takes any certificate: whoever is on the way can read the token and the events. Said at every
    /// start. A pin is as little work.
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// PEM file with our own certificate, for receivers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its key; only its owner may read it.
    pub key_file: Option<PathBuf>,
    /// HTTP proxy (`http://proxy.example:3128`). The environment's proxy settings are not used.
    #[schemars(with = "Option<String>")]
    pub proxy: Option<Url>,
    /// What goes to it; without one, all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: FilterOptions,
    /// Ways to it with conditions of their own; without any there is one that takes all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Routes,
}

/// Splunk index by kind of item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexOptions {
    /// For findings.
    pub findings: Option<String>,
    /// For signals; without one, that of findings.
    pub signals: Option<String>,
    /// For our own state.
    pub internal: Option<String>,
    /// For raw records.
    pub events: Option<String>,
    /// For risk events (`exfilwatch:risk`), one for each new finding and signal, in the fields that
    /// risk-based alerting reads: the name of the risk index. None are sent without one.
    pub risk: Option<String>,
}

/// The form of raw records in Splunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// As Splunk's add-ons expect it: office365 records untouched, google records once per element
    /// of `events[]`.
    #[default]
    Ta,
    /// Every record as the vendor wrote it.
    Vendor,
    /// Google records as the retired G Suite app wrote them, for detections that still read
    /// `gsuite:drive:json`: flat, parameters by name, once per element of `events[]`.
    LegacyGsuite,
}

/// Indexer acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// Waited for where the receiver offers it.
    #[default]
    Auto,
    /// Expected; its absence is reported.
    On,
    /// Never waited for: the receiver's "200" is the receipt.
    Off,
}

/// A syslog receiver, RFC 5424.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogOptions {
    /// Host and port (`syslog.example:6514`).
    pub address: String,
    /// How lines travel. Only RELP is confirmed by the receiver itself; TCP and TLS are by its
    /// kernel, UDP by nobody.
    pub transport: SyslogTransport,
    /// What stands in the line: `json` (structured data and OCSF or the record), or `cef`.
    #[serde(default)]
    pub format: SyslogFormat,
    /// What to send: `findings`, `signals`, `internal`, `events`.
    #[serde(default = "findings")]
    pub send: Vec<Kind>,
    /// What of the personal data in findings and signals goes out.
    #[serde(default, skip_serializing_if = "FieldsOptions::is_default")]
    pub fields: FieldsOptions,
    /// Facility of the priority.
    #[serde(default)]
    pub facility: Facility,
    /// APP-NAME, printable ASCII.
    #[serde(default = "exfilwatch")]
    pub app_name: String,
    /// HOSTNAME, printable ASCII.
    #[serde(default = "tenant")]
    pub hostname: String,
    /// Largest line in bytes; longer ones are shortened in a fixed order and marked.
    #[serde(default = "message_bytes_max")]
    #[schemars(range(min = 2_048, max = 65_000))]
    pub message_bytes_max: usize,
    /// TLS: PEM file with the certificate authorities to trust instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// TLS: the name in the receiver's certificate, when it is not the host of `address`.
    pub server_name: Option<String>,
    /// TLS: PEM file with our own certificate, for receivers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// TLS: PEM file with its key; only its owner may read it.
    pub key_file: Option<PathBuf>,
    /// Time for connection and TLS.
    #[serde(default = "connect_timeout_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub connect_timeout_seconds: u64,
    /// Time for writing a batch; with RELP, time without any answer.
    #[serde(default = "request_timeout_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub write_timeout_seconds: u64,
    /// What goes to it; without one, all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: FilterOptions,
    /// Ways to it with conditions of their own; without any there is one that takes all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Routes,
}

/// How syslog lines travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyslogTransport {
    /// One line a datagram; lossy.
    Udp,
    /// Octet counting (RFC 6587).
    Tcp,
    /// Octet counting over TLS (RFC 5425).
    Tls,
    /// Every line confirmed by the receiver (rsyslog's `imrelp`).
    Relp,
    /// The same over TLS.
    RelpTls,
}

impl SyslogTransport {
    /// Whether the connection is encrypted.
    pub fn is_tls(self) -> bool {
        match self {
            Self::Tls | Self::RelpTls => true,
            Self::Udp | Self::Tcp | Self::Relp => false,
        }
    }
}

/// What stands in a syslog line behind its header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// Structured data with the flat keys, and JSON: the OCSF document, or the record.
    #[default]
    Json,
    /// ArcSight's Common Event Format; raw records have none.
    Cef,
}

/// Syslog facilities that a program outside the operating system may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of RFC 5424, table 1")]
pub enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Audit = 13,
    #[default]
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

impl Facility {
    /// The number of RFC 5424.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A file of JSON lines: findings as OCSF documents, raw records as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NdjsonOptions {
    /// The file. `{tenant}` and `{kind}` in it give a file for each.
    pub path: PathBuf,
    /// What to send: `findings`, `signals`, `internal`, `events`.
    #[serde(default = "findings")]
    pub send: Vec<Kind>,
    /// What of the personal data in findings and signals goes out.
    #[serde(default, skip_serializing_if = "FieldsOptions::is_default")]
    pub fields: FieldsOptions,
    /// A file that would grow beyond so many bytes is put aside, under its name and the time, and a new one begun.
    #[schemars(range(min = 4_096))]
    pub rotate_bytes: Option<u64>,
    /// A file whose last lines are of an earlier period of so many seconds is put aside; periods begin with
    /// the day (UTC) where they divide it, 86,400 is daily.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub rotate_seconds: Option<u64>,
    /// Files put aside that are kept, of each file; the oldest go.
    #[serde(default = "files_max")]
    #[schemars(range(min = 1, max = 100_000))]
    pub files_max: usize,
    /// Whether files put aside are compressed (zstd).
    #[serde(default)]
    pub compress: bool,
    /// What goes to it; without one, all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: FilterOptions,
    /// Ways to it with conditions of their own; without any there is one that takes all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Routes,
}

/// JSON lines on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutOptions {
    /// What to send: `findings`, `signals`, `internal`, `events`.
    #[serde(default = "findings")]
    pub send: Vec<Kind>,
    /// What of the personal data in findings and signals goes out.
    #[serde(default, skip_serializing_if = "FieldsOptions::is_default")]
    pub fields: FieldsOptions,
    /// What goes to it; without one, all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: FilterOptions,
    /// Ways to it with conditions of their own; without any there is one that takes all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Routes,
}

/// Raw records in compressed files by hour, tenant and stream, which `events` searches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveOptions {
    /// The folder, made where it does not exist; nothing else should lie in it.
    pub folder: PathBuf,
    /// Days that are kept, by event time.
    #[serde(default = "archive_days_max")]
    #[schemars(range(min = 1, max = 3_650))]
    pub days_max: u32,
    /// Bytes that are kept; the oldest hours go first, of whichever tenant.
    #[serde(default = "archive_bytes_max")]
    #[schemars(range(min = 1_048_576))]
    pub bytes_max: u64,
    /// What goes to it; without one, all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: FilterOptions,
    /// Ways to it with conditions of their own; without any there is one that takes all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Routes,
}

fn files_max() -> usize {
    30
}

fn archive_days_max() -> u32 {
    90
}

fn archive_bytes_max() -> u64 {
    50 << 30
}

/// A webhook: one signed request per item, or a message for Slack or a Teams workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookOptions {
    /// Where to send to.
    #[schemars(with = "Option<String>")]
    pub url: Option<Url>,
    /// The same, where the URL is itself a secret (Slack, Teams).
    pub url_secret: Option<SecretSource>,
    /// What a request holds: `standard`, `slack`, `teams`.
    #[serde(default)]
    pub format: WebhookFormat,
    /// Signing secret, `whsec_` and base64. `standard` needs one.
    pub secret: Option<SecretSource>,
    /// What to send: `findings`, `signals`; `standard` also `internal`, `events`.
    #[serde(default = "findings")]
    pub send: Vec<Kind>,
    /// What of the personal data in findings and signals goes out.
    #[serde(default, skip_serializing_if = "FieldsOptions::is_default")]
    pub fields: FieldsOptions,
    /// Time for connection and TLS.
    #[serde(default = "connect_timeout_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub connect_timeout_seconds: u64,
    /// Time for a whole request.
    #[serde(default = "request_timeout_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub request_timeout_seconds: u64,
    /// PEM file with a certificate authority that is trusted besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// The name in the receiver's certificate, where it is not the host of the URL.
    pub server_name: Option<String>,
    /// Keys the receiver may have; see `splunk_hec`.
    #[serde(default)]
    pub pin_sha256: Vec<String>,
    /// PEM file with our own certificate, for receivers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its key; only its owner may read it.
    pub key_file: Option<PathBuf>,
    /// HTTP proxy (`http://proxy.example:3128`). The environment's proxy settings are not used.
    #[schemars(with = "Option<String>")]
    pub proxy: Option<Url>,
    /// What goes to it; without one, all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: FilterOptions,
    /// Ways to it with conditions of their own; without any there is one that takes all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Routes,
}

/// What a webhook's request holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFormat {
    /// An event of Standard Webhooks: `type`, `timestamp`, `data` (the OCSF document, or the record).
    #[default]
    Standard,
    /// A message for a Slack incoming webhook.
    Slack,
    /// An Adaptive Card for a Teams workflow ("When a Teams webhook request is received").
    Teams,
}

fn findings() -> Vec<Kind> {
    vec![Kind::Findings]
}

fn findings_and_internal() -> Vec<Kind> {
    vec![Kind::Findings, Kind::Internal]
}

fn tenant() -> String {
    "{tenant}".to_owned()
}

fn exfilwatch() -> String {
    "exfilwatch".to_owned()
}

fn yes() -> bool {
    true
}

fn ack_timeout_seconds() -> u64 {
    300
}

fn ack_poll_seconds_max() -> u64 {
    10
}

fn batch_events_max() -> usize {
    1_000
}

fn batch_bytes_max() -> usize {
    900_000
}

fn event_bytes_max() -> usize {
    5_000_000
}

fn connect_timeout_seconds() -> u64 {
    5
}

fn request_timeout_seconds() -> u64 {
    30
}

fn message_bytes_max() -> usize {
    8_192
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_configuration_has_the_documented_defaults() {
        let json = r#"{"url":"https://splunk.example:8088","token":{"env":"HEC_TOKEN"}}"#;
        let options: SplunkHecOptions = serde_json::from_str(json).unwrap();
        assert_eq!(options.send, [Kind::Findings, Kind::Internal]);
        assert_eq!(options.ack, Ack::Auto);
        assert_eq!(options.shape, Shape::Ta);
        assert_eq!(options.batch_bytes_max, 900_000);
        assert!(options.gzip);
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let json = r#"{"url":"https://s.example","token":{"env":"T"},"tokn":1}"#;
        let error = serde_json::from_str::<SplunkHecOptions>(json).unwrap_err();
        assert!(error.to_string().contains("tokn"), "{error}");
    }

    #[test]
    fn facilities_have_the_numbers_of_the_standard() {
        assert_eq!(Facility::default().number(), 16);
        assert_eq!(Facility::Local7.number(), 23);
    }
}

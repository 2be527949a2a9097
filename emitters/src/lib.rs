//! Emitters: Splunk HEC, syslog, NDJSON; and the formats of a finding.
//!
//! An emitter takes batches of envelopes and resolves when the receiver has them for good. It
//! retries nothing by itself: it says what the lane must do ([`EmitError`]).
#![warn(missing_docs)]

mod address_guard;
mod appending;
pub mod archive;
mod contract;
mod cookies;
mod diagnosis;
mod environment;
mod error;
pub mod fields;
pub mod formats;
mod http_client;
mod ndjson;
pub mod options;
mod progress;
pub mod registry;
mod routing;
pub mod splunk_hec;
mod syslog;
mod tls;
mod webhook;

pub use contract::{Count, Delivered, EmitError, Emitter, HeldItem, Kept, Refusal};
pub use environment::{Environment, SecretError};
pub use error::BuildError;
pub use fields::{FieldAction, FieldsOptions};
pub use ndjson::{Ndjson, Stdout};
pub use options::{
    Ack, ArchiveOptions, EmitterOptions, Facility, IndexOptions, NdjsonOptions, Shape,
    SplunkHecOptions, StdoutOptions, SyslogFormat, SyslogOptions, SyslogTransport, WebhookFormat,
    WebhookOptions,
};
pub use routing::{FilterOptions, ROUTE_ALL, RouteOptions, Routes};
pub use splunk_hec::SplunkHec;
pub use syslog::Syslog;
pub use tls::{Certificate, element, pin_of, verifier_for};
pub use webhook::Webhook;

//! Emitters: Splunk HEC, syslog, NDJSON; and the formats of a finding.
#![warn(missing_docs)]

mod contract;
pub mod formats;
pub mod options;

pub use contract::{Delivered, EmitError, Emitter, Refusal};
pub use options::{
    Ack, EmitterOptions, Facility, IndexOptions, NdjsonOptions, Shape, SplunkHecOptions,
    StdoutOptions, SyslogOptions, SyslogTransport,
};

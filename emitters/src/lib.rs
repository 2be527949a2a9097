//! Emitters: Splunk HEC, syslog, NDJSON; and the formats of a finding.
#![warn(missing_docs)]

mod contract;

pub use contract::{Delivered, EmitError, Emitter, Refusal};

//! Detectors: Sigma rules, windows and native detections over normalised events.
#![warn(missing_docs)]

mod contract;
mod options;

pub use contract::{BadState, Detector, Interest, StateChange};
pub use options::DetectorsOptions;

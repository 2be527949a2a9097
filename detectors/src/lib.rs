//! Detectors: Sigma rules, windows and native detections over normalised events.
#![warn(missing_docs)]

mod contract;

pub use contract::{BadState, Detector, Interest, StateChange};

//! Detectors: Sigma rules, windows and native detections over normalised events.
//!
//! A rule file (`rules/`, read by [`RuleSet`]) is compiled once and shared. An [`Engine`] runs all
//! rules for one tenant and job; [`updates`] decides which of the findings it gives are sent again.
//! Nothing here does I/O (but for reading rule files), and nothing reads a clock.
#![warn(missing_docs)]

pub mod cases;
pub mod catalogue;
mod contract;
mod engine;
mod native;
mod options;
mod rules;
pub mod tuning;
pub mod updates;

pub use contract::{BadState, Baseline, Counters, Detector, Interest, Shown, StateChange};
pub use engine::Engine;
pub use options::DetectorsOptions;
pub use rules::{
    Alert, Anchor, Case, Counted, Equivalents, Expectation, Kind, Need, PLACEHOLDER, Pack, Remark,
    Repeat, Rule, RuleError, RuleSet, Skipped, SourceFile, Stock, StockState, Tier, VaryTime,
    Weight, embedded, folder, lint, mapped, stock,
};

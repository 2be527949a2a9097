//! `[detectors]` of the configuration.
//!
//! Nothing else of this crate is configurable from outside: what a rule does stands in its file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{Pack, Pattern};
use crate::tuning::{AllowOptions, ExceptionOptions, RuleTuning};

/// Whether and with which rules records are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorsOptions {
    /// Whether records are looked at. Off, exfilwatch only forwards.
    pub enabled: bool,
    /// A folder of rule files laid over the built-in ones: a file with the id of a built-in rule
    /// replaces the built-in file.
    pub rules_dir: Option<PathBuf>,
    /// Detections by name that are not run, each a name or a pattern with `*`.
    pub disabled: Vec<String>,
    /// What detections may alert about. Those of other packs are signals: stored, counted, part of
    /// incidents, and delivered where an emitter's `send` has `signals`.
    pub packs: Vec<Pack>,
    /// Countries of addresses, an MMDB file; only in a build with the feature `geoip`.
    pub country_file: Option<PathBuf>,
    /// Autonomous systems of addresses, an MMDB file; only in a build with the feature `geoip`.
    pub asn_file: Option<PathBuf>,
    /// What is different of some rules, for all tenants.
    pub rules: BTreeMap<String, RuleTuning>,
    /// What is known and agreed, for all tenants.
    pub allow: AllowOptions,
    /// Findings that somebody answers for, for all tenants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<ExceptionOptions>,
}

impl Default for DetectorsOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            rules_dir: None,
            disabled: Vec::new(),
            packs: vec![Pack::Exfil],
            country_file: None,
            asn_file: None,
            rules: BTreeMap::new(),
            allow: AllowOptions::default(),
            exceptions: Vec::new(),
        }
    }
}

impl DetectorsOptions {
    /// Whether a detection of this name is to be run.
    pub fn runs(&self, name: &str) -> bool {
        let mut patterns = self.disabled.iter().map(|text| Pattern::new(text));
        self.enabled && !patterns.any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detectors_are_on_unless_switched_off_and_misspelt_keys_are_refused() {
        let read = serde_json::from_str::<DetectorsOptions>;
        assert!(read("{}").unwrap().enabled);
        assert!(!read(r#"{"enabled": false}"#).unwrap().enabled);
        assert!(read(r#"{"rule_dir": "x"}"#).is_err());
    }
}

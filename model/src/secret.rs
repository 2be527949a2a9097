//! Where a secret is to be found. The secret itself never stands in the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `{ file = "…" }` or `{ env = "…" }`. Read at use, so that a rotated secret is taken up without
/// a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretSource {
    /// A file, readable by its owner only. One trailing line break is cut.
    File(PathBuf),
    /// Name of an environment variable.
    Env(String),
}

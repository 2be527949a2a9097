//! The one place that reads the environment.

use std::collections::BTreeMap;

/// Prefix of the variables that set configuration values (`EXFILWATCH__state__folder`).
const PREFIX: &str = "EXFILWATCH__";

/// One variable, where it is set and readable.
pub fn variable(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    std::env::var(name).ok()
}

/// All variables that set configuration values, with their full names.
pub fn configuration() -> BTreeMap<String, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

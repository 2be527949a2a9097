//! Secrets: whether each is where the configuration says and for its owner only; and that none of
//! them is shown, not even where somebody else's words repeat it.

use std::fmt::Write as _;
use std::sync::Arc;

use exfilwatch_connectors::kernel::secret::{Secret, SecretError};
use exfilwatch_model::SecretSource;
use exfilwatch_model::diagnosis::{Cause, Check};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::cli::environment;

/// Shorter ones would be found in any text.
const HIDDEN_BYTES_MIN: usize = 6;
/// Stands in a secret's place.
const MASK: &str = "[secret]";

/// Reads a connector's secret; what is wrong comes back as a check.
pub(super) fn of_connector(key: &str, source: &SecretSource) -> Result<SecretString, Check> {
    let secret = Secret::new(source.clone(), Arc::new(environment::variable));
    secret.read().map_err(|error| {
        let cause = match error {
            SecretError::Open { .. } => Cause::SecretReadableByOthers,
            SecretError::Empty(_) => Cause::SecretUnusable,
            _ => Cause::SecretMissing,
        };
        Check::failed("credential", cause, format!("{key}: {error}"))
    })
}

/// Reads an emitter's secret.
pub(super) fn of_emitter(key: &str, source: &SecretSource) -> Result<SecretString, Check> {
    use exfilwatch_emitters::SecretError;
    let environment = exfilwatch_emitters::Environment::new(environment::variable);
    environment.secret(source).map_err(|error| {
        let cause = match &error {
            SecretError::Open { .. } => Cause::SecretReadableByOthers,
            SecretError::Unusable => Cause::SecretUnusable,
            SecretError::Unset(_) | SecretError::Unreadable { .. } => Cause::SecretMissing,
        };
        Check::failed("credential", cause, format!("{key}: {error}"))
    })
}

/// Secrets that must not be shown.
#[derive(Debug, Default)]
pub(super) struct Hidden(Vec<SecretString>);

impl Hidden {
    /// Hides it, as it is and as it stands in a form.
    pub(super) fn add(&mut self, secret: &SecretString) {
        let plain = secret.expose_secret();
        if plain.len() < HIDDEN_BYTES_MIN {
            return;
        }
        self.0.push(secret.clone());
        let coded = form_coded(plain);
        if coded != plain {
            self.0.push(coded.into());
        }
    }

    /// The check without any of them.
    pub(super) fn redact(&self, mut check: Check) -> Check {
        check.seen = self.masked(&check.seen);
        check.fix = check.fix.map(|fix| self.masked(&fix));
        for value in check.facts.values_mut() {
            if let Value::String(text) = value {
                *text = self.masked(text);
            }
        }
        check
    }

    fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret.expose_secret(), MASK);
        }
        text
    }
}

/// As it stands in the body of a form.
fn form_coded(text: &str) -> String {
    let mut coded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'-' | b'.' | b'_') {
            coded.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            write!(coded, "%{byte:02X}").unwrap_or_default();
        }
    }
    coded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_somebody_repeats_is_masked_as_it_is_and_as_in_a_form() {
        let mut hidden = Hidden::default();
        hidden.add(&"s3cr~et/word".into());
        let check = Check::failed(
            "token",
            Cause::TokenRefused,
            "you sent client_secret=s3cr%7Eet%2Fword that is s3cr~et/word",
        )
        .fact("said", "s3cr~et/word");
        let check = hidden.redact(check);
        assert_eq!(
            check.seen,
            "you sent client_secret=[secret] that is [secret]"
        );
        assert_eq!(check.facts["said"], MASK);
    }
}

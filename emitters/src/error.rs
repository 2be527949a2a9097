//! Why an emitter cannot be built. Always the operator's to mend: exit code 2.

use std::fmt::Display;

use crate::environment::SecretError;

/// Why an emitter cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no emitter of this kind.
    #[error("emitter kind {kind:?} is not known: use {known}")]
    UnknownKind {
        /// What was asked for.
        kind: String,
        /// The kinds there are.
        known: String,
    },
    /// A member of the options cannot be used.
    #[error("{emitter}: {member}: {reason}")]
    Option {
        /// `kind.name`.
        emitter: String,
        /// Which member.
        member: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// The secret cannot be read.
    #[error("{emitter}: {member}: {source}")]
    Secret {
        /// `kind.name`.
        emitter: String,
        /// Which member.
        member: &'static str,
        /// Why.
        source: SecretError,
    },
}

impl BuildError {
    pub(crate) fn option(emitter: &str, member: &str, reason: &dyn Display) -> Self {
        Self::Option {
            emitter: emitter.to_owned(),
            member: member.to_owned(),
            reason: reason.to_string(),
        }
    }
}

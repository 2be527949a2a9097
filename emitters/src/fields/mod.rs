//! What a receiver may learn of people: by field class kept, replaced by a pseudonym, truncated or
//! dropped.
//!
//! The policy is applied once, to the finding, before any format sees it (`masked`): so no format can forget
//! it. Which text came from which field is known (`exfilwatch_model::Provenance`); a value that
//! is withheld is withheld wherever it stands, also within texts of fields that are kept. Records quoted as
//! evidence go whole: they are the vendor's bytes, in which nothing can be found with certainty.
//! Raw records cannot have a policy for the same reason; who asks for both is told so at the start.

mod classes;
mod mask;
mod masked;
mod options;
mod pseudonym;

use exfilwatch_model::{Kind, SecretSource};

use crate::environment::Environment;
use crate::error::BuildError;

pub use mask::Policy;
pub(crate) use masked::Masked;
pub use options::{FieldAction, FieldsOptions};
use pseudonym::Secret;

/// Fewest bits of an IPv4 address that a policy keeps, and all of them.
const ADDRESS_BITS: std::ops::RangeInclusive<u8> = 8..=32;

/// Whether the options can be a policy of an emitter that is to send `kinds`: then its key, `None` where
/// everything is kept.
pub(crate) fn check<'a>(
    emitter: &str,
    options: &'a FieldsOptions,
    kinds: &[Kind],
) -> Result<Option<&'a SecretSource>, BuildError> {
    let unusable = |reason: &str| Err(BuildError::option(emitter, "fields", &reason));
    if options.keeps_all() {
        return Ok(None);
    }
    if kinds.contains(&Kind::Events) {
        return unusable(
            "raw records (send = [\"events\"]) go out as the vendor wrote them, with everything that \
             is withheld here: take \"events\" out of send, or name another emitter for them",
        );
    }
    if let FieldAction::Truncate(bits) = options.source_ip
        && !ADDRESS_BITS.contains(&bits)
    {
        return unusable(
            "source_ip: truncate names the leading bits of an IPv4 address that stay, 8 to 32",
        );
    }
    match &options.key {
        Some(key) => Ok(Some(key)),
        None => unusable(
            "it needs a key, of the pseudonyms and of the ids that go out, the same for all emitters in \
             which these are to agree: key = { file = \"…\" }, made by `openssl rand -base64 32`",
        ),
    }
}

/// The policy of an emitter that is to send `kinds`; `None` where everything is kept.
pub fn policy(
    emitter: &str,
    options: &FieldsOptions,
    kinds: &[Kind],
    environment: &Environment,
) -> Result<Option<Policy>, BuildError> {
    let Some(source) = check(emitter, options, kinds)? else {
        return Ok(None);
    };
    let text = environment.secret(source);
    let text = text.map_err(|source| BuildError::Secret {
        emitter: emitter.to_owned(),
        member: "fields.key",
        source,
    })?;
    let secret = Secret::new(&text);
    let secret = secret.map_err(|why| BuildError::option(emitter, "fields", &why))?;
    Ok(Some(Policy::new(options.clone(), secret)))
}

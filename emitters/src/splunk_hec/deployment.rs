//! What all addresses of one deployment share: the options, the token, what is known of it by now.

use std::sync::{Arc, Mutex, PoisonError};

use exfilwatch_model::{Clock, SecretSource};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::facts::Facts;
use crate::contract::EmitError;
use crate::environment::Environment;
use crate::error::BuildError;
use crate::options::SplunkHecOptions;

/// See the module.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) options: SplunkHecOptions,
    pub(super) token: Token,
    pub(super) facts: Facts,
    /// Only for dates in `Retry-After`.
    pub(super) clock: Arc<dyn Clock>,
}

impl Deployment {
    /// Of the emitter `name`. Reads the token.
    pub(super) fn new(
        name: &str,
        options: &SplunkHecOptions,
        environment: &Environment,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let token = environment.secret(&options.token);
        let token = token.map_err(|source| BuildError::Secret {
            emitter: name.to_owned(),
            member: "token",
            source,
        })?;
        Ok(Self {
            token: Token {
                source: options.token.clone(),
                environment: environment.clone(),
                kept: Mutex::new(Some(token)),
            },
            facts: Facts::new(name, options.gzip),
            options: options.clone(),
            clock,
        })
    }
}

/// The HEC token; read anew after it was refused, since it may have been rotated.
#[derive(Debug)]
pub(super) struct Token {
    source: SecretSource,
    environment: Environment,
    kept: Mutex<Option<SecretString>>,
}

impl Token {
    /// Reads it anew before the next call.
    pub(super) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The header of a call.
    pub(super) fn authorization(&self) -> Result<HeaderValue, EmitError> {
        let unusable = |what: String| EmitError::Hold {
            what,
            help: "make the HEC token readable again; it is read anew at the next try".to_owned(),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            let read = self.environment.secret(&self.source);
            *kept = Some(read.map_err(|error| unusable(error.to_string()))?);
        }
        let token = kept.as_ref().map_or("", |token| token.expose_secret());
        let mut authorization = HeaderValue::try_from(format!("Splunk {token}"))
            .map_err(|_| unusable("the HEC token holds characters a header cannot".to_owned()))?;
        authorization.set_sensitive(true);
        Ok(authorization)
    }
}

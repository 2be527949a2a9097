//! What a connector is built from besides its options, and why building may fail.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use exfilwatch_model::{Clock, SecretSource};
use url::Url;

use super::jwt::KeyError;
use super::limit::Quotas;
use super::secret::{Environment, Secret, SecretError};
use super::transport::{HttpSettings, HttpTransport, SettingsError, Transport};
use super::url_guard::Origin;

/// What all connectors of a process share.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where secrets named by `{ env = … }` are found.
    pub environment: Arc<dyn Environment>,
    /// The quotas; one table for the process, so that streams, jobs and connectors share them.
    pub quotas: Arc<Quotas>,
    /// Carries the requests of every connector; `None` builds one over the network for each, from
    /// its own proxy and CA file.
    pub transport: Option<Arc<dyn Transport>>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("clock", &self.clock)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl Surroundings {
    /// Over the network, with quotas of its own.
    pub fn new(clock: Arc<dyn Clock>, environment: Arc<dyn Environment>) -> Self {
        Self {
            quotas: Arc::new(Quotas::new(clock.clone())),
            clock,
            environment,
            transport: None,
        }
    }

    pub(crate) fn secret(&self, source: &SecretSource) -> Secret {
        Secret::new(source.clone(), self.environment.clone())
    }

    pub(crate) fn transport(
        &self,
        settings: &HttpSettings,
    ) -> Result<Arc<dyn Transport>, BuildError> {
        match &self.transport {
            Some(transport) => Ok(transport.clone()),
            None => Ok(Arc::new(HttpTransport::new(settings)?)),
        }
    }
}

/// Options from which no connector can be built. All of these are the operator's to put right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An option that must be there is not.
    #[error("{key} is missing: {help}")]
    Missing {
        /// The option.
        key: &'static str,
        /// What to write.
        help: &'static str,
    },
    /// An option has a value that cannot be used.
    #[error("{key} = {value:?}: {why}")]
    Invalid {
        /// The option.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it and what is expected.
        why: String,
    },
    /// A secret cannot be had.
    #[error("{key}: {error}")]
    Secret {
        /// The option.
        key: &'static str,
        /// Why.
        error: SecretError,
    },
    /// A key or certificate cannot be used.
    #[error("{key}: {error}")]
    Key {
        /// The option.
        key: &'static str,
        /// Why.
        error: KeyError,
    },
    /// Proxy or CA file do not work.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No connector of this kind.
    #[error("no connector is called {kind:?}: there are {known}")]
    UnknownKind {
        /// What was asked for.
        kind: String,
        /// What there is.
        known: String,
    },
}

/// The value, or an error that says what to write.
pub(crate) fn required<'a, T>(
    value: Option<&'a T>,
    key: &'static str,
    help: &'static str,
) -> Result<&'a T, BuildError> {
    value.ok_or(BuildError::Missing { key, help })
}

pub(crate) fn invalid(key: &'static str, value: &str, why: impl Into<String>) -> BuildError {
    BuildError::Invalid {
        key,
        value: value.to_owned(),
        why: why.into(),
    }
}

/// The override, or the vendor's own origin.
pub(crate) fn origin(
    key: &'static str,
    given: Option<&Url>,
    own: &str,
) -> Result<Origin, BuildError> {
    let url = match given {
        Some(url) => url.clone(),
        None => Url::parse(own).map_err(|e| invalid(key, own, e.to_string()))?,
    };
    // The value is shown without what might be a password in it.
    Origin::new(&url).map_err(|e| invalid(key, url.host_str().unwrap_or(""), e.0))
}

pub(crate) fn http_settings(
    proxy: Option<&Url>,
    ca_file: Option<&PathBuf>,
    loopback: bool,
) -> HttpSettings {
    HttpSettings {
        proxy: proxy.cloned(),
        ca_file: ca_file.cloned(),
        loopback,
    }
}

pub(crate) fn requests_per_minute(
    given: Option<u32>,
    default: NonZeroU32,
) -> Result<NonZeroU32, BuildError> {
    let key = "requests_per_minute";
    given.map_or(Ok(default), |rpm| {
        NonZeroU32::new(rpm).ok_or_else(|| invalid(key, "0", "must be 1 or more"))
    })
}

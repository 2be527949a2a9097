//! Which connectors there are, and how one is built from its options.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use crate::google::directory::Directory;
use crate::google::{self, GoogleWorkspace};
use crate::kernel::surroundings::{BuildError, Surroundings};
use crate::microsoft::graph::Graph;
use crate::microsoft::{self, Office365};
use crate::options::{GoogleWorkspaceOptions, Office365Options};
use crate::{Connector, OwnDomains, RecordReader};
use exfilwatch_model::Product;

/// The kinds of connectors, as they stand in the configuration.
pub const KINDS: [&str; 2] = [microsoft::KIND, google::KIND];

/// Options of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyOptions {
    /// `[connectors.office365.<name>]`.
    Office365(Box<Office365Options>),
    /// `[connectors.google_workspace.<name>]`.
    GoogleWorkspace(Box<GoogleWorkspaceOptions>),
}

impl AnyOptions {
    /// Reads the options of a kind. An unknown kind is an error that lists the known ones.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<Self, D::Error> {
        match kind {
            microsoft::KIND => Ok(Self::Office365(Box::deserialize(from)?)),
            google::KIND => Ok(Self::GoogleWorkspace(Box::deserialize(from)?)),
            other => Err(serde::de::Error::custom(unknown_kind(other))),
        }
    }

    /// The product whose records this connector reads.
    pub fn product(&self) -> Product {
        match self {
            Self::Office365(_) => Product::M365,
            Self::GoogleWorkspace(_) => Product::GoogleWorkspace,
        }
    }

    /// What tells the tenant's own domains. Reads the credential; sends nothing.
    pub fn own_domains(
        &self,
        surroundings: &Surroundings,
    ) -> Result<Arc<dyn OwnDomains>, BuildError> {
        Ok(match self {
            Self::Office365(options) => Arc::new(Graph::new(options, surroundings)?),
            Self::GoogleWorkspace(options) => Arc::new(Directory::new(options, surroundings)?),
        })
    }

    /// Builds the connector. `records` must read records of [`AnyOptions::product`].
    pub fn build(
        &self,
        records: Arc<dyn RecordReader>,
        surroundings: &Surroundings,
    ) -> Result<Arc<dyn Connector>, BuildError> {
        debug_assert_eq!(records.product(), self.product());
        Ok(match self {
            Self::Office365(options) => Arc::new(Office365::new(options, records, surroundings)?),
            Self::GoogleWorkspace(options) => {
                Arc::new(GoogleWorkspace::new(options, records, surroundings)?)
            }
        })
    }
}

/// The error for a kind that does not exist.
pub fn unknown_kind(kind: &str) -> BuildError {
    BuildError::UnknownKind {
        kind: kind.to_owned(),
        known: KINDS.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_lists_the_known_ones() {
        let error = AnyOptions::read("office356", serde_json::json!({}))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("office356") && error.contains("google_workspace"),
            "{error}"
        );
        for kind in KINDS {
            assert!(AnyOptions::read(kind, serde_json::json!({})).is_ok());
        }
    }
}

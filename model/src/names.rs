//! Names: tenant, stream, job, product. Made in one place, so that a key, a path or a label
//! built from them needs no further checking.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest tenant alias, stream name or job id, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A name that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty or longer than [`NAME_BYTES_MAX`].
    #[error("name {0:?} must have 1 to {NAME_BYTES_MAX} characters")]
    Length(String),
    /// A character outside `A-Z a-z 0-9 . _ - :` stands in it.
    #[error("name {0:?} may only hold letters, digits, '.', '_', '-' and ':'")]
    Character(String),
    /// A stream is written `tenant/connector/name`.
    #[error("stream {0:?} must be written tenant/connector/name")]
    Shape(String),
    /// No product of this name.
    #[error("product {0:?} is not known: use m365 or google_workspace")]
    Product(String),
}

fn checked(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(NameError::Length(
            text.chars().take(NAME_BYTES_MAX).collect(),
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    if text.chars().all(plain) {
        Ok(text.into())
    } else {
        Err(NameError::Character(text.to_owned()))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes the name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// The alias of a tenant, as configured. First part of every key, queue and route.
    TenantId
}

impl TenantId {
    /// Stands for the tenant of what is about none: this process, its outbox.
    pub const NONE: &str = "exfilwatch";
}

name! {
    /// What a run of the pipeline belongs to: `live`, or the id of a job (backfill, gap filling).
    /// Windows and watermarks are scoped by it.
    JobId
}

impl JobId {
    /// The long-running poller's own scope.
    pub fn live() -> Self {
        Self("live".into())
    }

    /// Where jobs leave for the poller what they have seen of the past.
    pub fn lessons() -> Self {
        Self("lessons".into())
    }

    /// Where it is noted when each operation was last seen.
    pub fn sightings() -> Self {
        Self("sightings".into())
    }

    /// Where it is kept how things stand, by the poller and by jobs together.
    pub fn inventory() -> Self {
        Self("inventory".into())
    }

    /// Whether this is the long-running poller.
    pub fn is_live(&self) -> bool {
        &*self.0 == "live"
    }
}

/// One audit feed of one tenant, written `tenant/connector/name`
/// (`contoso/office365/Audit.Exchange`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId {
    tenant: TenantId,
    connector: Arc<str>,
    name: Arc<str>,
}

impl StreamId {
    /// Checks the parts and joins them.
    pub fn new(tenant: TenantId, connector: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self {
            tenant,
            connector: checked(connector)?,
            name: checked(name)?,
        })
    }

    /// The tenant this stream belongs to.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The kind of connector (`office365`, `google_workspace`, `file`).
    pub fn connector(&self) -> &str {
        &self.connector
    }

    /// The feed within the connector (`Audit.Exchange`, `drive`).
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.connector, self.name)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl FromStr for StreamId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(tenant), Some(connector), Some(name), None) => {
                Self::new(TenantId::new(tenant)?, connector, name)
            }
            _ => Err(NameError::Shape(text.to_owned())),
        }
    }
}

impl TryFrom<String> for StreamId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<StreamId> for String {
    fn from(stream: StreamId) -> String {
        stream.to_string()
    }
}

/// The product a record comes from; the `product` of a Sigma log source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// Office 365 / Microsoft 365, records of the Unified Audit Log.
    M365,
    /// Google Workspace, activities of the Reports API.
    GoogleWorkspace,
}

impl Product {
    /// The name used in rules, fields and file paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::M365 => "m365",
            Self::GoogleWorkspace => "google_workspace",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Product {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "m365" => Ok(Self::M365),
            "google_workspace" | "gws" => Ok(Self::GoogleWorkspace),
            _ => Err(NameError::Product(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_survives_its_text_form() {
        let stream: StreamId = "contoso/office365/Audit.Exchange".parse().unwrap();
        assert_eq!(stream.tenant().as_str(), "contoso");
        assert_eq!(stream.connector(), "office365");
        assert_eq!(stream.name(), "Audit.Exchange");
        assert_eq!(stream.to_string().parse::<StreamId>().unwrap(), stream);
    }

    #[test]
    fn names_that_could_break_a_key_or_path_are_refused() {
        for bad in ["", "a/b", "a b", "a\0", "ü", "a\nb"] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        assert!("only/two".parse::<StreamId>().is_err());
        assert!("one/two/three/four".parse::<StreamId>().is_err());
    }
}

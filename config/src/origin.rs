//! Where a value comes from, and problems that point there.
//!
//! Every value of the configuration keeps its [`Origin`], so that a wrong one is reported at its
//! own line and `config show` can name where the effective one was set.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Where a value was set. Ordered as problems are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in.
    Default,
    /// A place in a file; line and column count from 1, the column in characters.
    File {
        /// The file, as it was named.
        file: Arc<Path>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable, by its name.
    Environment(Arc<str>),
    /// An option of the command line, by the path it sets.
    Flag(Arc<str>),
}

impl Origin {
    /// The first character of a file.
    pub(crate) fn start_of(file: &Arc<Path>) -> Self {
        Self::File {
            file: Arc::clone(file),
            line: 1,
            column: 1,
        }
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Arc<Path>> {
        match self {
            Self::File { file, .. } => Some(file),
            Self::Default | Self::Environment(_) | Self::Flag(_) => None,
        }
    }

    /// Short form without the column: `default`, `path:line`, `env NAME`, `flag`.
    pub fn brief(&self) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::File { file, line, .. } => format!("{}:{line}", file.display()),
            Self::Environment(name) => format!("env {name}"),
            Self::Flag(_) => "flag".to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File { file, line, column } => {
                write!(f, "{}:{line}:{column}", file.display())
            }
            Self::Environment(name) => write!(f, "env {name}"),
            Self::Flag(path) => write!(f, "flag {path}"),
        }
    }
}

/// As [`Origin::brief`].
impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.brief())
    }
}

/// Something wrong with the configuration, or worth a warning. Never holds a secret: values that
/// could be one are not repeated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, one sentence without full stop.
    pub what: String,
    /// What to do, or the nearest known name.
    pub help: Option<String>,
}

impl Problem {
    pub(crate) fn new(origin: &Origin, what: impl Into<String>) -> Self {
        Self {
            origin: origin.clone(),
            what: what.into(),
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// `path:line:column: what (help)`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.what)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

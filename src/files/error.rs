//! Why a file could not be read.

use std::io;

/// What went wrong with a file. Everything read before the error has been handed out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be opened: the caller names another one.
    #[error("cannot open {name}")]
    Open {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The content is of a kind that is not read: the user converts it first.
    #[error("{name} cannot be read: {reason}")]
    Unsupported {
        /// The file.
        name: String,
        /// What it seems to be, and what to do.
        reason: String,
    },
    /// Reading stopped before the end: cut short, damaged, or a device error.
    #[error("{name} cannot be read beyond byte {offset} of its decoded content")]
    Read {
        /// The file.
        name: String,
        /// Decoded bytes that could be read.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
}

//! Files named on the command line: opened and told of in one way by `replay` and `forward`.

use crate::cli::failure::{Code, Failure};
use crate::files::{BatchLimits, FileError, FileReader, Input};

/// Opens a file, or standard input for `-`.
pub(crate) fn open(input: &Input) -> Result<FileReader, Failure> {
    FileReader::open(input, BatchLimits::default()).map_err(|error| broken(&error))
}

/// A file that cannot be read, or not to its end.
pub(crate) fn broken(error: &FileError) -> Failure {
    let text = crate::pipeline::committer::chain(error);
    Failure::new(Code::Usage, text)
}

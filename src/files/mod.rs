//! Native records out of files: what `forward` and `replay` read.
//!
//! A text is NDJSON, JSON arrays of records, Reports API pages (pretty or compact, one or several)
//! or the CSV of Search-UnifiedAuditLog; plain, gzip or zstd. All of it is told by the content,
//! never by the name. The product is told per record. Memory is flat in the file's size: blocks of
//! 1 MiB that the records share, and one record at most beyond them.
//!
//! Nothing here parses a record: whether it is valid JSON is for its head to say. What cannot be a
//! record at all (cut lines, other products, too large) comes out as [`Malformed`], and reading
//! goes on behind it. This module decides nothing about tenants, state or what was seen before.

mod blocks;
mod digest;
mod error;
mod lines;
mod scanner;
mod shape;
mod source;
mod table;
mod text;
mod values;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use exfilwatch_model::record::RECORD_BYTES_MAX;
use exfilwatch_model::{Malformed, Product, RawRecord};

pub use digest::ContentDigest;
pub use error::FileError;

use blocks::Blocks;
use shape::Shape;
use text::{Piece, Text};
use values::Values;

/// Most levels of texts inside texts: a line that is an array of pages.
const NESTING_MAX: usize = 2;

/// Where records are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input, written `-`.
    Stdin,
    /// A file.
    Path(PathBuf),
}

impl Input {
    /// What a command line argument names: `-` is standard input.
    pub fn from_argument(argument: &str) -> Self {
        if argument == "-" {
            Self::Stdin
        } else {
            Self::Path(argument.into())
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How large a batch may become. The batches of the same content under the same limits are the
/// same batches, so a reader that was interrupted may skip those up to the offset it had finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most records, malformed ones counted.
    pub records_max: usize,
    /// Most bytes of records, unless a single record is larger.
    pub bytes_max: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            records_max: 4_000,
            bytes_max: 16 << 20,
        }
    }
}

/// Some records of one file, in the file's order.
#[derive(Debug, Default)]
pub struct FileBatch {
    /// The records, each with the product it was told to be of.
    pub records: Vec<(Product, RawRecord)>,
    /// What is no record, and why.
    pub malformed: Vec<Malformed>,
    /// Bytes of the decoded text up to the end of the batch's last record; grows with each batch
    /// (only the last one, where it holds no records, may end where the one before did).
    pub offset: u64,
    /// Whether the file ends here. A file that can be read to its end has exactly one such batch,
    /// be it an empty one.
    pub last: bool,
}

/// One placed piece of the text.
enum Placed {
    Record(Product, RawRecord),
    Malformed(Malformed),
}

impl Placed {
    fn malformed(bytes: &Bytes, reason: &str) -> Self {
        let bytes = bytes.slice(..bytes.len().min(RECORD_BYTES_MAX));
        Self::Malformed(Malformed {
            bytes,
            reason: reason.to_owned(),
        })
    }

    /// Says of what is malformed where it begins, for `tail -c +N`.
    fn at(self, start: u64) -> Self {
        match self {
            Self::Malformed(Malformed { bytes, reason }) => Self::Malformed(Malformed {
                bytes,
                reason: format!("{reason} (at byte {start})"),
            }),
            record @ Self::Record(..) => record,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Record(_, record) => record.bytes().len(),
            Self::Malformed(malformed) => malformed.bytes.len(),
        }
    }
}

/// A text that stands inside a record's place: a page on one line, an array in an array.
struct Nested {
    /// Where the text begins in the file.
    start: u64,
    text: Values,
}

/// Reads one file in batches. After the last batch, or after an error, the iterator ends; an error
/// comes only after everything that could be read before it was handed out.
pub struct FileReader {
    name: String,
    limits: BatchLimits,
    text: Text,
    nested: Vec<Nested>,
    /// Read, but too much for the batch before.
    next: Option<(Placed, u64)>,
    failed: Option<FileError>,
    ended: bool,
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl FileReader {
    /// Opens the input and tells what is in it. Reads at most the first block.
    pub fn open(input: &Input, limits: BatchLimits) -> Result<Self, FileError> {
        let name = input.to_string();
        match input {
            Input::Stdin => Self::from_reader(&name, Box::new(std::io::stdin()), limits),
            Input::Path(path) => {
                let file = std::fs::File::open(path).map_err(|source| FileError::Open {
                    name: name.clone(),
                    source,
                })?;
                Self::from_reader(&name, Box::new(file), limits)
            }
        }
    }

    /// Reads from anything; `name` is what errors call it.
    pub fn from_reader(
        name: &str,
        reader: Box<dyn Read + Send>,
        limits: BatchLimits,
    ) -> Result<Self, FileError> {
        let decoded = source::decoded(name, reader)?;
        Ok(Self {
            name: name.to_owned(),
            limits,
            text: Text::told(name, Blocks::new(decoded))?,
            nested: Vec::new(),
            next: None,
            failed: None,
            ended: false,
        })
    }

    fn batch(&mut self) -> FileBatch {
        let mut batch = FileBatch::default();
        let (mut count, mut bytes) = (0, 0);
        loop {
            let (placed, end) = match self
                .next
                .take()
                .map_or_else(|| self.placed(), |p| Ok(Some(p)))
            {
                Ok(Some(placed)) => placed,
                Ok(None) => {
                    batch.offset = self.text.offset();
                    batch.last = true;
                    return batch;
                }
                Err(error) => {
                    self.failed = Some(error);
                    return batch;
                }
            };
            // A piece without bytes of its own (an array that is never closed) stays in the batch
            // before it, so that no two batches end at the same offset.
            let full = end > batch.offset
                && (count >= self.limits.records_max
                    || bytes + placed.size() > self.limits.bytes_max);
            if full && count > 0 {
                self.next = Some((placed, end));
                return batch;
            }
            count += 1;
            bytes += placed.size();
            batch.offset = end;
            match placed {
                Placed::Record(product, record) => batch.records.push((product, record)),
                Placed::Malformed(malformed) => batch.malformed.push(malformed),
            }
        }
    }

    /// The next record or malformed piece, and the offset where it ends.
    fn placed(&mut self) -> Result<Option<(Placed, u64)>, FileError> {
        loop {
            let Some((piece, start)) = self.piece()? else {
                return Ok(None);
            };
            let end = start + piece.bytes().len() as u64;
            let bytes = match piece {
                Piece::Malformed(malformed) => {
                    return Ok(Some((Placed::Malformed(malformed).at(start), end)));
                }
                Piece::Value(bytes) => bytes,
            };
            if let Some(placed) = self.place(bytes, start) {
                return Ok(Some((placed.at(start), end)));
            }
        }
    }

    /// The next piece, from the innermost text that is open, and where it begins.
    fn piece(&mut self) -> Result<Option<(Piece, u64)>, FileError> {
        while let Some(Nested { start, text }) = self.nested.last_mut() {
            let begun = *start + text.offset();
            match text.next() {
                Ok(Some((piece, at))) => return Ok(Some((piece, *start + at))),
                Ok(None) => drop(self.nested.pop()),
                // Only the end can be missing here: the text is one line, read before.
                Err(error) => {
                    self.nested.pop();
                    let reason = error.to_string();
                    return Ok(Some((
                        Piece::Malformed(Malformed {
                            bytes: Bytes::new(),
                            reason,
                        }),
                        begun,
                    )));
                }
            }
        }
        self.text.next().map_err(|source| FileError::Read {
            name: self.name.clone(),
            offset: self.text.offset_read(),
            source,
        })
    }

    /// Tells what a whole value is; `None` where it holds records of its own, which come next.
    fn place(&mut self, bytes: Bytes, start: u64) -> Option<Placed> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Some(Placed::malformed(&bytes, "the record is larger than 4 MiB"));
        }
        match shape::shape(&bytes) {
            Shape::Record(product) => Some(Placed::Record(product, RawRecord::new(bytes))),
            Shape::Array | Shape::Page { .. } if self.nested.len() < NESTING_MAX => {
                self.nested.push(Nested {
                    start,
                    text: Values::new(Blocks::whole(bytes)),
                });
                None
            }
            Shape::EmptyPage => None,
            Shape::Export(range) => Some(exported(&bytes, range)),
            Shape::Neither => Some(Placed::malformed(
                &bytes,
                "neither an Office 365 nor a Google Workspace record",
            )),
            Shape::Array | Shape::Page { .. } => Some(Placed::malformed(
                &bytes,
                "arrays inside arrays inside arrays hold no records",
            )),
            Shape::Scalar => Some(Placed::malformed(&bytes, "not a JSON object")),
            Shape::Incomplete | Shape::Broken => {
                Some(Placed::malformed(&bytes, "not valid JSON, or cut short"))
            }
        }
    }
}

/// The record inside a row that ConvertTo-Json wrote: `AuditData` is the record as a JSON string.
fn exported(bytes: &Bytes, range: std::ops::Range<usize>) -> Placed {
    let inner = bytes
        .get(range)
        .and_then(|text| serde_json::from_slice::<String>(text).ok());
    match inner.map(Bytes::from) {
        Some(record) if shape::shape(&record) == Shape::Record(Product::M365) => {
            Placed::Record(Product::M365, RawRecord::new(record))
        }
        Some(record) => Placed::malformed(&record, "AuditData is no Office 365 record"),
        None => Placed::malformed(bytes, "AuditData is not a readable JSON string"),
    }
}

impl Iterator for FileReader {
    type Item = Result<FileBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.failed.is_none() {
            let batch = self.batch();
            self.ended = batch.last;
            let empty = batch.records.is_empty() && batch.malformed.is_empty();
            if batch.last || !empty {
                return Some(Ok(batch));
            }
        }
        self.ended = true;
        self.failed.take().map(Err)
    }
}

#[cfg(test)]
mod tests;

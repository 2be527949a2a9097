//! Which kind of text it is, told by its beginning, and one way to read all kinds.

use std::io;

use bytes::Bytes;
use exfilwatch_model::Malformed;
use exfilwatch_model::record::RECORD_BYTES_MAX;

use super::blocks::Blocks;
use super::error::FileError;
use super::lines::Lines;
use super::scanner::Scanner;
use super::shape::{Shape, shape};
use super::table::Table;
use super::values::Values;

/// UTF-8's.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A piece of the text that stands where a record should.
pub(super) enum Piece {
    /// As far as can be told without parsing, one whole JSON value.
    Value(Bytes),
    Malformed(Malformed),
}

impl Piece {
    pub(super) fn malformed(bytes: Bytes, reason: &str) -> Self {
        Self::Malformed(Malformed {
            bytes,
            reason: reason.to_owned(),
        })
    }

    pub(super) fn too_large(front: Bytes) -> Self {
        let reason = format!("the record is larger than {RECORD_BYTES_MAX} bytes");
        Self::Malformed(Malformed {
            bytes: front,
            reason,
        })
    }

    pub(super) fn bytes(&self) -> &Bytes {
        match self {
            Self::Value(bytes) => bytes,
            Self::Malformed(malformed) => &malformed.bytes,
        }
    }
}

/// A text of one kind.
pub(super) enum Text {
    Lines(Lines),
    Values(Values),
    Table(Box<Table>),
}

impl Text {
    /// Tells the kind by the first block.
    pub(super) fn told(name: &str, mut blocks: Blocks) -> Result<Self, FileError> {
        let unsupported = |reason: &str| FileError::Unsupported {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let looked = begin(&mut blocks);
        looked.map_err(|source| FileError::Read {
            name: name.to_owned(),
            offset: blocks.offset_read(),
            source,
        })?;
        let unread = blocks.unread();
        if is_utf16(unread) {
            return Err(unsupported(
                "it is UTF-16 text; convert it with: iconv -f UTF-16 -t UTF-8 FILE",
            ));
        }
        match unread.first() {
            None => Ok(Self::Lines(Lines::new(blocks))),
            Some(b'{') if is_one_value_a_line(unread) => Ok(Self::Lines(Lines::new(blocks))),
            Some(b'{' | b'[') => Ok(Self::Values(Values::new(blocks))),
            Some(_) if Table::header(unread).is_none() => {
                // Lines whose first one is broken are still lines.
                if memchr::memmem::find(unread, b"\n{").is_some() {
                    return Ok(Self::Lines(Lines::new(blocks)));
                }
                Err(unsupported(NOT_KNOWN))
            }
            Some(_) => Table::new(blocks)
                .map(|table| Self::Table(Box::new(table)))
                .ok_or_else(|| unsupported(NOT_KNOWN)),
        }
    }

    /// The next piece, and the offset where it begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(Piece, u64)>> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Values(values) => values.next(),
            Self::Table(table) => table.next(),
        }
    }

    /// Decoded bytes up to the end of the last piece.
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Lines(lines) => lines.blocks().offset(),
            Self::Values(values) => values.offset(),
            Self::Table(table) => table.offset(),
        }
    }

    /// Decoded bytes read so far.
    pub(super) fn offset_read(&self) -> u64 {
        match self {
            Self::Lines(lines) => lines.blocks().offset_read(),
            Self::Values(values) => values.blocks().offset_read(),
            Self::Table(table) => table.offset(),
        }
    }
}

const NOT_KNOWN: &str = "it is neither JSON (lines, arrays or Reports API pages) nor a CSV with an \
                         AuditData column";

/// Reads the first block and leaves byte order mark and blanks behind.
fn begin(blocks: &mut Blocks) -> io::Result<()> {
    if blocks.first()?.is_some() && blocks.unread().starts_with(BYTE_ORDER_MARK) {
        blocks.skip(BYTE_ORDER_MARK.len());
    }
    blocks.skip_while(|byte| byte.is_ascii_whitespace())
}

fn is_utf16(text: &[u8]) -> bool {
    match text {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [first, second, ..] => (*first == 0) != (*second == 0),
        _ => false,
    }
}

/// Whether the text, which begins with an object, has one value a line: its first value is no page
/// and ends with its line, or its first line is no more than a broken record.
fn is_one_value_a_line(text: &[u8]) -> bool {
    if matches!(shape(text), Shape::Page { .. } | Shape::EmptyPage) {
        return false;
    }
    let line_end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let (line, rest) = text.split_at(line_end);
    let mut scanner = Scanner::outside();
    if let Some(end) = scanner.close(line) {
        return !matches!(
            line[end..].trim_ascii_start().first(),
            Some(b'{' | b'[' | b',')
        );
    }
    // The first line ends inside the value: is that how it was written, or was the line cut?
    let next = rest.trim_ascii_start().first();
    let printed_over_lines = match line.trim_ascii_end().last() {
        Some(b'{') => matches!(next, Some(b'"' | b'}')),
        Some(b'[') => next.is_some(),
        Some(b',') => next.is_some_and(|byte| *byte != b'{'),
        _ => false,
    };
    scanner.in_string() || !printed_over_lines
}

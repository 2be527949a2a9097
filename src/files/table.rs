//! The CSV of Search-UnifiedAuditLog and of the audit search in the Purview portal: one column,
//! `AuditData`, holds the native record; all others repeat parts of it and are not read.

use std::io::{self, Read};

use bytes::Bytes;
use csv::ByteRecord;
use exfilwatch_model::record::RECORD_BYTES_MAX;

use super::blocks::Blocks;
use super::text::Piece;

/// The column that holds the record.
const COLUMN: &str = "AuditData";
/// Most bytes of one row: a record with every quote doubled, and the other columns. A quote that
/// is never closed would otherwise make one row of the whole rest of the file.
const ROW_BYTES_MAX: usize = 3 * RECORD_BYTES_MAX;
/// Lines that may stand before the header: Export-Csv's type, and Excel's separator.
const PREAMBLES: [&str; 2] = ["#TYPE", "sep="];
/// Separators in use, by Export-Csv's culture.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// Gives out at most [`ROW_BYTES_MAX`] bytes between two rows.
struct Rows {
    blocks: Blocks,
    left: usize,
}

impl Read for Rows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a row is larger than {ROW_BYTES_MAX} bytes: a quote may not be closed"),
            ));
        }
        let count = self.blocks.read(buffer)?;
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

pub(super) struct Table {
    reader: csv::Reader<Rows>,
    row: ByteRecord,
    /// Bytes of the text before the header.
    before: u64,
    column: usize,
}

impl Table {
    /// Length of the lines before the header, and the header, if one of the columns is the wanted.
    pub(super) fn header(text: &[u8]) -> Option<(usize, &[u8])> {
        let mut start = 0;
        loop {
            let rest = text.get(start..)?;
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            let starts = |text: &str| {
                line.get(..text.len())
                    .is_some_and(|front| front.eq_ignore_ascii_case(text.as_bytes()))
            };
            if !PREAMBLES.iter().any(|text| starts(text)) {
                return DELIMITERS
                    .iter()
                    .any(|delimiter| column(line, *delimiter).is_some())
                    .then_some((start, line));
            }
            start += end + 1;
        }
    }

    /// Reads the rows of a text that [`Table::header`] has told to be one.
    pub(super) fn new(mut blocks: Blocks) -> Option<Self> {
        let (preamble, header) = Self::header(blocks.unread())?;
        let (delimiter, column) = DELIMITERS
            .iter()
            .find_map(|delimiter| column(header, *delimiter).map(|found| (*delimiter, found)))?;
        let behind = (preamble + header.len() + 1).min(blocks.unread().len());
        blocks.skip(behind);
        Some(Self {
            before: blocks.offset(),
            reader: csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .delimiter(delimiter)
                .buffer_capacity(64 << 10)
                .from_reader(Rows {
                    blocks,
                    left: ROW_BYTES_MAX,
                }),
            row: ByteRecord::new(),
            column,
        })
    }

    /// The record of the next row, and the offset where the row begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(Piece, u64)>> {
        let start = self.offset();
        self.reader.get_mut().left = ROW_BYTES_MAX;
        if !self.reader.read_byte_record(&mut self.row)? {
            return Ok(None);
        }
        let piece = match self.row.get(self.column).map(<[u8]>::trim_ascii) {
            Some(b"") => Piece::malformed(self.joined(), "the row's AuditData is empty"),
            Some(field) if field.ends_with(b"}") => Piece::Value(Bytes::copy_from_slice(field)),
            Some(field) => Piece::malformed(
                Bytes::copy_from_slice(field),
                "the row's AuditData is cut short",
            ),
            None => Piece::malformed(self.joined(), "the row has no AuditData column"),
        };
        Ok(Some((piece, start)))
    }

    pub(super) fn offset(&self) -> u64 {
        self.before + self.reader.position().byte()
    }

    fn joined(&self) -> Bytes {
        self.row.iter().collect::<Vec<_>>().join(&b","[..]).into()
    }
}

fn column(header: &[u8], delimiter: u8) -> Option<usize> {
    let mut row = ByteRecord::new();
    csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .from_reader(header)
        .read_byte_record(&mut row)
        .ok()?;
    row.iter()
        .position(|name| name.trim_ascii().eq_ignore_ascii_case(COLUMN.as_bytes()))
}

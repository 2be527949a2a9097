//! NDJSON: one value a line, split at the line ends and nowhere else.
//!
//! A line that is cut or is no JSON becomes malformed, and the next line is read as if nothing had
//! happened. CRLF, blank lines and byte order marks of files put together are tolerated.

use std::io;

use bytes::Bytes;

use super::blocks::{Blocks, Taken};
use super::text::{BYTE_ORDER_MARK, Piece};

pub(super) struct Lines {
    blocks: Blocks,
}

impl Lines {
    pub(super) fn new(blocks: Blocks) -> Self {
        Self { blocks }
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The next line that is not blank, and the offset where it begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(Piece, u64)>> {
        loop {
            let start = self.blocks.offset();
            let line_end = |part: &[u8]| memchr::memchr(b'\n', part).map(|at| at + 1);
            let line = match self.blocks.take_until(line_end)? {
                Taken::Large(front) => {
                    self.blocks.skip_until(line_end)?;
                    return Ok(Some((Piece::too_large(front), start)));
                }
                Taken::Cut(line) if line.is_empty() => return Ok(None),
                Taken::Whole(line) | Taken::Cut(line) => trimmed(&line),
            };
            if !line.is_empty() {
                return Ok(Some((piece(line), start)));
            }
        }
    }
}

fn trimmed(line: &Bytes) -> Bytes {
    let text = line
        .strip_prefix(BYTE_ORDER_MARK)
        .unwrap_or(line)
        .trim_ascii();
    line.slice_ref(text)
}

fn piece(line: Bytes) -> Piece {
    match (line.first(), line.last()) {
        (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')) => Piece::Value(line),
        (Some(b'{' | b'['), _) => Piece::malformed(line, "the line is cut short"),
        _ => Piece::malformed(line, "the line is not a JSON object"),
    }
}

//! JSON arrays of records, Reports API pages, and values one after another.
//!
//! Arrays and the `items` of pages are taken apart while they stream, so that a file of one array
//! needs no more memory than its largest record. Commas are not insisted on; whether a record is
//! valid JSON is for its head to say.

use std::io;

use exfilwatch_model::record::RECORD_BYTES_MAX;

use super::blocks::{Blocks, Taken};
use super::scanner::Scanner;
use super::shape::{Shape, shape};
use super::text::{BYTE_ORDER_MARK, Piece};

/// Where in the text the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of every value.
    Top,
    /// In an array at the top.
    Array,
    /// In the `items` of a page.
    Items,
    /// In a page, behind its `items`.
    PageTail,
}

pub(super) struct Values {
    blocks: Blocks,
    place: Place,
}

impl Values {
    pub(super) fn new(blocks: Blocks) -> Self {
        Self {
            blocks,
            place: Place::Top,
        }
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(super) fn offset(&self) -> u64 {
        self.blocks.offset()
    }

    /// The next element, and the offset where it begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(Piece, u64)>> {
        loop {
            let top = self.place == Place::Top;
            self.blocks.skip_while(|byte| {
                byte.is_ascii_whitespace()
                    || byte == b','
                    || (top && BYTE_ORDER_MARK.contains(&byte))
            })?;
            let Some(first) = self.blocks.first()? else {
                return if top { Ok(None) } else { Err(not_closed()) };
            };
            match (self.place, first) {
                (Place::Top, b'[') => self.enter(1, Place::Array),
                (Place::Array, b']') => self.enter(1, Place::Top),
                (Place::Items, b']') => self.enter(1, Place::PageTail),
                (Place::PageTail, _) => self.leave_page()?,
                (Place::Top, b'{') => match self.items()? {
                    Some(items) => self.enter(items, Place::Items),
                    None => return self.element().map(Some),
                },
                (Place::Array | Place::Items, b'{' | b'[') => return self.element().map(Some),
                (_, b'}' | b']') => return Ok(Some(self.stray_bracket())),
                (Place::Top | Place::Array | Place::Items, _) => return self.scalar().map(Some),
            }
        }
    }

    fn enter(&mut self, behind: usize, place: Place) {
        self.blocks.skip(behind);
        self.place = place;
    }

    /// Where the items of the page begin, if the object that begins here is a page.
    fn items(&mut self) -> io::Result<Option<usize>> {
        loop {
            match shape(self.blocks.unread()) {
                Shape::Page { items } => return Ok(Some(items)),
                Shape::Incomplete if self.blocks.unread().len() <= RECORD_BYTES_MAX => {
                    if !self.blocks.more()? {
                        return Ok(None);
                    }
                }
                _ => return Ok(None),
            }
        }
    }

    /// Members behind `items` hold no records.
    fn leave_page(&mut self) -> io::Result<()> {
        let mut scanner = Scanner::inside();
        self.place = Place::Top;
        if self.blocks.skip_until(|part| scanner.close(part))? {
            Ok(())
        } else {
            Err(not_closed())
        }
    }

    fn element(&mut self) -> io::Result<(Piece, u64)> {
        let start = self.blocks.offset();
        let mut scanner = Scanner::outside();
        let taken = self.blocks.take_until(|part| scanner.close(part))?;
        let piece = match taken {
            Taken::Whole(bytes) if bytes.ends_with(b"}") || bytes.ends_with(b"]") => {
                Piece::Value(bytes)
            }
            Taken::Whole(bytes) => Piece::malformed(bytes, "a line ends inside a string"),
            Taken::Large(front) => {
                // A bracket that is never closed makes one record of all that follows. Reading
                // goes on where a line begins with a value, if that comes first.
                let mut lines = ValueLine::default();
                self.blocks.skip_until(|part| {
                    let (closed, line) = (scanner.close(part), lines.find(part));
                    closed.into_iter().chain(line).min()
                })?;
                Piece::too_large(front)
            }
            Taken::Cut(bytes) => Piece::malformed(bytes, "the text ends inside the record"),
        };
        Ok((piece, start))
    }

    /// Text that is no object and no array: to the line's end at the top, else to the next comma.
    fn scalar(&mut self) -> io::Result<(Piece, u64)> {
        let start = self.blocks.offset();
        let top = self.place == Place::Top;
        let mut scanner = Scanner::outside();
        let taken = self.blocks.take_until(|part| {
            if top {
                memchr::memchr(b'\n', part)
            } else {
                scanner.scalar(part)
            }
        })?;
        let piece = match taken {
            Taken::Whole(bytes) | Taken::Cut(bytes) => Piece::malformed(bytes, "not a JSON object"),
            Taken::Large(front) => {
                self.blocks.skip_until(|part| memchr::memchr(b'\n', part))?;
                Piece::too_large(front)
            }
        };
        Ok((piece, start))
    }

    fn stray_bracket(&mut self) -> (Piece, u64) {
        let start = self.blocks.offset();
        (
            Piece::malformed(self.blocks.take(1), "a bracket that closes nothing"),
            start,
        )
    }
}

/// Finds a line that begins with a value, in parts.
#[derive(Default)]
struct ValueLine {
    at_line_start: bool,
}

impl ValueLine {
    fn find(&mut self, part: &[u8]) -> Option<usize> {
        let begins_value = |byte: Option<&u8>| matches!(byte, Some(b'{' | b'['));
        if self.at_line_start && begins_value(part.first()) {
            return Some(0);
        }
        self.at_line_start = part
            .last()
            .map_or(self.at_line_start, |byte| *byte == b'\n');
        memchr::memchr_iter(b'\n', part)
            .map(|at| at + 1)
            .find(|at| begins_value(part.get(*at)))
    }
}

fn not_closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the text ends inside an array of records: the file seems to be cut short",
    )
}

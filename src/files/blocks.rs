//! The decoded text in blocks of 1 MiB, of which records are slices.
//!
//! A reader looks at `unread()`, takes what is whole, and asks for `more()` when the rest is not:
//! then what is left is copied to the front of a new block. `take_until` is the bounded form.

use std::io::{self, Read};

use bytes::Bytes;
use exfilwatch_model::record::RECORD_BYTES_MAX;

/// Bytes read at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// What `take_until` found.
pub(super) enum Taken {
    /// The piece, whole.
    Whole(Bytes),
    /// The first [`RECORD_BYTES_MAX`] bytes of a larger piece. All that was seen of it is left
    /// behind; the rest is for the caller to skip.
    Large(Bytes),
    /// The text ends before the piece does.
    Cut(Bytes),
}

/// The text, from the first byte not yet taken.
pub(super) struct Blocks {
    reader: Box<dyn Read + Send>,
    block: Bytes,
    /// Decoded bytes taken before `block`.
    taken: u64,
    ended: bool,
    failed: Option<io::Error>,
}

impl Blocks {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self {
            reader,
            block: Bytes::new(),
            taken: 0,
            ended: false,
            failed: None,
        }
    }

    /// A text that is all there.
    pub(super) fn whole(text: Bytes) -> Self {
        Self {
            block: text,
            ended: true,
            ..Self::new(Box::new(io::empty()))
        }
    }

    /// What has been read and not taken.
    pub(super) fn unread(&self) -> &[u8] {
        &self.block
    }

    /// Decoded bytes taken so far.
    pub(super) fn offset(&self) -> u64 {
        self.taken
    }

    /// Decoded bytes read so far, taken or not.
    pub(super) fn offset_read(&self) -> u64 {
        self.taken + self.block.len() as u64
    }

    /// Takes the next `count` unread bytes (or what there is), without a copy.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        let bytes = self.block.split_to(count.min(self.block.len()));
        self.taken += bytes.len() as u64;
        bytes
    }

    /// Leaves the next `count` bytes behind.
    pub(super) fn skip(&mut self, count: usize) {
        drop(self.take(count));
    }

    /// Reads on behind `unread()`; false where the text ends. A read error is told once
    /// everything before it has been given.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        if let Some(error) = self.failed.take() {
            self.ended = true;
            return Err(error);
        }
        if self.ended {
            return Ok(false);
        }
        let mut block = Vec::with_capacity(self.block.len() + BLOCK_BYTES);
        block.extend_from_slice(&self.block);
        let before = block.len();
        let read = (&mut self.reader)
            .take(BLOCK_BYTES as u64)
            .read_to_end(&mut block);
        let grown = block.len() > before;
        self.ended = matches!(read, Ok(count) if count < BLOCK_BYTES);
        self.block = Bytes::from(block);
        match read {
            Ok(_) => Ok(grown),
            Err(error) if grown => {
                self.failed = Some(error);
                Ok(true)
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    /// The first unread byte, reading on if need be; `None` at the end.
    pub(super) fn first(&mut self) -> io::Result<Option<u8>> {
        while self.block.is_empty() {
            if !self.more()? {
                return Ok(None);
            }
        }
        Ok(self.block.first().copied())
    }

    /// Takes bytes up to the end that `end` finds. It is shown every byte once, in parts, and
    /// answers with an index into the part it sees.
    pub(super) fn take_until(
        &mut self,
        mut end: impl FnMut(&[u8]) -> Option<usize>,
    ) -> io::Result<Taken> {
        let mut seen = 0;
        loop {
            if let Some(found) = end(&self.block[seen..]) {
                return Ok(Taken::Whole(self.take(seen + found)));
            }
            seen = self.block.len();
            if seen > RECORD_BYTES_MAX {
                let front = Bytes::copy_from_slice(&self.block[..RECORD_BYTES_MAX]);
                self.skip(seen);
                return Ok(Taken::Large(front));
            }
            if !self.more()? {
                return Ok(Taken::Cut(self.take(seen)));
            }
        }
    }

    /// Leaves behind everything up to the end that `end` finds; false where it is not found.
    pub(super) fn skip_until(
        &mut self,
        mut end: impl FnMut(&[u8]) -> Option<usize>,
    ) -> io::Result<bool> {
        loop {
            let found = end(&self.block);
            self.skip(found.unwrap_or(self.block.len()));
            if found.is_some() {
                return Ok(true);
            }
            if !self.more()? {
                return Ok(false);
            }
        }
    }

    /// Leaves behind what `blank` says is blank.
    pub(super) fn skip_while(&mut self, blank: impl Fn(u8) -> bool) -> io::Result<()> {
        loop {
            let found = self.block.iter().position(|byte| !blank(*byte));
            self.skip(found.unwrap_or(self.block.len()));
            if found.is_some() || !self.more()? {
                return Ok(());
            }
        }
    }
}

/// Reads what is unread and then the rest: for a reader of its own, which `offset` then counts for.
impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.first()?.is_none() {
            return Ok(0);
        }
        let bytes = self.take(buffer.len());
        if let Some(front) = buffer.get_mut(..bytes.len()) {
            front.copy_from_slice(&bytes);
        }
        Ok(bytes.len())
    }
}

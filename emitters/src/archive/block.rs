//! A block: one batch of one file. A skippable zstd frame with what is in it (CRC, then JSON), and a
//! zstd frame with the lines. Whoever decompresses the file sees the lines only; whoever searches it
//! reads the heads and jumps over what cannot hold what is searched for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::actors;

/// The magic number of our skippable frames, one of the sixteen that zstd leaves to applications.
const MAGIC: [u8; 4] = [0x5E, 0x2A, 0x4D, 0x18];
/// Magic number and length of a skippable frame, and our checksum.
const PREFIX_BYTES: usize = 12;
/// Largest head: beyond the actors' bound there is little in it.
const HEAD_BYTES_MAX: u32 = 1 << 20;
/// Most actors in the index of a block, each of at most so many bytes; of a block with more, every
/// search reads the lines.
const ACTORS_MAX: usize = 2_000;
const ACTOR_BYTES_MAX: usize = 320;
/// Largest block decoded: a batch, or one record beyond that.
const LINES_BYTES_MAX: u64 = 256 << 20;
const LEVEL: i32 = 3;

/// What stands before the lines of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Bytes of the frame with the lines.
    pub(super) bytes: u64,
    /// CRC32C of that frame.
    pub(super) crc: u32,
    pub(super) records: u64,
    pub(super) from: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    /// All actors, by all their names; `None` where there are too many.
    pub(super) actors: Option<BTreeSet<String>>,
}

/// A block in the making.
#[derive(Debug, Default)]
pub(super) struct Block {
    lines: Vec<u8>,
    records: u64,
    span: Option<(DateTime<Utc>, DateTime<Utc>)>,
    actors: BTreeSet<String>,
    /// Whether whose record it is could not be told of one.
    is_unclear: bool,
}

impl Block {
    pub(super) fn push(&mut self, line: &[u8], time: DateTime<Utc>) {
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        self.records += 1;
        let (from, until) = self.span.unwrap_or((time, time));
        self.span = Some((from.min(time), until.max(time)));
        if self.actors.len() <= ACTORS_MAX {
            match actors::of(line) {
                Some(names) => self.actors.extend(names),
                None => self.is_unclear = true,
            }
        }
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn encode(self) -> io::Result<Vec<u8>> {
        let frame = zstd::bulk::compress(&self.lines, LEVEL)?;
        let (from, until) = self.span.unwrap_or_default();
        let fits = !self.is_unclear
            && self.actors.len() <= ACTORS_MAX
            && self.actors.iter().all(|name| name.len() <= ACTOR_BYTES_MAX);
        let mut head = Head {
            bytes: frame.len() as u64,
            crc: crc32c::crc32c(&frame),
            records: self.records,
            from,
            until,
            actors: fits.then_some(self.actors),
        };
        let mut json = serde_json::to_vec(&head)?;
        // Names full of escapes are longer in JSON; a head that nobody reads would hide the block.
        if json.len() + 4 > HEAD_BYTES_MAX as usize {
            head.actors = None;
            json = serde_json::to_vec(&head)?;
        }
        let head = json;
        let length = u32::try_from(head.len() + 4).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + head.len() + frame.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&frame);
        Ok(bytes)
    }
}

/// A block that was found in a file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: Head,
    /// Where it begins.
    pub(super) start: u64,
    /// Where its lines begin.
    lines: u64,
    /// Bytes before it that are no block.
    pub(super) damaged: u64,
}

impl Found {
    pub(super) fn end(&self) -> u64 {
        self.lines + self.head.bytes
    }
}

/// The blocks of a file, by their heads.
pub(super) struct Blocks<'a> {
    file: &'a mut File,
    length: u64,
    at: u64,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(file: &'a mut File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            length,
            at: 0,
        })
    }

    /// The next block. Between blocks there is nothing, unless the file is damaged: then what is
    /// damaged is jumped over. `None` after the last whole one.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        let begun = self.at;
        if let Some((head, lines)) = head(self.file, begun, self.length)? {
            return Ok(Some(self.found(head, begun, lines, 0)));
        }
        let mut from = begun + 1;
        while let Some(start) = next_magic(self.file, from, self.length)? {
            if let Some((head, lines)) = head(self.file, start, self.length)? {
                return Ok(Some(self.found(head, start, lines, start - begun)));
            }
            from = start + 1;
        }
        Ok(None)
    }

    fn found(&mut self, head: Head, start: u64, lines: u64, damaged: u64) -> Found {
        let found = Found {
            head,
            start,
            lines,
            damaged,
        };
        self.at = found.end();
        found
    }

    /// The lines of a block. An error of the kind `InvalidData` where they are damaged.
    pub(super) fn lines(&mut self, found: &Found) -> io::Result<Vec<u8>> {
        lines(self.file, found)
    }
}

/// The head of a whole block at a place, and where its lines begin.
fn head(file: &mut File, start: u64, length: u64) -> io::Result<Option<(Head, u64)>> {
    if length.saturating_sub(start) < PREFIX_BYTES as u64 {
        return Ok(None);
    }
    let mut prefix = [0; PREFIX_BYTES];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut prefix)?;
    let [m0, m1, m2, m3, l0, l1, l2, l3, c0, c1, c2, c3] = prefix;
    let bytes = u32::from_le_bytes([l0, l1, l2, l3]);
    let lines = start + 8 + u64::from(bytes);
    if [m0, m1, m2, m3] != MAGIC || !(4..=HEAD_BYTES_MAX).contains(&bytes) || lines > length {
        return Ok(None);
    }
    let mut json = vec![0; bytes as usize - 4];
    file.read_exact(&mut json)?;
    if crc32c::crc32c(&json) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(None);
    }
    let head = serde_json::from_slice::<Head>(&json).ok();
    let fits = |head: &Head| {
        lines
            .checked_add(head.bytes)
            .is_some_and(|end| end <= length)
    };
    Ok(head.filter(fits).map(|head| (head, lines)))
}

fn next_magic(file: &mut File, from: u64, length: u64) -> io::Result<Option<u64>> {
    const CHUNK: usize = 64 << 10;
    let mut at = from;
    while at < length {
        let mut chunk = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        // A little over, so that a magic number over the edge is seen.
        Read::by_ref(file)
            .take((CHUNK + MAGIC.len() - 1) as u64)
            .read_to_end(&mut chunk)?;
        if let Some(found) = memchr::memmem::find(&chunk, &MAGIC) {
            return Ok(Some(at + found as u64));
        }
        at += CHUNK as u64;
    }
    Ok(None)
}

fn lines(file: &mut File, found: &Found) -> io::Result<Vec<u8>> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    file.seek(SeekFrom::Start(found.lines))?;
    let mut frame = Vec::new();
    Read::by_ref(file)
        .take(found.head.bytes)
        .read_to_end(&mut frame)?;
    if crc32c::crc32c(&frame) != found.head.crc {
        return Err(damaged("the checksum of a block does not hold"));
    }
    let mut lines = Vec::new();
    zstd::Decoder::new(&*frame)?
        .take(LINES_BYTES_MAX)
        .read_to_end(&mut lines)?;
    Ok(lines)
}

/// Takes a torn end off; where the file ends after that. Only the last block is looked at whole: the
/// ones before it were confirmed, and what is damaged among them stays as it is.
pub(super) fn heal(file: &mut File, path: &Path) -> io::Result<u64> {
    let mut blocks = Blocks::new(file)?;
    let (length, mut last) = (blocks.length, None);
    while let Some(found) = blocks.next()? {
        if found.damaged > 0 {
            tracing::error!(
                path = %path.display(), bytes = found.damaged, at = found.start,
                "a stretch of the archive is damaged"
            );
        }
        last = Some(found);
    }
    let end = match &last {
        None => 0,
        Some(last) => match blocks.lines(last) {
            Ok(_) => last.end(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => last.start,
            Err(error) => return Err(error),
        },
    };
    if end < length {
        tracing::warn!(
            path = %path.display(), bytes = length - end,
            "a block torn by a crash was taken off"
        );
        file.set_len(end)?;
    }
    Ok(end)
}

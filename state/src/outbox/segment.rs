//! Segment files: their names, their first bytes, and a walk over their frames.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use exfilwatch_model::{Kind, TenantId};

use super::frame::{HEAD_BYTES_MAX, Head};
use crate::contract::StateError;
use crate::disk;

/// `EXFWSEG1` and the number of the segment (u64, little endian).
pub(crate) const START: u64 = 16;
const MAGIC: &[u8; 8] = b"EXFWSEG1";

/// Path of a segment.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.seg"))
}

/// Numbers and sizes of the segments of a folder, in order. An absent folder has none.
pub(crate) fn list(folder: &Path) -> Result<Vec<(u64, u64)>, StateError> {
    let failed = || disk::failed("listing", folder);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            segments.push((number, entry.metadata().map_err(failed())?.len()));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// First bytes of a segment.
pub(crate) fn preamble(number: u64) -> Vec<u8> {
    [&MAGIC[..], &number.to_le_bytes()].concat()
}

/// A segment opened for reading. Reads at positions, so several readers may share a file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    path: PathBuf,
    file: File,
}

/// What stands at an offset.
#[derive(Debug)]
pub(crate) enum Found {
    /// A frame whose header is good.
    Frame(Head),
    /// Nothing more: the file ends here.
    End,
    /// Bytes that are no header; what follows cannot be told apart.
    Damaged,
}

impl Segment {
    /// `None` when the file is not there.
    pub(crate) fn open(folder: &Path, number: u64) -> Result<Option<Self>, StateError> {
        let path = path(folder, number);
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { number, path, file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk::failed("opening", &path)(error)),
        }
    }

    /// Whether the first bytes are a segment's.
    pub(crate) fn has_preamble(&self) -> Result<bool, StateError> {
        let expected = preamble(self.number);
        let mut bytes = vec![0; expected.len()];
        let read = self.read_up_to(0, &mut bytes)?;
        Ok(read == bytes.len() && bytes == expected)
    }

    /// The frame header at an offset.
    pub(crate) fn head(&self, offset: u64) -> Result<Found, StateError> {
        let mut bytes = [0; HEAD_BYTES_MAX];
        let read = self.read_up_to(offset, &mut bytes)?;
        if read == 0 {
            return Ok(Found::End);
        }
        let head = bytes.get(..read).and_then(Head::decode);
        Ok(match head {
            Some(head) => Found::Frame(head),
            // It may have been emptied while it was read: by then no lane needs it.
            None if self.is_empty()? => Found::End,
            None => Found::Damaged,
        })
    }

    fn is_empty(&self) -> Result<bool, StateError> {
        let about = self.file.metadata();
        let about = about.map_err(disk::failed("reading", &self.path))?;
        Ok(about.len() <= START)
    }

    /// The body of the frame at an offset; `None` when it is not what the header was written for.
    pub(crate) fn body(&self, offset: u64, head: &Head) -> Result<Option<Bytes>, StateError> {
        let mut body = vec![0; head.body_bytes];
        let read = self.read_up_to(offset + head.head_bytes(), &mut body)?;
        Ok((read == body.len() && head.fits(&body)).then(|| body.into()))
    }

    fn read_up_to(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, StateError> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(disk::failed("reading", &self.path)(error)),
            }
        }
        Ok(done)
    }
}

/// Whose frames of which kinds a segment holds; `None` where that does not read.
pub(crate) fn content(
    folder: &Path,
    number: u64,
) -> Result<Option<BTreeSet<(Kind, TenantId)>>, StateError> {
    let Some(segment) = Segment::open(folder, number)? else {
        return Ok(None);
    };
    let mut content = BTreeSet::new();
    let mut offset = START;
    loop {
        match segment.head(offset)? {
            Found::Frame(head) => {
                offset += head.frame_bytes();
                content.insert((head.kind, head.tenant));
            }
            Found::End => return Ok(Some(content)),
            Found::Damaged => return Ok(None),
        }
    }
}

/// Offset after the last frame of the segment that is whole; `None` when there is none.
pub(crate) fn last_good_end(folder: &Path, number: u64) -> Result<Option<u64>, StateError> {
    let Some(segment) = Segment::open(folder, number)? else {
        return Ok(None);
    };
    let mut good_end = None;
    let mut offset = START;
    while let Found::Frame(head) = segment.head(offset)? {
        let next = offset + head.frame_bytes();
        if segment.body(offset, &head)?.is_some() {
            good_end = Some(next);
        }
        offset = next;
    }
    Ok(good_end)
}

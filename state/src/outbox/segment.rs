//! Segment files: their names, their first bytes, and a walk over their frames.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use exfilwatch_model::{Kind, TenantId};

use super::frame::{self, HEAD_BYTES_MAX, Head};
use crate::contract::StateError;
use crate::disk;

/// `EXFWSEG1` and the number of the segment (u64, little endian).
pub(crate) const START: u64 = 16;
const MAGIC: &[u8; 8] = b"EXFWSEG1";
/// Smaller segments are not thinned out: a file system gives whole blocks.
pub(crate) const THINNED_BYTES_MIN: u64 = 64 << 10;
/// What the copy of a segment that is thinned out is called by, until it takes the segment's place.
const THINNED: &str = "thin";
/// Bytes of a block, as `stat` counts them on every system.
const BLOCK_BYTES: u64 = 512;

/// Bytes of the frames of a segment, by kind and tenant.
pub(crate) type Content = BTreeMap<(Kind, TenantId), u64>;

/// Path of a segment.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.seg"))
}

/// Numbers of the segments of a folder, in order, and what each takes on the disk. An absent folder has none.
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
            segments.push((number, on_disk(&entry.metadata().map_err(failed())?)));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// What a file takes, without its holes.
fn on_disk(about: &Metadata) -> u64 {
    if about.len() < THINNED_BYTES_MIN {
        return about.len();
    }
    about.len().min(about.blocks() * BLOCK_BYTES)
}

/// What a segment takes on the disk.
pub(crate) fn bytes_of(folder: &Path, number: u64) -> Result<u64, StateError> {
    let path = path(folder, number);
    let about = fs::metadata(&path).map_err(disk::failed("reading", path))?;
    Ok(on_disk(&about))
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

    /// Where the frame without items ends inside which an offset lies; `None` where none does.
    pub(crate) fn end_of_filler_over(&self, offset: u64) -> Result<Option<u64>, StateError> {
        let mut at = START;
        while at < offset {
            let Found::Frame(head) = self.head(at)? else {
                return Ok(None);
            };
            at += head.frame_bytes();
            if at > offset {
                return Ok(head.is_filler().then_some(at));
            }
        }
        Ok(None)
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

    /// The bytes between two offsets, as far as there are some.
    fn bytes(&self, from: u64, until: u64) -> Result<Vec<u8>, StateError> {
        let mut bytes = vec![0; usize::try_from(until - from).unwrap_or(0)];
        let read = self.read_up_to(from, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
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
pub(crate) fn content(folder: &Path, number: u64) -> Result<Option<Content>, StateError> {
    let Some(segment) = Segment::open(folder, number)? else {
        return Ok(None);
    };
    let mut content = Content::new();
    let mut offset = START;
    loop {
        match segment.head(offset)? {
            Found::Frame(head) => {
                let bytes = head.frame_bytes();
                offset += bytes;
                if !head.is_filler() {
                    *content.entry((head.kind, head.tenant)).or_default() += bytes;
                }
            }
            Found::End => return Ok(Some(content)),
            Found::Damaged => return Ok(None),
        }
    }
}

/// Leaves only these frames of a segment that is written no more. What was between them becomes frames without
/// items whose bodies are holes in the file, so every position stays what it was, also those inside such a frame (a walk
/// goes on behind it); who is reading the file reads the old one on. After a crash it is the old one or the new one. `false` where the segment does not read to
/// its end: then it stays as it is.
pub(crate) fn thin(folder: &Path, number: u64, kept: &Content) -> Result<bool, StateError> {
    let Some(segment) = Segment::open(folder, number)? else {
        return Ok(false);
    };
    let temporary = segment.path.with_extension(THINNED);
    let thinned = thin_into(&segment, &temporary, kept);
    if !matches!(thinned, Ok(true)) {
        // Half a copy is of no use, and takes room that may be what was missing.
        fs::remove_file(&temporary).ok();
        return thinned;
    }
    fs::rename(&temporary, &segment.path).map_err(disk::failed("putting in place", &temporary))?;
    disk::sync_folder(folder)?;
    Ok(true)
}

fn thin_into(segment: &Segment, temporary: &Path, kept: &Content) -> Result<bool, StateError> {
    let file = disk::create(temporary)?;
    let write = |bytes: &[u8], at| {
        file.write_all_at(bytes, at)
            .map_err(disk::failed("writing", temporary))
    };
    write(&preamble(segment.number), 0)?;
    let fill = |mut from: u64, until: u64| {
        while from < until {
            let (head, taken) = frame::filler(until - from);
            write(&head, from)?;
            from += taken;
        }
        Ok::<_, StateError>(())
    };
    let (mut offset, mut free_from) = (START, START);
    loop {
        match segment.head(offset)? {
            Found::Frame(head) => {
                let next = offset + head.frame_bytes();
                if !head.is_filler() && kept.contains_key(&(head.kind, head.tenant.clone())) {
                    fill(free_from, offset)?;
                    write(&segment.bytes(offset, next)?, offset)?;
                    free_from = next;
                }
                offset = next;
            }
            Found::End => break,
            Found::Damaged => return Ok(false),
        }
    }
    fill(free_from, offset)?;
    file.set_len(offset)
        .and_then(|()| file.sync_all())
        .map_err(disk::failed("writing", temporary))?;
    Ok(true)
}

/// Removes copies that a process which ended did not get to put in place.
pub(crate) fn remove_unfinished(folder: &Path) -> Result<(), StateError> {
    let failed = || disk::failed("listing", folder);
    for entry in fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == THINNED)
        {
            fs::remove_file(&path).map_err(disk::failed("removing", path))?;
        }
    }
    Ok(())
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
        if head.is_filler() || segment.body(offset, &head)?.is_some() {
            good_end = Some(next);
        }
        offset = next;
    }
    Ok(good_end)
}

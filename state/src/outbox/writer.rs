//! The one writer of the outbox: append, sync, publish; or cut back to what was published.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::segment::{self, START};
use super::walk::Damage;
use super::{FRAME_BYTES_TARGET, frame};
use exfilwatch_model::{Envelope, Kind, TenantId};

use crate::commit::{Frame, Position};
use crate::contract::StateError;
use crate::disk;

/// Memory kept for encoding between commits; a single large item may need more for a while.
const BUFFER_KEPT_BYTES: usize = 2 * FRAME_BYTES_TARGET;

/// Appends frames to the segments of a folder. There is one for a folder; the lock of the state
/// folder sees to that.
#[derive(Debug)]
pub struct OutboxWriter {
    folder: PathBuf,
    segment_bytes_max: u64,
    /// The open segment; `None` before the first frame, and where the last one is not to be added to.
    file: Option<File>,
    /// Number of the last segment, open or not.
    number: u64,
    /// End of the last segment, unpublished frames included.
    length: u64,
    published: Position,
    /// Segments were created since the folder was synced.
    created: bool,
    buffer: Vec<u8>,
}

impl OutboxWriter {
    /// Opens the outbox and cuts it to `end`, which the store holds: what lies behind was never
    /// committed. A last segment that is shorter than that has lost committed items; it is left
    /// as it is, the damage is returned, and writing goes on in a new one.
    pub(crate) fn open(
        folder: &Path,
        end: Position,
        segment_bytes_max: u64,
    ) -> Result<(Self, Option<Damage>), StateError> {
        disk::make_private_folder(folder)?;
        segment::remove_unfinished(folder)?;
        let mut writer = Self {
            folder: folder.to_owned(),
            segment_bytes_max,
            file: None,
            number: end.segment,
            length: end.offset,
            published: end,
            created: false,
            buffer: Vec::new(),
        };
        let damage = writer.cut()?;
        Ok((writer, damage))
    }

    pub(crate) fn limit_segments(&mut self, bytes_max: u64) {
        self.segment_bytes_max = self.segment_bytes_max.min(bytes_max);
    }

    /// End of what is appended, published or not.
    pub(crate) fn end(&self) -> Position {
        Position {
            segment: self.number,
            offset: self.length,
            item: 0,
        }
    }

    /// End of what counts.
    pub fn published(&self) -> Position {
        self.published
    }

    /// Appends the items, as several frames when they are many. Returns the bytes written.
    pub(crate) fn append(&mut self, frame: &Frame) -> Result<u64, StateError> {
        let mut written = 0;
        let mut rest = &frame.items[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(items_of_one_frame(rest));
            written += self.append_one(frame.kind, &frame.tenant, now)?.1;
            rest = later;
        }
        Ok(written)
    }

    /// Appends the items as one frame. Returns where it is and its bytes.
    pub(crate) fn append_one(
        &mut self,
        kind: Kind,
        tenant: &TenantId,
        items: &[Envelope],
    ) -> Result<(Position, u64), StateError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        frame::encode(kind, tenant, items, &mut buffer)?;
        let bytes = buffer.len() as u64;
        self.write(&buffer)?;
        buffer.shrink_to(BUFFER_KEPT_BYTES);
        self.buffer = buffer;
        let at = Position {
            offset: self.length - bytes,
            ..self.end()
        };
        Ok((at, bytes))
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&mut self) -> Result<(), StateError> {
        if let Some(file) = &self.file {
            let path = segment::path(&self.folder, self.number);
            file.sync_data().map_err(disk::failed("syncing", path))?;
        }
        if std::mem::take(&mut self.created) {
            disk::sync_folder(&self.folder)?;
        }
        Ok(())
    }

    /// What is appended counts from now on. The store must already hold this end.
    pub(crate) fn publish(&mut self) -> Position {
        self.published = self.end();
        self.published
    }

    /// Takes back what was appended since the last publish.
    pub(crate) fn cut(&mut self) -> Result<Option<Damage>, StateError> {
        let end = self.published;
        self.file = None;
        self.number = end.segment;
        self.length = end.offset;
        for (number, _) in segment::list(&self.folder)? {
            if number > end.segment {
                let path = segment::path(&self.folder, number);
                fs::remove_file(&path).map_err(disk::failed("removing", path))?;
            }
        }
        if end.segment == 0 {
            return Ok(None);
        }
        let path = segment::path(&self.folder, end.segment);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some(self.lost(0, "the segment is not there")));
            }
            Err(error) => return Err(disk::failed("opening", path)(error)),
        };
        let length = file
            .metadata()
            .map_err(disk::failed("reading", &path))?
            .len();
        if length < end.offset {
            return Ok(Some(
                self.lost(length, "the segment is shorter than committed"),
            ));
        }
        file.set_len(end.offset)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(disk::failed("cutting", path))?;
        self.file = Some(file);
        Ok(None)
    }

    fn lost(&self, length: u64, reason: &str) -> Damage {
        Damage {
            from: Position {
                offset: length.max(START),
                ..self.published
            },
            until: self.published,
            reason: reason.to_owned(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let full = self.length > START
            && self.length.saturating_add(bytes.len() as u64) > self.segment_bytes_max;
        if full || self.file.is_none() {
            self.roll()?;
        }
        let path = segment::path(&self.folder, self.number);
        if let Some(file) = &mut self.file {
            file.write_all(bytes)
                .map_err(disk::failed("appending to", path))?;
            self.length += bytes.len() as u64;
        }
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StateError> {
        self.sync()?;
        let number = self.number + 1;
        let path = segment::path(&self.folder, number);
        let mut file = disk::create(&path)?;
        file.write_all(&segment::preamble(number))
            .map_err(disk::failed("appending to", path))?;
        self.file = Some(file);
        self.number = number;
        self.length = START;
        self.created = true;
        Ok(())
    }
}

/// How many of the items go into one frame; at least one.
fn items_of_one_frame(items: &[Envelope]) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for item in items {
        bytes += frame::item_bytes(item);
        count += 1;
        if bytes >= FRAME_BYTES_TARGET {
            break;
        }
    }
    count
}

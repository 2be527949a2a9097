//! Finding records again: by actor and time, reading only the blocks that may hold them.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{StreamId, TenantId, Window};

use super::block::Blocks;
use super::limits::Removed;
use super::{actors, place};

/// Why an archive could not be searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// There is nothing to search.
    #[error("there is no archive in {0}")]
    None(PathBuf),
    /// A file or folder could not be read.
    #[error("reading {path} of the archive")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is searched for.
#[derive(Debug, Clone)]
pub struct Search<'a> {
    /// Name of who acted; `None` for everybody.
    pub actor: Option<&'a str>,
    /// Event times.
    pub window: Window,
    /// `None` for all.
    pub tenant: Option<&'a TenantId>,
    /// `None` for all.
    pub stream: Option<&'a StreamId>,
}

/// The hours of a stream of which an archive has records.
pub fn hours(archive: &Path, stream: &StreamId) -> Result<BTreeSet<DateTime<Utc>>, ArchiveError> {
    let files = place::files_of_stream(archive, stream, |_, _| true);
    let files = files.map_err(|source| ArchiveError::Read {
        path: archive.to_owned(),
        source,
    })?;
    Ok(files.iter().map(|file| file.place.hour()).collect())
}

/// A record that was found.
#[derive(Debug, Clone)]
pub struct Archived {
    /// Where it came from.
    pub stream: StreamId,
    /// The hour it lies under: of its own time, or of its page where it has none that can be.
    pub hour: DateTime<Utc>,
    /// The record, on one line.
    pub record: Bytes,
}

/// What a search went through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Searched {
    /// Files of the hours in question.
    pub files: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Of them, read: the index of the others says that the actor is not there.
    pub blocks_read: u64,
    /// Blocks and stretches that are damaged and were left out.
    pub damaged: u64,
    /// What the limits have taken out before.
    pub removed: Removed,
}

impl Search<'_> {
    /// Hands every record of the archive that may be meant to `found`, each once, hour by hour; ends
    /// early where that gives `false`. Hours and blocks are only as fine as they are: it is for the
    /// caller to look at the record's own time.
    pub fn run(
        &self,
        archive: &Path,
        found: &mut dyn FnMut(Archived) -> bool,
    ) -> Result<Searched, ArchiveError> {
        if !archive.is_dir() {
            return Err(ArchiveError::None(archive.to_owned()));
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ArchiveError::Read { path, source }
        };
        let mut searched = Searched {
            removed: Removed::read(archive).map_err(failed(archive))?,
            ..Searched::default()
        };
        let wanted = |stream: &StreamId, hour: DateTime<Utc>| {
            self.tenant.is_none_or(|tenant| tenant == stream.tenant())
                && self.stream.is_none_or(|wanted| wanted == stream)
                && hour < self.window.until()
                && hour + TimeDelta::hours(1) > self.window.from()
        };
        let actor = self.actor.map(actors::folded);
        let files = match self.stream {
            Some(stream) => place::files_of_stream(archive, stream, wanted),
            None => place::files(archive, wanted),
        };
        for file in files.map_err(failed(archive))? {
            searched.files += 1;
            // What was written twice because its receipt was lost lies in the same file.
            let mut seen = HashSet::new();
            let mut go_on = |record: Bytes| {
                let is_new = seen.insert(digest(&record));
                !is_new
                    || found(Archived {
                        stream: file.place.stream().clone(),
                        hour: file.place.hour(),
                        record,
                    })
            };
            let read = self.file(&file.path, actor.as_deref(), &mut searched, &mut go_on);
            if !read.map_err(failed(&file.path))? {
                break;
            }
        }
        Ok(searched)
    }

    /// `false` where the caller has enough.
    fn file(
        &self,
        path: &Path,
        actor: Option<&str>,
        searched: &mut Searched,
        found: &mut dyn FnMut(Bytes) -> bool,
    ) -> io::Result<bool> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            // The limits took it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut blocks = Blocks::new(&mut file)?;
        while let Some(block) = blocks.next()? {
            searched.blocks += 1;
            searched.damaged += u64::from(block.damaged > 0);
            let head = &block.head;
            let may_hold = |actor: &str| {
                let known = head.actors.as_ref();
                known.is_none_or(|known| known.contains(actor))
            };
            let in_time = head.from < self.window.until() && head.until >= self.window.from();
            if !in_time || !actor.is_none_or(may_hold) {
                continue;
            }
            searched.blocks_read += 1;
            let lines = match blocks.lines(&block) {
                Ok(lines) => lines,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(path = %path.display(), at = block.start, %error, "a block of the archive was left out");
                    searched.damaged += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for line in lines.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
                let is_meant = actor
                    .is_none_or(|actor| actors::of(line).is_none_or(|names| names.contains(actor)));
                // A copy: a slice would keep the whole block in memory.
                if is_meant && !found(Bytes::copy_from_slice(line)) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// 128 bits that tell records apart.
fn digest(record: &[u8]) -> uuid::Uuid {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, record)
}

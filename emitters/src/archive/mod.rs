//! The archive: raw records as JSON lines by hour, tenant and stream, compressed, with an index by
//! actor in each file, for as many days and bytes as are allowed.
//!
//! `FOLDER/TENANT/CONNECTOR/STREAM/2026-05-01T09.ndjson.zst` holds the records whose event time lies
//! in that hour. Each batch is one block (see [`block`]), so a file is never rewritten, any `zstd`
//! reads it, and what a crash cut short is no more than what was never confirmed. Which files go when
//! a limit is reached is for [`limits`] to say, finding records again for [`search`].

mod actors;
mod block;
mod limits;
mod place;
mod search;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Clock, Envelope};
use uuid::Uuid;

use crate::appending::{self, above, open_locked, sync_folder};
use crate::contract::{Delivered, EmitError, Emitter, Kept};
use crate::error::BuildError;
use crate::ndjson::{failed, line, refuse};
use crate::options::ArchiveOptions;

pub use limits::Removed;
pub use search::{ArchiveError, Archived, Search, Searched, hours};

use block::Block;
use limits::Limits;
use place::Place;

/// Most records and bytes of payload in a batch.
const BATCH_MAX: (usize, usize) = (10_000, 4 << 20);
/// A record dated further ahead of its page is kept under the hour its page was read: whoever writes
/// dates must not decide which file is the newest.
const AHEAD_MAX: TimeDelta = TimeDelta::hours(24);
/// Files whose end is known to be whole; beyond that the end is looked for anew.
const ENDS_MAX: usize = 4_096;

/// Records kept in files; see the module.
#[derive(Debug)]
pub struct Archive {
    name: String,
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    writer: Arc<Mutex<Writer>>,
}

impl Archive {
    /// `name` is `archive.NAME`. The folder is made with the first batch; the one above must exist.
    pub fn new(
        name: &str,
        options: &ArchiveOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let unusable = |reason: String| BuildError::option(name, "folder", &reason);
        let folder = options.folder.clone();
        let above = above(&folder);
        if folder.exists() && !folder.is_dir() {
            return Err(unusable(format!("{} is a file", folder.display())));
        }
        if !above.is_dir() {
            return Err(unusable(format!("{} is no folder", above.display())));
        }
        let limits = Limits::new(folder.clone(), options.days_max, options.bytes_max);
        Ok(Self {
            name: name.to_owned(),
            folder: folder.clone(),
            clock,
            writer: Arc::new(Mutex::new(Writer {
                folder,
                limits,
                ends: HashMap::new(),
                written: HashMap::new(),
            })),
        })
    }
}

#[async_trait]
impl Emitter for Archive {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> (usize, usize) {
        BATCH_MAX
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let mut delivered = Delivered::default();
        let blocks = sorted(batch, &mut delivered);
        let (writer, now) = (self.writer.clone(), self.clock.now());
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write(blocks, now)
        });
        let written = task.await.map_err(|error| EmitError::Retry {
            what: format!("writing to {}: {error}", self.folder.display()),
            after: None,
        })?;
        written.map(|()| delivered)
    }

    fn kept(&self) -> Option<Kept> {
        // While a batch is written it is not waited for: the next one says it.
        self.writer.try_lock().ok()?.limits.kept()
    }

    async fn diagnose(&self) -> Vec<Check> {
        vec![look(&self.folder)]
    }
}

/// The records of a batch by the file they belong to.
fn sorted(batch: &[Envelope], delivered: &mut Delivered) -> BTreeMap<Place, Block> {
    let mut blocks: BTreeMap<Place, Block> = BTreeMap::new();
    for (index, envelope) in batch.iter().enumerate() {
        let time = envelope
            .time
            .filter(|time| *time <= envelope.fetched_at + AHEAD_MAX)
            .unwrap_or(envelope.fetched_at);
        let Some(place) = Place::of(&envelope.stream, time) else {
            delivered.refused.push(crate::contract::Refusal {
                index,
                reason: format!("{} is no name for a folder", envelope.stream),
            });
            continue;
        };
        match line(envelope) {
            Ok(line) => blocks.entry(place).or_default().push(&line, time),
            Err(error) => refuse(index, &error, delivered),
        }
    }
    blocks
}

/// What writes; one batch after the other.
#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    limits: Limits,
    /// Where files end that were written by this process.
    ends: HashMap<PathBuf, u64>,
    /// What a batch that failed had written already: it comes again, and is not written again.
    written: HashMap<PathBuf, Uuid>,
}

impl Writer {
    fn write(
        &mut self,
        blocks: BTreeMap<Place, Block>,
        now: DateTime<Utc>,
    ) -> Result<(), EmitError> {
        let folder = self.folder.clone();
        let at_folder = |error: io::Error| failed(&folder, &error);
        self.limits.open().map_err(at_folder)?;
        // First of all: on a full disk it is what makes room.
        self.enforce(now).map_err(at_folder)?;
        for (place, block) in blocks {
            if self.limits.is_too_old(place.hour(), now) {
                self.limits.too_old(block.records());
                continue;
            }
            let path = place.path(&self.folder);
            let bytes = block.encode().map_err(|error| failed(&path, &error))?;
            let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, &bytes);
            if self.written.get(&path) == Some(&digest) {
                continue;
            }
            let added = self
                .append(&path, &bytes)
                .map_err(|error| failed(&path, &error))?;
            self.limits.grown(added);
            self.written.insert(path, digest);
        }
        self.written.clear();
        // All is written: what cannot be removed now is no reason to write it again. The next batch says so.
        if let Err(error) = self.enforce(now) {
            tracing::warn!(archive = %self.folder.display(), %error, "the archive is over its limits");
        }
        Ok(())
    }

    fn enforce(&mut self, now: DateTime<Utc>) -> io::Result<()> {
        for path in self.limits.enforce(now)? {
            self.ends.remove(&path);
        }
        Ok(())
    }

    /// Appends whole blocks and syncs them; on an error the file ends where it ended before. Returns
    /// by how much the file has grown.
    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<u64> {
        if !path.exists() {
            make_folders(above(path))?;
        }
        // Another process may have the same folder: each waits for the other's block.
        let mut file = open_locked(path)?;
        let length = file.metadata()?.len();
        let known = self.ends.get(path).is_some_and(|end| *end == length);
        let end = if known {
            length
        } else {
            block::heal(&mut file, path)?
        };
        if let Err(error) = appending::append(&mut file, path, end, bytes) {
            self.ends.remove(path);
            return Err(error);
        }
        // Not by whether the file was there: a first attempt may have made it and failed.
        if !known {
            for folder in path.ancestors().skip(1).take(place::DEPTH) {
                sync_folder(folder)?;
            }
        }
        if self.ends.len() >= ENDS_MAX {
            self.ends.clear();
        }
        let after = end + bytes.len() as u64;
        self.ends.insert(path.to_owned(), after);
        Ok(after.saturating_sub(length))
    }
}

/// Makes folders for the owner only: records name people.
fn make_folders(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}

/// Whether the archive could be written; nothing is kept of the trial.
fn look(folder: &Path) -> Check {
    let place = if folder.is_dir() {
        folder
    } else {
        above(folder)
    };
    appending::check(folder, appending::try_folder(place))
}

/// The names under which who acted in a record is found.
pub fn actors(record: &[u8]) -> BTreeSet<String> {
    actors::of(record).unwrap_or_default()
}

#[cfg(test)]
mod tests;

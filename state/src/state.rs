//! The state folder: store, outbox, quarantine and mirror under one lock, and the commit that
//! joins them.
//!
//! Order of a commit: check everything and make the batch; write and sync quarantined bytes; append
//! the frames and sync the segment; write the batch (atomic, durable) with the new end; publish the
//! end. Until the batch is on disk nothing counts, and what was appended is cut away again.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::commit::{Commit, LaneId, Position};
use crate::contract::{StateError, StateStore};
use crate::disk;
use crate::layout::{FORMAT_VERSION, Family, Key};
use crate::migrate;
use crate::mirror::{self, Mirror};
use crate::outbox::{Damage, Filter, OutboxReader, OutboxWriter, SEGMENT_BYTES_MAX};
use crate::quarantine::{QUARANTINE_BYTES_MAX, Quarantine};
use crate::rebuild::{self, RebuildReport, Untold};
use crate::sled_store::{SledStore, SledTable};
use crate::steps::{Step, Steps};
use crate::store::Store;
use crate::table::Batch;
use crate::usage::{self, Needs, OutboxUsage, Trimmed};

pub(crate) const STORE_FOLDER: &str = "store";
pub(crate) const OUTBOX_FOLDER: &str = "outbox";
pub(crate) const QUARANTINE_FOLDER: &str = "quarantine";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const FORMAT_FILE: &str = "format";
/// Seconds between two mirrors.
pub const MIRROR_SECONDS: i64 = 10;

/// How a state folder is used. The default is right in service.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment is closed before it grows beyond this.
    pub segment_bytes_max: u64,
    /// Most bytes kept in quarantine.
    pub quarantine_bytes_max: u64,
    /// Key of the fingerprints of a new store; random when `None`.
    pub hash_key: Option<[u8; 16]>,
    /// False only in tests that would wait too long for the disk: commits are then not durable.
    pub sync: bool,
    /// For tests: what happens between the steps of a commit.
    #[doc(hidden)]
    pub steps: Steps,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes_max: SEGMENT_BYTES_MAX,
            quarantine_bytes_max: QUARANTINE_BYTES_MAX,
            hash_key: None,
            sync: true,
            steps: Steps::default(),
        }
    }
}

/// A state folder that is open. The committer's thread owns it; others read through
/// [`State::store`] and [`State::reader`].
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    store: Arc<SledStore>,
    outbox: OutboxWriter,
    needs: Mutex<Needs>,
    quarantine: Quarantine,
    options: Options,
    mirrored_at: Option<DateTime<Utc>>,
    /// Verdicts have changed since they were mirrored.
    verdicts_changed: bool,
    halted: bool,
    /// Last, so that it is given back after the store is closed.
    _lock: File,
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The state.
    pub state: State,
    /// The store was lost and made anew: to be announced.
    pub rebuilt: Option<RebuildReport>,
    /// Committed items of the outbox are lost: to be announced.
    pub outbox_damage: Option<Damage>,
    /// What is to be announced of both, now or since a process that ended before it did.
    pub untold: Untold,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The published end of the outbox.
    pub end: Position,
    /// Bytes appended to the outbox.
    pub outbox_bytes: u64,
}

impl State {
    /// Opens the folder or makes it. A store that does not open is moved aside and rebuilt; a
    /// newer one is [`StateError::Version`], one in use [`StateError::Locked`].
    pub fn open(folder: &Path, now: DateTime<Utc>, options: Options) -> Result<Opened, StateError> {
        disk::make_private_folder(folder)?;
        let lock = lock(folder)?;
        check_format_file(folder)?;
        let (store, rebuilt) = open_store(folder, now, &options)?;
        let (outbox, outbox_damage) = OutboxWriter::open(
            &folder.join(OUTBOX_FOLDER),
            store.outbox_end()?,
            options.segment_bytes_max,
        )?;
        let mut untold = store.untold()?;
        if let Some(damage) = &outbox_damage {
            untold.outbox = Some(damage.reason.clone());
            store.keep_untold(&untold)?;
        }
        let quarantine =
            Quarantine::open(folder.join(QUARANTINE_FOLDER), options.quarantine_bytes_max)?;
        let state = Self {
            folder: folder.to_owned(),
            store: Arc::new(store),
            outbox,
            needs: Mutex::default(),
            quarantine,
            options,
            mirrored_at: None,
            verdicts_changed: !folder.join(mirror::VERDICTS_FILE).exists(),
            halted: false,
            _lock: lock,
        };
        Ok(Opened {
            state,
            rebuilt,
            outbox_damage,
            untold,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The store, for reading. Its lock on the folder lasts as long as any of these.
    pub fn store(&self) -> Arc<SledStore> {
        Arc::clone(&self.store)
    }

    /// The published end of the outbox.
    pub fn outbox_end(&self) -> Position {
        self.outbox.published()
    }

    /// The folder of the segments, for [`OutboxReader::new`].
    pub fn outbox_folder(&self) -> PathBuf {
        self.folder.join(OUTBOX_FOLDER)
    }

    /// A reader of the outbox.
    pub fn reader(&self, from: Position, filter: Filter) -> OutboxReader {
        OutboxReader::new(&self.outbox_folder(), from, filter)
    }

    /// Writes the commits as one: all of them or none, on disk when it returns. After an error
    /// nothing counts; after [`StateError::Halted`], or an error from the store itself, whether it
    /// counts is known when the state has been opened anew, and then it is all or nothing.
    pub fn commit_group(&mut self, mut commits: Vec<Commit>) -> Result<Committed, StateError> {
        if self.halted {
            return Err(StateError::Halted {
                folder: self.folder.clone(),
            });
        }
        self.quarantine.name_files(&mut commits);
        let store = Arc::clone(&self.store);
        let _writing = store.writing();
        let batch = store.prepare(&commits, self.outbox.published())?;
        let outbox_bytes = match self.append(&commits) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.halted = self.outbox.cut().is_err();
                return Err(error);
            }
        };
        if batch.is_empty() && outbox_bytes == 0 {
            return Ok(Committed {
                end: self.outbox.published(),
                outbox_bytes,
            });
        }
        // Should the store fail now, it may hold the batch or not: the segment stays as it is, and
        // opening cuts it to what the store then says.
        let steps = self.options.steps.clone();
        store
            .write(batch, self.outbox.end())
            .and_then(|()| {
                self.outbox.publish();
                steps.reached(Step::Published)
            })
            .inspect_err(|_| self.halted = true)?;
        self.quarantine.forget(&commits);
        let judges = |one: &Commit| !(one.verdicts.is_empty() && one.forget_verdicts.is_empty());
        self.verdicts_changed |= commits.iter().any(judges);
        Ok(Committed {
            end: self.outbox.published(),
            outbox_bytes,
        })
    }

    /// The files of a commit: quarantined bytes and frames, synced. Returns the bytes of frames.
    fn append(&mut self, commits: &[Commit]) -> Result<u64, StateError> {
        let steps = &self.options.steps;
        steps.reached(Step::Prepared)?;
        self.quarantine.write(commits)?;
        steps.reached(Step::QuarantineWritten)?;
        let mut bytes = 0;
        for frame in commits.iter().flat_map(|commit| &commit.frames) {
            bytes += self.outbox.append(frame)?;
        }
        steps.reached(Step::FramesAppended)?;
        if bytes > 0 && self.options.sync {
            self.outbox.sync()?;
        }
        steps.reached(Step::SegmentSynced)?;
        Ok(bytes)
    }

    /// Where a lane begins: at its mark; a new one at the end, except after a rebuild, when it may
    /// be an old one whose mark was lost and begins with everything there is. Commit the marks of
    /// all lanes in one commit at start: that ends the exception.
    pub fn lane_start(&self, lane: &LaneId) -> Result<Position, StateError> {
        if let Some(mark) = self.store.lane(lane)? {
            return Ok(mark.position);
        }
        let from = self.store.lanes_from()?;
        Ok(from.unwrap_or(self.outbox.published()))
    }

    /// What a lane wants. Segments without anything for it are not kept for its sake; for a lane that is
    /// not told of everything is.
    pub fn lane_wants(&mut self, lane: LaneId, filter: Filter) {
        self.needs().want(lane, filter);
    }

    fn needs(&mut self) -> &mut Needs {
        self.needs.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Segments are not to grow larger than this: what is kept is kept by whole segments.
    pub fn limit_segments(&mut self, bytes_max: u64) {
        self.outbox.limit_segments(bytes_max);
    }

    /// What the outbox holds, and for which lane.
    pub fn outbox_usage(&self) -> Result<OutboxUsage, StateError> {
        let end = self.outbox.published();
        let mut needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        usage::usage(&self.outbox_folder(), &mut needs, &self.store.lanes()?, end)
    }

    /// Removes the segments that no lane needs any more, and frees what none needs of the others. To be called when all lanes have a mark.
    pub fn trim_outbox(&mut self) -> Result<Trimmed, StateError> {
        let folder = self.outbox_folder();
        let removed = usage::trim(&folder, self.needed_from()?)?;
        if self.store.lanes_from()?.is_some() {
            return Ok(removed);
        }
        let (marks, end) = (self.store.lanes()?, self.outbox.published());
        let freed = usage::free(&folder, self.needs(), &marks, end)?;
        Ok(Trimmed {
            segments: removed.segments + freed.segments,
            bytes: removed.bytes + freed.bytes,
        })
    }

    /// The first position that some lane may still need.
    pub(crate) fn needed_from(&self) -> Result<Position, StateError> {
        if let Some(from) = self.store.lanes_from()? {
            return Ok(from);
        }
        let marks = self.store.lanes()?;
        Ok(marks
            .iter()
            .filter(|mark| !mark.retired)
            .map(|mark| mark.position)
            .fold(self.outbox.published(), Position::min))
    }

    /// The writer, for an import.
    pub(crate) fn outbox_mut(&mut self) -> &mut OutboxWriter {
        &mut self.outbox
    }

    /// End of what is appended, published or not.
    pub(crate) fn appended_end(&self) -> Position {
        self.outbox.end()
    }

    /// Writes the mirror.
    pub fn write_mirror(&mut self, now: DateTime<Utc>) -> Result<(), StateError> {
        Mirror::of(&self.store, now)?.write(&self.folder)?;
        if self.verdicts_changed {
            mirror::write_verdicts(&self.store, &self.folder)?;
            self.verdicts_changed = false;
        }
        self.mirrored_at = Some(now);
        Ok(())
    }

    /// Writes the mirror when the last one is [`MIRROR_SECONDS`] old (or from the future). To be
    /// called after a commit. Returns whether it was written.
    pub fn write_mirror_when_due(&mut self, now: DateTime<Utc>) -> Result<bool, StateError> {
        let fresh = self.mirrored_at.is_some_and(|at| {
            let age = now - at;
            age >= TimeDelta::zero() && age < TimeDelta::seconds(MIRROR_SECONDS)
        });
        if !fresh {
            self.write_mirror(now)?;
        }
        Ok(!fresh)
    }
}

/// Takes the folder for this process.
fn lock(folder: &Path) -> Result<File, StateError> {
    let path = folder.join(LOCK_FILE);
    let file = disk::create(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(disk::failed("locking", path)(error)),
    }
}

/// Refuses a newer state before anything of it is opened, since opening a store changes it.
fn check_format_file(folder: &Path) -> Result<(), StateError> {
    let path = folder.join(FORMAT_FILE);
    let found = disk::read(&path)?
        .and_then(|content| std::str::from_utf8(&content).ok()?.trim().parse().ok());
    match found {
        Some(found) => {
            check_format(folder, found)?;
            // Before the store is migrated: an older version must not touch it any more.
            if found < FORMAT_VERSION {
                write_format_file(&path)?;
            }
            Ok(())
        }
        None => write_format_file(&path),
    }
}

fn write_format_file(path: &Path) -> Result<(), StateError> {
    disk::replace(path, format!("{FORMAT_VERSION}\n").as_bytes())
}

fn check_format(folder: &Path, found: u32) -> Result<(), StateError> {
    if found <= FORMAT_VERSION {
        return Ok(());
    }
    Err(StateError::Version {
        folder: folder.to_owned(),
        found,
        known: FORMAT_VERSION,
    })
}

/// Opens the store and reads all of it once, so that damage is found now and not in the middle of
/// the work; or makes it, or makes it anew.
fn open_store(
    folder: &Path,
    now: DateTime<Utc>,
    options: &Options,
) -> Result<(SledStore, Option<RebuildReport>), StateError> {
    let path = folder.join(STORE_FOLDER);
    let open = || SledTable::open(&path, options.steps.clone(), options.sync).map(Store::over);
    let was_there = path.join("db").exists();
    let traces = rebuild::traces_of_a_store(folder)?;
    let damaged = match open().and_then(|store| read_all(folder, store)) {
        Ok((store, Some(found))) => {
            migrate::to_current(&store, found)?;
            return Ok((store, None));
        }
        Ok((store, None)) if !traces => {
            store.initialise(new_hash_key(options), Batch::new())?;
            return Ok((store, None));
        }
        // sled may take a file of garbage for an empty store.
        Ok((_, None)) if was_there => Some("the store is empty".to_owned()),
        Ok((_, None)) => None,
        Err(StateError::Corrupt { reason, .. }) => Some(reason),
        Err(error) => return Err(error),
    };
    let moved_to = match &damaged {
        Some(_) => Some(rebuild::move_aside(&path, now)?),
        None => None,
    };
    let reason = damaged.unwrap_or_else(|| "the store was not there".to_owned());
    let store = open()?;
    let (content, mut report) = rebuild::content(store.table(), folder, &reason)?;
    store.initialise(new_hash_key(options), content)?;
    report.moved_to = moved_to;
    Ok((store, Some(report)))
}

/// Reads every entry; returns the format too, which an empty store has not.
fn read_all(folder: &Path, store: SledStore) -> Result<(SledStore, Option<u32>), StateError> {
    let format = store.format()?;
    if let Some(found) = format {
        check_format(folder, found)?;
    }
    for family in Family::ALL {
        store.each(&Key::of(family), |_, _| Ok(()))?;
    }
    // sled cuts its log where it does not read, and is then an older store.
    let mirrored = Mirror::read(folder)?.map_or(0, |mirror| mirror.commits);
    let commits = store.commits()?;
    if format.is_some() && commits < mirrored {
        return Err(store.corrupt(format!("it knows {commits} commits, its mirror {mirrored}")));
    }
    Ok((store, format))
}

fn new_hash_key(options: &Options) -> [u8; 16] {
    options
        .hash_key
        .unwrap_or_else(|| Uuid::new_v4().into_bytes())
}

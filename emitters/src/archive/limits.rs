//! How much is kept: so many days, so many bytes. What is over goes, the oldest hours first, and is
//! counted in `removed.json` beside the files, so that a search can say what it could not see.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::place;
use super::search::ArchiveError;
use crate::contract::Kept;

/// Name of the account of what was removed.
const REMOVED: &str = "removed.json";
/// Where the bytes are over their limit, one in so many more is freed: files are looked through once
/// for many batches.
const SPARE_PART: u64 = 50;

/// What the limits have taken out of an archive since it was begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Files removed.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// End of the latest hour of which a file was removed.
    pub until: Option<DateTime<Utc>>,
    /// Records that were older than the days kept when they came, and were not written.
    pub records_too_old: u64,
}

impl Removed {
    /// The account of an archive; an empty one where nothing was removed.
    pub fn of(archive: &Path) -> Result<Self, ArchiveError> {
        Self::read(archive).map_err(|source| ArchiveError::Read {
            path: archive.to_owned(),
            source,
        })
    }

    /// See [`Removed::of`].
    pub(super) fn read(archive: &Path) -> io::Result<Self> {
        match fs::read(archive.join(REMOVED)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, archive: &Path) -> io::Result<()> {
        let beside = archive.join(format!("{REMOVED}.tmp"));
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        fs::rename(&beside, archive.join(REMOVED))
    }
}

/// Keeps an archive within its limits.
#[derive(Debug)]
pub(super) struct Limits {
    folder: PathBuf,
    days_max: u32,
    bytes_max: u64,
    /// Bytes of all files; `None` until they were counted.
    bytes: Option<u64>,
    removed: Removed,
    /// Whether `removed` is not written down yet.
    is_changed: bool,
    /// The hour in which the days were last looked at.
    looked_at: Option<DateTime<Utc>>,
}

impl Limits {
    pub(super) fn new(folder: PathBuf, days_max: u32, bytes_max: u64) -> Self {
        Self {
            folder,
            days_max,
            bytes_max,
            bytes: None,
            removed: Removed::default(),
            is_changed: false,
            looked_at: None,
        }
    }

    /// Makes the folder and counts what is there, the first time.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.bytes.is_some() {
            return Ok(());
        }
        super::make_folders(&self.folder)?;
        fs::File::open(super::above(&self.folder))?.sync_all()?;
        self.removed = match Removed::read(&self.folder) {
            Ok(removed) => removed,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                tracing::warn!(%error, "the account of what the archive removed begins anew");
                Removed::default()
            }
            Err(error) => return Err(error),
        };
        let files = place::files(&self.folder, |_, _| true)?;
        self.bytes = Some(files.iter().map(|file| file.bytes).sum());
        Ok(())
    }

    /// What is there; `None` until it was counted.
    pub(super) fn kept(&self) -> Option<Kept> {
        Some(Kept {
            bytes: self.bytes?,
            files_removed: self.removed.files,
            bytes_removed: self.removed.bytes,
            items_too_old: self.removed.records_too_old,
        })
    }

    pub(super) fn is_too_old(&self, hour: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        hour + TimeDelta::hours(1) <= now - TimeDelta::days(i64::from(self.days_max))
    }

    pub(super) fn too_old(&mut self, records: u64) {
        self.removed.records_too_old += records;
        self.is_changed = true;
    }

    pub(super) fn grown(&mut self, bytes: u64) {
        self.bytes = self.bytes.map(|total| total + bytes);
    }

    /// Removes what is over. Returns the files that are gone. The newest hour stays whatever its size:
    /// what was just confirmed is not taken back.
    pub(super) fn enforce(&mut self, now: DateTime<Utc>) -> io::Result<Vec<PathBuf>> {
        let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
        let is_over = self.bytes.is_some_and(|bytes| bytes > self.bytes_max);
        let mut gone = Vec::new();
        if is_over || self.looked_at != Some(hour) {
            self.remove(is_over, now, &mut gone)?;
            self.looked_at = Some(hour);
        }
        if self.is_changed {
            self.removed.write(&self.folder)?;
            self.is_changed = false;
        }
        Ok(gone)
    }

    fn remove(
        &mut self,
        is_over: bool,
        now: DateTime<Utc>,
        gone: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        let files = place::files(&self.folder, |_, _| true)?;
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let bytes_wanted = if is_over {
            self.bytes_max - self.bytes_max / SPARE_PART
        } else {
            self.bytes_max
        };
        let newest = files.last().map(|file| file.place.hour());
        for file in &files {
            let hour = file.place.hour();
            let is_needed = bytes <= bytes_wanted || Some(hour) == newest;
            if !self.is_too_old(hour, now) && is_needed {
                // By age: all that follow are younger, but the bytes may still be too many.
                if bytes <= bytes_wanted {
                    break;
                }
                continue;
            }
            match fs::remove_file(&file.path) {
                // Somebody else removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            bytes -= file.bytes;
            self.removed.files += 1;
            self.removed.bytes += file.bytes;
            self.removed.until = self.removed.until.max(Some(hour + TimeDelta::hours(1)));
            self.is_changed = true;
            gone.push(file.path.clone());
        }
        self.bytes = Some(bytes);
        if !gone.is_empty() {
            tracing::info!(
                archive = %self.folder.display(), files = gone.len(),
                files_ever = self.removed.files, bytes_kept = bytes,
                "the oldest files of the archive were removed, as its limits say"
            );
        }
        Ok(())
    }
}

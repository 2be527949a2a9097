//! The mirror: a small JSON file from which a lost store is made anew.
//!
//! It may be older than the store: low-waters, marks and starts only lead to reading or sending
//! again. It holds nothing that cannot be had again by reading from the low-water.

use std::path::Path;

use chrono::{DateTime, Utc};
use exfilwatch_model::verdict::Verdict;
use exfilwatch_model::{Gap, StreamId, TenantId};
use serde::{Deserialize, Serialize};

use crate::commit::{JobState, LaneMark, Position, Subscription, Watermark};
use crate::contract::{StateError, StateStore};
use crate::disk;
use crate::layout::{FORMAT_VERSION, Family, Key};
use crate::store::Store;
use crate::table::Table;

/// Name of the file in the state folder that holds what analysts said of findings. It is written when
/// that changes, so that the mirror, which is written all the time, stays small.
pub(crate) const VERDICTS_FILE: &str = "verdicts.json";

/// Name of the file in the state folder.
pub const MIRROR_FILE: &str = "mirror.json";

/// Content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Format of the store it was written by.
    pub format: u32,
    /// When.
    pub written_at: DateTime<Utc>,
    /// Commits the store had taken then.
    pub commits: u64,
    /// End of the outbox then.
    pub outbox_end: Position,
    /// Per stream: everything before it is delivered or in the outbox.
    pub low_waters: Vec<(StreamId, DateTime<Utc>)>,
    /// Marks of the lanes.
    pub lanes: Vec<LaneMark>,
    /// The ledger of gaps.
    pub gaps: Vec<Gap>,
    /// Subscription starts.
    pub subscriptions: Vec<Subscription>,
    /// Jobs that are not over.
    pub jobs: Vec<JobState>,
    /// Watermarks of all jobs: an unfinished job starts again from its own.
    pub watermarks: Vec<Watermark>,
}

impl Mirror {
    /// What the store holds now.
    pub(crate) fn of<T: Table>(store: &Store<T>, now: DateTime<Utc>) -> Result<Self, StateError> {
        let mut jobs = store.jobs()?;
        jobs.retain(|job| !job.finished);
        Ok(Self {
            format: FORMAT_VERSION,
            written_at: now,
            commits: store.commits()?,
            outbox_end: store.outbox_end()?,
            low_waters: store.low_waters()?,
            lanes: store.lanes()?,
            gaps: store.gaps()?,
            subscriptions: store.all(&Key::of(Family::Subscription))?,
            jobs,
            watermarks: store.all(&Key::of(Family::Watermark))?,
        })
    }

    /// Puts the file in place of the old one.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), StateError> {
        let mut content = crate::layout::to_json("mirror", self)?;
        content.push(b'\n');
        disk::replace(&folder.join(MIRROR_FILE), &content)
    }

    /// Reads it. `None` when it is absent or does not read: then nothing is known.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, StateError> {
        let content = disk::read(&folder.join(MIRROR_FILE))?;
        Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
    }
}

/// Writes what analysts said of findings, where there is anything or was.
pub(crate) fn write_verdicts<T: Table>(store: &Store<T>, folder: &Path) -> Result<(), StateError> {
    let path = folder.join(VERDICTS_FILE);
    let verdicts = store.verdicts()?;
    if verdicts.is_empty() && !path.exists() {
        return Ok(());
    }
    let mut content = crate::layout::to_json("verdicts", &verdicts)?;
    content.push(b'\n');
    disk::replace(&path, &content)
}

/// Reads them; none where there is no such file, or one that does not read.
pub(crate) fn read_verdicts(folder: &Path) -> Result<Vec<(TenantId, Verdict)>, StateError> {
    let content = disk::read(&folder.join(VERDICTS_FILE))?;
    let read = content.and_then(|content| serde_json::from_slice(&content).ok());
    Ok(read.unwrap_or_default())
}

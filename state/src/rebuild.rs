//! A lost store made anew from mirror and segments. It may cost duplicates, never silence: what is
//! not known is read or sent again, and the report says so.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use exfilwatch_model::StreamId;
use serde::{Deserialize, Serialize};

use crate::commit::{Commit, JobState, Position};
use crate::contract::StateError;
use crate::disk;
use crate::layout::{self, Family};
use crate::mirror::{self, Mirror};
use crate::outbox::{self, Damage};
use crate::prepare::Preparation;
use crate::quarantine;
use crate::store::{LANES_FROM, UNTOLD};
use crate::table::{Batch, Table};

/// Longest reason that is kept: it stands in a value of the store, with little else.
const REASON_CHARS_MAX: usize = 500;

/// What was lost with a store, and what its successor begins with. To be announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildReport {
    /// Why: what the old store said, or that it was not there.
    pub reason: String,
    /// Where the old store is kept; `None` when there was none.
    pub moved_to: Option<PathBuf>,
    /// When the mirror was written. `None`: there was none to read, no stream has a restart point
    /// and all must be read from the start of the vendor's retention.
    pub mirror_written_at: Option<DateTime<Utc>>,
    /// Streams and where they are read from again (also [`crate::StateStore::restart_from`]).
    pub restarts: Vec<(StreamId, DateTime<Utc>)>,
    /// Jobs that were not over: their work lists are lost, they start from their watermarks.
    pub jobs: Vec<JobState>,
    /// End of the outbox: after the last frame that is whole.
    pub outbox_end: Position,
    /// A last segment without a whole frame, kept under another name.
    pub outbox_damage: Option<Damage>,
    /// Files in quarantine whose entries are lost.
    pub quarantine_files: usize,
}

/// What opening found lost and nobody has been told of yet. It stays in the store until a commit
/// tells it ([`Commit::told`]), so that a process that ends right after opening hides nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// The store was lost and made anew.
    pub store: Option<StoreLost>,
    /// Committed items of the outbox are lost: why.
    pub outbox: Option<String>,
}

/// A store that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLost {
    /// Why: what the old store said, or that it was not there.
    pub reason: String,
    /// Streams that are read again from where they were.
    pub streams: usize,
}

/// Moves a store that does not open aside. Its name says when.
pub(crate) fn move_aside(store: &Path, now: DateTime<Utc>) -> Result<PathBuf, StateError> {
    let time = now.format("%Y%m%dT%H%M%SZ");
    let mut target = store.with_file_name(format!("store.damaged-{time}"));
    let mut number = 1;
    while target.exists() {
        number += 1;
        target = store.with_file_name(format!("store.damaged-{time}-{number}"));
    }
    fs::rename(store, &target).map_err(disk::failed("moving aside", store))?;
    if let Some(folder) = store.parent() {
        disk::sync_folder(folder)?;
    }
    Ok(target)
}

/// Whether a store must have been there before.
pub(crate) fn traces_of_a_store(folder: &Path) -> Result<bool, StateError> {
    Ok(
        disk::read(&folder.join(crate::mirror::MIRROR_FILE))?.is_some()
            || !outbox::list(&folder.join(crate::state::OUTBOX_FOLDER))?.is_empty(),
    )
}

/// The first content of the new store, and the report (without where the old one is kept).
pub(crate) fn content(
    table: &dyn Table,
    folder: &Path,
    reason: &str,
) -> Result<(Batch, RebuildReport), StateError> {
    let mirror = Mirror::read(folder)?;
    let segments = folder.join(crate::state::OUTBOX_FOLDER);
    let (end, outbox_damage) = outbox_end(&segments)?;
    let first = outbox::list(&segments)?
        .first()
        .map_or(end, |(segment, _)| Position {
            segment: *segment,
            offset: outbox::START,
            item: 0,
        });
    let mut report = RebuildReport {
        reason: reason.chars().take(REASON_CHARS_MAX).collect(),
        moved_to: None,
        mirror_written_at: mirror.as_ref().map(|mirror| mirror.written_at),
        restarts: Vec::new(),
        jobs: Vec::new(),
        outbox_end: end,
        outbox_damage,
        quarantine_files: quarantine::files(&folder.join(crate::state::QUARANTINE_FOLDER))?.len(),
    };
    let mut preparation = Preparation::new(table);
    if let Some(mirror) = mirror {
        let commits = layout::meta(crate::store::COMMITS);
        preparation.put_json(Family::Meta, commits, &mirror.commits)?;
        report.restarts.clone_from(&mirror.low_waters);
        report.jobs.clone_from(&mirror.jobs);
        for (stream, at) in &mirror.low_waters {
            preparation.put_json(Family::Restart, layout::restart(stream), at)?;
        }
        let mut lanes = mirror.lanes;
        for mark in &mut lanes {
            mark.position = mark.position.clamp(first, end);
        }
        let commit = Commit {
            lanes,
            gaps: mirror.gaps,
            subscriptions: mirror.subscriptions,
            jobs: mirror.jobs,
            watermarks: mirror.watermarks,
            verdicts: mirror::read_verdicts(folder)?,
            ..Commit::default()
        };
        preparation.add(&commit, end)?;
    }
    preparation.put_json(Family::Meta, layout::meta(LANES_FROM), &first)?;
    let untold = Untold {
        store: Some(StoreLost {
            reason: report.reason.clone(),
            streams: report.restarts.len(),
        }),
        outbox: report.outbox_damage.as_ref().map(|it| it.reason.clone()),
    };
    preparation.put_json(Family::Meta, layout::meta(UNTOLD), &untold)?;
    preparation.end(end)?;
    Ok((preparation.finish()?, report))
}

/// The end of the outbox as the segments tell it. A last segment with no whole frame in it is
/// renamed, not cut to nothing.
fn outbox_end(folder: &Path) -> Result<(Position, Option<Damage>), StateError> {
    let mut damage = None;
    for (segment, bytes) in outbox::list(folder)?.into_iter().rev() {
        if let Some(offset) = outbox::last_good_end(folder, segment)? {
            let end = Position {
                segment,
                offset,
                item: 0,
            };
            return Ok((end, damage));
        }
        let path = outbox::segment_path(folder, segment);
        let kept = path.with_extension("damaged");
        fs::rename(&path, &kept).map_err(disk::failed("moving aside", path))?;
        if bytes > outbox::START {
            damage = Some(Damage {
                from: Position {
                    segment,
                    offset: outbox::START,
                    item: 0,
                },
                until: Position {
                    segment,
                    offset: bytes,
                    item: 0,
                },
                reason: format!("no frame is whole, kept as {}", kept.display()),
            });
        }
    }
    Ok((Position::default(), damage))
}

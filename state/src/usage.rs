//! What the outbox holds, and for whom: figures for budgets, and the trimming of what nobody needs.

use std::fs;
use std::path::Path;

use crate::commit::{LaneId, LaneMark, Position};
use crate::contract::StateError;
use crate::disk;
use crate::outbox;

/// Bytes of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxUsage {
    /// In all segment files.
    pub bytes: u64,
    /// Number of segment files.
    pub segments: usize,
    /// Of each lane that is not retired: bytes between its mark and the end, frames of others
    /// included.
    pub lanes: Vec<(LaneId, u64)>,
}

/// What a trim removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Segment files.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads the figures from the folder and the marks.
pub(crate) fn usage(
    folder: &Path,
    marks: &[LaneMark],
    end: Position,
) -> Result<OutboxUsage, StateError> {
    let segments = outbox::list(folder)?;
    let behind = |mark: Position| {
        segments
            .iter()
            .filter(|(number, _)| (mark.segment..=end.segment).contains(number))
            .map(|(number, bytes)| {
                let from = if *number == mark.segment {
                    mark.offset
                } else {
                    0
                };
                let until = if *number == end.segment {
                    end.offset
                } else {
                    *bytes
                };
                until.saturating_sub(from)
            })
            .sum()
    };
    Ok(OutboxUsage {
        bytes: segments.iter().map(|(_, bytes)| bytes).sum(),
        segments: segments.len(),
        lanes: marks
            .iter()
            .filter(|mark| !mark.retired)
            .map(|mark| (mark.lane.clone(), behind(mark.position)))
            .collect(),
    })
}

/// Removes the segments below `needed_from`.
pub(crate) fn trim(folder: &Path, needed_from: Position) -> Result<Trimmed, StateError> {
    let mut trimmed = Trimmed::default();
    for (number, bytes) in outbox::list(folder)? {
        if number >= needed_from.segment {
            break;
        }
        let path = outbox::segment_path(folder, number);
        fs::remove_file(&path).map_err(disk::failed("removing", path))?;
        trimmed.segments += 1;
        trimmed.bytes += bytes;
    }
    Ok(trimmed)
}

//! What the outbox holds, and for whom: figures for budgets, and the trimming of what nobody needs.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use crate::commit::{LaneId, LaneMark, Position};
use crate::contract::StateError;
use crate::disk;
use crate::outbox::{self, Content, Filter};

/// Segments that are thinned out in one go, at most.
const THINNED_AT_ONCE: usize = 4;

/// Which lane needs which segment: lanes want some tenants only, and a segment may hold nothing for them.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// What the lanes want; one that is not here wants everything.
    filters: BTreeMap<LaneId, Filter>,
    /// Of segments that are written no more; `None` where a header does not read, which all lanes are to
    /// come upon. Looked up once each, and only where a lane is behind.
    contents: BTreeMap<u64, Option<Content>>,
}

impl Needs {
    pub(crate) fn want(&mut self, lane: LaneId, filter: Filter) {
        self.filters.insert(lane, filter);
    }

    /// Whether a segment that is to keep only this of its frames is less than half of what it was.
    fn is_worth_thinning(&self, number: u64, kept: &Content) -> bool {
        let total = |content: &Content| content.values().sum::<u64>();
        let before = self.contents.get(&number).and_then(Option::as_ref);
        before.is_some_and(|before| {
            total(before) >= outbox::THINNED_BYTES_MIN && total(kept) <= total(before) / 2
        })
    }

    /// What some of the lanes need of a segment that ends below `end`; `None` for all of it.
    fn of(
        &mut self,
        folder: &Path,
        marks: &[LaneMark],
        (number, end): (u64, Position),
    ) -> Result<Option<Content>, StateError> {
        let mut filters = Vec::new();
        for mark in marks {
            if mark.retired || number < mark.position.segment {
                continue;
            }
            match self.filters.get(&mark.lane) {
                Some(filter) if number < end.segment => filters.push(filter),
                Some(_) | None => return Ok(None),
            }
        }
        if filters.is_empty() {
            return Ok(Some(Content::new()));
        }
        let content = match self.contents.get(&number) {
            Some(content) => content,
            None => {
                let content = outbox::content(folder, number)?;
                self.contents.entry(number).or_insert(content)
            }
        };
        let Some(content) = content else {
            return Ok(None);
        };
        let wanted = |(kind, tenant): &(_, _)| {
            let mut filters = filters.iter();
            filters.any(|filter| filter.may_want(*kind, tenant))
        };
        let kept = content.iter().filter(|(whose, _)| wanted(whose));
        Ok(Some(
            kept.map(|(whose, bytes)| (whose.clone(), *bytes)).collect(),
        ))
    }
}

/// Bytes of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxUsage {
    /// In all segment files.
    pub bytes: u64,
    /// Number of segment files.
    pub segments: usize,
    /// Of each lane that is not retired: bytes between its mark and the end in segments that hold
    /// something for it, frames of others included.
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
    needs: &mut Needs,
    marks: &[LaneMark],
    end: Position,
) -> Result<OutboxUsage, StateError> {
    let segments = outbox::list(folder)?;
    let mut lanes = Vec::new();
    for mark in marks.iter().filter(|mark| !mark.retired) {
        let mut behind = 0;
        for (number, bytes) in &segments {
            if *number > end.segment {
                continue;
            }
            let needed = needs.of(folder, std::slice::from_ref(mark), (*number, end))?;
            if needed.is_none_or(|needed| !needed.is_empty()) {
                let (is_first, is_last) =
                    (*number == mark.position.segment, *number == end.segment);
                // Of one that takes less room than it is long it is not known what lies behind the mark: all
                // of it then. The last one is never thinned out.
                let is_told = is_first && (is_last || mark.position.offset <= *bytes);
                let from = if is_told { mark.position.offset } else { 0 };
                let until = if is_last { end.offset } else { *bytes };
                behind += until.saturating_sub(from);
            }
        }
        lanes.push((mark.lane.clone(), behind));
    }
    Ok(OutboxUsage {
        bytes: segments.iter().map(|(_, bytes)| bytes).sum(),
        segments: segments.len(),
        lanes,
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

/// Frees what no lane needs of the segments between the marks: one lane that stands still keeps its own
/// tenants' items, not everybody's. They stay as files, so that one that is missing is still a loss.
pub(crate) fn free(
    folder: &Path,
    needs: &mut Needs,
    marks: &[LaneMark],
    end: Position,
) -> Result<Trimmed, StateError> {
    let (mut trimmed, mut scattered) = (Trimmed::default(), Vec::new());
    let segments = outbox::list(folder)?;
    let first = segments.first().map_or(0, |(number, _)| *number);
    needs.contents = needs.contents.split_off(&first);
    for (number, bytes) in segments {
        if number >= end.segment || bytes <= outbox::START {
            continue;
        }
        let Some(kept) = needs.of(folder, marks, (number, end))? else {
            continue;
        };
        if kept.is_empty() {
            let path = outbox::segment_path(folder, number);
            let file = OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.set_len(outbox::START))
                .map_err(disk::failed("emptying", path))?;
            trimmed.segments += 1;
            trimmed.bytes += bytes - outbox::START;
        } else if needs.is_worth_thinning(number, &kept) {
            scattered.push((number, bytes, kept));
        }
    }
    // Copies need room and time: after what needs none, and a few at a time, since commits wait.
    scattered.truncate(THINNED_AT_ONCE);
    for (number, bytes, kept) in scattered {
        if outbox::thin(folder, number, &kept)? {
            needs.contents.insert(number, Some(kept));
            trimmed.segments += 1;
            trimmed.bytes += bytes.saturating_sub(outbox::bytes_of(folder, number)?);
        }
    }
    Ok(trimmed)
}

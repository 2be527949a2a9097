//! Looking at a state folder: figures for `state show`, and a walk over everything for `state
//! verify`. Nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::finding::FindingState;
use exfilwatch_model::{Cursor, Gap, Verdict, WorkItem};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::commit::{
    FileMark, JobState, LaneMark, Position, SEEN_CHUNK_MAX, Subscription, Watermark,
};
use crate::contract::{StateError, StateStore};
use crate::layout::{self, Family, Key};
use crate::mirror::Mirror;
use crate::outbox;
use crate::prepare::{DoneEntry, QuarantineEntry};
use crate::quarantine;
use crate::state::{QUARANTINE_FOLDER, STORE_FOLDER, State};
use crate::table::Table;

/// A cursor further ahead of the clock than this cannot be right.
const CURSOR_AHEAD: TimeDelta = TimeDelta::hours(1);
/// Problems and notes listed by a verification; the rest is counted.
pub const PROBLEMS_MAX: usize = 1_000;

/// Entries of one family of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FamilySummary {
    /// Number of keys.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// What `state show` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateSummary {
    /// Format of the store.
    pub format: u32,
    /// Version that made the store.
    pub tool: Option<String>,
    /// By the first part of the key.
    pub families: BTreeMap<&'static str, FamilySummary>,
    /// Bytes of the store's files.
    pub store_bytes: u64,
    /// End of the outbox.
    pub outbox_end: Position,
    /// Bytes of all segments.
    pub outbox_bytes: u64,
    /// Number of segments.
    pub outbox_segments: usize,
    /// Lanes: emitter, route, kind, and the bytes each has still to read.
    pub lanes: Vec<(String, u64)>,
    /// Files in quarantine and their bytes.
    pub quarantine_files: usize,
    /// See [`StateSummary::quarantine_files`].
    pub quarantine_bytes: u64,
    /// When the mirror was last written.
    pub mirror_written_at: Option<DateTime<Utc>>,
}

/// What `state verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Entries of the store that were read.
    pub entries: u64,
    /// Items of the outbox that were read.
    pub items: u64,
    /// What is wrong, one sentence each; at most [`PROBLEMS_MAX`].
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub problems_more: u64,
    /// What is harmless but worth knowing.
    pub notes: Vec<String>,
}

impl Verification {
    fn problem(&mut self, text: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text.into());
        } else {
            self.problems_more += 1;
        }
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < PROBLEMS_MAX {
            self.notes.push(text);
        }
    }
}

impl State {
    /// Counts and sizes of everything.
    pub fn summary(&self) -> Result<StateSummary, StateError> {
        let store = self.store();
        let mut families = BTreeMap::new();
        for family in Family::ALL {
            let mut summary = FamilySummary::default();
            let prefix = Key::of(family);
            let table = store.table();
            table.walk(prefix.bytes(), prefix.bytes(), &mut |key, value| {
                summary.entries += 1;
                summary.bytes += (key.len() + value.len()) as u64;
                Ok(true)
            })?;
            families.insert(family.as_str(), summary);
        }
        let usage = self.outbox_usage()?;
        let quarantine = quarantine::files(&self.folder().join(QUARANTINE_FOLDER))?;
        let lane_name = |lane: &crate::LaneId| {
            format!("{}/{}/{}", lane.emitter, lane.route, lane.kind.as_str())
        };
        Ok(StateSummary {
            format: store.format()?.unwrap_or_default(),
            tool: store.read(&layout::meta("tool"))?,
            families,
            store_bytes: bytes_below(&self.folder().join(STORE_FOLDER))?,
            outbox_end: self.outbox_end(),
            outbox_bytes: usage.bytes,
            outbox_segments: usage.segments,
            lanes: usage
                .lanes
                .iter()
                .map(|(lane, bytes)| (lane_name(lane), *bytes))
                .collect(),
            quarantine_files: quarantine.len(),
            quarantine_bytes: quarantine.iter().map(|(_, bytes)| bytes).sum(),
            mirror_written_at: Mirror::read(self.folder())?.map(|mirror| mirror.written_at),
        })
    }

    /// Reads everything and says what does not fit together.
    pub fn verify(&self, now: DateTime<Utc>) -> Result<Verification, StateError> {
        let mut found = Verification::default();
        self.verify_entries(now, &mut found)?;
        for part in [Self::verify_outbox, Self::verify_files] {
            match part(self, &mut found) {
                Err(StateError::Corrupt { reason, .. }) => found.problem(reason),
                other => other?,
            }
        }
        Ok(found)
    }

    fn verify_entries(
        &self,
        now: DateTime<Utc>,
        found: &mut Verification,
    ) -> Result<(), StateError> {
        let store = self.store();
        store.table().walk(&[], &[], &mut |key, value| {
            found.entries += 1;
            let parts = layout::parts(key).unwrap_or_default();
            let family = parts
                .first()
                .and_then(|name| Family::from_name(std::str::from_utf8(name).ok()?));
            let Some(family) = family else {
                found.problem(format!("{} is no key", layout::display(key)));
                return Ok(true);
            };
            let checked =
                layout::open(key, value).and_then(|body| check_entry(family, key, body, now));
            if let Err(problem) = checked {
                found.problem(problem);
            }
            if family == Family::Work {
                let rest = parts.iter().skip(1);
                let done = rest.fold(Key::of(Family::Done), |done, part| done.part(part));
                if store.table().get(done.bytes())?.is_some() {
                    found.problem(format!("{} is open and done", layout::display(key)));
                }
            }
            Ok(true)
        })
    }

    fn verify_outbox(&self, found: &mut Verification) -> Result<(), StateError> {
        let end = self.outbox_end();
        let marks = self.store().lanes()?;
        let first = outbox::list(&self.outbox_folder())?
            .first()
            .map_or(end.segment, |(number, _)| *number);
        for mark in marks.iter().filter(|mark| !mark.retired) {
            let name = format!("lane {} {}", mark.lane.emitter, mark.lane.kind.as_str());
            if mark.position > end {
                found.problem(format!("{name} is behind the end of the outbox"));
            } else if mark.position.segment < first && mark.position != Position::default() {
                found.problem(format!("{name} needs segments that are not there"));
            }
        }
        let mut walk = outbox::FrameWalk::new(&self.outbox_folder(), Position::default());
        let mut damage = Vec::new();
        while let Some((_, frame)) = walk.next_whole(end, &mut damage)? {
            found.items += frame.items.len() as u64;
        }
        for damage in damage {
            found.problem(format!(
                "outbox from {:?} to {:?}: {}",
                damage.from, damage.until, damage.reason
            ));
        }
        Ok(())
    }

    fn verify_files(&self, found: &mut Verification) -> Result<(), StateError> {
        let blobs = quarantine::files(&self.folder().join(STORE_FOLDER).join("blobs"))?;
        if !blobs.is_empty() {
            found.problem(format!(
                "{} values are so large that the store keeps them unsynced",
                blobs.len()
            ));
        }
        let files = quarantine::files(&self.folder().join(QUARANTINE_FOLDER))?;
        let mut names: BTreeSet<String> = files.into_iter().map(|(name, _)| name).collect();
        for entry in self.store().quarantined()? {
            if let Some(file) = entry.file
                && !names.remove(&file)
            {
                found.problem(format!("quarantine file {file} is not there"));
            }
        }
        for name in names {
            found.note(format!("quarantine file {name} has no entry"));
        }
        Ok(())
    }
}

/// Reads the body as what it is to be, and checks that it stands at its own key.
fn check_entry(family: Family, key: &[u8], body: &[u8], now: DateTime<Utc>) -> Result<(), String> {
    let own = match family {
        Family::Meta => json::<serde_json::Value>(key, body).map(|_| None)?,
        Family::Restart => json::<DateTime<Utc>>(key, body).map(|_| None)?,
        Family::Cursor => {
            let cursor: Cursor = json(key, body)?;
            if cursor.covered_until > now + CURSOR_AHEAD {
                return Err(format!(
                    "{} is ahead of the clock: {}",
                    layout::display(key),
                    cursor.covered_until
                ));
            }
            Some(layout::cursor(&crate::store::stream_of(key)?))
        }
        Family::Work => {
            json::<WorkItem>(key, body).map(|item| Some(layout::work(&item.stream, &item.key)))?
        }
        Family::Done => {
            let stream = crate::store::stream_of(key)?;
            json::<DoneEntry>(key, body).map(|done| Some(layout::done(&stream, &done.key)))?
        }
        Family::Seen => {
            let count = layout::unpack_fingerprints(body)?.len();
            if count > SEEN_CHUNK_MAX {
                return Err(format!("{} has {count} fingerprints", layout::display(key)));
            }
            None
        }
        Family::Window => {
            let unpacked = layout::unpack_window(body);
            unpacked.ok_or_else(|| format!("{} does not read", layout::display(key)))?;
            None
        }
        Family::Watermark => json::<Watermark>(key, body)
            .map(|mark| Some(layout::watermark(&mark.job, &mark.stream)))?,
        Family::Subscription => json::<Subscription>(key, body)
            .map(|start| Some(layout::subscription(&start.stream)))?,
        Family::Job => json::<JobState>(key, body).map(|job| Some(layout::job(&job.job)))?,
        Family::File => json::<FileMark>(key, body).map(|file| Some(layout::file(&file.digest)))?,
        Family::Finding => json::<FindingState>(key, body).map(|_| None)?,
        Family::Verdict => json::<Verdict>(key, body).map(|_| None)?,
        Family::Lane => json::<LaneMark>(key, body).map(|mark| Some(layout::lane(&mark.lane)))?,
        Family::Gap => json::<Gap>(key, body).map(|gap| Some(layout::gap(&gap.stream, &gap.id)))?,
        Family::Quarantine => json::<QuarantineEntry>(key, body)
            .map(|entry| Some(layout::quarantine(entry.stream.tenant(), &entry.id)))?,
    };
    if own.is_some_and(|own| own.bytes() != key) {
        return Err(format!(
            "{} holds the value of another key",
            layout::display(key)
        ));
    }
    Ok(())
}

fn json<T: DeserializeOwned>(key: &[u8], body: &[u8]) -> Result<T, String> {
    layout::from_json(key, body)
}

/// Bytes of all files below a folder of the store, which is two levels deep.
fn bytes_below(folder: &Path) -> Result<u64, StateError> {
    let files = quarantine::files(folder)?;
    let blobs = quarantine::files(&folder.join("blobs"))?;
    Ok(files.iter().chain(&blobs).map(|(_, bytes)| bytes).sum())
}

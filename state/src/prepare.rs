//! From commits to one batch of keys and values. Everything is checked here, before anything is
//! written: sizes, and that positions do not contradict the outbox.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use exfilwatch_model::TenantId;
use serde::{Deserialize, Serialize};

use crate::commit::{
    Commit, DoneItem, Fate, LaneMark, Position, Quarantined, RefusedItem, SEEN_CHUNK_MAX, SeenChunk,
};
use crate::contract::StateError;
use crate::layout::{self, Family, Key};
use crate::table::{Batch, Table};

/// Body of a `done` entry: the key is in it, since long ones are digests in the store's key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DoneEntry {
    pub(crate) key: String,
    pub(crate) forget_after: chrono::DateTime<chrono::Utc>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) given_up: bool,
}

/// Body of a `quarantine` entry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct QuarantineEntry {
    pub(crate) id: String,
    pub(crate) stream: exfilwatch_model::StreamId,
    pub(crate) origin: String,
    pub(crate) reason: String,
    pub(crate) at: chrono::DateTime<chrono::Utc>,
    pub(crate) file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) item: Option<RefusedItem>,
    #[serde(default)]
    pub(crate) fate: Fate,
}

/// A batch in the making, over the table it is for. Later commits of a group override earlier ones.
pub(crate) struct Preparation<'a> {
    table: &'a dyn Table,
    batch: Batch,
    fingerprints: BTreeMap<(TenantId, NaiveDate), Vec<u64>>,
}

impl<'a> Preparation<'a> {
    pub(crate) fn new(table: &'a dyn Table) -> Self {
        Self {
            table,
            batch: Batch::new(),
            fingerprints: BTreeMap::new(),
        }
    }

    /// The batch.
    pub(crate) fn finish(mut self) -> Result<Batch, StateError> {
        self.write_fingerprints()?;
        Ok(self.batch)
    }

    pub(crate) fn put(
        &mut self,
        family: Family,
        key: Key,
        body: Vec<u8>,
    ) -> Result<(), StateError> {
        let value = layout::seal(family, &key, body)?;
        self.batch.insert(key.into_bytes(), Some(value));
        Ok(())
    }

    pub(crate) fn put_json<T: Serialize>(
        &mut self,
        family: Family,
        key: Key,
        value: &T,
    ) -> Result<(), StateError> {
        let body = layout::to_json(family.as_str(), value)?;
        self.put(family, key, body)
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.remove_at(key.into_bytes());
    }

    /// Removes what stands at a key as it was found.
    pub(crate) fn remove_at(&mut self, key: Vec<u8>) {
        self.batch.insert(key, None);
    }

    pub(crate) fn end(&mut self, end: Position) -> Result<(), StateError> {
        self.put_json(Family::Meta, layout::meta("outbox_end"), &end)
    }

    /// Adds a commit. Lane marks may not lie behind `end`.
    pub(crate) fn add(&mut self, commit: &Commit, end: Position) -> Result<(), StateError> {
        self.add_streams(commit)?;
        self.add_detection(commit)?;
        for chunk in &commit.seen {
            self.add_seen(chunk)?;
        }
        for (tenant, day) in &commit.forget_seen_before {
            self.forget_seen_before(tenant, *day)?;
        }
        for quarantined in &commit.quarantined {
            self.add_quarantined(quarantined)?;
        }
        for job in &commit.jobs {
            self.put_json(Family::Job, layout::job(&job.job), job)?;
        }
        for file in &commit.files {
            self.put_json(Family::File, layout::file(&file.digest), file)?;
        }
        for mark in &commit.lanes {
            self.add_lane(mark, end)?;
        }
        if !commit.lanes.is_empty() {
            self.remove(layout::meta(crate::store::LANES_FROM));
        }
        if commit.told {
            self.remove(layout::meta(crate::store::UNTOLD));
        }
        Ok(())
    }

    fn add_streams(&mut self, commit: &Commit) -> Result<(), StateError> {
        for (stream, cursor) in &commit.cursors {
            self.put_json(Family::Cursor, layout::cursor(stream), cursor)?;
            self.remove(layout::restart(stream));
        }
        for item in &commit.work {
            self.put_json(Family::Work, layout::work(&item.stream, &item.key), item)?;
        }
        for item in &commit.done {
            self.add_done(item)?;
        }
        for watermark in &commit.watermarks {
            let key = layout::watermark(&watermark.job, &watermark.stream);
            self.put_json(Family::Watermark, key, watermark)?;
        }
        for start in &commit.subscriptions {
            let key = layout::subscription(&start.stream);
            self.put_json(Family::Subscription, key, start)?;
        }
        for (stream, id) in &commit.forget_gaps {
            self.remove(layout::gap(stream, id));
        }
        for gap in &commit.gaps {
            let gap = gap.clone().with_id();
            let key = layout::gap(&gap.stream, &gap.id);
            self.put_json(Family::Gap, key, &gap)?;
        }
        Ok(())
    }

    fn add_detection(&mut self, commit: &Commit) -> Result<(), StateError> {
        for change in &commit.windows {
            let key = layout::window(&change.tenant, &change.job, &change.detector, &change.key);
            match &change.value {
                Some(value) => {
                    let body = layout::pack_window(&change.detector, &change.key, value)?;
                    self.put(Family::Window, key, body)?;
                }
                None => self.remove(key),
            }
        }
        for (tenant, finding) in &commit.findings {
            let key = layout::finding(tenant, &finding.uid);
            self.put_json(Family::Finding, key, finding)?;
        }
        for (tenant, uid) in &commit.forget_findings {
            self.remove(layout::finding(tenant, uid));
        }
        for (tenant, uid) in &commit.forget_verdicts {
            self.remove(layout::verdict(tenant, uid));
        }
        for (tenant, verdict) in &commit.verdicts {
            let key = layout::verdict(tenant, &verdict.uid);
            self.put_json(Family::Verdict, key, verdict)?;
        }
        Ok(())
    }

    fn add_done(&mut self, item: &DoneItem) -> Result<(), StateError> {
        self.remove(layout::work(&item.stream, &item.key));
        let entry = DoneEntry {
            key: item.key.clone(),
            forget_after: item.forget_after,
            given_up: item.given_up,
        };
        self.put_json(Family::Done, layout::done(&item.stream, &item.key), &entry)
    }

    fn add_quarantined(&mut self, quarantined: &Quarantined) -> Result<(), StateError> {
        let entry = QuarantineEntry {
            id: quarantined.id.clone(),
            stream: quarantined.stream.clone(),
            origin: quarantined.origin.clone(),
            reason: quarantined.reason.clone(),
            at: quarantined.at,
            file: quarantined
                .file
                .clone()
                .filter(|_| !quarantined.fate.is_over()),
            item: quarantined.item.clone(),
            fate: quarantined.fate.clone(),
        };
        let key = layout::quarantine(quarantined.stream.tenant(), &quarantined.id);
        self.put_json(Family::Quarantine, key, &entry)
    }

    fn add_lane(&mut self, mark: &LaneMark, end: Position) -> Result<(), StateError> {
        if mark.position > end {
            return Err(StateError::Invalid {
                reason: format!(
                    "lane {} is at {:?}, behind the end of the outbox {end:?}",
                    mark.lane.emitter, mark.position
                ),
            });
        }
        self.put_json(Family::Lane, layout::lane(&mark.lane), mark)
    }

    fn add_seen(&mut self, chunk: &SeenChunk) -> Result<(), StateError> {
        if chunk.fingerprints.len() > SEEN_CHUNK_MAX {
            return Err(StateError::TooLarge {
                what: "number of fingerprints in a chunk".to_owned(),
                bytes: chunk.fingerprints.len() * 8,
                bytes_max: SEEN_CHUNK_MAX * 8,
            });
        }
        self.fingerprints
            .entry((chunk.tenant.clone(), chunk.day))
            .or_default()
            .extend_from_slice(&chunk.fingerprints);
        Ok(())
    }

    fn forget_seen_before(&mut self, tenant: &TenantId, day: NaiveDate) -> Result<(), StateError> {
        self.fingerprints
            .retain(|(of, arrived), _| of != tenant || *arrived >= day);
        let prefix = layout::seen_of(tenant);
        let until = layout::seen_day(tenant, day);
        let batch = &mut self.batch;
        self.table
            .walk(prefix.bytes(), prefix.bytes(), &mut |key, _| {
                let old = key < until.bytes();
                if old {
                    batch.insert(key.to_vec(), None);
                }
                Ok(old)
            })
    }

    /// Fills the last chunk of the day up before it begins another, so that many small pages do
    /// not make many small values.
    fn write_fingerprints(&mut self) -> Result<(), StateError> {
        for ((tenant, day), new) in std::mem::take(&mut self.fingerprints) {
            let (mut chunk, mut fingerprints) = self.last_chunk(&tenant, day)?;
            fingerprints.extend(new);
            for part in fingerprints.chunks(SEEN_CHUNK_MAX) {
                let key = layout::seen(&tenant, day, chunk);
                self.put(Family::Seen, key, layout::pack_fingerprints(part))?;
                chunk = chunk.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Number and content of the chunk that has room, or of one still to begin.
    fn last_chunk(&self, tenant: &TenantId, day: NaiveDate) -> Result<(u32, Vec<u64>), StateError> {
        let prefix = layout::seen_day(tenant, day);
        let Some(key) = self.table.last(prefix.bytes())? else {
            return Ok((0, Vec::new()));
        };
        if self.batch.contains_key(&key) {
            // Forgotten in this very batch.
            return Ok((0, Vec::new()));
        }
        let corrupt = |reason| StateError::Corrupt {
            folder: self.table.folder(),
            reason,
        };
        let number = layout::parts(&key)
            .and_then(|mut parts| String::from_utf8(parts.pop()?).ok())
            .and_then(|number| u32::from_str_radix(&number, 16).ok())
            .ok_or_else(|| corrupt(format!("{} is no chunk", layout::display(&key))))?;
        let value = self.table.get(&key)?.unwrap_or_default();
        let body = layout::open(&key, &value).map_err(corrupt)?;
        let fingerprints = layout::unpack_fingerprints(body).map_err(corrupt)?;
        if fingerprints.len() < SEEN_CHUNK_MAX {
            Ok((number, fingerprints))
        } else {
            Ok((number.saturating_add(1), Vec::new()))
        }
    }
}

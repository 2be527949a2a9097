//! [`StateStore`] over any [`Table`]: what the keys and values mean, once for both stores.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, NaiveDate, Utc};
use exfilwatch_model::finding::FindingState;
use exfilwatch_model::{Cursor, Gap, JobId, StreamId, TenantId, Verdict, WorkItem};
use serde::de::DeserializeOwned;

use crate::commit::{
    Commit, FileMark, JobState, LaneId, LaneMark, Position, Quarantined, Subscription, Watermark,
    WindowChange,
};
use crate::contract::{StateError, StateStore};
use crate::layout::{self, FORMAT_VERSION, Family, Key};
use crate::prepare::{DoneEntry, Preparation, QuarantineEntry};
use crate::rebuild::Untold;
use crate::table::{Batch, Table};

/// Name of the meta entry that holds where lanes without a mark begin after a rebuild.
pub(crate) const LANES_FROM: &str = "lanes_from";
/// Name of the meta entry that holds what is lost and not told.
pub(crate) const UNTOLD: &str = "untold";
/// Name of the meta entry that counts commits.
pub(crate) const COMMITS: &str = "commits";
/// Keys removed in one batch when something is forgotten.
const FORGET_BATCH_MAX: usize = 1_000;

/// A store over a table.
#[derive(Debug)]
pub struct Store<T> {
    table: T,
    /// Held while a batch is made and written: chunks of the seen index are read and extended.
    writing: Mutex<()>,
}

impl<T: Table> Store<T> {
    pub(crate) fn over(table: T) -> Self {
        Self {
            table,
            writing: Mutex::new(()),
        }
    }

    pub(crate) fn table(&self) -> &T {
        &self.table
    }

    /// Keeps others from writing between a [`Store::prepare`] and its [`Store::write`].
    pub(crate) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn corrupt(&self, reason: String) -> StateError {
        StateError::Corrupt {
            folder: self.table.folder(),
            reason,
        }
    }

    /// Makes a new store of an empty table, in one batch with `content`.
    pub(crate) fn initialise(&self, hash_key: [u8; 16], content: Batch) -> Result<(), StateError> {
        let mut preparation = Preparation::new(&self.table);
        preparation.put_json(Family::Meta, layout::meta("format"), &FORMAT_VERSION)?;
        preparation.put_json(Family::Meta, layout::meta("hash_key"), &hash_key)?;
        let tool = env!("CARGO_PKG_VERSION");
        preparation.put_json(Family::Meta, layout::meta("tool"), &tool)?;
        preparation.end(Position::default())?;
        let mut batch = preparation.finish()?;
        batch.extend(content);
        self.table.write(batch)
    }

    /// Format of the store; `None` when it was never initialised.
    pub(crate) fn format(&self) -> Result<Option<u32>, StateError> {
        self.read(&layout::meta("format"))
    }

    /// Checks the commits and makes their batch; no lane may be behind `end`. Nothing is written.
    pub(crate) fn prepare(&self, commits: &[Commit], end: Position) -> Result<Batch, StateError> {
        let mut preparation = Preparation::new(&self.table);
        for commit in commits {
            preparation.add(commit, end)?;
        }
        preparation.finish()
    }

    /// Commits the store has taken since it was made: a store that knows fewer than its mirror has
    /// lost some.
    pub(crate) fn commits(&self) -> Result<u64, StateError> {
        Ok(self.read(&layout::meta(COMMITS))?.unwrap_or_default())
    }

    /// Writes a batch and the end of the outbox that goes with it.
    pub(crate) fn write(&self, mut batch: Batch, end: Position) -> Result<(), StateError> {
        let mut preparation = Preparation::new(&self.table);
        preparation.end(end)?;
        let commits = self.commits()?.saturating_add(1);
        preparation.put_json(Family::Meta, layout::meta(COMMITS), &commits)?;
        batch.extend(preparation.finish()?);
        self.table.write(batch)
    }

    /// The body of a key as JSON.
    pub(crate) fn read<V: DeserializeOwned>(&self, key: &Key) -> Result<Option<V>, StateError> {
        let Some(value) = self.table.get(key.bytes())? else {
            return Ok(None);
        };
        layout::open(key.bytes(), &value)
            .and_then(|body| layout::from_json(key.bytes(), body))
            .map(Some)
            .map_err(|reason| self.corrupt(reason))
    }

    /// Calls it with key and body of everything below the prefix, in order.
    pub(crate) fn each(
        &self,
        prefix: &Key,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), StateError> {
        let prefix = prefix.bytes();
        self.table.walk(prefix, prefix, &mut |key, value| {
            layout::open(key, value)
                .and_then(|body| visit(key, body))
                .map_err(|reason| self.corrupt(reason))?;
            Ok(true)
        })
    }

    /// Everything below the prefix, as JSON, in the order of the keys.
    pub(crate) fn all<V: DeserializeOwned>(&self, prefix: &Key) -> Result<Vec<V>, StateError> {
        let mut all = Vec::new();
        self.each(prefix, |key, body| {
            all.push(layout::from_json(key, body)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// Where a lane without a mark begins because the store was rebuilt without it.
    pub(crate) fn lanes_from(&self) -> Result<Option<Position>, StateError> {
        self.read(&layout::meta(LANES_FROM))
    }

    /// What opening found lost, this time or before, and no commit has told.
    pub(crate) fn untold(&self) -> Result<Untold, StateError> {
        Ok(self.read(&layout::meta(UNTOLD))?.unwrap_or_default())
    }

    /// Remembers it until a commit tells it.
    pub(crate) fn keep_untold(&self, untold: &Untold) -> Result<(), StateError> {
        let mut preparation = Preparation::new(&self.table);
        preparation.put_json(Family::Meta, layout::meta(UNTOLD), untold)?;
        self.write(preparation.finish()?, self.outbox_end()?)
    }

    /// Removes the keys, in batches. Returns how many.
    fn forget(&self, keys: &[Vec<u8>]) -> Result<usize, StateError> {
        for part in keys.chunks(FORGET_BATCH_MAX) {
            let _writing = self.writing();
            let batch = part.iter().map(|key| (key.clone(), None)).collect();
            self.table.write(batch)?;
        }
        Ok(keys.len())
    }

    fn keys_below(&self, prefix: &Key, keys: &mut Vec<Vec<u8>>) -> Result<(), StateError> {
        self.each(prefix, |key, _| {
            keys.push(key.to_vec());
            Ok(())
        })
    }

    /// The tenants that have anything in the family, by jumping from one to the next.
    fn tenants(&self, family: Family) -> Result<Vec<TenantId>, StateError> {
        let prefix = Key::of(family);
        let mut tenants = Vec::new();
        let mut from = prefix.bytes().to_vec();
        loop {
            let mut next = None;
            self.table.walk(&from, prefix.bytes(), &mut |key, _| {
                next = Some(key.to_vec());
                Ok(false)
            })?;
            let Some(key) = next else {
                return Ok(tenants);
            };
            let tenant = tenant_of(&key).map_err(|reason| self.corrupt(reason))?;
            let below = prefix.clone().part(TenantId::as_str(&tenant).as_bytes());
            from = [below.bytes(), &[0xFF]].concat();
            tenants.push(tenant);
        }
    }
}

impl<T: Table> StateStore for Store<T> {
    fn apply(&self, commits: &[Commit], end: Position) -> Result<(), StateError> {
        let _writing = self.writing();
        let known = self.outbox_end()?;
        if end < known {
            return Err(StateError::Invalid {
                reason: format!("the outbox would end at {end:?}, before {known:?}"),
            });
        }
        self.write(self.prepare(commits, end)?, end)
    }

    fn outbox_end(&self) -> Result<Position, StateError> {
        Ok(self.read(&layout::meta("outbox_end"))?.unwrap_or_default())
    }

    fn hash_key(&self) -> Result<[u8; 16], StateError> {
        self.read(&layout::meta("hash_key"))?
            .ok_or_else(|| self.corrupt("the key of the fingerprints is missing".to_owned()))
    }

    fn cursor(&self, stream: &StreamId) -> Result<Option<Cursor>, StateError> {
        self.read(&layout::cursor(stream))
    }

    fn restart_from(&self, stream: &StreamId) -> Result<Option<DateTime<Utc>>, StateError> {
        self.read(&layout::restart(stream))
    }

    fn low_waters(&self) -> Result<Vec<(StreamId, DateTime<Utc>)>, StateError> {
        let mut low_waters = Vec::new();
        for family in [Family::Restart, Family::Cursor] {
            self.each(&Key::of(family), |key, body| {
                let stream = stream_of(key)?;
                let at = if family == Family::Cursor {
                    layout::from_json::<Cursor>(key, body)?.covered_until
                } else {
                    layout::from_json(key, body)?
                };
                low_waters.push((stream, at));
                Ok(())
            })?;
        }
        for (stream, at) in &mut low_waters {
            for item in self.work(stream)? {
                *at = item.from.min(*at);
            }
        }
        low_waters.sort();
        Ok(low_waters)
    }

    fn work(&self, stream: &StreamId) -> Result<Vec<WorkItem>, StateError> {
        self.all(&layout::work_of(stream))
    }

    fn is_known(&self, stream: &StreamId, key: &str) -> Result<bool, StateError> {
        for key in [layout::work(stream, key), layout::done(stream, key)] {
            if self.table.get(key.bytes())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn was_given_up(&self, stream: &StreamId, key: &str) -> Result<bool, StateError> {
        let key = layout::done(stream, key);
        let entry: Option<DoneEntry> = self.read(&key)?;
        Ok(entry.is_some_and(|entry| entry.given_up))
    }

    fn forget_done(&self, now: DateTime<Utc>) -> Result<usize, StateError> {
        let mut keys = Vec::new();
        self.each(&Key::of(Family::Done), |key, body| {
            if layout::from_json::<DoneEntry>(key, body)?.forget_after <= now {
                keys.push(key.to_vec());
            }
            Ok(())
        })?;
        self.forget(&keys)
    }

    fn each_seen(
        &self,
        tenant: &TenantId,
        visit: &mut dyn FnMut(NaiveDate, &[u64]),
    ) -> Result<(), StateError> {
        self.each(&layout::seen_of(tenant), |key, body| {
            let day = layout::parts(key)
                .and_then(|parts| std::str::from_utf8(parts.get(2)?).ok()?.parse().ok())
                .ok_or_else(|| format!("{} has no day", layout::display(key)))?;
            visit(day, &layout::unpack_fingerprints(body)?);
            Ok(())
        })
    }

    fn windows(&self, job: &JobId, tenant: &TenantId) -> Result<Vec<WindowChange>, StateError> {
        let mut windows = Vec::new();
        self.each(&layout::windows_of(tenant, job), |at, body| {
            let (detector, key, value) = layout::unpack_window(body)
                .ok_or_else(|| format!("{} is no detector memory", layout::display(at)))?;
            windows.push(WindowChange {
                job: job.clone(),
                tenant: tenant.clone(),
                detector: detector.to_owned(),
                key: key.to_vec(),
                value: Some(value.to_vec()),
            });
            Ok(())
        })?;
        Ok(windows)
    }

    fn tenants_with_memory(&self, job: &JobId) -> Result<Vec<TenantId>, StateError> {
        let mut tenants = self.tenants(Family::Window)?;
        let mut failed = None;
        tenants.retain(|tenant| {
            let prefix = layout::windows_of(tenant, job);
            let mut any = false;
            let walked = self
                .table
                .walk(prefix.bytes(), prefix.bytes(), &mut |_, _| {
                    any = true;
                    Ok(false)
                });
            failed = failed.take().or(walked.err());
            any
        });
        failed.map_or(Ok(tenants), Err)
    }

    fn forget_job_windows(&self, job: &JobId) -> Result<(), StateError> {
        let mut keys = Vec::new();
        for tenant in self.tenants(Family::Window)? {
            self.keys_below(&layout::windows_of(&tenant, job), &mut keys)?;
        }
        for tenant in self.tenants(Family::Watermark)? {
            self.keys_below(&layout::watermarks_of(&tenant, job), &mut keys)?;
        }
        self.forget(&keys).map(drop)
    }

    fn watermarks(&self, job: &JobId) -> Result<Vec<Watermark>, StateError> {
        let mut watermarks = Vec::new();
        for tenant in self.tenants(Family::Watermark)? {
            watermarks.extend(self.all(&layout::watermarks_of(&tenant, job))?);
        }
        Ok(watermarks)
    }

    fn findings(&self, tenant: &TenantId) -> Result<Vec<FindingState>, StateError> {
        self.all(&layout::findings_of(tenant))
    }

    fn tenants_with_findings(&self) -> Result<Vec<TenantId>, StateError> {
        self.tenants(Family::Finding)
    }

    fn verdicts(&self) -> Result<Vec<(TenantId, Verdict)>, StateError> {
        let mut verdicts = Vec::new();
        self.each(&Key::of(Family::Verdict), |key, body| {
            verdicts.push((tenant_of(key)?, layout::from_json(key, body)?));
            Ok(())
        })?;
        Ok(verdicts)
    }

    fn lanes(&self) -> Result<Vec<LaneMark>, StateError> {
        self.all(&Key::of(Family::Lane))
    }

    fn lane(&self, lane: &LaneId) -> Result<Option<LaneMark>, StateError> {
        self.read(&layout::lane(lane))
    }

    fn gaps(&self) -> Result<Vec<Gap>, StateError> {
        let mut gaps: Vec<Gap> = self.all(&Key::of(Family::Gap))?;
        gaps.sort_by(|a, b| {
            let place = |gap: &Gap| (gap.stream.clone(), gap.window, gap.id.clone());
            place(a).cmp(&place(b))
        });
        Ok(gaps)
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>, StateError> {
        let mut entries: Vec<QuarantineEntry> = self.all(&Key::of(Family::Quarantine))?;
        entries.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.id.cmp(&b.id)));
        let read = |entry: QuarantineEntry| Quarantined {
            id: entry.id,
            stream: entry.stream,
            origin: entry.origin,
            reason: entry.reason,
            at: entry.at,
            bytes: bytes::Bytes::new(),
            file: entry.file,
            item: entry.item,
            fate: entry.fate,
        };
        Ok(entries.into_iter().map(read).collect())
    }

    fn subscription(&self, stream: &StreamId) -> Result<Option<Subscription>, StateError> {
        self.read(&layout::subscription(stream))
    }

    fn forget_jobs(&self, jobs: &[JobId]) -> Result<(), StateError> {
        let keys: Vec<Vec<u8>> = jobs
            .iter()
            .map(|job| layout::job(job).bytes().to_vec())
            .collect();
        self.forget(&keys).map(drop)
    }

    fn jobs(&self) -> Result<Vec<JobState>, StateError> {
        self.all(&Key::of(Family::Job))
    }

    fn file(&self, digest: &str) -> Result<Option<FileMark>, StateError> {
        self.read(&layout::file(digest))
    }
}

/// The tenant whose key it is, where that is its first part.
fn tenant_of(key: &[u8]) -> Result<TenantId, String> {
    layout::parts(key)
        .and_then(|parts| std::str::from_utf8(parts.get(1)?).ok()?.parse().ok())
        .ok_or_else(|| format!("{} has no tenant", layout::display(key)))
}

/// The stream a key of `cursor`, `restart` or `subscription` is for.
pub(crate) fn stream_of(key: &[u8]) -> Result<StreamId, String> {
    layout::parts(key)
        .and_then(|parts| {
            let text = |at: usize| std::str::from_utf8(parts.get(at)?).ok();
            StreamId::new(text(1)?.parse().ok()?, text(2)?, text(3)?).ok()
        })
        .ok_or_else(|| format!("{} names no stream", layout::display(key)))
}

//! The store on disk: sled 0.34.7, which alone is not durable.
//!
//! Its `flush()` ends in `sync_file_range` on Linux; 27 of 30 power cuts lost acknowledged batches.
//! With `File::sync_data()` on our own handle of its `db` file after each flush none did. It may
//! also panic on damaged files, so every call runs under `catch_unwind` and comes back as
//! [`StateError::Corrupt`].

use std::fs::{File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::contract::StateError;
use crate::disk;
use crate::steps::{Step, Steps};
use crate::store::Store;
use crate::table::{Batch, Table, Visit};

/// Memory sled may use for pages, in bytes. Its default is 1 GiB.
pub const CACHE_BYTES: u64 = 16 << 20;

/// How often, and with what pause, a store that our own process is closing is tried.
const CLOSE_TRIES_MAX: u32 = 50;
const CLOSE_WAIT: Duration = Duration::from_millis(20);

/// The store that survives.
pub type SledStore = Store<SledTable>;

/// sled in a folder, and our handle of its data file.
#[derive(Debug)]
pub struct SledTable {
    folder: PathBuf,
    db: sled::Db,
    data: File,
    steps: Steps,
    sync: bool,
}

impl SledTable {
    /// Opens or creates it. `sync` is false only where a test would wait too long for the disk.
    pub(crate) fn open(folder: &Path, steps: Steps, sync: bool) -> Result<Self, StateError> {
        let fresh = !folder.join("db").exists();
        disk::make_private_folder(folder)?;
        let config = sled::Config::new()
            .path(folder)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let db = open_when_closed(folder, &config)?;
        let path = folder.join("db");
        let data = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(disk::failed("opening", &path))?;
        if fresh {
            for name in ["db", "conf"] {
                disk::make_private_file(&folder.join(name))?;
            }
            data.sync_all().map_err(disk::failed("syncing", &path))?;
            disk::sync_folder(folder)?;
            if let Some(parent) = folder.parent() {
                disk::sync_folder(parent)?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            db,
            data,
            steps,
            sync,
        })
    }
}

/// The state folder is ours alone, so a lock on the store is one of our own that is about to be
/// given back: sled closes in the background.
fn open_when_closed(folder: &Path, config: &sled::Config) -> Result<sled::Db, StateError> {
    let mut tries = 1;
    loop {
        match guarded(folder, || config.open()) {
            Err(StateError::Locked { .. }) if tries < CLOSE_TRIES_MAX => {
                tries += 1;
                std::thread::sleep(CLOSE_WAIT);
            }
            other => return other,
        }
    }
}

/// Runs it; errors and panics of sled become ours.
fn guarded<T>(folder: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StateError> {
    let corrupt = |reason: String| StateError::Corrupt {
        folder: folder.to_owned(),
        reason,
    };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("acquire lock") => {
            Err(StateError::Locked {
                folder: folder.to_owned(),
            })
        }
        // A short read is a damaged file, anything else of the disk is not the store's fault.
        Ok(Err(sled::Error::Io(error))) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(disk::failed("using the store in", folder)(error))
        }
        Ok(Err(error)) => Err(corrupt(error.to_string())),
        Err(panic) => Err(corrupt(
            panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("sled panicked")
                .to_owned(),
        )),
    }
}

impl Table for SledTable {
    fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let value = guarded(&self.folder, || self.db.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn walk(&self, from: &[u8], prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        let mut entries = self.db.range(from.max(prefix)..);
        while let Some((key, value)) = guarded(&self.folder, || entries.next().transpose())? {
            if !key.starts_with(prefix) || !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let last = guarded(&self.folder, || {
            self.db.scan_prefix(prefix).next_back().transpose()
        })?;
        Ok(last.map(|(key, _)| key.to_vec()))
    }

    fn write(&self, batch: Batch) -> Result<(), StateError> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        guarded(&self.folder, || self.db.apply_batch(writes))?;
        self.steps.reached(Step::StoreApplied)?;
        guarded(&self.folder, || self.db.flush())?;
        self.steps.reached(Step::StoreFlushed)?;
        if self.sync {
            let path = self.folder.join("db");
            self.data
                .sync_data()
                .map_err(disk::failed("syncing", &path))?;
        }
        self.steps.reached(Step::StoreSynced)
    }
}

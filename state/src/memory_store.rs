//! The store in memory: the same layout over a `BTreeMap`. For tests, `replay` and dry runs.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use crate::contract::StateError;
use crate::store::Store;
use crate::table::{Batch, Table, Visit};

/// Keys and values in memory.
#[derive(Debug, Default)]
pub struct MemoryTable(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

/// A store that is gone when it is dropped.
pub type MemoryStore = Store<MemoryTable>;

impl MemoryStore {
    /// An empty store. `hash_key` is the key of its fingerprints.
    pub fn new(hash_key: [u8; 16]) -> Result<Self, StateError> {
        let store = Self::over(MemoryTable::default());
        store.initialise(hash_key, Batch::new())?;
        Ok(store)
    }
}

impl Table for MemoryTable {
    fn folder(&self) -> PathBuf {
        PathBuf::from("memory")
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(entries.get(key).cloned())
    }

    fn walk(&self, from: &[u8], prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let start = Bound::Included(from.max(prefix));
        for (key, value) in entries.range::<[u8], _>((start, Bound::Unbounded)) {
            if !key.starts_with(prefix) || !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let mut last = None;
        self.walk(prefix, prefix, &mut |key, _| {
            last = Some(key.to_vec());
            Ok(true)
        })?;
        Ok(last)
    }

    fn write(&self, batch: Batch) -> Result<(), StateError> {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        Ok(())
    }
}

//! The little that a store needs of what keeps its keys: get, walk, and write a batch.
//!
//! Two exist, sled's and one in memory. What keys and values mean is none of their business.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use crate::contract::StateError;

/// Puts (`Some`) and removals (`None`), at most one for a key.
pub(crate) type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What [`Table::walk`] calls with each key and value; `false` ends the walk.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StateError> + 'a;

/// Ordered keys and values. Wrong implementations break everything above: `write` must be atomic,
/// and durable when it returns.
pub trait Table: Send + Sync + Debug {
    /// The folder, for error messages.
    fn folder(&self) -> PathBuf;
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
    /// All keys with the prefix that are not below `from`, in order. Takes no snapshot.
    fn walk(&self, from: &[u8], prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError>;
    /// The last key with the prefix.
    fn last(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
    /// Writes the batch: all or nothing, on disk when it returns.
    fn write(&self, batch: Batch) -> Result<(), StateError>;
}

//! State: the store (sled behind [`StateStore`]), the outbox segments, and the commit that joins
//! them. A cursor is written only by a commit that also holds what it covers; nothing counts
//! before the commit returned.
#![warn(missing_docs)]

mod commit;
mod contract;
mod diagnosis;
mod disk;
mod export;
mod import;
mod inspect;
mod layout;
mod memory_store;
mod migrate;
mod mirror;
mod outbox;
mod prepare;
mod quarantine;
mod rebuild;
mod seen;
mod sled_store;
mod state;
mod steps;
mod store;
mod table;
mod usage;

pub use commit::{
    Commit, DoneItem, Fate, FileMark, Frame, JobState, LaneId, LaneMark, Position, Quarantined,
    RefusedItem, SEEN_CHUNK_MAX, SeenChunk, Subscription, Unbroken, VALUE_BYTES_MAX, Watermark,
    WindowChange,
};
pub use contract::{StateError, StateStore};
pub use diagnosis::{Budget, look as diagnose};
pub use export::Exported;
pub use import::{Imported, import};
pub use inspect::{FamilySummary, PROBLEMS_MAX, StateSummary, Verification};
pub use layout::FORMAT_VERSION;
pub use memory_store::{MemoryStore, MemoryTable};
pub use mirror::{MIRROR_FILE, Mirror};
pub use outbox::{
    Damage, Delivery, FRAME_BYTES_TARGET, Filter, ITEM_BYTES_MAX, OutboxReader, OutboxWriter,
    Pending, SEGMENT_BYTES_MAX, Tenants,
};
pub use quarantine::{QUARANTINE_BYTES_MAX, quarantined_bytes};
pub use rebuild::{RebuildReport, StoreLost, Untold};
pub use seen::{SEEN_DAYS, SEEN_ENTRIES_MAX, SeenBudget, SeenIndex, SeenPlan};
pub use sled_store::{CACHE_BYTES, SledStore, SledTable};
pub use state::{Committed, MIRROR_SECONDS, Opened, Options, State};
#[doc(hidden)]
pub use steps::{OnStep, Step, Steps};
pub use store::Store;
pub use table::Table;
pub use usage::{OutboxUsage, Trimmed};

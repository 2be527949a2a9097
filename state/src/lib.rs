//! State: the store (sled behind [`StateStore`]), the outbox segments, and the commit that joins
//! them. A cursor is written only by a commit that also holds what it covers; nothing counts
//! before the commit returned.
#![warn(missing_docs)]

mod commit;
mod contract;

pub use commit::{
    Commit, DoneItem, FileMark, Frame, JobState, LaneId, LaneMark, Position, Quarantined,
    SeenChunk, Subscription, Watermark, WindowChange,
};
pub use contract::{StateError, StateStore};

//! The outbox: what waits for delivery, in append-only segment files.
//!
//! One writer appends frames (items of one kind and tenant) and publishes how far they count; any
//! number of readers follow, each from its own position and for its own kind. Payloads never go
//! through the store, which does not give large values back.

mod frame;
mod reader;
mod segment;
mod walk;
mod writer;

pub use reader::{Delivery, Filter, OutboxReader, Pending, Tenants};
pub use walk::Damage;
pub use writer::OutboxWriter;

pub(crate) use segment::{
    Content, START, THINNED_BYTES_MIN, bytes_of, content, last_good_end, list,
    path as segment_path, thin,
};
pub(crate) use walk::FrameWalk;

/// Largest item, in bytes: a record may have 4 MiB, a finding quotes several.
pub const ITEM_BYTES_MAX: usize = 16 << 20;
/// A frame is closed when its items reach this many bytes, so that a reader holds little.
pub const FRAME_BYTES_TARGET: usize = 1 << 20;
/// A new segment is begun when a frame would make it larger than this.
pub const SEGMENT_BYTES_MAX: u64 = 32 << 20;

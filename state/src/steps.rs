//! The named steps of a commit, so that tests can stop or kill between every two of them.
//!
//! In service nothing is set and a step costs one comparison.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::contract::StateError;

/// What has just been done when the step is reached, in the order of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The batch for the store is made and checked; nothing is written.
    Prepared,
    /// The bytes of quarantined things are in synced files.
    QuarantineWritten,
    /// The frames are appended to the segment, not synced.
    FramesAppended,
    /// The segment is synced.
    SegmentSynced,
    /// sled has the batch, in memory.
    StoreApplied,
    /// sled has written it.
    StoreFlushed,
    /// The batch is on disk: the commit counts from here on.
    StoreSynced,
    /// The new end is published to the readers.
    Published,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 8] = [
        Self::Prepared,
        Self::QuarantineWritten,
        Self::FramesAppended,
        Self::SegmentSynced,
        Self::StoreApplied,
        Self::StoreFlushed,
        Self::StoreSynced,
        Self::Published,
    ];

    /// Name of the step, as tests give it to the binary.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::QuarantineWritten => "quarantine-written",
            Self::FramesAppended => "frames-appended",
            Self::SegmentSynced => "segment-synced",
            Self::StoreApplied => "store-applied",
            Self::StoreFlushed => "store-flushed",
            Self::StoreSynced => "store-synced",
            Self::Published => "published",
        }
    }

    /// The step of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }
}

/// Called at each step; an error fails the commit there.
pub type OnStep = dyn FnMut(Step) -> Result<(), StateError> + Send;

/// What happens at the steps of a commit: nothing, except in tests.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<Mutex<OnStep>>>);

impl Steps {
    /// Calls it at each step.
    pub fn new(on_step: impl FnMut(Step) -> Result<(), StateError> + Send + 'static) -> Self {
        Self(Some(Arc::new(Mutex::new(on_step))))
    }

    /// Kills the process when the step is reached for the `nth` time (from 1), as a crash would:
    /// nothing is flushed, nothing dropped.
    pub fn abort_at(step: Step, nth: u64) -> Self {
        let mut reached = 0;
        Self::new(move |at| {
            if at == step {
                reached += 1;
                if reached == nth {
                    std::process::abort();
                }
            }
            Ok(())
        })
    }

    pub(crate) fn reached(&self, step: Step) -> Result<(), StateError> {
        match &self.0 {
            None => Ok(()),
            Some(on_step) => on_step.lock().unwrap_or_else(PoisonError::into_inner)(step),
        }
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Steps(set)"
        } else {
            "Steps"
        })
    }
}

//! The seam between a lane and a receiver.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use exfilwatch_model::Envelope;
use exfilwatch_model::diagnosis::Check;

/// One item the receiver will never take, and why. The lane quarantines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Index in the batch.
    pub index: usize,
    /// Why, in one sentence with the receiver's words.
    pub reason: String,
}

/// One item that the receiver does not take yet, for its tenant's sake: others' items are taken. The lane
/// parts the tenant from the rest, and asks again for it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldItem {
    /// Index in the batch.
    pub index: usize,
    /// What the receiver said.
    pub what: String,
    /// What to do, one sentence.
    pub help: String,
}

/// The receipt for a batch: everything in it was taken, apart from what is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Items that were refused for good.
    pub refused: Vec<Refusal>,
    /// Items that wait for something of their tenant's: an index of its own.
    pub held: Vec<HeldItem>,
}

/// What a receiver that keeps things itself holds, and what its limits have taken out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes it holds.
    pub bytes: u64,
    /// Files removed since it was begun.
    pub files_removed: u64,
    /// Bytes of them.
    pub bytes_removed: u64,
    /// Items that were older than what is kept when they came, and were not written.
    pub items_too_old: u64,
}

/// What an emitter counts since the process began, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Name, as it stands behind `exfilwatch_emitter_`.
    pub name: &'static str,
    /// What is counted, in a few words.
    pub help: &'static str,
    /// How often.
    pub value: u64,
}

/// Why a batch was not taken, by what the lane must do. Nothing of the batch counts as delivered;
/// it is sent again as the same bytes.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// Send again after a back-off; `after` is the receiver's wish.
    #[error("{what}")]
    Retry {
        /// What was tried, on what, why it failed.
        what: String,
        /// `Retry-After`, capped.
        after: Option<Duration>,
    },
    /// Keep everything, try slowly, tell the operator: token, permission, index, wrong port.
    #[error("{what}")]
    Hold {
        /// What the receiver said.
        what: String,
        /// What to do, one sentence.
        help: String,
    },
}

/// A receiver of envelopes.
#[async_trait]
pub trait Emitter: Send + Sync + Debug {
    /// `kind.name` as configured (`splunk_hec.main`).
    fn name(&self) -> &str;

    /// Most items and bytes of payload a batch should hold.
    fn batch_max(&self) -> (usize, usize);

    /// Resolves when the receiver has taken the batch for good (HEC ack where on, fsync for
    /// files), or says which items it refused and why. Several may be in flight. An
    /// implementation that resolves before the receiver has the data loses it on a crash.
    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError>;

    /// The same, and says in between when all of the batch is sent and only the receipt is waited for.
    /// Batches that are sent do not keep further ones back; the emitter bounds them itself.
    async fn emit_telling(
        &self,
        batch: &[Envelope],
        sent: &(dyn Fn() + Sync),
    ) -> Result<Delivered, EmitError> {
        let delivered = self.emit(batch).await;
        // Where the receipt comes with the reply there is nothing in between.
        sent();
        delivered
    }

    /// The id under which an item goes out, by which it is found at the receiver.
    fn sent_id(&self, item: &Envelope) -> String {
        item.id.clone()
    }

    /// What an operator should know of the receiver, though everything is delivered.
    fn remark(&self) -> Option<String> {
        None
    }

    /// What is counted besides what lanes count.
    fn counts(&self) -> Vec<Count> {
        Vec::new()
    }

    /// What it keeps itself; most keep nothing.
    fn kept(&self) -> Option<Kept> {
        None
    }

    /// Looks at what the receiver would refuse, for `doctor`: token, index, acknowledgement, file.
    /// Delivers nothing. The way to the receiver is looked at by the caller, the subject of the
    /// checks is left to it.
    async fn diagnose(&self) -> Vec<Check> {
        Vec::new()
    }
}

//! What of a failed batch had been taken before it failed, so that the resend does not double it.
//!
//! A lane sends a failed batch again as the same bytes; it is recognised by a digest of them. In
//! memory only: after a restart the whole batch goes out again, with the same ids.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use exfilwatch_model::Envelope;

/// Most failed batches remembered; the oldest is forgotten first.
const BATCHES_MAX: usize = 256;

/// What happened to one item so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not taken yet.
    Open,
    /// Taken for good.
    Taken,
}

#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<VecDeque<(u64, Vec<Fate>)>>);

impl Progress {
    /// Fates of the items of a batch that failed before; forgets them.
    pub(crate) fn recall(&self, batch: &[Envelope], items: usize) -> Option<Vec<Fate>> {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.is_empty() {
            return None;
        }
        let digest = digest(batch);
        let at = batches.iter().position(|(known, _)| *known == digest)?;
        let (_, fates) = batches.remove(at)?;
        (fates.len() == items).then_some(fates)
    }

    /// Remembers a failed batch, when any of it was taken.
    pub(crate) fn keep(&self, batch: &[Envelope], fates: Vec<Fate>) {
        if !fates.contains(&Fate::Taken) {
            return;
        }
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.len() >= BATCHES_MAX {
            batches.pop_front();
        }
        batches.push_back((digest(batch), fates));
    }
}

fn digest(batch: &[Envelope]) -> u64 {
    let mut hasher = DefaultHasher::new();
    batch.len().hash(&mut hasher);
    for envelope in batch {
        envelope.stream.hash(&mut hasher);
        envelope.id.hash(&mut hasher);
        envelope.payload.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use exfilwatch_model::Kind;

    fn batch(id: &str) -> Vec<Envelope> {
        vec![Envelope {
            kind: Kind::Events,
            stream: "contoso/office365/dlp".parse().unwrap(),
            id: id.to_owned(),
            time: None,
            fetched_at: DateTime::UNIX_EPOCH,
            payload: "{}".into(),
        }]
    }

    #[test]
    fn only_the_same_batch_is_recalled_and_only_once() {
        let progress = Progress::default();
        progress.keep(&batch("a"), vec![Fate::Taken, Fate::Open]);
        assert_eq!(progress.recall(&batch("b"), 2), None);
        let fates = Some(vec![Fate::Taken, Fate::Open]);
        assert_eq!(progress.recall(&batch("a"), 2), fates);
        assert_eq!(progress.recall(&batch("a"), 2), None);
        progress.keep(&batch("a"), vec![Fate::Open]);
        assert_eq!(progress.recall(&batch("a"), 1), None);
    }

    #[test]
    fn the_oldest_batch_is_forgotten_first() {
        let progress = Progress::default();
        for n in 0..=BATCHES_MAX {
            progress.keep(&batch(&n.to_string()), vec![Fate::Taken]);
        }
        assert_eq!(progress.recall(&batch("0"), 1), None);
        assert_eq!(progress.recall(&batch("1"), 1), Some(vec![Fate::Taken]));
    }
}

//! A batch on its way: which of its events are taken, refused, waiting or still to be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::ack::Pending;
use super::client::Reply;
use super::encoded::{Encoded, Piece};
use super::endpoints::Endpoint;
use super::reply::words;
use super::request::{Load, runs};
use crate::contract::EmitError;
use crate::progress::Fate;

/// A batch on its way.
pub(super) struct Batch<'a> {
    encoded: Arc<Encoded>,
    pub(super) fates: Vec<Fate>,
    /// Pieces that go without `fields`.
    plain: BTreeSet<usize>,
    /// Items refused for good, with the reason.
    pub(super) refused: BTreeMap<usize, String>,
    /// Items that wait for their tenant's index, with what the receiver said.
    pub(super) held: BTreeMap<usize, String>,
    /// Sends that wait for their acknowledgement, with their pieces.
    pub(super) pending: Vec<(&'a Endpoint, Pending, Vec<usize>)>,
    /// Runs of pieces still to be sent.
    pub(super) queue: VecDeque<Vec<usize>>,
    /// New channels tried at the present address.
    pub(super) channels: u32,
}

impl Batch<'_> {
    /// With the pieces that are open cut into runs of so many events and bytes at most.
    pub(super) fn new(
        encoded: Encoded,
        fates: Vec<Fate>,
        refused: BTreeMap<usize, String>,
        (events_max, bytes_max): (usize, usize),
    ) -> Self {
        let open: Vec<(usize, usize)> = encoded
            .pieces
            .iter()
            .zip(&fates)
            .enumerate()
            .filter(|(_, (_, fate))| **fate == Fate::Open)
            .map(|(at, (piece, _))| (at, piece.length()))
            .collect();
        let sizes: Vec<usize> = open.iter().map(|(_, size)| *size).collect();
        let queue = runs(&sizes, events_max, bytes_max)
            .into_iter()
            .filter_map(|run| open.get(run))
            .map(|run| run.iter().map(|(at, _)| *at).collect())
            .collect();
        Self {
            encoded: Arc::new(encoded),
            fates,
            plain: BTreeSet::new(),
            refused,
            held: BTreeMap::new(),
            pending: vec![],
            queue,
            channels: 0,
        }
    }

    /// Bytes of all its events.
    pub(super) fn bytes(&self) -> usize {
        self.encoded.pieces.iter().map(Piece::length).sum()
    }

    /// Once all is sent only the receipts are of interest.
    pub(super) fn forget_bytes(&mut self) {
        self.encoded = Arc::default();
    }

    /// What a request with these pieces carries.
    pub(super) fn load(&self, run: &[usize]) -> Load {
        Load::new(&self.encoded, run, &self.plain)
    }

    pub(super) fn mark(&mut self, taken: &[usize]) {
        for at in taken {
            if let Some(fate) = self.fates.get_mut(*at) {
                *fate = Fate::Taken;
            }
        }
    }

    fn refuse(&mut self, at: usize, reply: &Reply) {
        if let Some(piece) = self.encoded.pieces.get(at) {
            let why = format!("the receiver refuses it: {}", answer(reply));
            self.refused.entry(piece.item).or_insert(why);
        }
    }

    pub(super) fn refuse_all(&mut self, run: &[usize], reply: &Reply) {
        for at in run {
            self.refuse(*at, reply);
        }
    }

    /// Queues each half by itself. `false` for a single event, which then is the first in the queue.
    pub(super) fn halve(&mut self, mut run: Vec<usize>) -> bool {
        let several = run.len() > 1;
        if several {
            let second = run.split_off(run.len() / 2);
            self.queue.push_front(second);
        }
        self.queue.push_front(run);
        several
    }

    /// The event at which the receiver stopped, and those after it, are still to be sent.
    pub(super) fn queue_from(&mut self, first: usize, after: &[usize]) {
        let mut run = Vec::with_capacity(1 + after.len());
        run.push(first);
        run.extend_from_slice(after);
        self.queue.push_front(run);
    }

    /// Keeps back the first event in the queue and all that are to be sent to the same index, with the risk
    /// events of findings among them. `false` when the index is not one tenant's own.
    pub(super) fn hold_index_of_first(&mut self, reply: &Reply) -> bool {
        let first = self.queue.front().and_then(|run| run.first());
        let first = first.and_then(|at| self.encoded.pieces.get(*at));
        let Some(index) = first.and_then(|piece| piece.tenants_index.clone()) else {
            return false;
        };
        let (pieces, held) = (&self.encoded.pieces, &mut self.held);
        let mut is_sent = |at: &usize| {
            let waits = |piece: &&Piece| {
                piece.tenants_index.as_ref() == Some(&index) || held.contains_key(&piece.item)
            };
            let waiting = pieces.get(*at).filter(waits).map(|piece| piece.item);
            if let Some(item) = waiting {
                held.insert(item, format!("index {index}: {}", answer(reply)));
            }
            waiting.is_none()
        };
        for run in &mut self.queue {
            run.retain(&mut is_sent);
        }
        self.queue.retain(|run| !run.is_empty());
        true
    }

    /// The first event in the queue goes without `fields`; `false` when it did already.
    pub(super) fn strip_first(&mut self) -> bool {
        let first = self.queue.front().and_then(|run| run.first());
        first.is_some_and(|at| self.plain.insert(*at))
    }

    /// The first event in the queue is refused, those after it go on.
    pub(super) fn refuse_first(&mut self, reply: &Reply) {
        let Some(mut run) = self.queue.pop_front() else {
            return;
        };
        self.refuse(run.remove(0), reply);
        if !run.is_empty() {
            self.queue.push_front(run);
        }
    }
}

fn answer(reply: &Reply) -> String {
    format!("HTTP {}: {}", reply.status, words(&reply.body))
}

pub(super) fn retry(reply: &Reply) -> EmitError {
    EmitError::Retry {
        what: format!("the receiver answered {}", answer(reply)),
        after: reply.retry_after,
    }
}

pub(super) fn hold(reply: &Reply, help: &str) -> EmitError {
    EmitError::Hold {
        what: format!("the receiver answered {}", answer(reply)),
        help: help.to_owned(),
    }
}

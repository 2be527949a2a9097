//! A batch on its way: which of its events are taken, refused, waiting or still to be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::ack::Pending;
use super::client::Reply;
use super::envelope::Piece;
use super::reply::{INDEX, Rest, words};
use crate::contract::EmitError;
use crate::progress::Fate;

/// A batch on its way.
pub(super) struct Batch<'a> {
    pub(super) pieces: Vec<Piece>,
    pub(super) fates: Vec<Fate>,
    /// Pieces that go without `fields`.
    pub(super) plain: BTreeSet<usize>,
    /// Items refused for good, with the reason.
    pub(super) refused: BTreeMap<usize, String>,
    /// Sends that wait for their acknowledgement, with their pieces.
    pub(super) pending: Vec<(Pending<'a>, Vec<usize>)>,
    /// Runs of pieces still to be sent.
    pub(super) queue: VecDeque<Vec<usize>>,
    pub(super) slow_down: bool,
    pub(super) channels: u32,
}

impl Batch<'_> {
    pub(super) fn event(&self, at: usize) -> Option<Bytes> {
        let piece = self.pieces.get(at)?;
        Some(if self.plain.contains(&at) {
            piece.plain()
        } else {
            piece.bytes.clone()
        })
    }

    pub(super) fn mark(&mut self, taken: &[usize]) {
        for at in taken {
            if let Some(fate) = self.fates.get_mut(*at) {
                *fate = Fate::Taken;
            }
        }
    }

    fn refuse(&mut self, at: usize, reply: &Reply) {
        if let Some(piece) = self.pieces.get(at) {
            let why = format!("the receiver refuses it: {}", answer(reply));
            self.refused.entry(piece.item).or_insert(why);
        }
    }

    pub(super) fn refuse_all(&mut self, run: &[usize], reply: &Reply) {
        for at in run {
            self.refuse(*at, reply);
        }
    }

    /// Sends each half by itself; a single event that is still refused is quarantined.
    pub(super) fn halve(&mut self, mut run: Vec<usize>, reply: &Reply) {
        if run.len() > 1 {
            let second = run.split_off(run.len() / 2);
            self.queue.push_front(second);
            self.queue.push_front(run);
        } else {
            self.refuse_all(&run, reply);
        }
    }

    /// The event at which the receiver stopped, and those after it.
    pub(super) fn deal_with(
        &mut self,
        bad: usize,
        suffix: &[usize],
        rest: Rest,
        reply: &Reply,
    ) -> Result<(), EmitError> {
        let mut next = suffix.to_vec();
        match rest {
            Rest::HoldIndex => return Err(hold(reply, INDEX)),
            Rest::Later => return Err(retry(reply)),
            Rest::WithoutFields if self.plain.insert(bad) => next.insert(0, bad),
            Rest::WithoutFields | Rest::Refuse => self.refuse(bad, reply),
        }
        if !next.is_empty() {
            self.queue.push_front(next);
        }
        Ok(())
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

//! What a listing means for the store: new items with the cursor that covers them, and gaps.

use chrono::{DateTime, Utc};
use exfilwatch_connectors::Listing;
use exfilwatch_model::{StreamId, Window};
use exfilwatch_state::{Commit, StateError};
use tokio::sync::oneshot;

use super::hold::Hold;
use super::take::{After, answer};
use super::{End, Session};
use crate::pipeline::fetch::{Listed, Pass};
use crate::pipeline::listing::only_new;
use crate::pipeline::worklist::{each_once, key_of};

/// Open items of a stream above which nothing more is listed.
const OPEN_ITEMS_MAX: usize = 5_000;
/// Open items of a stream above which no span is listed again.
const OPEN_ITEMS_AGAIN_MAX: usize = 20;

impl Session<'_> {
    pub(super) fn listed(
        &mut self,
        stream: StreamId,
        mut listing: Listing,
        (pass, span, began): (Pass, Option<Window>, DateTime<Utc>),
        reply: oneshot::Sender<Listed>,
    ) -> Result<(), End> {
        if self.has_work_enough(&stream, pass) {
            answer(reply, self.not_taken(&stream));
            return Ok(());
        }
        listing.items = each_once(listing.items);
        let store = &self.shared.store;
        let work = &self.work;
        let items = only_new(listing.items, |item| {
            Ok::<_, StateError>(work.holds(&key_of(item)) || store.is_known(&stream, &item.key)?)
        })?;
        let mut with = Commit {
            work: items.clone(),
            ..Commit::default()
        };
        let cursor = listing.cursor;
        if self.cursors.get(&stream) != Some(&cursor) {
            with.cursors.push((stream.clone(), cursor.clone()));
        }
        self.ingest.stage_commit(with);
        // What is new begins where the last listing ended.
        let covered = self.cursors.get(&stream).map(|old| old.covered_until);
        let new = || Window::new(covered?, cursor.covered_until);
        self.settle(&stream, span.or_else(new), began)?;
        // A span that is lost is noted together with the cursor that passes it.
        for gap in listing.gaps {
            self.note_gap(gap)?;
        }
        self.stands(&stream, listing.standing);
        self.after.push(After::Listed {
            stream,
            items,
            cursor,
            reply,
        });
        Ok(())
    }

    /// The answer to a listing that was not taken.
    pub(super) fn not_taken(&self, stream: &StreamId) -> Listed {
        Listed {
            cursor: self.cursors.get(stream).cloned(),
            taken: false,
        }
    }

    /// Whether a listing is put off: fetching is paused or refused, or many items wait. A span that is
    /// listed again waits for a short list: what is still to be fetched will see what came late.
    pub(super) fn has_work_enough(&self, stream: &StreamId, pass: Pass) -> bool {
        let open_max = if pass == Pass::New {
            OPEN_ITEMS_MAX
        } else {
            OPEN_ITEMS_AGAIN_MAX
        };
        let now = self.shared.clock.now();
        // Between two holds it is listed: one item that is refused must not keep the others away.
        let refused = |hold: &Hold| hold.by_fetch && hold.until > now;
        self.shared.paused.borrow().holds(stream.tenant())
            || self.held.get(stream).is_some_and(refused)
            || self.work.open_of(stream) >= open_max
    }
}

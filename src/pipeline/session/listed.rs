//! What a listing means for the store: new items with the cursor that covers them, and gaps.

use exfilwatch_connectors::Listing;
use exfilwatch_model::StreamId;
use exfilwatch_state::{Commit, StateError};
use tokio::sync::oneshot;

use super::relisted::relisted_mark;
use super::take::{After, answer};
use super::{End, Session};
use crate::pipeline::fetch::{Listed, Pass};
use crate::pipeline::listing::only_new;
use crate::pipeline::notice::Notice;
use crate::pipeline::worklist::key_of;

/// Open items of a stream above which nothing more is listed.
const OPEN_ITEMS_MAX: usize = 5_000;
/// Open items of a stream above which no span is listed again.
const OPEN_ITEMS_AGAIN_MAX: usize = 20;

impl Session<'_> {
    pub(super) fn listed(
        &mut self,
        stream: StreamId,
        listing: Listing,
        pass: Pass,
        reply: oneshot::Sender<Listed>,
    ) -> Result<(), End> {
        if self.has_work_enough(&stream, pass) {
            let cursor = self.cursors.get(&stream).cloned();
            answer(
                reply,
                Listed {
                    cursor,
                    taken: false,
                },
            );
            return Ok(());
        }
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
        if pass == Pass::Whole {
            with.jobs
                .extend(relisted_mark(&stream, self.shared.clock.now()));
        }
        // A span that is lost is noted together with the cursor that passes it.
        for gap in listing.gaps {
            tracing::error!(
                %stream, from = %gap.window.from(), until = %gap.window.until(),
                reason = %gap.reason, "gap"
            );
            let notice = Notice::gap(gap);
            with.frames.push(notice.frame(stream.tenant()));
            with.gaps.extend(notice.gap);
        }
        self.ingest.stage_commit(with);
        self.stands(&stream, listing.standing);
        self.after.push(After::Listed {
            stream,
            items,
            cursor,
            reply,
        });
        Ok(())
    }

    /// Whether a listing is put off: fetching is paused or refused, or many items wait. A span that is
    /// listed again waits for a short list: what is still to be fetched will see what came late.
    pub(super) fn has_work_enough(&self, stream: &StreamId, pass: Pass) -> bool {
        let open_max = if pass == Pass::New {
            OPEN_ITEMS_MAX
        } else {
            OPEN_ITEMS_AGAIN_MAX
        };
        *self.shared.paused.borrow()
            || self.held.get(stream).is_some_and(|hold| hold.by_fetch)
            || self.work.open_of(stream) >= open_max
    }
}

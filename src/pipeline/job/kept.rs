//! What our own archive has of a stream, for a job that learns: what lies on our disk need not be asked of
//! the vendor, who may not have it any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::Connector;
use exfilwatch_emitters::archive::{ArchiveError, Search, hours};
use exfilwatch_model::{GapState, Page, RawRecord, StreamId, Window};
use tokio::sync::mpsc;

use super::account::{SliceAccount, Source};
use super::calls::interruptible;
use super::reader::{Reader, SLICE};
use super::{JobError, common};

/// Most records and bytes of a page.
const PAGE_MAX: (usize, usize) = (1_000, 4 << 20);
/// Pages read ahead of the job.
const PAGES_WAITING: usize = 2;
/// What is missing of the feed is missing under event times of the day before as well.
const EARLIER: TimeDelta = TimeDelta::days(1);

impl Reader<'_> {
    /// Takes what the archives have of a slice. Whether that is all there is.
    pub(super) async fn take_kept(
        &mut self,
        connector: &Arc<dyn Connector>,
        slice: Window,
        account: &mut SliceAccount,
    ) -> Result<bool, JobError> {
        let mut is_whole = false;
        for archive in self.archives.clone() {
            is_whole |= self
                .take_archived(archive, connector, slice, account)
                .await?;
        }
        is_whole &= !self.is_known_to_miss(&account.stream, slice)?;
        if is_whole {
            account.source = Source::Kept;
        }
        Ok(is_whole)
    }

    async fn take_archived(
        &mut self,
        archive: PathBuf,
        connector: &Arc<dyn Connector>,
        slice: Window,
        account: &mut SliceAccount,
    ) -> Result<bool, JobError> {
        let stream = account.stream.clone();
        let shutdown = self.shared.shutdown.clone();
        let (pages, mut waiting) = mpsc::channel(PAGES_WAITING);
        let folder = archive.clone();
        let reading = tokio::task::spawn_blocking(move || read(&folder, &stream, slice, &pages));
        while let Some(records) = interruptible(&shutdown, waiting.recv()).await? {
            let page = Page {
                stream: account.stream.clone(),
                item: "archive".into(),
                records,
                malformed: Vec::new(),
                fetched_at: self.shared.clock.now(),
                last: false,
            };
            self.stage(&**connector, &page, account);
            self.flush(Vec::new()).await?;
        }
        match reading.await {
            Ok(Ok(is_whole)) => Ok(is_whole),
            Ok(Err(error)) => {
                let archive = archive.display();
                tracing::warn!(%archive, %error, "the archive cannot be read; the vendor is asked instead");
                Ok(false)
            }
            Err(error) => Err(JobError::Panicked(error.to_string())),
        }
    }

    /// Whether the ledger knows of something in the slice that was never had.
    fn is_known_to_miss(&self, stream: &StreamId, slice: Window) -> Result<bool, JobError> {
        let wide = Window::new(slice.from(), slice.until() + EARLIER).unwrap_or(slice);
        let gaps = self.shared.store.gaps()?;
        Ok(gaps.iter().any(|gap| {
            gap.stream == *stream
                && gap.state != GapState::Filled
                && common(gap.window, wide).is_some()
        }))
    }
}

/// Hands over what an archive has of a slice, page by page. Whether it has it whole.
fn read(
    archive: &Path,
    stream: &StreamId,
    slice: Window,
    pages: &mpsc::Sender<Vec<RawRecord>>,
) -> Result<bool, ArchiveError> {
    let is_whole = has_whole(&hours(archive, stream)?, slice);
    let search = Search {
        actor: None,
        window: slice,
        tenant: Some(stream.tenant()),
        stream: Some(stream),
    };
    let mut page = Vec::new();
    let mut bytes = 0;
    let searched = match search.run(archive, &mut |found| {
        bytes += found.record.len();
        page.push(RawRecord::new(found.record));
        if page.len() < PAGE_MAX.0 && bytes < PAGE_MAX.1 {
            return true;
        }
        bytes = 0;
        pages.blocking_send(std::mem::take(&mut page)).is_ok()
    }) {
        Err(ArchiveError::None(_)) => return Ok(false),
        searched => searched?,
    };
    let is_taken = page.is_empty() || pages.blocking_send(page).is_ok();
    Ok(is_whole && is_taken && searched.damaged == 0)
}

/// Whether an archive may be trusted to have all of a slice: it has records of it, and of the days before and
/// after it. So neither the day on which it began, nor one on which it was switched off, counts as whole, nor
/// one of a stream that is hardly used, of which the vendor is asked at little cost.
fn has_whole(hours: &BTreeSet<DateTime<Utc>>, slice: Window) -> bool {
    let has = |from, until| hours.range(from..until).next().is_some();
    let (from, until) = (slice.from(), slice.until());
    has(from - SLICE, from) && has(from, until) && has(until, until + SLICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_whole_between_two_others() {
        let at = |hour: i64| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(hour);
        let slice = Window::new(at(240), at(264)).unwrap();
        for (hours, whole) in [
            (&[239, 250, 264][..], true),
            (&[216, 240, 287], true),
            (&[215, 250, 264], false),
            (&[239, 250, 288], false),
            (&[239, 264], false),
            (&[250], false),
            (&[], false),
        ] {
            let known = hours.iter().map(|hour| at(*hour)).collect();
            assert_eq!(has_whole(&known, slice), whole, "{hours:?}");
        }
    }
}

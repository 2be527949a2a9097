//! What our own archive has of a stream, for a job that learns: what lies on our disk need not be asked of
//! the vendor, who may not have it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::Connector;
use exfilwatch_emitters::archive::{ArchiveError, Removed, Search, hours};
use exfilwatch_model::{GapState, Page, RawRecord, StreamId, Window};
use exfilwatch_state::LaneId;
use tokio::sync::mpsc;

use super::account::{SliceAccount, Source};
use super::calls::interruptible;
use super::reader::Reader;
use super::{JobError, common};
use crate::pipeline::filter::ItemFilter;
use crate::pipeline::ledger::{self, StreamLedger};

/// Most records and bytes of a page.
const PAGE_MAX: (usize, usize) = (1_000, 4 << 20);
/// Pages read ahead of the job.
const PAGES_WAITING: usize = 2;
/// What is missing of the feed is missing under event times of the day before as well.
const EARLIER: TimeDelta = TimeDelta::days(1);
/// How long a job waits for a lane to bring into its archive what was fetched before, and between looks.
const BEHIND_MAX: Duration = Duration::from_secs(10);
/// See [`BEHIND_MAX`].
const LOOK: Duration = Duration::from_millis(20);

/// An archive of ours, by a lane that fills it.
#[derive(Debug, Clone)]
pub struct KeptArchive {
    /// Where it is.
    pub folder: PathBuf,
    /// The lane.
    pub lane: LaneId,
    /// What the lane takes.
    pub filter: ItemFilter,
}

/// What a job knows of the archives when it begins.
#[derive(Debug, Default)]
pub(super) struct Kept {
    archives: Vec<KeptArchive>,
    /// Since when each of the lanes has brought everything, of those that are not behind.
    since: BTreeMap<LaneId, DateTime<Utc>>,
    /// How complete the streams were.
    ledgers: BTreeMap<StreamId, StreamLedger>,
}

impl Kept {
    pub(super) fn of(archives: &[KeptArchive]) -> Self {
        Self {
            archives: archives.to_vec(),
            ..Self::default()
        }
    }

    /// Whether the archive was given all of a slice: it is known what the slice is, the lane takes all
    /// of it, and was there when the first of it was fetched.
    fn was_given(&self, archive: &KeptArchive, stream: &StreamId, slice: Window) -> bool {
        let since = self.since.get(&archive.lane);
        let is_complete = |ledger: &StreamLedger| {
            ledger.since <= slice.from() && slice.until() <= ledger.complete_until
        };
        archive.filter.takes_all_of(stream)
            && since.is_some_and(|since| *since <= slice.from())
            && self.ledgers.get(stream).is_some_and(is_complete)
    }
}

impl Reader<'_> {
    /// Sees what the archives may be trusted with. Everything that the ledgers say now was committed
    /// before the end of the outbox that is asked for after them.
    pub(super) async fn look_at_archives(&mut self) -> Result<(), JobError> {
        if self.kept.archives.is_empty() {
            return Ok(());
        }
        self.kept.ledgers = ledger::read(&*self.shared.store)?;
        let end = *self.shared.committer.end().borrow();
        let began = Instant::now();
        for archive in self.kept.archives.clone() {
            let lane = archive.lane;
            let passed = || self.shared.watch.copy().lane_health(&lane).passed;
            while passed() < end && began.elapsed() < BEHIND_MAX {
                interruptible(&self.shared.shutdown, tokio::time::sleep(LOOK)).await?;
            }
            if passed() < end {
                let archive = archive.folder.display();
                tracing::info!(%archive, "the archive is behind: what it has is read, and the vendor is asked as well");
                continue;
            }
            let mark = self.shared.store.lane(&lane)?;
            let unbroken = mark.filter(|mark| !mark.retired);
            let unbroken = unbroken.and_then(|mark| mark.unbroken);
            self.kept
                .since
                .extend(unbroken.map(|unbroken| (lane, unbroken.since)));
        }
        Ok(())
    }

    /// Takes what the archives have of a slice, as far as that is wanted: they lie by event time, and
    /// nothing comes late. Whether that is all there is.
    pub(super) async fn take_kept(
        &mut self,
        connector: &Arc<dyn Connector>,
        slice: Window,
        account: &mut SliceAccount,
    ) -> Result<bool, JobError> {
        let Some(slice) = common(slice, self.stored.request.window) else {
            return Ok(false);
        };
        let folders: BTreeSet<PathBuf> = {
            let archives = self.kept.archives.iter();
            archives.map(|archive| archive.folder.clone()).collect()
        };
        let mut is_whole = false;
        for folder in folders {
            let mut lanes = self.kept.archives.iter();
            let was_given = lanes.any(|archive| {
                archive.folder == folder && self.kept.was_given(archive, &account.stream, slice)
            });
            let has_all = self
                .take_archived(folder, connector, slice, account)
                .await?;
            is_whole |= was_given && has_all;
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

/// Hands over what an archive has of a slice, page by page. Whether it still has all that it was given.
fn read(
    archive: &Path,
    stream: &StreamId,
    slice: Window,
    pages: &mpsc::Sender<Vec<RawRecord>>,
) -> Result<bool, ArchiveError> {
    let before = hours(archive, stream)?;
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
    // Last of all: what its limits took meanwhile was not read.
    let after = hours(archive, stream)?;
    let removed = Removed::of(archive)?;
    Ok(is_taken
        && searched.damaged == 0
        && has_kept((&before, &after), slice)
        && removed.until.is_none_or(|until| until <= slice.from()))
}

/// Whether an archive may be believed that it has lost nothing of a slice, by the hours of which it had
/// files before it was read and has them after: none is gone, and there are some of before the slice and
/// of after it. So a folder that was emptied by hand does not pass for a stream that was silent.
fn has_kept(
    (before, after): (&BTreeSet<DateTime<Utc>>, &BTreeSet<DateTime<Utc>>),
    slice: Window,
) -> bool {
    let (from, until) = (slice.from(), slice.until());
    let mut inside = before.range(from - TimeDelta::hours(1)..until);
    inside.all(|hour| after.contains(hour))
        && after.first().is_some_and(|first| *first < from)
        && after.last().is_some_and(|last| *last >= until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    fn hours_at(hours: &[i64]) -> BTreeSet<DateTime<Utc>> {
        hours.iter().map(|hour| at(*hour)).collect()
    }

    #[test]
    fn a_day_is_kept_between_others_and_while_none_of_its_hours_goes() {
        let slice = Window::new(at(240), at(264)).unwrap();
        for (hours, kept) in [
            (&[239, 250, 264][..], true),
            (&[100, 300], true),
            (&[240, 250, 264], false),
            (&[239, 250, 263], false),
            (&[], false),
        ] {
            let hours = hours_at(hours);
            assert_eq!(has_kept((&hours, &hours), slice), kept, "{hours:?}");
        }
        let after = hours_at(&[239, 264]);
        let had = |hours: &[i64]| has_kept((&hours_at(hours), &after), slice);
        assert!(!had(&[239, 250, 264]), "read when it was gone");
        assert!(had(&[100, 239, 264]), "the limits take what is older");
    }

    #[test]
    fn an_archive_was_given_what_its_lane_takes_and_was_there_for() {
        let lane = LaneId {
            emitter: "archive.kept".to_owned(),
            route: "all".to_owned(),
            kind: exfilwatch_model::Kind::Events,
        };
        let only = |tenant: &str| exfilwatch_emitters::FilterOptions {
            tenants: vec![tenant.to_owned()],
            ..exfilwatch_emitters::FilterOptions::default()
        };
        let archive = |tenant| KeptArchive {
            folder: "archive".into(),
            lane: lane.clone(),
            filter: ItemFilter::new(&[&only(tenant)]),
        };
        let stream: StreamId = "contoso/office365/Audit.General".parse().unwrap();
        let ledger = StreamLedger {
            complete_until: at(300),
            ..StreamLedger::new(at(100), at(100))
        };
        let kept = Kept {
            archives: Vec::new(),
            since: BTreeMap::from([(lane.clone(), at(200))]),
            ledgers: BTreeMap::from([(stream.clone(), ledger)]),
        };
        let was_given = |tenant, from, until| {
            let slice = Window::new(at(from), at(until)).unwrap();
            kept.was_given(&archive(tenant), &stream, slice)
        };
        assert!(was_given("contoso", 200, 300));
        assert!(!was_given("contoso", 199, 223), "the lane began later");
        assert!(!was_given("contoso", 277, 301), "not complete yet");
        assert!(!was_given("fabrikam", 240, 264), "another's lane");
        let behind = Kept {
            since: BTreeMap::new(),
            ledgers: kept.ledgers.clone(),
            ..Kept::default()
        };
        let slice = Window::new(at(240), at(264)).unwrap();
        assert!(!behind.was_given(&archive("contoso"), &stream, slice));
    }
}

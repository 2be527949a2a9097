//! Reconciliation as a job: what the vendor still lists of a stream is held against what was fetched,
//! day by day, and what is missing is fetched.
//!
//! One job for each stream, so that one that is refused keeps none of the others back. What cannot be
//! fetched goes to the live line's work list, which tries until the vendor drops it and gives up in its
//! own way. Only the live line writes the ledger: when the job has ended it takes the account in, and
//! settles the span (`session/joined.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{JobId, StreamId, Window, WorkItem};
use exfilwatch_state::{Commit, StateError, StateStore};

use super::account::{Reports, SliceAccount};
use super::calls::{interruptible, relist};
use super::items::Missed;
use super::reader::Reader;
use super::{JobError, JobKind, JobRequest, stored};
use crate::pipeline::ledger::{Account, StreamLedger, TRIES_WAITED_FOR};
use crate::pipeline::step::Counts;
use crate::pipeline::worker::{Shared, WorkerConfig};
use crate::pipeline::worklist::each_once;

/// The words of a job over all that the vendor lists: asked for again, it goes on.
const WHOLE: &str = "whole";
/// The daily pass leaves the last hour to the live line, which is at work there.
const FRESH: TimeDelta = TimeDelta::hours(1);
/// How long a job waits for items that the live line has on its list, by the run's clock.
const LIVE_WAIT: TimeDelta = TimeDelta::minutes(10);
/// How often it looks, and the least of it in real time.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(20);

/// What is to be reconciled of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// All that the vendor lists, but for what is fresh.
    Daily,
    /// All that the vendor lists.
    All,
    /// From an instant on.
    Since(DateTime<Utc>),
}

/// The job of a stream; `None` where there is nothing to be listed again.
pub(crate) fn request(
    (connector, stream): (&dyn Connector, &StreamId),
    extent: Extent,
    (store, ledger): (&dyn StateStore, Option<&StreamLedger>),
    now: DateTime<Utc>,
) -> Result<Option<JobRequest>, StateError> {
    let schedule = connector.schedule(stream);
    let covered = store.cursor(stream)?.map_or(now, |at| at.covered_until);
    let until = match extent {
        Extent::Daily => covered - FRESH.min(schedule.overlap),
        Extent::All | Extent::Since(_) => covered,
    };
    // From where it was last listed after it had settled: no hole may stay between.
    let checked = ledger.map_or(covered, |known| known.checked_until);
    let whole = (covered - schedule.retention).min(checked);
    let (from, asked) = match extent {
        Extent::Since(since) => (since, format!("since {}", since.to_rfc3339())),
        Extent::Daily | Extent::All => (whole, WHOLE.to_owned()),
    };
    let window = Window::new(from.max(now - connector.kept(stream)), until);
    Ok(window.map(|window| JobRequest {
        kind: JobKind::Reconcile,
        window,
        asked,
        tenant: Some(stream.tenant().clone()),
        streams: vec![format!("{}/{}", stream.connector(), stream.name())],
        rules: Vec::new(),
        gap: None,
    }))
}

/// Runs the job of a stream, one at a time, and says what it found. Where it stopped the account says
/// why.
pub(crate) async fn run(
    (stream, request): (&StreamId, &JobRequest),
    worker: &WorkerConfig,
    shared: &Shared,
    reports: &mut Reports,
) -> Account {
    let turn = format!("reconcile {stream}");
    let turn = interruptible(&shared.shutdown, shared.jobs.turn(&turn)).await;
    let outcome = match turn {
        Ok(_turn) => super::run(request, worker, shared, reports).await,
        Err(stopped) => Err(stopped),
    };
    let began = shared.clock.now();
    let account = reports.take_reconciled();
    let account = account.unwrap_or_else(|| Account::new(stream, request.window, began));
    let account = match outcome {
        Ok(()) => account,
        Err(error) => Account {
            error: Some(error.to_string()),
            ..account
        },
    };
    show(shared, &account);
    account
}

/// What a reconciliation that has ended found, and whether it went over all that is listed; `None`
/// where the job is none.
pub(crate) fn ended(
    store: &dyn StateStore,
    job: &JobId,
) -> Result<Option<(Account, bool)>, StateError> {
    let known = stored::known(store)?
        .into_iter()
        .find(|known| known.job == *job);
    Ok(known.and_then(|known| {
        let whole = known.stored.request.asked == WHOLE;
        Some((known.stored.reconciled?, whole))
    }))
}

fn show(shared: &Shared, account: &Account) {
    let shown = |health: &mut crate::pipeline::watch::StreamHealth| {
        health.reconciled = Some(account.clone());
    };
    shared.watch.stream(&account.stream, shown);
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nobody but this job knows of it.
    Unknown,
    /// It is on the live line's list.
    Open,
    Fetched,
    GivenUp,
}

impl Fate {
    fn count(self, found: &mut Account) {
        match self {
            Self::Unknown | Self::Open => found.missing += 1,
            Self::Fetched => found.fetched += 1,
            Self::GivenUp => found.lost += 1,
        }
    }
}

fn fate(
    store: &dyn StateStore,
    (stream, key): (&StreamId, &str),
    is_open: impl FnOnce() -> Result<bool, StateError>,
) -> Result<Fate, StateError> {
    if !store.is_known(stream, key)? {
        return Ok(Fate::Unknown);
    }
    if store.was_given_up(stream, key)? {
        return Ok(Fate::GivenUp);
    }
    Ok(if is_open()? {
        Fate::Open
    } else {
        Fate::Fetched
    })
}

impl Reader<'_> {
    pub(super) fn reconciles(&self) -> bool {
        self.stored.request.kind == JobKind::Reconcile
    }

    /// Holds a slice against what was fetched, and fetches what is missing.
    pub(super) async fn reconcile(
        &mut self,
        connector: &Arc<dyn Connector>,
        slice: Window,
        account: &mut SliceAccount,
    ) -> Result<(), JobError> {
        let stream = account.stream.clone();
        let listed = relist(&**connector, &stream, slice, self.shared).await?;
        let listed = each_once(listed);
        let with_live = self.open_keys(&stream)?;
        let (mut missing, mut open) = (Vec::new(), BTreeSet::new());
        let mut found = Account {
            listed: listed.len(),
            ..Account::new(&stream, slice, slice.from())
        };
        for item in listed {
            if with_live.contains_key(&item.key) {
                open.insert(item.key);
            } else if self.shared.store.is_known(&stream, &item.key)? {
                found.done_before += 1;
            } else {
                missing.push(item);
            }
        }
        let missed = self.fetch_all(connector, missing, account).await?;
        self.hand_over(&stream, missed, &mut found)?;
        self.wait_for_live(&stream, open, &mut found).await?;
        found.fetched += usize::try_from(account.items).unwrap_or(usize::MAX);
        found.records = account.records;
        found.records_new = account.records - account.seen_before;
        found.records_late = std::mem::take(&mut self.late);
        let whole = self.account_of(&stream);
        whole.add(&found);
        let whole = whole.clone();
        show(self.shared, &whole);
        Ok(())
    }

    /// A page was staged: how many of its records should have been found before?
    pub(super) fn note_late(&mut self, connector: &dyn Connector, item: &WorkItem, counts: Counts) {
        let overlap = connector.schedule(&item.stream).overlap;
        if !self.reconciles() || item.from >= self.stored.request.window.until() - overlap {
            return;
        }
        let late = counts.records - counts.duplicates;
        self.late += late;
        let shown = &self.shared.watch;
        shown.stream(&item.stream, |health| health.records_late += late);
    }

    /// What could not be fetched is the live line's from now on. What that came by itself meanwhile is not
    /// handed over: fetched and listed as open again, it would be given up, and told of as lost.
    fn hand_over(
        &mut self,
        stream: &StreamId,
        missed: Vec<Missed>,
        found: &mut Account,
    ) -> Result<(), StateError> {
        let mut work = Vec::new();
        for missed in missed {
            let key = missed.item.key.as_str();
            let is_open = || Ok(self.open_keys(stream)?.contains_key(key));
            match fate(&*self.shared.store, (stream, key), is_open)? {
                Fate::Unknown => {}
                fate => {
                    fate.count(found);
                    continue;
                }
            }
            match missed.error {
                FetchError::Gone { .. } | FetchError::Poison { .. } => found.lost += 1,
                _ => {
                    found.missing += 1;
                    found.failing += 1;
                }
            }
            work.push(missed.item);
        }
        self.ingest.stage_commit(Commit {
            work,
            ..Commit::default()
        });
        Ok(())
    }

    fn open_keys(&self, stream: &StreamId) -> Result<BTreeMap<String, u32>, StateError> {
        let work = self.shared.store.work(stream)?.into_iter();
        Ok(work.map(|item| (item.key, item.attempts)).collect())
    }

    /// What the live line has on its list is not fetched a second time.
    async fn wait_for_live(
        &mut self,
        stream: &StreamId,
        open: BTreeSet<String>,
        found: &mut Account,
    ) -> Result<(), JobError> {
        let look = self.shared.clock.real(LOOK).max(LOOK_MIN);
        let until = self.account_of(stream).began + LIVE_WAIT;
        loop {
            let work = self.open_keys(stream)?;
            let tries = open.iter().filter_map(|key| work.get(key));
            let tries: Vec<u32> = tries.copied().collect();
            let failing = tries.iter().filter(|tries| **tries >= TRIES_WAITED_FOR);
            let failing = failing.count();
            if failing == tries.len() || self.shared.clock.now() >= until {
                found.failing += failing;
                for key in &open {
                    let is_open = || Ok(work.contains_key(key));
                    fate(&*self.shared.store, (stream, key), is_open)?.count(found);
                }
                return Ok(());
            }
            interruptible(&self.shared.shutdown, tokio::time::sleep(look)).await?;
        }
    }

    /// The account of the stream over all runs of its job.
    pub(super) fn account_of(&mut self, stream: &StreamId) -> &mut Account {
        let (window, now) = (self.stored.request.window, self.shared.clock.now());
        let done = self.streams.entry(stream.clone()).or_default();
        let new = || Account::new(stream, window, now);
        done.reconciled.get_or_insert_with(new)
    }

    /// The account as it stands, whatever the end.
    pub(super) fn report_account(&mut self) {
        let mut streams = self.streams.values();
        if let Some(account) = streams.find_map(|done| done.reconciled.clone()) {
            self.reports.reconciled(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use exfilwatch_state::{DoneItem, MemoryStore, Position};

    use super::*;

    #[test]
    fn an_item_that_the_live_line_came_by_meanwhile_is_counted_as_what_became_of_it() {
        let store = MemoryStore::new([1; 16]).unwrap();
        let stream: StreamId = "contoso/office365/Audit.General".parse().unwrap();
        let done = |key: &str, given_up| DoneItem {
            stream: stream.clone(),
            key: key.to_owned(),
            forget_after: DateTime::UNIX_EPOCH,
            given_up,
        };
        let open = WorkItem {
            stream: stream.clone(),
            key: "open".to_owned(),
            body: String::new(),
            from: DateTime::UNIX_EPOCH,
            expires: None,
            attempts: 0,
            next_try: None,
            last_error: None,
        };
        let commit = Commit {
            work: vec![open],
            done: vec![done("fetched", false), done("lost", true)],
            ..Commit::default()
        };
        store.apply(&[commit], Position::default()).unwrap();
        for (key, wanted) in [
            ("fetched", Fate::Fetched),
            ("lost", Fate::GivenUp),
            ("open", Fate::Open),
            ("never listed", Fate::Unknown),
        ] {
            let is_open = || Ok(store.work(&stream)?.iter().any(|item| item.key == key));
            let found = fate(&store, (&stream, key), is_open).unwrap();
            assert_eq!(found, wanted, "{key}");
        }
    }
}

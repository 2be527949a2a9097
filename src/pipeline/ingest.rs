//! Ingest: one input through the step and into the store. Shared by the live worker, by jobs and by
//! `forward`; whoever calls it awaits the commit before the next input.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_detectors::{Baseline, Counters};
use exfilwatch_model::{Finding, Page, Product, StreamId};
use exfilwatch_state::{Commit, SeenPlan, StateError, StateStore, WindowChange};

use crate::pipeline::committer::{CommitError, Committer};
use crate::pipeline::notice::Notice;
use crate::pipeline::step::{Counts, Input, LESSONS_EACH, Step, StepConfig};
use crate::pipeline::watch::Watch;

/// Why an input did not count.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The commit failed; the ingest was rebuilt from the store and the input is to be given again.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read to rebuild.
    #[error("the state could not be read: {0}")]
    Restore(#[from] StateError),
}

/// What was taken in and is not yet written.
#[derive(Debug, Default)]
struct Staged {
    commit: Commit,
    seen: Vec<SeenPlan>,
    findings: Vec<Finding>,
    pages: Vec<(StreamId, Counts)>,
}

/// One tenant's line from page to commit, for one job. Inputs are staged and then written together;
/// nothing of them counts before [`Ingest::flush`] returned.
#[derive(Debug)]
pub struct Ingest {
    step: Step,
    only_new: bool,
    config: StepConfig,
    store: Arc<dyn StateStore>,
    committer: Committer,
    watch: Watch,
    staged: Staged,
}

impl Ingest {
    /// Restores detector memory and the finding table from the store.
    pub fn restore(
        config: StepConfig,
        store: Arc<dyn StateStore>,
        committer: Committer,
        watch: Watch,
    ) -> Result<Self, StateError> {
        let step = Step::restore(config.clone(), &*store)?;
        Ok(Self {
            step,
            only_new: false,
            config,
            store,
            committer,
            watch,
            staged: Staged::default(),
        })
    }

    /// See [`Step::detecting`].
    pub fn detecting(self, only_new: bool) -> Self {
        Self {
            step: self.step.detecting(only_new),
            only_new,
            ..self
        }
    }

    /// See [`Step::transient`]. After a flush that failed there is no going on: the input begins again.
    pub fn transient(self) -> Self {
        Self {
            step: self.step.transient(),
            ..self
        }
    }

    /// Takes a page in. `with` is written in the same commit (the item done, the file's offset).
    pub fn stage_page(&mut self, page: &Page, products: &[Product], with: Commit) -> Counts {
        let counts = self.stage(&Input::Page(page, products));
        self.staged.commit.join(with);
        self.staged.pages.push((page.stream.clone(), counts));
        counts
    }

    /// Time has passed; see [`Input::Tick`].
    pub fn stage_tick(&mut self, now: DateTime<Utc>, low_water: Option<DateTime<Utc>>) {
        self.stage(&Input::Tick(now, low_water));
    }

    /// Takes in what another job remembers; see [`Input::Absorb`].
    pub fn stage_absorbed(&mut self, windows: &[WindowChange], now: DateTime<Utc>) {
        self.stage(&Input::Absorb(windows, now));
    }

    /// The collector has something to say for itself.
    pub fn stage_notice(&mut self, notice: &Notice) {
        self.stage(&Input::Notice(notice));
    }

    /// A finding of the pipeline's own: see [`Input::Own`].
    pub fn stage_own(&mut self, stream: &StreamId, finding: Finding) {
        self.stage(&Input::Own(stream, Box::new(finding)));
    }

    /// Something to be written with the rest.
    pub fn stage_commit(&mut self, with: Commit) {
        self.staged.commit.join(with);
    }

    fn stage(&mut self, input: &Input<'_>) -> Counts {
        let effects = self.step.step(input);
        self.staged.commit.join(effects.commit);
        self.staged.seen.extend(effects.seen);
        self.staged.findings.extend(effects.findings);
        effects.counts
    }

    /// Writes what was staged. On an error nothing of it counts, and all memory was read anew.
    pub async fn flush(&mut self, now: DateTime<Utc>) -> Result<(), IngestError> {
        let mut staged = std::mem::take(&mut self.staged);
        let memory = &self.config.memory;
        let mut writing = None;
        if !memory.inventory().is_written() {
            writing = Some(memory.inventory_writer().await);
            let slots = memory.inventory().to_write(memory.tenant());
            staged.commit.windows.extend(slots);
        }
        if staged.commit != Commit::default()
            && let Err(error) = self.committer.commit(staged.commit).await
        {
            self.config.memory.reload(&*self.store, now.date_naive())?;
            let step = Step::restore(self.config.clone(), &*self.store)?;
            self.step = step.detecting(self.only_new);
            return Err(error.into());
        }
        if writing.is_some() {
            memory.inventory().written();
        }
        drop(writing);
        for plan in staged.seen {
            self.config.memory.seen().remember(plan);
        }
        self.step.flushed();
        for (stream, counts) in &staged.pages {
            self.watch.page(stream, *counts);
        }
        self.watch.findings(&staged.findings);
        Ok(())
    }

    /// Looks at what comes from now on with the rules that hold at present. What was remembered stays:
    /// it is read from the store, so that nothing may be staged.
    pub fn renew(&mut self) -> Result<(), StateError> {
        debug_assert!(self.staged.commit == Commit::default(), "flush first");
        self.step = Step::restore(self.config.clone(), &*self.store)?;
        Ok(())
    }

    /// Takes a page in and writes it.
    pub async fn page(
        &mut self,
        page: &Page,
        products: &[Product],
        with: Commit,
    ) -> Result<Counts, IngestError> {
        let counts = self.stage_page(page, products, with);
        self.flush(page.fetched_at).await?;
        Ok(counts)
    }

    /// Takes a page in that an earlier process has delivered; see [`Input::Again`].
    pub async fn again(
        &mut self,
        page: &Page,
        products: &[Product],
    ) -> Result<Counts, IngestError> {
        let counts = self.stage(&Input::Again(page, products));
        self.flush(page.fetched_at).await?;
        Ok(counts)
    }

    /// Says something for the collector, and writes it.
    pub async fn notice(&mut self, notice: &Notice) -> Result<(), IngestError> {
        self.stage_notice(notice);
        self.flush(notice.at).await
    }

    /// A bounded input is over; see [`Input::End`]. What it has seen of the past is left for the live
    /// line, in as many commits as that takes: interrupted between two, it is over again.
    pub async fn end(&mut self, now: DateTime<Utc>) -> Result<(), IngestError> {
        self.stage(&Input::End(now));
        self.flush(now).await?;
        for lessons in self.step.lessons(&*self.store, now)?.chunks(LESSONS_EACH) {
            self.stage_commit(Commit {
                windows: lessons.to_vec(),
                ..Commit::default()
            });
            self.flush(now).await?;
            let new = lessons.iter().filter(|lesson| lesson.value.is_some());
            self.config.memory.lessons().extend(new.cloned());
        }
        Ok(())
    }

    /// Takes in what jobs have left; see [`Input::Learn`]. All of it before time passes: what is
    /// measured against the past is told then. Says whether there was something.
    pub async fn learn(&mut self, now: DateTime<Utc>) -> Result<bool, IngestError> {
        let is_left = !self.config.memory.lessons().is_empty();
        while !self.config.memory.lessons().is_empty() {
            self.stage(&Input::Learn);
            self.flush(now).await?;
        }
        Ok(is_left)
    }

    /// What the detectors measure events against.
    pub fn baselines(&self) -> Vec<Baseline> {
        self.step.baselines()
    }

    /// What the detectors remember, and which bounds were hit.
    pub fn counters(&self) -> Counters {
        self.step.counters()
    }
}

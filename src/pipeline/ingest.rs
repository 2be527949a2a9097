//! Ingest: one input through the step and into the store. Shared by the live worker, by jobs and by
//! `forward`; whoever calls it awaits the commit before the next input.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Page, Product};
use exfilwatch_state::{Commit, StateError, StateStore};

use crate::pipeline::committer::{CommitError, Committer};
use crate::pipeline::notice::Notice;
use crate::pipeline::step::{Counts, Effects, Input, Step, StepConfig};
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

/// One tenant's line from page to commit, for one job.
#[derive(Debug)]
pub struct Ingest {
    step: Step,
    config: StepConfig,
    store: Arc<dyn StateStore>,
    committer: Committer,
    watch: Watch,
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
            config,
            store,
            committer,
            watch,
        })
    }

    /// Takes a page in. `with` is written in the same commit (the item done, the file's offset).
    pub async fn page(
        &mut self,
        page: &Page,
        products: &[Product],
        with: Commit,
    ) -> Result<Counts, IngestError> {
        let effects = self.step.step(&Input::Page(page, products));
        let counts = self.write(effects, with, page.fetched_at).await?;
        self.watch.page(&page.stream, counts);
        Ok(counts)
    }

    /// Time has passed; see [`Input::Tick`].
    pub async fn tick(
        &mut self,
        now: DateTime<Utc>,
        watermark: Option<DateTime<Utc>>,
        with: Commit,
    ) -> Result<(), IngestError> {
        let effects = self.step.step(&Input::Tick(now, watermark));
        self.write(effects, with, now).await.map(|_| ())
    }

    /// A bounded input is over; see [`Input::End`].
    pub async fn end(&mut self, now: DateTime<Utc>) -> Result<(), IngestError> {
        let effects = self.step.step(&Input::End(now));
        self.write(effects, Commit::default(), now)
            .await
            .map(|_| ())
    }

    /// The collector has something to say for itself.
    pub async fn notice(&mut self, notice: &Notice, with: Commit) -> Result<(), IngestError> {
        let effects = self.step.step(&Input::Notice(notice));
        self.write(effects, with, notice.at).await.map(|_| ())
    }

    async fn write(
        &mut self,
        effects: Effects,
        with: Commit,
        now: DateTime<Utc>,
    ) -> Result<Counts, IngestError> {
        let mut commit = effects.commit;
        commit.join(with);
        if commit != Commit::default()
            && let Err(error) = self.committer.commit(commit).await
        {
            self.config.memory.reload(&*self.store, now.date_naive())?;
            self.step = Step::restore(self.config.clone(), &*self.store)?;
            return Err(error.into());
        }
        if let Some(plan) = effects.seen {
            self.config.memory.seen().remember(plan);
        }
        self.watch.findings(&effects.findings);
        Ok(effects.counts)
    }
}

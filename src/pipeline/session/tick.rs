//! Time passes: what expired is given up, low-waters are written, heartbeats go out.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Cursor, GapState, JobId, StreamId};
use exfilwatch_state::{Commit, Watermark};

use super::{End, Session};
use crate::pipeline::baselines::Known;
use crate::pipeline::heartbeat;

impl Session<'_> {
    pub(super) async fn tick(&mut self) -> Result<(), End> {
        let now = self.shared.clock.now();
        let has_learned = self.ingest.learn(now).await?;
        for item in self.work.expired(now) {
            let what = "the vendor kept it until now and no longer";
            self.give_up(&item, what, GapState::Lost, None)?;
        }
        let joined = self.join_ended_jobs()?;
        let marks = self.low_waters();
        self.proceed(&marks)?;
        self.ingest.stage_commit(self.changed_watermarks(&marks));
        // A stream that is refused does not keep the others' windows open.
        let held = &self.held;
        let flowing = marks
            .iter()
            .filter(|(stream, _)| !held.contains_key(*stream));
        let least = flowing.map(|(_, at)| *at).min();
        self.ingest.stage_tick(now, least);
        if has_learned || now >= self.heartbeat_at {
            self.show_baselines();
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.config.heartbeat;
            // Not only when the reconciliation is over: it may be refused half way, and go on tomorrow.
            let streams: Vec<StreamId> = self.by_stream.keys().cloned().collect();
            for stream in &streams {
                self.adopt(stream)?;
            }
            self.shared.store.forget_done(now)?;
            let tenant = self.config.step.memory.tenant();
            for notice in heartbeat::of(&self.shared.watch.copy(), tenant, now) {
                self.ingest.stage_notice(&notice);
            }
        }
        self.ingest.flush(now).await?;
        self.forget_joined(&joined)?;
        for after in std::mem::take(&mut self.after) {
            self.follow(after);
        }
        for (stream, at) in &marks {
            self.shared
                .watch
                .stream(stream, |health| health.low_water = Some(*at));
        }
        self.watermarks = marks;
        let not_remembered = self.shared.seen_budget.not_remembered();
        let tenant = self.config.step.memory.tenant();
        self.shared
            .watch
            .memory(tenant, self.ingest.counters(), not_remembered);
        Ok(())
    }

    /// Not at each tick: all that is known is counted.
    fn show_baselines(&self) {
        let tenant = self.config.step.memory.tenant();
        let baselines = self.ingest.baselines().into_iter();
        let known = baselines.map(|one| Known::new(tenant, one)).collect();
        self.shared.watch.baselines(tenant, known);
    }

    pub(super) fn changed_watermarks(&self, marks: &BTreeMap<StreamId, DateTime<Utc>>) -> Commit {
        let changed = marks
            .iter()
            .filter(|(stream, at)| self.watermarks.get(stream) != Some(at));
        let watermarks = changed.map(|(stream, at)| Watermark {
            job: JobId::live(),
            stream: stream.clone(),
            at: *at,
        });
        Commit {
            watermarks: watermarks.collect(),
            ..Commit::default()
        }
    }

    /// Per stream: everything before it is committed.
    pub(super) fn low_waters(&self) -> BTreeMap<StreamId, DateTime<Utc>> {
        let low = |(stream, cursor): (&StreamId, &Cursor)| {
            let oldest = self.work.oldest(stream).unwrap_or(cursor.covered_until);
            (stream.clone(), oldest.min(cursor.covered_until))
        };
        let read = self.cursors.iter();
        read.filter(|(stream, _)| !self.is_withheld(stream))
            .map(low)
            .collect()
    }
}

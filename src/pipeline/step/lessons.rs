//! Lessons: what a job has seen of the past, left in the store for the live line.
//!
//! Without a live line nobody takes them out. So a job begins with those that lie there, which is
//! what its rules are measured against, too, and at its end leaves what of both still counts: what
//! no event can be measured against any more goes out again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use exfilwatch_detectors::Engine;
use exfilwatch_model::JobId;
use exfilwatch_state::{Commit, StateError, StateStore, WindowChange};

use super::{LATENESS, Step};

/// Most lessons that are written or taken in by one commit.
pub const LESSONS_EACH: usize = 4_096;

impl Step {
    /// What is to be changed in the store so that it holds as lessons what this job knows of the past
    /// and is not forgotten by now. Nothing for the live line. Lessons of rules that this job does
    /// not run stay as they are.
    pub fn lessons(
        &self,
        store: &dyn StateStore,
        now: DateTime<Utc>,
    ) -> Result<Vec<WindowChange>, StateError> {
        if self.job.is_live() {
            return Ok(Vec::new());
        }
        let job = JobId::lessons();
        let mut kept = Engine::new(self.rules.clone(), self.tenant.clone(), job.clone());
        for (detector, fact) in self.engine.past() {
            let value = fact.value.unwrap_or_default();
            put_back(&mut kept, &detector, &fact.key, &value);
        }
        kept.evict(now - LATENESS);
        let past = kept.past().into_iter();
        let mut past: BTreeMap<_, _> = past
            .map(|(detector, fact)| ((detector, fact.key), fact.value))
            .collect();
        let mut changes = Vec::new();
        for left in store.windows(&job, &self.tenant)? {
            if !self.engine.runs(&left.detector) {
                continue;
            }
            let value = past.remove(&(left.detector.clone(), left.key.clone()));
            let value = value.unwrap_or_default();
            if value != left.value {
                changes.push(WindowChange { value, ..left });
            }
        }
        changes.extend(
            past.into_iter()
                .map(|((detector, key), value)| WindowChange {
                    job: job.clone(),
                    tenant: self.tenant.clone(),
                    detector,
                    key,
                    value,
                }),
        );
        Ok(changes)
    }

    /// Takes in a part of what jobs have left, and takes it out of the store.
    pub(super) fn learn(&mut self, commit: &mut Commit) {
        if !self.job.is_live() {
            return;
        }
        let lessons: Vec<WindowChange> = {
            let mut left = self.memory.lessons();
            let rest = left.len().saturating_sub(LESSONS_EACH);
            left.drain(rest..).collect()
        };
        for lesson in &lessons {
            let value = lesson.value.as_deref().unwrap_or_default();
            put_back(&mut self.engine, &lesson.detector, &lesson.key, value);
        }
        let read = lessons.into_iter().map(|lesson| WindowChange {
            value: None,
            ..lesson
        });
        commit.windows.extend(read);
    }
}

/// Puts lessons into the engine of a job, before its own memory. They lie in the store as they are.
pub(super) fn recall(engine: &mut Engine, lessons: &[WindowChange]) {
    let ours = lessons
        .iter()
        .filter(|lesson| engine.runs(&lesson.detector));
    for lesson in ours.collect::<Vec<_>>() {
        let value = lesson.value.as_deref().unwrap_or_default();
        put_back(engine, &lesson.detector, &lesson.key, value);
    }
    drop(engine.drain_changes());
}

/// What a lesson says in a form that is gone is of no use any more.
fn put_back(engine: &mut Engine, detector: &str, key: &[u8], value: &[u8]) {
    if let Err(error) = engine.restore(detector, key, value) {
        tracing::debug!(%error, "a lesson was left out");
    }
}

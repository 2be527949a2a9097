//! The searches submitted to an archive: counted durably, over all jobs and restarts, and read by one
//! job at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{JobId, TenantId};
use exfilwatch_state::{JobState, StateError, StateStore};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

/// The vendor counts over so long.
const DAY: TimeDelta = TimeDelta::hours(24);

/// What the jobs of a process share with each other and with the live line.
#[derive(Debug, Clone, Default)]
pub struct JobsShared {
    /// Jobs that ended and whose memory the live line is to take in.
    pub ended: Ended,
    turns: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl JobsShared {
    /// One job at a time searches with a quota key: the vendor's limits are per key.
    pub(super) async fn turn(&self, quota_key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(quota_key.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// Jobs that ended, by tenant, until the live line has taken them in.
#[derive(Debug, Clone, Default)]
pub struct Ended(Arc<Mutex<BTreeMap<TenantId, Vec<JobId>>>>);

impl Ended {
    /// A job ended.
    pub fn put(&self, tenant: TenantId, job: JobId) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.entry(tenant).or_default().push(job);
    }

    /// The jobs of a tenant that ended since the last call.
    pub fn take(&self, tenant: &TenantId) -> Vec<JobId> {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.remove(tenant).unwrap_or_default()
    }
}

/// Instants of the searches submitted within a day, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Submissions {
    id: JobId,
    seconds: Vec<i64>,
}

impl Submissions {
    pub(super) fn load(
        store: &dyn StateStore,
        quota_key: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, StateError> {
        let digest = Uuid::new_v5(&exfilwatch_model::identity::NAMESPACE, quota_key.as_bytes());
        let name = format!("submissions-{}", digest.simple());
        let id = JobId::new(&name).map_err(|error| StateError::Invalid {
            reason: format!("{name}: {error}"),
        })?;
        let state = store.jobs()?.into_iter().find(|state| state.job == id);
        let seconds = state.and_then(|state| serde_json::from_str(&state.state).ok());
        let mut submissions = Self {
            id,
            seconds: seconds.unwrap_or_default(),
        };
        submissions.forget(now);
        Ok(submissions)
    }

    fn forget(&mut self, now: DateTime<Utc>) {
        let oldest = (now - DAY).timestamp();
        self.seconds.retain(|at| *at > oldest);
    }

    /// How long until the next may be submitted; nothing where it may be now.
    pub(super) fn wait(&mut self, per_day: u32, now: DateTime<Utc>) -> Option<TimeDelta> {
        self.forget(now);
        let spare = (per_day as usize).checked_sub(self.seconds.len() + 1);
        if spare.is_some() {
            return None;
        }
        let oldest = self.seconds.first().copied().unwrap_or_default();
        let free = DateTime::from_timestamp(oldest, 0).unwrap_or(now) + DAY;
        Some((free - now).max(TimeDelta::seconds(1)))
    }

    /// Counts one; to be written before it is submitted.
    pub(super) fn count(&mut self, now: DateTime<Utc>) -> JobState {
        self.seconds.push(now.timestamp());
        JobState {
            job: self.id.clone(),
            state: serde_json::to_string(&self.seconds).unwrap_or_default(),
            finished: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_state::{Commit, MemoryStore, Position};

    #[test]
    fn searches_of_a_day_are_counted_over_restarts_and_forgotten_after_it() {
        let store = MemoryStore::new([1; 16]).unwrap();
        let now: DateTime<Utc> = "2026-05-04T00:00:00Z".parse().unwrap();
        for minute in 0..3 {
            let at = now + TimeDelta::minutes(minute);
            let mut submissions = Submissions::load(&store, "graph/t", at).unwrap();
            assert_eq!(submissions.wait(3, at), None, "{minute}");
            let jobs = vec![submissions.count(at)];
            let commit = Commit {
                jobs,
                ..Commit::default()
            };
            store.apply(&[commit], Position::default()).unwrap();
        }
        let at = now + TimeDelta::hours(1);
        let mut submissions = Submissions::load(&store, "graph/t", at).unwrap();
        assert_eq!(submissions.wait(3, at), Some(TimeDelta::hours(23)));
        let mut other = Submissions::load(&store, "graph/u", at).unwrap();
        assert_eq!(other.wait(3, at), None, "another key has its own");
        let later = now + DAY + TimeDelta::seconds(1);
        assert_eq!(submissions.wait(3, later), None);
    }

    #[test]
    fn two_hundred_instants_fit_into_a_value_of_the_store() {
        let store = MemoryStore::new([1; 16]).unwrap();
        let now: DateTime<Utc> = "2026-05-04T00:00:00Z".parse().unwrap();
        let mut submissions = Submissions::load(&store, "graph/t", now).unwrap();
        for _ in 0..199 {
            submissions.count(now);
        }
        assert!(submissions.count(now).state.len() < 3 << 10);
    }
}

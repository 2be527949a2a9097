//! When the whole retention of a stream was last listed again, kept as a job of the store.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use exfilwatch_model::{JobId, StreamId};
use exfilwatch_state::{JobState, StateError, StateStore};

/// The job under which it is kept when a stream's retention was last listed again.
pub(super) fn relisted_job(stream: &StreamId) -> Option<JobId> {
    let (tenant, connector, name) = (stream.tenant(), stream.connector(), stream.name());
    JobId::new(&format!("relisted:{tenant}:{connector}:{name}")).ok()
}

pub(super) fn relisted_mark(stream: &StreamId, at: DateTime<Utc>) -> Option<JobState> {
    Some(JobState {
        job: relisted_job(stream)?,
        state: at.to_rfc3339(),
        finished: false,
    })
}

pub(super) fn relisted<'a>(
    store: &dyn StateStore,
    streams: impl Iterator<Item = &'a StreamId>,
) -> Result<BTreeMap<StreamId, DateTime<Utc>>, StateError> {
    let jobs = store.jobs()?;
    let time = |stream: &StreamId| {
        let job = relisted_job(stream)?;
        jobs.iter()
            .find(|state| state.job == job)?
            .state
            .parse()
            .ok()
    };
    Ok(streams
        .filter_map(|stream| Some((stream.clone(), time(stream)?)))
        .collect())
}

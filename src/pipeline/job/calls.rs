//! A job's calls: tried again after failures that pass, ended by a shutdown, held while the outbox is
//! over its budget.

use std::time::Duration;

use exfilwatch_connectors::{Connector, FetchError, Listing, Standing};
use exfilwatch_model::{Cursor, StreamId, TenantId, Window, WorkItem};
use tokio_util::sync::CancellationToken;

use super::JobError;
use crate::pipeline::ledger::TRIES_WAITED_FOR;
use crate::pipeline::worker::Shared;

/// Tries of an item or a listing before its span is noted as a gap.
pub(super) const TRIES_MAX: u32 = 6;
/// First wait between tries; doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Longest wait between tries.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Lists, tried again after failures that pass.
pub(super) async fn list(
    connector: &dyn Connector,
    stream: &StreamId,
    cursor: &Cursor,
    shared: &Shared,
) -> Result<Result<Listing, FetchError>, JobError> {
    let mut tries = 0;
    loop {
        match interruptible(&shared.shutdown, connector.list(stream, cursor)).await? {
            Ok(listing) => {
                return match listing.standing {
                    // An empty listing of a stream that is refused is not a span read whole.
                    Standing::Held { what, help } => {
                        Err(JobError::Refused(format!("{what}: {help}")))
                    }
                    Standing::Withheld(withheld) => Err(JobError::Refused(withheld.to_string())),
                    Standing::Flowing | Standing::Waiting { .. } => Ok(Ok(listing)),
                };
            }
            Err(error) if passes(&error) && tries < TRIES_MAX => {
                tries += 1;
                tracing::warn!(%stream, %error, "will be tried again");
                interruptible(&shared.shutdown, pause_before_retry(&error, tries, shared)).await?;
            }
            Err(error) => return refused(error),
        }
    }
}

/// Lists a span again, tried again after failures that pass. What still fails then ends the reading of
/// the stream: a span that could not be listed proves nothing.
pub(super) async fn relist(
    connector: &dyn Connector,
    stream: &StreamId,
    span: Window,
    shared: &Shared,
) -> Result<Vec<WorkItem>, JobError> {
    let mut tries = 0;
    loop {
        match interruptible(&shared.shutdown, connector.relist(stream, span)).await? {
            Ok(items) => return Ok(items),
            Err(error) if passes(&error) && tries < TRIES_WAITED_FOR => {
                tries += 1;
                tracing::warn!(%stream, %error, "will be tried again");
                interruptible(&shared.shutdown, pause_before_retry(&error, tries, shared)).await?;
            }
            Err(error) => {
                let error = refused::<()>(error)?.err();
                let why = error.map(|error| error.to_string()).unwrap_or_default();
                return Err(JobError::Refused(format!("could not be listed: {why}")));
            }
        }
    }
}

/// Refusals end the reading of the stream; everything else is the caller's to weigh.
pub(super) fn refused<T>(error: FetchError) -> Result<Result<T, FetchError>, JobError> {
    match error {
        FetchError::Auth { what, help }
        | FetchError::Permission { what, help }
        | FetchError::AuditingDisabled { what, help }
        | FetchError::Hold { what, help } => Err(JobError::Refused(format!("{what}: {help}"))),
        other => Ok(Err(other)),
    }
}

/// Whether it may work when tried again.
pub(super) fn passes(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Retry { .. } | FetchError::Throttled { .. }
    )
}

/// The call, unless the process is told to stop.
pub(super) async fn interruptible<T>(
    shutdown: &CancellationToken,
    call: impl Future<Output = T>,
) -> Result<T, JobError> {
    shutdown
        .run_until_cancelled(call)
        .await
        .ok_or(JobError::Interrupted)
}

/// Waits while the tenant is paused by the outbox budget.
pub(super) async fn wait_while_paused(shared: &Shared, tenant: &TenantId) -> Result<(), JobError> {
    let mut paused = shared.paused.clone();
    let goes_on = async {
        // An error means that the committer is gone; the commit that follows says so.
        paused
            .wait_for(|paused| !paused.holds(tenant))
            .await
            .map(|_| ())
            .unwrap_or_default();
    };
    interruptible(&shared.shutdown, goes_on).await
}

/// Waits as the vendor asks, or longer each time.
pub(super) async fn pause_before_retry(error: &FetchError, tries: u32, shared: &Shared) {
    let asked = match error {
        FetchError::Retry { after, .. } | FetchError::Throttled { after, .. } => *after,
        _ => None,
    };
    let doubled = RETRY_FIRST * 2_u32.pow(tries.saturating_sub(1).min(10));
    tokio::time::sleep(shared.clock.real(asked.unwrap_or(doubled.min(RETRY_MAX)))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_the_stream_and_a_passing_failure_does_not() {
        let denied = FetchError::Permission {
            what: "403".into(),
            help: "grant it".into(),
        };
        assert!(matches!(refused::<()>(denied), Err(JobError::Refused(_))));
        let busy = FetchError::Retry {
            what: "503".into(),
            after: None,
        };
        assert!(passes(&busy));
        assert!(matches!(refused::<()>(busy), Ok(Err(_))));
    }
}

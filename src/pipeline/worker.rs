//! The worker of one tenant: runs its session, and builds it anew from the store when a commit failed
//! or a task panicked. A tenant's trouble stays its own.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use exfilwatch_connectors::Connector;
use exfilwatch_model::Clock;
use exfilwatch_state::{SeenBudget, StateStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pipeline::alarm::Alarms;
use crate::pipeline::committer::Committer;
use crate::pipeline::job::{JobsShared, KeptArchive};
use crate::pipeline::pause::Paused;
use crate::pipeline::session::{End, Session};
use crate::pipeline::step::StepConfig;
use crate::pipeline::watch::Watch;

/// Wait before a session is rebuilt after the store failed.
const REBUILD_WAIT: Duration = Duration::from_secs(5);

/// What a worker works with.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its tenant's connectors.
    pub connectors: Vec<Arc<dyn Connector>>,
    /// For the step.
    pub step: StepConfig,
    /// Time between two heartbeats of a stream.
    pub heartbeat: TimeDelta,
    /// When `x.audit.gap` fires.
    pub alarms: Alarms,
    /// How far the very first run reads back.
    pub first_run: TimeDelta,
    /// Our own archives.
    pub archives: Vec<KeptArchive>,
}

/// Shared parts of the process.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Writes.
    pub committer: Committer,
    /// Reads.
    pub store: Arc<dyn StateStore>,
    /// Fingerprints the process may hold.
    pub seen_budget: Arc<SeenBudget>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What can be seen of us.
    pub watch: Watch,
    /// For whom fetching is paused by the outbox budget.
    pub paused: watch::Receiver<Paused>,
    /// Tells lanes that something in quarantine is to be sent again.
    pub again: watch::Sender<()>,
    /// What jobs share with each other and with the live line.
    pub jobs: JobsShared,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

/// Runs a tenant until shutdown. Rebuilds its session from the store when a commit failed.
pub async fn run_tenant(config: WorkerConfig, shared: Shared) {
    loop {
        let outcome = match Session::open(&config, &shared) {
            Ok(mut session) => session.run().await,
            Err(error) => End::from(error),
        };
        match outcome {
            End::Shutdown => return,
            End::Rebuild(why) => {
                tracing::error!(tenant = %config.step.memory.tenant(), %why, "the tenant starts again from the store");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(shared.clock.real(REBUILD_WAIT)) => {}
            () = shared.shutdown.cancelled() => return,
        }
    }
}

//! Nothing of a process stops unseen: what panics is told of, counted, and starts again, or, where
//! that cannot be, ends the process with its reason.

use std::time::Duration;

use exfilwatch_model::TenantId;
use tokio_util::sync::CancellationToken;

use crate::pipeline::watch::Watch;
use crate::pipeline::worker::Shared;

/// Wait before what panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// Where it is told.
#[derive(Debug, Clone)]
pub struct Supervisor {
    watch: Watch,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// Of a process.
    pub fn of(shared: &Shared) -> Self {
        Self {
            watch: shared.watch.clone(),
            shutdown: shared.shutdown.clone(),
        }
    }

    /// Runs something that ends at shutdown only, and starts it again when it panicked.
    pub async fn again<F>(
        &self,
        task: &'static str,
        tenant: Option<&TenantId>,
        start: impl Fn() -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        while !self.shutdown.is_cancelled() {
            match tokio::spawn(start()).await {
                Ok(()) if self.shutdown.is_cancelled() => return,
                Ok(()) => {
                    let tenant = tenant.map(TenantId::to_string);
                    tracing::error!(task, tenant, "it ended, and starts again");
                }
                Err(error) => {
                    let tenant = tenant.map(TenantId::to_string);
                    tracing::error!(task, tenant, %error, "it panicked, and starts again");
                }
            }
            self.watch.restarted(task);
            let wait = tokio::time::sleep(AFTER_PANIC);
            self.shutdown.run_until_cancelled(wait).await;
        }
    }

    /// Runs something that cannot be started again: when it panics the process ends.
    pub async fn or_stop(
        &self,
        task: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        if let Err(error) = tokio::spawn(future).await
            && error.is_panic()
        {
            let why = format!("{task} ended by a panic: {error}");
            tracing::error!("{why}; this process stops, start it again");
            self.watch.set_fatal(why);
            self.shutdown.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor {
            watch: Watch::default(),
            shutdown: CancellationToken::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_or_ends_too_early_is_counted_and_starts_again() {
        let supervisor = supervisor();
        let starts = Arc::new(AtomicU64::new(0));
        let (counted, shutdown) = (starts.clone(), supervisor.shutdown.clone());
        let task = move || {
            let (start, shutdown) = (counted.fetch_add(1, Ordering::SeqCst), shutdown.clone());
            async move {
                match start {
                    0 | 1 => panic!("as the test wants it"),
                    2 => {}
                    _ => shutdown.cancel(),
                }
            }
        };
        supervisor.again("gap filling", None, task).await;
        assert_eq!(starts.load(Ordering::SeqCst), 4);
        let shown = supervisor.watch.copy();
        assert_eq!(shown.restarts["gap filling"], 3);
        assert_eq!(shown.fatal, None);
    }

    #[tokio::test]
    async fn what_cannot_start_again_ends_the_process_with_its_reason() {
        let supervisor = supervisor();
        supervisor.or_stop("the control socket", async {}).await;
        assert!(!supervisor.shutdown.is_cancelled());
        let broken = async { panic!("as the test wants it") };
        supervisor.or_stop("the control socket", broken).await;
        assert!(supervisor.shutdown.is_cancelled());
        let why = supervisor.watch.copy().fatal.unwrap();
        assert!(
            why.starts_with("the control socket ended by a panic"),
            "{why}"
        );
    }
}

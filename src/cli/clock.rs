//! The clock of a run. A rate other than 1 exists only in builds for tests: the flag is hidden, and
//! absent from release builds.

use std::sync::Arc;

use exfilwatch_model::{Clock, SystemClock};

/// The hidden flag of builds for tests.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClockArgs {
    /// Virtual time: origin in Unix milliseconds, rate, real start in Unix milliseconds.
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "ORIGIN,RATE,START")]
    virtual_clock: Option<String>,
}

/// The machine's clock, or the virtual one of a test.
#[cfg(not(debug_assertions))]
pub(crate) fn from_args(_: &ClockArgs) -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The machine's clock, or the virtual one of a test.
#[cfg(debug_assertions)]
pub(crate) fn from_args(args: &ClockArgs) -> Arc<dyn Clock> {
    args.virtual_clock
        .as_deref()
        .and_then(parse)
        .unwrap_or_else(|| Arc::new(SystemClock))
}

#[cfg(debug_assertions)]
fn parse(text: &str) -> Option<Arc<dyn Clock>> {
    use std::time::{Duration, Instant};

    let mut parts = text.split(',');
    let origin = chrono::DateTime::from_timestamp_millis(parts.next()?.parse().ok()?)?;
    let rate: f64 = parts.next()?.parse().ok()?;
    let start = chrono::DateTime::from_timestamp_millis(parts.next()?.parse().ok()?)?;
    let since = (SystemClock.now() - start)
        .to_std()
        .unwrap_or(Duration::ZERO);
    let started = Instant::now().checked_sub(since)?;
    Some(Arc::new(exfilwatch_model::RatedClock::new(
        origin, started, rate,
    )))
}

//! Logs: tracing, on standard error, as text or JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::cli::{Common, environment};

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `EXFILWATCH_LOG` (`info`, `exfilwatch=debug`, …) wins over `-v` and `-q`.
pub(crate) fn start(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // What lies below us speaks of requests and headers at its finer levels: warnings only.
    let ours = [
        "",
        "_connectors",
        "_detectors",
        "_emitters",
        "_state",
        "_config",
    ]
    .map(|part| format!("exfilwatch{part}={level}"))
    .join(",");
    let filter = environment::variable("EXFILWATCH_LOG")
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("warn,{ours}")));
    let colour = std::io::stderr().is_terminal() && environment::variable("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    let started = match common.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = started {
        // Only a second start in one process comes here; the first one's settings stay.
        tracing::debug!(%error, "logging had been started already");
    }
}

//! `auth check`: whether each connector gets a token, by which credential, and what it allows.

use exfilwatch_connectors::Depth;

use super::connector;
use crate::app;
use crate::cli::Common;
use crate::cli::clock::{self, ClockArgs};
use crate::cli::doctor::{access, report};
use crate::cli::failure::{Code, Failure, Outcome};

/// Arguments of `auth check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Only this connector: NAME, or KIND/NAME. All where none is named.
    connector: Option<String>,
    #[command(flatten)]
    clock: ClockArgs,
}

/// Runs the command. Fails with the code of the first check that failed: 3 for access.
pub(crate) async fn check(args: CheckArgs, common: Common) -> Outcome {
    let config = app::load(&common, true)?;
    let chosen: Vec<_> = match &args.connector {
        Some(name) => vec![connector(&config, name)?],
        None => config.connectors.iter().collect(),
    };
    if chosen.is_empty() {
        return Err(Failure::new(Code::Usage, "no connector is configured")
            .help("add a [connectors.…] table (see config/examples/), or run exfilwatch init"));
    }
    let looking = access::Looking::new(&config, &clock::from_args(&args.clock));
    let mut checks = Vec::new();
    for connector in chosen {
        checks.extend(looking.at_connector(connector, Depth::Access).await);
    }
    report::print(&checks, common.output)
}

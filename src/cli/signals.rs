//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once. SIGHUP, where it is
//! caught, does not end the process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::{Code, Failure, Outcome};

/// Cancels the token at SIGINT or SIGTERM; a second one ends the process at once.
pub(crate) fn cancel_on_signal(token: CancellationToken) {
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            tracing::error!("signals cannot be caught; stop with SIGKILL, which loses nothing");
            return;
        };
        for time in 0_u32.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if time > 0 {
                #[expect(
                    clippy::exit,
                    reason = "the operator asked twice; the state stands a kill"
                )]
                std::process::exit(Code::Interrupted as i32);
            }
            token.cancel();
        }
    });
}

/// Catches SIGHUP from now on.
pub(crate) fn hangup() -> Result<Signal, Failure> {
    signal(SignalKind::hangup())
        .map_err(|error| Failure::caused(Code::State, "catching SIGHUP", &error))
}

/// An interrupted bounded run ends with its own exit code.
pub(crate) fn interrupted(shutdown: &CancellationToken) -> Outcome {
    if shutdown.is_cancelled() {
        return Err(Failure::new(Code::Interrupted, "interrupted")
            .help("nothing is lost: run the command again, it goes on where it was"));
    }
    Ok(())
}

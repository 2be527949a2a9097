//! A collector as a process of its own, which may be killed:
//! `exfilwatch-indexer [--no-ack] TOKEN_FILE JOURNAL [PORT]`.
//!
//! What it indexed is in the journal, a line of JSON each (`event` is the event's text), appended to
//! over restarts. An acknowledgement comes true when its events are on disk. One line of JSON on
//! standard output says where it listens. It ends when its standard input ends.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for the command line"
)]

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use exfilwatch_simulator::hec::{Hec, HecOptions, Keep};
use serde_json::json;
use tokio::net::TcpListener;

/// Events wait so long in memory before they are written: what a kill loses although it was answered
/// with 200.
const SLICE: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let use_ack = !words.iter().any(|word| word == "--no-ack");
    words.retain(|word| word != "--no-ack");
    let (token_file, journal, port) = match words.as_slice() {
        [token_file, journal] => (token_file, journal, Ok(0)),
        [token_file, journal, port] => (token_file, journal, port.parse()),
        _ => {
            eprintln!("usage: exfilwatch-indexer [--no-ack] TOKEN_FILE JOURNAL [PORT]");
            return ExitCode::from(2);
        }
    };
    let Ok(port) = port else {
        eprintln!("error: the port is not a number up to 65535");
        return ExitCode::from(2);
    };
    match serve(Path::new(token_file), Path::new(journal), port, use_ack).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(
    token_file: &Path,
    journal: &Path,
    port: u16,
    use_ack: bool,
) -> Result<(), Box<dyn Error>> {
    let named = |path: &Path, error| format!("{}: {error}", path.display());
    let token = std::fs::read_to_string(token_file).map_err(|error| named(token_file, error))?;
    let options = HecOptions {
        use_ack,
        ack_after: SLICE,
        keep: Keep::Ids,
        ..HecOptions::default()
    };
    let hec = Hec::new(options, token.trim().to_owned());
    hec.write_to(journal)
        .map_err(|error| named(journal, error))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("listen on port {port}: {error}"))?;
    println!(
        "{}",
        json!({ "url": format!("http://{}", listener.local_addr()?) })
    );
    let told_to_end = async {
        let copied = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
        if let Err(error) = copied {
            eprintln!("standard input ended: {error}");
        }
    };
    axum::serve(listener, hec.router())
        .with_graceful_shutdown(told_to_end)
        .await?;
    Ok(())
}

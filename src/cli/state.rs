//! `state show | export | import | verify`: the state folder. The store is locked while `run` uses it.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use exfilwatch_config::Config;
use exfilwatch_model::{Clock, SystemClock};
use exfilwatch_state::State;

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};

/// What to do with the state.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Shows what is in it: entries and bytes by kind.
    Show,
    /// Writes it as JSON lines, for people and for another version.
    Export {
        /// The file to write; it must not exist.
        file: PathBuf,
    },
    /// Fills an empty state folder from an export.
    Import {
        /// The file to read.
        file: PathBuf,
    },
    /// Reads everything and says what is wrong with it.
    Verify,
}

/// Runs the command.
pub(crate) fn run(command: StateCommand, common: &Common) -> Outcome {
    let config = app::load(common, common.state.is_none())?;
    match command {
        StateCommand::Show => show(&open(&config)?, common.output),
        StateCommand::Export { file } => export(&open(&config)?, &file),
        StateCommand::Import { file } => import(&config.state.folder, &file),
        StateCommand::Verify => verify(&open(&config)?, common.output),
    }
}

fn open(config: &Config) -> Result<State, Failure> {
    let folder = &config.state.folder;
    if !folder.exists() {
        let what = format!("there is no state folder {}", folder.display());
        return Err(
            Failure::new(Code::State, what).help("name it with --state or in the configuration")
        );
    }
    app::open_state(config, SystemClock.now())
}

fn show(state: &State, output: Output) -> Outcome {
    let summary = state
        .summary()
        .map_err(|error| app::state_failure(&error))?;
    if output != Output::Table {
        return print_items(output, &[summary], &Table::default());
    }
    let mut table = Table::new(&["KEY", "ENTRIES", "BYTES"]);
    for (family, found) in &summary.families {
        table.row([
            (*family).to_owned(),
            found.entries.to_string(),
            found.bytes.to_string(),
        ]);
    }
    print(&format!(
        "format {} · store {} bytes · outbox {} bytes in {} segments · quarantine {} files\n\n{}",
        summary.format,
        summary.store_bytes,
        summary.outbox_bytes,
        summary.outbox_segments,
        summary.quarantine_files,
        table.text()
    ))
}

fn export(state: &State, path: &Path) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::caused(Code::State, format!("writing {}", path.display()), &error)
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut out = BufWriter::new(file.map_err(failed)?);
    let done = state
        .export(&mut out)
        .map_err(|error| app::state_failure(&error))?;
    out.flush()
        .and_then(|()| out.get_ref().sync_all())
        .map_err(failed)?;
    print(&format!(
        "{} lines, {} items of the outbox among them\n",
        done.lines, done.items
    ))?;
    if done.damage.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{} stretches of the outbox could not be read",
        done.damage.len()
    );
    Err(Failure::new(Code::Gap, what).help("exfilwatch state verify names them"))
}

fn import(folder: &Path, path: &Path) -> Outcome {
    let file = File::open(path).map_err(|error| {
        Failure::caused(Code::Usage, format!("reading {}", path.display()), &error)
    })?;
    let mut input = BufReader::new(file);
    let done = exfilwatch_state::import(folder, &mut input, SystemClock.now())
        .map_err(|error| app::state_failure(&error))?;
    print(&format!(
        "{} entries and {} items of the outbox\n",
        done.entries, done.items
    ))
}

fn verify(state: &State, output: Output) -> Outcome {
    let found = state
        .verify(SystemClock.now())
        .map_err(|error| app::state_failure(&error))?;
    if output == Output::Table {
        print(&format!(
            "{} entries and {} items of the outbox read\n",
            found.entries, found.items
        ))?;
    } else {
        print_items(output, std::slice::from_ref(&found), &Table::default())?;
    }
    if found.problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::State, found.problems.join("\n"))
        .help("a store that is damaged is rebuilt by the next start; what is lost is announced"))
}

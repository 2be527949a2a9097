//! `cargo xtask`: the benchmark, the generated files, and what guards a change.
#![expect(clippy::print_stdout, reason = "it talks to a terminal")]
#![expect(
    clippy::cast_precision_loss,
    reason = "figures are printed with few digits"
)]

mod bench;
mod generate;
mod measure;
mod workspace;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Measures `replay` and `forward` against the floors, in one run, and prints a table.
    Bench(bench::Arguments),
    /// Writes the files that are made from the program: the configuration's schema, the catalogue
    /// of rules.
    Generate {
        /// Only tells which of them are out of date, by the exit code too.
        #[arg(long)]
        check: bool,
    },
    /// Runs what guards a change: the script .ci/run, without installing anything.
    Ci,
    #[command(subcommand, hide = true)]
    Part(Part),
}

/// What the benchmark runs in processes of their own.
#[derive(Debug, Subcommand)]
enum Part {
    /// One floor over one file.
    Floor { floor: bench::Floor, file: PathBuf },
    /// SigmaHQ's rules over one file, by their library and a tree of each record.
    Sigma { folder: PathBuf, file: PathBuf },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Generate { check } => generate::run(check),
        Task::Ci => {
            workspace::succeed(Command::new(workspace::root().join(".ci/run")).arg("checks"))
        }
        Task::Part(Part::Floor { floor, file }) => bench::run_floor(floor, &file),
        Task::Part(Part::Sigma { folder, file }) => bench::run_sigma(&folder, &file),
    }
}

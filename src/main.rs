//! Entry point: parse, run, map the outcome to an exit code.

use std::process::ExitCode;

use clap::Parser;
use exfilwatch::cli::{self, Args};

fn main() -> ExitCode {
    cli::run(Args::parse())
}

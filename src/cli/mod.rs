//! The command line: one file per command. Data goes to standard output, logs to standard error.

mod auth;
mod backfill;
mod bar;
mod baselines;
mod clock;
mod config;
mod demo;
mod dlq;
mod doctor;
mod domains;
mod emitter;
pub mod environment;
mod events;
pub mod failure;
mod finding;
mod forward;
mod gaps;
mod init;
mod inventory;
mod learn;
mod logs;
mod manual;
pub mod output;
mod reconcile;
mod reload;
mod replay;
mod rules;
mod run;
mod signals;
mod sources;
mod state;
mod status;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Code, Failure, Outcome};
use logs::LogFormat;
use output::Output;

/// Watches the audit logs of Google Workspace and Office 365 for data exfiltration.
///
/// Try it without credentials:  exfilwatch demo
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 findings (only with --fail-on-findings), 2 usage or \
configuration, 3 authentication or permission (auth, doctor, backfill; run stays up and tries \
again), 4 vendor API, 5 receiver, 6 state or disk, 7 done but a gap is left, 130 interrupted."
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// Configuration file.
    #[arg(
        long,
        short,
        global = true,
        env = "EXFILWATCH_CONFIG",
        default_value = "exfilwatch.toml"
    )]
    pub config: PathBuf,
    /// Sets one value of the configuration, above file and environment.
    #[arg(long = "set", global = true, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// State folder, above what the configuration says.
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How results are written to standard output.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// How logs are written to standard error.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// More logs; twice for even more.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Only warnings and errors.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows it all at work on simulated tenants: no credentials, no network, nothing kept.
    Demo(demo::DemoArgs),
    /// Writes a configuration, by questions or flags, and prints what is to be done at the vendors.
    Init(Box<init::InitArgs>),
    /// Looks at everything that could be wrong, from the configuration to the receivers, and says what
    /// to do about what is.
    Doctor(doctor::DoctorArgs),
    /// Polls, detects and delivers until it is told to stop. What a vendor refuses is held and tried
    /// again: it does not end for that.
    Run(run::RunArgs),
    /// Reads a past range once: detects, and delivers what was not delivered before.
    Backfill(backfill::BackfillArgs),
    /// Reads the past for what rules measure events against (first seen, more than usual): says nothing
    /// of what it finds, and delivers nothing.
    Learn(learn::LearnArgs),
    /// Lists everything the vendors still have once more, fetches what is missing, and says what it
    /// found.
    Reconcile(reconcile::ReconcileArgs),
    /// Forwards records from files: detects and delivers. A file seen before is skipped.
    Forward(forward::ForwardArgs),
    /// Runs the detectors over files and prints what they find. Keeps and sends nothing.
    Replay(replay::ReplayArgs),
    /// Credentials: log in and out where a connector reads for a signed-in administrator.
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    /// The detections: list them, show one, run their cases.
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// The configuration: check it, show where each value comes from, print its schema.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// How streams and lanes are doing.
    Status,
    /// What is missing: intervals of a stream that are not, or no longer, to be had.
    Gaps(gaps::GapsArgs),
    /// Findings: list them, close one, see which detections are noisy.
    #[command(subcommand)]
    Finding(finding::FindingCommand),
    /// How things stand, as far as the records say: who forwards mail where, which documents are open to
    /// whom outside.
    #[command(subcommand)]
    Inventory(inventory::InventoryCommand),
    /// What receivers refused or could not be read as a record: look, send again, drop.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Emitters: send a test by each, as `run` would.
    #[command(subcommand)]
    Emitter(emitter::EmitterCommand),
    /// What somebody did around a time: searches the archive.
    Events(events::EventsArgs),
    /// The state folder: look into it, export, import, verify.
    #[command(subcommand)]
    State(state::StateCommand),
    /// Prints what a shell needs to complete commands and flags.
    Completions(manual::CompletionsArgs),
    /// Manual pages: prints the main one, or writes one for each command.
    Man(manual::ManArgs),
}

/// Runs the command and gives the exit code.
pub fn run(args: Args) -> ExitCode {
    logs::start(&args.common);
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            #[expect(clippy::print_stderr, reason = "the one place that tells of failure")]
            {
                eprintln!("{failure}");
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

fn dispatch(args: Args) -> Outcome {
    let common = args.common;
    match args.command {
        Command::Demo(args) => asynchronous(demo::run(args)),
        Command::Init(args) => init::run(&args, &common),
        Command::Doctor(args) => asynchronous(doctor::run(args, common)),
        Command::Run(args) => asynchronous(run::run(args, common)),
        Command::Backfill(args) => asynchronous(backfill::run(args, common)),
        Command::Learn(args) => asynchronous(learn::run(args, common)),
        Command::Reconcile(args) => asynchronous(reconcile::run(args, common)),
        Command::Forward(args) => asynchronous(forward::run(args, common)),
        Command::Replay(args) => replay::run(&args, &common),
        Command::Auth(command) => asynchronous(auth::run(command, common)),
        Command::Rules(command) => rules::run(command, &common),
        Command::Config(command) => config::run(command, &common),
        Command::Status => asynchronous(status::status(common)),
        Command::Gaps(args) => asynchronous(gaps::run(args, common)),
        Command::Finding(command) => asynchronous(finding::run(command, common)),
        Command::Inventory(command) => asynchronous(inventory::run(command, common)),
        Command::Dlq(command) => asynchronous(dlq::run(command, common)),
        Command::Emitter(command) => asynchronous(emitter::run(command, common)),
        Command::Events(args) => events::run(&args, &common),
        Command::State(command) => state::run(command, &common),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(&args),
    }
}

fn asynchronous(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::caused(Code::State, "starting the runtime", &error))?;
    let outcome = runtime.block_on(command);
    // Blocking threads may still sit on a slow disk or on standard input; they are not waited for.
    runtime.shutdown_background();
    outcome
}

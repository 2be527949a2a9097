//! `cargo xtask bench`: the floors, `replay` and `forward` over one file, in one run.
//!
//! Each step is a process of its own and costs what the system says it did; rounds alternate, so
//! that a busy machine is unfair to all steps alike. That the program found what was planted is
//! checked too: a step that does not do its work would be a fast one.

mod catchup;
mod dead;
mod floors;
mod hec;
mod records;
mod sigma;
mod table;
mod windows;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

pub(crate) use floors::Floor;

use crate::measure::{self, Cost, median};
use crate::workspace;
use table::{Aim, Flat, Report, Row};

/// How many times as fast as the tree of `serde_json::Value` each step is to be, in CPU seconds.
const REPLAY_AIM: f64 = 4.0;
const FORWARD_AIM: f64 = 1.0;
/// How many times as fast as with the first detections each step is to be with all.
const CONTENT_AIM: f64 = 0.5;
/// How many times as fast as their library SigmaHQ's rules are to be.
const SIGMA_AIM: f64 = 2.0;

/// The detections that there were at first.
const FIRST: [&str; 14] = [
    "gws.drive.external_share",
    "gws.drive.mass_share_external",
    "gws.drive.suspicious_sharing",
    "gws.drive.visibility_changed_external",
    "gws.mail.forwarding_external",
    "o365.ediscovery.export",
    "o365.ediscovery.export_alert",
    "o365.mail.forwarding_admin_multi",
    "o365.mail.forwarding_external",
    "o365.mail.forwarding_user_multi",
    "o365.mail.inbox_rule_forwarding",
    "o365.mail.mailbox_forwarding_enabled",
    "o365.mail.transport_rule_forwarding",
    "o365.sharepoint.mass_share_external",
];

/// Memory is compared with that of a file smaller by this factor.
const FLAT_SHARE: usize = 5;

/// Arguments of the benchmark.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// Records in the file.
    #[arg(long, default_value_t = 500_000)]
    records: usize,
    /// Alternating rounds; the medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Puts the table into docs/PERFORMANCE.md.
    #[arg(long)]
    write: bool,
}

/// Another benchmark.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Other {
    /// Measures how fast `run` reads what has been waiting at the vendor, against the permitted rate
    /// and against the vendor's latency.
    Catchup(catchup::Arguments),
    /// Measures what a receiver that is dead for an hour does to disk, memory and other tenants, and how
    /// fast it has everything once it is back.
    Dead(dead::Arguments),
    /// Measures what the Splunk emitter sends, against a bare HTTP client with the same batches; and what
    /// compression costs, by level.
    Hec(hec::Arguments),
    /// Measures the memory of windows over many actors and targets.
    Windows(windows::Arguments),
}

/// A step of the benchmark.
#[derive(Debug, Clone, Copy)]
enum Step {
    Floor(Floor),
    SigmaLibrary,
    ReplaySigma,
    Replay(Content),
    Forward(Content),
}

/// Which rules are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    First,
    All,
}

impl Step {
    fn all() -> Vec<Self> {
        Floor::ALL
            .into_iter()
            .map(Self::Floor)
            .chain([
                Self::Replay(Content::First),
                Self::Replay(Content::All),
                Self::Forward(Content::First),
                Self::Forward(Content::All),
            ])
            .chain(
                sigma::folder()
                    .into_iter()
                    .flat_map(|_| [Self::SigmaLibrary, Self::ReplaySigma]),
            )
            .collect()
    }

    fn title(self) -> &'static str {
        match self {
            Self::Floor(floor) => floor.title(),
            Self::SigmaLibrary => "floor: `Value` and rsigma-eval, SigmaHQ's rules",
            Self::ReplaySigma => "`replay`, SigmaHQ's rules",
            Self::Replay(Content::First) => "`replay`, the first 14 detections",
            Self::Replay(Content::All) => "`replay`",
            Self::Forward(Content::First) => "`forward`, the first 14 detections",
            Self::Forward(Content::All) => "`forward` into a null receiver, store on",
        }
    }

    fn aims(self) -> Vec<Aim> {
        let aim = |times, of, than: Self| Aim {
            times,
            of,
            than: than.title(),
        };
        let value = Self::Floor(Floor::Value);
        match self {
            Self::Floor(_) | Self::SigmaLibrary => Vec::new(),
            Self::ReplaySigma => vec![aim(SIGMA_AIM, "rsigma-eval", Self::SigmaLibrary)],
            Self::Replay(Content::First) => vec![aim(REPLAY_AIM, "`Value`", value)],
            Self::Forward(Content::First) => vec![aim(FORWARD_AIM, "`Value`", value)],
            Self::Replay(Content::All) => vec![
                aim(REPLAY_AIM, "`Value`", value),
                aim(CONTENT_AIM, "the first", Self::Replay(Content::First)),
            ],
            Self::Forward(Content::All) => vec![
                aim(FORWARD_AIM, "`Value`", value),
                aim(CONTENT_AIM, "the first", Self::Forward(Content::First)),
            ],
        }
    }
}

/// Where everything is.
#[derive(Clone)]
struct Bench {
    folder: PathBuf,
    file: PathBuf,
    binary: PathBuf,
    itself: PathBuf,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.other {
        Some(Other::Catchup(arguments)) => return catchup::run(arguments),
        Some(Other::Dead(arguments)) => return dead::run(arguments),
        Some(Other::Hec(arguments)) => return hec::run(arguments),
        Some(Other::Windows(arguments)) => return windows::run(arguments),
        None => {}
    }
    ensure!(arguments.rounds > 0, "at least one round is needed");
    ensure!(
        arguments.records >= records::SET,
        "at least {} records are needed",
        records::SET
    );
    let folder = workspace::target()?.join("bench");
    let bench = Bench {
        file: records::file(&folder, arguments.records)?,
        binary: workspace::release_binary()?,
        itself: std::env::current_exe()?,
        folder,
    };
    let steps = Step::all();
    if sigma::folder().is_none() {
        println!(
            "SigmaHQ's rules are left out: ../shared/samples/sigma is not beside the workspace"
        );
    }
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); steps.len()];
    for round in 1..=arguments.rounds {
        for (step, costs) in steps.iter().zip(&mut costs) {
            let cost = bench.measure(*step)?;
            println!(
                "round {round}: {}: {:.2} s CPU, {:.2} s, {:.0} MB",
                step.title(),
                cost.cpu_seconds,
                cost.wall_seconds,
                cost.peak_bytes as f64 / 1e6
            );
            costs.push(cost);
        }
    }
    bench.check_findings(arguments.records)?;
    let fifth = (arguments.records / FLAT_SHARE).max(records::SET);
    let smaller = Bench {
        file: records::file(&bench.folder, fifth)?,
        ..bench.clone()
    };
    let flat = Flat {
        records: fifth,
        replay_bytes: smaller.measure(Step::Replay(Content::All))?.peak_bytes,
        forward_bytes: smaller.measure(Step::Forward(Content::All))?.peak_bytes,
    };
    let syncs = bench.forward_syncs()?;
    let rows = steps.iter().zip(&costs).map(|(step, costs)| Row {
        title: step.title(),
        cost: median(costs),
        syncs: if matches!(step, Step::Forward(Content::All)) {
            syncs
        } else {
            None
        },
        aims: step.aims(),
    });
    let sigma_lines = sigma::folder().map(|_| bench.sigma_lines()).transpose()?;
    let report = Report {
        records: arguments.records,
        bytes: bench.file.metadata()?.len(),
        rounds: arguments.rounds,
        machine: machine(),
        load: load(),
        rows: rows.collect(),
        sigma_lines,
        flat,
    };
    let markdown = report.markdown();
    println!("\n{markdown}");
    if arguments.write {
        table::write("cargo xtask bench", &markdown)?;
    }
    Ok(())
}

/// Runs one floor in this process: what the benchmark starts itself for.
pub(crate) fn run_floor(floor: Floor, file: &Path) -> Result<()> {
    println!("{}", floors::run(floor, file)?);
    Ok(())
}

/// Runs SigmaHQ's rules by their library in this process.
pub(crate) fn run_sigma(folder: &Path, file: &Path) -> Result<()> {
    sigma::run(folder, file)
}

impl Bench {
    fn measure(&self, step: Step) -> Result<Cost> {
        let mut command = match step {
            Step::Floor(floor) => self.floor(floor)?,
            Step::SigmaLibrary => self.sigma_library()?,
            Step::ReplaySigma => self.replay_sigma()?,
            Step::Replay(content) => self.replay(content),
            Step::Forward(content) => self.forward(content)?,
        };
        let printed = match step {
            // The receiver that takes everything: what is delivered goes nowhere.
            Step::Forward(_) => Stdio::null(),
            Step::Floor(_) | Step::Replay(_) | Step::SigmaLibrary | Step::ReplaySigma => {
                File::create(self.printed())?.into()
            }
        };
        measure::cost(command.stdout(printed))
            .with_context(|| format!("measuring {}", step.title()))
    }

    /// What the last step printed.
    fn printed(&self) -> PathBuf {
        self.folder.join("printed.txt")
    }

    fn floor(&self, floor: Floor) -> Result<Command> {
        use clap::ValueEnum;
        let value = floor.to_possible_value().context("a floor has a name")?;
        let mut command = Command::new(&self.itself);
        command
            .args(["part", "floor", value.get_name()])
            .arg(&self.file);
        Ok(command)
    }

    fn sigma_library(&self) -> Result<Command> {
        let mut command = Command::new(&self.itself);
        command.args(["part", "sigma"]);
        command.arg(sigma_folder()?).arg(&self.file);
        Ok(command)
    }

    /// Lines that the library's side and `replay` print: its matches, and the findings. Each finding of these
    /// rules is one record under one rule, as a match is.
    fn sigma_lines(&self) -> Result<(usize, usize)> {
        let lines = |step| -> Result<usize> {
            self.measure(step)?;
            Ok(BufReader::new(File::open(self.printed())?).lines().count())
        };
        Ok((lines(Step::SigmaLibrary)?, lines(Step::ReplaySigma)?))
    }

    fn replay_sigma(&self) -> Result<Command> {
        let folder = sigma_folder()?;
        let mut command = self.replay(Content::All);
        command
            .arg("--rules")
            .arg(folder)
            .args(["--only", "sigma.*"]);
        Ok(command)
    }

    fn replay(&self, content: Content) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("replay").arg(&self.file).args([
            "--output",
            "ndjson",
            "--internal-domain",
            records::DOMAIN,
            "--quiet",
        ]);
        if content == Content::First {
            command.args(FIRST.iter().flat_map(|name| ["--only", name]));
        }
        command
    }

    /// Every detection but the first, as they are switched off in a configuration.
    fn others(&self) -> Result<String> {
        let mut list = Command::new(&self.binary);
        let printed = workspace::printed(list.args(["rules", "list", "--output", "json"]))?;
        let all: Vec<serde_json::Value> = serde_json::from_str(&printed)?;
        let names = all.iter().filter_map(|rule| rule["name"].as_str());
        let others: Vec<&str> = names.filter(|name| !FIRST.contains(name)).collect();
        ensure!(!others.is_empty(), "rules list names no detections");
        Ok(format!("[detectors]\ndisabled = {others:?}\n"))
    }

    /// `forward` into a new store and to standard output.
    fn forward(&self, content: Content) -> Result<Command> {
        let state = self.folder.join("state");
        if state.exists() {
            std::fs::remove_dir_all(&state)?;
        }
        let config = self.folder.join("exfilwatch.toml");
        let emitter = "[emitters.stdout.bench]\nsend = [\"findings\", \"events\"]\n";
        let detectors = match content {
            Content::First => self.others()?,
            Content::All => String::new(),
        };
        std::fs::write(&config, format!("{detectors}{emitter}"))?;
        let mut command = Command::new(&self.binary);
        command.arg("forward").arg(&self.file).arg("--config");
        command.arg(config).arg("--state").arg(state).args([
            "--tenant",
            "bench",
            "--internal-domain",
            records::DOMAIN,
            "--quiet",
        ]);
        Ok(command)
    }

    fn forward_syncs(&self) -> Result<Option<u64>> {
        let command = self.forward(Content::All)?;
        let syncs = measure::syncs(&command, &self.folder)?;
        if syncs.is_none() {
            println!("fsyncs were not counted: strace is absent, or may not trace here");
        }
        Ok(syncs)
    }

    /// Runs `replay` once more and counts what it found.
    fn check_findings(&self, records: usize) -> Result<()> {
        let mut command = self.replay(Content::All);
        workspace::succeed(
            command
                .stdout(File::create(self.printed())?)
                .stderr(Stdio::inherit()),
        )?;
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for line in BufReader::new(File::open(self.printed())?).lines() {
            let finding: serde_json::Value = serde_json::from_str(&line?)?;
            let detection = finding["unmapped"]["exfilwatch"]["detection"].as_str();
            *found
                .entry(detection.unwrap_or("unnamed").to_owned())
                .or_default() += 1;
        }
        println!("findings of replay: {found:?}");
        let attacks = (records + records::SET / 2 - records::DETECTIONS.len()) / records::SET;
        for detection in records::DETECTIONS {
            let count = found.get(detection).copied().unwrap_or_default();
            ensure!(
                count >= attacks,
                "replay has {count} findings of {detection}, but {attacks} attacks were planted"
            );
        }
        Ok(())
    }
}

fn sigma_folder() -> Result<PathBuf> {
    sigma::folder().context("SigmaHQ's rules were there")
}

pub(crate) fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_once(": ")
                    .map(|(_, value)| value)
            })
            .unwrap_or("unknown processor")
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", field("model name"))
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

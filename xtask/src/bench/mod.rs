//! `cargo xtask bench`: the floors, `replay` and `forward` over one file, in one run.
//!
//! Each step is a process of its own and costs what the system says it did; rounds alternate, so
//! that a busy machine is unfair to all steps alike. That the program found what was planted is
//! checked too: a step that does not do its work would be a fast one.

mod catchup;
mod floors;
mod hec;
mod records;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

pub(crate) use floors::Floor;

use crate::measure::{self, Cost, median};
use crate::workspace;
use table::{Flat, Report, Row};

/// How many times as fast as the tree of `serde_json::Value` each step is to be, in CPU seconds.
const REPLAY_AIM: f64 = 4.0;
const FORWARD_AIM: f64 = 1.0;

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
    /// Measures what the Splunk emitter sends, against a bare HTTP client with the same batches; and what
    /// compression costs, by level.
    Hec(hec::Arguments),
}

/// A step of the benchmark.
#[derive(Debug, Clone, Copy)]
enum Step {
    Floor(Floor),
    Replay,
    Forward,
}

impl Step {
    fn all() -> Vec<Self> {
        Floor::ALL
            .into_iter()
            .map(Self::Floor)
            .chain([Self::Replay, Self::Forward])
            .collect()
    }

    fn title(self) -> &'static str {
        match self {
            Self::Floor(floor) => floor.title(),
            Self::Replay => "`replay`",
            Self::Forward => "`forward` into a null receiver, store on",
        }
    }

    fn aim(self) -> Option<f64> {
        match self {
            Self::Floor(_) => None,
            Self::Replay => Some(REPLAY_AIM),
            Self::Forward => Some(FORWARD_AIM),
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
        Some(Other::Hec(arguments)) => return hec::run(arguments),
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
        replay_bytes: smaller.measure(Step::Replay)?.peak_bytes,
        forward_bytes: smaller.measure(Step::Forward)?.peak_bytes,
    };
    let syncs = bench.forward_syncs()?;
    let rows = steps.iter().zip(&costs).map(|(step, costs)| Row {
        title: step.title(),
        cost: median(costs),
        syncs: if matches!(step, Step::Forward) {
            syncs
        } else {
            None
        },
        aim: step.aim(),
    });
    let report = Report {
        records: arguments.records,
        bytes: bench.file.metadata()?.len(),
        rounds: arguments.rounds,
        machine: machine(),
        load: load(),
        rows: rows.collect(),
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

impl Bench {
    fn measure(&self, step: Step) -> Result<Cost> {
        let mut command = match step {
            Step::Floor(floor) => self.floor(floor)?,
            Step::Replay => self.replay(),
            Step::Forward => self.forward()?,
        };
        let printed = match step {
            // The receiver that takes everything: what is delivered goes nowhere.
            Step::Forward => Stdio::null(),
            Step::Floor(_) | Step::Replay => File::create(self.printed())?.into(),
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

    fn replay(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("replay").arg(&self.file).args([
            "--output",
            "ndjson",
            "--internal-domain",
            records::DOMAIN,
            "--quiet",
        ]);
        command
    }

    /// `forward` into a new store and to standard output.
    fn forward(&self) -> Result<Command> {
        let state = self.folder.join("state");
        if state.exists() {
            std::fs::remove_dir_all(&state)?;
        }
        let config = self.folder.join("exfilwatch.toml");
        let emitter = "[emitters.stdout.bench]\nsend = [\"findings\", \"events\"]\n";
        std::fs::write(&config, emitter)?;
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
        let command = self.forward()?;
        let syncs = measure::syncs(&command, &self.folder)?;
        if syncs.is_none() {
            println!("fsyncs were not counted: strace is absent, or may not trace here");
        }
        Ok(syncs)
    }

    /// Runs `replay` once more and counts what it found.
    fn check_findings(&self, records: usize) -> Result<()> {
        let mut command = self.replay();
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

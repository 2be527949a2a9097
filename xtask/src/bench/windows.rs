//! What windows remember of many people: a rule that counts the targets of each actor, over a record
//! for each pair, through `replay`.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};

use super::{load, machine, table};
use crate::measure;
use crate::workspace;

/// The aim.
const PEAK_BYTES_MAX: u64 = 1 << 30;

/// All events lie within one window.
const WITHIN_SECONDS: usize = 82_800;

const RULE: &str = r"title: Base of the benchmark
id: 6d0b52f4-3c0b-4f0a-9d55-0b6c0a9fbe01
name: bench.pairs.base
status: test
logsource: { product: m365 }
detection:
  share: { operation: BenchShare }
  condition: share
level: informational
---
title: Targets of an actor
id: 6d0b52f4-3c0b-4f0a-9d55-0b6c0a9fbe02
name: bench.pairs
status: test
correlation:
  type: value_count
  rules: [bench.pairs.base]
  group-by: [actor]
  timespan: 24h
  condition: { field: target, gte: 1000 }
level: low
";

/// Arguments of the benchmark.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Arguments {
    /// People who act.
    #[arg(long, default_value_t = 1_000_000)]
    actors: usize,
    /// Pairs of actor and target.
    #[arg(long, default_value_t = 10_000_000)]
    pairs: usize,
    /// Puts the table into docs/PERFORMANCE.md.
    #[arg(long)]
    write: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let binary = workspace::release_binary()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("pairs.yml"), RULE)?;
    let log = folder.path().join("log.txt");
    let mut command = replay(&binary, folder.path());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log)?);
    let mut child = command.spawn().context("starting replay")?;
    let input = child.stdin.take().context("replay has an input")?;
    let writer = thread::spawn(move || write(BufWriter::new(input), arguments));
    let cost = measure::to_end(child, "replay")?;
    writer.join().ok().context("the records were written")??;
    let said = std::fs::read_to_string(&log)?;
    let warned = said
        .lines()
        .find(|line| line.contains("shed="))
        .map(str::to_owned);
    let verdict = match (cost.peak_bytes <= PEAK_BYTES_MAX, &warned) {
        (true, None) => "met",
        (true, Some(_)) => "kept by a bound: not all pairs are remembered",
        (false, _) => "missed",
    };
    let shed = warned
        .as_deref()
        .and_then(|line| figure(line, "shed="))
        .unwrap_or(0);
    let markdown = format!(
        "{}; load {}.\n\n| actors | pairs | pairs let go by the bound, and told | peak MB | CPU s | aim 1 GiB |\n\
         |---|---|---|---|---|---|\n| {} | {} | {shed} | {:.0} | {:.1} | {verdict} |",
        machine(),
        load(),
        arguments.actors,
        arguments.pairs,
        cost.peak_bytes as f64 / 1e6,
        cost.cpu_seconds,
    );
    println!("{markdown}");
    if arguments.write {
        table::write("cargo xtask bench windows", &markdown)?;
    }
    Ok(())
}

fn replay(binary: &Path, rules: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["replay", "-", "--output", "ndjson", "--internal-domain"])
        .arg("bench.example")
        .args(["--only", "bench.pairs", "--rules"])
        .arg(rules);
    command
}

/// The number behind a key in a line of the log.
fn figure(line: &str, key: &str) -> Option<u64> {
    let (_, after) = line.split_once(key)?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A record for each pair, all within one window.
fn write(mut writer: impl Write, arguments: Arguments) -> Result<()> {
    let begun: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(20_500);
    for number in 0..arguments.pairs {
        let actor = number % arguments.actors.max(1);
        let seconds = number * WITHIN_SECONDS / arguments.pairs.max(1);
        let time = begun + TimeDelta::seconds(i64::try_from(seconds)?);
        writeln!(
            writer,
            r#"{{"CreationTime":"{}","Id":"{}","Operation":"BenchShare","RecordType":14,"UserId":"user{actor:07}@bench.example","Workload":"OneDrive","ObjectId":"https://bench-my.sharepoint.com/personal/u{actor}/Documents/{number}.docx","TargetUserOrGroupType":"Member","TargetUserOrGroupName":"target{number}@other.example"}}"#,
            time.format("%Y-%m-%dT%H:%M:%S"),
            record_id(number),
        )?;
    }
    Ok(writer.flush()?)
}

/// As the vendor's: no two have much in common.
fn record_id(number: usize) -> uuid::Uuid {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    uuid::Uuid::from_u128((number as u128 + 1).wrapping_mul(ODD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_for_each_pair_and_the_bound_is_read_from_the_log() {
        let mut text = Vec::new();
        let arguments = Arguments {
            actors: 3,
            pairs: 9,
            write: false,
        };
        write(&mut text, arguments).unwrap();
        let records: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&text)
            .into_iter()
            .map(|record| record.unwrap())
            .collect();
        let pairs: std::collections::BTreeSet<String> = records
            .iter()
            .map(|one| format!("{} {}", one["UserId"], one["TargetUserOrGroupName"]))
            .collect();
        assert_eq!(pairs.len(), 9);
        assert_eq!(
            figure("WARN x remembered=5 shed=17 capped=0", "shed="),
            Some(17)
        );
    }
}

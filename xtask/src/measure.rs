//! What a process costs: CPU seconds, wall time, peak memory, and (in a run of its own) how often
//! it asks the disk to write. Linux only, from `/proc`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How often memory is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Units of the times in `/proc/*/stat`; the same on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;
/// Calls that make data durable.
const SYNC_CALLS: [&str; 4] = ["fsync", "fdatasync", "sync_file_range", "msync"];

/// What one run cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// User and system time of all threads.
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
    /// Largest resident set.
    pub(crate) peak_bytes: u64,
}

/// Runs the command to its end; an error if it fails. No other child may run meanwhile.
pub(crate) fn cost(command: &mut Command) -> Result<Cost> {
    let child = command
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    to_end(child, &format!("{command:?}"))
}

/// The same of a command that was just started.
pub(crate) fn to_end(mut child: Child, what: &str) -> Result<Cost> {
    // Of children only those count that have ended.
    let cpu_before = children_cpu_seconds()?;
    let begun = Instant::now();
    let mut peak_bytes = 0;
    let status = loop {
        peak_bytes = peak_bytes.max(peak_of(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        sleep(POLL);
    };
    let wall_seconds = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "{what} ended with {status}");
    Ok(Cost {
        cpu_seconds: children_cpu_seconds()? - cpu_before,
        wall_seconds,
        peak_bytes,
    })
}

/// The median of each measure.
pub(crate) fn median(costs: &[Cost]) -> Cost {
    let of = |measure: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(measure).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Cost {
        cpu_seconds: of(|cost| cost.cpu_seconds),
        wall_seconds: of(|cost| cost.wall_seconds),
        peak_bytes: costs
            .iter()
            .map(|cost| cost.peak_bytes)
            .max()
            .unwrap_or_default(),
    }
}

/// How often the command asks the disk to write; `None` where that cannot be watched here.
pub(crate) fn syncs(command: &Command, scratch: &Path) -> Result<Option<u64>> {
    let summary = scratch.join("syncs.txt");
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "--seccomp-bpf", "-c", "-o"])
        .arg(&summary)
        .args(["-e", &format!("trace={}", SYNC_CALLS.join(","))])
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match traced.status() {
        Ok(status) if status.success() => Ok(Some(counted(&std::fs::read_to_string(&summary)?))),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Calls in the table that strace prints: the name is the last column, the count the fourth.
fn counted(summary: &str) -> u64 {
    summary
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.last().is_some_and(|name| SYNC_CALLS.contains(name)))
        .filter_map(|words| words.get(3)?.parse::<u64>().ok())
        .sum()
}

/// CPU time of all children that have ended.
fn children_cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    children_ticks(&stat)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .context("/proc/self/stat is not as documented in proc(5)")
}

/// Fields 16 and 17 of proc(5); the second field, a name in brackets, may hold blanks.
fn children_ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(13);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn peak_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_burns_time_and_memory_is_seen_to() {
        let burn = "x=$(head -c 20000000 /dev/zero | tr '\\0' 'x'); i=0; \
                    while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let cost = cost(Command::new("sh").args(["-c", burn])).unwrap();
        assert!(cost.cpu_seconds > 0.02, "{cost:?}");
        assert!(cost.wall_seconds > 0.02, "{cost:?}");
        assert!(cost.peak_bytes > 20_000_000, "{cost:?}");
        assert!(super::cost(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }

    #[test]
    fn the_median_is_the_middle_one_and_the_peak_the_highest() {
        let costs = [(3.0, 97), (1.0, 99), (2.0, 98)].map(|(seconds, peak_bytes)| Cost {
            cpu_seconds: seconds,
            wall_seconds: 10.0 * seconds,
            peak_bytes,
        });
        let want = Cost {
            cpu_seconds: 2.0,
            wall_seconds: 20.0,
            peak_bytes: 99,
        };
        assert_eq!(median(&costs), want);
    }

    #[test]
    fn the_summary_of_strace_is_counted() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.001000          10       125           fdatasync
 40.00    0.000500          10         7         1 fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.001500                   132         1 total
";
        assert_eq!(counted(summary), 132);
    }

    #[test]
    fn times_are_read_behind_a_name_with_blanks_and_brackets() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 30 12 20 0 1";
        assert_eq!(children_ticks(stat), Some(42.0));
    }
}

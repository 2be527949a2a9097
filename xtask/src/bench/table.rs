//! The table of a benchmark, and its place in docs/PERFORMANCE.md.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::floors::Floor;
use crate::measure::Cost;
use crate::workspace;

/// The table of a command stands between two lines of docs/PERFORMANCE.md that name it.
fn marks(command: &str) -> (String, String) {
    let mark = |which: &str| format!("<!-- {command}: {which} -->");
    (mark("begin"), mark("end"))
}

/// One measured step.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) cost: Cost,
    pub(crate) syncs: Option<u64>,
    pub(crate) aims: Vec<Aim>,
}

/// At least so many times as fast as another row, in CPU seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    pub(crate) times: f64,
    /// What the other is called in the table.
    pub(crate) of: &'static str,
    /// Its title.
    pub(crate) than: &'static str,
}

/// What was measured, on what.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) records: usize,
    pub(crate) bytes: u64,
    pub(crate) rounds: usize,
    pub(crate) machine: String,
    pub(crate) load: String,
    pub(crate) rows: Vec<Row>,
    /// How often SigmaHQ's rules matched by their library, and how many findings `replay` made of them.
    pub(crate) sigma_lines: Option<(usize, usize)>,
    pub(crate) flat: Flat,
}

/// Peak memory over a smaller file: what tells whether it grows with the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flat {
    pub(crate) records: usize,
    pub(crate) replay_bytes: u64,
    pub(crate) forward_bytes: u64,
}

impl Report {
    /// CPU seconds of the floor that everything is compared with.
    fn reference(&self) -> f64 {
        self.cpu_seconds_of(Floor::Value.title())
    }

    fn cpu_seconds_of(&self, title: &str) -> f64 {
        let row = self.rows.iter().find(|row| row.title == title);
        row.map_or(f64::NAN, |row| row.cost.cpu_seconds)
    }

    /// The table in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let megabytes = self.bytes as f64 / 1e6;
        // Writing to a String cannot fail.
        _ = writeln!(
            text,
            "{} records, {megabytes:.0} MB, {:.0} bytes each; medians of {} alternating rounds; {}; \
             load {}.\n",
            self.records,
            self.bytes as f64 / self.records as f64,
            self.rounds,
            self.machine,
            self.load
        );
        text.push_str(
            "| step | CPU s | k records per CPU s | MB per CPU s | times as fast as `Value` | \
             aim | wall s | fsyncs | peak MB |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let cpu = row.cost.cpu_seconds;
            _ = writeln!(
                text,
                "| {} | {cpu:.2} | {:.0} | {:.0} | {:.2} | {} | {:.2} | {} | {:.0} |",
                row.title,
                self.records as f64 / cpu / 1e3,
                megabytes / cpu,
                self.reference() / cpu,
                self.aims(row),
                row.cost.wall_seconds,
                row.syncs
                    .map_or_else(|| "-".to_owned(), |syncs| syncs.to_string()),
                row.cost.peak_bytes as f64 / 1e6,
            );
        }
        if let Some((matches, findings)) = self.sigma_lines {
            _ = writeln!(
                text,
                "\nSigmaHQ's rules: {matches} matches by rsigma-eval, {findings} findings by `replay`."
            );
        }
        _ = writeln!(
            text,
            "\nPeak memory over a file of {} records: `replay` {:.0} MB, `forward` {:.0} MB.",
            self.flat.records,
            self.flat.replay_bytes as f64 / 1e6,
            self.flat.forward_bytes as f64 / 1e6,
        );
        text
    }

    fn aims(&self, row: &Row) -> String {
        let said = row.aims.iter().map(|aim| {
            let times = self.cpu_seconds_of(aim.than) / row.cost.cpu_seconds;
            let verdict = if times >= aim.times { "met" } else { "missed" };
            format!("{} of {}: {verdict} ({times:.2})", aim.times, aim.of)
        });
        let said: Vec<String> = said.collect();
        if said.is_empty() {
            return "-".to_owned();
        }
        said.join("; ")
    }
}

/// Puts the table of a command into docs/PERFORMANCE.md.
pub(crate) fn write(command: &str, table: &str) -> Result<()> {
    let path = workspace::root().join("docs/PERFORMANCE.md");
    let document =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    std::fs::write(&path, placed(&document, command, table)?)
        .with_context(|| format!("writing {}", path.display()))
}

/// The document with the table in its place.
fn placed(document: &str, command: &str, table: &str) -> Result<String> {
    let (begin, end) = marks(command);
    let missing = || format!("the lines {begin:?} and {end:?} do not stand in the document");
    let (before, rest) = document.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!(
        "{before}{begin}\n{}\n{end}{after}",
        table.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aim(times: f64) -> Aim {
        Aim {
            times,
            of: "`Value`",
            than: Floor::Value.title(),
        }
    }

    fn row(title: &'static str, cpu_seconds: f64, times: Option<f64>) -> Row {
        let cost = Cost {
            cpu_seconds,
            wall_seconds: 1.0,
            peak_bytes: 42_000_000,
        };
        Row {
            title,
            cost,
            syncs: times.map(|_| 7),
            aims: times.map(aim).into_iter().collect(),
        }
    }

    #[test]
    fn steps_are_compared_with_the_tree_of_values() {
        let report = Report {
            records: 1_000,
            bytes: 2_000_000,
            rounds: 3,
            machine: "a machine".to_owned(),
            load: "0.5".to_owned(),
            rows: vec![
                row(Floor::Value.title(), 8.0, None),
                row("fast", 1.0, Some(4.0)),
                row("slow", 4.0, Some(4.0)),
            ],
            sigma_lines: Some((5, 4)),
            flat: Flat {
                records: 200,
                replay_bytes: 20_000_000,
                forward_bytes: 30_000_000,
            },
        };
        let table = report.markdown();
        assert!(
            table.contains(
                "| fast | 1.00 | 1 | 2 | 8.00 | 4 of `Value`: met (8.00) | 1.00 | 7 | 42 |"
            ),
            "{table}"
        );
        assert!(
            table.contains("| slow | 4.00 | 0 | 0 | 2.00 | 4 of `Value`: missed (2.00) |"),
            "{table}"
        );
        let sigma = "SigmaHQ's rules: 5 matches by rsigma-eval, 4 findings by `replay`.";
        assert!(table.contains(sigma), "{table}");
        let flat = "over a file of 200 records: `replay` 20 MB, `forward` 30 MB.";
        assert!(table.trim_end().ends_with(flat), "{table}");
    }

    #[test]
    fn the_table_takes_its_place_and_only_that() {
        let document =
            |text: &str| format!("before\n<!-- a b: begin -->\n{text}\n<!-- a b: end -->\nafter\n");
        let placed_now = placed(&document("old"), "a b", "new\n").unwrap();
        assert_eq!(placed_now, document("new"));
        assert!(placed(&document("old"), "a", "new").is_err());
    }
}

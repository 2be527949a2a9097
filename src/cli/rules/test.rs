//! `rules test`: the cases in the rule files, and why one fails.

use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use exfilwatch_detectors::cases::Failure as Failed;
use exfilwatch_detectors::{RuleSet, cases, catalogue};
use exfilwatch_model::{Domains, Event, Product, RawRecord};

use crate::app;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, plain, print, print_items};

/// A case and how it went, for programs.
#[derive(Debug, serde::Serialize)]
struct CaseLine {
    detection: String,
    case: String,
    file: String,
    failure: Option<Failed>,
}

pub(super) fn test(name: &str, rules: &Arc<RuleSet>, output: Output) -> Outcome {
    let outcomes = cases::run(rules, &mut read)
        .map_err(|error| Failure::caused(Code::State, "running the cases", &error))?;
    let named = outcomes
        .into_iter()
        .filter(|outcome| outcome.detection.starts_with(name));
    let lines: Vec<CaseLine> = named
        .map(|outcome| CaseLine {
            detection: outcome.detection,
            case: outcome.case,
            file: outcome.file,
            failure: outcome.failure,
        })
        .collect();
    if lines.is_empty() {
        let what = format!("no detection that begins with {name:?} has a case");
        return Err(Failure::new(Code::Usage, what).help("exfilwatch rules list names them all"));
    }
    let mut table = Table::new(&["DETECTION", "CASE", "RESULT"]);
    for line in &lines {
        let result = if line.failure.is_some() {
            "failed"
        } else {
            "ok"
        };
        table.row([line.detection.clone(), line.case.clone(), result.into()]);
    }
    print_items(output, &lines, &table)?;
    if output == Output::Table {
        for line in &lines {
            if let Some(failure) = &line.failure {
                print(&explained(line, failure))?;
            }
        }
    }
    let lint = catalogue::lint(rules);
    let failed = lines.iter().filter(|line| line.failure.is_some()).count();
    if output == Output::Table {
        print(&format!(
            "{} cases, {failed} failed, {} other faults\n",
            lines.len(),
            lint.len()
        ))?;
    }
    if failed == 0 && lint.is_empty() {
        return Ok(());
    }
    let mut faults = lint;
    faults.insert(0, format!("{failed} of {} cases failed", lines.len()));
    Err(Failure::new(Code::Usage, faults.join("\n")))
}

/// What went wrong with a case, a line each.
fn explained(line: &CaseLine, failure: &Failed) -> String {
    let mut text = format!("\n{}, \"{}\" ({})\n", line.detection, line.case, line.file);
    for reason in failure.to_string().lines() {
        text.push_str(&format!("  {}\n", plain(reason)));
    }
    text
}

/// Reads a case's raw record as the pipeline would.
pub(super) fn read(
    product: Product,
    record: &[u8],
    domains: &Domains,
) -> Result<Vec<Event>, String> {
    let readers = app::readers_of(domains.clone());
    let record = RawRecord::new(Bytes::copy_from_slice(record));
    let reader = readers.of(product);
    reader.head(&record).map_err(|error| error.to_string())?;
    reader
        .normalise(&record, DateTime::UNIX_EPOCH)
        .map_err(|error| error.to_string())
}

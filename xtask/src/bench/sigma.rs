//! What SigmaHQ's rules cost with the library that they are matched by, fed in the usual way: a
//! `serde_json::Value` of each record, given to its engine.
//!
//! Its rules are those that `replay` runs, with the vendor's names for fields, so that they find them in
//! the record as it is. What stands in lists of names and values it does not find; that only saves
//! it work.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rsigma_eval::{Engine, JsonEvent};
use rsigma_parser::{Detection, SigmaRule};
use serde::Deserialize;

use super::floors;
use crate::workspace;

/// Our names of fields that are members of a record.
const MEMBERS: [(&str, &str); 7] = [
    ("operation", "Operation"),
    ("service", "Workload"),
    ("result", "ResultStatus"),
    ("actor", "UserId"),
    ("alert_name", "Name"),
    ("source_ip", "ClientIP"),
    ("app_id", "ApplicationId"),
];

/// What `rules sigma` says of a file.
#[derive(Debug, Deserialize)]
struct Stock {
    file: PathBuf,
    state: String,
    renamed: std::collections::BTreeMap<String, String>,
}

/// SigmaHQ's rules for the two clouds, where they lie beside the workspace.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = workspace::root().join("../shared/samples/sigma");
    folder.is_dir().then_some(folder)
}

/// Writes down what the program makes of each rule.
pub(crate) fn mapping(binary: &Path, folder: &Path, into: &Path) -> Result<()> {
    let mut command = Command::new(binary);
    command.args(["rules", "sigma", "--output", "json", "--quiet"]);
    let printed = workspace::printed(command.arg(folder))?;
    std::fs::write(into, printed).with_context(|| format!("writing {}", into.display()))
}

/// Reads the file; the number of records.
pub(crate) fn run(mapping: &Path, file: &Path) -> Result<usize> {
    let stock: Vec<Stock> = serde_json::from_slice(&std::fs::read(mapping)?)?;
    let mut engine = Engine::new();
    for stock in stock.iter().filter(|stock| stock.state != "never") {
        for mut rule in rules(&stock.file)? {
            for detection in rule.detection.named.values_mut() {
                rename(detection, stock);
            }
            engine.add_rule(&rule)?;
        }
    }
    ensure!(engine.rule_count() > 50, "most rules are not run");
    let mut count = 0;
    floors::each_line(file, |line| {
        let record: serde_json::Value = serde_json::from_slice(line)?;
        black_box(engine.evaluate(&JsonEvent::borrow(&record)));
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

fn rules(file: &Path) -> Result<Vec<SigmaRule>> {
    let text = std::fs::read_to_string(file)?;
    let parsed = rsigma_parser::parse_sigma_yaml(&text)
        .with_context(|| format!("reading {}", file.display()))?;
    Ok(parsed.rules)
}

fn rename(detection: &mut Detection, stock: &Stock) {
    match detection {
        Detection::AllOf(items) => {
            for name in items.iter_mut().filter_map(|item| item.field.name.as_mut()) {
                if let Some(ours) = stock.renamed.get(name) {
                    let member = MEMBERS.iter().find(|(known, _)| known == ours);
                    *name = member
                        .map_or(ours.as_str(), |(_, member)| member)
                        .to_owned();
                }
            }
        }
        Detection::AnyOf(parts) | Detection::And(parts) => {
            for part in parts {
                rename(part, stock);
            }
        }
        Detection::Keywords(_) | Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {}
    }
}

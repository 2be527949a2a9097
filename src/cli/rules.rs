//! `rules list | show | test`: the detections.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use clap::Subcommand;
use exfilwatch_detectors::catalogue::{self, Summary};
use exfilwatch_detectors::{DetectorsOptions, Pack, RuleSet, cases};
use exfilwatch_model::{Domains, Event, Product, RawRecord};

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::pipeline::alarm;

/// What to do with the rules.
#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Lists all detections.
    List {
        /// As the page docs/RULES.md.
        #[arg(long)]
        markdown: bool,
        #[command(flatten)]
        rules: RulesArgs,
    },
    /// Shows one detection: what it looks for, what to check, its cases.
    Show {
        /// Name or id.
        name: String,
        #[command(flatten)]
        rules: RulesArgs,
    },
    /// Runs the cases that stand in the rule files.
    Test {
        /// Only detections whose name begins like this.
        #[arg(default_value = "")]
        name: String,
        #[command(flatten)]
        rules: RulesArgs,
    },
}

/// Which rules.
#[derive(Debug, clap::Args)]
pub(crate) struct RulesArgs {
    /// Rule files beside the built-in ones; a rule with the same id replaces ours.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
}

impl RulesArgs {
    fn load(self) -> Result<Arc<RuleSet>, Failure> {
        app::rules(&DetectorsOptions {
            rules_dir: self.rules,
            packs: Pack::ALL.to_vec(),
            ..DetectorsOptions::default()
        })
    }
}

/// Runs the command.
pub(crate) fn run(command: RulesCommand, common: &Common) -> Outcome {
    match command {
        RulesCommand::List {
            markdown: true,
            rules,
        } => print(&page(&all(&*rules.load()?))),
        RulesCommand::List {
            markdown: false,
            rules,
        } => list(&all(&*rules.load()?), common.output),
        RulesCommand::Show { name, rules } => show(&name, &*rules.load()?, common.output),
        RulesCommand::Test { name, rules } => test(&name, &rules.load()?, common.output),
    }
}

/// Every detection by name, that of the pipeline's own with them.
fn all(rules: &RuleSet) -> Vec<Summary> {
    let mut all = catalogue::summaries(rules);
    all.push(alarm::summary());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn list(rules: &[Summary], output: Output) -> Outcome {
    let mut table = Table::new(&["DETECTION", "PACK", "LEVEL", "ALERT", "ATT&CK", "TITLE"]);
    for rule in rules {
        table.row([
            rule.name.clone(),
            rule.pack.as_str().to_owned(),
            rule.level.as_str().to_owned(),
            rule.alert.to_owned(),
            rule.attack.join(" "),
            rule.title.clone(),
        ]);
    }
    print_items(output, rules, &table)
}

fn show(name: &str, rules: &RuleSet, output: Output) -> Outcome {
    let found: Vec<Summary> = all(rules)
        .into_iter()
        .filter(|rule| rule.name == name || rule.id.to_string() == name)
        .collect();
    if found.is_empty() {
        return Err(
            Failure::new(Code::Usage, format!("there is no detection {name:?}"))
                .help("exfilwatch rules list names them all"),
        );
    }
    if output != Output::Table {
        return print_items(output, &found, &Table::default());
    }
    let texts: Vec<String> = found.iter().map(|rule| section(rule, "")).collect();
    print(&texts.join("\n"))
}

/// The page of all detections.
fn page(rules: &[Summary]) -> String {
    let mut text = String::from(
        "# Detections\n\nMade by `cargo xtask generate` from the rule files; do not edit.\n\n\
         | detection | level | alert | ATT&CK | title |\n|---|---|---|---|---|\n",
    );
    for rule in rules {
        text.push_str(&format!(
            "| [{0}](#{1}) | {2} | {3} | {4} | {5} |\n",
            rule.name,
            rule.name.replace('.', ""),
            rule.level.as_str(),
            rule.alert,
            rule.attack.join(" "),
            rule.title
        ));
    }
    for rule in rules {
        text.push('\n');
        text.push_str(&section(rule, "## "));
    }
    text
}

fn section(rule: &Summary, heading: &str) -> String {
    let mut text = format!(
        "{heading}{}\n\n{}. {}\n",
        rule.name,
        rule.title,
        rule.description.trim()
    );
    let operations = if rule.operations.is_empty() {
        "all".to_owned()
    } else {
        rule.operations.join(", ")
    };
    let facts = [
        ("id", rule.id.to_string()),
        (
            "level",
            format!("{} (risk {})", rule.level.as_str(), rule.risk),
        ),
        ("pack", rule.pack.as_str().to_owned()),
        ("alert", rule.alert.to_owned()),
        (
            "source",
            [
                rule.product.map(|product| product.to_string()),
                rule.service.clone(),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" "),
        ),
        ("operations", operations),
        ("one finding is", rule.identity.clone()),
        ("condition", rule.conditions.join("; ")),
        ("ATT&CK", rule.attack.join(" ")),
        ("file", rule.file.clone()),
    ];
    text.push('\n');
    for (name, value) in facts.iter().filter(|(_, value)| !value.trim().is_empty()) {
        // Writing to a String cannot fail.
        writeln!(text, "- {name}: {}", value.trim()).unwrap_or_default();
    }
    text.push_str(&format!("\n{}\n", rule.triage.trim()));
    if !rule.false_positives.is_empty() {
        text.push_str(&format!(
            "\nHarmless when: {}\n",
            rule.false_positives.join("; ")
        ));
    }
    text
}

/// A case and how it went, for programs.
#[derive(Debug, serde::Serialize)]
struct CaseLine {
    detection: String,
    case: String,
    file: String,
    failure: Option<String>,
}

fn test(name: &str, rules: &Arc<RuleSet>, output: Output) -> Outcome {
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
        let result = line.failure.clone().unwrap_or_else(|| "ok".into());
        table.row([line.detection.clone(), line.case.clone(), result]);
    }
    print_items(output, &lines, &table)?;
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

/// Reads a case's raw record as the pipeline would.
pub(crate) fn read(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detection_of_the_pipeline_stands_in_the_catalogue_and_can_be_disabled() {
        let rules = app::rules(&DetectorsOptions::default()).unwrap();
        let all = all(&rules);
        assert!(all.is_sorted_by_key(|rule| &rule.name));
        let gap = all.iter().find(|rule| rule.name == alarm::DETECTION);
        let gap = gap.unwrap();
        for text in ["silence", "unfilled", "rebuilt", "items_lost", "Contain:"] {
            assert!(gap.triage.contains(text), "{text}");
        }
        assert!(page(&all).contains("## x.audit.gap\n"));
        let without = DetectorsOptions {
            disabled: vec!["x.audit.*".to_owned()],
            ..DetectorsOptions::default()
        };
        assert!(!without.runs(alarm::DETECTION));
    }
}

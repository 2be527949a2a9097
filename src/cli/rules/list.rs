//! `rules list`: all detections, as a table or as the page docs/RULES.md.

use exfilwatch_detectors::RuleSet;
use exfilwatch_detectors::catalogue::Summary;

use super::show::section;
use crate::cli::failure::Outcome;
use crate::cli::output::{Output, Table, print, print_items};

pub(super) fn list(rules: &[Summary], output: Output) -> Outcome {
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

/// Stock rules that are not run, below the table.
pub(super) fn left_out(rules: &RuleSet, output: Output) -> Outcome {
    let count = rules.skipped().len();
    if output != Output::Table || count == 0 {
        return Ok(());
    }
    print(&format!(
        "\n{count} stock rules can never match and are left out; rules sigma DIR says why\n"
    ))
}

/// The page of all detections.
pub(super) fn page(rules: &[Summary]) -> String {
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

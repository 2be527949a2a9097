//! `rules show`: one detection in words.

use std::fmt::Write as _;

use exfilwatch_detectors::RuleSet;
use exfilwatch_detectors::catalogue::Summary;

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};

pub(super) fn show(name: &str, rules: &RuleSet, output: Output) -> Outcome {
    let found: Vec<Summary> = super::all(rules)
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

/// A detection in words, below a heading.
pub(super) fn section(rule: &Summary, heading: &str) -> String {
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

//! The page docs/COVERAGE.md: our detections beside those of four public collections, what was not seen in
//! a real record, what is planned and not written, and what needs another source. From the rule files and the two lists beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use exfilwatch_detectors::Anchor;
use exfilwatch_detectors::catalogue::Summary;

/// All detections that were thought of.
const NAMES: &str = include_str!("../../../detectors/rules/NAMES");
/// What needs another source.
const ELSEWHERE: &str = include_str!("../../../detectors/rules/ELSEWHERE");

/// The page.
pub(super) fn page(rules: &[Summary]) -> String {
    let by_name = by_name(rules);
    let compared = || by_name.values().flatten();
    let has = |anchor| compared().filter(|of| of.contains_key(&anchor)).count();
    let alone = compared().filter(|of| of.is_empty()).count();
    let mut text = format!(
        "# Coverage\n\nMade by `cargo xtask generate` from the rule files (`equivalents`), \
         [NAMES](../detectors/rules/NAMES) and [ELSEWHERE](../detectors/rules/ELSEWHERE); do not edit.\n\n\
         {} detections. Beside them: Splunk Security Content (with its story \"Data Exfiltration\") has something \
         like {}, SigmaHQ {}, Elastic {}, Panther {}; {alone} have no equivalent in any of the four. Each cell says what \
         the other's rule is called or looks for; it was read from their published rules (Splunk 2024-10 and \
         single files of 2026, Sigma and Elastic 2026-08, Panther 2026-07), not measured. \"the same operations\" \
         means a rule over the same events whose condition may differ. \"none\" means that we looked and know of none.\n",
        by_name.len(),
        has(Anchor::Splunk),
        has(Anchor::Sigma),
        has(Anchor::Elastic),
        has(Anchor::Panther),
    );
    for (title, prefix) in [
        ("Google Workspace", "gws."),
        ("Microsoft 365", "o365."),
        ("Both, and their records together", "x."),
    ] {
        table(&mut text, title, prefix, &by_name);
    }
    text.push_str(
        "\nSigmaHQ's own rules run as they are, through a mapping of their field names: `exfilwatch rules sigma DIR` \
         says what becomes of each ([RULE-FILES.md](RULE-FILES.md), \"Stock Sigma rules\").\n",
    );
    unseen(&mut text, rules);
    planned(&mut text, &by_name.keys().copied().collect());
    elsewhere(&mut text);
    text
}

/// What each detection was compared with; `None` where nobody has compared it.
type ByName<'a> = BTreeMap<&'a str, Option<BTreeMap<Anchor, &'a str>>>;

/// A detection may be several rules, of which one says it for all.
fn by_name(rules: &[Summary]) -> ByName<'_> {
    let mut by_name = ByName::new();
    for rule in rules {
        let known = by_name.entry(&rule.name).or_default();
        if let Some(said) = &rule.equivalents {
            let said = said.iter().map(|(anchor, text)| (*anchor, text.as_str()));
            known.get_or_insert_default().extend(said);
        }
    }
    by_name
}

fn table(text: &mut String, title: &str, prefix: &str, by_name: &ByName<'_>) {
    text.push_str(&format!(
        "\n## {title}\n\n| detection | Splunk | Sigma | Elastic | Panther |\n|---|---|---|---|---|\n"
    ));
    for (name, equivalents) in by_name.iter().filter(|(name, _)| name.starts_with(prefix)) {
        let cells = Anchor::ALL.map(|anchor| match equivalents {
            Some(known) => cell(known.get(&anchor).copied().unwrap_or("none")),
            None => String::new(),
        });
        let anchor = name.replace('.', "");
        // Writing to a String cannot fail.
        writeln!(
            text,
            "| [{name}](RULES.md#{anchor}) | {} |",
            cells.join(" | ")
        )
        .unwrap_or_default();
    }
}

/// Detections that say of themselves that a name or value they rest on was taken from a page alone.
fn unseen(text: &mut String, rules: &[Summary]) {
    let says = |rule: &&Summary| rule.description.contains("not seen in a real record");
    let names: BTreeSet<&str> = rules.iter().filter(says).map(|rule| &*rule.name).collect();
    let links = names
        .iter()
        .map(|name| format!("[{name}](RULES.md#{})", name.replace('.', "")));
    text.push_str(&format!(
        "\n## Written from documentation\n\nA name or value that these look for stands in a vendor's page or in \
         other people's rules, and was not seen in a real record; each says which: {}.\n",
        links.collect::<Vec<_>>().join(", ")
    ));
}

/// Detections that the list names and no rule file has.
fn planned(text: &mut String, written: &BTreeSet<&str>) {
    let rows: Vec<Vec<&str>> = fields(NAMES)
        .filter(|row| row.first().is_some_and(|name| !written.contains(name)))
        .collect();
    if rows.is_empty() {
        return;
    }
    text.push_str(
        "\n## Named and not written\n\n| detection | priority | source | what it would look for |\n|---|---|---|---|\n",
    );
    for row in rows {
        let part = |place: usize| cell(row.get(place).copied().unwrap_or(""));
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            part(0),
            part(2),
            part(3),
            part(4)
        )
        .unwrap_or_default();
    }
}

fn elsewhere(text: &mut String) {
    text.push_str(
        "\n## What needs another source\n\n| what | who has it | source | why not here |\n|---|---|---|---|\n",
    );
    for row in fields(ELSEWHERE) {
        let cells: Vec<String> = row.iter().map(|part| cell(part)).collect();
        writeln!(text, "| {} |", cells.join(" | ")).unwrap_or_default();
    }
}

/// The lines of a list, parted at `|`; the last part may hold more of them.
fn fields(list: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = list
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains('|'));
    lines.map(|line| line.splitn(5, '|').map(str::trim).collect())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app;
    use exfilwatch_detectors::DetectorsOptions;

    #[test]
    fn every_detection_stands_on_the_page_once_and_nothing_that_is_written_is_called_planned() {
        let rules = app::rules(&DetectorsOptions::default()).unwrap();
        let all = super::super::all(&rules);
        let page = page(&all);
        for rule in &all {
            let row = format!("| [{}](RULES.md#", rule.name);
            assert_eq!(page.matches(&row).count(), 1, "{}", rule.name);
            assert!(
                !page.contains(&format!("| {} |", rule.name)),
                "{}",
                rule.name
            );
        }
        assert!(page.contains("Gdrive suspicious file sharing"));
        let (_, unseen) = page.split_once("## Written from documentation").unwrap();
        for name in ["o365.flow.mail_connector", "o365.teams.helpdesk_chat"] {
            assert!(unseen.contains(&format!("[{name}](")), "{name}");
        }
        assert!(page.contains("#xauditgap) | none | none | none | none |"));
        for source in ["BigQuery", "message trace"] {
            assert!(page.contains(source), "{source}");
        }
    }
}

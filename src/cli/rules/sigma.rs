//! `rules sigma DIR`: what becomes of each stock Sigma rule in a folder.

use std::path::Path;

use exfilwatch_detectors::{Stock, StockState, folder, stock};

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};

/// Says of each file whether its rules are run, with which names, or why not.
pub(super) fn sigma(dir: &Path, output: Output) -> Outcome {
    let files = folder(dir)
        .map_err(|error| Failure::caused(Code::Usage, "the rule files cannot be read", &error))?;
    let rules = stock(&files);
    if rules.is_empty() {
        let what = format!("{} holds no stock Sigma rule", dir.display());
        return Err(Failure::new(Code::Usage, what)
            .help("they end in .yml or .yaml; rules with keys of ours are in rules list"));
    }
    let mut table = Table::new(&["STATE", "FILE", "TITLE", "FIELDS, OR WHY NOT"]);
    for rule in &rules {
        let file = Path::new(&rule.file);
        let shown = file.strip_prefix(dir).unwrap_or(file).display().to_string();
        let state = rule.state.as_str().to_owned();
        table.row([state, shown, rule.title.clone(), told(rule)]);
    }
    print_items(output, &rules, &table)?;
    let count = |state| rules.iter().filter(|rule| rule.state == state).count();
    let refused = count(StockState::Refused);
    if output == Output::Table {
        print(&format!(
            "{} rules: {} loaded as they are, {} mapped, {} can never match, {refused} refused\n",
            rules.len(),
            count(StockState::Loaded),
            count(StockState::Mapped),
            count(StockState::Never),
        ))?;
    }
    if refused > 0 {
        let what = format!("{refused} files cannot be read: nothing runs on half a rule set");
        return Err(
            Failure::new(Code::Usage, what).help("mend them, or take them out of the folder")
        );
    }
    Ok(())
}

/// Which field is which, or the reason.
fn told(rule: &Stock) -> String {
    if !rule.reason.is_empty() {
        return rule.reason.clone();
    }
    let renamed = rule
        .renamed
        .iter()
        .map(|(from, to)| format!("{from} is {to}"));
    let left_out = rule.left_out.iter().map(|name| format!("{name} left out"));
    let parts: Vec<String> = renamed
        .chain(left_out)
        .chain(rule.notes.iter().cloned())
        .collect();
    parts.join("; ")
}

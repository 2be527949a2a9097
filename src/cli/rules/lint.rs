//! `rules lint`: what is wrong with rule files although they may load.

use std::path::Path;

use exfilwatch_detectors::{Remark, Weight, embedded, folder, lint as look};

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, plain, print, print_items};

/// Looks at a folder, or at the built-in rules.
pub(super) fn lint(dir: Option<&Path>, output: Output) -> Outcome {
    let remarks = match dir {
        None => look(&embedded(), &[]),
        Some(dir) => {
            let files = folder(dir).map_err(|error| {
                Failure::caused(Code::Usage, "the rule files cannot be read", &error)
            })?;
            if files.is_empty() {
                let what = format!("{} holds no rule file", dir.display());
                return Err(Failure::new(Code::Usage, what).help("they end in .yml or .yaml"));
            }
            look(&files, &embedded())
        }
    };
    if output == Output::Table {
        print(&text(&remarks))?;
    } else {
        print_items(output, &remarks, &Table::default())?;
    }
    let faults = remarks
        .iter()
        .filter(|remark| remark.weight == Weight::Fault);
    match faults.count() {
        0 => Ok(()),
        faults => Err(
            Failure::new(Code::Usage, format!("{faults} faults in rule files"))
                .help("docs/RULE-FILES.md says how a rule file is written"),
        ),
    }
}

fn text(remarks: &[Remark]) -> String {
    if remarks.is_empty() {
        return "nothing to remark\n".to_owned();
    }
    let mut text = String::new();
    for remark in remarks {
        let mut place = remark.file.clone();
        if remark.document > 0 {
            place.push_str(&format!(", document {}", remark.document));
        }
        if !remark.detection.is_empty() {
            place.push_str(&format!(", {}", remark.detection));
        }
        if !remark.key.is_empty() {
            place.push_str(&format!(", key {}", remark.key));
        }
        let (weight, help) = (remark.weight.as_str(), &remark.help);
        let line = format!("{weight}: {place}: {}; {help}", remark.problem);
        text.push_str(&plain(&line));
        text.push('\n');
    }
    text
}

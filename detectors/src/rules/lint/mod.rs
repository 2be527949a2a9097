//! What is wrong with rule files although they load: what would never match, match too much, or not
//! mean what it says. And what does not load, of all files and not only the first.

mod fields;
mod traps;

use std::collections::HashSet;

use serde::Serialize;

use super::error::RuleError;
use super::load::SourceFile;
use super::rule_file::{Document, RuleFile, Sigma};
use super::set::RuleSet;
use crate::catalogue;

/// Word that `rules new` leaves where the writer has something to say.
pub const PLACEHOLDER: &str = "CHANGE-ME";

/// Whether a remark is about a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The rule does not do what it says.
    Fault,
    /// It may be meant.
    Note,
}

impl Weight {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Note => "note",
        }
    }
}

/// A remark about a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The file.
    pub file: String,
    /// Which of its documents, from 1; 0 when it is about the whole file.
    pub document: usize,
    /// The detection, where it has got a name.
    pub detection: String,
    /// A mistake, or something that may be meant.
    pub weight: Weight,
    /// The key it is about; empty for the whole document.
    pub key: String,
    /// What is wrong and what follows from it.
    pub problem: String,
    /// What to write instead.
    pub help: String,
}

/// Looks at rule files. `beside` are the files they are laid over: for what they refer to.
pub fn lint(files: &[SourceFile], beside: &[SourceFile]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut parsed = Vec::new();
    for file in files {
        match RuleFile::parse(&file.name, &file.text) {
            Ok(rule_file) => parsed.push((file, rule_file)),
            Err(error) => remarks.push(of_error(error)),
        }
    }
    let others = beside
        .iter()
        .filter_map(|f| RuleFile::parse(&f.name, &f.text).ok());
    let others: Vec<RuleFile> = others.collect();
    let known: HashSet<&str> = parsed
        .iter()
        .map(|(_, file)| file)
        .chain(&others)
        .flat_map(|file| file.documents.iter().map(|document| document.name.as_str()))
        .collect();
    for (source, file) in &parsed {
        for document in &file.documents {
            let mut remark = |weight, key: &str, problem: String, help: String| {
                remarks.push(Remark {
                    file: file.name.clone(),
                    document: document.number,
                    detection: document.name.clone(),
                    weight,
                    key: key.to_owned(),
                    problem,
                    help,
                });
            };
            traps::look(&source.text, document, &known, &mut remark);
        }
    }
    if remarks.is_empty() || parsed.len() == files.len() {
        remarks.extend(of_whole(files, beside));
    }
    remarks.sort();
    remarks.dedup();
    remarks
}

/// What shows only when all files are put together, and what our own rules lack.
fn of_whole(files: &[SourceFile], beside: &[SourceFile]) -> Vec<Remark> {
    match RuleSet::from_files(beside, files, &[]) {
        Err(error) => vec![of_error(error)],
        Ok(rules) => {
            let of_files = |name: &str| files.iter().any(|file| file.name == name);
            let lacks = catalogue::lacks_of(&rules);
            lacks
                .into_iter()
                .filter(|(rule, _)| of_files(&rule.file))
                .map(|(rule, lack)| Remark {
                    file: rule.file.clone(),
                    document: 0,
                    detection: rule.facts.detection.clone(),
                    weight: Weight::Fault,
                    key: String::new(),
                    problem: lack.to_owned(),
                    help: "write it: rules test fails without".to_owned(),
                })
                .collect()
        }
    }
}

fn of_error(error: RuleError) -> Remark {
    Remark {
        file: error.file,
        document: error.document,
        detection: String::new(),
        weight: Weight::Fault,
        key: error.key,
        problem: error.problem,
        help: error.help,
    }
}

/// Takes a remark: weight, key, problem, help.
type Take<'a> = dyn FnMut(Weight, &str, String, String) + 'a;

/// Why no event has a field of this name, where that is known.
pub(super) fn unknown_field(name: &str) -> Option<String> {
    let (weight, problem, _) = fields::problem(name, None)?;
    (weight == Weight::Fault).then_some(problem)
}

/// Whether the document looks at events at all.
fn looks_at_events(document: &Document) -> bool {
    matches!(document.sigma, Sigma::Rule(_)) && document.own.incident_of.is_none()
}

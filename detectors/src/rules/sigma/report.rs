//! What becomes of each stock rule: for whoever brings a folder of them.

use std::collections::BTreeMap;

use rsigma_parser::SigmaRule;
use serde::Serialize;

use super::super::build::build;
use super::super::error::RuleError;
use super::super::load::SourceFile;
use super::super::rule_file::{RuleFile, Sigma};
use super::super::set::Skipped;

/// Whether a stock rule is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StockState {
    /// Run as it is written.
    Loaded,
    /// Run, with other names for fields.
    Mapped,
    /// Left out: it can never match.
    Never,
    /// It cannot be read, and keeps the whole folder from being used.
    Refused,
}

impl StockState {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Mapped => "mapped",
            Self::Never => "never",
            Self::Refused => "refused",
        }
    }
}

/// A stock rule and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stock {
    /// The file.
    pub file: String,
    /// Title of the rule; empty for a file that cannot be read.
    pub title: String,
    /// Name of its findings.
    pub detection: String,
    /// Whether it is run.
    pub state: StockState,
    /// Fields that have another name here.
    pub renamed: BTreeMap<String, String>,
    /// Fields that are not looked at, since they follow from the others.
    pub left_out: Vec<String>,
    /// What to know beside.
    pub notes: Vec<String>,
    /// Why it is not run; empty where it is.
    pub reason: String,
}

/// What becomes of the stock rules in some files; rules with keys of ours are none.
pub fn stock(files: &[SourceFile]) -> Vec<Stock> {
    let mut all = Vec::new();
    let mut parsed = Vec::new();
    for file in files {
        match RuleFile::parse(&file.name, &file.text) {
            Ok(file) => parsed.push(file),
            Err(error) => all.push(refused(&error)),
        }
    }
    // Each file that keeps the others from being built is told of and set aside.
    let skipped = loop {
        match build(&parsed) {
            Ok(built) => break built.skipped,
            Err(error) => {
                let count = parsed.len();
                parsed.retain(|file| file.name != error.file);
                all.push(refused(&error));
                if parsed.len() == count {
                    break Vec::new();
                }
            }
        }
    };
    for file in &parsed {
        for document in file.documents.iter().filter(|document| !document.is_own) {
            let title = document.title();
            let is_this = |skipped: &&Skipped| skipped.file == file.name && skipped.title == title;
            let reason = skipped
                .iter()
                .find(is_this)
                .map(|skipped| skipped.reason.clone());
            let mapping = &document.mapping;
            let is_changed = !mapping.renamed.is_empty() || !mapping.left_out.is_empty();
            all.push(Stock {
                file: file.name.clone(),
                title: title.to_owned(),
                detection: document.name.clone(),
                state: match (&reason, is_changed) {
                    (Some(_), _) => StockState::Never,
                    (None, true) => StockState::Mapped,
                    (None, false) => StockState::Loaded,
                },
                renamed: mapping.renamed.clone(),
                left_out: mapping.left_out.iter().cloned().collect(),
                notes: mapping.notes.clone(),
                reason: reason.unwrap_or_default(),
            });
        }
    }
    all.sort_by(|a, b| (&a.file, &a.title).cmp(&(&b.file, &b.title)));
    all
}

/// The stock rules in some files that can match, with the names and values that events have: what they
/// look for, for another engine.
pub fn mapped(files: &[SourceFile]) -> Result<Vec<SigmaRule>, RuleError> {
    let parse = |file: &SourceFile| RuleFile::parse(&file.name, &file.text);
    let parsed: Vec<RuleFile> = files.iter().map(parse).collect::<Result<_, _>>()?;
    let skipped = build(&parsed)?.skipped;
    let mut rules = Vec::new();
    for file in parsed {
        let is_run = |rule: &SigmaRule| {
            let is_this = |one: &Skipped| one.file == file.name && one.title == rule.title;
            !skipped.iter().any(is_this)
        };
        for document in file.documents.into_iter().filter(|one| !one.is_own) {
            match document.sigma {
                Sigma::Rule(rule) if is_run(&rule) => rules.push(*rule),
                Sigma::Rule(_) | Sigma::Correlation(_) => {}
            }
        }
    }
    Ok(rules)
}

fn refused(error: &RuleError) -> Stock {
    Stock {
        file: error.file.clone(),
        title: String::new(),
        detection: String::new(),
        state: StockState::Refused,
        renamed: BTreeMap::new(),
        left_out: Vec::new(),
        notes: Vec::new(),
        reason: format!("{}; {}", error.problem, error.help),
    }
}

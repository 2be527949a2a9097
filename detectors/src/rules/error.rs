//! What is wrong with a rule file, where, and what to do about it.

/// A rule file that cannot be used. The caller shows it and stops: nothing runs on half a rule set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule file {file}{}{}: {problem}; {help}", place(*document), key_place(key))]
pub struct RuleError {
    /// The file, as found.
    pub file: String,
    /// Which of its documents, from 1; 0 when it is about the whole file.
    pub document: usize,
    /// The key, empty when it is about the whole document.
    pub key: String,
    /// What is wrong and why.
    pub problem: String,
    /// What to do.
    pub help: String,
}

fn place(document: usize) -> String {
    if document == 0 {
        String::new()
    } else {
        format!(", document {document}")
    }
}

fn key_place(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!(", key `{key}`")
    }
}

/// Where in a file we are: makes errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    pub(crate) document: usize,
}

impl Place<'_> {
    /// An error at a key of this document.
    pub(crate) fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> RuleError {
        RuleError {
            file: self.file.to_owned(),
            document: self.document,
            key: key.to_owned(),
            problem: problem.into(),
            help: help.into(),
        }
    }
}

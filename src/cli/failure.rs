//! How a command fails: a sentence, what to do, and an exit code.

use std::fmt;

/// Exit codes; they are documented and stay (README, "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Findings, and `--fail-on-findings` was given.
    Findings = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Authentication or permission at the vendor.
    Auth = 3,
    /// The vendor's API.
    Vendor = 4,
    /// A receiver.
    Receiver = 5,
    /// State or disk.
    State = 6,
    /// Done, but a gap is left.
    Gap = 7,
    /// Interrupted.
    Interrupted = 130,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: Code,
    /// What was tried, on what, why it failed; causes follow after a colon. May have lines.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            help: None,
        }
    }

    /// Adds what to do next.
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// A failure with its causes in one line.
    pub fn caused(code: Code, what: impl fmt::Display, cause: &dyn std::error::Error) -> Self {
        Self::new(
            code,
            format!("{what}: {}", crate::pipeline::committer::chain(cause)),
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

/// What a command gives back.
pub type Outcome = Result<(), Failure>;

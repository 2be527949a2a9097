//! What an analyst said of a finding once it was looked into.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::finding::FindingState;

/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 300;
/// Longest name of who said it, in bytes.
pub const BY_BYTES_MAX: usize = 64;
/// What was said before, at most; of more the latest.
pub const EARLIER_MAX: usize = 2;
/// How long a verdict is kept.
pub const KEPT: TimeDelta = TimeDelta::days(365);
/// Most characters of the entity that are kept.
const ENTITY_CHARS_MAX: usize = 100;

/// How a finding turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// It was what it says.
    TruePositive,
    /// It was nothing.
    FalsePositive,
}

impl Judgement {
    /// The name on the command line and in the audit trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TruePositive => "true-positive",
            Self::FalsePositive => "false-positive",
        }
    }
}

/// One statement: what, why, who, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// How it turned out.
    pub judgement: Judgement,
    /// Why, for whoever asks later.
    pub reason: String,
    /// Who says so.
    pub by: String,
    /// When it was said.
    pub at: DateTime<Utc>,
}

/// What is known of a closed finding, longer than the finding itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The finding.
    pub uid: Uuid,
    /// Dotted name of the detection.
    pub detection: String,
    /// Whom or what it is about.
    pub entity: String,
    /// Its revision when it was closed: a later one says more than was judged.
    pub revision: u32,
    /// What holds.
    pub last: Statement,
    /// What was said before, the oldest first.
    #[serde(default)]
    pub earlier: Vec<Statement>,
}

impl Verdict {
    /// Closes a finding; `previous` is what was said of it before.
    pub fn of(finding: &FindingState, previous: Option<Self>, last: Statement) -> Self {
        let mut earlier = previous.map_or_else(Vec::new, |previous| {
            let mut earlier = previous.earlier;
            earlier.push(previous.last);
            earlier
        });
        earlier.drain(..earlier.len().saturating_sub(EARLIER_MAX));
        Self {
            uid: finding.uid,
            detection: finding.detection.clone(),
            entity: finding.entity.chars().take(ENTITY_CHARS_MAX).collect(),
            revision: finding.revision,
            last,
            earlier,
        }
    }

    /// When it may be forgotten.
    pub fn expires(&self) -> DateTime<Utc> {
        self.last.at + KEPT
    }
}

//! Findings: what a detector says, complete enough that an analyst need not ask back.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::names::{JobId, Product, TenantId};
use crate::provenance::Provenance;

/// Most event ids a finding names; above it only `count` grows.
pub const EVENT_IDS_MAX: usize = 1_000;
/// Largest record quoted as evidence, in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 4 << 10;
/// Records quoted from the start and from the end of a long finding.
pub const EVIDENCE_FIRST: usize = 3;
/// See [`EVIDENCE_FIRST`].
pub const EVIDENCE_LAST: usize = 2;
/// Most distinct values listed per field.
pub const DISTINCT_VALUES_MAX: usize = 100;
/// Most revisions of one finding in a period; a raise and the close always go out.
pub const REVISIONS_MAX: u32 = 12;

/// How bad, in the five steps of OCSF and Sigma.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    #[serde(alias = "info")]
    Informational,
    /// Worth a look when there is time.
    Low,
    /// Worth a look today.
    Medium,
    /// Look now.
    High,
    /// Wake someone.
    Critical,
}

impl Severity {
    /// The name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// One step less, down to the least.
    #[must_use]
    pub fn lower(self) -> Self {
        match self {
            Self::Informational | Self::Low => Self::Informational,
            Self::Medium => Self::Low,
            Self::High => Self::Medium,
            Self::Critical => Self::High,
        }
    }

    /// OCSF `severity_id`, 1 to 5.
    pub fn ocsf_id(self) -> u8 {
        match self {
            Self::Informational => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
            Self::Critical => 5,
        }
    }
}

/// Where a finding was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By the poller.
    Live,
    /// By a job over a past range, or over files.
    Backfill,
}

impl From<&JobId> for Mode {
    fn from(job: &JobId) -> Self {
        if job.is_live() {
            Self::Live
        } else {
            Self::Backfill
        }
    }
}

/// Why a finding is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateReason {
    /// The severity rose.
    SeverityRaised,
    /// The count has doubled since it was last sent.
    CountDoubled,
    /// A domain outside that was not in it before.
    NewExternalDomain,
    /// A source network that was not in it before.
    NewSourceNetwork,
    /// It went on after two quiet hours.
    NewEpisode,
    /// More was learned from records that came late.
    LateRecords,
    /// Its period is over.
    Closed,
}

impl UpdateReason {
    /// The name used in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SeverityRaised => "severity_raised",
            Self::CountDoubled => "count_doubled",
            Self::NewExternalDomain => "new_external_domain",
            Self::NewSourceNetwork => "new_source_network",
            Self::NewEpisode => "new_episode",
            Self::LateRecords => "late_records",
            Self::Closed => "closed",
        }
    }
}

/// What keeps a finding from alerting.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suppression {
    /// The tenant runs the rule only to count what it would alert about.
    Shadow,
    /// An exception of this name covers all its events.
    Exception(String),
}

impl std::fmt::Display for Suppression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shadow => f.write_str("shadow"),
            Self::Exception(name) => write!(f, "exception {name}"),
        }
    }
}

/// A record that shows what the finding says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// Vendor's identity of the record.
    pub event_id: String,
    /// Event time.
    pub time: DateTime<Utc>,
    /// Operation.
    pub operation: String,
    /// The record itself, when at most [`EVIDENCE_BYTES_MAX`] long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RawValue>>,
}

/// What the rule says about its findings, the same for each of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleFacts {
    /// Sigma id of the rule.
    pub id: Uuid,
    /// Our dotted detection name.
    pub detection: String,
    /// Title.
    pub title: String,
    /// One paragraph: what it looks for and why it matters.
    pub description: String,
    /// First 12 hexadecimal digits of the content hash of the rule file.
    pub version: String,
    /// `m365` or `google_workspace`.
    pub product: Product,
    /// ATT&CK tactics, by id (`TA0010`).
    pub tactics: Vec<String>,
    /// ATT&CK techniques, by id (`T1567.002`).
    pub techniques: Vec<String>,
    /// What to check and what to do, numbered lines.
    pub triage: String,
    /// Known harmless causes.
    pub false_positives: Vec<String>,
    /// Further reading.
    pub references: Vec<String>,
}

/// What a detector says: one rule, one entity, one period (or one act).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// Content-derived id: see [`crate::finding_uid`].
    pub uid: Uuid,
    /// Findings about one act share it; the uid itself when it stands alone.
    pub incident_uid: Uuid,
    /// The tenant.
    pub tenant: TenantId,
    /// The rule. All its findings share what it says.
    #[serde(with = "shared")]
    pub rule: Arc<RuleFacts>,
    /// The feed its records came from (`Audit.Exchange`, `drive`).
    pub stream: String,
    /// Whether someone should look; `false` makes it a signal.
    pub alert: bool,
    /// What keeps it from alerting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<Suppression>,
    /// The highest reached.
    pub severity: Severity,
    /// 0 to 100.
    pub risk_score: u8,
    /// Live or backfill.
    pub mode: Mode,
    /// 1 when first sent.
    pub revision: u32,
    /// Why it is sent again; `None` for revision 1.
    pub update_reason: Option<UpdateReason>,
    /// What the entity is: `user`, `destination`, `alert`, …
    pub entity_type: String,
    /// Whom or what it is about, in the form of [`crate::identity::normal_entity`].
    pub entity: String,
    /// One sentence: who did what, to whom, how much.
    pub message: String,
    /// Distinct events that count.
    pub count: u64,
    /// Ids of those events' records, by time; at most [`EVENT_IDS_MAX`].
    pub event_ids: Vec<String>,
    /// First event.
    pub first_time: DateTime<Utc>,
    /// Last event.
    pub last_time: DateTime<Utc>,
    /// The event at which the condition was met.
    pub trip_time: DateTime<Utc>,
    /// When the page that brought it was read: `created_time` and `logged_time` of the document.
    pub fetched_at: DateTime<Utc>,
    /// Who did it.
    pub user: Option<String>,
    /// Address it came from, the first known.
    pub src: Option<String>,
    /// Whom or what it was done to, the first.
    pub target: Option<String>,
    /// Registrable domain outside, the first.
    pub external_domain: Option<String>,
    /// Distinct values by field name, sorted; at most [`DISTINCT_VALUES_MAX`] each.
    pub values: BTreeMap<String, Vec<String>>,
    /// Fields of the tripping event that made the rule match.
    pub matched: BTreeMap<String, String>,
    /// Condition of a window rule: at least this many in [`Finding::window_seconds`].
    pub threshold: Option<u64>,
    /// See [`Finding::threshold`].
    pub window_seconds: Option<i64>,
    /// Records, the first and the last ones.
    pub evidence: Vec<Evidence>,
    /// Which fields its texts were taken from.
    #[serde(default)]
    pub provenance: Provenance,
}

/// What is shared in memory stands in each document in full.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        shared: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        shared.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// What the finding table remembers of a finding, so that updates keep their id and count up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingState {
    /// The finding.
    pub uid: Uuid,
    /// Dotted name of the detection.
    pub detection: String,
    /// Whom or what it is about.
    pub entity: String,
    /// Last revision handed to the outbox.
    pub revision: u32,
    /// Count when it was last handed over.
    pub count: u64,
    /// Severity when it was last handed over.
    pub severity: Severity,
    /// Whether it was handed over as a finding (and not as a signal).
    pub alert: bool,
    /// Event time of its last event, for episodes.
    pub last_time: DateTime<Utc>,
    /// External domains it named, at most 20.
    pub domains: Vec<String>,
    /// Source networks it named, at most 20.
    pub networks: Vec<String>,
    /// Records later than this no longer belong to it; then it is closed and forgotten.
    pub expires: DateTime<Utc>,
}

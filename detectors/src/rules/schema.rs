//! Our keys in a rule file, beside Sigma's own. What each means stands here and nowhere else.
//!
//! They are read from what `rsigma-parser` keeps as custom attributes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Person, Severity};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use yaml_serde::Value;

/// All keys of ours. A document that has one of them is checked for misspelt ones; a stock Sigma
/// rule may bear keys of other tools.
pub(crate) const OWN_KEYS: &[&str] = &[
    "risk",
    "identity",
    "alert",
    "raise",
    "lower",
    "incident",
    "message",
    "distinct",
    "triage",
    "tests",
    "tiers",
    "above",
    "first_seen",
    "also",
    "incident_of",
    "supersedes",
    "pack",
    "equivalents",
];

/// Our keys of one document.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OwnKeys {
    /// 0 to 100; by level where absent.
    pub(crate) risk: Option<u8>,
    /// Which records are one finding; each record where absent.
    pub(crate) identity: Option<IdentityKey>,
    /// `true`, `false`, or a Sigma selection (a map, or a list of maps) on any of the finding's
    /// events; `true` where absent.
    pub(crate) alert: Option<Value>,
    /// The highest level whose `when` matches any event of the finding.
    pub(crate) raise: Vec<ShiftKey>,
    /// Where nothing raises: the lowest level whose `when` matches all events of the finding.
    pub(crate) lower: Vec<ShiftKey>,
    /// The first of these fields that the first event has names the act.
    pub(crate) incident: Vec<String>,
    /// One sentence with `{field}`, `{count}`, `{count:field}`, `{threshold}`, `{window}`.
    pub(crate) message: Option<String>,
    /// Fields whose distinct values the finding lists.
    pub(crate) distinct: Vec<String>,
    /// What happened, why it matters, what to check, how to contain it.
    pub(crate) triage: Option<String>,
    /// Cases of raw vendor records.
    pub(crate) tests: Vec<Case>,
    /// Further conditions of a window rule.
    pub(crate) tiers: Vec<TierKey>,
    /// More than is usual: of the document's own condition.
    pub(crate) above: Option<AboveKey>,
    /// Only what was not there before.
    pub(crate) first_seen: Option<FirstSeenKey>,
    /// What the window of a `value_count` must hold besides.
    pub(crate) also: Vec<AlsoKey>,
    /// Names of detections that step back behind this one about the same record.
    pub(crate) supersedes: Vec<String>,
    /// The pack it belongs to; `exfil` where absent.
    pub(crate) pack: Pack,
    /// What other collections have for the same act, by their name, or the word `none`:
    /// docs/COVERAGE.md. Absent where nobody has compared.
    #[serde(deserialize_with = "equivalents")]
    pub(crate) equivalents: Option<Equivalents>,
    /// The rule listens to the findings of the others instead of looking at events.
    pub(crate) incident_of: Option<IncidentKey>,
}

/// What other collections have for the same act; empty where none of them has anything.
pub type Equivalents = BTreeMap<Anchor, String>;

fn equivalents<'de, D: Deserializer<'de>>(key: D) -> Result<Option<Equivalents>, D::Error> {
    let key = Value::deserialize(key)?;
    if key.as_str() == Some("none") {
        return Ok(Some(Equivalents::new()));
    }
    let named: Equivalents = yaml_serde::from_value(key).map_err(D::Error::custom)?;
    if named.is_empty() {
        return Err(D::Error::custom(
            "it names nothing; write `none` where none has an equivalent",
        ));
    }
    Ok(Some(named))
}

/// A collection of detections that ours are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// Splunk Security Content.
    Splunk,
    /// SigmaHQ's rules.
    Sigma,
    /// Elastic's detection rules.
    Elastic,
    /// Panther's rules.
    Panther,
}

impl Anchor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Splunk, Self::Sigma, Self::Elastic, Self::Panther];
}

/// `incident_of: { person: [{ timespan: 24h, gte: 80, level: high }] }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncidentKey {
    /// Least sum of risk of the findings about one person within a span.
    pub(crate) person: Vec<TierKey>,
}

/// A line of `also`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlsoKey {
    pub(crate) field: String,
    pub(crate) gte: u64,
}

/// What a detection is about. Those of a pack that is not switched on are signals.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Pack {
    /// Data leaves, or a way out is opened.
    #[default]
    Exfil,
    /// Who acts may not be who it seems, or has got more rights.
    Identity,
    /// A setting makes the tenant weaker.
    Posture,
}

impl Pack {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exfil, Self::Identity, Self::Posture];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exfil => "exfil",
            Self::Identity => "identity",
            Self::Posture => "posture",
        }
    }
}

/// `above: { own_maximum: 3 }` or `above: { deviations: 3 }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AboveKey {
    /// So many times the key's greatest day.
    #[serde(default)]
    pub(crate) own_maximum: Option<u32>,
    /// So many standard deviations above the mean of the key's days.
    #[serde(default)]
    pub(crate) deviations: Option<u32>,
    /// How many days before count; 30 where absent.
    #[serde(default)]
    pub(crate) days: Option<u32>,
    /// How long nothing is said at first; 7 days where absent.
    #[serde(default)]
    pub(crate) learn: Option<String>,
}

/// `first_seen: { fields: [actor, app_id], days: 30 }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstSeenKey {
    /// Fields whose values together must be new.
    pub(crate) fields: Vec<String>,
    /// How many days before count; 30 where absent.
    #[serde(default)]
    pub(crate) days: Option<u32>,
    /// How long nothing is said at first; 7 days where absent.
    #[serde(default)]
    pub(crate) learn: Option<String>,
    /// How long a value is new after its first event; only at that event where absent.
    #[serde(default)]
    pub(crate) fresh: Option<String>,
    /// A Sigma selection: the events that are told. The others make their values known.
    #[serde(default)]
    pub(crate) told: Option<Value>,
}

/// `identity: record`, or a map.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum IdentityKey {
    /// The word `record`.
    Word(String),
    /// Entity and fields.
    Map(IdentityMap),
}

/// The parts of an identity.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IdentityMap {
    /// Field whose value is the entity.
    pub(crate) entity: Option<String>,
    /// What the entity is: `user`, `destination`, …
    pub(crate) entity_type: Option<String>,
    /// Fields whose values make one finding; none for each record.
    pub(crate) fields: Vec<String>,
    /// Length of the aligned period by event time; none for no period.
    pub(crate) per: Option<String>,
}

/// A line of `raise` or `lower`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShiftKey {
    pub(crate) level: Severity,
    pub(crate) when: Value,
}

/// A line of `tiers`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierKey {
    pub(crate) timespan: String,
    pub(crate) gte: u64,
    pub(crate) level: Severity,
    #[serde(default)]
    pub(crate) above: Option<AboveKey>,
}

/// A case: raw vendor records, and what the rule must say of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is tried, as a sentence.
    pub name: String,
    /// Domains of the tenant; `corp.example` where absent.
    #[serde(default)]
    pub internal_domains: Option<Vec<String>>,
    /// Domains of partners.
    #[serde(default)]
    pub partners: Vec<String>,
    /// The tenant's people list.
    #[serde(default)]
    pub people: Vec<Person>,
    /// The tenant's app list: by client id, whether it is approved.
    #[serde(default)]
    pub apps: BTreeMap<String, bool>,
    /// Where addresses are, as a database of the tenant would say: the country of each.
    #[serde(default)]
    pub places: BTreeMap<IpAddr, String>,
    /// Records as the vendor writes them.
    #[serde(default)]
    pub records: Vec<serde_json::Value>,
    /// Many records from one.
    #[serde(default)]
    pub repeat: Option<Repeat>,
    /// What must be found.
    pub expect: Expectation,
}

/// One record many times, with differences.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// The record.
    pub record: serde_json::Value,
    /// How often, at most [`Repeat::COUNT_MAX`].
    pub count: usize,
    /// JSON pointer to text in which `{i}` is the number of the record, from 0.
    #[serde(default)]
    pub vary: BTreeMap<String, String>,
    /// JSON pointer to the time, and how it moves.
    #[serde(default)]
    pub vary_time: Option<VaryTime>,
}

impl Repeat {
    /// Most records one case may make.
    pub const COUNT_MAX: usize = 20_000;
}

/// Times of repeated records.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaryTime {
    /// Where the time stands.
    pub pointer: String,
    /// Time of the first record: RFC 3339, or without a zone as Office 365 writes it (UTC).
    pub start: String,
    /// Seconds from record to record; may be negative.
    pub step_seconds: i64,
}

impl VaryTime {
    /// The time of record `i`, in the form in which the start is written; `None` when the start
    /// is no time.
    pub fn at(&self, i: usize) -> Option<String> {
        let zoned = self.start.ends_with('Z');
        let text = if zoned {
            self.start.clone()
        } else {
            format!("{}Z", self.start)
        };
        let start: DateTime<Utc> = text.parse().ok()?;
        let step = self.step_seconds.checked_mul(i64::try_from(i).ok()?)?;
        let time = start.checked_add_signed(chrono::TimeDelta::try_seconds(step)?)?;
        let digits = if self.start.contains('.') {
            "%Y-%m-%dT%H:%M:%S%.3f"
        } else {
            "%Y-%m-%dT%H:%M:%S"
        };
        Some(format!(
            "{}{}",
            time.format(digits),
            if zoned { "Z" } else { "" }
        ))
    }
}

/// What a case expects of its rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ExpectationKey")]
pub struct Expectation {
    /// Number of findings.
    pub findings: usize,
    /// Severity of each.
    pub severity: Option<Severity>,
    /// Whether each is to be looked at.
    pub alert: Option<bool>,
    /// Entity of one of them.
    pub entity: Option<String>,
    /// Count of one of them.
    pub count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectationKey {
    Map(ExpectationMap),
    Word(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectationMap {
    findings: usize,
    severity: Option<Severity>,
    alert: Option<bool>,
    entity: Option<String>,
    count: Option<u64>,
}

impl TryFrom<ExpectationKey> for Expectation {
    type Error = String;

    fn try_from(key: ExpectationKey) -> Result<Self, String> {
        match key {
            ExpectationKey::Map(map) => Ok(Self {
                findings: map.findings,
                severity: map.severity,
                alert: map.alert,
                entity: map.entity,
                count: map.count,
            }),
            ExpectationKey::Word(word) if word == "none" => Ok(Self {
                findings: 0,
                severity: None,
                alert: None,
                entity: None,
                count: None,
            }),
            ExpectationKey::Word(word) => Err(format!("{word:?} is neither `none` nor a map")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_repeated_records_keep_the_form_of_the_first() {
        for (start, step, second) in [
            ("2026-05-01T23:59:59", 1, "2026-05-02T00:00:00"),
            ("2026-05-01T00:00:00.250Z", 60, "2026-05-01T00:01:00.250Z"),
            ("2026-05-01T00:00:00Z", -1, "2026-04-30T23:59:59Z"),
        ] {
            let vary = VaryTime {
                pointer: String::new(),
                start: start.to_owned(),
                step_seconds: step,
            };
            assert_eq!(vary.at(0).as_deref(), Some(start));
            assert_eq!(vary.at(1).as_deref(), Some(second));
        }
    }
}

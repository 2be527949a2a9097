//! The catalogue: what the rules are, for `rules list` and `rules show`; and what a rule file of
//! ours must have.

use exfilwatch_model::{Product, Severity};
use serde::Serialize;
use uuid::Uuid;

use crate::rules::{Alert, Case, Counted, Equivalents, Kind, Pack, Rule, RuleSet};

/// One rule in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Detection name.
    pub name: String,
    /// Sigma id.
    pub id: Uuid,
    /// Title.
    pub title: String,
    /// Severity before `raise` and `lower`.
    pub level: Severity,
    /// 0 to 100.
    pub risk: u8,
    /// `exfil`, `identity` or `posture`: its pack.
    pub pack: Pack,
    /// `yes`, `no` or `depends`: finding or signal.
    pub alert: &'static str,
    /// `m365` or `google_workspace`; `None` where it is about any log.
    pub product: Option<Product>,
    /// Service of the log source.
    pub service: Option<String>,
    /// Operations it looks at, names or patterns; empty for all.
    pub operations: Vec<String>,
    /// `status` of Sigma.
    pub status: Option<String>,
    /// What makes one finding, in words.
    pub identity: String,
    /// The conditions of a window rule in words; empty for others.
    pub conditions: Vec<String>,
    /// What it looks for and why it matters.
    pub description: String,
    /// What to check and what to do.
    pub triage: String,
    /// Known harmless causes.
    pub false_positives: Vec<String>,
    /// ATT&CK tactics and techniques, by id.
    pub attack: Vec<String>,
    /// Further reading.
    pub references: Vec<String>,
    /// What other collections have for the same act; absent where nobody has compared.
    pub equivalents: Option<Equivalents>,
    /// Names of its cases.
    pub tests: Vec<String>,
    /// Its file.
    pub file: String,
    /// First 12 hexadecimal digits of a hash of the file.
    pub version: String,
}

/// All rules in words, by name.
pub fn summaries(rules: &RuleSet) -> Vec<Summary> {
    rules.rules().iter().map(|rule| summary(rule)).collect()
}

fn summary(rule: &Rule) -> Summary {
    let facts = &rule.facts;
    Summary {
        name: facts.detection.clone(),
        id: facts.id,
        title: facts.title.clone(),
        level: rule.level,
        risk: rule.risk,
        pack: rule.pack,
        alert: match rule.alert {
            Alert::Fixed(true) => "yes",
            Alert::Fixed(false) => "no",
            Alert::When(_) => "depends",
        },
        product: Some(facts.product),
        service: rule.service.clone(),
        operations: operations(rule),
        status: rule.status.clone(),
        identity: identity(rule),
        conditions: conditions(rule),
        description: facts.description.clone(),
        triage: facts.triage.clone(),
        false_positives: facts.false_positives.clone(),
        attack: [facts.tactics.as_slice(), facts.techniques.as_slice()].concat(),
        references: facts.references.clone(),
        equivalents: rule.equivalents.clone(),
        tests: rule.tests.iter().map(|case| case.name.clone()).collect(),
        file: rule.file.clone(),
        version: facts.version.clone(),
    }
}

fn operations(rule: &Rule) -> Vec<String> {
    let all = rule.interests.iter().flat_map(|one| one.operations.clone());
    let mut operations: Vec<String> = all.collect();
    operations.sort();
    operations.dedup();
    operations
}

fn identity(rule: &Rule) -> String {
    match &rule.kind {
        Kind::Single { fields, .. } if fields.is_empty() => "each record".to_owned(),
        Kind::Single {
            fields,
            period_ms: None,
            ..
        } => fields.join(", "),
        Kind::Single {
            fields,
            period_ms: Some(ms),
            ..
        } => {
            format!("{} per {} h", fields.join(", "), ms / 3_600_000)
        }
        Kind::Window {
            group_by,
            period_ms,
            ..
        } => {
            format!("{} per {} h", group_by.join(", "), period_ms / 3_600_000)
        }
        Kind::Incident { period_ms, .. } => format!("person per {} h", period_ms / 3_600_000),
    }
}

fn conditions(rule: &Rule) -> Vec<String> {
    let (what, tiers) = match &rule.kind {
        Kind::Single { .. } => return Vec::new(),
        Kind::Incident { tiers, .. } => ("of risk".to_owned(), tiers),
        Kind::Window { counted, tiers, .. } => (counted_as(counted), tiers),
    };
    let condition = |tier: &crate::rules::Tier| {
        let minutes = tier.span_ms / 60_000;
        let (least, level) = (tier.threshold, tier.level.as_str());
        format!("{least} or more {what} within {minutes} min: {level}")
    };
    tiers.iter().map(condition).collect()
}

fn counted_as(counted: &Counted) -> String {
    match counted {
        Counted::Events => "events".to_owned(),
        Counted::Values(fields) => format!("distinct {}", fields.join(" and ")),
        Counted::Bases => "different rules".to_owned(),
        Counted::Chain => "rules in their order".to_owned(),
    }
}

/// What the rules of our own form lack, one sentence each: text for the analyst, and a case that
/// finds and one that does not.
pub fn lint(rules: &RuleSet) -> Vec<String> {
    lacks_of(rules)
        .into_iter()
        .map(|(rule, lack)| format!("{} ({}): {lack}", rule.facts.detection, rule.file))
        .collect()
}

/// The same, each beside its rule.
pub(crate) fn lacks_of(rules: &RuleSet) -> Vec<(&Rule, &'static str)> {
    let all = rules.rules().iter().map(|rule| &**rule);
    let own = all.filter(|rule| rule.is_own);
    own.flat_map(|rule| lacks(rule).into_iter().map(move |lack| (rule, lack)))
        .collect()
}

fn lacks(rule: &Rule) -> Vec<&'static str> {
    let facts = &rule.facts;
    let finds = |case: &Case| case.expect.findings > 0;
    [
        (facts.description.is_empty(), "a description is missing"),
        (facts.triage.is_empty(), "a triage text is missing"),
        (
            facts.techniques.is_empty(),
            "no ATT&CK technique is tagged (attack.t1567.002)",
        ),
        (
            facts.tactics.is_empty(),
            "no ATT&CK tactic is tagged (attack.ta0010)",
        ),
        (
            facts.false_positives.is_empty(),
            "no harmless cause is named in falsepositives",
        ),
        (
            !rule.tests.iter().any(finds),
            "no case in tests expects a finding",
        ),
        (
            rule.tests.iter().all(finds),
            "no case in tests expects none",
        ),
    ]
    .into_iter()
    .filter_map(|(is_lacking, lack)| is_lacking.then_some(lack))
    .collect()
}

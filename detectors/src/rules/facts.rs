//! What findings say of their rule: title, ATT&CK ids, triage, version.

use exfilwatch_model::{Product, RuleFacts};
use rsigma_parser::{CorrelationRule, SigmaRule};

use super::rule_file::{Document, RuleFile};

/// What Sigma says of either sort of rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata<'a> {
    title: &'a str,
    description: Option<&'a str>,
    tags: &'a [String],
    false_positives: &'a [String],
    references: &'a [String],
}

impl<'a> Metadata<'a> {
    pub(super) fn of_rule(rule: &'a SigmaRule) -> Self {
        Self {
            title: &rule.title,
            description: rule.description.as_deref(),
            tags: &rule.tags,
            false_positives: &rule.falsepositives,
            references: &rule.references,
        }
    }

    pub(super) fn of_correlation(rule: &'a CorrelationRule) -> Self {
        Self {
            title: &rule.title,
            description: rule.description.as_deref(),
            tags: &rule.tags,
            false_positives: &rule.falsepositives,
            references: &rule.references,
        }
    }
}

/// What the findings of a rule say of it.
pub(super) fn facts(
    file: &RuleFile,
    document: &Document,
    product: Product,
    sigma: Metadata<'_>,
) -> RuleFacts {
    let ids = sigma
        .tags
        .iter()
        .filter_map(|tag| tag.strip_prefix("attack."));
    let ids = ids.filter(|id| is_attack_id(id)).map(str::to_uppercase);
    let (tactics, techniques): (Vec<_>, Vec<_>) = ids.partition(|id| id.starts_with("TA"));
    RuleFacts {
        id: document.id,
        detection: document.name.clone(),
        title: sigma.title.to_owned(),
        description: sigma.description.unwrap_or_default().trim().to_owned(),
        version: file.version.clone(),
        product,
        tactics,
        techniques,
        triage: document
            .own
            .triage
            .clone()
            .unwrap_or_default()
            .trim()
            .to_owned(),
        false_positives: sigma.false_positives.to_vec(),
        references: sigma.references.to_vec(),
    }
}

/// `ta0010`, `t1567.002`: the id form of a tag, not its name.
fn is_attack_id(tag: &str) -> bool {
    let digits = tag.strip_prefix("ta").or_else(|| tag.strip_prefix('t'));
    digits.is_some_and(|digits| {
        digits.len() >= 4 && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

//! The `correlation` of a document: what of Sigma's correlations we run, and what we refuse.

use std::collections::HashMap;
use std::sync::Arc;

use exfilwatch_model::{Product, Severity};
use rsigma_parser::{
    ConditionOperator, CorrelationCondition, CorrelationRule, CorrelationType, WindowMode,
};

use super::build::{Base, span_ms};
use super::error::{Place, RuleError};
use super::need::Need;
use super::rule::{Counted, Tier};
use super::rule_file::Document;
use crate::contract::Interest;
use crate::engine::sigma::Matcher;

/// Most tiers of a rule.
const TIERS_MAX: usize = 8;
/// Most group-by fields, and most counted fields.
const KEY_FIELDS_MAX: usize = 4;
/// Shortest period of a finding.
const PERIOD_MS_MIN: i64 = 86_400_000;

/// The parts of a window rule.
#[derive(Debug)]
pub(crate) struct WindowRule {
    pub(crate) bases: Vec<Arc<Matcher>>,
    pub(crate) product: Product,
    pub(crate) service: Option<String>,
    pub(crate) interest: Interest,
    pub(crate) matched: Vec<String>,
    pub(crate) group_by: Vec<String>,
    pub(crate) counted: Counted,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) period_ms: i64,
}

/// Reads and checks the correlation of a document.
pub(crate) fn window(
    place: Place<'_>,
    document: &Document,
    sigma: &CorrelationRule,
    level: Severity,
    bases: &HashMap<String, Base>,
) -> Result<WindowRule, RuleError> {
    refuse_unknown(place, sigma)?;
    let group_by = sigma.group_by.clone();
    if group_by.is_empty() || group_by.len() > KEY_FIELDS_MAX {
        let help = format!("name 1 to {KEY_FIELDS_MAX} fields");
        return Err(place.error(
            "correlation.group-by",
            "it decides whose events count",
            help,
        ));
    }
    let (counted, threshold) = condition(place, sigma)?;
    let tiers = tiers(place, document, sigma, level, threshold)?;
    let longest = tiers
        .iter()
        .map(|tier| tier.span_ms)
        .max()
        .unwrap_or(PERIOD_MS_MIN);
    let named = named(place, sigma, bases)?;
    let Some(first) = named.first() else {
        let help = "name the base rules by `name` or `id`";
        return Err(place.error("correlation.rules", "it is empty", help));
    };
    if named.iter().any(|base| base.product != first.product) {
        let help = "write one rule for each product";
        return Err(place.error("correlation.rules", "they are of two products", help));
    }
    let mut operations: Vec<String> = named
        .iter()
        .flat_map(|base| base.interest.operations.iter().cloned())
        .collect();
    if named.iter().any(|base| base.interest.operations.is_empty()) {
        operations.clear();
    }
    let mut matched: Vec<String> = named
        .iter()
        .flat_map(|base| base.fields.iter().cloned())
        .collect();
    matched.sort();
    matched.dedup();
    Ok(WindowRule {
        product: first.product,
        service: first.service.clone(),
        interest: Interest {
            product: Some(first.product),
            operations,
            need: Need::any(named.iter().map(|base| base.interest.need.clone())),
        },
        matched,
        bases: named.iter().map(|base| Arc::clone(&base.matcher)).collect(),
        group_by,
        counted,
        period_ms: longest.max(PERIOD_MS_MIN),
        tiers,
    })
}

fn refuse_unknown(place: Place<'_>, sigma: &CorrelationRule) -> Result<(), RuleError> {
    match sigma.correlation_type {
        CorrelationType::EventCount | CorrelationType::ValueCount => {}
        CorrelationType::Temporal
        | CorrelationType::TemporalOrdered
        | CorrelationType::ValueSum
        | CorrelationType::ValueAvg
        | CorrelationType::ValuePercentile
        | CorrelationType::ValueMedian => {
            let problem = format!("{} is not run yet", sigma.correlation_type.as_str());
            let help = "use event_count or value_count";
            return Err(place.error("correlation.type", problem, help));
        }
    }
    if sigma.window != WindowMode::Sliding {
        let problem = format!("{} windows are not run", sigma.window.as_str());
        return Err(place.error(
            "correlation.window",
            problem,
            "remove it: windows trail each event",
        ));
    }
    if sigma.generate {
        let help = "give the base rule an `alert` key instead";
        return Err(place.error("generate", "it is not read", help));
    }
    if !sigma.aliases.is_empty() {
        let help = "use field names that both rules have";
        return Err(place.error("correlation.aliases", "they are not read", help));
    }
    Ok(())
}

fn condition(place: Place<'_>, sigma: &CorrelationRule) -> Result<(Counted, u64), RuleError> {
    let key = "correlation.condition";
    let help = "write { gte: N }, with `field` for value_count";
    let CorrelationCondition::Threshold {
        predicates, field, ..
    } = &sigma.condition
    else {
        return Err(place.error(key, "it is no threshold", help));
    };
    let threshold = match predicates.as_slice() {
        [(ConditionOperator::Gte, least)] => *least,
        [(ConditionOperator::Gt, below)] => below.saturating_add(1),
        _ => return Err(place.error(key, "only one gte or gt is run", help)),
    };
    if threshold == 0 {
        return Err(place.error(key, "0 is always met", help));
    }
    let counted = match (sigma.correlation_type, field.clone()) {
        (CorrelationType::EventCount, None) => Counted::Events,
        (CorrelationType::ValueCount, Some(fields)) if fields.len() <= KEY_FIELDS_MAX => {
            Counted::Values(fields)
        }
        _ => return Err(place.error(key, "`field` belongs to value_count, and only there", help)),
    };
    Ok((counted, threshold))
}

fn tiers(
    place: Place<'_>,
    document: &Document,
    sigma: &CorrelationRule,
    level: Severity,
    threshold: u64,
) -> Result<Vec<Tier>, RuleError> {
    let span = span_ms(place, "correlation.timespan", &sigma.timespan.original)?;
    let mut tiers = vec![Tier {
        span_ms: span,
        threshold,
        level,
    }];
    for tier in &document.own.tiers {
        if tier.gte == 0 {
            return Err(place.error("tiers", "a threshold of 0 is always met", "write 1 or more"));
        }
        tiers.push(Tier {
            span_ms: span_ms(place, "tiers.timespan", &tier.timespan)?,
            threshold: tier.gte,
            level: tier.level,
        });
    }
    if tiers.len() > TIERS_MAX {
        let problem = format!("there are more than {TIERS_MAX}");
        return Err(place.error("tiers", problem, "remove some"));
    }
    tiers.sort_by_key(|tier| (std::cmp::Reverse(tier.level), tier.span_ms));
    Ok(tiers)
}

fn named<'a>(
    place: Place<'_>,
    sigma: &CorrelationRule,
    bases: &'a HashMap<String, Base>,
) -> Result<Vec<&'a Base>, RuleError> {
    let base = |name: &String| {
        bases.get(name).ok_or_else(|| {
            let problem = format!("no rule {name:?} with a known product");
            place.error(
                "correlation.rules",
                problem,
                "name the base rule by `name` or `id`",
            )
        })
    };
    sigma.rules.iter().map(base).collect()
}

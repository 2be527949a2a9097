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
use super::rule::{Also, BASES_MAX, Counted, Tier, WindowBase};
use super::rule_file::Document;
use super::schema::{AlsoKey, TierKey};
use super::usual;
use crate::contract::Interest;

/// Most tiers of a rule.
const TIERS_MAX: usize = 8;
/// Most group-by fields, and most counted fields.
const KEY_FIELDS_MAX: usize = 4;
/// Shortest period of a finding.
const PERIOD_MS_MIN: i64 = 86_400_000;

/// The parts of a window rule.
#[derive(Debug)]
pub(crate) struct WindowRule {
    pub(crate) bases: Vec<WindowBase>,
    pub(crate) product: Product,
    pub(crate) service: Option<String>,
    pub(crate) interests: Vec<Interest>,
    pub(crate) matched: Vec<String>,
    pub(crate) group_by: Vec<String>,
    pub(crate) counted: Counted,
    pub(crate) also: Vec<Also>,
    pub(crate) tiers: Vec<Tier>,
    /// What the rule's own condition asks for, where it counts events or values.
    pub(crate) own_threshold: Option<u64>,
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
    let mut matched: Vec<String> = named
        .iter()
        .flat_map(|base| base.fields.iter().cloned())
        .collect();
    matched.sort();
    matched.dedup();
    let bases = window_bases(place, sigma, &named)?;
    let interests = named
        .iter()
        .zip(&bases)
        .map(|(base, window)| interest(base, window, &counted));
    let is_number = matches!(counted, Counted::Events | Counted::Values(_));
    Ok(WindowRule {
        own_threshold: is_number.then_some(threshold),
        product: first.product,
        service: first.service.clone(),
        interests: interests.collect(),
        matched,
        bases,
        group_by,
        also: also(place, document, &counted)?,
        counted,
        period_ms: longest.max(PERIOD_MS_MIN),
        tiers,
    })
}

/// What a base wants in this window: without a key, or without what is counted, an event of it does not
/// count.
fn interest(base: &Base, window: &WindowBase, counted: &Counted) -> Interest {
    let mut interest = base.interest.clone();
    let values = match counted {
        Counted::Values(fields) => fields.as_slice(),
        Counted::Events | Counted::Bases | Counted::Chain => &[],
    };
    interest.need = interest
        .need
        .and(Need::fields(window.key.iter().chain(values)));
    interest
}

fn refuse_unknown(place: Place<'_>, sigma: &CorrelationRule) -> Result<(), RuleError> {
    match sigma.correlation_type {
        CorrelationType::EventCount
        | CorrelationType::ValueCount
        | CorrelationType::Temporal
        | CorrelationType::TemporalOrdered => {}
        CorrelationType::ValueSum
        | CorrelationType::ValueAvg
        | CorrelationType::ValuePercentile
        | CorrelationType::ValueMedian => {
            let problem = format!("{} is not run", sigma.correlation_type.as_str());
            let help = "use event_count, value_count, temporal or temporal_ordered";
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
    Ok(())
}

/// The bases with the fields that make their part of the key.
fn window_bases(
    place: Place<'_>,
    sigma: &CorrelationRule,
    named: &[&Base],
) -> Result<Vec<WindowBase>, RuleError> {
    if named.len() > BASES_MAX {
        let problem = format!("there are more than {BASES_MAX}");
        return Err(place.error("correlation.rules", problem, "name fewer"));
    }
    let key = "correlation.aliases";
    for alias in &sigma.aliases {
        if !sigma.group_by.contains(&alias.alias) {
            let problem = format!("{:?} is not in group-by", alias.alias);
            return Err(place.error(key, problem, "name it there, or remove it"));
        }
        if let Some(unknown) = alias
            .mapping
            .keys()
            .find(|rule| !sigma.rules.contains(rule))
        {
            let problem = format!("{unknown:?} is none of the rules");
            return Err(place.error(key, problem, "write a rule as `rules` writes it"));
        }
    }
    let field = |rule: &String, name: &String| {
        let Some(alias) = sigma.aliases.iter().find(|alias| alias.alias == *name) else {
            return Ok(name.clone());
        };
        alias.mapping.get(rule).cloned().ok_or_else(|| {
            let problem = format!("{name:?} says no field for {rule:?}");
            place.error(key, problem, "give it one for each of the rules")
        })
    };
    let base = |(rule, base): (&String, &&Base)| {
        let fields = sigma.group_by.iter().map(|name| field(rule, name));
        Ok(WindowBase {
            name: rule.clone(),
            matcher: Arc::clone(&base.matcher),
            key: fields.collect::<Result<_, _>>()?,
        })
    };
    sigma.rules.iter().zip(named).map(base).collect()
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
    if let Some(counted) = temporal(sigma.correlation_type) {
        return Ok((counted, all_of(place, sigma, predicates)?));
    }
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

/// What the same window must hold besides.
fn also(place: Place<'_>, document: &Document, counted: &Counted) -> Result<Vec<Also>, RuleError> {
    let lines = &document.own.also;
    let fits = matches!(counted, Counted::Values(_)) && lines.len() <= KEY_FIELDS_MAX;
    if !lines.is_empty() && !fits {
        let help = format!("write at most {KEY_FIELDS_MAX} lines, into a value_count");
        return Err(place.error("also", "it counts further values of a value_count", help));
    }
    let also = |line: &AlsoKey| match line.gte {
        0 => Err(place.error("also.gte", "0 is always met", "write 1 or more")),
        least => Ok(Also {
            field: line.field.clone(),
            least,
        }),
    };
    lines.iter().map(also).collect()
}

fn temporal(kind: CorrelationType) -> Option<Counted> {
    match kind {
        CorrelationType::Temporal => Some(Counted::Bases),
        CorrelationType::TemporalOrdered => Some(Counted::Chain),
        _ => None,
    }
}

/// How many of the bases must have matched. Without a condition the parser says at least one, which
/// would be met by any event; Sigma means all of them.
fn all_of(
    place: Place<'_>,
    sigma: &CorrelationRule,
    predicates: &[(ConditionOperator, u64)],
) -> Result<u64, RuleError> {
    let key = "correlation.condition";
    let all = sigma.rules.len() as u64;
    if all < 2 {
        let help = "name two rules or more, or use event_count";
        return Err(place.error("correlation.rules", "there is but one", help));
    }
    let some_will_do = sigma.correlation_type == CorrelationType::Temporal;
    match predicates {
        [(ConditionOperator::Gte, least)] if *least <= 1 || *least == all => Ok(all),
        [(ConditionOperator::Gte, least)] if some_will_do && *least < all => Ok(*least),
        _ => {
            let help = format!("remove it, or write {{ gte: {all} }} or, of temporal, less");
            Err(place.error(key, "only `gte` up to the number of rules is run", help))
        }
    }
}

fn tiers(
    place: Place<'_>,
    document: &Document,
    sigma: &CorrelationRule,
    level: Severity,
    threshold: u64,
) -> Result<Vec<Tier>, RuleError> {
    let span = span_ms(place, "correlation.timespan", &sigma.timespan.original)?;
    let of_own = document.own.above.as_ref();
    let mut tiers = vec![Tier {
        span_ms: span,
        threshold,
        level,
        above: of_own.map(|key| usual::above(place, key)).transpose()?,
    }];
    tiers.extend(further_tiers(place, &document.own.tiers)?);
    if tiers.len() > TIERS_MAX {
        let problem = format!("there are more than {TIERS_MAX}");
        return Err(place.error("tiers", problem, "remove some"));
    }
    tiers.sort_by_key(|tier| (std::cmp::Reverse(tier.level), tier.span_ms));
    Ok(tiers)
}

/// The lines of `tiers`, highest level first.
pub(super) fn further_tiers(place: Place<'_>, lines: &[TierKey]) -> Result<Vec<Tier>, RuleError> {
    let tier = |line: &TierKey| {
        if line.gte == 0 {
            return Err(place.error("tiers", "a threshold of 0 is always met", "write 1 or more"));
        }
        Ok(Tier {
            span_ms: span_ms(place, "tiers.timespan", &line.timespan)?,
            threshold: line.gte,
            level: line.level,
            above: line
                .above
                .as_ref()
                .map(|key| usual::above(place, key))
                .transpose()?,
        })
    };
    let mut tiers: Vec<Tier> = lines.iter().map(tier).collect::<Result<_, _>>()?;
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

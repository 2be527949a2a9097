//! From the documents of rule files to rules: references resolved, everything compiled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use exfilwatch_model::{Product, RuleFacts, Severity, field};
use rsigma_parser::{CorrelationRule, Level, SigmaRule};

use super::error::{Place, RuleError};
use super::facts::{Metadata, facts};
use super::interest;
use super::need::Need;
use super::rule::{Alert, Kind, Layout, Rule, SHIFTS_MAX, Shift};
use super::rule_file::{Document, RuleFile, Sigma, product};
use super::schema::{IdentityKey, IdentityMap, IncidentKey, OwnKeys, ShiftKey};
use super::set::Skipped;
use super::template::Template;
use super::tuned::Tuned;
use super::{usual, window_rule};
use crate::contract::Interest;
use crate::engine::sigma::Matcher;

/// Most fields kept of an event for a rule.
const KEPT_FIELDS_MAX: usize = 32;
/// Longest period or window, in days: beyond it state would never be forgotten.
pub(crate) const SPAN_DAYS_MAX: i64 = 90;

/// What was built.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) rules: Vec<Rule>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Builds the rules of all files.
pub(crate) fn build(files: &[RuleFile]) -> Result<Built, RuleError> {
    let bases = bases(files)?;
    let referenced = referenced(files);
    let mut built = Built::default();
    for file in files {
        for document in &file.documents {
            let place = Place {
                file: &file.name,
                document: document.number,
            };
            if let Some(reason) = never(document, &bases) {
                built.skipped.push(Skipped {
                    file: file.name.clone(),
                    title: document.title().to_owned(),
                    reason,
                });
                continue;
            }
            match &document.sigma {
                Sigma::Rule(rule) => match product(&rule.logsource) {
                    Err(reason) if document.is_own => {
                        return Err(place.error(
                            "logsource",
                            reason,
                            "write m365 or google_workspace",
                        ));
                    }
                    Err(reason) => built.skipped.push(Skipped {
                        file: file.name.clone(),
                        title: rule.title.clone(),
                        reason,
                    }),
                    Ok(product) => {
                        if !is_base(document, &referenced) {
                            built
                                .rules
                                .push(single(place, file, document, rule, product)?);
                        }
                    }
                },
                Sigma::Correlation(correlation) => {
                    built
                        .rules
                        .push(window(place, file, document, correlation, &bases)?);
                }
            }
        }
    }
    Ok(built)
}

/// Why a stock rule can never match: what it names is not there, or what it counts never matches.
fn never(document: &Document, bases: &HashMap<String, Base>) -> Option<String> {
    if let Some(reason) = &document.mapping.never {
        return Some(reason.clone());
    }
    match &document.sigma {
        Sigma::Correlation(correlation) if !document.is_own => {
            let missing = correlation
                .rules
                .iter()
                .find(|name| !bases.contains_key(*name))?;
            Some(format!(
                "its rule {missing} is not there or can never match"
            ))
        }
        _ => None,
    }
}

/// A base rule, compiled for the correlations that name it.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) matcher: Arc<Matcher>,
    pub(crate) interest: Interest,
    pub(crate) product: Product,
    pub(crate) service: Option<String>,
    pub(crate) fields: Vec<String>,
}

/// All single-record rules that a correlation names, by name and by id.
fn bases(files: &[RuleFile]) -> Result<HashMap<String, Base>, RuleError> {
    let referenced = referenced(files);
    let mut bases = HashMap::new();
    for file in files {
        for document in &file.documents {
            let (id, name) = (document.id.to_string(), document.name.as_str());
            let Sigma::Rule(rule) = &document.sigma else {
                continue;
            };
            let (true, Ok(product)) = (
                document.mapping.never.is_none()
                    && (referenced.contains(name) || referenced.contains(id.as_str())),
                product(&rule.logsource),
            ) else {
                continue;
            };
            let place = Place {
                file: &file.name,
                document: document.number,
            };
            let base = Base {
                matcher: Arc::new(compiled(place, rule)?),
                interest: Interest {
                    product: Some(product),
                    operations: interest::operations(rule),
                    need: Need::of(rule),
                },
                product,
                service: rule.logsource.service.clone(),
                fields: interest::positive_fields(rule),
            };
            bases.insert(name.to_owned(), base.clone());
            bases.insert(id, base);
        }
    }
    Ok(bases)
}

fn referenced(files: &[RuleFile]) -> HashSet<&str> {
    let documents = files.iter().flat_map(|file| &file.documents);
    let named = documents.filter_map(|document| match &document.sigma {
        Sigma::Correlation(correlation) => Some(correlation.rules.iter().map(String::as_str)),
        Sigma::Rule(_) => None,
    });
    named.flatten().collect()
}

/// A base rule raises nothing itself, unless it says how.
fn is_base(document: &Document, referenced: &HashSet<&str>) -> bool {
    let is_named = referenced.contains(document.name.as_str())
        || referenced.contains(document.id.to_string().as_str());
    is_named && document.own.alert.is_none()
}

fn compiled(place: Place<'_>, rule: &SigmaRule) -> Result<Matcher, RuleError> {
    if let Some(name) = interest::missing_selection(rule) {
        let problem = format!("no selection is named {name:?}");
        return Err(place.error("detection.condition", problem, "name one that is there"));
    }
    Matcher::new(rule)
        .map_err(|problem| place.error("detection", problem, "see the Sigma specification"))
}

fn single(
    place: Place<'_>,
    file: &RuleFile,
    document: &Document,
    sigma: &SigmaRule,
    product: Product,
) -> Result<Rule, RuleError> {
    if !document.own.tiers.is_empty() {
        return Err(place.error("tiers", "only a correlation has tiers", "remove it"));
    }
    if sigma.detection.timeframe.is_some() {
        let help = "write a correlation document";
        return Err(place.error("detection.timeframe", "it is not read", help));
    }
    let identity = identity(place, &document.own)?;
    let period_ms = match identity.per.as_deref() {
        Some(per) => Some(span_ms(place, "identity.per", per)?),
        None => None,
    };
    if period_ms.is_some() && identity.fields.is_empty() {
        let help = "add `fields`, or remove `per`";
        return Err(place.error("identity", "a period needs fields", help));
    }
    if document.own.above.is_some() {
        let help = "write a correlation document";
        return Err(place.error("above", "only a correlation counts", help));
    }
    if let Some(key) = &document.own.incident_of {
        return incident(place, file, document, sigma, product, key);
    }
    let first_seen = document.own.first_seen.as_ref();
    let kind = Kind::Single {
        matcher: Arc::new(compiled(place, sigma)?),
        fields: identity.fields.clone(),
        period_ms,
        first_seen: first_seen
            .map(|key| usual::first_seen(place, key))
            .transpose()?,
    };
    // What is to be new must be there.
    let new = first_seen.iter().flat_map(|key| &key.fields);
    let interests = vec![Interest {
        product: Some(product),
        operations: interest::operations(sigma),
        need: Need::of(sigma).and(Need::fields(new)),
    }];
    let parts = Parts {
        facts: facts(file, document, product, Metadata::of_rule(sigma)),
        status: sigma
            .status
            .map(|status| format!("{status:?}").to_lowercase()),
        service: sigma.logsource.service.clone(),
        level: sigma.level.map_or(Severity::Medium, severity),
        entity: identity.entity.unwrap_or_else(|| field::ACTOR.to_owned()),
        entity_type: identity.entity_type.unwrap_or_else(|| "user".to_owned()),
        kind,
        own_threshold: None,
        interests,
        matched: interest::positive_fields(sigma),
    };
    finish(place, file, document, parts)
}

/// A rule over the findings of the others. Its selections are not looked at; Sigma wants some.
fn incident(
    place: Place<'_>,
    file: &RuleFile,
    document: &Document,
    sigma: &SigmaRule,
    product: Product,
    key: &IncidentKey,
) -> Result<Rule, RuleError> {
    let tiers = window_rule::further_tiers(place, &key.person)?;
    let longest = tiers.iter().map(|tier| tier.span_ms).max();
    let Some(period_ms) = longest else {
        let help = "write person: [{ timespan: 24h, gte: 80, level: high }]";
        return Err(place.error("incident_of", "it names no span", help));
    };
    let parts = Parts {
        facts: facts(file, document, product, Metadata::of_rule(sigma)),
        status: sigma
            .status
            .map(|status| format!("{status:?}").to_lowercase()),
        service: None,
        level: tiers
            .iter()
            .map(|t| t.level)
            .max()
            .unwrap_or(Severity::Medium),
        entity: field::ACTOR.to_owned(),
        entity_type: "user".to_owned(),
        own_threshold: tiers.last().map(|tier| tier.threshold),
        kind: Kind::Incident { tiers, period_ms },
        interests: Vec::new(),
        matched: Vec::new(),
    };
    finish(place, file, document, parts)
}

fn window(
    place: Place<'_>,
    file: &RuleFile,
    document: &Document,
    sigma: &CorrelationRule,
    bases: &HashMap<String, Base>,
) -> Result<Rule, RuleError> {
    let identity = identity(place, &document.own)?;
    if identity.per.is_some() || !identity.fields.is_empty() {
        let help = "the key is `group-by` and the period follows from the timespan; remove it";
        return Err(place.error("identity", "a window rule has no fields and no `per`", help));
    }
    if document.own.first_seen.is_some() {
        let help = "write a rule without a correlation";
        return Err(place.error("first_seen", "a correlation does not read it", help));
    }
    let level = sigma.level.map_or(Severity::Medium, severity);
    let window = window_rule::window(place, document, sigma, level, bases)?;
    let entity = identity
        .entity
        .unwrap_or_else(|| window.group_by.first().cloned().unwrap_or_default());
    if !window.group_by.contains(&entity) {
        let help = "name one of the group-by fields";
        return Err(place.error(
            "identity.entity",
            format!("{entity:?} is not in group-by"),
            help,
        ));
    }
    let parts = Parts {
        facts: facts(
            file,
            document,
            window.product,
            Metadata::of_correlation(sigma),
        ),
        status: sigma
            .status
            .map(|status| format!("{status:?}").to_lowercase()),
        service: window.service,
        level,
        entity,
        entity_type: identity.entity_type.unwrap_or_else(|| "user".to_owned()),
        interests: window.interests,
        matched: window.matched,
        own_threshold: window.own_threshold,
        kind: Kind::Window {
            bases: window.bases,
            group_by: window.group_by,
            counted: window.counted,
            also: window.also,
            tiers: window.tiers,
            period_ms: window.period_ms,
        },
    };
    finish(place, file, document, parts)
}

/// What differs between the two sorts of rule.
struct Parts {
    facts: RuleFacts,
    status: Option<String>,
    service: Option<String>,
    level: Severity,
    entity: String,
    entity_type: String,
    kind: Kind,
    own_threshold: Option<u64>,
    interests: Vec<Interest>,
    matched: Vec<String>,
}

fn finish(
    place: Place<'_>,
    file: &RuleFile,
    document: &Document,
    parts: Parts,
) -> Result<Rule, RuleError> {
    let own = &document.own;
    let risk = own.risk.unwrap_or_else(|| default_risk(parts.level));
    if risk > 100 {
        return Err(place.error("risk", format!("{risk} is above 100"), "write 0 to 100"));
    }
    let text = own.message.as_deref().unwrap_or("{actor}: {operation}");
    let message = Template::new(text).map_err(|problem| {
        place.error(
            "message",
            problem,
            "write {field}, {count}, {count:field}, {threshold} or {window}",
        )
    })?;
    let mut rule = Rule {
        facts: Arc::new(parts.facts),
        file: file.name.clone(),
        status: parts.status,
        service: parts.service,
        level: parts.level,
        risk,
        entity_type: parts.entity_type,
        entity: parts.entity,
        alert: alert(place, own)?,
        pack: own.pack,
        tuned: Tuned::default(),
        own_threshold: parts.own_threshold,
        kind: parts.kind,
        interests: parts.interests,
        tests: own.tests.clone().into(),
        is_own: document.is_own,
        raise: shifts(place, "raise", &own.raise)?,
        lower: shifts(place, "lower", &own.lower)?,
        incident: own.incident.clone(),
        supersedes: own.supersedes.clone(),
        equivalents: own.equivalents.clone(),
        message,
        distinct: own.distinct.clone(),
        matched: parts.matched,
        layout: Layout::default(),
    };
    let kept = rule.kept_fields();
    if kept.len() > KEPT_FIELDS_MAX {
        let problem = format!(
            "the rule names {} fields, more than {KEPT_FIELDS_MAX}",
            kept.len()
        );
        return Err(place.error(
            "distinct",
            problem,
            "name fewer in distinct, message and detection",
        ));
    }
    rule.layout = Layout::new(kept, fingerprint(&rule, own));
    Ok(rule)
}

/// Of what is kept and what the flags mean. Text of `Debug` will do: a changed fingerprint only
/// means that stored entries of the rule are let go.
fn fingerprint(rule: &Rule, own: &OwnKeys) -> u32 {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher13::new();
    let text = format!(
        "{:?}{:?}{:?}{:?}{:?}",
        rule.kept_fields(),
        own.alert,
        own.raise,
        own.lower,
        match &rule.kind {
            Kind::Incident { .. } => String::new(),
            Kind::Single {
                fields,
                period_ms,
                first_seen,
                ..
            } => {
                let new = first_seen.as_ref().map_or(&[][..], |new| &new.fields);
                let told = own.first_seen.as_ref().and_then(|new| new.told.as_ref());
                let told = told.map(|told| format!("{told:?}")).unwrap_or_default();
                format!("{fields:?}{period_ms:?}{new:?}{told}")
            }
            Kind::Window { bases, counted, .. } => {
                let bases: Vec<_> = bases.iter().map(|base| (&base.name, &base.key)).collect();
                format!("{bases:?}{counted:?}")
            }
        }
    );
    hasher.write(text.as_bytes());
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

fn alert(place: Place<'_>, own: &OwnKeys) -> Result<Alert, RuleError> {
    match &own.alert {
        None => Ok(Alert::Fixed(true)),
        Some(yaml_serde::Value::Bool(alert)) => Ok(Alert::Fixed(*alert)),
        Some(selection) => Matcher::of_selection(selection)
            .map(|matcher| Alert::When(Arc::new(matcher)))
            .map_err(|problem| place.error("alert", problem, "write true, false or a selection")),
    }
}

fn shifts(place: Place<'_>, key: &str, lines: &[ShiftKey]) -> Result<Vec<Shift>, RuleError> {
    if lines.len() > SHIFTS_MAX {
        let problem = format!("it has more than {SHIFTS_MAX} lines");
        return Err(place.error(
            key,
            problem,
            "join lines of one level into a list of selections",
        ));
    }
    let shift = |line: &ShiftKey| {
        let when = Matcher::of_selection(&line.when).map_err(|problem| {
            place.error(
                key,
                problem,
                "`when` is a Sigma selection: a map, or a list of maps",
            )
        })?;
        Ok(Shift {
            level: line.level,
            when: Arc::new(when),
        })
    };
    lines.iter().map(shift).collect()
}

/// The parts of an `identity`.
fn identity(place: Place<'_>, own: &OwnKeys) -> Result<IdentityMap, RuleError> {
    match &own.identity {
        None => Ok(IdentityMap::default()),
        Some(IdentityKey::Word(word)) if word == "record" => Ok(IdentityMap::default()),
        Some(IdentityKey::Word(word)) => Err(place.error(
            "identity",
            format!("{word:?} is not known"),
            "write `record`, or a map with entity, entity_type, fields, per",
        )),
        Some(IdentityKey::Map(map)) => Ok(IdentityMap {
            entity: map.entity.clone(),
            entity_type: map.entity_type.clone(),
            fields: map.fields.clone(),
            per: map.per.clone(),
        }),
    }
}

/// A length of time such as `24h`, in milliseconds.
pub(crate) fn span_ms(place: Place<'_>, key: &str, text: &str) -> Result<i64, RuleError> {
    let help = format!("write a length such as 30m, 24h or 7d, at most {SPAN_DAYS_MAX} days");
    let span = rsigma_parser::Timespan::parse(text)
        .map_err(|error| place.error(key, error.to_string(), help.clone()))?;
    match i64::try_from(span.seconds) {
        Ok(seconds) if (1..=SPAN_DAYS_MAX * 86_400).contains(&seconds) => Ok(seconds * 1_000),
        _ => Err(place.error(key, format!("{text:?} is too long or nothing"), help)),
    }
}

pub(crate) fn severity(level: Level) -> Severity {
    match level {
        Level::Informational => Severity::Informational,
        Level::Low => Severity::Low,
        Level::Medium => Severity::Medium,
        Level::High => Severity::High,
        Level::Critical => Severity::Critical,
    }
}

/// Risk of a rule that names none.
fn default_risk(level: Severity) -> u8 {
    match level {
        Severity::Informational => 5,
        Severity::Low => 20,
        Severity::Medium => 40,
        Severity::High => 60,
        Severity::Critical => 80,
    }
}

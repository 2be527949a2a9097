//! Rules as a tenant wants them: the shared rules, with what the tenant says of them laid over.
//!
//! Only rules that change are copied. What a rule remembers of events does not depend on it, so that
//! tuning may change while windows are open.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use exfilwatch_model::identity::normal_entity;
use exfilwatch_model::{Severity, Suppression};

use super::rule::{Kind, Rule, Tier};
use super::set::RuleSet;
use crate::engine::{SEPARATOR, View};
use crate::tuning::{EXCEPTIONS_MAX, ExceptionOptions, RuleMode, RuleTuning, Tuning};
use exfilwatch_model::Pattern;

/// What a tenant has made of a rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tuned {
    /// Its pack is not switched on: whatever `alert` says, its findings are signals.
    pub(crate) is_quiet: bool,
    /// It runs to be counted only.
    pub(crate) is_shadow: bool,
    /// The severity of all its findings.
    pub(crate) severity: Option<Severity>,
    pub(crate) exceptions: Vec<Exception>,
}

/// An exception, for one rule.
#[derive(Debug, Clone)]
pub(crate) struct Exception {
    name: String,
    last_day: NaiveDate,
    fields: Vec<(String, Vec<Pattern>)>,
}

impl Exception {
    fn holds(&self, at: DateTime<Utc>, mut value: impl FnMut(&str) -> Option<String>) -> bool {
        at.date_naive() <= self.last_day
            && self.fields.iter().all(|(field, patterns)| {
                value(field).is_some_and(|text| {
                    let mut parts = text.split(SEPARATOR);
                    parts.all(|part| {
                        let part = normal_entity(part);
                        patterns.iter().any(|pattern| pattern.matches(&part))
                    })
                })
            })
    }
}

impl Rule {
    /// What keeps a finding from alerting, by its events; the last of them was at `last`.
    pub(crate) fn suppression(
        &self,
        would_alert: bool,
        views: &[View<'_>],
        last: DateTime<Utc>,
    ) -> Option<Suppression> {
        let value = |view: &View<'_>, field: &str| {
            let text = view.whole_field(self.layout.place(field)?)?;
            Some(text.to_owned())
        };
        let holds = |exception: &Exception, view: &View<'_>| {
            exception.holds(last, |field| value(view, field))
        };
        self.suppressed(would_alert, |one| views.iter().all(|view| holds(one, view)))
    }

    /// The same for a rule that sees no events.
    pub(crate) fn suppression_of(
        &self,
        would_alert: bool,
        entity: &str,
        last: DateTime<Utc>,
    ) -> Option<Suppression> {
        self.suppressed(would_alert, |one| {
            one.holds(last, |_| Some(entity.to_owned()))
        })
    }

    /// A signal needs nothing to keep it from alerting; that it is agreed is said all the same.
    fn suppressed(
        &self,
        would_alert: bool,
        holds: impl Fn(&Exception) -> bool,
    ) -> Option<Suppression> {
        if self.tuned.is_shadow {
            return would_alert.then_some(Suppression::Shadow);
        }
        let exception = self.tuned.exceptions.iter().find(|one| holds(one))?;
        Some(Suppression::Exception(exception.name.clone()))
    }

    /// Whether an exception may name the field: it is kept of each event.
    fn keeps(&self, field: &str) -> bool {
        match self.kind {
            Kind::Incident { .. } => self.entity == field,
            Kind::Single { .. } | Kind::Window { .. } => self.layout.place(field).is_some(),
        }
    }

    fn tiers_mut(&mut self) -> &mut [Tier] {
        match &mut self.kind {
            Kind::Window { tiers, .. } | Kind::Incident { tiers, .. } => tiers,
            Kind::Single { .. } => &mut [],
        }
    }

    fn set_threshold(&mut self, threshold: u64) {
        let Some(own) = self.own_threshold else {
            return;
        };
        for tier in self.tiers_mut() {
            let scaled = u128::from(tier.threshold) * u128::from(threshold);
            let scaled = scaled.div_ceil(u128::from(own.max(1)));
            tier.threshold = u64::try_from(scaled).unwrap_or(u64::MAX).max(1);
        }
        self.own_threshold = Some(threshold);
    }
}

impl RuleSet {
    /// The same rules as a tenant wants them, or everything that is wrong with what it says.
    /// `others` are names of detections that no rule makes.
    pub fn tuned(&self, tuning: &Tuning, others: &[&str]) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let exceptions = compiled(&tuning.exceptions, &mut problems);
        for (text, change) in tuning.all.iter().chain(&tuning.own) {
            problems.extend(self.fault_of(text, change, others));
        }
        for (options, detection, _) in &exceptions {
            problems.extend(self.fault_of_exception(options, detection));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut rules = Vec::new();
        for rule in self.rules() {
            let name = rule.facts.detection.to_lowercase();
            let change = tuning.of(&name);
            if change.mode == Some(RuleMode::Off) {
                continue;
            }
            let excepted = exceptions
                .iter()
                .filter(|(_, detection, _)| detection.matches(&name))
                .filter(|(_, _, one)| one.fields.iter().all(|(field, _)| rule.keeps(field)));
            let tuned = Tuned {
                is_quiet: change.mode != Some(RuleMode::Alert)
                    && !tuning.packs.contains(&rule.pack),
                is_shadow: change.mode == Some(RuleMode::Shadow),
                severity: change.severity,
                exceptions: excepted.map(|(_, _, one)| one.clone()).collect(),
            };
            rules.push(changed(rule, tuned, change.threshold));
        }
        Ok(self.with_rules(rules))
    }

    fn fault_of(&self, text: &str, change: &RuleTuning, others: &[&str]) -> Option<String> {
        let pattern = Pattern::new(text);
        let named: Vec<&Arc<Rule>> = self.named(&pattern).collect();
        if named.is_empty() {
            let is_other = others.iter().any(|other| pattern.matches(other));
            return (!is_other).then(|| {
                format!("no rule is called `{text}`: exfilwatch rules list names them all")
            });
        }
        let counts = named.iter().any(|rule| rule.own_threshold.is_some());
        match change.threshold {
            Some(0) => Some(format!(
                "the threshold of `{text}` is 0, which is always met"
            )),
            Some(_) if !counts => Some(format!("`{text}` has no threshold: it counts nothing")),
            _ => None,
        }
    }

    fn fault_of_exception(
        &self,
        options: &ExceptionOptions,
        detection: &Pattern,
    ) -> Option<String> {
        let name = &options.name;
        let named: Vec<&Arc<Rule>> = self.named(detection).collect();
        let Some(first) = named.first() else {
            let detection = &options.detection;
            return Some(format!(
                "exception `{name}`: no rule is called `{detection}`"
            ));
        };
        let keeps_all = |rule: &&Arc<Rule>| options.fields.keys().all(|field| rule.keeps(field));
        if named.iter().any(keeps_all) {
            return None;
        }
        let missing = options.fields.keys().find(|field| !first.keeps(field));
        let kept = match first.kind {
            Kind::Incident { .. } => first.entity.clone(),
            Kind::Single { .. } | Kind::Window { .. } => first.layout.fields().join(", "),
        };
        let field = missing.map_or("", String::as_str);
        let rule = &first.facts.detection;
        Some(format!(
            "exception `{name}`: {rule} keeps no field `{field}` of its events; it keeps {kept}"
        ))
    }

    fn named<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = &'a Arc<Rule>> {
        let rules = self.rules().iter();
        rules.filter(move |rule| pattern.matches(&rule.facts.detection.to_lowercase()))
    }
}

/// The rule, copied where it changes.
fn changed(rule: &Arc<Rule>, tuned: Tuned, threshold: Option<u64>) -> Arc<Rule> {
    let is_plain = !tuned.is_shadow
        && tuned.severity.is_none()
        && tuned.exceptions.is_empty()
        && threshold.is_none();
    if is_plain && tuned.is_quiet == rule.tuned.is_quiet {
        return Arc::clone(rule);
    }
    let mut rule = Rule::clone(rule);
    rule.tuned = tuned;
    if let Some(threshold) = threshold {
        rule.set_threshold(threshold);
    }
    Arc::new(rule)
}

type Compiled<'a> = (&'a ExceptionOptions, Pattern, Exception);

fn compiled<'a>(all: &'a [ExceptionOptions], problems: &mut Vec<String>) -> Vec<Compiled<'a>> {
    if all.len() > EXCEPTIONS_MAX {
        problems.push(format!("there are more than {EXCEPTIONS_MAX} exceptions"));
        return Vec::new();
    }
    let mut compiled: Vec<Compiled<'_>> = Vec::new();
    for options in all {
        let name = &options.name;
        let mut fault = |what: &str| problems.push(format!("exception `{name}`: {what}"));
        if compiled.iter().any(|(other, ..)| other.name == *name) {
            fault("another has the same name");
        }
        let empty = [
            ("name", name.trim().is_empty()),
            ("owner", options.owner.trim().is_empty()),
            ("reason", options.reason.trim().is_empty()),
        ];
        for (key, _) in empty.into_iter().filter(|(_, is_empty)| *is_empty) {
            fault(&format!("`{key}` is empty"));
        }
        if options
            .fields
            .values()
            .all(|values| values.values().is_empty())
        {
            fault("it names no field: to switch a rule off write mode = \"off\"");
        }
        let Some(last_day) = options.last_day() else {
            fault("`until` is no date such as 2026-12-31");
            continue;
        };
        let patterns = |(field, values): (&String, &crate::tuning::OneOrMore)| {
            let patterns = values.values().iter().map(|text| Pattern::new(text.trim()));
            (field.clone(), patterns.collect())
        };
        let exception = Exception {
            name: name.clone(),
            last_day,
            fields: options.fields.iter().map(patterns).collect(),
        };
        compiled.push((options, Pattern::new(&options.detection), exception));
    }
    compiled
}

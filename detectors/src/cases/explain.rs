//! Why a case did not come out: from what the rule wants and what its events have.

use std::collections::BTreeMap;

use exfilwatch_model::{Event, Finding, field};

use super::Seen;
use crate::engine::explain::{Tried, TriedField};
use crate::engine::sigma::Matcher;
use crate::rules::{Alert, Counted, Expectation, Kind, Pattern, Rule};

/// Most reasons of one sort.
const REASONS_MAX: usize = 3;

/// The reasons, a sentence each.
pub(super) fn reasons(
    rule: &Rule,
    expect: &Expectation,
    found: &[Finding],
    events: &[Seen],
) -> Vec<String> {
    if events.is_empty() {
        return vec!["the case has no records that give an event".to_owned()];
    }
    let mut reasons = Vec::new();
    if found.len() < expect.findings {
        reasons.extend(too_few(rule, events));
    } else if found.len() > expect.findings {
        reasons.extend(too_many(rule, events));
    }
    if expect
        .severity
        .is_some_and(|s| found.iter().any(|f| f.severity != s))
    {
        reasons.extend(severity(rule, events));
    }
    if expect
        .alert
        .is_some_and(|a| found.iter().any(|f| f.alert != a))
    {
        reasons.extend(alert(rule, events));
    }
    reasons
}

/// The matchers of a rule, each with the name of its base where it has one.
fn matchers(rule: &Rule) -> Vec<(Option<&str>, &Matcher)> {
    match &rule.kind {
        Kind::Single { matcher, .. } => vec![(None, matcher)],
        Kind::Window { bases, .. } => bases
            .iter()
            .map(|base| (Some(base.name.as_str()), &*base.matcher))
            .collect(),
        Kind::Incident { .. } => Vec::new(),
    }
}

fn matches(rule: &Rule, event: &Event) -> bool {
    matchers(rule)
        .iter()
        .any(|(_, matcher)| matcher.matches(event))
}

fn too_few(rule: &Rule, events: &[Seen]) -> Vec<String> {
    if matches!(rule.kind, Kind::Incident { .. }) {
        let text = "an incident needs findings of other rules about one person: two families, whose \
                    tactics differ, of two records; exfilwatch replay shows what the others say of \
                    these records";
        return vec![text.to_owned()];
    }
    let matching: Vec<&Seen> = events
        .iter()
        .filter(|seen| matches(rule, &seen.event))
        .collect();
    if matching.is_empty() {
        return unmatched(rule, events);
    }
    let mut reasons = vec![format!(
        "{} of {} events match",
        matching.len(),
        events.len()
    )];
    match &rule.kind {
        Kind::Single {
            fields, first_seen, ..
        } => {
            if !fields.is_empty() {
                reasons.push(format!(
                    "events with the same {} are one finding: {}",
                    fields.join(", "),
                    shares(fields, &matching)
                ));
            }
            if let Some(first) = first_seen {
                reasons.push(format!(
                    "first_seen: only new values of {} count, and none in the first {} h after the \
                     earliest of these events",
                    first.fields.join(", "),
                    first.learn_ms / 3_600_000
                ));
            }
        }
        Kind::Window {
            bases,
            counted,
            tiers,
            ..
        } => {
            if let (Some(base), Some(tier)) = (bases.first(), tiers.last()) {
                let what = match counted {
                    Counted::Events => "events".to_owned(),
                    Counted::Values(fields) => format!("distinct {}", fields.join(" and ")),
                    Counted::Bases | Counted::Chain => "of the rules".to_owned(),
                };
                reasons.push(format!(
                    "the window wants {} {what} within {} min for one {}: {}",
                    tier.threshold,
                    tier.span_ms / 60_000,
                    base.key.join(", "),
                    shares(&base.key, &matching)
                ));
            }
            if tiers.iter().any(|tier| tier.above.is_some()) {
                let text = "above: it must be more than before as well, and nothing is said in the \
                            learning time after the earliest event";
                reasons.push(text.to_owned());
            }
            let unmet = matchers(rule)
                .into_iter()
                .filter(|(_, matcher)| !events.iter().any(|seen| matcher.matches(&seen.event)));
            if matches!(counted, Counted::Bases | Counted::Chain) {
                let named = unmet.filter_map(|(name, _)| name);
                reasons.extend(named.map(|name| format!("no event matches {name}")));
            }
        }
        Kind::Incident { .. } => {}
    }
    reasons
}

/// How many of the events have which values of some fields.
fn shares(fields: &[String], matching: &[&Seen]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for seen in matching {
        let value = |name: &String| match seen.event.text(name) {
            Some(text) => text.into_owned(),
            None => format!("(no {name})"),
        };
        let values: Vec<String> = fields.iter().map(value).collect();
        *counts.entry(values.join(" + ")).or_default() += 1;
    }
    let more = counts.len().saturating_sub(REASONS_MAX);
    let shown = counts.iter().take(REASONS_MAX);
    let mut parts: Vec<String> = shown
        .map(|(value, n)| format!("{value} {n} events"))
        .collect();
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    parts.join("; ")
}

/// No event matches: what stands in the way of those that come nearest.
fn unmatched(rule: &Rule, events: &[Seen]) -> Vec<String> {
    let mut near: Vec<(usize, String)> = Vec::new();
    for seen in events.iter().take(100) {
        let operation = seen.event.text(field::OPERATION).unwrap_or_default();
        if let Some(reason) = not_asked(rule, &operation) {
            near.push((
                usize::MAX,
                format!("record {} ({operation}): {reason}", seen.record),
            ));
            continue;
        }
        for (base, matcher) in matchers(rule) {
            let tried = matcher.explain(&seen.event);
            let failing = tried.iter().filter(|one| one.is_in_the_way());
            let failing: Vec<&Tried> = failing.collect();
            let texts: Vec<String> = failing.iter().map(|one| in_the_way(one)).collect();
            let of = base.map_or_else(String::new, |base| format!(", rule {base}"));
            near.push((
                failing.iter().map(|one| unheld(one).count().max(1)).sum(),
                format!(
                    "record {} ({operation}){of}: {}",
                    seen.record,
                    texts.join("; ")
                ),
            ));
        }
    }
    // Of equally near ones the first records, by number and not by text.
    near.sort_by_key(|(far, _)| *far);
    let mut reasons = vec!["no event matches".to_owned()];
    reasons.extend(near.into_iter().take(REASONS_MAX).map(|(_, text)| text));
    reasons
}

/// The rule is not even asked about the operation.
fn not_asked(rule: &Rule, operation: &str) -> Option<String> {
    let lower = operation.to_lowercase();
    let names = rule
        .interests
        .iter()
        .flat_map(|interest| &interest.operations);
    let names: Vec<&str> = names.map(String::as_str).collect();
    let wants_all = rule
        .interests
        .iter()
        .any(|interest| interest.operations.is_empty());
    let is_named = names.iter().any(|name| Pattern::new(name).matches(&lower));
    (!wants_all && !is_named).then(|| {
        let shown: Vec<&str> = names.iter().take(8).copied().collect();
        let field = "operation";
        format!(
            "{field} has {operation:?}, wanted one of {}",
            shown.join(", ")
        )
    })
}

fn unheld(tried: &Tried) -> impl Iterator<Item = &TriedField> {
    tried.fields.iter().filter(|field| !field.holds)
}

fn in_the_way(tried: &Tried) -> String {
    let name = &tried.selection;
    if tried.is_negated {
        let fields: Vec<String> = tried.fields.iter().map(has).collect();
        return format!(
            "{name} holds, and the condition says not: {}",
            fields.join(", ")
        );
    }
    let wanted =
        |field: &TriedField| format!("{} wanted {}, has {}", field.field, field.wanted, field.has);
    let fields: Vec<String> = unheld(tried).map(wanted).collect();
    format!("{name} does not hold: {}", fields.join(", "))
}

fn has(field: &TriedField) -> String {
    format!("{} has {}", field.field, field.has)
}

/// What made the rule match after all.
fn too_many(rule: &Rule, events: &[Seen]) -> Vec<String> {
    let mut reasons = Vec::new();
    for seen in events {
        for (_, matcher) in matchers(rule) {
            if reasons.len() < REASONS_MAX && matcher.matches(&seen.event) {
                let tried = matcher.explain(&seen.event);
                let holding = tried.iter().filter(|one| one.holds && !one.is_negated);
                let texts: Vec<String> = holding
                    .map(|one| {
                        let fields: Vec<String> = one.fields.iter().map(has).collect();
                        format!("{} holds: {}", one.selection, fields.join(", "))
                    })
                    .collect();
                reasons.push(format!(
                    "record {} matches: {}",
                    seen.record,
                    texts.join("; ")
                ));
            }
        }
    }
    reasons
}

/// Which lines of `raise` and `lower` hold.
fn severity(rule: &Rule, events: &[Seen]) -> Vec<String> {
    let matching: Vec<&Seen> = events
        .iter()
        .filter(|seen| matches(rule, &seen.event))
        .collect();
    let level = rule.level.as_str();
    let mut reasons = vec![format!("the level of the rule is {level}")];
    for (key, shifts) in [("raise", &rule.raise), ("lower", &rule.lower)] {
        for (shift, number) in shifts.iter().zip(1..) {
            let holding = matching
                .iter()
                .filter(|seen| shift.when.matches(&seen.event))
                .count();
            let (all, to) = (matching.len(), shift.level.as_str());
            let mut text = format!("{key} {number}, to {to}: {holding} of {all} events");
            if let Some(why) = nearest(&shift.when, &matching).filter(|_| holding < all) {
                text.push_str(&format!("; {why}"));
            }
            reasons.push(text);
        }
    }
    if let Kind::Window { tiers, .. } = &rule.kind {
        for tier in tiers {
            let (least, minutes) = (tier.threshold, tier.span_ms / 60_000);
            reasons.push(format!(
                "tier {}: {least} within {minutes} min",
                tier.level.as_str()
            ));
        }
    }
    reasons
}

/// The first event that a selection does not match, and why.
fn nearest(matcher: &Matcher, events: &[&Seen]) -> Option<String> {
    let seen = events.iter().find(|seen| !matcher.matches(&seen.event))?;
    let tried = matcher.explain(&seen.event);
    let fields = tried.iter().flat_map(unheld);
    let texts: Vec<String> = fields
        .map(|field| format!("{} wanted {}, has {}", field.field, field.wanted, field.has))
        .collect();
    Some(format!("record {}: {}", seen.record, texts.join(", ")))
}

fn alert(rule: &Rule, events: &[Seen]) -> Vec<String> {
    match &rule.alert {
        Alert::Fixed(alert) => vec![format!("the rule says alert: {alert}")],
        Alert::When(matcher) => {
            let matching = events.iter().filter(|seen| matches(rule, &seen.event));
            let matching: Vec<&Seen> = matching.collect();
            let holding = matching
                .iter()
                .filter(|seen| matcher.matches(&seen.event))
                .count();
            let mut text = format!("`alert` holds for {holding} of {} events", matching.len());
            if let Some(why) = nearest(matcher, &matching) {
                text.push_str(&format!("; {why}"));
            }
            vec![text]
        }
    }
}

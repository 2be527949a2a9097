//! From entries to a finding: message, values, evidence, ids. Deterministic: entries in, document
//! out.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::finding::{
    DISTINCT_VALUES_MAX, EVENT_IDS_MAX, EVIDENCE_FIRST, EVIDENCE_LAST,
};
use exfilwatch_model::identity::{NAMESPACE, normal_entity};
use exfilwatch_model::{
    Evidence, Finding, JobId, MessagePart, Mode, Product, Provenance, Severity, TenantId, field,
    finding_uid,
};
use uuid::Uuid;

use super::entry::{Entry, SEPARATOR, View};
use super::quotes::Quotes;
use crate::rules::{Counted, Kind, Piece, Rule, Tier};

/// Fields that say whom or what it was done to, the first that is there.
const TARGETS: [&str; 3] = [field::TARGET, field::MAILBOX, field::OBJECT_NAME];
/// Values of a field that a message shows.
const SHOWN_VALUES_MAX: usize = 3;

/// Whose findings these are.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) tenant: TenantId,
    pub(crate) job: JobId,
}

/// What a finding is made of.
#[derive(Debug)]
pub(crate) struct Material<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) scope: &'a Scope,
    pub(crate) quotes: &'a Quotes,
    /// The events that count, by time. Not empty.
    pub(crate) entries: &'a [(i64, Entry)],
    /// Place of the event at which the condition was met.
    pub(crate) trip: usize,
    /// Severity before `raise` and `lower`.
    pub(crate) level: Severity,
    /// The tier reached.
    pub(crate) tier: Option<Tier>,
    /// The entity in the uid; empty where the scope says all.
    pub(crate) uid_entity: &'a str,
    /// What else tells findings of the rule apart.
    pub(crate) uid_scope: &'a str,
    pub(crate) fetched_at: DateTime<Utc>,
}

impl Material<'_> {
    /// The finding; `None` when there is no entry.
    pub(crate) fn finding(&self) -> Option<Finding> {
        let views: Vec<View<'_>> = self.entries.iter().filter_map(|(_, e)| e.view()).collect();
        let (first, last) = (self.entries.first()?.0, self.entries.last()?.0);
        let trip = self.entries.get(self.trip)?.0;
        let rule = self.rule;
        let digest = Digest::new(rule, &views);
        let any = self
            .entries
            .iter()
            .fold(0, |flags, (_, entry)| flags | entry.flags);
        let all = self
            .entries
            .iter()
            .fold(u32::MAX, |flags, (_, entry)| flags & entry.flags);
        let uid = finding_uid(
            &self.scope.tenant,
            rule.facts.id,
            &rule.entity_type,
            self.uid_entity,
            self.uid_scope,
        );
        let (entity, entity_field) = self.entity(&digest, views.first()?);
        let provenance = Provenance {
            message: self.message(&digest),
            target: TARGETS
                .iter()
                .find(|name| digest.first(name).is_some())
                .map(|&name| name.to_owned()),
            entity: entity_field,
        };
        let would_alert = any & 1 == 1 && !rule.tuned.is_quiet;
        let suppressed = rule.suppression(would_alert, &views, time(last));
        Some(Finding {
            uid,
            incident_uid: self.incident(self.act(&views)?),
            tenant: self.scope.tenant.clone(),
            rule: Arc::clone(&rule.facts),
            stream: stream(
                rule.facts.product,
                digest.first(field::SERVICE).unwrap_or_default(),
            ),
            alert: would_alert && suppressed.is_none(),
            suppressed,
            severity: rule.severity(self.level, any, all),
            risk_score: rule.risk,
            mode: Mode::from(&self.scope.job),
            revision: 1,
            update_reason: None,
            entity_type: rule.entity_type.clone(),
            entity,
            message: provenance.message(),
            count: self.entries.len() as u64,
            event_ids: event_ids(&views),
            first_time: time(first),
            last_time: time(last),
            trip_time: time(trip),
            fetched_at: self.fetched_at,
            user: digest.first(field::ACTOR).map(str::to_owned),
            src: digest.first(field::SOURCE_IP).map(str::to_owned),
            target: provenance
                .target
                .as_deref()
                .and_then(|name| digest.first(name))
                .map(str::to_owned),
            external_domain: digest.first(field::EXTERNAL_DOMAIN).map(str::to_owned),
            values: self.values(&digest),
            matched: views
                .get(self.trip)
                .map(|view| self.matched(view))
                .unwrap_or_default(),
            threshold: self.tier.map(|tier| tier.threshold),
            window_seconds: self.tier.map(|tier| tier.span_ms / 1_000),
            evidence: self.evidence(&views),
            provenance,
        })
    }

    /// The entity, and the field that it is the value of.
    fn entity(&self, digest: &Digest<'_>, first: &View<'_>) -> (String, Option<String>) {
        // The entity of a window is part of its key, which may go by an alias.
        if !self.uid_entity.is_empty() {
            return (self.uid_entity.to_owned(), Some(self.rule.entity.clone()));
        }
        let known = [self.rule.entity.as_str(), field::ACTOR, field::OBJECT];
        let entity = known
            .iter()
            .find_map(|name| Some((digest.first(name)?, *name)));
        let (entity, name) = entity.unzip();
        let entity = normal_entity(entity.unwrap_or(first.record_id));
        (entity, name.map(str::to_owned))
    }

    /// The record that stands for the act: of a chain the one that completed it, since what went before may
    /// have been nothing to speak of; else the first.
    fn act<'v>(&self, views: &'v [View<'v>]) -> Option<&'v View<'v>> {
        let is_chain = matches!(
            self.rule.kind,
            Kind::Window {
                counted: Counted::Bases | Counted::Chain,
                ..
            }
        );
        views.get(if is_chain { self.trip } else { 0 })
    }

    /// Of the act that the rule's `incident` names, or of its record: what began with one record is
    /// one incident, however many rules come to tell of it.
    fn incident(&self, first: &View<'_>) -> Uuid {
        let layout = &self.rule.layout;
        let named = self
            .rule
            .incident
            .iter()
            .find_map(|name| first.field(layout.place(name)?));
        let act = named.unwrap_or(first.record_id);
        let name = ["v1", self.scope.tenant.as_str(), "incident", act].join("\0");
        Uuid::new_v5(&NAMESPACE, name.as_bytes())
    }

    fn message(&self, digest: &Digest<'_>) -> Vec<MessagePart> {
        let part = |piece: &Piece| {
            MessagePart::Text(match piece {
                Piece::Text(text) => text.clone(),
                Piece::Field(names) => return digest.shown(names),
                Piece::Count => self.entries.len().to_string(),
                Piece::CountOf(name) => digest.count(name).to_string(),
                Piece::Threshold => self.tier.map_or(1, |tier| tier.threshold).to_string(),
                Piece::Window => span(self.tier.map_or(0, |tier| tier.span_ms)),
            })
        };
        self.rule.message.0.iter().map(part).collect()
    }

    fn values(&self, digest: &Digest<'_>) -> BTreeMap<String, Vec<String>> {
        let always = [field::EXTERNAL_DOMAIN, field::SOURCE_IP];
        let names = self.rule.distinct.iter().map(String::as_str).chain(always);
        let mut values = BTreeMap::new();
        for name in names {
            let mut listed: Vec<String> = digest
                .values(name)
                .iter()
                .map(|&value| value.to_owned())
                .collect();
            // The first ones by time, so that the list never loses a value it once had.
            listed.truncate(DISTINCT_VALUES_MAX);
            listed.sort();
            if !listed.is_empty() {
                values.insert(name.to_owned(), listed);
            }
        }
        values
    }

    fn matched(&self, trip: &View<'_>) -> BTreeMap<String, String> {
        let value = |name: &String| {
            let text = trip.field(self.rule.layout.place(name)?)?;
            Some((name.clone(), text.replace(SEPARATOR, ", ")))
        };
        self.rule.matched.iter().filter_map(value).collect()
    }

    /// The first and the last records; one record may have given several events.
    fn evidence(&self, views: &[View<'_>]) -> Vec<Evidence> {
        let places = |places: &mut dyn Iterator<Item = usize>, most: usize, known: &[usize]| {
            let is_new = |chosen: &[usize], place: usize| {
                let id = views.get(place).map(|view| view.record_id);
                !chosen
                    .iter()
                    .any(|c| views.get(*c).map(|view| view.record_id) == id)
            };
            let mut chosen: Vec<usize> = Vec::new();
            for place in places {
                if chosen.len() < most && is_new(&chosen, place) && is_new(known, place) {
                    chosen.push(place);
                }
                if chosen.len() == most {
                    break;
                }
            }
            chosen
        };
        let mut chosen = places(&mut (0..views.len()), EVIDENCE_FIRST, &[]);
        let last = places(&mut (0..views.len()).rev(), EVIDENCE_LAST, &chosen);
        chosen.extend(last.into_iter().rev());
        chosen.sort_unstable();
        let operation = self.rule.layout.place(field::OPERATION);
        let evidence = |place: usize| {
            let (view, (time_ms, _)) = (views.get(place)?, self.entries.get(place)?);
            Some(Evidence {
                event_id: view.record_id.to_owned(),
                time: time(*time_ms),
                operation: operation
                    .and_then(|p| view.field(p))
                    .unwrap_or_default()
                    .to_owned(),
                record: self.quotes.get(view.record_id),
            })
        };
        chosen.into_iter().filter_map(evidence).collect()
    }
}

/// Distinct values of the fields a finding speaks of, in the order in which they came up. Fields are few.
#[derive(Debug)]
struct Digest<'a> {
    values: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Digest<'a> {
    fn new(rule: &'a Rule, views: &'a [View<'a>]) -> Self {
        let always = [
            field::ACTOR,
            field::OBJECT,
            field::SERVICE,
            field::SOURCE_IP,
            field::TARGET,
            field::MAILBOX,
            field::OBJECT_NAME,
            field::EXTERNAL_DOMAIN,
        ];
        let named = rule
            .distinct
            .iter()
            .map(String::as_str)
            .chain(rule.message.fields());
        let mut values: Vec<(&str, Vec<&str>)> = Vec::new();
        for name in named.chain(always).chain([rule.entity.as_str()]) {
            if let Some(place) = rule.layout.place(name)
                && !values.iter().any(|(known, _)| *known == name)
            {
                values.push((name, distinct(views, place)));
            }
        }
        Self { values }
    }

    fn values(&self, name: &str) -> &[&'a str] {
        let field = self.values.iter().find(|(known, _)| *known == name);
        field.map_or(&[], |(_, values)| values.as_slice())
    }

    fn first(&self, name: &str) -> Option<&'a str> {
        self.values(name).first().copied()
    }

    fn count(&self, name: &str) -> usize {
        self.values(name).len()
    }

    /// The first of the fields that an event has; the first of all where none is there.
    fn shown(&self, names: &[String]) -> MessagePart {
        let there = names.iter().find(|name| !self.values(name).is_empty());
        let name = there.or(names.first()).map_or("", String::as_str);
        let values = self.values(name);
        let shown = values.iter().take(SHOWN_VALUES_MAX);
        MessagePart::Values {
            field: name.to_owned(),
            shown: shown.map(|&value| value.to_owned()).collect(),
            more: values.len().saturating_sub(SHOWN_VALUES_MAX),
        }
    }
}

fn distinct<'a>(views: &'a [View<'a>], place: usize) -> Vec<&'a str> {
    let mut values = Distinct::default();
    for view in views {
        let texts = view
            .field(place)
            .into_iter()
            .flat_map(|text| text.split(SEPARATOR));
        texts
            .filter(|text| !text.is_empty())
            .for_each(|text| values.add(text));
    }
    values.list
}

fn event_ids(views: &[View<'_>]) -> Vec<String> {
    let mut ids = Distinct::default();
    for view in views {
        if ids.list.len() == EVENT_IDS_MAX {
            break;
        }
        ids.add(view.record_id);
    }
    ids.list.into_iter().map(str::to_owned).collect()
}

/// So many texts are compared one by one.
const FEW: usize = 16;

/// Texts, each once, in the order in which they came up. Most often there is one or two.
#[derive(Debug, Default)]
struct Distinct<'a> {
    list: Vec<&'a str>,
    /// The same, where they are many.
    known: HashSet<&'a str>,
}

impl<'a> Distinct<'a> {
    fn add(&mut self, text: &'a str) {
        let is_new = if self.list.len() < FEW {
            !self.list.contains(&text)
        } else {
            if self.known.is_empty() {
                self.known.extend(&self.list);
            }
            self.known.insert(text)
        };
        if is_new {
            self.list.push(text);
        }
    }
}

fn time(time_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time_ms).unwrap_or_default()
}

/// A length of time in words: `24 h`, `30 min`.
pub(super) fn span(span_ms: i64) -> String {
    match span_ms / 1_000 {
        seconds if seconds % 3_600 == 0 => format!("{} h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// The feed that brings records of a service. Google names a feed by its application; Office 365
/// sorts workloads into content types.
fn stream(product: Product, service: &str) -> String {
    let name = match product {
        Product::GoogleWorkspace => service,
        Product::M365 => match service {
            "Exchange" => "Audit.Exchange",
            "SharePoint" | "OneDrive" => "Audit.SharePoint",
            "AzureActiveDirectory" => "Audit.AzureActiveDirectory",
            _ => "Audit.General",
        },
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_listed_once_however_many_there_are() {
        let texts: Vec<String> = (0..3 * FEW).map(|n| format!("t{n}")).collect();
        let mut distinct = Distinct::default();
        for n in 0..texts.len() {
            distinct.add(&texts[n]);
            texts.iter().take(n).for_each(|known| distinct.add(known));
        }
        assert_eq!(distinct.list, texts);
    }
}

//! Reads the activities of the Admin SDK Reports API, of all applications, and the alerts of the
//! Alert Center.
//!
//! Shape (vendor's "Activities: list" and the appendix of events, seen 2026): `id{time,
//! uniqueQualifier, applicationName}`, `actor`, `ipAddress`, and `events[]`, each with `name`, `type`
//! and `parameters[]`. Every element of `events[]` is an event of its own (and one per sharee or
//! destination). What an application's parameters mean stands in its own file.

mod accounts;
mod alerts;
mod applications;
mod drive;
mod parameters;

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{
    Domains, Event, FieldSet, LiveDomains, Product, RawRecord, RecordHead, Sight, field,
};
use siphasher::sip::SipHasher13;

use self::alerts::Alert;
use super::flatten::{self, Flattener};
use super::json::{self, Raw};
use super::members::Members;
use super::outside::{own_domains, set_actor};
use super::time;
use crate::contract::{NormaliseError, RecordReader};

/// Most events made of one record; `part` has room for as many.
const EVENTS_MAX: usize = 1_000;
/// Profile that stands for everybody who is not signed in.
const ANONYMOUS_PROFILE: &str = "105250506097979753968";

/// Reader of google_workspace records.
#[derive(Debug, Clone)]
pub struct GoogleRecords {
    domains: LiveDomains,
}

impl GoogleRecords {
    /// `domains` are the tenant's. Where they are empty, the actor's own domain counts as internal.
    pub fn new(domains: impl Into<LiveDomains>) -> Self {
        Self {
            domains: domains.into(),
        }
    }
}

impl Sight for GoogleRecords {}

impl RecordReader for GoogleRecords {
    fn product(&self) -> Product {
        Product::GoogleWorkspace
    }

    fn operations<'a>(&self, record: &'a RawRecord) -> Result<Vec<Cow<'a, str>>, NormaliseError> {
        let (mut is_alert, mut kind) = (false, None);
        for part in json::members(record.bytes()) {
            let (key, raw) = part.map_err(no_object)?;
            match json::text(key).as_deref() {
                Some("events") => return Ok(names(raw)),
                Some("alertId") => is_alert = true,
                Some("type") => kind = json::scalar(raw),
                _ => {}
            }
        }
        Ok(kind.filter(|_| is_alert).into_iter().collect())
    }

    fn is_outside(&self, actor: &str) -> bool {
        let known = self.domains.get();
        let domain = actor.rsplit_once('@').map(|(_, domain)| domain);
        !known.is_empty() && domain.is_some_and(|domain| !known.is_internal_domain(domain))
    }

    fn head<'a>(&self, record: &'a RawRecord) -> Result<RecordHead<'a>, NormaliseError> {
        let bytes = record.bytes();
        std::str::from_utf8(bytes)
            .map_err(|error| NormaliseError::NotAnObject(error.to_string()))?;
        let mut head = RecordHead {
            product: Product::GoogleWorkspace,
            id: None,
            time: None,
            operations: Vec::new(),
            actor: None,
            digest: 0,
        };
        let (mut alert, mut etag, mut has_events) = (Alert::default(), None, false);
        for part in json::members(bytes) {
            let (key, raw) = part.map_err(no_object)?;
            let name = json::text(key);
            if let Some(name) = name.as_deref() {
                alert.note(name, raw);
                has_events |= name == "events";
            }
            if name.as_deref() == Some("etag") {
                etag = Some((key, raw));
                continue;
            }
            head.digest = head.digest.wrapping_add(json::digest(key, raw));
            match name.as_deref() {
                Some("id") => {
                    let identity = Identity::read(raw);
                    head.time = identity.time.as_deref().and_then(time::instant);
                    head.id = identity.id().map(Cow::Owned);
                }
                Some("events") => head.operations = names(raw),
                Some("actor") => head.actor = actor_of_head(raw),
                _ => {}
            }
        }
        if !has_events {
            alert.complete(&mut head, etag);
        }
        Ok(head)
    }

    fn normalise_for(
        &self,
        record: &RawRecord,
        fetched_at: DateTime<Utc>,
        _asked: &FieldSet,
    ) -> Result<Vec<Event>, NormaliseError> {
        let head = self.head(record)?;
        let body = Members::of(record.bytes()).map_err(no_object)?;
        let id: Arc<str> = head.id_text().into();
        let time = head.time.unwrap_or(fetched_at);
        let known = self.domains.get();
        if alerts::is_alert(&body) {
            let domains = own_domains(&known, head.actor.as_deref(), None::<&str>);
            let reading = Reading {
                domains: &domains,
                domains_are_known: !known.is_empty(),
                application: String::new(),
            };
            let mut event = alerts::event(record, (id, time), &body, &reading);
            domains.lists().describe(&mut event);
            return Ok(vec![event]);
        }
        let mut base = Event::new(
            Product::GoogleWorkspace,
            id,
            0,
            time,
            record.bytes().clone(),
        );

        let actor = body.object("actor").and_then(|map| actor(&map));
        let domains = own_domains(&known, actor.as_deref(), None::<&str>);
        let reading = Reading {
            domains: &domains,
            domains_are_known: !known.is_empty(),
            application: application(&body),
        };
        let everything = FieldSet::all();
        let mut flattener = Flattener::new(&everything);
        fill(&mut base, &mut flattener, &body, actor.as_deref(), &reading);

        let mut events = Vec::new();
        for element in elements(&body) {
            let mut event = base.clone();
            let name = element.raw("name").and_then(json::text);
            event.set(field::OPERATION, name.unwrap_or_default());
            for (member, raw) in element.asked(|_| true) {
                match &*String::from_utf8_lossy(member) {
                    name @ ("parameters" | "sensitiveParameters") => {
                        parameters::fill(&mut event, name, raw);
                    }
                    name => flattener.member(&mut event, &format!("event.{name}"), raw),
                }
            }
            events.extend(reading.events(event));
            if events.len() >= EVENTS_MAX {
                break;
            }
        }
        if events.is_empty() {
            events.push(base);
        }
        events.truncate(EVENTS_MAX);
        for (part, event) in (0..).zip(&mut events) {
            event.part = part_number(event, part);
            domains.lists().describe(event);
        }
        Ok(events)
    }
}

fn no_object(error: json::Broken) -> NormaliseError {
    NormaliseError::NotAnObject(error.to_string())
}

/// What is known while a record is read.
struct Reading<'a> {
    domains: &'a Domains,
    /// Whether the domains were configured, or are a guess from the record.
    domains_are_known: bool,
    application: String,
}

impl Reading<'_> {
    /// Adds what the application means by its parameters; one event per sharee or destination.
    fn events(&self, mut event: Event) -> Vec<Event> {
        match self.application.as_str() {
            "drive" => drive::events(event, self),
            "login" | "user_accounts" => {
                accounts::fill(&mut event, self);
                vec![event]
            }
            _ => {
                applications::fill(&mut event, self);
                vec![event]
            }
        }
    }
}

/// Members outside `events[]`.
fn fill(
    event: &mut Event,
    flattener: &mut Flattener<'_, FieldSet>,
    body: &Members<'_>,
    actor: Option<&str>,
    reading: &Reading<'_>,
) {
    for (name, raw) in body.asked(|name| !matches!(name, b"events" | b"etag")) {
        flattener.member(event, &String::from_utf8_lossy(name), raw);
    }
    event.set(field::PRODUCT, Product::GoogleWorkspace.as_str());
    event.set(field::SERVICE, reading.application.as_str());
    event.set_some(field::SOURCE_IP, body.text("ipAddress"));
    set_network(event, body);
    if let Some(actor) = actor {
        set_actor(event, &reading.domains.party(actor));
        event.set(field::ACTOR_IS_SYSTEM, false);
    }
    if let Some(id) = body.object("id") {
        let time = id.text("time");
        let item = time
            .zip(qualifier(&id))
            .map(|(time, qualifier)| format!("{time}/{qualifier}"));
        event.set_some(field::ITEM, item);
    }
    let app = event
        .text("actor.applicationInfo.oauthClientId")
        .map(Cow::into_owned);
    event.set_some(field::APP_ID, app);
}

/// What the vendor says of the address (`networkInfo`, vendor's "Activities: list", seen 2026): the
/// numbers of its autonomous systems, and its country.
fn set_network(event: &mut Event, body: &Members<'_>) {
    let Some(info) = body.object("networkInfo") else {
        return;
    };
    for number in info.raw("ipAsn").into_iter().flat_map(json::each) {
        let text = || json::text(number)?.parse().ok();
        if let Some(number) = flatten::whole(number).or_else(text) {
            event.add(field::SOURCE_ASN, number);
        }
    }
    event.set_some(field::SOURCE_REGION, info.text("regionCode"));
}

fn application(body: &Members<'_>) -> String {
    body.object("id")
        .and_then(|id| id.text("applicationName"))
        .map(Cow::into_owned)
        .unwrap_or_default()
}

/// Address of the actor; for those who have none, what else names them.
fn actor<'a>(map: &Members<'a>) -> Option<Cow<'a, str>> {
    map.text("email")
        .or_else(|| map.text("key"))
        .or_else(|| match map.text("profileId")? {
            profile if profile == ANONYMOUS_PROFILE => Some("anonymous".into()),
            profile => Some(profile),
        })
}

fn actor_of_head(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let mut other = None;
    for part in json::members(raw) {
        let (key, raw) = part.ok()?;
        match json::text(key).as_deref() {
            Some("email") => return json::scalar(raw).filter(|email| !email.is_empty()),
            Some("key" | "profileId") => other = other.or(json::scalar(raw)),
            _ => {}
        }
    }
    other
}

/// Elements of `events[]`; a single object counts as a list of one.
fn elements<'a>(body: &Members<'a>) -> impl Iterator<Item = Members<'a>> {
    let list = body.raw("events").into_iter().flat_map(json::each);
    list.filter_map(|element| Members::of(element).ok())
}

/// Names of the events in a raw `events` member; an event without a name has the empty one, as
/// its event will, so that a rule may ask for it.
fn names(raw: Raw<'_>) -> Vec<Cow<'_, str>> {
    json::each(raw)
        .filter(|element| element.first() == Some(&b'{'))
        .map(|element| name(element).unwrap_or_default())
        .collect()
}

fn name(element: Raw<'_>) -> Option<Cow<'_, str>> {
    json::members(element)
        .map_while(Result::ok)
        .find(|(key, _)| json::text(key).as_deref() == Some("name"))
        .and_then(|(_, raw)| json::text(raw))
}

/// `id` of an activity. The qualifier is a signed number as text; it has also come as a number.
#[derive(Debug, Default)]
struct Identity<'a> {
    time: Option<Cow<'a, str>>,
    qualifier: Option<Cow<'a, str>>,
    application: Option<Cow<'a, str>>,
}

impl<'a> Identity<'a> {
    fn read(raw: Raw<'a>) -> Self {
        let mut identity = Self::default();
        for (key, raw) in json::members(raw).map_while(Result::ok) {
            let text = json::scalar(raw).filter(|text| !text.is_empty());
            match json::text(key).as_deref() {
                Some("time") => identity.time = text,
                Some("uniqueQualifier") => identity.qualifier = text,
                Some("uniqQualifier") => identity.qualifier = identity.qualifier.or(text),
                Some("applicationName") => identity.application = text,
                _ => {}
            }
        }
        identity
    }

    /// `time/qualifier/application`; `None` when one of them is missing.
    fn id(&self) -> Option<String> {
        let parts = [&self.time, &self.qualifier, &self.application];
        let parts: Option<Vec<&str>> = parts.into_iter().map(Option::as_deref).collect();
        Some(parts?.join("/"))
    }
}

fn qualifier<'a>(id: &Members<'a>) -> Option<Cow<'a, str>> {
    id.text("uniqueQualifier")
        .or_else(|| id.text("uniqQualifier"))
}

/// Login activities with different events may share time and qualifier, so the number of a part
/// holds the event's name: its upper half, the position the lower.
fn part_number(event: &Event, position: u32) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(event.text(field::OPERATION).unwrap_or_default().as_bytes());
    let [high, low, ..] = hasher.finish().to_be_bytes();
    (u32::from(u16::from_be_bytes([high, low])) << 16) | (position & 0xFFFF)
}

#[cfg(test)]
mod tests;

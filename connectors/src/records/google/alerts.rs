//! Alerts of the Alert Center, which are no activities: `alertId`, `type`, `source`, `createTime`,
//! `updateTime`, `etag`, and `data`, whose members depend on the type ("REST Resource: alerts",
//! v1beta1, 2026-04). An alert that is changed comes again with another `etag`: another record.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Event, FieldSet, Product, RawRecord, RecordHead, field};

use super::super::flatten::Flattener;
use super::super::json::{self, Raw};
use super::super::members::Members;
use super::super::outside::set_actor;
use super::{Reading, time};

/// The `service` of such events.
const SERVICE: &str = "alertcenter";
/// Members of `data` that name the user an alert is about, in the order they are looked for.
const USERS: [&str; 3] = ["email", "actorEmail", "affectedUserEmail"];

/// What the members of an alert say, as they are met while its record is read.
#[derive(Debug, Default)]
pub(super) struct Alert<'a> {
    id: Option<Cow<'a, str>>,
    etag: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    created: Option<Cow<'a, str>>,
    data: Option<Raw<'a>>,
}

impl<'a> Alert<'a> {
    /// Takes note of a top-level member.
    pub(super) fn note(&mut self, name: &str, raw: Raw<'a>) {
        match name {
            "alertId" => self.id = json::scalar(raw).filter(|text| !text.is_empty()),
            "etag" => self.etag = json::scalar(raw).filter(|text| !text.is_empty()),
            "type" => self.kind = json::scalar(raw),
            "createTime" => self.created = json::scalar(raw),
            "data" => self.data = Some(raw),
            _ => {}
        }
    }

    /// Makes the head that of an alert, if it is one. `etag` is the member as it stands: unlike an
    /// activity's, it says which version of the alert this is.
    pub(super) fn complete(self, head: &mut RecordHead<'a>, etag: Option<(Raw<'a>, Raw<'a>)>) {
        let Some(id) = self.id else { return };
        head.id = Some(match &self.etag {
            Some(etag) => Cow::Owned(format!("{id}/{etag}")),
            None => id,
        });
        let digest = etag.map_or(0, |(key, raw)| json::digest(key, raw));
        head.digest = head.digest.wrapping_add(digest);
        head.time = self.created.as_deref().and_then(time::instant);
        head.operations = self.kind.into_iter().collect();
        head.actor = self.data.and_then(user_of_data);
    }
}

fn user_of_data(data: Raw<'_>) -> Option<Cow<'_, str>> {
    let mut found: [Option<Cow<'_, str>>; USERS.len()] = Default::default();
    for (key, raw) in json::members(data).map_while(Result::ok) {
        let name = json::text(key);
        let place = USERS.iter().position(|user| name.as_deref() == Some(user));
        if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
            *slot = json::scalar(raw).filter(|text| !text.is_empty());
        }
    }
    found.into_iter().flatten().next()
}

/// Whether this is the body of an alert.
pub(super) fn is_alert(body: &Members<'_>) -> bool {
    body.text("alertId").is_some() && body.raw("events").is_none()
}

/// The one event of an alert.
pub(super) fn event(
    record: &RawRecord,
    (id, at): (Arc<str>, DateTime<Utc>),
    body: &Members<'_>,
    reading: &Reading<'_>,
) -> Event {
    let mut event = Event::new(Product::GoogleWorkspace, id, 0, at, record.bytes().clone());
    let everything = FieldSet::all();
    let mut flattener = Flattener::new(&everything);
    for (name, raw) in body.asked(|name| name != b"etag") {
        flattener.member(&mut event, &String::from_utf8_lossy(name), raw);
    }
    event.set(field::PRODUCT, Product::GoogleWorkspace.as_str());
    event.set(field::SERVICE, SERVICE);
    event.set_some(field::OPERATION, body.text("type"));
    event.set_some(field::ITEM, body.text("alertId"));
    event.set_some(field::ALERT_ID, body.text("alertId"));
    event.set_some(field::ALERT_NAME, body.text("type"));
    event.set_some(field::URL, body.text("securityInvestigationToolLink"));
    if let Some(data) = body.object("data") {
        let user = USERS.iter().find_map(|name| data.text(name));
        if let Some(user) = user {
            set_actor(&mut event, &reading.domains.party(&user));
            event.set(field::ACTOR_IS_SYSTEM, false);
        }
        event.set_some(field::RULE_NAME, data.text("name"));
        let login = data.object("loginDetails");
        let address = login.and_then(|login| login.text("ipAddress"));
        event.set_some(field::SOURCE_IP, address);
    }
    event
}

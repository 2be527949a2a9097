//! The book the generators and scripts write into: records, and what is due for them.
//!
//! Shares are noted one by one and grouped at the end, since a share finding is one per actor,
//! external domain and UTC day. Top-level members keep the vendor's order; `/` and `<` are escaped
//! where Microsoft does it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::people::{Person, Tenant, guid_of};
use crate::sheet::DueFinding;

/// Name of the script for what people do every day.
pub(crate) const ORDINARY: &str = "ordinary life";

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;

/// A record before it is known when it will be delivered.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) stream: Arc<str>,
    pub(crate) id: String,
    pub(crate) body: Bytes,
    pub(crate) event_ms: i64,
    pub(crate) elements: usize,
}

/// The book of one tenant.
#[derive(Debug)]
pub(crate) struct Book<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) due: Vec<DueFinding>,
    pub(crate) tolerated: BTreeSet<(String, String, String)>,
    shares: BTreeMap<(String, String, i64), ShareGroup>,
    streams: BTreeMap<String, Arc<str>>,
}

#[derive(Debug)]
struct ShareGroup {
    script: String,
    ids: Vec<String>,
    first_ms: i64,
    last_ms: i64,
}

/// A Google activity before it gets its id.
#[derive(Debug)]
pub(crate) struct Activity<'p> {
    pub(crate) application: &'static str,
    pub(crate) event_ms: i64,
    pub(crate) actor: Option<&'p Person>,
    pub(crate) with_ip: bool,
    pub(crate) qualifier: String,
    pub(crate) events: Vec<Value>,
}

impl<'a> Book<'a> {
    pub(crate) fn new(tenant: &'a Tenant) -> Self {
        Self {
            tenant,
            drafts: Vec::new(),
            due: Vec::new(),
            tolerated: BTreeSet::new(),
            shares: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    fn stream(&mut self, name: String) -> Arc<str> {
        let shared = Arc::from(name.as_str());
        self.streams.entry(name).or_insert(shared).clone()
    }

    /// Writes down an Office 365 record: the common members, then `members`, in this order.
    pub(crate) fn office365(
        &mut self,
        content_type: &str,
        event_ms: i64,
        rng: &mut StdRng,
        members: Vec<(&str, Value)>,
    ) -> String {
        let id = new_guid(rng).to_string();
        let mut all = vec![
            ("CreationTime", json!(seconds_without_zone(event_ms))),
            ("Id", json!(id)),
            ("OrganizationId", json!(self.tenant.tenant_id_text())),
            ("Version", json!(1)),
        ];
        all.extend(members);
        let escape = content_type == "Audit.SharePoint" || content_type == "Audit.General";
        let body = object_text(&all, escape);
        let stream = self.stream(format!("office365/{content_type}"));
        self.drafts.push(Draft {
            stream,
            id: id.clone(),
            body,
            event_ms,
            elements: 1,
        });
        id
    }

    /// Writes down a Google activity.
    pub(crate) fn google(&mut self, activity: Activity<'_>, rng: &mut StdRng) -> String {
        let Activity {
            application,
            event_ms,
            actor,
            with_ip,
            qualifier,
            events,
        } = activity;
        let time = milliseconds_with_zone(event_ms);
        let id = format!("{time}/{qualifier}/{application}");
        let actor_json = actor.map_or_else(
            || json!({ "callerType": "KEY", "key": "SYSTEM" }),
            |person| json!({ "email": person.email, "profileId": person.profile_id }),
        );
        let mut all = vec![
            ("kind", json!("admin#reports#activity")),
            (
                "id",
                json!({
                    "time": time,
                    "uniqueQualifier": qualifier,
                    "applicationName": application,
                    "customerId": self.tenant.customer_id.as_deref().unwrap_or_default(),
                }),
            ),
            (
                "etag",
                json!(format!(
                    "\"{:032x}/{:016x}\"",
                    rng.random::<u128>(),
                    rng.random::<u64>()
                )),
            ),
            ("actor", actor_json),
        ];
        if let (true, Some(person)) = (with_ip, actor) {
            all.push(("ipAddress", json!(person.ip)));
        }
        let elements = events.len();
        all.push(("events", Value::Array(events)));
        let body = object_text(&all, false);
        let stream = self.stream(format!("google_workspace/{application}"));
        self.drafts.push(Draft {
            stream,
            id: id.clone(),
            body,
            event_ms,
            elements,
        });
        id
    }

    /// A finding that is due for these records; what tells it from others may be added to it.
    pub(crate) fn due(
        &mut self,
        detection: &str,
        script: &str,
        entity: &str,
        ids: &[(String, i64)],
    ) -> &mut DueFinding {
        let first_ms = ids.iter().map(|(_, at)| *at).min().unwrap_or_default();
        let last_ms = ids.iter().map(|(_, at)| *at).max().unwrap_or_default();
        let crosses = first_ms.div_euclid(DAY_MS) != last_ms.div_euclid(DAY_MS);
        let due = DueFinding {
            detection: detection.into(),
            tenant: self.tenant.alias.clone(),
            script: script.into(),
            entity: entity.into(),
            keyed_on: String::new(),
            counted: None,
            external_domain: String::new(),
            event_ids: ids.iter().map(|(id, _)| id.clone()).collect(),
            first_ms,
            last_ms,
            ids_max: if crosses { 2 } else { 1 },
        };
        self.due.push_mut(due)
    }

    /// A detection that may be raised for a record and need not.
    pub(crate) fn tolerate(&mut self, detection: &str, id: &str) {
        self.tolerated
            .insert((detection.into(), self.tenant.alias.clone(), id.into()));
    }

    /// Notes that `actor` shared a Drive document with an outside `address`.
    pub(crate) fn drive_share(
        &mut self,
        script: &str,
        actor: &str,
        address: &str,
        (id, at): (&str, i64),
    ) {
        let domain = address.rsplit('@').next().unwrap_or(address).to_owned();
        let key = (actor.to_owned(), domain, at.div_euclid(DAY_MS));
        let group = self.shares.entry(key).or_insert_with(|| ShareGroup {
            script: script.into(),
            ids: Vec::new(),
            first_ms: at,
            last_ms: at,
        });
        if script != ORDINARY {
            group.script = script.into();
        }
        if !group.ids.iter().any(|known| known == id) {
            group.ids.push(id.to_owned());
        }
        group.first_ms = group.first_ms.min(at);
        group.last_ms = group.last_ms.max(at);
        self.tolerate("gws.drive.visibility_changed_external", id);
    }

    /// How many noted shares `actor` made on the UTC day of `at`.
    pub(crate) fn drive_shares_of(&self, actor: &str, at: i64) -> usize {
        let same = |key: &(String, String, i64)| key.0 == actor && key.2 == at.div_euclid(DAY_MS);
        self.shares
            .iter()
            .filter(|(key, _)| same(key))
            .map(|(_, group)| group.ids.len())
            .sum()
    }

    /// Turns the noted shares into due findings; called once, at the end.
    pub(crate) fn close(&mut self) {
        for ((actor, domain, _), group) in std::mem::take(&mut self.shares) {
            self.due.push(DueFinding {
                detection: "gws.drive.external_share".into(),
                tenant: self.tenant.alias.clone(),
                script: group.script,
                entity: format!("{actor} -> {domain}"),
                keyed_on: String::new(),
                counted: Some(false),
                external_domain: domain,
                event_ids: group.ids,
                first_ms: group.first_ms,
                last_ms: group.last_ms,
                ids_max: 1,
            });
        }
    }
}

pub(crate) fn new_guid(rng: &mut StdRng) -> Uuid {
    guid_of(Uuid::from_u128(rng.random()))
}

/// A signed 64-bit number as text; negative in almost half of all cases, as Google's are.
pub(crate) fn qualifier(rng: &mut StdRng) -> String {
    rng.random::<i64>().to_string()
}

/// One of a non-empty list.
#[allow(clippy::indexing_slicing)] // The callers' lists are constants that are not empty.
pub(crate) fn one_of<T: Copy>(list: &[T], rng: &mut StdRng) -> T {
    list[rng.random_range(0..list.len())]
}

/// `2026-05-23T17:35:00`: Microsoft's time, UTC without saying so.
pub(crate) fn seconds_without_zone(unix_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(unix_ms).unwrap_or(DateTime::UNIX_EPOCH);
    time.format("%Y-%m-%dT%H:%M:%S").to_string()
}

/// `2026-05-23T17:35:00.123Z`: Google's time, and that of Microsoft's content lists.
pub(crate) fn milliseconds_with_zone(unix_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(unix_ms).unwrap_or(DateTime::UNIX_EPOCH);
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The JSON text of an object with its members in the order given.
fn object_text(members: &[(&str, Value)], microsoft_escapes: bool) -> Bytes {
    let mut text = String::with_capacity(1024);
    for (index, (name, value)) in members.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(&Value::from(*name).to_string());
        text.push(':');
        text.push_str(&value.to_string());
    }
    text.push('}');
    if microsoft_escapes {
        // Both characters occur inside JSON strings only, so a replacement on the text is sound.
        text = text.replace('/', "\\/").replace('<', "\\u003c");
    }
    Bytes::from(text)
}

//! Reads the records of the Unified Audit Log (Management Activity API, Search-UnifiedAuditLog).
//!
//! Shape (vendor's "Office 365 Management Activity API schema", seen 2026): one object with `Id`,
//! `CreationTime` (UTC without a zone), `Operation`, `UserId`, `RecordType`, `Workload` and what the
//! workload adds. Any of them may be missing or of another type. `shared` reads what all records
//! share; a file per workload reads what is its own.

mod compliance;
mod dlp;
mod entra;
mod exchange;
mod grants;
mod inbox_rules;
mod parameters;
mod raw;
mod shared;
mod sharepoint;

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{
    Claim, Domains, Event, FieldSet, Lists, LiveDomains, Look, Product, RawRecord, RecordHead,
    Sight, Value, field,
};

use super::flatten::{Asked, Flattener};
use super::json::{self, Raw};
use super::members::Members;
use super::{outside, time};
use crate::contract::{NormaliseError, RecordReader};
use crate::options::RecordIdentity;

/// Most events made of one record; further destinations are in its raw form only.
const EVENTS_MAX: usize = 1_000;

/// Reader of office365 records.
#[derive(Debug, Clone)]
pub struct Microsoft365Records {
    domains: LiveDomains,
    identity: RecordIdentity,
}

impl Microsoft365Records {
    /// `domains` are the tenant's. Where they are empty, the actor's own domain and the record's
    /// `OrganizationName` count as internal.
    pub fn new(domains: impl Into<LiveDomains>) -> Self {
        Self {
            domains: domains.into(),
            identity: RecordIdentity::Id,
        }
    }

    /// The same, telling records apart in another way.
    #[must_use]
    pub fn identified_by(mut self, identity: RecordIdentity) -> Self {
        self.identity = identity;
        self
    }

    /// [`RecordHead::id_text`], without a head where the record says its id.
    fn id(&self, record: &RawRecord, body: &Members<'_>) -> Result<Arc<str>, NormaliseError> {
        let own = body.raw("Id").and_then(json::scalar);
        match own.filter(|id| !id.is_empty()) {
            Some(id) if self.identity == RecordIdentity::Id => Ok((*id).into()),
            _ => Ok(self.head(record)?.id_text().into()),
        }
    }
}

impl Sight for Microsoft365Records {
    fn look(&self, operation: &str, claim: Claim<'_>) -> Look {
        match claim.field() {
            name if raw::is_vendors(name) => raw::look(claim),
            // What a rule looks through as it is.
            "raw" => raw::look_for_words(claim),
            field::RECORD_TYPE => raw::look_for_type(claim),
            name if Lists::default().may_say(name) => Look::all([
                exchange::look(operation, name),
                entra::look(operation, claim),
            ]),
            name => Look::Listed(name.to_owned()),
        }
    }

    fn may_say(&self, field: &str) -> bool {
        self.domains.get().lists().may_say(field)
    }
}

impl RecordReader for Microsoft365Records {
    fn product(&self) -> Product {
        Product::M365
    }

    fn operations<'a>(&self, record: &'a RawRecord) -> Result<Vec<Cow<'a, str>>, NormaliseError> {
        for part in json::members(record.bytes()) {
            let (key, raw) = part.map_err(no_object)?;
            if *json::name(key) == *b"Operation" {
                return Ok(json::scalar(raw).into_iter().collect());
            }
        }
        Ok(Vec::new())
    }

    fn head<'a>(&self, record: &'a RawRecord) -> Result<RecordHead<'a>, NormaliseError> {
        let bytes = record.bytes();
        std::str::from_utf8(bytes)
            .map_err(|error| NormaliseError::NotAnObject(error.to_string()))?;
        let mut head = RecordHead {
            product: Product::M365,
            id: None,
            time: None,
            operations: Vec::new(),
            actor: None,
            digest: 0,
        };
        // The audit-log search adds annotations and escapes otherwise than the feed: the record is the
        // same.
        let digester = json::Digester::of(bytes);
        for part in json::members(bytes) {
            let (key, raw) = part.map_err(no_object)?;
            let name = json::name(key);
            if self.identity == RecordIdentity::Content && *name == *b"Id" {
                continue;
            }
            head.digest = head.digest.wrapping_add(digester.member(key, raw));
            match &*name {
                b"Id" => head.id = json::scalar(raw).filter(|id| !id.is_empty()),
                b"CreationTime" => {
                    head.time = json::text(raw).and_then(|text| time::instant(&text));
                }
                b"Operation" => head.operations = json::scalar(raw).into_iter().collect(),
                b"UserId" => head.actor = json::scalar(raw).filter(|user| !user.is_empty()),
                _ => {}
            }
        }
        Ok(head)
    }

    fn normalise_for(
        &self,
        record: &RawRecord,
        fetched_at: DateTime<Utc>,
        asked: &FieldSet,
    ) -> Result<Vec<Event>, NormaliseError> {
        std::str::from_utf8(record.bytes())
            .map_err(|error| NormaliseError::NotAnObject(error.to_string()))?;
        let body = Members::of(record.bytes()).map_err(no_object)?;
        let id = self.id(record, &body)?;
        let time = body.raw("CreationTime").and_then(json::text);
        let time = time
            .and_then(|text| time::instant(&text))
            .unwrap_or(fetched_at);
        let mut event = Event::new(Product::M365, id.clone(), 0, time, record.bytes().clone());
        event.set(field::ITEM, Value::Str(id));

        let known = self.domains.get();
        let organisations = shared::organisations(&body);
        let domains = outside::own_domains(&known, body.text("UserId").as_deref(), organisations);
        let record_type = shared::record_type(&body);
        let record = Body {
            members: &body,
            operation: body.text("Operation").unwrap_or_default(),
            record_type,
            domains: &domains,
            family: Family::of(&body, record_type),
            asked,
        };
        flatten(&mut event, &record);
        shared::fill(&mut event, &record);
        let mut events = match record.family {
            Family::Exchange => exchange::events(event, &record),
            Family::SharePoint => sharepoint::events(event, &record),
            Family::Entra => entra::events(event, &record),
            Family::Compliance => compliance::events(event, &record),
            Family::Dlp => dlp::events(event, &record),
            Family::Other => vec![event],
        };
        events.truncate(EVENTS_MAX);
        for (part, event) in (0..).zip(&mut events) {
            event.part = part;
            domains.lists().describe(event);
        }
        Ok(events)
    }
}

fn no_object(error: json::Broken) -> NormaliseError {
    NormaliseError::NotAnObject(error.to_string())
}

/// A record being read: its members, and who is inside.
struct Body<'a> {
    members: &'a Members<'a>,
    operation: Cow<'a, str>,
    record_type: Option<i64>,
    domains: &'a Domains,
    family: Family,
    asked: &'a FieldSet,
}

impl<'a> Body<'a> {
    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.members.text(name)
    }

    fn raw(&self, name: &str) -> Option<Raw<'a>> {
        self.members.raw(name)
    }
}

impl Asked for Body<'_> {
    /// What bears the name of one of our fields is never taken for it: they are ours to set.
    fn wants(&self, field: &str) -> bool {
        let is_ours = || !raw::is_vendors(field) && field::ALL.contains(&field);
        (self.asked.has(field) || self.family.reads().contains(&field)) && !is_ours()
    }

    fn reaches(&self, path: &[u8]) -> bool {
        let leads = |field: &str| {
            let rest = field.as_bytes().strip_prefix(path);
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
        };
        self.asked.reaches(path) || self.family.reads().iter().any(|field| leads(field))
    }
}

/// Which file reads what is special about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Exchange,
    SharePoint,
    Entra,
    Compliance,
    Dlp,
    Other,
}

impl Family {
    /// By RecordType; by Workload where the type is absent or new.
    fn of(members: &Members<'_>, record_type: Option<i64>) -> Self {
        match record_type {
            Some(1 | 2 | 3 | 19 | 50) => Self::Exchange,
            Some(4 | 6 | 7 | 14 | 36 | 37 | 54 | 55 | 56) => Self::SharePoint,
            Some(8 | 9 | 15) => Self::Entra,
            Some(18 | 24 | 31 | 40) => Self::Compliance,
            Some(11 | 13 | 33 | 63 | 107) => Self::Dlp,
            _ => match members.text("Workload").as_deref() {
                Some("Exchange") => Self::Exchange,
                Some("SharePoint" | "OneDrive") => Self::SharePoint,
                Some("AzureActiveDirectory") => Self::Entra,
                Some("SecurityComplianceCenter") => Self::Compliance,
                _ => Self::Other,
            },
        }
    }

    /// The vendor's fields that its file reads from events, besides what others look at.
    fn reads(self) -> &'static [&'static str] {
        match self {
            Self::Exchange => exchange::READS,
            Self::Entra => entra::READS,
            Self::Compliance => compliance::READS,
            Self::SharePoint | Self::Dlp | Self::Other => &[],
        }
    }
}

/// All members that somebody looks at, flat. `Parameters` and `Data` come in several shapes and are
/// read by their own files.
fn flatten(event: &mut Event, record: &Body<'_>) {
    let mut flattener = Flattener::new(record);
    for (name, raw) in record.members.asked(|name| record.reaches(name)) {
        match (&**name, raw) {
            (b"Parameters", raw) => parameters::fill(event, raw, record),
            (b"Data", [b'"', ..]) => compliance::fill_data(event, &mut flattener, raw),
            (name, raw) => flattener.member(event, &String::from_utf8_lossy(name), raw),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &'static str) -> (Option<String>, Option<DateTime<Utc>>, Vec<String>, u64) {
        let record = RawRecord::new(text.into());
        let reader = Microsoft365Records::new(Arc::default());
        let head = reader.head(&record).unwrap();
        let operations = head.operations.iter().map(ToString::to_string).collect();
        (
            head.id.map(Cow::into_owned),
            head.time,
            operations,
            head.digest,
        )
    }

    #[test]
    fn by_content_records_are_told_apart_by_all_but_their_id() {
        let reader =
            Microsoft365Records::new(Arc::default()).identified_by(RecordIdentity::Content);
        let identity = |text: &'static str| {
            let record = RawRecord::new(text.into());
            let head = reader.head(&record).unwrap();
            (head.id_text(), head.fingerprint(&[1; 16]))
        };
        let one = identity(r#"{"Id":"a","CreationTime":"2026-05-01T09:00:00","Operation":"X"}"#);
        let same = identity(r#"{"CreationTime":"2026-05-01T09:00:00","Operation":"X","Id":"b"}"#);
        let other = identity(r#"{"Id":"a","CreationTime":"2026-05-01T09:00:01","Operation":"X"}"#);
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert!(one.0.starts_with("digest:"));
    }

    #[test]
    fn a_head_names_record_time_operation_and_actor() {
        let (id, time, operations, _) = head(
            r#"{"CreationTime":"2021-04-16T12:07:14","Id":"a-1","Operation":"New\u002dInboxRule","UserId":"A@b.example"}"#,
        );
        assert_eq!(id.as_deref(), Some("a-1"));
        assert_eq!(time, Some("2021-04-16T12:07:14Z".parse().unwrap()));
        assert_eq!(operations, ["New-InboxRule"]);
    }

    #[test]
    fn the_order_of_members_is_not_part_of_the_digest() {
        let one = head(r#"{"Id":"a","Operation":"x"}"#).3;
        assert_eq!(one, head(r#"{ "Operation":"x", "Id":"a" }"#).3);
        assert_ne!(one, head(r#"{"Id":"a","Operation":"y"}"#).3);
    }

    #[test]
    fn what_is_no_object_is_refused_and_what_lacks_members_is_not() {
        let reader = Microsoft365Records::new(Arc::default());
        for text in [
            &b"[1]"[..],
            b"",
            b"{\"a\":1",
            b"{\"a\":1}x",
            b"\"x\"",
            b"{\"a\":\"\xff\"}",
        ] {
            let record = RawRecord::new(bytes::Bytes::from_static(text));
            assert!(reader.head(&record).is_err(), "{text:?}");
            assert!(reader.normalise(&record, DateTime::UNIX_EPOCH).is_err());
        }
        let record = RawRecord::new("{}".into());
        let events = reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].record_id.starts_with("digest:"));
        assert_eq!(events[0].time, DateTime::UNIX_EPOCH);
    }

    fn events(text: &'static str) -> Vec<Event> {
        let reader = Microsoft365Records::new(Arc::default());
        let record = RawRecord::new(text.into());
        let fetched_at = DateTime::UNIX_EPOCH;
        reader.normalise(&record, fetched_at).unwrap()
    }

    #[test]
    fn recordtype_9999_and_an_operation_nobody_knows_are_read_as_far_as_they_go() {
        let events = events(
            r#"{"Id":"n","RecordType":9999,"Operation":"NeverSeenBefore","Workload":"Brandnew","UserId":"alice@contoso.example","CreationTime":"2026-05-01T09:00:00","ClientIP":"[2001:db8::7]:443","New":{"Inner":["a","b"]}}"#,
        );
        let [event] = events.as_slice() else {
            panic!("{} events", events.len())
        };
        for (name, value) in [
            (field::OPERATION, "NeverSeenBefore"),
            (field::ACTOR, "alice@contoso.example"),
            (field::SOURCE_IP, "2001:db8::7"),
        ] {
            assert_eq!(event.text(name).as_deref(), Some(value), "{name}");
        }
        assert!(
            event
                .fields()
                .any(|(name, _)| name.starts_with("New.Inner"))
        );
    }

    #[test]
    fn a_member_with_the_name_of_one_of_our_fields_is_not_taken_for_it() {
        let events = events(
            r#"{"Id":"n","Operation":"Set-Mailbox","is_removal":true,"role":["SendAs"],"lower":1}"#,
        );
        assert!(events[0].get(field::IS_REMOVAL).is_none() && events[0].get(field::ROLE).is_none());
        assert_eq!(events[0].text("lower").as_deref(), Some("1"));
    }

    #[test]
    fn record_without_creationtime_has_the_time_it_was_fetched() {
        for text in [
            r#"{"Id":"n","RecordType":6,"Operation":"FileAccessed"}"#,
            r#"{"Id":"n","RecordType":6,"Operation":"FileAccessed","CreationTime":null}"#,
            r#"{"Id":"n","RecordType":6,"Operation":"FileAccessed","CreationTime":"soon"}"#,
        ] {
            assert_eq!(head(text).1, None, "{text}");
            let events = events(text);
            assert_eq!(events.len(), 1, "{text}");
            assert_eq!(events[0].time, DateTime::UNIX_EPOCH, "{text}");
            assert_eq!(&*events[0].record_id, "n");
        }
    }

    #[test]
    fn the_cheap_look_finds_the_operation_wherever_it_stands() {
        let reader = Microsoft365Records::new(Arc::default());
        let record = RawRecord::new(r#"{"X":{"Operation":"no"},"Oper\u0061tion":"yes"}"#.into());
        assert_eq!(reader.operations(&record).unwrap(), ["yes"]);
        assert_eq!(reader.head(&record).unwrap().operations, ["yes"]);
        assert!(
            reader
                .operations(&RawRecord::new("{}".into()))
                .unwrap()
                .is_empty()
        );
    }
}

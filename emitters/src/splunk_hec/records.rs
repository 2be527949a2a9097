//! Raw records in the shapes Splunk's add-ons expect.
//!
//! Nothing is parsed into a tree and written again: the bytes of a record, or of its members, are
//! spliced. A record of office365 goes as it is, unread. A google record becomes one event per element of `events[]`, in which the `events`
//! member is replaced by a single `event` member; all other members stay byte for byte. Only the shape of
//! the retired G Suite app (`legacy`) is written anew, since it is another one.

mod legacy;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use exfilwatch_model::Envelope;
use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::options::Shape;

/// The connector of google records.
const GOOGLE: &str = "google_workspace";
/// Sourcetype of office365 records, as Splunk's add-on has it.
const OFFICE365: &str = "o365:management:activity";
/// Sourcetype of the Alert Center's alerts, as Splunk's add-on has it.
const ALERTS: &str = "gws:alerts";
/// The stream of the Alert Center.
const ALERT_CENTER: &str = "alertcenter";
/// Longest application name taken from a record.
const APPLICATION_CHARS_MAX: usize = 64;

/// Shapes a record: adds the JSON of each of its events, in the record's order and at least one, and gives
/// their sourcetype. The stream says whose record it is, and names the application where the record does not.
pub(super) fn shape(
    record: &Envelope,
    shape: Shape,
    events: &mut Vec<Bytes>,
) -> Result<Cow<'static, str>, serde_json::Error> {
    let (whole, feed) = (&record.payload, record.stream.name());
    if whole.is_empty() {
        return Err(serde_json::Error::custom("nothing"));
    }
    // It has been read where the item was made: see `Envelope::payload`.
    debug_assert!(record.is_whole(), "{} is no whole object", record.id);
    if record.stream.connector() != GOOGLE {
        events.push(whole.clone());
        return Ok(Cow::Borrowed(OFFICE365));
    }
    let text = std::str::from_utf8(whole).map_err(serde_json::Error::custom)?;
    let Members(members) = serde_json::from_str(text)?;
    let has = |name| member(&members, name).is_some();
    if feed == ALERT_CENTER || has("alertId") && !has("id") {
        events.push(whole.clone());
        return Ok(Cow::Borrowed(ALERTS));
    }
    let application = google_application(&members, feed);
    if shape == Shape::LegacyGsuite {
        events.extend(legacy::shape(text)?);
        return Ok(format!("gsuite:{application}:json").into());
    }
    let elements = match shape {
        Shape::Ta => elements(&members),
        Shape::Vendor | Shape::LegacyGsuite => vec![],
    };
    if elements.is_empty() {
        events.push(whole.clone());
    }
    events.extend(
        elements
            .iter()
            .map(|element| splice(&members, element).into()),
    );
    Ok(format!("gws:reports:{application}").into())
}

/// The elements of `events[]`; none where it is absent, no list, or stands beside an `event`.
fn elements<'a>(members: &[(Cow<'a, str>, &'a RawValue)]) -> Vec<&'a RawValue> {
    if member(members, "event").is_some() {
        return vec![];
    }
    member(members, "events")
        .and_then(|events| serde_json::from_str(events.get()).ok())
        .unwrap_or_default()
}

fn splice(members: &[(Cow<'_, str>, &RawValue)], element: &RawValue) -> String {
    let mut event = String::with_capacity(512);
    for (name, value) in members {
        event.push(if event.is_empty() { '{' } else { ',' });
        if name == "events" {
            event.push_str("\"event\":");
            event.push_str(element.get());
        } else {
            event.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            event.push(':');
            event.push_str(value.get());
        }
    }
    event.push('}');
    event
}

fn member<'a>(members: &[(Cow<'a, str>, &'a RawValue)], name: &str) -> Option<&'a RawValue> {
    members
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| *value)
}

/// The application of a google activity.
fn google_application(members: &[(Cow<'_, str>, &RawValue)], feed: &str) -> String {
    #[derive(serde::Deserialize, Default)]
    struct Id<'a> {
        #[serde(rename = "applicationName", borrow)]
        application: Option<Cow<'a, str>>,
    }
    let id = member(members, "id");
    let id: Id<'_> = id
        .and_then(|id| serde_json::from_str(id.get()).ok())
        .unwrap_or_default();
    let plain = |name: &Cow<'_, str>| {
        !name.is_empty()
            && name.len() <= APPLICATION_CHARS_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    // The sourcetype decides how Splunk reads the event: a record may not choose it freely.
    match id.application.filter(plain) {
        Some(application) => application.into_owned(),
        None => feed.to_owned(),
    }
}

/// Top-level members in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    members.push((name.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use exfilwatch_model::Kind;

    /// Sourcetype and events of a record of a stream.
    fn shaped(stream: &str, record: &str, shape: Shape) -> (String, Vec<String>) {
        let record = Envelope {
            kind: Kind::Events,
            stream: format!("contoso/{stream}").parse().unwrap(),
            id: "a".to_owned(),
            time: None,
            fetched_at: DateTime::UNIX_EPOCH,
            payload: record.to_owned().into(),
        };
        let mut events = Vec::new();
        let sourcetype = super::shape(&record, shape, &mut events).unwrap();
        let text = |event: Bytes| String::from_utf8(event.into()).unwrap();
        (sourcetype.into(), events.into_iter().map(text).collect())
    }

    fn google(record: &str, shape: Shape) -> (String, Vec<String>) {
        shaped("google_workspace/feed", record, shape)
    }

    #[test]
    fn an_office365_record_is_not_touched_whatever_it_says_of_itself() {
        for record in [
            r#"{ "Id":"1", "CreationTime" : "2026", "Id2":1.10}"#,
            r#"{"alertId":"a"}"#,
            r#"{"id":{"applicationName":"drive"},"events":[{"name":"x"},{"name":"y"}]}"#,
        ] {
            let shaped = shaped("office365/Audit.Exchange", record, Shape::Ta);
            assert_eq!(shaped, (OFFICE365.to_owned(), vec![record.to_owned()]));
        }
    }

    #[test]
    fn a_google_record_gives_one_event_per_element_and_keeps_all_other_bytes() {
        let record = r#"{"kind":"k","id":{"applicationName":"drive", "x":1e2},"a\"b":1.10,"events":[{"name" : "one"},{"name":"two"}],"z":[ ]}"#;
        let (sourcetype, events) = google(record, Shape::Ta);
        assert_eq!(sourcetype, "gws:reports:drive");
        assert_eq!(
            events,
            [
                r#"{"kind":"k","id":{"applicationName":"drive", "x":1e2},"a\"b":1.10,"event":{"name" : "one"},"z":[ ]}"#,
                r#"{"kind":"k","id":{"applicationName":"drive", "x":1e2},"a\"b":1.10,"event":{"name":"two"},"z":[ ]}"#,
            ]
        );
        let (sourcetype, events) = google(record, Shape::Vendor);
        assert_eq!(sourcetype, "gws:reports:drive");
        assert_eq!(events, [record]);
        let (sourcetype, events) = google(record, Shape::LegacyGsuite);
        assert_eq!((&*sourcetype, events.len()), ("gsuite:drive:json", 2));
    }

    #[test]
    fn an_alert_goes_whole_under_the_sourcetype_of_alerts_whatever_it_says_of_itself() {
        for (feed, record) in [
            (
                "alertcenter",
                r#"{"alertId":"a", "type" : "Leaked password","data":{}}"#,
            ),
            (
                "alertcenter",
                r#"{"alertId":"a","id":{"applicationName":"drive"},"events":[{"name":"x"}]}"#,
            ),
            ("file", r#"{"alertId":"a","data":{}}"#),
        ] {
            let shaped = shaped(&format!("google_workspace/{feed}"), record, Shape::Ta);
            assert_eq!(shaped, (ALERTS.to_owned(), vec![record.to_owned()]));
        }
    }

    #[test]
    fn a_record_without_elements_goes_whole() {
        for events in [
            r#""events":[]"#,
            r#""events":null"#,
            r#""events":[{}],"event":1"#,
            r#""x":1"#,
        ] {
            let record = format!(r#"{{"id":{{"applicationName":"drive"}},{events}}}"#);
            assert_eq!(google(&record, Shape::Ta).1, [record]);
        }
    }

    #[test]
    fn a_record_cannot_choose_its_sourcetype_freely() {
        for id in [
            r#"{"applicationName":null}"#,
            r#"{"applicationName":""}"#,
            r#"{"applicationName":"a\",\"index\":\"main"}"#,
            r#"{"applicationName":"a b"}"#,
            r#"{"applicationName":"ä"}"#,
            "1",
        ] {
            let record = format!(r#"{{"id":{id}}}"#);
            let (sourcetype, _) = google(&record, Shape::Ta);
            assert_eq!(sourcetype, "gws:reports:feed", "{id}");
        }
    }
}

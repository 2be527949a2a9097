//! Raw records in the shapes Splunk's add-ons expect.
//!
//! Nothing is parsed into a tree and written again: the bytes of a record, or of its members, are
//! spliced. A google record becomes one event per element of `events[]`, in which the `events`
//! member is replaced by a single `event` member; all other members stay byte for byte. Only the shape of
//! the retired G Suite app (`legacy`) is written anew, since it is another one.

mod legacy;

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::options::Shape;

/// Sourcetype of office365 records, as Splunk's add-on has it.
const OFFICE365: &str = "o365:management:activity";
/// Sourcetype of the Alert Center's alerts, as Splunk's add-on has it.
const ALERTS: &str = "gws:alerts";
/// The stream of the Alert Center.
const ALERT_CENTER: &str = "alertcenter";
/// Longest application name taken from a record.
const APPLICATION_CHARS_MAX: usize = 64;

/// What a record became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shaped<'a> {
    pub(super) sourcetype: Cow<'static, str>,
    /// JSON of each event, in the record's order; never empty.
    pub(super) events: Vec<Cow<'a, str>>,
}

/// Shapes a record. `feed` names the application where the record does not. The record is checked
/// whole, so that what is spliced into an envelope cannot break out of it.
pub(super) fn shape<'a>(
    record: &'a [u8],
    feed: &str,
    shape: Shape,
) -> Result<Shaped<'a>, serde_json::Error> {
    let text = std::str::from_utf8(record).map_err(serde_json::Error::custom)?;
    let Members(members) = serde_json::from_str(text)?;
    let whole = |sourcetype| Shaped {
        sourcetype,
        events: vec![Cow::Borrowed(text.trim_ascii())],
    };
    let has = |name| member(&members, name).is_some();
    if feed == ALERT_CENTER || has("alertId") && !has("id") && !has("Id") {
        return Ok(whole(Cow::Borrowed(ALERTS)));
    }
    let Some(application) = google_application(&members, feed) else {
        return Ok(whole(Cow::Borrowed(OFFICE365)));
    };
    let sourcetype: Cow<'static, str> = format!("gws:reports:{application}").into();
    match shape {
        Shape::LegacyGsuite => legacy::shape(text, &application),
        Shape::Vendor => Ok(whole(sourcetype)),
        Shape::Ta => {
            let elements = elements(&members);
            if elements.is_empty() {
                return Ok(whole(sourcetype));
            }
            let spliced = elements.iter().map(|element| splice(&members, element));
            Ok(Shaped {
                sourcetype,
                events: spliced.map(Cow::Owned).collect(),
            })
        }
    }
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

/// The application of a google activity: its `id` is an object, an office365 record has none.
fn google_application(members: &[(Cow<'_, str>, &RawValue)], feed: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Id<'a> {
        #[serde(rename = "applicationName", borrow)]
        application: Option<Cow<'a, str>>,
    }
    let id = member(members, "id")?;
    let id: Id<'_> = serde_json::from_str(id.get()).ok()?;
    let plain = |name: &Cow<'_, str>| {
        !name.is_empty()
            && name.len() <= APPLICATION_CHARS_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    // The sourcetype decides how Splunk reads the event: a record may not choose it freely.
    Some(match id.application.filter(plain) {
        Some(application) => application.into_owned(),
        None => feed.to_owned(),
    })
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

    #[test]
    fn an_office365_record_is_not_touched() {
        let record = br#"{ "Id":"1", "CreationTime" : "2026", "Id2":1.10}"#;
        let shaped = shape(record, "Audit.Exchange", Shape::Ta).unwrap();
        assert_eq!(shaped.sourcetype, OFFICE365);
        assert_eq!(shaped.events, [std::str::from_utf8(record).unwrap()]);
    }

    #[test]
    fn a_google_record_gives_one_event_per_element_and_keeps_all_other_bytes() {
        let record = br#"{"kind":"k","id":{"applicationName":"drive", "x":1e2},"a\"b":1.10,"events":[{"name" : "one"},{"name":"two"}],"z":[ ]}"#;
        let shaped = shape(record, "feed", Shape::Ta).unwrap();
        assert_eq!(shaped.sourcetype, "gws:reports:drive");
        assert_eq!(
            shaped.events,
            [
                r#"{"kind":"k","id":{"applicationName":"drive", "x":1e2},"a\"b":1.10,"event":{"name" : "one"},"z":[ ]}"#,
                r#"{"kind":"k","id":{"applicationName":"drive", "x":1e2},"a\"b":1.10,"event":{"name":"two"},"z":[ ]}"#,
            ]
        );
        let vendor = shape(record, "feed", Shape::Vendor).unwrap();
        assert_eq!(vendor.events, [std::str::from_utf8(record).unwrap()]);
    }

    #[test]
    fn an_alert_goes_whole_under_the_sourcetype_of_alerts_whatever_it_says_of_itself() {
        for record in [
            r#"{"alertId":"a", "type" : "Leaked password","data":{}}"#,
            r#"{"alertId":"a","id":{"applicationName":"drive"},"events":[{"name":"x"}]}"#,
        ] {
            let shaped = shape(record.as_bytes(), "alertcenter", Shape::Ta).unwrap();
            assert_eq!(shaped.sourcetype, "gws:alerts");
            assert_eq!(shaped.events, [record]);
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
            let shaped = shape(record.as_bytes(), "feed", Shape::Ta).unwrap();
            assert_eq!(shaped.events, [record.as_str()]);
        }
    }

    #[test]
    fn a_record_cannot_choose_its_sourcetype_freely() {
        for name in [
            r"null",
            r#""""#,
            r#""a\",\"index\":\"main""#,
            r#""a b""#,
            r#""ä""#,
        ] {
            let record = format!(r#"{{"id":{{"applicationName":{name}}}}}"#);
            let shaped = shape(record.as_bytes(), "drive", Shape::Ta).unwrap();
            assert_eq!(shaped.sourcetype, "gws:reports:drive", "{name}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in [
            "",
            "[]",
            "1",
            r#"{"a":1}{"event":2}"#,
            r#"{"a":1"#,
            "{\"a\":\"\n\"}",
        ] {
            assert!(
                shape(bad.as_bytes(), "drive", Shape::Ta).is_err(),
                "{bad:?}"
            );
        }
    }
}

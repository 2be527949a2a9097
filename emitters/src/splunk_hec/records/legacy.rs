//! Google records as the retired "G Suite for Splunk" app wrote them.
//!
//! Detections of Splunk that read `gsuite:drive:json` find `parameters` by name and the person in `email`.
//! They group by `src_ip`, which the app took from `ip_address`: both are given, and say `unknown` where
//! Google gives no address, since Splunk groups by nothing otherwise.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What is said where Google gives no address.
const UNKNOWN: &str = "unknown";

#[derive(Deserialize)]
struct Activity {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    actor: Value,
    #[serde(rename = "ipAddress", default)]
    address: Option<String>,
    #[serde(default)]
    events: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    #[serde(rename = "type", default)]
    kind: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    parameters: Vec<Map<String, Value>>,
}

/// One flat event for each element; a record without elements gives one with what it has.
pub(super) fn shape(record: &str) -> Result<Vec<Bytes>, serde_json::Error> {
    let mut activity: Activity = serde_json::from_str(record)?;
    if activity.events.is_empty() {
        activity.events.push(Element {
            kind: Value::Null,
            name: Value::Null,
            parameters: Vec::new(),
        });
    }
    let events = std::mem::take(&mut activity.events);
    let flat = events.into_iter().map(|element| flat(&activity, element));
    Ok(flat.map(|event| event.to_string().into()).collect())
}

fn flat(activity: &Activity, element: Element) -> Value {
    let address = activity.address.as_deref().unwrap_or(UNKNOWN);
    let parameters: Map<String, Value> = element
        .parameters
        .into_iter()
        .filter_map(parameter)
        .collect();
    json!({
        "type": element.kind,
        "name": element.name,
        "parameters": parameters,
        "email": activity.actor.get("email"),
        "unique_id": activity.id.get("uniqueQualifier"),
        "timestamp": activity.id.get("time"),
        "ip_address": address,
        "src_ip": address,
    })
}

/// `{name, value | boolValue | multiValue …}`: the value is the one other member.
fn parameter(mut parameter: Map<String, Value>) -> Option<(String, Value)> {
    let name = parameter.remove("name")?.as_str()?.to_owned();
    let (_, value) = parameter.into_iter().next()?;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_by_name_and_the_address_by_both() {
        let record = r#"{"id":{"time":"2026-05-04T08:00:00.123Z","uniqueQualifier":"-7","applicationName":"drive"},"actor":{"email":"a@corp.example"},"ipAddress":"203.0.113.9","events":[{"type":"acl_change","name":"change_user_access","parameters":[{"name":"primary_event","boolValue":true},{"name":"new_value","multiValue":["can_edit"]},{"name":"target_user","value":"x@gmail.com"},{"name":"empty"}]},{"name":"edit"}]}"#;
        let shaped = shape(record).unwrap();
        let events: Vec<Value> = shaped
            .iter()
            .map(|event| serde_json::from_slice(event).unwrap())
            .collect();
        assert_eq!(
            events[0],
            json!({
                "type": "acl_change", "name": "change_user_access",
                "parameters": {"primary_event": true, "new_value": ["can_edit"], "target_user": "x@gmail.com"},
                "email": "a@corp.example", "unique_id": "-7", "timestamp": "2026-05-04T08:00:00.123Z",
                "ip_address": "203.0.113.9", "src_ip": "203.0.113.9",
            })
        );
        assert_eq!((&events[1]["name"], events.len()), (&json!("edit"), 2));
    }

    #[test]
    fn without_an_address_it_is_unknown() {
        let shaped = shape(r#"{"id":{"uniqueQualifier":"1"},"events":[{"name":"view"}]}"#);
        let event: Value = serde_json::from_slice(&shaped.unwrap()[0]).unwrap();
        assert_eq!(
            (&event["src_ip"], &event["ip_address"]),
            (&json!("unknown"), &json!("unknown"))
        );
        assert_eq!(event["email"], Value::Null);
    }

    #[test]
    fn a_record_without_elements_is_not_lost() {
        let shaped = shape(r#"{"id":{"uniqueQualifier":"1"}}"#).unwrap();
        assert_eq!(shaped.len(), 1);
    }
}

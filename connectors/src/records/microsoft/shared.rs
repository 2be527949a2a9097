//! The members that every record of the Unified Audit Log may have: who acted, from where, with
//! what result.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use exfilwatch_model::{Event, Product, field};
use serde_json::Value;

use super::super::flatten::{field as flat_field, member_text, text};
use super::super::members::Members;
use super::super::outside::set_actor;
use super::Body;

/// Names (lower case, beginnings) under which the service itself acts. Applications of the tenant
/// (`ServicePrincipal_…`) are not among them: an attacker can own one.
const SYSTEM_ACTORS: &[&str] = &[
    "nt authority\\",
    "nt service\\",
    "app@sharepoint",
    "sharepoint\\system",
    "microsoft\\serviceoperator",
    "microsoft teams sync",
    "securitycompliancealerts",
    "securitycomplianceinsights",
    "ffoservicepartneruser",
    "threatintel",
    "dlpagent",
    "certificate",
    "not-found",
    "s-1-5-18",
    "s-1-0-0",
];

/// Fills the fields all records share.
pub(super) fn fill(event: &mut Event, record: &Body<'_>) {
    event.set(field::PRODUCT, Product::M365.as_str());
    event.set_some(
        field::OPERATION,
        record.members.get("Operation").and_then(text),
    );
    event.set_some(field::SERVICE, record.text("Workload"));
    event.set_some(field::RECORD_TYPE, record_type(record.members));
    event.set_some(field::SOURCE_IP, source_ip(record.members));
    event.set_some(field::APP_ID, app_id(record.members));
    event.set_some(field::RESULT, result(record.members));
    let actor = record.text("UserId").or_else(|| record.text("UserKey"));
    if let Some(actor) = actor {
        set_actor(event, &record.domains.party(&actor));
        event.set(field::ACTOR_IS_SYSTEM, is_system(&actor, record.members));
    }
}

/// RecordType as a number; it has come as text too.
pub(super) fn record_type(members: &Members<'_>) -> Option<i64> {
    match members.get("RecordType")? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Domains of the record's own organisation.
pub(super) fn organisations(members: &Members<'_>) -> Vec<String> {
    ["OrganizationName", "EffectiveOrganization"]
        .iter()
        .filter_map(|name| members.text(name).map(Cow::into_owned))
        .collect()
}

/// The six spellings of ResultStatus, and what a sign-in says beside it: `Succeeded` there does
/// not mean that the sign-in worked.
fn result(members: &Members<'_>) -> Option<&'static str> {
    if members.text("Operation").as_deref() == Some("UserLoginFailed") {
        return Some("failure");
    }
    let wrong = |name: &str| {
        members
            .text(name)
            .is_some_and(|value| !matches!(&*value, "0" | "None"))
    };
    if wrong("LogonError") || wrong("ErrorNumber") {
        return Some("failure");
    }
    let status = members.text("ResultStatus")?;
    match status.to_ascii_lowercase().as_str() {
        "true" | "success" | "succeeded" => Some("success"),
        "false" | "fail" | "failed" | "failure" => Some("failure"),
        "partiallysucceeded" | "partialsuccess" | "partial" => Some("partial"),
        _ => None,
    }
}

/// UserType 3 (data centre admin), 4 (system), 7 and 8 (policies), or a name of the service.
fn is_system(actor: &str, members: &Members<'_>) -> bool {
    let actor = actor.to_lowercase();
    if actor.starts_with("serviceprincipal_") {
        return false;
    }
    let by_name = SYSTEM_ACTORS.iter().any(|name| actor.starts_with(name));
    let by_type = members
        .text("UserType")
        .is_some_and(|kind| matches!(&*kind, "3" | "4" | "7" | "8"));
    by_name || by_type
}

fn app_id(members: &Members<'_>) -> Option<String> {
    let context = members.get("AppAccessContext").and_then(Value::as_object);
    ["ClientAppId", "AppId", "ApplicationId"]
        .iter()
        .find_map(|name| members.text(name).map(Cow::into_owned))
        .or_else(|| member_text(context?, "ClientAppId"))
}

/// The first member that holds an address.
fn source_ip(members: &Members<'_>) -> Option<String> {
    ["ClientIP", "ClientIPAddress", "ActorIpAddress"]
        .iter()
        .filter_map(|name| flat_field(members.get(name)?))
        .find_map(|value| address(&value.text()))
}

/// An address without port, brackets and mapping: `1.2.3.4:5678`, `[2603::1]:443`,
/// `::ffff:1.2.3.4`.
pub(super) fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let ip = bare
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()?;
    Some(ip.to_canonical().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T>(record: &Value, read: impl Fn(&Members<'_>) -> T) -> T {
        read(&Members::of(record.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn ip_forms_lose_port_brackets_and_mapping() {
        for (text, expected) in [
            ("62.149.20.10:62589", Some("62.149.20.10")),
            (
                "[2a01:111:f100:9001::1761:914f]:52903",
                Some("2a01:111:f100:9001::1761:914f"),
            ),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("[::ffff:1.2.3.4]:443", Some("1.2.3.4")),
            ("[::1]", Some("::1")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("", None),
            ("<null>", None),
            ("10.0.0.1:port", None),
        ] {
            assert_eq!(address(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn six_spellings_of_a_result_have_three_meanings() {
        for (status, expected) in [
            (json!("True"), Some("success")),
            (json!(true), Some("success")),
            (json!("Success"), Some("success")),
            (json!("Succeeded"), Some("success")),
            (json!("PartiallySucceeded"), Some("partial")),
            (json!("False"), Some("failure")),
            (json!("Failed"), Some("failure")),
            (json!("Failure"), Some("failure")),
            (json!(""), None),
            (json!(null), None),
        ] {
            let record = json!({ "ResultStatus": status });
            assert_eq!(read(&record, result), expected, "{status}");
        }
        let sign_in =
            json!({"ResultStatus": "Succeeded", "LogonError": "InvalidUserNameOrPassword"});
        assert_eq!(read(&sign_in, result), Some("failure"));
        let sign_in = json!({"ResultStatus": "Success", "ErrorNumber": "0"});
        assert_eq!(read(&sign_in, result), Some("success"));
    }

    #[test]
    fn the_service_is_told_from_people_and_applications() {
        let system = |actor: &str, kind: i64| {
            let of = |members: &Members<'_>| is_system(actor, members);
            read(&json!({ "UserType": kind }), of)
        };
        assert!(system("NT AUTHORITY\\SYSTEM (w9wp)", 3));
        assert!(system("app@sharepoint", 0));
        assert!(system("Certificate", 4));
        assert!(!system("ServicePrincipal_1f2e", 4));
        assert!(!system("alice@contoso.example", 2));
        assert!(!system("alice@contoso.example", 0));
    }
}

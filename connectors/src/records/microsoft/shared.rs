//! The members that every record of the Unified Audit Log may have: who acted, from where, with
//! what result.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use exfilwatch_model::{Event, Product, field};

use super::super::flatten;
use super::super::json;
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

/// Results, and how they are spelled.
const RESULTS: &[(&str, &[&str])] = &[
    ("success", &["True", "Success", "Succeeded"]),
    ("failure", &["False", "Fail", "Failed", "Failure"]),
    (
        "partial",
        &["PartiallySucceeded", "PartialSuccess", "Partial"],
    ),
];

/// Fills the fields all records share.
pub(super) fn fill(event: &mut Event, record: &Body<'_>) {
    event.set(field::PRODUCT, Product::M365.as_str());
    event.set_some(
        field::OPERATION,
        record.raw("Operation").and_then(flatten::text),
    );
    event.set_some(field::SERVICE, record.text("Workload"));
    event.set_some(field::RECORD_TYPE, record.record_type);
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
    let raw = members.raw("RecordType")?;
    match raw.first() {
        Some(b'"') => json::text(raw)?.trim().parse().ok(),
        _ => flatten::whole(raw),
    }
}

/// Domains of the record's own organisation.
pub(super) fn organisations<'a>(members: &Members<'a>) -> impl Iterator<Item = Cow<'a, str>> {
    ["OrganizationName", "EffectiveOrganization"]
        .into_iter()
        .filter_map(|name| members.text(name))
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
    let is = |word: &&str| status.eq_ignore_ascii_case(word);
    let mut results = RESULTS.iter();
    results
        .find(|(_, words)| words.iter().any(is))
        .map(|(result, _)| *result)
}

/// UserType 3 (data centre admin), 4 (system), 7 and 8 (policies), or a name of the service.
fn is_system(actor: &str, members: &Members<'_>) -> bool {
    let begins = |name: &str| {
        let start = actor.get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    if begins("serviceprincipal_") {
        return false;
    }
    let kind = members.text("UserType");
    let by_type = kind.is_some_and(|kind| matches!(&*kind, "3" | "4" | "7" | "8"));
    by_type || SYSTEM_ACTORS.iter().any(|name| begins(name))
}

fn app_id<'a>(members: &Members<'a>) -> Option<Cow<'a, str>> {
    ["ClientAppId", "AppId", "ApplicationId"]
        .iter()
        .find_map(|name| members.text(name))
        .or_else(|| members.object("AppAccessContext")?.text("ClientAppId"))
}

/// The first member that holds an address.
fn source_ip(members: &Members<'_>) -> Option<String> {
    ["ClientIP", "ClientIPAddress", "ActorIpAddress"]
        .iter()
        .filter_map(|name| json::scalar(members.raw(name)?))
        .find_map(|text| address(&text))
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
    use serde_json::{Value, json};

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

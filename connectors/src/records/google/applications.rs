//! All other applications: which of their parameters name whom and what. Names that are not listed
//! stay in the event under their own.

use exfilwatch_model::{Event, field};

use super::super::outside::{anyone, set_party};
use super::Reading;

/// Whom an event is about, in the order in which they are looked for.
const TARGETS: &[&str] = &[
    "EMAIL_MONITOR_DEST_EMAIL",
    "DESTINATION_USER_EMAIL",
    "NEW_OWNER",
    "USER_EMAIL",
    "member_id",
    "user_email",
    "grantee_email",
    "event_guest",
    "recipient_email",
];

/// What an event is about.
const OBJECTS: &[&str] = &[
    "GROUP_EMAIL",
    "group_id",
    "group_email",
    "API_CLIENT_NAME",
    "APPLICATION_NAME",
    "calendar_id",
    "resource_id",
    "client_id",
    "matter_id",
    "job_id",
    "DOMAIN_NAME",
];

/// How that is called.
const OBJECT_NAMES: &[&str] = &[
    "SETTING_NAME",
    "resource_title",
    "resource_name",
    "app_name",
    "event_title",
    "matter_name",
];

/// The principal that stands for everybody in a calendar's access list.
const PUBLIC_PRINCIPAL: &str = "__public_principal__@public.calendar.google.com";

/// Adds target, object, role, rule and application.
pub(super) fn fill(event: &mut Event, reading: &Reading<'_>) {
    let first = |event: &Event, names: &[&str]| {
        names.iter().find_map(|name| {
            let text = event.text(&format!("parameters.{name}"))?;
            (!text.is_empty()).then(|| text.into_owned())
        })
    };
    if let Some(target) = first(event, TARGETS) {
        let party = if target == PUBLIC_PRINCIPAL {
            anyone()
        } else {
            reading.domains.party(&target)
        };
        event.set(field::TARGET, party.address.as_str());
        set_party(event, &party);
    }
    event.set_some(field::OBJECT, first(event, OBJECTS));
    event.set_some(field::OBJECT_NAME, first(event, OBJECT_NAMES));
    event.set_some(
        field::ROLE,
        first(event, &["ROLE_NAME", "member_role", "access_level"]),
    );
    event.set_some(field::RULE_NAME, first(event, &["rule_name", "RULE_NAME"]));
    event.set_some(field::APP_ID, first(event, &["client_id"]));
    let ended = event.text(field::OPERATION).and_then(|name| ended(&name));
    event.set_some(field::ACCOUNT_ENDED, ended);
    if first(event, &["EMAIL_MONITOR_DEST_EMAIL"]).is_some() {
        monitor(event);
    }
}

/// What an activity of the admin log ends an account by.
fn ended(operation: &str) -> Option<&'static str> {
    match operation {
        "DELETE_USER" => Some("deleted"),
        "SUSPEND_USER" | "ARCHIVE_USER" => Some("suspended"),
        "USER_LICENSE_REVOKE" => Some("unlicensed"),
        _ => None,
    }
}

/// A copy of someone's mail, made by an administrator.
fn monitor(event: &mut Event) {
    let mailbox = event
        .text("parameters.USER_EMAIL")
        .map(|mailbox| mailbox.to_lowercase());
    let target = event.text(field::TARGET).map(std::borrow::Cow::into_owned);
    let external = event.is(field::IS_EXTERNAL);
    event.set_some(field::MAILBOX, mailbox);
    event.set_some(field::FORWARD_TO, target);
    event.set(field::FORWARD_VIA, "email_monitor");
    event.set(
        field::FORWARD_DIRECTION,
        if external { "external" } else { "internal" },
    );
}

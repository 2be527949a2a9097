//! Who and what a finding is about, as OCSF lists it: observables to search by, resources acted
//! upon.

use std::borrow::Cow;

use exfilwatch_model::{Finding, Product as Vendor, field};

use super::document::{Observable, Resource};
use super::project::{is_address, user};

/// Most entries of `resources`.
const RESOURCES_MAX: usize = 50;
/// Most entries of `observables`.
const OBSERVABLES_MAX: usize = 50;

fn values<'a>(finding: &'a Finding, name: &str) -> &'a [String] {
    finding.values.get(name).map_or(&[], Vec::as_slice)
}

const IP_ADDRESS: (u8, &str) = (2, "IP Address");
const USER_NAME: (u8, &str) = (4, "User Name");
const EMAIL_ADDRESS: (u8, &str) = (5, "Email Address");
const URL_STRING: (u8, &str) = (6, "URL String");
const FILE_NAME: (u8, &str) = (7, "File Name");
const HOSTNAME: (u8, &str) = (1, "Hostname");
const OTHER: (u8, &str) = (99, "Other");

fn person_type(text: &str) -> (u8, &'static str) {
    if text.contains('@') {
        EMAIL_ADDRESS
    } else {
        USER_NAME
    }
}

/// Type id and caption of an observable, by its value.
type TypeOf = fn(&str) -> (u8, &'static str);

/// Actor, address, target and outside domain first: a shortened list keeps these.
pub(super) fn observables(finding: &Finding) -> Vec<Observable<'_>> {
    let mut list: Vec<Observable<'_>> = Vec::new();
    let mut add = |name: Cow<'static, str>, (type_id, caption): (u8, &'static str), value| {
        let known = |old: &Observable<'_>| old.type_id == type_id && old.value == value;
        if list.len() < OBSERVABLES_MAX && !list.iter().any(known) {
            list.push(Observable {
                name,
                type_id,
                r#type: caption,
                value: Cow::Borrowed(value),
            });
        }
    };
    if let Some(user) = finding.user.as_deref() {
        add(
            "evidences[0].actor.user.name".into(),
            person_type(user),
            user,
        );
    }
    if let Some(src) = finding.src.as_deref() {
        if is_address(src) {
            add("evidences[0].src_endpoint.ip".into(), IP_ADDRESS, src);
        } else {
            add("evidences[0].src_endpoint.name".into(), OTHER, src);
        }
    }
    if let Some(target) = finding.target.as_deref() {
        add(
            "unmapped.exfilwatch.target".into(),
            person_type(target),
            target,
        );
    }
    if let Some(domain) = finding.external_domain.as_deref() {
        add(
            "unmapped.exfilwatch.external_domain".into(),
            HOSTNAME,
            domain,
        );
    }
    let more: [(&str, TypeOf); 7] = [
        (field::FORWARD_TO, person_type),
        (field::EXTERNAL_DOMAIN, |_| HOSTNAME),
        (field::TARGET, person_type),
        (field::SOURCE_IP, |text| {
            if is_address(text) { IP_ADDRESS } else { OTHER }
        }),
        (field::MAILBOX, person_type),
        (field::URL, |_| URL_STRING),
        (field::OBJECT_NAME, |_| FILE_NAME),
    ];
    for (name, type_of) in more {
        for value in values(finding, name) {
            let path = format!("unmapped.exfilwatch.values.{name}");
            add(path.into(), type_of(value), value);
        }
    }
    list
}

fn single(list: &[String]) -> Option<&str> {
    match list {
        [one] => Some(one),
        _ => None,
    }
}

/// Files, items and mailboxes acted upon.
pub(super) fn resources(finding: &Finding) -> Vec<Resource<'_>> {
    let objects = values(finding, field::OBJECT);
    let names = values(finding, field::OBJECT_NAME);
    let owners = values(finding, field::OWNER);
    let kind = match finding.rule.product {
        Vendor::GoogleWorkspace => "google_workspace_item",
        Vendor::M365 => "m365_item",
    };
    // The lists are sorted each for itself: only single values are known to belong together.
    let paired = objects.len() == 1 && names.len() == 1;
    let item = |uid, name| Resource {
        uid,
        name,
        r#type: kind,
        owner: single(owners).map(user),
    };
    let by_id = objects
        .iter()
        .map(|uid| item(Some(uid.as_str()), single(names).filter(|_| paired)));
    let by_name = names
        .iter()
        .filter(|_| !paired)
        .map(|name| item(None, Some(name.as_str())));
    let mailboxes = values(finding, field::MAILBOX).iter().map(|name| Resource {
        uid: None,
        name: Some(name.as_str()),
        r#type: "mailbox",
        owner: None,
    });
    by_id
        .chain(by_name)
        .chain(mailboxes)
        .take(RESOURCES_MAX)
        .collect()
}

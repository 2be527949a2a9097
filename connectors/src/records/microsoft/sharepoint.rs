//! SharePoint and OneDrive: sharing, and the item that is shared.
//!
//! A share by the user interface is several records: `SharingInheritanceBroken`, `SharingSet` with
//! system groups (`Limited Access System Group …`, `SharingLinks.<item>.<kind>.<id>`), `AddedToGroup`, and
//! one that names the person or the link. Only the last is a share with someone.

use exfilwatch_model::{Event, Party, PartyClass, field};

use super::super::address::last_part;
use super::super::outside::{anyone, set_party};
use super::Body;

/// One event; SharePoint writes one record per person.
pub(super) fn events(mut event: Event, record: &Body<'_>) -> Vec<Event> {
    let operation = &*record.operation;
    set_object(&mut event, record);
    if let Some(party) = target(operation, record) {
        event.set(field::TARGET, party.address.as_str());
        set_party(&mut event, &party);
    }
    if is_sharing(operation) {
        event.set(field::IS_REMOVAL, is_removal(operation));
    }
    vec![event]
}

fn set_object(event: &mut Event, record: &Body<'_>) {
    let object = record.text("ObjectId");
    let name = record.text("SourceFileName");
    let name = name
        .as_deref()
        .or_else(|| Some(last_part(object.as_deref()?, &['/'])));
    event.set_some(field::OBJECT_NAME, name);
    let url = object.as_deref().filter(|url| url.starts_with("http"));
    event.set_some(field::URL, url);
    let own = object
        .as_deref()
        .and_then(drive_of)
        .zip(event.text(field::ACTOR))
        .map(|(drive, actor)| drive.eq_ignore_ascii_case(&drive_name(&actor)));
    event.set_some(field::OBJECT_IS_OWN, own);
    event.set_some(field::OBJECT, object);
}

/// The name of the personal drive that an address leads into:
/// `https://contoso-my.sharepoint.com/personal/alice_contoso_example/Documents/a.docx`.
fn drive_of(url: &str) -> Option<&str> {
    let (_, path) = url.split_once("://")?;
    let (_, rest) = path.split_once("/personal/")?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// The name that the service gives a person's drive: all but letters and digits become `_`.
fn drive_name(actor: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() { c } else { '_' };
    actor.chars().map(keep).collect()
}

/// Whom the operation names.
fn target(operation: &str, record: &Body<'_>) -> Option<Party> {
    if operation.starts_with("AnonymousLink") {
        return Some(anyone());
    }
    let name = record
        .text("TargetUserOrGroupName")
        .or_else(|| record.text("UserSharedWith"))?;
    let kind = record.text("TargetUserOrGroupType").unwrap_or_default();
    let mut party = record.domains.party(&name);
    match kind.to_ascii_lowercase().as_str() {
        // Guests are outside whatever their name says.
        "guest" => party.class = record.domains.class_of_guest(party.domain.as_deref()),
        "sharepointgroup" | "securitygroup" | "group" => {
            party.class = match party.class {
                class if party.domain.is_some() => class,
                _ => PartyClass::Unknown,
            };
        }
        "partner" if party.class != PartyClass::Internal => party.class = PartyClass::Partner,
        _ => {}
    }
    Some(party)
}

fn is_sharing(operation: &str) -> bool {
    [
        "Sharing",
        "SecureLink",
        "AnonymousLink",
        "CompanyLink",
        "SharedLink",
        "Invitation",
    ]
    .iter()
    .any(|part| operation.contains(part))
        || operation.starts_with("AddedTo")
        || operation.starts_with("RemovedFrom")
}

fn is_removal(operation: &str) -> bool {
    let ends = [
        "Revoked", "Removed", "Deleted", "Disabled", "Expired", "Rejected",
    ];
    operation.starts_with("RemovedFrom") || ends.iter().any(|end| operation.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use exfilwatch_model::{Domains, RawRecord};
    use serde_json::{Value, json};

    use super::super::Microsoft365Records;
    use super::*;
    use crate::contract::RecordReader;

    fn read(operation: &str, more: &Value) -> Event {
        let mut record = json!({
            "CreationTime": "2026-05-04T08:00:00", "Id": "s-1", "Operation": operation, "RecordType": 14,
            "Workload": "OneDrive", "UserId": "alice@contoso.example", "UserType": 0, "ClientIP": "203.0.113.9",
            "ObjectId": "https://contoso-my.sharepoint.com/personal/alice/Documents/plan.docx",
            "SourceFileName": "plan.docx",
        });
        let members = record.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        let domains = Domains::new(&["contoso.example"], &[]);
        let record = RawRecord::new(record.to_string().into());
        let events = Microsoft365Records::new(Arc::new(domains))
            .normalise(&record, DateTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(events.len(), 1);
        events.into_iter().next().unwrap()
    }

    #[test]
    fn a_guest_from_a_partner_is_the_partners() {
        let domains = Domains::new(&["contoso.example"], &["partner.example"]);
        let class = |name: &str| {
            let record = json!({
                "CreationTime": "2026-05-04T08:00:00", "Id": "s-2", "Operation": "SharingInvitationCreated",
                "RecordType": 14, "Workload": "OneDrive", "UserId": "alice@contoso.example", "UserType": 0,
                "TargetUserOrGroupName": name, "TargetUserOrGroupType": "Guest",
            });
            let record = RawRecord::new(record.to_string().into());
            let events = Microsoft365Records::new(Arc::new(domains.clone()))
                .normalise(&record, DateTime::UNIX_EPOCH)
                .unwrap();
            assert!(events[0].is(field::IS_EXTERNAL), "{name}");
            events[0].text(field::EXTERNAL_CLASS).unwrap().into_owned()
        };
        assert_eq!(class("bob@eu.partner.example"), "partner");
        assert_eq!(class("bob_partner.example#ext#@contoso.example"), "partner");
        assert_eq!(class("bob@notpartner.example"), "guest");
        assert_eq!(class("bob@contoso.example"), "guest");
    }

    #[test]
    fn guests_are_outside_whatever_they_are_called() {
        for (name, kind, class) in [
            ("bob@gmail.com", "Guest", Some("guest")),
            ("bob@contoso.example", "Guest", Some("guest")),
            (
                "bob_gmail.com#ext#@contoso.example",
                "Member",
                Some("guest"),
            ),
            (
                "i:0#.f|membership|urn:spo:guest#bob@gmail.com",
                "",
                Some("guest"),
            ),
            ("bob@other.example", "Member", Some("foreign_tenant")),
            ("bob@contoso.example", "Member", None),
            ("SharingLinks.1.AnonymousEdit.2", "SharePointGroup", None),
            ("2002203edc17", "SecurityGroup", None),
            ("SHAREPOINT\\system", "Member", None),
        ] {
            let target = json!({"TargetUserOrGroupName": name, "TargetUserOrGroupType": kind});
            let event = read("AddedToSecureLink", &target);
            assert_eq!(
                event.text(field::EXTERNAL_CLASS).as_deref(),
                class,
                "{name} {kind}"
            );
            assert_eq!(
                event.is(field::IS_EXTERNAL),
                class.is_some(),
                "{name} {kind}"
            );
        }
    }

    #[test]
    fn a_persons_own_drive_is_told_from_anybody_elses() {
        for (object, own) in [
            (
                "https://c-my.sharepoint.com/personal/Alice_contoso_example/Documents/a",
                Some(true),
            ),
            (
                "https://c-my.sharepoint.com/personal/bob_contoso_example/Documents/a",
                Some(false),
            ),
            (
                "https://c-my.sharepoint.com/personal/alice_contoso_example",
                Some(true),
            ),
            ("https://c.sharepoint.com/sites/p/Documents/a", None),
            ("https://c-my.sharepoint.com/personal/", None),
            ("no address", None),
        ] {
            let event = read("FileAccessed", &json!({ "ObjectId": object }));
            let found = event.get(field::OBJECT_IS_OWN);
            assert_eq!(found, own.map(Into::into).as_ref(), "{object}");
        }
    }

    #[test]
    fn a_link_for_anyone_has_no_target_in_the_record_and_is_outside() {
        let event = read("AnonymousLinkCreated", &json!({}));
        assert!(event.is(field::IS_EXTERNAL) && !event.is(field::IS_REMOVAL));
        assert_eq!(event.text(field::TARGET).as_deref(), Some("anyone"));
        assert_eq!(event.text(field::OBJECT_NAME).as_deref(), Some("plan.docx"));
        assert!(event.text(field::URL).unwrap().starts_with("https://"));
        assert!(read("AnonymousLinkRemoved", &json!({})).is(field::IS_REMOVAL));
        assert!(read("SharingRevoked", &json!({})).is(field::IS_REMOVAL));
    }
}

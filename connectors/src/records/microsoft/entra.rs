//! Entra ID (Azure Active Directory): directory changes and sign-ins. `Actor[]` and `Target[]` name
//! one party in several ways, told apart by `Type` (5 = user principal name, 1 = display name).

use std::borrow::Cow;

use exfilwatch_model::{Claim, Event, Look, field};

use super::super::flatten;
use super::super::json;
use super::super::members::Members;
use super::super::outside::set_party;
use super::Body;

/// The property of which the licences of an account are the value.
const LICENCES: &str = "AssignedLicense";
const LICENCES_NOW: &str = "ModifiedProperties.AssignedLicense.NewValue";
const ROLE_NOW: &str = "ModifiedProperties.Role.DisplayName.NewValue";
/// Of an owner that is added the target is the owner; what is owned stands among the properties.
const OWNED: [&str; 2] = [
    "ModifiedProperties.Application.DisplayName.NewValue",
    "ModifiedProperties.ServicePrincipal.DisplayName.NewValue",
];

/// Fields that are read from events here.
pub(super) const READS: &[&str] = &[LICENCES_NOW, ROLE_NOW, OWNED[0], OWNED[1]];

/// Types of names in `Target[]`.
const PRINCIPAL_NAME: i64 = 5;
const DISPLAY_NAME: i64 = 1;

/// What stands in the text of a record of which an event meets a claim on one of our fields: a role by
/// its name, as the vendor writes it, and the end of an account that is only changed among its licences.
/// Cmdlets, which have a verb and a noun, give roles that stand nowhere.
pub(super) fn look(operation: &str, claim: Claim<'_>) -> Look {
    match claim {
        Claim::Holds(field::ROLE, words) if !operation.contains('-') => {
            let is_name = |word: &String| word.bytes().any(|byte| byte.is_ascii_alphabetic());
            if words.iter().all(is_name) {
                Look::words(words)
            } else {
                Look::Open
            }
        }
        claim if claim.field() == field::ACCOUNT_ENDED && changes_licences(operation) => {
            Look::word(LICENCES)
        }
        _ => Look::Open,
    }
}

/// One event.
pub(super) fn events(mut event: Event, record: &Body<'_>) -> Vec<Event> {
    let [principal, display] = named(record, "Target", [PRINCIPAL_NAME, DISPLAY_NAME]);
    let object = record.text("ObjectId");
    let address = object.clone().filter(|object| object.contains('@'));
    let target = principal.or(address).or_else(|| display.clone());
    let ended = ended(&event, &record.operation);
    let target = match ended {
        Some("deleted") => target.map(|target| former(&target).to_owned().into()),
        _ => target,
    };
    event.set_some(field::ACCOUNT_ENDED, ended);
    if let Some(target) = target {
        let party = record.domains.party(&target);
        event.set(field::TARGET, party.address.as_str());
        if party.domain.is_some() {
            set_party(&mut event, &party);
        }
    }
    event.set_some(field::OBJECT, object);
    let owned = || OWNED.iter().find_map(|name| property(&event, name));
    let name = display.or_else(|| owned().map(Cow::Owned));
    event.set_some(field::OBJECT_NAME, name);
    event.set_some(field::ROLE, property(&event, ROLE_NOW));
    vec![event]
}

/// What an activity ends an account by.
fn ended(event: &Event, operation: &str) -> Option<&'static str> {
    match operation.trim_end_matches('.') {
        "Delete user" => Some("deleted"),
        "Disable account" => Some("suspended"),
        _ if changes_licences(operation) => {
            (property(event, LICENCES_NOW).as_deref() == Some("[]")).then_some("unlicensed")
        }
        _ => None,
    }
}

/// Whether an activity may take the licences of an account away.
fn changes_licences(operation: &str) -> bool {
    let operation = operation.trim_end_matches('.');
    operation == "Update user" || operation == "Change user license"
}

/// The name that an account had before it was deleted: Entra puts its id, without hyphens, in front.
fn former(name: &str) -> &str {
    const ID_LENGTH: usize = 32;
    match name.split_at_checked(ID_LENGTH) {
        Some((id, rest))
            if id.bytes().all(|byte| byte.is_ascii_hexdigit())
                && rest.find('@').is_some_and(|at| at > 0) =>
        {
            rest
        }
        _ => name,
    }
}

/// What a property was changed to: text, which some services write in quotes.
fn property(event: &Event, name: &str) -> Option<String> {
    let value = event.text(name)?;
    let value = value.trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

/// The ids of these types in `Actor[]` or `Target[]`, of each the first.
fn named<'a, const N: usize>(
    record: &Body<'a>,
    list: &str,
    types: [i64; N],
) -> [Option<Cow<'a, str>>; N] {
    let mut found = [const { None }; N];
    let parties = record.raw(list).into_iter().flat_map(json::elements);
    for (_, party) in parties.map_while(Result::ok) {
        let Ok(party) = Members::of(party) else {
            continue;
        };
        let own = party.raw("Type").and_then(flatten::whole);
        for (found, _) in found.iter_mut().zip(types).filter(|(_, t)| own == Some(*t)) {
            found.get_or_insert_with(|| party.raw("ID").and_then(flatten::text));
        }
    }
    found.map(|id| id.flatten().filter(|id| !id.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use exfilwatch_model::{Domains, FieldSet, RawRecord};
    use serde_json::json;

    use super::super::Microsoft365Records;
    use super::*;
    use crate::contract::RecordReader;

    #[test]
    fn target_role_and_properties_are_fields() {
        let record = json!({
            "CreationTime": "2026-05-04T08:00:00", "Id": "a-1", "Operation": "Add member to role.",
            "RecordType": 8, "ResultStatus": "Success", "Workload": "AzureActiveDirectory",
            "UserId": "admin@contoso.example", "ObjectId": "bob_gmail.com#EXT#@contoso.example",
            "Target": [{"ID": "User_1", "Type": 2}, {"ID": "bob_gmail.com#EXT#@contoso.example", "Type": 5}],
            "ModifiedProperties": [{"Name": "Role.DisplayName", "NewValue": "\"Global Administrator\"", "OldValue": ""}],
            "ExtendedProperties": [{"Name": "additionalDetails", "Value": "{}"}],
        });
        let reader = Microsoft365Records::new(Arc::new(Domains::new(&["contoso.example"], &[])));
        let record = RawRecord::new(record.to_string().into());
        let event = &reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap()[0];
        assert_eq!(event.text(field::TARGET).as_deref(), Some("bob@gmail.com"));
        assert_eq!(event.text(field::EXTERNAL_CLASS).as_deref(), Some("guest"));
        assert!(event.is(field::EXTERNAL_IS_FREE_MAIL));
        assert_eq!(
            event.text(field::ROLE).as_deref(),
            Some("Global Administrator")
        );
        assert_eq!(
            event
                .text("ExtendedProperties.additionalDetails")
                .as_deref(),
            Some("{}")
        );
        assert_eq!(event.text(field::RESULT).as_deref(), Some("success"));
    }

    #[test]
    fn an_account_that_ends_is_told_with_the_name_it_had() {
        let id = "b5e9f7e2ac3b4c89a8d2d9bd3e6e3d2f";
        let deleted = format!("{id}bob@contoso.example");
        let licence = |new: &str| json!([{"Name": "AssignedLicense", "NewValue": new, "OldValue": "[SkuName=E5]"}]);
        let bob = "bob@contoso.example";
        for (operation, target, properties, ended, told) in [
            ("Delete user.", &*deleted, json!([]), Some("deleted"), bob),
            ("Delete user.", bob, json!([]), Some("deleted"), bob),
            (
                "Delete user.",
                "b5@contoso.example",
                json!([]),
                Some("deleted"),
                "b5@contoso.example",
            ),
            ("Disable account.", bob, json!([]), Some("suspended"), bob),
            ("Update user.", bob, licence("[]"), Some("unlicensed"), bob),
            ("Update user.", bob, licence("[SkuName=E3]"), None, bob),
            ("Update user.", bob, json!([]), None, bob),
            ("Enable account.", bob, json!([]), None, bob),
        ] {
            let record = json!({
                "Id": "a-3", "Operation": operation, "RecordType": 8, "ObjectId": target,
                "Target": [{"ID": target, "Type": 5}], "ModifiedProperties": properties,
            });
            let reader =
                Microsoft365Records::new(Arc::new(Domains::new(&["contoso.example"], &[])));
            let record = RawRecord::new(record.to_string().into());
            let event = &reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap()[0];
            let said = event.text(field::ACCOUNT_ENDED);
            assert_eq!(said.as_deref(), ended, "{operation} {properties}");
            assert_eq!(event.text(field::TARGET).as_deref(), Some(told));
        }
    }

    #[test]
    fn our_fields_of_properties_are_told_whatever_is_asked_for() {
        let property = |name: &str, new: &str| json!({"Name": name, "NewValue": new});
        for (operation, name, field) in [
            (
                "Add owner to application.",
                "Application.DisplayName",
                field::OBJECT_NAME,
            ),
            (
                "Add owner to service principal.",
                "ServicePrincipal.DisplayName",
                field::OBJECT_NAME,
            ),
            ("Add member to role.", "Role.DisplayName", field::ROLE),
        ] {
            let record = json!({
                "Id": "a-4", "Operation": operation, "RecordType": 8,
                "Target": [{"ID": "bob@contoso.example", "Type": 5}],
                "ModifiedProperties": [property("Other", "x"), property(name, "\"told\"")],
            });
            let record = RawRecord::new(record.to_string().into());
            let reader = Microsoft365Records::new(Arc::default());
            let nothing = FieldSet::default();
            let events = reader.normalise_for(&record, DateTime::UNIX_EPOCH, &nothing);
            assert_eq!(
                events.unwrap()[0].text(field).as_deref(),
                Some("told"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_role_is_looked_for_by_its_name_and_an_end_among_the_licences() {
        let [role, number] = ["Global Administrator", "62"].map(|word| vec![word.to_owned()]);
        let grant = "Add member to role.";
        let ended = Claim::Has(field::ACCOUNT_ENDED);
        for (operation, claim, expected) in [
            (grant, Claim::Holds(field::ROLE, &role), Look::words(&role)),
            (grant, Claim::Holds(field::ROLE, &number), Look::Open),
            (grant, Claim::Has(field::ROLE), Look::Open),
            ("Set-Mailbox", Claim::Holds(field::ROLE, &role), Look::Open),
            ("Update user.", ended, Look::word("AssignedLicense")),
            ("Delete user.", ended, Look::Open),
            ("Update user.", Claim::Has(field::TARGET), Look::Open),
        ] {
            assert_eq!(look(operation, claim), expected, "{operation} {claim:?}");
        }
    }

    #[test]
    fn what_was_changed_has_its_name() {
        let names = [
            (
                json!({"Target": [{"ID": "app-1", "Type": 2}, {"ID": "Sorter", "Type": 1}]}),
                Some("Sorter"),
            ),
            (
                json!({"Target": [{"ID": "bob@contoso.example", "Type": 5}],
                    "ModifiedProperties": [{"Name": "Application.DisplayName", "NewValue": "\"Sorter\"", "OldValue": ""}]}),
                Some("Sorter"),
            ),
            (
                json!({"Target": [{"ID": "bob@contoso.example", "Type": 5}],
                    "ModifiedProperties": [{"Name": "ServicePrincipal.DisplayName", "NewValue": "", "OldValue": ""}]}),
                None,
            ),
        ];
        for (mut record, name) in names {
            record["Id"] = json!("a-2");
            record["RecordType"] = json!(8);
            let reader =
                Microsoft365Records::new(Arc::new(Domains::new(&["contoso.example"], &[])));
            let record = RawRecord::new(record.to_string().into());
            let event = &reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap()[0];
            assert_eq!(event.text(field::OBJECT_NAME).as_deref(), name);
        }
    }
}

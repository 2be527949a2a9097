//! Whatever stands in a record, no reader panics and none refuses an object.

use std::sync::Arc;

use chrono::DateTime;
use exfilwatch_model::{Domains, RawRecord};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{GoogleRecords, Microsoft365Records};
use crate::contract::RecordReader;

fn readers() -> [Box<dyn RecordReader>; 2] {
    let domains = Arc::new(Domains::new(&["contoso.example"], &["partner.example"]));
    [
        Box::new(Microsoft365Records::new(domains.clone())),
        Box::new(GoogleRecords::new(domains)),
    ]
}

fn check(value: &Value) {
    let record = RawRecord::new(value.to_string().into());
    for reader in readers() {
        let operations = reader.operations(&record).unwrap();
        assert_eq!(reader.head(&record).unwrap().operations, operations);
        let events = reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap();
        assert!(!events.is_empty());
        let parts: std::collections::BTreeSet<u32> =
            events.iter().map(|event| event.part).collect();
        assert_eq!(
            parts.len(),
            events.len(),
            "two events of a record have one part number"
        );
    }
}

/// One value of each JSON type, and texts that look like something.
fn odd_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-7),
        json!(1.5e300),
        json!(""),
        json!("#EXT#@"),
        json!("urn:spo:guest#"),
        json!("[]"),
        json!("{\"f3u\": [1]}"),
        json!("-"),
        json!("\"; , [SMTP:] <@> /o="),
        json!([]),
        json!([[]]),
        json!([null, 1, "x", {"Name": 1}, {"Name": "x"}, {"name": "y", "value": {}}]),
        json!({}),
        json!({"Name": null, "Value": null}),
        json!({"ID": 1, "Type": "5", "email": 3, "time": 4, "parameter": 5}),
    ]
}

const MICROSOFT: &[&str] = &[
    "Id",
    "RecordType",
    "CreationTime",
    "Operation",
    "OrganizationId",
    "UserType",
    "UserKey",
    "Workload",
    "ResultStatus",
    "ObjectId",
    "UserId",
    "ClientIP",
    "AppAccessContext",
    "Parameters",
    "OperationProperties",
    "ModifiedProperties",
    "ExtendedProperties",
    "OrganizationName",
    "MailboxOwnerUPN",
    "ExternalAccess",
    "TargetUserOrGroupName",
    "TargetUserOrGroupType",
    "UserSharedWith",
    "SourceFileName",
    "EventData",
    "Actor",
    "Target",
    "Data",
    "AlertId",
    "AlertEntityId",
    "Name",
    "ExchangeMetaData",
    "SharePointMetaData",
    "EndpointMetaData",
    "PolicyDetails",
    "LogonError",
    "ErrorNumber",
    "ClientIPAddress",
    "Case",
];

#[test]
fn each_known_member_of_a_microsoft_record_may_be_of_any_type() {
    let parameter = json!([{"Name": "ForwardingSmtpAddress", "Value": "smtp:x@evil.example"}]);
    for (kind, operation) in [
        (1, "Set-Mailbox"),
        (1, "New-InboxRule"),
        (2, "UpdateInboxRules"),
        (14, "AddedToSecureLink"),
        (8, "Add member to role."),
        (40, "AlertTriggered"),
        (24, "SearchExported"),
        (18, "New-ComplianceSearchAction"),
        (13, "DlpRuleMatch"),
        (25, "MemberAdded"),
    ] {
        for member in MICROSOFT {
            for odd in odd_values() {
                let mut record = json!({
                    "Id": "a", "CreationTime": "2026-05-04T08:00:00", "RecordType": kind, "Operation": operation,
                    "UserId": "alice@contoso.example", "Parameters": parameter, "OperationProperties": parameter,
                    "Data": "{}", "ExchangeMetaData": {"To": "x@evil.example"},
                });
                record[*member] = odd;
                check(&record);
            }
        }
    }
}

#[test]
fn each_known_member_of_a_google_record_may_be_of_any_type() {
    let parameters = [
        "target_user",
        "target_domain",
        "new_value",
        "old_value",
        "visibility",
        "old_visibility",
        "visibility_change",
        "owner",
        "doc_id",
        "primary_event",
        "email_forwarding_destination_address",
        "USER_EMAIL",
    ];
    for application in ["drive", "login", "admin"] {
        for odd in odd_values() {
            for member in [
                "id",
                "actor",
                "events",
                "ipAddress",
                "etag",
                "kind",
                "networkInfo",
            ] {
                let mut record = json!({
                    "id": {"time": "2026-05-04T08:00:00Z", "uniqueQualifier": "1", "applicationName": application},
                    "actor": {"email": "a@contoso.example"}, "events": [{"name": "change_user_access"}],
                });
                record[member] = odd.clone();
                check(&record);
            }
            for (parameter, key) in parameters.iter().flat_map(|name| {
                [
                    "value",
                    "multiValue",
                    "intValue",
                    "boolValue",
                    "messageValue",
                    "multiMessageValue",
                ]
                .map(|key| (*name, key))
            }) {
                for name in [
                    "change_user_access",
                    "change_document_visibility",
                    "email_forwarding_out_of_domain",
                ] {
                    check(&json!({
                        "id": {"time": "2026-05-04T08:00:00Z", "uniqueQualifier": "1", "applicationName": application},
                        "events": [{"name": name, "parameters": [{"name": parameter, key: odd}]}],
                    }));
                }
            }
        }
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[a-z#@;,<>\\[\\]\"/\\\\=: $-]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(
                prop_oneof![
                    prop::sample::select(MICROSOFT).prop_map(str::to_owned),
                    ".{0,6}"
                ],
                inner,
                0..5
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn random_objects_are_read(members in prop::collection::hash_map(
        prop_oneof![
            prop::sample::select(MICROSOFT).prop_map(str::to_owned),
            prop::sample::select(&["id", "actor", "events"][..]).prop_map(str::to_owned),
        ], json_value(), 0..12)
    ) {
        check(&Value::Object(members.into_iter().collect()));
    }

    #[test]
    fn random_parameter_texts_are_read(text in "[-a-zA-Z\" ():;,@$.]{0,60}") {
        check(&json!({"Operation": "New-ComplianceSearchAction", "RecordType": 18, "Parameters": text}));
        check(&json!({"Operation": "Set-Mailbox", "RecordType": 1, "UserId": "a@b.example",
            "Parameters": [{"Name": "ForwardingSmtpAddress", "Value": text}]}));
    }
}

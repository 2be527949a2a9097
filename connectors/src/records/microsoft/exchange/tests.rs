use std::sync::Arc;

use chrono::DateTime;
use exfilwatch_model::{Claim, Domains, Glance, RawRecord, Sight};
use serde_json::{Value, json};

use super::super::Microsoft365Records;
use super::*;
use crate::contract::RecordReader;

fn read(record: &Value) -> Vec<Event> {
    let domains = Domains::new(&["contoso.example", "contoso.onmicrosoft.com"], &[]);
    let reader = Microsoft365Records::new(Arc::new(domains));
    let record = RawRecord::new(record.to_string().into());
    let events = reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap();
    for event in &events {
        let operation = event.text(field::OPERATION).unwrap_or_default();
        for (name, _) in event.fields() {
            let claim = Claim::Has(name);
            let glance = Glance::new(&reader.look(&operation, claim));
            assert!(glance.may_be(record.bytes(), &reader), "{name}");
        }
    }
    events
}

#[test]
fn a_cmdlet_that_names_no_path_is_known_without_reading_it() {
    let may_forward = |operation: &str, parameters: &[(&str, &str)]| {
        let record = cmdlet_record(operation, "bob", parameters);
        FORWARDING_FIELDS.map(|name| may_have(&record.to_string(), operation, name))
    };
    let quiet = [("Identity", "bob"), ("MaxSendSize", "1 GB")];
    assert_eq!(may_forward("Set-Mailbox", &quiet), [false; 9]);
    assert_eq!(may_forward("set-mailbox", &quiet), [false; 9]);
    let told = [("ForwardingSMTPAddress", EVIL)];
    assert_eq!(may_forward("Set-Mailbox", &told), [true; 9]);
    assert_eq!(may_forward("Set-InboxRule", &told), [false; 9]);
    for operation in [
        "Enable-InboxRule",
        "Remove-TransportRule",
        "Set-Other",
        "UpdateInboxRules",
    ] {
        assert_eq!(may_forward(operation, &quiet), [true; 9], "{operation}");
    }
    let record = cmdlet_record("Set-Mailbox", "bob", &quiet);
    for name in [field::OPERATION, field::RESULT] {
        assert!(may_have(&record.to_string(), "Set-Mailbox", name));
    }
    let hidden = r#"{"Operation":"Set-Mailbox","Parameters":[{"Name":"\u0046orwardingAddress"}]}"#;
    assert!(may_have(hidden, "Set-Mailbox", field::FORWARD_TO));
}

fn may_have(text: &str, operation: &str, name: &str) -> bool {
    let reader = Microsoft365Records::new(Arc::default());
    Glance::new(&look(operation, name)).may_be(text.as_bytes(), &reader)
}

fn cmdlet_record(operation: &str, object: &str, parameters: &[(&str, &str)]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|(name, value)| json!({"Name": name, "Value": value}))
        .collect();
    json!({
        "CreationTime": "2026-05-04T08:00:00", "Id": "e-1", "Operation": operation,
        "RecordType": 1, "ResultStatus": "True", "UserType": 2, "Workload": "Exchange",
        "ClientIP": "203.0.113.9:50122", "UserId": "Alice@contoso.example", "ObjectId": object,
        "OrganizationName": "contoso.onmicrosoft.com", "Parameters": parameters,
    })
}

/// `via direction to` of each event.
fn told(events: &[Event]) -> Vec<String> {
    let text = |event: &Event, name| event.text(name).unwrap_or("-".into()).into_owned();
    events
        .iter()
        .map(|event| {
            let names = [
                field::FORWARD_VIA,
                field::FORWARD_DIRECTION,
                field::FORWARD_TO,
            ];
            names.map(|name| text(event, name)).join(" ")
        })
        .collect()
}

const EVIL: &str = "smtp:x@evil.example";

/// Cmdlet, parameter, value, and what the event says.
const PATHS_TOLD: &[(&str, &str, &str, &str)] = &[
    (
        "Set-Mailbox",
        "ForwardingSmtpAddress",
        EVIL,
        "smtp_address external x@evil.example",
    ),
    (
        "Set-Mailbox",
        "forwardingsmtpaddress",
        "SMTP:x@contoso.example",
        "smtp_address internal x@contoso.example",
    ),
    (
        "Set-Mailbox",
        "ForwardingAddress",
        "EUR.PROD/Hosted/contoso.onmicrosoft.com/Bob",
        "recipient_object unknown bob",
    ),
    (
        "Set-Mailbox",
        "ForwardingAddress",
        "x@evil.example",
        "recipient_object external x@evil.example",
    ),
    (
        "Set-MailPublicFolder",
        "ForwardingAddress",
        "Bob",
        "recipient_object unknown bob",
    ),
    (
        "New-InboxRule",
        "ForwardTo",
        "Bob [SMTP:bob@evil.example]",
        "inbox_rule external bob@evil.example",
    ),
    (
        "New-InboxRule",
        "ForwardTo",
        "Bob [EX:/o=ExchangeLabs/cn=Recipients/cn=bob]",
        "inbox_rule internal bob",
    ),
    (
        "Set-InboxRule",
        "ForwardAsAttachmentTo",
        "x@evil.example",
        "inbox_rule external x@evil.example",
    ),
    (
        "Set-InboxRule",
        "RedirectTo",
        "x@evil.example",
        "inbox_rule external x@evil.example",
    ),
    (
        "New-TransportRule",
        "BlindCopyTo",
        "x@evil.example",
        "transport_rule external x@evil.example",
    ),
    (
        "Set-TransportRule",
        "CopyTo",
        "x@evil.example",
        "transport_rule external x@evil.example",
    ),
    (
        "New-TransportRule",
        "RedirectMessageTo",
        "x@evil.example",
        "transport_rule external x@evil.example",
    ),
    (
        "New-TransportRule",
        "AddToRecipients",
        "x@evil.example",
        "transport_rule external x@evil.example",
    ),
    (
        "New-JournalRule",
        "JournalEmailAddress",
        "x@evil.example",
        "journal_rule external x@evil.example",
    ),
    (
        "Set-TransportConfig",
        "JournalingReportNdrTo",
        "x@evil.example",
        "transport_config external x@evil.example",
    ),
    (
        "New-OutboundConnector",
        "SmartHosts",
        "mx.evil.example",
        "outbound_connector external mx.evil.example",
    ),
    (
        "Add-UnifiedGroupLinks",
        "Links",
        "x@evil.example",
        "group_member external x@evil.example",
    ),
    (
        "Add-DistributionGroupMember",
        "Member",
        "bob_evil.example#EXT#@contoso.onmicrosoft.com",
        "group_member external bob@evil.example",
    ),
    (
        "Set-Mailbox",
        "GrantSendOnBehalfTo",
        "x@evil.example",
        "- - -",
    ),
];

#[test]
fn every_path_that_names_a_destination_is_told() {
    for (operation, parameter, value, expected) in PATHS_TOLD {
        let events = read(&cmdlet_record(operation, "alice", &[(parameter, value)]));
        assert_eq!(told(&events), [*expected], "{operation} {parameter}");
    }
}

#[test]
fn one_outside_among_many_inside_is_an_event_of_its_own() {
    let list = "a@contoso.example;\"Roe, B\" <b@notcontoso.example>;c@sub.contoso.example";
    let events = read(&cmdlet_record(
        "New-InboxRule",
        "alice\\r",
        &[("ForwardTo", list)],
    ));
    assert_eq!(
        told(&events),
        [
            "inbox_rule internal a@contoso.example",
            "inbox_rule external b@notcontoso.example",
            "inbox_rule internal c@sub.contoso.example",
        ]
    );
    let parts: Vec<u32> = events.iter().map(|event| event.part).collect();
    assert_eq!(parts, [0, 1, 2]);
    assert_eq!(
        events[1].text(field::EXTERNAL_DOMAIN).as_deref(),
        Some("notcontoso.example")
    );
}

#[test]
fn an_empty_value_or_a_removing_cmdlet_takes_forwarding_away() {
    for (operation, parameters) in [
        (
            "Set-Mailbox",
            vec![
                ("ForwardingSmtpAddress", ""),
                ("DeliverToMailboxAndForward", "False"),
            ],
        ),
        ("Set-Mailbox", vec![("ForwardingAddress", "$null")]),
        ("Remove-InboxRule", vec![("Identity", "alice\\r")]),
        ("Disable-TransportRule", vec![("Identity", "r")]),
    ] {
        let events = read(&cmdlet_record(operation, "alice", &parameters));
        assert_eq!(events.len(), 1);
        assert!(events[0].is(field::IS_REMOVAL), "{operation}");
        assert!(events[0].get(field::FORWARD_VIA).is_some(), "{operation}");
        assert!(events[0].get(field::FORWARD_TO).is_none(), "{operation}");
    }
}

#[test]
fn each_event_names_its_parameter_and_all_that_the_cmdlet_empties() {
    let told = |operation: &str, parameters: &[(&str, &str)]| {
        let events = read(&cmdlet_record(operation, "alice", parameters)).into_iter();
        let text = |event: &Event, name| match event.get(name) {
            Some(exfilwatch_model::Value::List(values)) => {
                let texts: Vec<_> = values.iter().map(exfilwatch_model::Value::text).collect();
                texts.join("+")
            }
            Some(one) => one.text().into_owned(),
            None => "-".to_owned(),
        };
        let both = events.map(|event| {
            let names = [field::FORWARD_PATH, field::FORWARD_EMPTIED];
            names.map(|name| text(&event, name)).join(" ")
        });
        both.collect::<Vec<_>>()
    };
    let [smtp, object] = ["ForwardingSmtpAddress", "ForwardingAddress"];
    let both = [(smtp, "$null"), (object, "")];
    let emptied =
        "smtp_address.ForwardingSmtpAddress+recipient_object.ForwardingAddress".to_owned();
    assert_eq!(
        told("Set-Mailbox", &both),
        [format!("recipient_object {emptied}")]
    );
    assert_eq!(
        told("Set-InboxRule", &[("ForwardTo", EVIL), ("RedirectTo", "")]),
        ["inbox_rule.ForwardTo inbox_rule.RedirectTo"]
    );
    let enabled = [("Identity", "Out"), ("Enabled", "False")];
    assert_eq!(
        told("Set-OutboundConnector", &enabled),
        ["outbound_connector -"]
    );
    let record = cmdlet_record("Set-OutboundConnector", "Out", &enabled);
    assert!(read(&record)[0].get(field::FORWARD_VIA).is_none());
}

#[test]
fn switching_a_rule_on_has_an_unknown_destination() {
    let events = read(&cmdlet_record(
        "Enable-InboxRule",
        "alice\\.",
        &[("Identity", "alice\\.")],
    ));
    assert_eq!(told(&events), ["inbox_rule unknown -"]);
    assert_eq!(events[0].text(field::RULE_NAME).as_deref(), Some("."));
    let other = read(&cmdlet_record(
        "Set-InboxRule",
        "alice\\.",
        &[("StopProcessingRules", "True")],
    ));
    assert_eq!(told(&other), ["- - -"]);
}

#[test]
fn whose_mailbox_it_is_and_whether_a_copy_stays() {
    for (object, identity, mailbox, others) in [
        (
            "alice",
            "alice@contoso.example",
            "alice@contoso.example",
            Some(false),
        ),
        (
            "HenriettaM",
            "EUR.PROD/Hosted/contoso.onmicrosoft.com/HenriettaM",
            "henriettam",
            Some(true),
        ),
        (
            "Alice",
            "EUR.PROD/Hosted/contoso.onmicrosoft.com/Alice",
            "alice",
            Some(false),
        ),
        (
            "",
            "0f3a2b1c-1111-2222-3333-444455556666",
            "0f3a2b1c-1111-2222-3333-444455556666",
            None,
        ),
        (
            "bob",
            "bob@contoso.example",
            "bob@contoso.example",
            Some(true),
        ),
    ] {
        let forward = ("ForwardingSmtpAddress", "smtp:x@gmail.com");
        let keep = ("DeliverToMailboxAndForward", "False");
        let events = read(&cmdlet_record(
            "Set-Mailbox",
            object,
            &[("Identity", identity), forward, keep],
        ));
        let event = &events[0];
        // One's own mailbox is called by one's address, whatever the record calls it.
        let own = others == Some(false);
        let mailbox = if own {
            "alice@contoso.example"
        } else {
            mailbox
        };
        assert_eq!(event.text(field::MAILBOX).as_deref(), Some(mailbox));
        let told = event
            .get(field::MAILBOX_IS_OTHERS)
            .map(|_| event.is(field::MAILBOX_IS_OTHERS));
        assert_eq!(told, others, "{identity}");
        assert!(event.is(field::FORWARD_WITHOUT_COPY));
        assert!(event.is(field::EXTERNAL_IS_FREE_MAIL));
        assert_eq!(event.text(field::SOURCE_IP).as_deref(), Some("203.0.113.9"));
        assert_eq!(
            event.text(field::ACTOR).as_deref(),
            Some("alice@contoso.example")
        );
    }
}

#[test]
fn an_inbox_rule_of_a_path_belongs_to_the_mailbox_in_it() {
    let path = "EUR.PROD/Hosted/contoso.onmicrosoft.com/Alice\\Move meetings";
    let events = read(&cmdlet_record(
        "New-InboxRule",
        path,
        &[
            ("Name", "Move meetings"),
            ("ForwardTo", "x@evil.example"),
            ("DeleteMessage", "True"),
        ],
    ));
    let event = &events[0];
    assert_eq!(
        event.text(field::MAILBOX).as_deref(),
        Some("alice@contoso.example")
    );
    assert!(!event.is(field::MAILBOX_IS_OTHERS));
    assert!(event.is(field::HIDES_MAIL));
    assert_eq!(
        event.text(field::RULE_NAME).as_deref(),
        Some("Move meetings")
    );
}

fn outlook_rule(operation: &str, actions: &Value) -> Value {
    json!({
        "CreationTime": "2026-05-04T08:00:00", "Id": "e-2", "Operation": "UpdateInboxRules",
        "RecordType": 2, "ResultStatus": "Succeeded", "UserType": 0, "Workload": "Exchange",
        "UserId": "alice@contoso.example", "MailboxOwnerUPN": "Alice@contoso.example", "LogonType": 0,
        "OperationProperties": [
            {"Name": "RuleOperation", "Value": operation},
            {"Name": "RuleName", "Value": "rule"},
            {"Name": if actions.is_array() { "RuleActions" } else { "ServerRule" }, "Value": actions.to_string()},
        ],
    })
}

#[test]
fn rules_of_outlook_on_the_desktop_are_read_in_both_forms() {
    let flat = json!([{"ActionType": "Forward", "Recipients": ["x@evil.example"], "ForwardFlags": "None"}]);
    let events = read(&outlook_rule("AddMailboxRule", &flat));
    assert_eq!(told(&events), ["inbox_rule external x@evil.example"]);
    assert!(!events[0].is(field::MAILBOX_IS_OTHERS));

    let server = json!({"Actions": [{"ForwardToRecipientsAction": {"Recipients": [
        {"Values": [{"PropTag": 1, "Value": "X Evil"}, {"PropTag": 2, "Value": "x@evil.example"}]},
        {"Values": [{"Value": "/o=ExchangeLabs/cn=Recipients/cn=bob"}, {"Value": "Bob"}]},
    ]}}, {"DeleteAction": {}}]});
    let events = read(&outlook_rule("ModifyMailboxRule", &server));
    assert_eq!(
        told(&events),
        [
            "inbox_rule external x@evil.example",
            "inbox_rule internal bob"
        ]
    );
    assert!(events[0].is(field::HIDES_MAIL));
}

#[test]
fn rules_that_do_not_send_and_rules_taken_away_have_no_destination() {
    let moves = json!([{"ActionType": "Move", "Recipients": ["x@evil.example"], "FolderName": "RSS Feeds"}]);
    let events = read(&outlook_rule("AddMailboxRule", &moves));
    assert_eq!(told(&events), ["- - -"]);
    assert!(events[0].is(field::HIDES_MAIL));
    let flat = json!([{"ActionType": "Redirect", "Recipients": ["x@evil.example"]}]);
    let events = read(&outlook_rule("RemoveMailboxRule", &flat));
    assert!(events[0].is(field::IS_REMOVAL) && events[0].get(field::FORWARD_TO).is_none());
}

#[test]
fn a_grant_names_who_gets_which_access_to_whose_mailbox() {
    for (operation, parameters, expected) in [
        (
            "Add-MailboxPermission",
            vec![
                ("User", "EUR.PROD/Hosted/contoso.onmicrosoft.com/Eve"),
                ("AccessRights", "FullAccess"),
            ],
            ["eve", "FullAccess", "-"],
        ),
        (
            "Add-RecipientPermission",
            vec![
                ("Trustee", "Bob@contoso.example"),
                ("AccessRights", "SendAs"),
            ],
            ["bob@contoso.example", "SendAs", "false"],
        ),
        (
            "Set-Mailbox",
            vec![("GrantSendOnBehalfTo", "x@evil.example;bob")],
            ["x@evil.example", "SendOnBehalf", "true"],
        ),
        (
            "Set-Mailbox",
            vec![("GrantSendOnBehalfTo", "")],
            ["-", "-", "-"],
        ),
    ] {
        let events = read(&cmdlet_record(operation, "carol", &parameters));
        let told = [field::TARGET, field::ROLE, field::IS_EXTERNAL].map(|name| {
            events[0]
                .text(name)
                .map_or("-".into(), std::borrow::Cow::into_owned)
        });
        assert_eq!(told, expected, "{operation}");
        assert_eq!(events[0].text(field::MAILBOX).as_deref(), Some("carol"));
    }
}

#[test]
fn an_actor_who_gives_himself_access_is_told() {
    for (user, expected) in [
        ("EUR.PROD/Hosted/x/Alice", Some("true")),
        ("NT AUTHORITY\\SELF", Some("false")),
    ] {
        let parameters = [("User", user), ("AccessRights", "FullAccess")];
        let events = read(&cmdlet_record("Add-MailboxPermission", "bob", &parameters));
        let own = events[0].text(field::TARGET_IS_ACTOR);
        assert_eq!(own.as_deref(), expected, "{user}");
    }
}

#[test]
fn a_contact_stands_for_an_address_outside() {
    let parameters = [
        ("Name", "Contact X"),
        ("ExternalEmailAddress", "SMTP:X@evil.example"),
    ];
    let events = read(&cmdlet_record("New-MailContact", "", &parameters));
    let told = [field::OBJECT_NAME, field::TARGET, field::EXTERNAL_DOMAIN]
        .map(|name| events[0].text(name).map(std::borrow::Cow::into_owned));
    let expected = ["contact x", "x@evil.example", "evil.example"];
    assert_eq!(told, expected.map(|text| Some(text.to_owned())));
}

#[test]
fn whose_mail_a_rule_acts_on_is_told_where_a_condition_is_an_address() {
    for (operation, parameter, value, expected) in [
        (
            "New-InboxRule",
            "From",
            "\"X\" [SMTP:X@evil.example]",
            Some("x@evil.example"),
        ),
        (
            "New-InboxRule",
            "BodyContainsWords",
            "invoice;x@evil.example",
            Some("x@evil.example"),
        ),
        (
            "Set-TransportRule",
            "SubjectOrBodyContainsWords",
            "invoice",
            None,
        ),
        ("New-InboxRule", "ForwardTo", "x@evil.example", None),
    ] {
        let events = read(&cmdlet_record(operation, "bob\\r", &[(parameter, value)]));
        let sender = events[0].text(field::RULE_SENDER);
        assert_eq!(sender.as_deref(), expected, "{parameter}");
    }
}

#[test]
fn a_rule_named_by_its_identity_alone_has_a_mailbox_and_a_name() {
    let events = read(&cmdlet_record(
        "Enable-InboxRule",
        "",
        &[("Identity", "carol\\r")],
    ));
    assert_eq!(events[0].text(field::RULE_NAME).as_deref(), Some("r"));
    assert_eq!(events[0].text(field::MAILBOX).as_deref(), Some("carol"));
}

use chrono::{TimeDelta, Utc};
use exfilwatch_state::{Commit, MemoryStore, Position};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::things::{SLOTS_EACH, UNGRANTED_MAX};
use super::*;
use crate::app::readers;

fn at(seconds: i64) -> chrono::DateTime<Utc> {
    let start: chrono::DateTime<Utc> = "2026-05-04T08:00:00Z".parse().unwrap();
    start + TimeDelta::seconds(seconds)
}

fn tenant() -> TenantId {
    TenantId::new("corp").unwrap()
}

/// A record of Office 365, in the vendor's shape.
fn m365(seconds: i64, operation: &str, members: &Value) -> Value {
    let mut record = json!({
        "CreationTime": at(seconds).format("%Y-%m-%dT%H:%M:%S").to_string(), "Id": format!("m-{seconds}"),
        "Operation": operation, "UserType": 0, "UserId": "alice@corp.example", "ClientIP": "203.0.113.9",
        "OrganizationName": "corp.example",
    });
    record
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    record
}

fn cmdlet(seconds: i64, name: &str, object: &str, parameters: &[(&str, &str)]) -> Value {
    let pair = |(name, value): &(&str, &str)| json!({"Name": name, "Value": value});
    let parameters: Vec<Value> = parameters.iter().map(pair).collect();
    let members = json!({
        "RecordType": 1, "ResultStatus": "True", "Workload": "Exchange", "ObjectId": object,
        "Parameters": parameters,
    });
    m365(seconds, name, &members)
}

fn of_outlook(seconds: i64, operation: &str, state: &str, actions: &Value) -> Value {
    let members = json!({
        "RecordType": 2, "ResultStatus": "Succeeded", "Workload": "Exchange",
        "MailboxOwnerUPN": "alice@corp.example", "LogonType": 0,
        "OperationProperties": [
            {"Name": "RuleOperation", "Value": operation}, {"Name": "RuleState", "Value": state},
            {"Name": "RuleName", "Value": "x"}, {"Name": "RuleActions", "Value": actions.to_string()},
        ],
    });
    m365(seconds, "UpdateInboxRules", &members)
}

const PLAN: &str = "https://corp-my.sharepoint.com/personal/alice_corp_example/Documents/plan.docx";

fn sharepoint(seconds: i64, operation: &str, members: &Value) -> Value {
    let mut record = json!({
        "RecordType": 14, "Workload": "OneDrive", "EventSource": "SharePoint", "ItemType": "File",
        "ObjectId": PLAN, "SourceFileName": "plan.docx",
    });
    record
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    m365(seconds, operation, &record)
}

fn guest(seconds: i64, operation: &str, link: &str) -> Value {
    let members = json!({
        "TargetUserOrGroupName": "bob@gmail.com", "TargetUserOrGroupType": "Guest", "UniqueSharingId": link,
    });
    sharepoint(seconds, operation, &members)
}

fn google(seconds: i64, application: &str, actor: &str, events: &Value) -> Value {
    json!({
        "id": {"time": at(seconds).to_rfc3339(), "uniqueQualifier": seconds.to_string(),
               "applicationName": application},
        "actor": {"email": actor}, "ipAddress": "203.0.113.9", "events": events,
    })
}

fn drive(seconds: i64, name: &str, visibility: &str, more: &[(&str, &str)]) -> Value {
    let fixed = [
        ("doc_id", "d1"),
        ("doc_title", "Plan"),
        ("owner", "alice@corp.example"),
        ("visibility", visibility),
    ];
    let parameter = |(name, value): (&str, &str)| match name {
        "old_value" | "new_value" => json!({"name": name, "multiValue": [value]}),
        _ => json!({"name": name, "value": value}),
    };
    let parameters: Vec<Value> = fixed
        .into_iter()
        .chain(more.iter().copied())
        .map(parameter)
        .collect();
    let events = json!([{"type": "acl_change", "name": name, "parameters": parameters}]);
    google(seconds, "drive", "alice@corp.example", &events)
}

fn user_access(seconds: i64, who: &str, from: &str, to: &str, visibility: &str) -> Value {
    let more = [("target_user", who), ("old_value", from), ("new_value", to)];
    drive(seconds, "change_user_access", visibility, &more)
}

fn link(seconds: i64, from: &str, to: &str) -> Value {
    let more = [
        ("target_domain", "all"),
        ("old_value", from),
        ("new_value", to),
        ("old_visibility", from),
    ];
    drive(seconds, "change_document_visibility", to, &more)
}

/// Folds a record as the step does; gives what is to be written.
fn fold(inventory: &mut Inventory, record: &Value) -> Vec<WindowChange> {
    let readers = readers(&["corp.example"], &[]);
    let product = if record.get("id").is_some() {
        Product::GoogleWorkspace
    } else {
        Product::M365
    };
    let reader = readers.of(product);
    let record = RawRecord::new(record.to_string().into());
    let head = reader.head(&record).unwrap();
    if !Wants::default().record(reader, &record, &head) {
        return Vec::new();
    }
    inventory.fold(&reader.normalise(&record, at(0)).unwrap());
    let windows = inventory.to_write(&tenant());
    inventory.written();
    windows
}

fn folded(records: &[Value]) -> Inventory {
    let mut inventory = Inventory::default();
    for record in records {
        fold(&mut inventory, record);
    }
    inventory
}

fn lines(inventory: &Inventory, room: Room) -> Vec<Line> {
    let asked = Asked {
        room,
        tenant: None,
        actor: None,
        limit: 100,
    };
    list_of(&tenant(), inventory, &asked).lines
}

/// The lines, short.
fn shown(inventory: &Inventory, room: Room) -> Vec<String> {
    let short = |line: Line| {
        let to = line.to.iter();
        let to: Vec<String> = to
            .map(|to| format!("{} {}", to.direction, to.address))
            .collect();
        let name = line.name.unwrap_or_default();
        format!("{} {} {name} > {}", line.of, line.via, to.join(", "))
    };
    lines(inventory, room).into_iter().map(short).collect()
}

fn forwarding(records: &[Value]) -> Vec<String> {
    shown(&folded(records), Room::Forwarding)
}

/// Whom the documents are open to.
fn open_to(records: &[Value]) -> Vec<String> {
    let lines = lines(&folded(records), Room::Sharing);
    lines
        .into_iter()
        .map(|line| line.to[0].address.clone())
        .collect()
}

const SET: (&str, &str) = ("ForwardingSmtpAddress", "smtp:x@gmail.com");
const ALICE: (&str, &str) = ("Identity", "alice@corp.example");

#[test]
fn a_mailbox_forwards_until_it_is_emptied_or_gone() {
    let set = cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET]);
    let line = "alice@corp.example smtp_address  > external x@gmail.com";
    assert_eq!(forwarding(std::slice::from_ref(&set)), [line]);
    let detail = &lines(&folded(std::slice::from_ref(&set)), Room::Forwarding)[0];
    assert_eq!(detail.by.as_deref(), Some("alice@corp.example"));
    assert_eq!((detail.since, detail.record_id.as_str()), (at(0), "m-0"));

    let emptied = cmdlet(
        9,
        "Set-Mailbox",
        "alice",
        &[ALICE, ("ForwardingSmtpAddress", "")],
    );
    assert_eq!(forwarding(&[set.clone(), emptied.clone()]), [""; 0]);
    assert_eq!(
        forwarding(&[emptied, set.clone()]),
        [""; 0],
        "the later counts"
    );
    let gone = cmdlet(9, "Remove-Mailbox", "alice", &[ALICE]);
    assert_eq!(forwarding(&[set.clone(), gone]), [""; 0]);
    let mut failed = cmdlet(
        9,
        "Set-Mailbox",
        "alice",
        &[ALICE, ("ForwardingSmtpAddress", "")],
    );
    failed["ResultStatus"] = json!("False");
    assert_eq!(
        forwarding(&[set.clone(), failed]),
        [line],
        "what failed changed nothing"
    );
    let else_ = cmdlet(
        9,
        "Set-Mailbox",
        "alice",
        &[ALICE, ("AuditEnabled", "True")],
    );
    assert_eq!(forwarding(&[set, else_]), [line]);
}

#[test]
fn a_rule_that_is_switched_off_and_on_keeps_its_destinations() {
    let two = [
        ("Name", "Buy"),
        ("ForwardTo", "x@evil.example;bob@corp.example"),
    ];
    let new = cmdlet(0, "New-InboxRule", "alice\\Buy", &two);
    let line =
        "alice@corp.example inbox_rule buy > external x@evil.example, internal bob@corp.example";
    assert_eq!(forwarding(std::slice::from_ref(&new)), [line]);
    let named = [("Identity", "alice\\Buy")];
    let off = cmdlet(1, "Disable-InboxRule", "alice\\Buy", &named);
    let on = cmdlet(2, "Enable-InboxRule", "alice\\Buy", &named);
    let gone = cmdlet(3, "Remove-InboxRule", "alice\\Buy", &named);
    assert_eq!(forwarding(&[off.clone(), new.clone()]), [""; 0]);
    assert_eq!(forwarding(&[on.clone(), new.clone(), off.clone()]), [line]);
    assert_eq!(forwarding(&[gone, new, off, on.clone()]), [""; 0]);
    assert_eq!(forwarding(&[on]), [""; 0], "it was never seen to forward");
}

#[test]
fn of_two_settings_that_are_emptied_at_once_none_is_left() {
    let object = ("ForwardingAddress", "x@evil.example");
    let none = |name| (name, "$null");
    let set = cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET, object]);
    let smtp = "alice@corp.example smtp_address  > external x@gmail.com";
    let recipient = "alice@corp.example recipient_object  > external x@evil.example";
    assert_eq!(
        forwarding(std::slice::from_ref(&set)),
        [recipient, smtp],
        "both are told"
    );
    let both = [
        ALICE,
        none("ForwardingSmtpAddress"),
        none("ForwardingAddress"),
    ];
    let both = cmdlet(1, "Set-Mailbox", "alice", &both);
    assert_eq!(forwarding(&[set.clone(), both]), [""; 0]);
    let one = [ALICE, none("ForwardingSmtpAddress"), object];
    let one = cmdlet(1, "Set-Mailbox", "alice", &one);
    assert_eq!(
        forwarding(&[set, one]),
        [recipient],
        "the other was emptied"
    );
}

#[test]
fn each_parameter_of_a_rule_has_destinations_of_its_own() {
    let name = ("Name", "Buy");
    let identity = ("Identity", "alice\\Buy");
    let cmdlet = |seconds, verb: &str, parameters: &[(&str, &str)]| {
        cmdlet(
            seconds,
            &format!("{verb}-InboxRule"),
            "alice\\Buy",
            parameters,
        )
    };
    let two = [
        name,
        ("ForwardTo", "a@evil.example"),
        ("RedirectTo", "b@evil.example"),
    ];
    let new = cmdlet(0, "New", &two);
    let line = |to: &str| format!("alice@corp.example inbox_rule buy > external {to}@evil.example");
    assert_eq!(
        forwarding(std::slice::from_ref(&new)),
        [line("a"), line("b")]
    );
    let one = cmdlet(1, "Set", &[identity, ("RedirectTo", "$null")]);
    assert_eq!(forwarding(&[new.clone(), one.clone()]), [line("a")]);
    assert_eq!(forwarding(&[one, new.clone()]), [line("a")]);
    let other = cmdlet(1, "Set", &[identity, ("RedirectTo", "c@evil.example")]);
    assert_eq!(
        forwarding(&[new.clone(), other.clone()]),
        [line("c"), line("a")]
    );

    let off = cmdlet(2, "Disable", &[identity]);
    let while_off = cmdlet(3, "Set", &[identity, ("RedirectTo", "d@evil.example")]);
    let on = cmdlet(4, "Enable", &[identity]);
    assert_eq!(forwarding(&[new.clone(), off.clone()]), [""; 0]);
    assert_eq!(
        forwarding(&[new.clone(), off.clone(), while_off.clone()]),
        [""; 0],
        "what is set of a rule that is off is off"
    );
    let all = [on, while_off, off, other, new.clone()];
    assert_eq!(forwarding(&all), [line("a"), line("d")]);
    assert_eq!(lines(&folded(&all), Room::Forwarding)[0].since, at(4));

    let gone = cmdlet(5, "Remove", &[identity]);
    let late = cmdlet(6, "Enable", &[identity]);
    assert_eq!(forwarding(&[new.clone(), gone.clone(), late]), [""; 0]);
    let anew = cmdlet(7, "New", &[name, ("RedirectTo", "e@evil.example")]);
    assert_eq!(
        forwarding(&[anew, gone.clone(), new.clone()]),
        [line("e")],
        "the old rule does not come back with its name"
    );
    let unseen = cmdlet(7, "Set", &[identity, ("RedirectTo", "f@evil.example")]);
    assert_eq!(forwarding(&[new, gone, unseen]), [line("f")]);
}

#[test]
fn outlook_replaces_what_cmdlets_have_set_of_a_rule() {
    let cmdlet = cmdlet(
        0,
        "New-InboxRule",
        "alice@corp.example\\x",
        &[("Name", "x"), ("ForwardTo", "a@evil.example")],
    );
    let sends = json!([{"ActionType": "Forward", "Recipients": ["b@evil.example"]}]);
    let moves = json!([{"ActionType": "Move", "FolderName": "Old"}]);
    let line = "alice@corp.example inbox_rule x > external b@evil.example";
    let whole = of_outlook(1, "ModifyMailboxRule", "Enabled", &sends);
    assert_eq!(forwarding(&[cmdlet.clone(), whole]), [line]);
    let whole = of_outlook(1, "ModifyMailboxRule", "Enabled", &moves);
    assert_eq!(forwarding(&[cmdlet, whole]), [""; 0]);
}

#[test]
fn a_connector_and_a_transport_rule_are_switched_off_and_on() {
    let hosts = [("Name", "Out"), ("SmartHosts", "mx.evil.example")];
    let new = cmdlet(0, "New-OutboundConnector", "Out", &hosts);
    let switch = |seconds, to| {
        let parameters = [("Identity", "Out"), ("Enabled", to)];
        cmdlet(seconds, "Set-OutboundConnector", "Out", &parameters)
    };
    let line = "(organisation) outbound_connector out > external mx.evil.example";
    assert_eq!(forwarding(&[new.clone(), switch(1, "False")]), [""; 0]);
    assert_eq!(forwarding(&[new.clone(), switch(1, "$false")]), [""; 0]);
    assert_eq!(
        forwarding(&[switch(2, "True"), new.clone(), switch(1, "False")]),
        [line]
    );
    assert_eq!(
        forwarding(&[switch(1, "True")]),
        [""; 0],
        "where to was not seen"
    );

    let made_off = [hosts[0], hosts[1], ("Enabled", "False")];
    let made_off = cmdlet(0, "New-OutboundConnector", "Out", &made_off);
    assert_eq!(forwarding(std::slice::from_ref(&made_off)), [""; 0]);
    assert_eq!(forwarding(&[made_off, switch(1, "True")]), [line]);

    let rule = [("Name", "Copy"), ("BlindCopyTo", "x@evil.example")];
    let rule = cmdlet(0, "New-TransportRule", "Copy", &rule);
    let named = [("Identity", "Copy")];
    let off = cmdlet(1, "Disable-TransportRule", "Copy", &named);
    let on = cmdlet(2, "Enable-TransportRule", "Copy", &named);
    let line = "(organisation) transport_rule copy > external x@evil.example";
    assert_eq!(forwarding(&[rule.clone(), off.clone()]), [""; 0]);
    assert_eq!(forwarding(&[rule, off, on]), [line]);
}

#[test]
fn a_rule_that_outlook_on_the_web_removes_by_its_number_is_doubted() {
    let rule = [("Name", "Buy"), ("ForwardTo", "x@evil.example")];
    let new = cmdlet(0, "New-InboxRule", "alice\\Buy", &rule);
    let number = "alice\\16402948302948302";
    let gone = cmdlet(60, "Remove-InboxRule", number, &[("Identity", number)]);
    let lines = lines(&folded(&[gone, new]), Room::Forwarding);
    assert_eq!(lines.len(), 1);
    let doubt = lines[0].doubt.as_deref().unwrap_or_default();
    assert!(doubt.contains("removed 2026-05-04T08:01Z"), "{doubt}");
}

#[test]
fn outlook_writes_the_whole_rule_each_time() {
    let sends = json!([{"ActionType": "Forward", "Recipients": ["x@evil.example"]}]);
    let moves = json!([{"ActionType": "Move", "FolderName": "Old"}]);
    let new = of_outlook(0, "AddMailboxRule", "Enabled", &sends);
    let line = "alice@corp.example inbox_rule x > external x@evil.example";
    assert_eq!(forwarding(std::slice::from_ref(&new)), [line]);
    for end in [
        of_outlook(5, "ModifyMailboxRule", "Enabled", &moves),
        of_outlook(5, "ModifyMailboxRule", "Disabled", &sends),
        of_outlook(5, "RemoveMailboxRule", "Enabled", &json!([])),
    ] {
        assert_eq!(forwarding(&[end.clone(), new.clone()]), [""; 0], "{end}");
    }
    assert_eq!(
        forwarding(&[of_outlook(0, "AddMailboxRule", "Enabled", &moves)]),
        [""; 0]
    );
}

#[test]
fn rules_of_the_organisation_stand_under_their_names() {
    let rule = [("Name", "Copy"), ("BlindCopyTo", "x@evil.example")];
    let new = cmdlet(0, "New-TransportRule", "Copy", &rule);
    let off = [
        ("Name", "Copy"),
        ("BlindCopyTo", "x@evil.example"),
        ("Enabled", "False"),
    ];
    assert_eq!(
        forwarding(&[cmdlet(0, "New-TransportRule", "Copy", &off)]),
        [""; 0]
    );
    let gone = cmdlet(1, "Remove-TransportRule", "Copy", &[("Identity", "Copy")]);
    let hosts = [("Name", "Out"), ("SmartHosts", "mx.evil.example")];
    let connector = cmdlet(2, "New-OutboundConnector", "Out", &hosts);
    let no_more = cmdlet(3, "Remove-OutboundConnector", "Out", &[("Identity", "Out")]);
    let copy = "(organisation) transport_rule copy > external x@evil.example";
    let out = "(organisation) outbound_connector out > external mx.evil.example";
    assert_eq!(forwarding(&[new.clone(), connector.clone()]), [out, copy]);
    assert_eq!(forwarding(&[gone, new, connector.clone()]), [out]);
    assert_eq!(forwarding(&[no_more, connector]), [""; 0]);
}

#[test]
fn gmail_forwards_by_accounts_and_by_monitors() {
    let out = json!([{"type": "email_forwarding_change", "name": "email_forwarding_out_of_domain",
        "parameters": [{"name": "email_forwarding_destination_address", "value": "x@outlook.com"}]}]);
    let forward = google(0, "user_accounts", "boss@corp.example", &out);
    let monitor = |seconds, name: &str| {
        let events = json!([{"type": "USER_SETTINGS", "name": name, "parameters": [
            {"name": "USER_EMAIL", "value": "Boss@corp.example"},
            {"name": "EMAIL_MONITOR_DEST_EMAIL", "value": "watch@corp.example"}]}]);
        google(seconds, "admin", "admin@corp.example", &events)
    };
    let records = [forward.clone(), monitor(1, "CREATE_EMAIL_MONITOR")];
    let account = "boss@corp.example account_setting  > external x@outlook.com";
    let copy = "boss@corp.example email_monitor watch@corp.example > internal watch@corp.example";
    assert_eq!(forwarding(&records), [account, copy]);
    let ended = [
        monitor(2, "DELETE_EMAIL_MONITOR"),
        monitor(1, "CREATE_EMAIL_MONITOR"),
        forward.clone(),
    ];
    assert_eq!(forwarding(&ended), [account]);
    let events = json!([{"type": "USER_SETTINGS", "name": "DELETE_USER",
        "parameters": [{"name": "USER_EMAIL", "value": "boss@corp.example"}]}]);
    let deleted = google(3, "admin", "admin@corp.example", &events);
    assert_eq!(forwarding(&[deleted, forward]), [""; 0]);
}

#[test]
fn a_guest_has_access_until_it_is_taken_back_or_the_link_or_file_is_gone() {
    let given = guest(0, "AddedToSecureLink", "l1");
    assert_eq!(open_to(std::slice::from_ref(&given)), ["bob@gmail.com"]);
    let detail = &lines(&folded(std::slice::from_ref(&given)), Room::Sharing)[0];
    assert_eq!(detail.name.as_deref(), Some("plan.docx"));
    assert_eq!(detail.class.as_deref(), Some("guest"));
    for end in [
        guest(5, "RemovedFromSecureLink", "l1"),
        sharepoint(5, "SecureLinkDeleted", &json!({"UniqueSharingId": "l1"})),
        sharepoint(5, "FileRecycled", &json!({})),
        sharepoint(5, "FileDeleted", &json!({})),
    ] {
        assert_eq!(open_to(&[given.clone(), end.clone()]), [""; 0], "{end}");
        assert_eq!(
            open_to(&[end.clone(), given.clone()]),
            [""; 0],
            "late: {end}"
        );
    }
    let other = sharepoint(5, "SecureLinkDeleted", &json!({"UniqueSharingId": "l2"}));
    let blocked = guest(5, "SharingInvitationBlocked", "l1");
    let earlier = guest(-5, "RemovedFromSecureLink", "l1");
    assert_eq!(
        open_to(&[given.clone(), other, blocked, earlier]),
        ["bob@gmail.com"]
    );
    let recycled = sharepoint(5, "FileRecycled", &json!({}));
    let restored = sharepoint(6, "FileRestored", &json!({}));
    assert_eq!(
        open_to(&[restored, given, recycled]),
        ["bob@gmail.com"],
        "it is back"
    );
}

#[test]
fn a_share_with_a_colleague_is_none_with_somebody_outside() {
    let members =
        json!({"TargetUserOrGroupName": "bob@corp.example", "TargetUserOrGroupType": "Member"});
    assert_eq!(
        open_to(&[sharepoint(0, "AddedToSecureLink", &members)]),
        [""; 0]
    );
    let inside = user_access(
        0,
        "bob@corp.example",
        "none",
        "can_edit",
        "shared_internally",
    );
    assert_eq!(open_to(&[inside]), [""; 0]);
}

#[test]
fn links_for_anyone_are_known_by_their_ids() {
    let link = |seconds, operation: &str, id: &str| {
        sharepoint(seconds, operation, &json!({"UniqueSharingId": id}))
    };
    let both = [
        link(0, "AnonymousLinkCreated", "l1"),
        link(1, "AnonymousLinkCreated", "l2"),
    ];
    assert_eq!(open_to(&both), ["anyone", "anyone"]);
    let [first, second] = both;
    let gone = link(2, "AnonymousLinkRemoved", "l1");
    assert_eq!(open_to(&[gone.clone(), first, second.clone()]), ["anyone"]);
    let gone_too = link(3, "AnonymousLinkRemoved", "l2");
    assert_eq!(open_to(&[gone, gone_too, second]), [""; 0]);
    let nameless = [
        sharepoint(0, "AnonymousLinkCreated", &json!({})),
        sharepoint(1, "AnonymousLinkRemoved", &json!({})),
    ];
    assert_eq!(open_to(&nameless), [""; 0]);
}

#[test]
fn the_last_access_from_outside_is_known_and_changes_nothing_else() {
    let made = sharepoint(0, "AnonymousLinkCreated", &json!({}));
    let used = |seconds| {
        sharepoint(
            seconds,
            "AnonymousLinkUsed",
            &json!({"UserId": "urn:spo:anon#7d8f", "UserType": 10}),
        )
    };
    let own = sharepoint(9_000, "FileAccessed", &json!({}));
    let inventory = folded(&[used(7_300), made.clone(), own, used(3_700)]);
    let line = &lines(&inventory, Room::Sharing)[0];
    assert_eq!(line.since, at(0), "a use is no change");
    assert_eq!(line.last_access, Some(at(7_200)), "by the hour");
    assert!(line.last_access_by.is_some());

    let members = json!({"UserId": "bob_gmail.com#ext#@corp.onmicrosoft.com"});
    let by_guest = sharepoint(10_900, "FileDownloaded", &members);
    let line = &lines(&folded(&[by_guest, made]), Room::Sharing)[0];
    assert_eq!(line.last_access, Some(at(10_800)));
    assert_eq!(line.last_access_by.as_deref(), Some("bob@gmail.com"));

    let opened = link(0, "private", "people_with_link");
    let view = |seconds, actor: &str| {
        let events = json!([{"type": "access", "name": "view", "parameters": [
            {"name": "doc_id", "value": "d1"}, {"name": "visibility", "value": "people_with_link"}]}]);
        google(seconds, "drive", actor, &events)
    };
    let inside = view(9_000, "carol@corp.example");
    let outside = view(3_700, "eve@evil.example");
    let line = &lines(&folded(&[inside, outside, opened]), Room::Sharing)[0];
    assert_eq!(line.last_access, Some(at(3_600)));
    assert_eq!(line.last_access_by.as_deref(), Some("eve@evil.example"));
}

#[test]
fn what_is_repeated_within_the_hour_is_not_written_again() {
    let mut inventory = Inventory::default();
    let used = |seconds| {
        sharepoint(
            seconds,
            "AnonymousLinkUsed",
            &json!({"UserId": "urn:spo:anon#7d8f", "UserType": 10}),
        )
    };
    assert!(!fold(&mut inventory, &used(1)).is_empty());
    assert!(fold(&mut inventory, &used(2)).is_empty());
    assert!(!fold(&mut inventory, &used(3_601)).is_empty());
    let given = guest(0, "AddedToSecureLink", "l1");
    assert!(!fold(&mut inventory, &given).is_empty());
    assert!(fold(&mut inventory, &given).is_empty());
}

#[test]
fn a_document_of_drive_is_closed_by_what_the_vendor_says_of_it() {
    let bob = user_access(0, "bob@gmail.com", "none", "can_view", "shared_externally");
    assert_eq!(open_to(std::slice::from_ref(&bob)), ["bob@gmail.com"]);
    let taken = user_access(5, "bob@gmail.com", "can_view", "none", "private");
    assert_eq!(open_to(&[taken, bob.clone()]), [""; 0]);
    // Somebody else's share says that nobody outside has access any more.
    let inside = user_access(
        5,
        "carol@corp.example",
        "none",
        "can_view",
        "shared_internally",
    );
    assert_eq!(open_to(&[inside, bob.clone()]), [""; 0]);
    let opened = link(1, "shared_externally", "people_with_link");
    assert_eq!(
        open_to(&[bob.clone(), opened.clone()]),
        ["anyone", "bob@gmail.com"]
    );
    let shut = link(2, "people_with_link", "shared_externally");
    assert_eq!(
        open_to(&[shut, opened.clone(), bob.clone()]),
        ["bob@gmail.com"]
    );
    let private = link(2, "people_with_link", "private");
    assert_eq!(open_to(&[private, opened.clone(), bob.clone()]), [""; 0]);
    let trash = drive(3, "trash", "people_with_link", &[]);
    assert_eq!(
        open_to(&[trash.clone(), opened.clone(), bob.clone()]),
        [""; 0]
    );
    let back = drive(4, "untrash", "people_with_link", &[]);
    assert_eq!(
        open_to(&[back, trash, opened, bob]),
        ["anyone", "bob@gmail.com"]
    );
}

#[test]
fn that_a_document_is_open_is_told_where_the_grant_was_not_seen() {
    let inside = user_access(
        0,
        "carol@corp.example",
        "none",
        "can_view",
        "shared_externally",
    );
    let lines = lines(&folded(&[inside]), Room::Sharing);
    assert_eq!(lines[0].to[0].address, "shared_externally");
    assert!(lines[0].doubt.is_some());
}

#[test]
fn what_is_asked_for_is_a_part_and_the_most_exposed_comes_first() {
    let inventory = folded(&[
        cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET]),
        cmdlet(
            9,
            "New-InboxRule",
            "alice\\In",
            &[("Name", "In"), ("ForwardTo", "bob@corp.example")],
        ),
    ]);
    let asked = |actor: Option<&str>, limit| {
        let asked = Asked {
            room: Room::Forwarding,
            tenant: None,
            actor: actor.map(str::to_owned),
            limit,
        };
        list_of(&tenant(), &inventory, &asked)
    };
    let all = asked(None, 1);
    assert_eq!(
        (all.lines[0].via.as_str(), all.left_out),
        ("smtp_address", 1)
    );
    assert_eq!(asked(Some("X@Gmail.com"), 9).lines.len(), 1);
    assert_eq!(asked(Some("alice@corp.example"), 9).lines.len(), 2);
    assert_eq!(asked(Some("dave@corp.example"), 9).lines.len(), 0);
}

/// Everything that a step is to write, written.
fn write(store: &MemoryStore, windows: Vec<WindowChange>) {
    for change in &windows {
        let bytes = change.value.as_ref().map_or(0, Vec::len);
        assert!(bytes <= 4_096, "{bytes}");
    }
    let commit = Commit {
        windows,
        ..Commit::default()
    };
    store.apply(&[commit], Position::default()).unwrap();
}

#[test]
fn it_is_read_again_as_it_was_written_and_the_longest_texts_fit() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    let long = "\"\\ü".repeat(3_000);
    let addresses: Vec<String> = (0..30)
        .map(|n| format!("{n}{}@evil.example", "x".repeat(190)))
        .collect();
    let parameters = [("Name", long.as_str()), ("ForwardTo", &addresses.join(";"))];
    let mut rule = cmdlet(0, "New-InboxRule", &format!("{long}\\{long}"), &parameters);
    rule["UserId"] = json!(long);
    let members = json!({
        "ObjectId": format!("https://{long}"), "SourceFileName": long, "TargetUserOrGroupName": long,
        "TargetUserOrGroupType": "Guest", "UniqueSharingId": long, "Id": long,
    });
    for record in [
        rule,
        sharepoint(1, "AddedToSecureLink", &members),
        cmdlet(2, "Set-Mailbox", "alice", &[ALICE, SET]),
        guest(3, "AddedToSecureLink", "l1"),
    ] {
        let changed = fold(&mut inventory, &record);
        assert!(!changed.is_empty());
        write(&store, changed);
    }
    let again = Inventory::load(&store, &tenant()).unwrap();
    for room in Room::ALL {
        assert_eq!(lines(&again, room), lines(&inventory, room));
        assert_eq!(lines(&again, room).len(), 2);
    }
}

#[test]
fn beyond_its_bound_what_stands_open_stays_longest_and_what_goes_is_counted() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    inventory.rooms.get_mut(&Room::Sharing).unwrap().slots_max = 4;
    let file = |seconds, operation: &str, name: &str| {
        let mut record = guest(seconds, operation, "l1");
        record["ObjectId"] = json!(format!("https://corp/{name}"));
        record
    };
    for record in [
        file(0, "AddedToSecureLink", "a"),
        file(1, "AddedToSecureLink", "b"),
        file(2, "AddedToSecureLink", "closed"),
        file(3, "RemovedFromSecureLink", "closed"),
        file(4, "FileRecycled", "unknown"),
        file(5, "AddedToSecureLink", "c"),
        file(6, "AddedToSecureLink", "d"),
    ] {
        let changed = fold(&mut inventory, &record);
        write(&store, changed);
    }
    let names = |inventory: &Inventory| -> Vec<String> {
        let lines = lines(inventory, Room::Sharing).into_iter();
        lines
            .map(|line| line.of.replace("https://corp/", ""))
            .collect()
    };
    assert_eq!(names(&inventory), ["d", "c", "b", "a"]);
    let changed = fold(&mut inventory, &file(7, "AddedToSecureLink", "e"));
    write(&store, changed);
    let again = Inventory::load(&store, &tenant()).unwrap();
    for inventory in [&inventory, &again] {
        assert_eq!(names(inventory), ["e", "d", "c", "b"]);
        assert_eq!(inventory.rooms[&Room::Sharing].evicted, 1);
    }
}

#[test]
fn of_several_links_to_a_document_each_is_open_until_it_ends() {
    let bob = "bob@gmail.com";
    let both = [
        guest(0, "AddedToSecureLink", "l1"),
        guest(1, "AddedToSecureLink", "l2"),
    ];
    let with = |end: Value| open_to(&[both[0].clone(), end, both[1].clone()]);
    assert_eq!(open_to(&both), [bob, bob]);
    assert_eq!(with(guest(2, "RemovedFromSecureLink", "l1")), [bob]);
    let deleted = sharepoint(2, "SecureLinkDeleted", &json!({"UniqueSharingId": "l2"}));
    assert_eq!(with(deleted), [bob]);

    let plain = json!({"TargetUserOrGroupName": bob, "TargetUserOrGroupType": "Guest"});
    let shared = sharepoint(1, "SharingSet", &plain);
    let ends = guest(2, "RemovedFromSecureLink", "l1");
    let of_link = [both[0].clone(), shared.clone(), ends];
    assert_eq!(open_to(&of_link), [bob], "he has it without the link too");
    let revoked = sharepoint(3, "SharingRevoked", &plain);
    assert_eq!(open_to(&[shared, revoked]), [""; 0]);
}

#[test]
fn a_thing_has_its_own_bound_and_what_is_over_goes_first() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    inventory
        .rooms
        .get_mut(&Room::Forwarding)
        .unwrap()
        .slots_each = 6;
    let mut step = |record: &Value| {
        let changed = fold(&mut inventory, record);
        write(&store, changed);
        let again = Inventory::load(&store, &tenant()).unwrap();
        for room in Room::ALL {
            assert_eq!(lines(&again, room), lines(&inventory, room));
        }
        let names = lines(&inventory, Room::Forwarding).into_iter();
        let names: Vec<_> = names.filter_map(|line| line.name).collect();
        let things = &inventory.rooms[&Room::Forwarding];
        let slots: usize = things.iter().map(|thing| thing.slots.len()).sum();
        (names.join(""), slots, things.evicted)
    };
    let new = |seconds, name: &str| {
        let rule = [("Name", name), ("BlindCopyTo", "x@evil.example")];
        cmdlet(seconds, "New-TransportRule", name, &rule)
    };
    let gone =
        |seconds, name: &str| cmdlet(seconds, "Remove-TransportRule", name, &[("Identity", name)]);
    step(&new(0, "a"));
    for round in 0..9 {
        let name = format!("churn{round}");
        step(&new(10 * round + 1, &name));
        let (names, slots, evicted) = step(&gone(10 * round + 2, &name));
        assert_eq!((names.as_str(), evicted), ("a", 0), "what is open stays");
        assert!(slots <= 6, "{slots}");
    }
    for (seconds, name) in [(100, "b"), (101, "c"), (102, "d"), (103, "e"), (104, "f")] {
        step(&new(seconds, name));
    }
    assert_eq!(step(&new(105, "g")), ("gfedcb".to_owned(), 6, 1));
}

#[test]
fn a_document_has_so_many_grantees_and_those_that_go_are_counted() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    assert_eq!(inventory.rooms[&Room::Sharing].slots_each, SLOTS_EACH);
    inventory.rooms.get_mut(&Room::Sharing).unwrap().slots_each = 100;
    for number in 0..300 {
        let mut record = guest(number, "AddedToSecureLink", &format!("l{}", number % 7));
        record["TargetUserOrGroupName"] = json!(format!("bob{number}@gmail.com"));
        let changed = fold(&mut inventory, &record);
        write(&store, changed);
    }
    let again = Inventory::load(&store, &tenant()).unwrap();
    for inventory in [&inventory, &again] {
        let lines = lines(inventory, Room::Sharing);
        let latest = lines.iter().all(|line| line.since >= at(200));
        assert_eq!((lines.len(), latest), (100, true));
        assert_eq!(inventory.rooms[&Room::Sharing].evicted, 200);
    }
}

#[test]
fn what_is_over_of_one_mailbox_drives_out_no_other_that_is_open() {
    let mut inventory = Inventory::default();
    let things = inventory.rooms.get_mut(&Room::Forwarding).unwrap();
    things.slots_max = 8;
    fold(
        &mut inventory,
        &cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET]),
    );
    let new = |seconds, name: &str| {
        let rule = [("Name", name), ("BlindCopyTo", "x@evil.example")];
        cmdlet(seconds, "New-TransportRule", name, &rule)
    };
    fold(&mut inventory, &new(1, "stays"));
    for round in 1..20 {
        let name = format!("churn{round}");
        fold(&mut inventory, &new(10 * round, &name));
        let gone = [("Identity", name.as_str())];
        fold(
            &mut inventory,
            &cmdlet(10 * round + 1, "Remove-TransportRule", &name, &gone),
        );
    }
    assert_eq!(
        shown(&inventory, Room::Forwarding),
        [
            "(organisation) transport_rule stays > external x@evil.example",
            "alice@corp.example smtp_address  > external x@gmail.com",
        ]
    );
    let things = &inventory.rooms[&Room::Forwarding];
    let slots: usize = things.iter().map(|thing| thing.slots.len()).sum();
    assert_eq!((slots, things.evicted), (8, 0));
}

#[test]
fn what_a_failed_commit_held_is_to_be_written_again() {
    let mut inventory = Inventory::default();
    let readers = readers(&["corp.example"], &[]);
    let take = |inventory: &mut Inventory, record: &Value| {
        let record = RawRecord::new(record.to_string().into());
        let events = readers.m365.normalise(&record, at(0)).unwrap();
        inventory.fold(&events);
    };
    let first = guest(0, "AddedToSecureLink", "l1");
    take(&mut inventory, &first);
    assert_eq!(inventory.to_write(&tenant()).len(), 1);
    // It failed, and the page comes again.
    take(&mut inventory, &first);
    assert!(!inventory.is_written());
    assert_eq!(inventory.to_write(&tenant()).len(), 1);
    // While that is written something else changes.
    take(&mut inventory, &guest(1, "AddedToSecureLink", "l2"));
    inventory.written();
    assert_eq!(inventory.to_write(&tenant()).len(), 1, "the other one");
    inventory.written();
    assert!(inventory.is_written());
}

#[test]
fn ends_of_what_was_never_granted_are_few() {
    let mut inventory = Inventory::default();
    let count = i64::try_from(UNGRANTED_MAX).unwrap() + 10;
    for number in 0..count {
        let mut record = sharepoint(number, "FileRecycled", &json!({}));
        record["ObjectId"] = json!(format!("https://corp/{number}"));
        fold(&mut inventory, &record);
    }
    let things = &inventory.rooms[&Room::Sharing];
    assert_eq!(things.iter().count(), UNGRANTED_MAX);
    assert_eq!(things.evicted, 0, "nothing that was open");
}

/// Records about few things, so that they meet.
fn any_record() -> impl Strategy<Value = Value> {
    (0..20_u8, 0..20_i64, 0..2_u8).prop_map(|(kind, seconds, which)| {
        let name = ["Buy", "Sell"][usize::from(which)];
        let path = format!("alice\\{name}");
        let rule = [
            ("Name", name),
            ("ForwardTo", "x@evil.example;y@evil.example"),
        ];
        let named = [("Identity", path.as_str())];
        let link_id = ["l1", "l2"][usize::from(which)];
        let mut record = match kind {
            0 => cmdlet(seconds, "Set-Mailbox", "alice", &[ALICE, SET]),
            1 => cmdlet(
                seconds,
                "Set-Mailbox",
                "alice",
                &[ALICE, ("ForwardingSmtpAddress", "")],
            ),
            2 => cmdlet(seconds, "New-InboxRule", &path, &rule),
            3 => cmdlet(seconds, "Disable-InboxRule", &path, &named),
            4 => cmdlet(seconds, "Enable-InboxRule", &path, &named),
            5 => cmdlet(seconds, "Remove-Mailbox", "alice", &[ALICE]),
            6 => guest(seconds, "AddedToSecureLink", link_id),
            7 => guest(seconds, "RemovedFromSecureLink", link_id),
            8 => sharepoint(
                seconds,
                "SecureLinkDeleted",
                &json!({"UniqueSharingId": link_id}),
            ),
            9 => sharepoint(
                seconds,
                "AnonymousLinkCreated",
                &json!({"UniqueSharingId": link_id}),
            ),
            10 => sharepoint(
                seconds,
                "AnonymousLinkUsed",
                &json!({"UserId": format!("urn:spo:anon#{which}")}),
            ),
            11 => sharepoint(seconds, "FileRecycled", &json!({})),
            12 => sharepoint(seconds, "FileRestored", &json!({})),
            13 => user_access(
                seconds,
                "bob@gmail.com",
                "none",
                "can_view",
                "shared_externally",
            ),
            14 => link(seconds, "private", "people_with_link"),
            15 => link(seconds, "people_with_link", "private"),
            16 => cmdlet(
                seconds,
                "Set-InboxRule",
                &path,
                &[
                    named[0],
                    ("ForwardTo", ""),
                    ("RedirectTo", "z@evil.example"),
                ],
            ),
            17 => cmdlet(seconds, "Remove-InboxRule", &path, &named),
            18 => cmdlet(
                seconds,
                "Set-Mailbox",
                "alice",
                &[ALICE, SET, ("ForwardingAddress", "")],
            ),
            _ => drive(seconds, "trash", "people_with_link", &[]),
        };
        // Several at the same second, each a record of its own.
        if record.get("Id").is_some() {
            record["Id"] = json!(format!("{kind}-{which}-{seconds}"));
        } else {
            record["id"]["uniqueQualifier"] = json!(format!("{kind}{which}"));
        }
        record
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_a_function_of_the_set_of_records(
        records in vec(any_record(), 1..40).prop_flat_map(|records| {
            let shuffled = Just(records.clone()).prop_shuffle();
            (Just(records), shuffled)
        }),
        restarts in vec(any::<bool>(), 40),
    ) {
        let (records, shuffled) = records;
        let first = folded(&records);
        let store = MemoryStore::new([1; 16]).unwrap();
        let mut second = Inventory::default();
        for (record, restart) in shuffled.iter().chain(&records).zip(restarts.iter().cycle()) {
            let changed = fold(&mut second, record);
            write(&store, changed);
            if *restart {
                second = Inventory::load(&store, &tenant()).unwrap();
            }
        }
        for room in Room::ALL {
            prop_assert_eq!(lines(&first, room), lines(&second, room));
        }
    }
}

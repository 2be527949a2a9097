//! The records that the tests of the inventory are about, and what it makes of them.

mod bounds;
mod forwarding;
mod sharing;
mod store;

use chrono::{TimeDelta, Utc};
use exfilwatch_state::{Commit, MemoryStore, Position};
use serde_json::{Value, json};

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

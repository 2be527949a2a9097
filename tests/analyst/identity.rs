//! One person under two addresses, in two clouds.

use serde_json::{Value, json};

use crate::desk::{Desk, m365};

const MAIN: &str = "alice@contoso.example";
const ALIAS: &str = "alice@contoso.onmicrosoft.com";

/// A desk whose people list has these lines.
fn desk(people: &str) -> Desk {
    let desk = Desk::new();
    let file = desk.path("exfilwatch.toml");
    let known = std::fs::read_to_string(&file).unwrap();
    let ours = "[\"contoso.example\"]";
    let domains = "[\"contoso.example\", \"contoso.onmicrosoft.com\"]\n\
                   lists = { people_file = \"people.csv\" }";
    assert!(known.contains(ours));
    std::fs::write(file, known.replace(ours, domains)).unwrap();
    std::fs::write(
        desk.path("people.csv"),
        format!("address,aliases\n{people}"),
    )
    .unwrap();
    desk
}

/// Mail forwarded outside by the one account, and a document shared outside by the other.
fn acts() -> [Value; 2] {
    let parameters = json!([
        { "Name": "Identity", "Value": ALIAS },
        { "Name": "ForwardingSmtpAddress", "Value": "smtp:alice.x@gmail.com" },
        { "Name": "DeliverToMailboxAndForward", "Value": "True" },
    ]);
    let forwarded = m365(
        1,
        "2026-05-04T08:00:00Z",
        "Set-Mailbox",
        &json!({ "UserId": ALIAS, "ObjectId": "alice", "ExternalAccess": false, "Parameters": parameters }),
    );
    let shared = json!({
        "id": { "time": "2026-05-04T15:00:00.000Z", "uniqueQualifier": "1", "applicationName": "drive" },
        "actor": { "email": MAIN },
        "events": [{ "name": "change_user_access", "parameters": [
            { "name": "primary_event", "boolValue": true },
            { "name": "target_user", "value": "a.lice@gmail.com" },
            { "name": "new_value", "multiValue": ["can_view"] },
            { "name": "doc_id", "value": "d1" }, { "name": "doc_title", "value": "Plan" },
        ] }],
    });
    [forwarded, shared]
}

/// Detection, whom it is about, and id of all that was found.
fn found(desk: &Desk) -> Vec<(String, String, String)> {
    let listed = desk.json(&["finding", "list", "--signals"]);
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let all = listed.as_array().unwrap().iter();
    let mut all: Vec<_> = all
        .map(|one| {
            (
                text(one, "detection"),
                text(one, "entity"),
                text(one, "uid"),
            )
        })
        .collect();
    all.sort();
    all
}

fn incidents(found: &[(String, String, String)]) -> Vec<(&str, &str)> {
    let all = found
        .iter()
        .filter(|(detection, ..)| detection == "x.risk.incident");
    all.map(|(_, entity, uid)| (entity.as_str(), uid.as_str()))
        .collect()
}

#[test]
fn two_addresses_of_one_person_are_one_incident_whichever_comes_first() {
    let line = format!("{MAIN},{ALIAS}\n");
    let [forwarded, shared] = acts();
    let together = desk(&line);
    together.forward("all.ndjson", &[forwarded.clone(), shared.clone()]);
    let one = found(&together);
    let incident = incidents(&one);
    assert_eq!(incident.len(), 1, "{one:?}");
    assert_eq!(incident[0].0, MAIN);

    let turned = desk(&line);
    turned.forward("all.ndjson", &[shared.clone(), forwarded.clone()]);
    assert_eq!(found(&turned), one, "in any order");

    // Without the alias there are two people, and what is about the main address has the same id.
    let two = desk(&format!("{MAIN},\n"));
    two.forward("all.ndjson", &[forwarded, shared]);
    let apart = found(&two);
    assert_eq!(incidents(&apart), []);
    let of_drive = |found: &[(String, String, String)]| {
        let all = found
            .iter()
            .filter(|(detection, ..)| detection.starts_with("gws."));
        all.cloned().collect::<Vec<_>>()
    };
    assert!(!of_drive(&one).is_empty(), "{one:?}");
    assert_eq!(of_drive(&apart), of_drive(&one));
}

//! `learn` from files: the ordinary is known from then on, the unusual is told, and nothing of the past
//! is.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::desk::{Desk, m365};

const RULE: &str = "o365.mail.access_by_new_client";

fn days_ago(days: i64) -> DateTime<Utc> {
    SystemClock.now() - TimeDelta::days(days)
}

/// Alice's mail is read by an application.
fn read(id: u64, at: DateTime<Utc>, app: &str) -> Value {
    m365(
        id,
        &at.format("%Y-%m-%dT%H:%M:%S").to_string(),
        "MailItemsAccessed",
        &json!({
            "RecordType": 50, "UserType": 0, "ResultStatus": "Succeeded",
            "MailboxOwnerUPN": "alice@contoso.example", "LogonType": 0, "ClientAppId": app,
            "OperationProperties": [{ "Name": "MailAccessType", "Value": "Bind" }],
        }),
    )
}

/// The mail programme every day for three weeks, and once, ten days ago, something else.
fn history() -> Vec<Value> {
    let days = (1..=20).rev().zip(1..);
    let mut records: Vec<Value> = days
        .map(|(day, id)| read(id, days_ago(day), "outlook"))
        .collect();
    records.push(read(50, days_ago(10), "planner"));
    records
}

fn today() -> Vec<Value> {
    let at = SystemClock.now() - TimeDelta::hours(1);
    ["outlook", "planner", "stealer"]
        .into_iter()
        .zip(100..)
        .map(|(app, id)| read(id, at, app))
        .collect()
}

/// A desk with a receiver that is told of signals, too.
fn desk() -> Desk {
    let desk = Desk::new();
    let file = desk.path("exfilwatch.toml");
    let known = std::fs::read_to_string(&file).unwrap();
    let all = "\n[emitters.ndjson.all]\nsend = [\"findings\", \"signals\", \"events\"]\n";
    let path = desk.path("all.ndjson");
    std::fs::write(file, format!("{known}{all}path = \"{}\"\n", path.display())).unwrap();
    desk
}

/// What the receiver was told of the rule.
fn told(desk: &Desk) -> Vec<String> {
    let text = std::fs::read_to_string(desk.path("all.ndjson")).unwrap_or_default();
    let documents = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let of_rule =
        documents.filter(|one: &Value| one["unmapped"]["exfilwatch"]["detection"] == RULE);
    of_rule
        .map(|one| one["message"].as_str().unwrap().to_owned())
        .collect()
}

fn of_rule(known: &Value) -> Value {
    let mut all = known.as_array().unwrap().iter();
    all.find(|one| one["detection"] == RULE)
        .cloned()
        .unwrap_or(Value::Null)
}

#[test]
fn without_learning_a_first_day_is_silent_and_after_it_only_what_is_unusual_is_told() {
    let silent = desk();
    silent.forward("today.ndjson", &today());
    assert_eq!(told(&silent), Vec::<String>::new());

    let desk = desk();
    let past = desk.file("past.ndjson", &history());
    let learned = desk.json(&["learn", &past]);
    assert_eq!(learned["records"], 21);
    let known = of_rule(&learned["learned"]);
    assert_eq!(known["known"], 2, "{learned:#}");
    let received = std::fs::read_to_string(desk.path("all.ndjson")).unwrap_or_default();
    assert_eq!(received, "", "nothing is told or delivered");
    assert_eq!(desk.json(&["finding", "list"]), json!([]));

    let status = desk.json(&["status"]);
    let of_status = of_rule(&status[0]["baselines"]);
    assert_eq!(of_status, known);
    let judges_from: DateTime<Utc> = known["judges_from"].as_str().unwrap().parse().unwrap();
    assert!(judges_from < SystemClock.now(), "{known}");
    let table = desk.said(&["status"]);
    assert!(table.contains("still learn"), "{table}");
    assert!(!table.contains(RULE), "it has learned: {table}");

    desk.forward("today.ndjson", &today());
    let told = told(&desk);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("stealer"), "{told:?}");
    // Learned from before does not count as delivered.
    let past = desk.json(&["forward", "--tenant", "contoso", &past]);
    assert_eq!(past[0]["seen_before"], 0, "{past}");
}

#[test]
fn learning_the_same_again_changes_nothing_and_learning_is_for_one_tenant() {
    let desk = desk();
    let past = desk.file("past.ndjson", &history());
    let once = desk.json(&["learn", &past, "--rule", RULE]);
    let twice = desk.json(&["learn", &past, "--tenant", "contoso"]);
    assert_eq!(of_rule(&once["learned"]), of_rule(&twice["learned"]));
    assert_eq!(once["learned"].as_array().unwrap().len(), 1);

    for (arguments, says) in [
        (
            &["learn", "--tenant", "nobody", &past][..],
            "there is no tenant nobody",
        ),
        (&["learn"][..], "--since"),
        (
            &["learn", "--rule", "no.such.rule", &past][..],
            "no rule is called",
        ),
    ] {
        let output = desk.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

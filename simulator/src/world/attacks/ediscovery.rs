//! An export of mailboxes by eDiscovery, and Microsoft's own alert about it.

use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::book::{Book, milliseconds_with_zone, new_guid};
use super::super::directory::GENERAL;
use super::super::people::Person;
use super::{MINUTE_MS, OFFICE365};

const EXPORT: &str = "o365.ediscovery.export";
const SEARCH: &str = "Case 4 all mailboxes";
/// How often Microsoft writes one alert down: once as triggered, twice for its entities.
const ALERT_RECORDS: [&str; 3] = [
    "AlertTriggered",
    "AlertEntityGenerated",
    "AlertEntityGenerated",
];

/// A search, its export, the download, a look at it, and the alert.
pub(crate) fn export(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let script = OFFICE365[6].0;
    let actor = book.tenant.person(3);
    let mut at = start;
    for operation in ["SearchCreated", "SearchStarted"] {
        discovery(book, at, rng, (actor, operation));
        at += MINUTE_MS;
    }
    let entity = format!("{} exports {SEARCH}", actor.email);
    // The steps of one export by one person on one day are one finding.
    let mut steps = vec![(export_cmdlet(book, at, rng, actor), at)];
    let mut cause = String::new();
    for operation in [
        "SearchExported",
        "SearchExportDownloaded",
        "ViewedSearchExported",
    ] {
        at += 5 * MINUTE_MS;
        let id = discovery(book, at, rng, (actor, operation));
        if cause.is_empty() {
            cause.clone_from(&id);
        }
        steps.push((id, at));
    }
    book.due(EXPORT, script, &entity, &steps);
    alert(book, at + 2 * MINUTE_MS, rng, (actor, &cause));
}

fn discovery(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    (actor, operation): (&Person, &str),
) -> String {
    let members = vec![
        ("Operation", json!(operation)),
        ("RecordType", json!(24)),
        ("ResultStatus", json!("Success")),
        ("UserKey", json!(actor.puid)),
        ("UserType", json!(0)),
        ("Workload", json!("SecurityComplianceCenter")),
        ("ClientIP", json!(actor.ip)),
        ("ObjectId", json!(SEARCH)),
        ("UserId", json!(actor.email)),
        ("Case", json!("Case 4")),
        ("ExchangeLocations", json!("All")),
        ("Query", json!("")),
        (
            "ExtendedProperties",
            json!([{ "Name": "SearchName", "Value": SEARCH }]),
        ),
    ];
    book.office365(GENERAL, at, rng, members)
}

/// The cmdlet behind the export; its parameters are one string with quotes in it.
fn export_cmdlet(book: &mut Book<'_>, at: i64, rng: &mut StdRng, actor: &Person) -> String {
    let parameters = format!(
        "-SearchName \"{SEARCH}\" -Export -Format \"FxStream\" -ExchangeArchiveFormat \"PerUserPst\" -Scope \"IndexedItemsOnly\""
    );
    let members = vec![
        ("Operation", json!("New-ComplianceSearchAction")),
        ("RecordType", json!(18)),
        ("ResultStatus", json!("Success")),
        ("UserKey", json!(actor.puid)),
        ("UserType", json!(2)),
        ("Workload", json!("SecurityComplianceCenter")),
        ("ClientIP", json!(actor.ip)),
        ("ObjectId", json!(SEARCH)),
        ("UserId", json!(actor.email)),
        ("Parameters", json!(parameters)),
        ("SecurityComplianceCenterEventType", json!(0)),
    ];
    book.office365(GENERAL, at, rng, members)
}

fn alert(book: &mut Book<'_>, at: i64, rng: &mut StdRng, (actor, cause): (&Person, &str)) {
    let alert_id = new_guid(rng).to_string();
    let data: Value = json!({
        "f3u": actor.email,
        "op": "SearchExported",
        "an": "eDiscovery search started or exported",
        "sev": "Medium",
        "rid": new_guid(rng).to_string(),
        "reid": cause,
        "ts": milliseconds_with_zone(at - MINUTE_MS),
        "te": milliseconds_with_zone(at),
    });
    let mut ids = Vec::new();
    for (number, operation) in ALERT_RECORDS.into_iter().enumerate() {
        let at = at + i64::try_from(number).unwrap_or_default() * 1_000;
        let members = vec![
            ("Operation", json!(operation)),
            ("RecordType", json!(40)),
            ("ResultStatus", json!("Succeeded")),
            ("UserKey", json!("SecurityComplianceAlerts")),
            ("UserType", json!(4)),
            ("Workload", json!("SecurityComplianceCenter")),
            ("ObjectId", json!(actor.email)),
            ("UserId", json!("SecurityComplianceAlerts")),
            ("AlertEntityId", json!(actor.email)),
            ("AlertId", json!(alert_id)),
            ("AlertLinks", json!([])),
            ("AlertType", json!("System")),
            ("Category", json!("ThreatManagement")),
            ("Comments", json!("New alert")),
            ("Data", json!(data.to_string())),
            ("EntityType", json!("User")),
            ("Name", json!("eDiscovery search started or exported")),
            ("PolicyId", json!("6fdc5710-3998-47f0-afbb-57cefd7378a7")),
            ("Severity", json!("Medium")),
            ("Source", json!("Office 365 Security & Compliance")),
            ("Status", json!("Active")),
        ];
        ids.push((book.office365(GENERAL, at, rng, members), at));
    }
    let entity = format!("{} (alert {alert_id})", actor.email);
    book.due(
        "o365.ediscovery.export_alert",
        OFFICE365[6].0,
        &entity,
        &ids,
    );
}

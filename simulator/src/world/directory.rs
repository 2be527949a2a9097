//! Entra logins and directory changes, General (Security & Compliance, Teams) and DLP records.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::book::{Book, new_guid, one_of};
use super::exchange::parameters;
use super::people::Person;

/// Content type of logins and directory changes.
pub(crate) const ENTRA: &str = "Audit.AzureActiveDirectory";
/// Content type of everything without one of its own.
pub(crate) const GENERAL: &str = "Audit.General";
/// Content type of data loss prevention.
pub(crate) const DLP: &str = "DLP.All";

const OFFICE: &str = "00000006-0000-0ff1-ce00-000000000000";

/// One ordinary Entra record.
pub(crate) fn entra(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let person = tenant.anyone(rng);
    if rng.random_bool(0.1) {
        directory_change(book, at, rng, tenant.admin());
        return;
    }
    let failed = rng.random_bool(0.15);
    login(book, at, rng, (person, failed));
}

/// A sign-in with a wrong password.
pub(crate) fn failed_login(book: &mut Book<'_>, at: i64, rng: &mut StdRng, person: &Person) {
    login(book, at, rng, (person, true));
}

fn login(book: &mut Book<'_>, at: i64, rng: &mut StdRng, (person, failed): (&Person, bool)) {
    let tenant = book.tenant;
    let (operation, result, error) = if failed {
        ("UserLoginFailed", "Failed", "50126")
    } else {
        ("UserLoggedIn", "Success", "0")
    };
    let members = vec![
        ("Operation", json!(operation)),
        ("RecordType", json!(15)),
        ("ResultStatus", json!(result)),
        ("UserKey", json!(person.object_id.to_string())),
        ("UserType", json!(0)),
        ("Workload", json!("AzureActiveDirectory")),
        ("ClientIP", json!(person.ip)),
        ("ObjectId", json!("00000002-0000-0000-c000-000000000000")),
        ("UserId", json!(person.email)),
        ("AzureActiveDirectoryEventType", json!(1)),
        (
            "ExtendedProperties",
            parameters(&[
                ("ResultStatusDetail", result),
                ("RequestType", "Login:reprocess"),
            ]),
        ),
        ("ModifiedProperties", json!([])),
        (
            "Actor",
            json!([
                { "ID": person.object_id.to_string(), "Type": 0 },
                { "ID": person.email, "Type": 5 },
            ]),
        ),
        ("ActorContextId", json!(tenant.tenant_id_text())),
        ("ActorIpAddress", json!(person.ip)),
        ("InterSystemsId", json!(new_guid(rng).to_string())),
        ("ApplicationId", json!(OFFICE)),
        ("ErrorNumber", json!(error)),
    ];
    book.office365(ENTRA, at, rng, members);
}

fn directory_change(book: &mut Book<'_>, at: i64, rng: &mut StdRng, admin: &Person) {
    const OPERATIONS: [&str; 4] = [
        "Update user.",
        "Add member to group.",
        "Update group.",
        "Reset user password.",
    ];
    let operation = one_of(&OPERATIONS, rng);
    let target = book.tenant.anyone(rng).email.clone();
    let modified: Value = json!([
        { "Name": "Department", "NewValue": "[\"Sales\"]", "OldValue": "[\"Support\"]" },
    ]);
    let members = vec![
        ("Operation", json!(operation)),
        ("RecordType", json!(8)),
        ("ResultStatus", json!("Success")),
        ("UserKey", json!(admin.puid)),
        ("UserType", json!(0)),
        ("Workload", json!("AzureActiveDirectory")),
        ("ObjectId", json!(target)),
        ("UserId", json!(admin.email)),
        ("AzureActiveDirectoryEventType", json!(1)),
        ("ModifiedProperties", modified),
        ("Target", json!([{ "ID": target, "Type": 5 }])),
    ];
    book.office365(ENTRA, at, rng, members);
}

/// One ordinary General record.
pub(crate) fn general(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let person = book.tenant.anyone(rng);
    let kind = rng.random_range(0..10);
    let (operation, workload, record_type) = match kind {
        0..7 => (
            one_of(&["MessageSent", "MemberAdded", "TeamsSessionStarted"], rng),
            "MicrosoftTeams",
            25,
        ),
        7 | 8 => ("SearchMtpStatus", "SecurityComplianceCenter", 52),
        _ => ("New-ComplianceSearchAction", "SecurityComplianceCenter", 18),
    };
    let mut members = vec![
        ("Operation", json!(operation)),
        ("RecordType", json!(record_type)),
        ("ResultStatus", json!("Success")),
        ("UserKey", json!(person.puid)),
        ("UserType", json!(0)),
        ("Workload", json!(workload)),
        ("UserId", json!(person.email)),
    ];
    if record_type == 18 {
        // A preview is no export: the same cmdlet, another switch.
        members.push(("Parameters", json!("-SearchName \"Complaint 12\" -Preview")));
    } else if workload == "MicrosoftTeams" {
        members.push(("TeamName", json!("Project Orchard")));
    }
    book.office365(GENERAL, at, rng, members);
}

/// One ordinary DLP record.
pub(crate) fn dlp(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let person = book.tenant.anyone(rng);
    let incident = new_guid(rng).to_string();
    let count = rng.random_range(1..6);
    let members = vec![
        ("Operation", json!("DLPRuleMatch")),
        ("RecordType", json!(13)),
        ("UserKey", json!("1153977025279851686")),
        ("UserType", json!(4)),
        ("Workload", json!("Exchange")),
        (
            "ObjectId",
            json!(format!("<{incident}@{}>", book.tenant.onmicrosoft)),
        ),
        ("UserId", json!("DlpAgent")),
        ("IncidentId", json!(incident)),
        (
            "ExchangeMetaData",
            json!({ "From": person.email, "To": [book.tenant.at_partner("billing", 0)], "Subject": "Invoice" }),
        ),
        (
            "PolicyDetails",
            json!([{ "PolicyName": "Card numbers", "Rules": [{
                "RuleName": "Low count", "Severity": "Low",
                "ConditionsMatched": { "SensitiveInformation": [{ "Confidence": 85, "Count": count }] },
            }]}]),
        ),
        ("SensitiveInfoDetectionIsIncluded", json!(false)),
    ];
    book.office365(DLP, at, rng, members);
}

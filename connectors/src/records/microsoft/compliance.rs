//! Security & Compliance (Purview): alerts (RecordType 40), eDiscovery (24, 31) and its cmdlets (18).
//!
//! An alert is the vendor's own: the actor is in `Data`, a JSON *string* whose members have short
//! names (`f3u` user, `an` alert name, `op`, `sev`, `rid` rule, `reid` = the `Id` of the record that
//! caused it). eDiscovery writes the export of a search as several records with changing names.

use std::borrow::Cow;

use exfilwatch_model::{Event, field};

use super::super::flatten::Flattener;
use super::super::json::{self, Raw};
use super::super::outside::set_actor;
use super::Body;
use super::parameters::{Parameters, field_text};

/// Endings that the service puts on a search's name for what it makes of it.
const SEARCH_SUFFIXES: &[&str] = &["_export", "_reportsonly", "_preview"];

/// Fields that are read from events here.
pub(super) const READS: &[&str] = &["Data.an", "Data.f3u", "Data.reid"];

/// `Data.<name>` of an alert; text that is no JSON object stays as it is.
pub(super) fn fill_data(event: &mut Event, flattener: &mut Flattener<'_, Body<'_>>, raw: Raw<'_>) {
    let Some(text) = json::text(raw) else { return };
    if let Ok(object @ [b'{', ..]) = json::only(text.as_bytes()) {
        flattener.member(event, "Data", object);
    }
    event.set("Data", text);
}

/// One event.
pub(super) fn events(mut event: Event, record: &Body<'_>) -> Vec<Event> {
    if record.text("AlertId").is_some() || record.operation.starts_with("Alert") {
        alert(&mut event, record);
    } else {
        discovery(&mut event, record);
    }
    vec![event]
}

fn alert(event: &mut Event, record: &Body<'_>) {
    event.set_some(field::ALERT_ID, record.text("AlertId"));
    let name = record.text("Name").map(Cow::into_owned);
    let name = name.or_else(|| field_text(event, "Data.an"));
    event.set_some(field::ALERT_NAME, name);
    let cause = field_text(event, "Data.reid").filter(|cause| !cause.is_empty());
    event.set_some(field::CAUSE_ID, cause);
    event.set_some(field::OBJECT, record.text("AlertEntityId"));
    if let Some(user) = field_text(event, "Data.f3u").filter(|user| !user.is_empty()) {
        let user = user
            .split([',', ';'])
            .next()
            .unwrap_or(&user)
            .trim()
            .to_owned();
        set_actor(event, &record.domains.party(&user));
        event.set(field::ACTOR_IS_SYSTEM, false);
    }
}

fn discovery(event: &mut Event, record: &Body<'_>) {
    let parameters = Parameters::of(record.raw("Parameters"));
    let step = export_step(&record.operation, &parameters, event);
    event.set_some(field::EXPORT_STEP, step);
    let name = ["SearchName", "Name", "Identity"]
        .iter()
        .find_map(|name| parameters.get(name).map(Cow::Borrowed))
        .or_else(|| {
            ["ExportName", "ObjectName", "ObjectId", "CaseName", "Case"]
                .iter()
                .find_map(|name| record.text(name))
        });
    event.set_some(field::OBJECT_NAME, name.as_deref().map(search_name));
    event.set_some(field::OBJECT, record.text("ObjectId"));
}

/// What is done with an export, whatever the vendor calls it this year. A preview and a purge are
/// other things.
fn export_step(operation: &str, parameters: &Parameters, event: &Event) -> Option<&'static str> {
    if operation.eq_ignore_ascii_case("New-ComplianceSearchAction") {
        return parameters.is_true("Export").then_some("create");
    }
    let kind = event.text(field::RECORD_TYPE);
    let lower = operation.to_lowercase();
    let by_name = [
        "searchexported",
        "searchexportdownloaded",
        "viewedsearchexported",
        "searchresultexported",
    ];
    if !matches!(kind.as_deref(), Some("24" | "31")) && !by_name.contains(&lower.as_str()) {
        return None;
    }
    if lower.starts_with("view") {
        return lower.contains("export").then_some("view");
    }
    if lower.contains("download") {
        return Some("download");
    }
    lower.contains("export").then_some("create")
}

/// The search an export belongs to: without the ending that the service adds.
fn search_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let end = SEARCH_SUFFIXES
        .iter()
        .find_map(|suffix| lower.strip_suffix(suffix))
        .map_or(name.len(), str::len);
    name.get(..end).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use exfilwatch_model::RawRecord;
    use serde_json::{Value, json};

    use super::super::Microsoft365Records;
    use super::*;
    use crate::contract::RecordReader;

    fn read(record: &Value) -> Event {
        let record = RawRecord::new(record.to_string().into());
        let reader = Microsoft365Records::new(Arc::default());
        reader
            .normalise(&record, DateTime::UNIX_EPOCH)
            .unwrap()
            .remove(0)
    }

    #[test]
    fn an_alert_tells_its_user_and_the_record_that_caused_it() {
        let data = json!({"f3u": "Alice@contoso.example", "reid": "cause-1", "an": "x", "op": "SearchExported"});
        let event = read(&json!({
            "Id": "c-1", "RecordType": 40, "Operation": "AlertEntityGenerated", "UserId": "SecurityComplianceAlerts",
            "UserType": 4, "Workload": "SecurityComplianceCenter", "AlertId": "al-1",
            "Name": "eDiscovery search started or exported", "Data": data.to_string(),
        }));
        assert_eq!(event.text(field::ALERT_ID).as_deref(), Some("al-1"));
        assert_eq!(event.text(field::CAUSE_ID).as_deref(), Some("cause-1"));
        assert_eq!(
            event.text(field::ACTOR).as_deref(),
            Some("alice@contoso.example")
        );
        assert!(!event.is(field::ACTOR_IS_SYSTEM));
        let name = "eDiscovery search started or exported";
        assert_eq!(event.text(field::ALERT_NAME).as_deref(), Some(name));
    }

    #[test]
    fn the_steps_of_an_export_are_told_apart() {
        for (operation, kind, parameters, step) in [
            ("SearchExported", 24, "", Some("create")),
            ("SearchExportDownloaded", 24, "", Some("download")),
            ("ViewedSearchExported", 24, "", Some("view")),
            ("CaseExportJobCreated", 31, "", Some("create")),
            ("ReviewSetDownloaded", 31, "", Some("download")),
            ("SearchPreviewed", 24, "", None),
            ("SearchStarted", 24, "", None),
            (
                "New-ComplianceSearchAction",
                18,
                "-SearchName \"s\" -Export -Format FxStream",
                Some("create"),
            ),
            (
                "New-ComplianceSearchAction",
                18,
                "-SearchName \"s\" -Purge -PurgeType SoftDelete",
                None,
            ),
            (
                "New-ComplianceSearchAction",
                18,
                "-SearchName \"-Export\" -Preview",
                None,
            ),
            ("Export-Something", 18, "", None),
        ] {
            let event = read(&json!({
                "Id": "c", "RecordType": kind, "Operation": operation, "Parameters": parameters,
                "Workload": "SecurityComplianceCenter", "UserId": "a@contoso.example", "ObjectId": "s_Export",
            }));
            assert_eq!(
                event.text(field::EXPORT_STEP).as_deref(),
                step,
                "{operation} {parameters}"
            );
            if step.is_some() {
                assert_eq!(event.text(field::OBJECT_NAME).as_deref(), Some("s"));
            }
        }
    }
}

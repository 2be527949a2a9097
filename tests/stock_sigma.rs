//! Stock Sigma rules, in the field names of Defender, Entra and Cloud Logging, over records as the
//! vendors write them: reader, mapping and engine together.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use exfilwatch_connectors::RecordReader;
use exfilwatch_connectors::records::{GoogleRecords, Microsoft365Records};
use exfilwatch_detectors::{
    DetectorsOptions, Engine, RuleSet, SourceFile, Stock, StockState, folder, mapped, stock,
};
use exfilwatch_model::{Domains, Finding, JobId, Product, RawRecord, TenantId};
use serde_json::{Value, json};

/// Stock rules that are not part of this repository.
const SAMPLES: &str = "../shared/samples/sigma";

/// A rule in a vocabulary of stock rules, the stock rule it is like, and a record that meets it.
struct Trial {
    like: &'static str,
    source: &'static str,
    detection: &'static str,
    record: Value,
}

fn entra(operation: &str, more: &Value) -> Value {
    let mut record = json!({
        "CreationTime": "2026-05-04T08:00:00", "Id": "a-1", "Operation": operation, "RecordType": 8,
        "ResultStatus": "Success", "Workload": "AzureActiveDirectory", "UserId": "admin@corp.example",
        "ObjectId": "alice@corp.example",
    });
    merge(&mut record, more);
    record
}

fn alert(name: &str) -> Value {
    json!({
        "CreationTime": "2026-05-04T08:00:00", "Id": "s-1", "Operation": "AlertTriggered", "RecordType": 40,
        "ResultStatus": "Succeeded", "Workload": "SecurityComplianceCenter", "UserId": "SecurityComplianceAlerts",
        "UserType": 4, "AlertId": "al-1", "Name": name, "Data": "{\"f3u\":\"alice@corp.example\"}",
    })
}

fn cmdlet(operation: &str, parameters: &Value) -> Value {
    json!({
        "CreationTime": "2026-05-04T08:00:00", "Id": "e-1", "Operation": operation, "RecordType": 1,
        "ResultStatus": "True", "Workload": "Exchange", "UserId": "alice@corp.example",
        "Parameters": parameters,
    })
}

fn activity(application: &str, event: &str, parameters: &Value) -> Value {
    json!({
        "id": {"time": "2026-05-04T08:00:00.000Z", "uniqueQualifier": "1", "applicationName": application},
        "actor": {"email": "alice@corp.example"},
        "events": [{"name": event, "parameters": parameters}],
    })
}

fn merge(record: &mut Value, more: &Value) {
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
}

const ENTRA: &str = "{product: azure, service: auditlogs}";
const ADMIN: &str = "{product: gcp, service: google_workspace.admin}";
const LOGIN: &str = "{product: gcp, service: google_workspace.login}";
const AUDIT: &str = "{product: m365, service: audit}";
const ALERTS: &str = "{product: m365, service: threat_management}";

#[expect(clippy::too_many_lines, reason = "a table: one entry a rule")]
fn trials() -> Vec<Trial> {
    let trial = |like, source, detection, record| Trial {
        like,
        source,
        detection,
        record,
    };
    vec![
        trial(
            "azure_app_owner_added",
            ENTRA,
            "{s: {properties.message: Add owner to application}, condition: s}",
            entra("Add owner to application.", &json!({})),
        ),
        trial(
            "azure_mfa_disabled",
            ENTRA,
            "{s: {operationName: Disable Strong Authentication, properties.result: success}, condition: s}",
            entra("Disable Strong Authentication.", &json!({})),
        ),
        trial(
            "azure_user_account_mfa_disable",
            ENTRA,
            "{s: {LoggedByService: Core Directory, Category: UserManagement, OperationName: Update user, TargetResources.ModifiedProperties.DisplayName: StrongAuthenticationRequirement, 'TargetResources.ModifiedProperties.NewValue|contains': 'State\":0'}, condition: s}",
            entra(
                "Update user.",
                &json!({"ModifiedProperties": [{"Name": "StrongAuthenticationRequirement", "NewValue": "[{\"State\":0}]", "OldValue": "[{\"State\":2}]"}]}),
            ),
        ),
        trial(
            "azure_ad_users_added_to_device_admin_roles",
            ENTRA,
            "{s: {Category: RoleManagement, 'OperationName|contains|all': [Add, member to role], 'TargetResources|contains': 62e90394}, condition: s}",
            entra(
                "Add member to role.",
                &json!({"ModifiedProperties": [{"Name": "Role.TemplateId", "NewValue": "\"62e90394-69f5-4237-9190-012177145e10\"", "OldValue": ""}]}),
            ),
        ),
        trial(
            "azure_app_role_added",
            ENTRA,
            "{s: {targetResources.type: Service Principal, properties.message: Add member to role}, condition: s}",
            entra(
                "Add member to role.",
                &json!({"Target": [{"ID": "ServicePrincipal_6f1c", "Type": 2}, {"ID": "6f1c", "Type": 2}]}),
            ),
        ),
        trial(
            "azure_app_end_user_consent",
            ENTRA,
            "{s: {ConsentContext.IsAdminConsent: 'false'}, condition: s}",
            entra(
                "Consent to application.",
                &json!({"ModifiedProperties": [{"Name": "ConsentContext.IsAdminConsent", "NewValue": "False", "OldValue": ""}]}),
            ),
        ),
        trial(
            "microsoft365_activity_from_anonymous_ip_addresses",
            ALERTS,
            "{s: {eventSource: SecurityComplianceCenter, eventName: Activity from anonymous IP addresses, status: success}, condition: s}",
            alert("Activity from anonymous IP addresses"),
        ),
        trial(
            "microsoft365_pst_export_alert_using_new_compliancesearchaction",
            ALERTS,
            "{s: {eventSource: SecurityComplianceCenter, 'Payload|contains|all': [New-ComplianceSearchAction, Export, pst]}, condition: s}",
            json!({
                "CreationTime": "2026-05-04T08:00:00", "Id": "s-1", "Operation": "New-ComplianceSearchAction",
                "RecordType": 18, "Workload": "SecurityComplianceCenter", "UserId": "alice@corp.example",
                "Parameters": "-SearchName \"s\" -Export -ExchangeArchiveFormat SinglePst",
            }),
        ),
        trial(
            "microsoft365_new_federated_domain_added_exchange",
            "{product: m365, service: exchange}",
            "{s: {eventSource: Exchange, eventName: Add-FederatedDomain, status: success}, condition: s}",
            cmdlet(
                "Add-FederatedDomain",
                &json!([{"Name": "DomainName", "Value": "x.example"}]),
            ),
        ),
        trial(
            "microsoft365_susp_email_forwarding_activity",
            AUDIT,
            "{s: {'Operation|contains': [New-InboxRule, Set-InboxRule], 'Parameters|contains': [ForwardTo, RedirectTo]}, condition: 1 of s*}",
            cmdlet(
                "New-InboxRule",
                &json!([{"Name": "Name", "Value": "r"}, {"Name": "RedirectTo", "Value": "x@customer.example"}]),
            ),
        ),
        trial(
            "microsoft365_disabling_mfa",
            AUDIT,
            "{s: {'Operation|contains': Disable Strong Authentication.}, condition: s}",
            entra("Disable Strong Authentication.", &json!({})),
        ),
        trial(
            "gcp_gworkspace_application_access_levels_modified",
            ADMIN,
            "{s: {eventService: admin.googleapis.com, eventName: CHANGE_APPLICATION_SETTING, 'setting_name|startswith': ContextAwareAccess}, condition: s}",
            activity(
                "admin",
                "CHANGE_APPLICATION_SETTING",
                &json!([{"name": "SETTING_NAME", "value": "ContextAwareAccess Levels"}]),
            ),
        ),
        trial(
            "gcp_gworkspace_mfa_disabled",
            ADMIN,
            "{a: {eventService: admin.googleapis.com, eventName: ENFORCE_STRONG_AUTHENTICATION}, b: {new_value: 'false'}, condition: a and b}",
            activity(
                "admin",
                "ENFORCE_STRONG_AUTHENTICATION",
                &json!([{"name": "NEW_VALUE", "value": "false"}]),
            ),
        ),
        trial(
            "gcp_gworkspace_granted_domain_api_access",
            ADMIN,
            "{s: {eventService: admin.googleapis.com, eventName: AUTHORIZE_API_CLIENT_ACCESS}, condition: s}",
            activity("admin", "AUTHORIZE_API_CLIENT_ACCESS", &json!([])),
        ),
        trial(
            "gcp_gworkspace_out_of_domain_email_forwarding",
            LOGIN,
            "{s: {protoPayload.serviceName: login.googleapis.com, protoPayload.metadata.event.eventName: email_forwarding_out_of_domain}, condition: s}",
            activity(
                "user_accounts",
                "email_forwarding_out_of_domain",
                &json!([{"name": "email_forwarding_destination_address", "value": "x@customer.example"}]),
            ),
        ),
        trial(
            "gcp_gworkspace_suspicious_login",
            LOGIN,
            "{s: {protoPayload.Servicename: login.googleapis.com, protoPayload.metadata.event.eventName: [suspicious_login, suspicious_programmatic_login]}, condition: s}",
            activity("login", "suspicious_login", &json!([])),
        ),
    ]
}

fn rule(number: usize, trial: &Trial) -> SourceFile {
    let Trial {
        like,
        source,
        detection,
        ..
    } = trial;
    SourceFile {
        name: format!("{like}.yml"),
        text: format!(
            "title: Like {like}\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f{number:04}\nlogsource: {source}\ndetection: {detection}\nlevel: medium\n"
        ),
    }
}

/// What the rules of a file say of a record. Fails where the record would not even be looked at.
fn findings(files: &[SourceFile], records: &[Value]) -> Vec<Finding> {
    let rules = Arc::new(RuleSet::from_files(&[], files, &[]).unwrap());
    let domains = Arc::new(Domains::new(&["corp.example"], &[]));
    let mut engine = Engine::new(
        Arc::clone(&rules),
        TenantId::new("corp").unwrap(),
        JobId::new("live").unwrap(),
    );
    for record in records {
        let product = if record.get("id").is_some() {
            Product::GoogleWorkspace
        } else {
            Product::M365
        };
        let reader: Box<dyn RecordReader> = match product {
            Product::M365 => Box::new(Microsoft365Records::new(Arc::clone(&domains))),
            Product::GoogleWorkspace => Box::new(GoogleRecords::new(Arc::clone(&domains))),
        };
        let raw = RawRecord::new(record.to_string().into());
        let operations = reader.operations(&raw).unwrap();
        let wants = rules.wants_record(product, &operations, raw.bytes(), &*reader);
        if wants {
            for event in reader.normalise(&raw, DateTime::UNIX_EPOCH).unwrap() {
                engine.observe(&event);
            }
        }
    }
    engine.settle(DateTime::<chrono::Utc>::MAX_UTC);
    engine.collect(DateTime::UNIX_EPOCH)
}

#[test]
fn rules_in_the_words_of_defender_entra_and_cloud_logging_fire_on_the_vendors_own_records() {
    for (number, trial) in trials().iter().enumerate() {
        let file = rule(number, trial);
        let found = findings(
            std::slice::from_ref(&file),
            std::slice::from_ref(&trial.record),
        );
        assert_eq!(found.len(), 1, "{}: {:?}", trial.like, stock(&[file]));
    }
}

#[test]
fn mapped_rules_keep_quiet_about_other_records() {
    for (number, trial) in trials().iter().enumerate() {
        for other in trials().iter().filter(|other| other.like != trial.like) {
            // Two pairs look for the same act in two vocabularies, or one within the other.
            let pair = [trial.like, other.like];
            let is_kin = pair
                .iter()
                .all(|like| like.contains("disab") && like.contains("mfa"))
                || pair.iter().all(|like| like.contains("role"));
            if !is_kin {
                let found = findings(&[rule(number, trial)], std::slice::from_ref(&other.record));
                assert!(found.is_empty(), "{} on {}", trial.like, other.like);
            }
        }
    }
}

#[test]
fn a_correlation_of_sigma_counts_by_the_key_it_names_in_other_words() {
    let text = "title: Base\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f1001\nname: login_flagged\nlogsource: {product: gcp, service: google_workspace.login}\n\
        detection: {s: {protoPayload.metadata.event.eventName: suspicious_login}, condition: s}\n---\n\
        title: Flagged three times\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f1002\nlevel: high\n\
        correlation: {type: event_count, rules: [login_flagged], group-by: [protoPayload.authenticationInfo.principalEmail], timespan: 10m, condition: {gte: 3}}\n";
    let file = SourceFile {
        name: "c.yml".to_owned(),
        text: text.to_owned(),
    };
    let record = |minute: u32| {
        let mut record = activity("login", "suspicious_login", &json!([]));
        record["id"]["time"] = json!(format!("2026-05-04T08:{minute:02}:00.000Z"));
        record["id"]["uniqueQualifier"] = json!(minute.to_string());
        record
    };
    let files = [file];
    let near: Vec<Value> = [1, 4, 9].map(record).into();
    let found = findings(&files, &near);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].entity, "alice@corp.example");
    let far: Vec<Value> = [1, 14, 29].map(record).into();
    assert!(findings(&files, &far).is_empty());
}

#[test]
fn who_asks_for_stock_rules_only_gets_the_same_ones_and_need_not_have_ours_read() {
    let folder = tempfile::tempdir().unwrap();
    let options = DetectorsOptions {
        rules_dir: Some(folder.path().to_owned()),
        ..DetectorsOptions::default()
    };
    let load = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        RuleSet::load_for(&options, &names).unwrap()
    };
    let ids = |rules: &RuleSet| {
        let rules = rules.those_of(&["sigma.*".to_owned()]);
        rules
            .rules()
            .iter()
            .map(|rule| rule.facts.id)
            .collect::<Vec<_>>()
    };
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();

    write("a.yml", &rule(1, &trials()[0]).text);
    let (all, narrow) = (load(&[]), load(&["Sigma.*"]));
    assert_eq!(narrow.rules().len(), 1, "ours are not read");
    assert_eq!(ids(&narrow), ids(&all));
    let with_ours = load(&["sigma.*", "o365.mail.*"]);
    assert_eq!(with_ours.rules().len(), all.rules().len());

    write(
        "b.yml",
        "title: Counts one of ours\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f1003\n\
        correlation: {type: event_count, rules: [o365.mail.forwarding_external], group-by: [actor], timespan: 10m, condition: {gte: 3}}\n",
    );
    let (all, narrow) = (load(&[]), load(&["sigma.*"]));
    assert_eq!(ids(&narrow).len(), 2);
    assert_eq!(ids(&narrow), ids(&all));
}

/// The stock rules beside this repository, where they are.
fn samples() -> Option<Vec<SourceFile>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLES);
    if !dir.is_dir() {
        println!("skipped: no stock rules at {SAMPLES}");
        return None;
    }
    Some(folder(&dir).unwrap())
}

#[test]
fn every_stock_rule_is_run_or_says_why_it_never_can() {
    let Some(files) = samples() else { return };
    let rules = stock(&files);
    let mut counts: BTreeMap<StockState, usize> = BTreeMap::new();
    for rule in &rules {
        *counts.entry(rule.state).or_default() += 1;
        let is_told = match rule.state {
            StockState::Loaded => true,
            StockState::Mapped => !rule.renamed.is_empty(),
            StockState::Never | StockState::Refused => !rule.reason.is_empty(),
        };
        assert!(is_told, "{rule:?}");
    }
    let expected = [(StockState::Mapped, 57), (StockState::Never, 18)];
    assert_eq!(counts, BTreeMap::from(expected), "{}", told(&rules));
    let set = RuleSet::from_files(&[], &files, &[]).unwrap();
    assert_eq!((set.rules().len(), set.skipped().len()), (57, 18));
    let mut run: Vec<String> = set
        .rules()
        .iter()
        .map(|rule| rule.facts.title.clone())
        .collect();
    let mut given: Vec<String> = mapped(&files)
        .unwrap()
        .into_iter()
        .map(|rule| rule.title)
        .collect();
    run.sort();
    given.sort();
    assert_eq!(given, run, "another engine is given what is run");
}

fn told(rules: &[Stock]) -> String {
    let line = |rule: &Stock| format!("{} {} {}", rule.state.as_str(), rule.title, rule.reason);
    rules.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_stock_rules_themselves_fire_on_the_same_records() {
    let Some(files) = samples() else { return };
    let mut tried = 0;
    for trial in trials() {
        let end = format!("/{}.yml", trial.like);
        let file = files.iter().find(|file| file.name.ends_with(&end)).unwrap();
        let found = findings(
            std::slice::from_ref(file),
            std::slice::from_ref(&trial.record),
        );
        assert_eq!(found.len(), 1, "{}", trial.like);
        tried += 1;
    }
    assert!(tried >= 10);
}

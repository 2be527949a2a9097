//! The documents as a receiver sees them, and what no record can do to them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{finding, finding_envelope, google, heartbeat, office365, worst_finding};
use exfilwatch_emitters::SyslogFormat;
use exfilwatch_emitters::formats::ocsf::Document;
use exfilwatch_emitters::formats::{splunk, syslog5424};
use exfilwatch_model::{Finding, UpdateReason};
use proptest::prelude::*;
use serde_json::Value;

fn header() -> syslog5424::Header {
    syslog5424::Header {
        facility: 16,
        hostname: "contoso".to_owned(),
        app_name: "exfilwatch".to_owned(),
        bytes_max: 8_192,
        message: SyslogFormat::Json,
    }
}

/// MSG of a line, read as JSON; checks that the line is one printable frame.
fn message_of(line: &str) -> Value {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let (start, message) = split(line);
    assert!(start.starts_with('<'), "{line}");
    serde_json::from_str(message).unwrap_or_else(|error| panic!("{error} in {message}"))
}

/// Header with structured data, and MSG. Reads the structured data as RFC 5424 section 6.3 says.
fn split(line: &str) -> (&str, &str) {
    let data = line.find('[').expect("structured data");
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices().skip_while(|(at, _)| *at < data) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return (&line[..=at], line[at + 1..].strip_prefix(' ').unwrap()),
            _ => {}
        }
    }
    panic!("structured data does not end: {line}")
}

#[test]
#[expect(clippy::too_many_lines, reason = "most are the document")]
fn the_ocsf_document() {
    let finding = finding();
    let document = serde_json::to_string_pretty(&Document::new(&finding)).unwrap();
    insta::assert_snapshot!(document, @r#"
    {
      "activity_id": 1,
      "activity_name": "Create",
      "category_uid": 2,
      "category_name": "Findings",
      "class_uid": 2004,
      "class_name": "Detection Finding",
      "type_uid": 200401,
      "type_name": "Detection Finding: Create",
      "time": 1795486560000,
      "start_time": 1795486500000,
      "end_time": 1795486560000,
      "severity_id": 4,
      "severity": "High",
      "status_id": 1,
      "status": "New",
      "is_alert": true,
      "risk_score": 72,
      "count": 2,
      "message": "alice@contoso.example shared 2 files with rival.example in 60 s (threshold 2)",
      "metadata": {
        "version": "1.5.0",
        "uid": "83aaaaab-6cb8-5418-a52a-2b72afb0f63b",
        "product": {
          "name": "exfilwatch",
          "vendor_name": "exfilwatch",
          "version": "0.1.0"
        },
        "profiles": [
          "cloud",
          "security_control"
        ],
        "log_name": "drive",
        "event_code": "gws.drive.mass_share_external",
        "correlation_uid": "f8d174e7-c68f-5aa4-9528-cf0699056aa8",
        "logged_time": 1795486800123,
        "tenant_uid": "contoso"
      },
      "finding_info": {
        "uid": "f8d174e7-c68f-5aa4-9528-cf0699056aa8",
        "title": "Many Drive files shared outside",
        "desc": "One person shares many files with people outside in a short time.",
        "created_time": 1795486800123,
        "first_seen_time": 1795486500000,
        "last_seen_time": 1795486560000,
        "analytic": {
          "type_id": 1,
          "type": "Rule",
          "uid": "5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91",
          "name": "Many Drive files shared outside",
          "version": "0a1b2c3d4e5f"
        },
        "attacks": [
          {
            "version": "17.1",
            "tactics": [
              {
                "uid": "TA0010",
                "name": "Exfiltration"
              }
            ],
            "technique": {
              "uid": "T1567",
              "name": "Exfiltration Over Web Service"
            },
            "sub_technique": {
              "uid": "T1567.002",
              "name": "Exfiltration to Cloud Storage"
            }
          },
          {
            "version": "17.1",
            "tactics": [
              {
                "uid": "TA0010",
                "name": "Exfiltration"
              }
            ],
            "technique": {
              "uid": "T1537",
              "name": "Transfer Data to Cloud Account"
            }
          }
        ],
        "data_sources": [
          "google_workspace:drive"
        ],
        "related_events": [
          {
            "uid": "2026-11-24T02:15:00.000Z/-720229394436/drive",
            "product": {
              "name": "Google Workspace",
              "vendor_name": "Google"
            }
          },
          {
            "uid": "2026-11-24T02:16:00.000Z/720229394437/drive",
            "product": {
              "name": "Google Workspace",
              "vendor_name": "Google"
            }
          }
        ],
        "related_events_count": 2
      },
      "cloud": {
        "provider": "Google Workspace",
        "account": {
          "uid": "contoso",
          "name": "contoso",
          "type_id": 15,
          "type": "Google Workspace"
        }
      },
      "action_id": 3,
      "action": "Observed",
      "disposition_id": 17,
      "disposition": "Logged",
      "evidences": [
        {
          "actor": {
            "user": {
              "name": "alice@contoso.example",
              "email_addr": "alice@contoso.example"
            }
          },
          "src_endpoint": {
            "ip": "198.51.100.7"
          },
          "data": {
            "event_id": "2026-11-24T02:15:00.000Z/-720229394436/drive",
            "time": "2026-11-24T02:15:00Z",
            "operation": "change_user_access",
            "record": {"kind":"admin#reports#activity"}
          }
        }
      ],
      "observables": [
        {
          "name": "evidences[0].actor.user.name",
          "type_id": 5,
          "type": "Email Address",
          "value": "alice@contoso.example"
        },
        {
          "name": "evidences[0].src_endpoint.ip",
          "type_id": 2,
          "type": "IP Address",
          "value": "198.51.100.7"
        },
        {
          "name": "unmapped.exfilwatch.target",
          "type_id": 5,
          "type": "Email Address",
          "value": "bob@rival.example"
        },
        {
          "name": "unmapped.exfilwatch.external_domain",
          "type_id": 1,
          "type": "Hostname",
          "value": "rival.example"
        },
        {
          "name": "unmapped.exfilwatch.values.object_name",
          "type_id": 7,
          "type": "File Name",
          "value": "Q3.xlsx"
        },
        {
          "name": "unmapped.exfilwatch.values.object_name",
          "type_id": 7,
          "type": "File Name",
          "value": "plans.docx"
        }
      ],
      "resources": [
        {
          "uid": "1AbC",
          "type": "google_workspace_item"
        },
        {
          "uid": "1DeF",
          "type": "google_workspace_item"
        },
        {
          "name": "Q3.xlsx",
          "type": "google_workspace_item"
        },
        {
          "name": "plans.docx",
          "type": "google_workspace_item"
        }
      ],
      "remediation": {
        "desc": "1. Ask the owner.\n2. Take the shares back.",
        "references": [
          "https://attack.mitre.org/techniques/T1567/002/"
        ]
      },
      "unmapped": {
        "exfilwatch": {
          "detection": "gws.drive.mass_share_external",
          "alert": true,
          "severity": "high",
          "tenant": "contoso",
          "entity_type": "user",
          "entity": "alice@contoso.example",
          "target": "bob@rival.example",
          "external_domain": "rival.example",
          "count": 2,
          "first_time": "2026-11-24T02:15:00Z",
          "last_time": "2026-11-24T02:16:00Z",
          "trip_time": "2026-11-24T02:16:00Z",
          "mode": "live",
          "revision": 1,
          "update_reason": null,
          "incident_uid": "f8d174e7-c68f-5aa4-9528-cf0699056aa8",
          "threshold": 2,
          "window_seconds": 60,
          "event_ids": [
            "2026-11-24T02:15:00.000Z/-720229394436/drive",
            "2026-11-24T02:16:00.000Z/720229394437/drive"
          ],
          "matched": {
            "operation": "change_user_access"
          },
          "values": {
            "external_domain": [
              "rival.example"
            ],
            "object": [
              "1AbC",
              "1DeF"
            ],
            "object_name": [
              "Q3.xlsx",
              "plans.docx"
            ],
            "target": [
              "bob@rival.example"
            ]
          },
          "false_positives": [
            "A project hand-over"
          ]
        }
      }
    }
    "#);
}

#[test]
fn activity_follows_revision_and_reason() {
    let activity = |finding: &Finding| {
        let document = serde_json::to_value(Document::new(finding)).unwrap();
        (
            document["activity_id"].clone(),
            document["type_uid"].clone(),
        )
    };
    let mut finding = finding();
    assert_eq!(activity(&finding), (1.into(), 200_401.into()));
    finding.revision = 2;
    finding.update_reason = Some(UpdateReason::CountDoubled);
    assert_eq!(activity(&finding), (2.into(), 200_402.into()));
    finding.update_reason = Some(UpdateReason::Closed);
    assert_eq!(activity(&finding), (3.into(), 200_403.into()));
}

#[test]
fn the_splunk_event_has_flat_keys_first() {
    let event = splunk::event(&finding()).unwrap();
    let flat = event.split(",\"ocsf\":").next().unwrap();
    insta::assert_snapshot!(flat.replace(",\"", ",\n\""), @r#"
    {"user":"alice@contoso.example",
    "src":"198.51.100.7",
    "dest":"rival.example",
    "target":"bob@rival.example",
    "external_domain":"rival.example",
    "signature":"Many Drive files shared outside",
    "detection":"gws.drive.mass_share_external",
    "rule_id":"5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91",
    "severity":"high",
    "risk_score":72,
    "risk_object":"alice@contoso.example",
    "risk_object_type":"user",
    "mitre_technique_id":["T1567.002",
    "T1537"],
    "count":2,
    "finding_uid":"f8d174e7-c68f-5aa4-9528-cf0699056aa8",
    "incident_uid":"f8d174e7-c68f-5aa4-9528-cf0699056aa8",
    "revision":1,
    "first_time":"2026-11-24T02:15:00Z",
    "last_time":"2026-11-24T02:16:00Z",
    "trip_time":"2026-11-24T02:16:00Z",
    "mode":"live",
    "alert":true,
    "tenant":"contoso",
    "app":"google_workspace",
    "message":"alice@contoso.example shared 2 files with rival.example in 60 s (threshold 2)",
    "drilldown":"index=* sourcetype=gws:reports:drive id.uniqueQualifier IN (\"-720229394436\",\"720229394437\") earliest=1795486500 latest=1795486561",
    "truncated":true
    "#);
}

#[test]
fn a_splunk_event_never_exceeds_5000_bytes_and_keeps_its_flat_keys() {
    let mut long = finding();
    long.event_ids = (0..1_000).map(|n| format!("event-{n}")).collect();
    for (name, finding) in [("many ids", long), ("worst", worst_finding())] {
        let event = splunk::event(&finding).unwrap();
        assert!(
            event.len() <= splunk::EVENT_BYTES_MAX,
            "{name}: {}",
            event.len()
        );
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["truncated"], true, "{name}");
        for key in [
            "user",
            "src",
            "target",
            "external_domain",
            "finding_uid",
            "count",
        ] {
            assert!(!event[key].is_null(), "{name}: {key}");
        }
    }
    let long_but_plain = splunk::event(&Finding {
        evidence: vec![],
        ..finding()
    })
    .unwrap();
    let event: Value = serde_json::from_str(&long_but_plain).unwrap();
    assert!(event["truncated"].is_null() && event["ocsf"]["class_uid"] == 2004);
}

#[test]
fn syslog_lines() {
    let lines = [
        finding_envelope(&finding()),
        office365("6f0d"),
        google(),
        heartbeat(),
    ]
    .map(|envelope| syslog5424::line(&envelope, &header()).unwrap());
    for line in &lines {
        message_of(line);
    }
    let starts = lines.each_ref().map(|line| split(line).0);
    insta::assert_snapshot!(starts.join("\n"), @r#"
    <131>1 2026-11-24T02:20:00.123Z contoso exfilwatch - FINDING [exfilwatch@32473 finding_uid="f8d174e7-c68f-5aa4-9528-cf0699056aa8" rule_id="5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91" detection="gws.drive.mass_share_external" severity="high" tenant="contoso" revision="1" user="alice@contoso.example" src="198.51.100.7" target="bob@rival.example" external_domain="rival.example"]
    <134>1 2026-11-24T02:15:00.000Z contoso exfilwatch - EVENT [exfilwatch@32473 event_id="6f0d" tenant="contoso" stream="contoso/office365/Audit.Exchange"]
    <134>1 2026-11-24T02:15:00.000Z contoso exfilwatch - EVENT [exfilwatch@32473 event_id="2026-11-24T02:15:00.000Z/-72/drive" tenant="contoso" stream="contoso/google_workspace/drive"]
    <134>1 2026-11-24T02:20:00.000Z contoso exfilwatch - INTERNAL [exfilwatch@32473 name="collector.heartbeat" tenant="contoso" stream="contoso/office365/Audit.Exchange"]
    "#);
    insta::assert_snapshot!(split(&lines[1]).1, @r#"{"CreationTime":"2026-11-24T02:15:00","Id":"6f0d","Operation":"New-InboxRule","RecordType":1,"Workload":"Exchange","UserId":"alice@contoso.example", "Parameters":[{"Name":"ForwardTo","Value":"Bj\u00f6rn \u00fc <b@rival.example>"}]}"#);
}

#[test]
fn a_syslog_line_keeps_its_limit_and_says_who_to_whom_and_from_where() {
    let envelope = finding_envelope(&worst_finding());
    for bytes_max in [2_048, 8_192, 65_000] {
        let header = syslog5424::Header {
            bytes_max,
            ..header()
        };
        let line = syslog5424::line(&envelope, &header).unwrap();
        assert!(line.len() <= bytes_max, "{} > {bytes_max}", line.len());
        assert_eq!(message_of(&line)["class_uid"], 2004);
        let (start, _) = split(&line);
        for name in [
            "finding_uid=",
            " user=",
            " src=",
            " target=",
            " external_domain=",
        ] {
            assert!(start.contains(name), "{name} in {start}");
        }
        assert!(start.contains("truncated=\"true\""), "{start}");
    }
}

#[test]
fn a_long_record_is_shortened_but_says_what_happened() {
    let long = format!(
        r#"{{"Id":"1","Operation":"FileDownloaded","Blob":"{}","List":[{}0]}}"#,
        "x".repeat(20_000),
        "1,".repeat(20_000)
    );
    let envelope = common::event("contoso/office365/Audit.SharePoint", "1", &long);
    let line = syslog5424::line(&envelope, &header()).unwrap();
    assert!(line.len() <= 8_192);
    let message = message_of(&line);
    assert_eq!(message["Operation"], "FileDownloaded");
    assert!(split(&line).0.contains("truncated=\"true\""));
}

proptest! {
    #[test]
    fn no_text_breaks_out_of_a_syslog_line(text in any::<String>(), key in any::<String>()) {
        let mut finding = finding();
        finding.message.clone_from(&text);
        finding.user = Some(text.clone());
        finding.target = Some(text.clone());
        let line = syslog5424::line(&finding_envelope(&finding), &header()).unwrap();
        let message = message_of(&line);
        prop_assert_eq!(&message["unmapped"]["exfilwatch"]["detection"], &finding.rule.detection);

        let record = serde_json::json!({ &*key: text });
        let pretty = serde_json::to_string_pretty(&record).unwrap();
        let envelope = common::event("contoso/office365/Audit.Exchange", &text, &pretty);
        let line = syslog5424::line(&envelope, &header()).unwrap();
        if line.len() < 8_192 && !line.contains("truncated=") {
            prop_assert_eq!(message_of(&line), record);
        }
    }

    #[test]
    fn no_text_breaks_a_splunk_event(text in any::<String>()) {
        let mut finding = finding();
        finding.user = Some(text.clone());
        finding.message = text;
        let event = splunk::event(&finding).unwrap();
        let event: Value = serde_json::from_str(&event).unwrap();
        prop_assert_eq!(&event["finding_uid"], &finding.uid.to_string());
    }
}

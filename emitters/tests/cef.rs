//! Findings and internal items in CEF: as they look, and what no record can do to them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{finding, finding_envelope, heartbeat, worst_finding};
use std::sync::Arc;

use exfilwatch_emitters::formats::syslog5424;
use exfilwatch_emitters::{BuildError, Syslog, SyslogFormat, SyslogOptions};
use exfilwatch_model::UpdateReason;
use proptest::prelude::*;

fn cef_header(bytes_max: usize) -> syslog5424::Header {
    syslog5424::Header {
        facility: 16,
        hostname: "contoso".to_owned(),
        app_name: "exfilwatch".to_owned(),
        bytes_max,
        message: SyslogFormat::Cef,
    }
}

/// Header fields and extension of a CEF text, read as ArcSight's guide says.
fn cef(line: &str) -> (Vec<String>, Vec<(String, String)>) {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let text = &line[line.find(" - CEF:0|").expect("CEF behind the header") + 3..];
    let (mut fields, mut escaped, mut end) = (vec![String::new()], false, 0);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                escaped = false;
                fields.last_mut().unwrap().push(c);
            }
            '\\' => escaped = true,
            '|' => {
                fields.push(String::new());
                if fields.len() == 8 {
                    end = at + 1;
                    break;
                }
            }
            c => fields.last_mut().unwrap().push(c),
        }
    }
    assert_eq!(fields.len(), 8, "{text}");
    fields.pop();
    (fields, extension(&text[end..]))
}

/// `key=value` pairs: a key is what stands between a blank and an equals sign that is not escaped.
fn extension(text: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let (mut word, mut escaped) = (String::new(), false);
    for c in text.chars() {
        match c {
            'n' if escaped => word.push('\n'),
            'r' if escaped => word.push('\r'),
            _ if escaped => word.push(c),
            '\\' => {}
            '=' => {
                let (value, key) = word.rsplit_once(' ').unwrap_or(("", &word));
                let key = key.to_owned();
                if let Some(last) = pairs.last_mut() {
                    value.clone_into(&mut last.1);
                }
                pairs.push((key, String::new()));
                word.clear();
            }
            c => word.push(c),
        }
        escaped = !escaped && c == '\\';
    }
    pairs.last_mut().unwrap().1 = word;
    pairs
}

#[test]
fn cef_lines() {
    let mut over_v6 = finding();
    over_v6.src = Some("2001:db8::7".to_owned());
    over_v6.revision = 2;
    over_v6.update_reason = Some(UpdateReason::CountDoubled);
    Arc::make_mut(&mut over_v6.rule).title = "Shares | outside \\ many".to_owned();
    over_v6.message = "a=b | c\nd \\ e\u{202e}".to_owned();
    let lines = [
        finding_envelope(&finding()),
        finding_envelope(&over_v6),
        heartbeat(),
    ]
    .map(|envelope| syslog5424::line(&envelope, &cef_header(8_192)).unwrap());
    for line in &lines {
        cef(line);
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    <131>1 2026-11-24T02:20:00.123Z contoso exfilwatch - FINDING - CEF:0|exfilwatch|exfilwatch|0.1.0|gws.drive.mass_share_external|Many Drive files shared outside|8|externalId=f8d174e7-c68f-5aa4-9528-cf0699056aa8 rt=1795486800123 start=1795486500000 end=1795486560000 suser=alice@contoso.example src=198.51.100.7 duser=bob@rival.example destinationDnsDomain=rival.example cnt=2 act=observed cat=Exfiltration app=google_workspace:drive cs1Label=tenant cs1=contoso cs2Label=attack cs2=T1567.002,T1537 cs3Label=ruleId cs3=5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91 cs4Label=mode cs4=live cn1Label=riskScore cn1=72 cn2Label=revision cn2=1 cs5Label=eventIds cs5=2026-11-24T02:15:00.000Z/-720229394436/drive,2026-11-24T02:16:00.000Z/720229394437/drive msg=alice@contoso.example shared 2 files with rival.example in 60 s (threshold 2)
    <131>1 2026-11-24T02:20:00.123Z contoso exfilwatch - FINDING - CEF:0|exfilwatch|exfilwatch|0.1.0|gws.drive.mass_share_external|Shares \| outside \\ many|8|externalId=f8d174e7-c68f-5aa4-9528-cf0699056aa8 rt=1795486800123 start=1795486500000 end=1795486560000 suser=alice@contoso.example c6a2Label=Source IPv6 Address c6a2=2001:db8::7 duser=bob@rival.example destinationDnsDomain=rival.example cnt=2 act=observed cat=Exfiltration app=google_workspace:drive cs1Label=tenant cs1=contoso cs2Label=attack cs2=T1567.002,T1537 cs3Label=ruleId cs3=5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91 cs4Label=mode cs4=live cn1Label=riskScore cn1=72 cn2Label=revision cn2=2 reason=count_doubled cs5Label=eventIds cs5=2026-11-24T02:15:00.000Z/-720229394436/drive,2026-11-24T02:16:00.000Z/720229394437/drive msg=a\=b | c\nd \\ e\\u202e
    <134>1 2026-11-24T02:20:00.000Z contoso exfilwatch - INTERNAL - CEF:0|exfilwatch|exfilwatch|0.1.0|collector.heartbeat|collector.heartbeat|1|rt=1795486800000 cs1Label=tenant cs1=contoso cs2Label=stream cs2=contoso/office365/Audit.Exchange msg={"type":"collector.heartbeat","lag_seconds":12}
    "#);
}

#[test]
fn a_cef_line_keeps_its_limit_and_says_who_to_whom_and_from_where() {
    let mut many_ids = finding();
    many_ids.event_ids = (0..1_000).map(|n| format!("event-{n}")).collect();
    many_ids.message = "m".repeat(900);
    for (name, finding) in [("worst", worst_finding()), ("many ids", many_ids)] {
        for bytes_max in [2_048, 8_192] {
            let mut header = cef_header(bytes_max);
            header.hostname = "h".repeat(300);
            header.app_name = "a".repeat(60);
            let line = syslog5424::line(&finding_envelope(&finding), &header).unwrap();
            assert!(
                line.len() <= bytes_max,
                "{name}: {} > {bytes_max}",
                line.len()
            );
            let (_, pairs) = cef(&line);
            let has = |key: &str| pairs.iter().any(|(known, _)| known == key);
            for key in [
                "externalId",
                "suser",
                "duser",
                "destinationDnsDomain",
                "msg",
            ] {
                assert!(has(key), "{name}: {key} in {line}");
            }
            assert!(has("src") || has("cs6"), "{name}: {line}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_breaks_out_of_a_cef_field(text in any::<String>(), printable in "[ -~]{1,60}") {
        let mut finding = finding();
        finding.message.clone_from(&text);
        Arc::make_mut(&mut finding.rule).title.clone_from(&text);
        finding.user = Some(format!("u{printable}u"));
        finding.target = Some(text.clone());
        let line = syslog5424::line(&finding_envelope(&finding), &cef_header(8_192)).unwrap();
        let (fields, pairs) = cef(&line);
        prop_assert_eq!(&fields[4], &finding.rule.detection);
        prop_assert_eq!(&fields[6], "8");
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        let mut distinct = keys.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(keys.len(), distinct.len());
        let user = pairs.iter().find(|(key, _)| key == "suser").unwrap();
        prop_assert_eq!(&user.1, finding.user.as_ref().unwrap());
    }
}

#[test]
fn raw_records_in_cef_are_refused_when_the_emitter_is_built() {
    let build = |send: &[&str]| -> Result<Syslog, BuildError> {
        let options = serde_json::json!({
            "address": "127.0.0.1:514", "transport": "tcp", "format": "cef", "send": send,
        });
        let options: SyslogOptions = serde_json::from_value(options).unwrap();
        Syslog::new("syslog.main", &options)
    };
    let error = build(&["findings", "events"]).unwrap_err().to_string();
    assert!(
        error.contains("syslog.main: format") && error.contains("events"),
        "{error}"
    );
    build(&["findings", "signals", "internal"]).unwrap();
}

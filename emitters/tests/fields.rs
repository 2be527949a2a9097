//! What a policy withholds occurs in nothing that leaves, whatever the form and wherever the value stood.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::collector::Collector;
use common::{finding, finding_envelope, heartbeat};
use exfilwatch_emitters::fields::{Policy, policy};
use exfilwatch_emitters::formats::ocsf::Document;
use exfilwatch_emitters::formats::{risk, splunk, syslog5424};
use exfilwatch_emitters::{Environment, FieldsOptions, SyslogFormat, registry};
use exfilwatch_model::{Envelope, Finding, Kind, MessagePart, Suppression, SystemClock};
use proptest::prelude::*;
use serde_json::{Value, json};

const KEY: &str = "aVeryLongKeyThatNobodyKnowsOfThe";

fn environment() -> Environment {
    Environment::new(|name| {
        Some(match name {
            "KEY" => KEY.to_owned(),
            "SECRET" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            _ => "token".to_owned(),
        })
    })
}

fn made(mut fields: Value) -> Policy {
    fields["key"] = json!({ "env": "KEY" });
    let fields: FieldsOptions = serde_json::from_value(fields).unwrap();
    let kinds = [Kind::Findings, Kind::Signals];
    let made = policy("splunk_hec.main", &fields, &kinds, &environment());
    made.unwrap().unwrap()
}

/// Every form that a finding leaves in.
fn forms(finding: &Finding) -> Vec<(&'static str, String)> {
    let line = |message| {
        let header = syslog5424::Header {
            facility: 16,
            hostname: "contoso".to_owned(),
            app_name: "exfilwatch".to_owned(),
            bytes_max: 65_000,
            message,
        };
        syslog5424::line(&finding_envelope(finding), &header).unwrap()
    };
    vec![
        (
            "ocsf",
            serde_json::to_string(&Document::new(finding)).unwrap(),
        ),
        ("splunk", splunk::event(finding).unwrap()),
        ("risk", risk::event(finding).unwrap().unwrap_or_default()),
        ("5424", line(SyslogFormat::Json)),
        ("cef", line(SyslogFormat::Cef)),
    ]
}

/// A finding in which the values stand wherever a rule may put them.
fn about(person: &str, other: &str, address: &str, file: &str) -> Finding {
    let mut finding = finding();
    let owned = |text: &str| Some(text.to_owned());
    (finding.user, finding.target, finding.src) = (owned(person), owned(other), owned(address));
    finding.entity = exfilwatch_model::identity::normal_entity(person);
    for (name, values) in [
        ("target", vec![other, person]),
        ("mailbox", vec![person]),
        ("source_ip", vec![address]),
        ("object_name", vec![file]),
    ] {
        let values = values.into_iter().map(str::to_owned).collect();
        finding.values.insert(name.to_owned(), values);
    }
    for (name, text) in [
        ("Parameters.Identity", format!("CN={person},OU=x")),
        (
            "url",
            format!("https://d.example/{}/{file}", person.to_uppercase()),
        ),
        ("forward_to", format!("{other}, {person}")),
        ("operation", "change_user_access".to_owned()),
    ] {
        finding.matched.insert(name.to_owned(), text);
    }
    finding.suppressed = Some(Suppression::Exception(format!("for {person}")));
    let record = json!({ "actor": person, "to": other, "ip": address, "title": file });
    finding.evidence[0].record = Some(serde_json::value::to_raw_value(&record).unwrap());
    finding.provenance.message = [("actor", person), ("object_name", file), ("target", other)]
        .into_iter()
        .flat_map(|(field, value)| {
            [
                MessagePart::Values {
                    field: field.to_owned(),
                    shown: vec![value.to_owned()],
                    more: 0,
                },
                MessagePart::Text(" and ".to_owned()),
            ]
        })
        .collect();
    finding.message = finding.provenance.message();
    finding
}

/// As texts are compared here: escapes undone that only change how a character is written.
fn plain(text: &str) -> String {
    text.replace("\\u0027", "'").to_lowercase()
}

/// A value that no word of ours contains.
fn word() -> impl Strategy<Value = String> {
    "[b-df-hj-np-tv-z0-9]{3}Q[A-Za-z0-9 ._'-]{0,12}Z[0-9]{4}"
}

proptest! {
    #[test]
    fn what_is_withheld_occurs_in_no_form(
        person in word(), other in word(), file in word(), octets in any::<[u8; 4]>(),
        is_address in any::<bool>(), action in prop_oneof![Just("hash"), Just("drop")],
    ) {
        let at = if is_address { "@contoso.example" } else { "" };
        let (person, other) = (format!("{person}{at}"), format!("{other}@rival.example"));
        let address = format!("203.{}.{}.{}", octets[1], octets[2], octets[3]);
        let finding = about(&person, &other, &address, &file);
        let before: String = forms(&finding).into_iter().map(|(_, text)| plain(&text)).collect();
        let policy = made(json!({
            "actor": action, "target": action, "source_ip": action,
            "object": action,
        }));
        let masked = policy.apply(finding);
        for value in [&person, &other, &address, &file] {
            prop_assert!(before.contains(&plain(value)), "the test does not look for {value}");
            for (form, text) in forms(&masked) {
                prop_assert!(!plain(&text).contains(&plain(value)), "{value} in {form}: {text}");
            }
        }
        // What is not personal still stands there.
        for (form, text) in forms(&masked) {
            prop_assert!(text.contains("gws.drive.mass_share_external"), "{form}: {text}");
        }
    }
}

fn alice() -> Finding {
    let [person, other] = ["alice@contoso.example", "bob@rival.example"];
    about(person, other, "198.51.100.7", "Redundancies Q3.xlsx")
}

#[test]
fn one_person_has_one_pseudonym_in_all_places_of_all_findings() {
    let policy = made(json!({ "actor": "hash" }));
    let masked = policy.apply(alice());
    let known = masked.user.clone().unwrap();
    assert!(known.starts_with("h-") && known.len() == 34, "{known}");
    assert_eq!(masked.entity, known);
    assert_eq!(masked.values["mailbox"], [known.as_str()]);
    assert_eq!(masked.target.as_deref(), Some("bob@rival.example"));
    assert_eq!(
        masked.values["target"],
        ["bob@rival.example", known.as_str()]
    );
    assert_eq!(
        masked.message,
        format!("{known} and Redundancies Q3.xlsx and bob@rival.example and ")
    );
    assert_eq!(
        masked.matched["Parameters.Identity"],
        format!("CN={known},OU=x")
    );
    assert_eq!(
        masked.matched["forward_to"],
        format!("bob@rival.example, {known}")
    );
    let url = &masked.matched["url"];
    assert_eq!(
        url,
        &format!("https://d.example/{known}/Redundancies Q3.xlsx")
    );
    // Another spelling, another finding, another run.
    let again = made(json!({ "actor": "hash" }));
    let [person, other] = ["Alice@Contoso.example", "carol@rival.example"];
    let other = again.apply(about(person, other, "192.0.2.1", "x.txt"));
    assert_eq!(other.user, Some(known));
}

#[test]
fn what_is_left_of_a_value_holds_no_other_that_is_withheld() {
    let policy = made(json!({
        "actor": "hash", "object": { "truncate": 80 },
        "external_domain": "drop", "target": { "truncate": 1 },
    }));
    let mut finding = alice();
    finding.external_domain = Some("rival.example".to_owned());
    let site = "https://d.example/personal/alice_contoso_example/Documents/Redundancies Q3.xlsx";
    finding
        .values
        .insert("url".to_owned(), vec![site.to_owned()]);
    let masked = policy.apply(finding);
    let known = masked.user.clone().unwrap();
    assert_eq!(masked.target.as_deref(), Some("b…@(withheld)"));
    let url = &masked.values["url"][0];
    assert!(url.contains(&known) && url.ends_with('…'), "{url}");
    for (form, text) in forms(&masked) {
        assert!(
            !text.contains("alice") && !text.contains("rival"),
            "{form}: {text}"
        );
    }
}

#[test]
fn of_two_lengths_the_shorter_prevails() {
    for [actor, target] in [[1, 20], [20, 1]] {
        let policy = made(json!({
            "actor": { "truncate": actor }, "target": { "truncate": target },
        }));
        let [one, file] = ["alice@contoso.example", "x.txt"];
        let masked = policy.apply(about(one, one, "198.51.100.7", file));
        assert_eq!(masked.user.as_deref(), Some("a…@contoso.example"));
        assert_eq!(masked.target.as_deref(), Some("a…@contoso.example"));
    }
}

#[test]
fn truncation_keeps_a_network_a_domain_or_a_beginning() {
    let policy = made(json!({
        "actor": { "truncate": 1 }, "source_ip": { "truncate": 24 }, "object": { "truncate": 5 },
    }));
    let masked = policy.apply(alice());
    assert_eq!(masked.src.as_deref(), Some("198.51.100.0"));
    assert_eq!(masked.user.as_deref(), Some("a…@contoso.example"));
    assert_eq!(masked.values["object_name"], ["Redun…"]);
    let mut from_v6 = alice();
    from_v6.src = Some("2001:db8:1234:5678::9".to_owned());
    assert_eq!(
        policy.apply(from_v6).src.as_deref(),
        Some("2001:db8:1234::")
    );
    assert!(
        masked
            .evidence
            .iter()
            .all(|evidence| evidence.record.is_none())
    );
}

#[test]
fn a_person_in_a_web_address_is_found_in_its_spellings() {
    let policy = made(json!({ "actor": "drop" }));
    let mut finding = alice();
    let url =
        "https://c-my.sharepoint.com/personal/alice_contoso_example/f?u=alice%40contoso.example";
    finding.matched.insert("url".to_owned(), url.to_owned());
    let masked = policy.apply(finding);
    assert_eq!(
        masked.matched["url"],
        "https://c-my.sharepoint.com/personal/(withheld)/f?u=(withheld)"
    );
    assert_eq!((masked.user, masked.entity.as_str()), (None, "(withheld)"));
}

#[test]
fn what_nobody_knows_the_field_of_is_treated_as_the_strictest_says() {
    let policy = made(json!({ "object": "drop" }));
    let mut of_before = alice();
    of_before.provenance = exfilwatch_model::Provenance::default();
    let masked = policy.apply(of_before);
    assert_eq!(masked.user.as_deref(), None);
    assert_eq!(masked.message, masked.rule.title);
    assert_eq!(
        (masked.target, masked.entity.as_str()),
        (None, "(withheld)")
    );
    let known = policy.apply(alice());
    assert_eq!(known.target.as_deref(), Some("bob@rival.example"));
    assert_eq!(known.entity, "alice@contoso.example");
}

#[test]
fn a_policy_that_cannot_hold_is_refused_when_the_emitter_is_built() {
    for (fields, kinds, said) in [
        (
            json!({ "actor": "drop" }),
            &[Kind::Findings][..],
            "openssl rand",
        ),
        (
            json!({ "actor": "drop" }),
            &[Kind::Findings, Kind::Events],
            "take \"events\" out of send",
        ),
        (
            json!({ "source_ip": { "truncate": 64 }, "key": { "env": "KEY" } }),
            &[Kind::Findings],
            "8 to 32",
        ),
        (
            json!({ "actor": "hash", "key": { "env": "SHORT" } }),
            &[Kind::Findings],
            "shorter than 32",
        ),
    ] {
        let fields: FieldsOptions = serde_json::from_value(fields).unwrap();
        let error = policy("webhook.main", &fields, kinds, &environment()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let nothing = FieldsOptions::default();
    let kinds = [Kind::Findings, Kind::Events];
    let none = policy("webhook.main", &nothing, &kinds, &environment());
    assert!(none.unwrap().is_none());
}

/// What an analyst said of it.
fn closed() -> Envelope {
    let uid = alice().uid;
    Envelope {
        id: format!("finding.closed:contoso/google_workspace/drive:1:{uid}"),
        payload: json!({
            "type": "finding.closed", "tenant": "contoso", "finding_uid": uid, "revision": 1,
            "detection": "gws.drive.mass_share_external", "entity": "alice@contoso.example",
            "judgement": "false_positive", "reason": "Alice asked Redundancies GmbH",
            "by": "carol.analyst", "before": null,
        })
        .to_string()
        .into(),
        ..heartbeat()
    }
}

/// A finding's own id is a plain hash of whom it is about: a list of the staff would be enough to look up
/// every pseudonym.
#[test]
fn ids_go_out_keyed_and_agree_in_all_emitters_with_the_key() {
    let hashed = made(json!({ "actor": "hash" }));
    let dropped = made(json!({ "target": "drop" }));
    let (mut part, mut incident) = (alice(), alice());
    incident.uid = uuid::Uuid::from_u128(1);
    incident.incident_uid = incident.uid;
    part.incident_uid = incident.uid;
    let (mut seen, own) = (Vec::new(), part.uid.to_string());
    for policy in [&hashed, &dropped] {
        let sent = policy.apply(part.clone());
        assert_eq!(sent.uid, policy.sent_uid(&part.tenant, part.uid));
        assert_eq!(sent.incident_uid, policy.apply(incident.clone()).uid);
        for (form, text) in forms(&sent) {
            assert!(!text.contains(&own), "{form}: {text}");
            assert!(
                form == "risk" || text.contains(&sent.uid.to_string()),
                "{form}: {text}"
            );
        }
        seen.push(sent.uid);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], part.uid);
}

/// By the emitters as they are built, over the wire and into a file.
#[tokio::test]
async fn every_emitter_sends_what_the_policy_leaves() {
    let collector = Collector::start(|call| {
        let said = if call.path.contains("collector") {
            r#"{"text":"Success","code":0}"#
        } else {
            ""
        };
        (200, "", said.to_owned())
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.ndjson");
    let fields = json!({
        "key": { "env": "KEY" }, "actor": "hash", "target": "drop", "source_ip": { "truncate": 24 },
        "object": "drop",
    });
    let webhook = |format: &str| {
        json!({ "url": format!("{}/hook", collector.url), "format": format,
            "secret": { "env": "SECRET" }, "fields": fields })
    };
    let hec = json!({
        "url": collector.url, "token": { "env": "T" }, "gzip": false, "index": { "risk": "risk" },
        "fields": fields,
    });
    let mut sent = String::new();
    for (kind, table) in [
        ("splunk_hec", hec),
        ("webhook", webhook("standard")),
        ("webhook", webhook("slack")),
        ("webhook", webhook("teams")),
        ("ndjson", json!({ "path": file, "fields": fields })),
    ] {
        let options = registry::read(kind, table).unwrap();
        let clock = Arc::new(SystemClock);
        let emitter = registry::build("x.main", &options, &environment(), clock).unwrap();
        let delivered = emitter.emit(&[finding_envelope(&alice())]).await.unwrap();
        assert!(delivered.refused.is_empty(), "{kind}: {delivered:?}");
        let id = made(fields.clone()).sent_uid(&alice().tenant, alice().uid);
        assert_eq!(emitter.sent_id(&finding_envelope(&alice())), id.to_string());
        if kind == "splunk_hec" {
            emitter.emit(&[heartbeat(), closed()]).await.unwrap();
        }
        let before = sent.len();
        sent = collector
            .calls()
            .iter()
            .map(|call| call.body.clone())
            .collect();
        assert!(
            kind == "ndjson" || sent.len() > before,
            "{kind} sent nothing"
        );
    }
    assert!(sent.contains("lag_seconds"), "internal items pass");
    sent.push_str(&std::fs::read_to_string(&file).unwrap());
    let pseudonym = made(fields.clone()).apply(alice()).user.unwrap();
    assert!(sent.matches(&pseudonym).count() >= 6, "{sent}");
    assert!(sent.contains("carol.analyst"), "who closed it is said");
    let uid = alice().uid.to_string();
    let id = made(fields.clone())
        .sent_uid(&alice().tenant, alice().uid)
        .to_string();
    assert!(sent.matches(&id).count() >= 6, "{sent}");
    for value in ["alice", "bob@", "198.51.100.7", "Redundancies", &uid] {
        assert!(
            !sent.to_lowercase().contains(&value.to_lowercase()),
            "{value} in {sent}"
        );
    }
}

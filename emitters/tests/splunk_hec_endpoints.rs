//! Splunk HEC with several addresses, behind a balancer, and with a risk index.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::collector::{Collector, success};
use common::hec::{batch, emitter_with, options};
use common::{finding, finding_envelope};
use exfilwatch_emitters::Emitter;
use serde_json::json;

#[tokio::test]
async fn what_one_address_does_not_take_goes_to_another_and_the_first_is_left_alone() {
    let good = Collector::scripted(vec![]).await;
    let bad = Collector::start(|_| (503, "", r#"{"text":"busy","code":9}"#.to_owned())).await;
    let mut options = options(&bad.url);
    options.more_urls = vec![good.url.parse().unwrap()];
    let emitter = emitter_with(&options);
    for number in 0..6 {
        let id = format!("r{number}");
        emitter.emit(&batch(&[&id])).await.unwrap();
    }
    let delivered: Vec<String> = good
        .calls()
        .iter()
        .flat_map(common::collector::Call::ids)
        .collect();
    assert_eq!(delivered, ["r0", "r1", "r2", "r3", "r4", "r5"]);
    assert_eq!(bad.calls().len(), 1);
}

#[tokio::test]
async fn two_addresses_share_the_batches_each_on_a_channel_of_its_own() {
    let (one, other) = (
        Collector::scripted(vec![]).await,
        Collector::scripted(vec![]).await,
    );
    let mut options = options(&one.url);
    options.more_urls = vec![other.url.parse().unwrap()];
    let emitter = emitter_with(&options);
    for id in ["a", "b", "c", "d"] {
        emitter.emit(&batch(&[id])).await.unwrap();
    }
    let channel = |collector: &Collector| {
        let calls = collector.calls();
        assert_eq!(calls.len(), 2);
        calls[0]
            .header("x-splunk-request-channel")
            .unwrap()
            .to_owned()
    };
    assert_ne!(channel(&one), channel(&other));
}

#[tokio::test]
async fn the_cookie_of_a_balancer_goes_with_the_question_for_acknowledgements() {
    let collector = Collector::start(|call| {
        if call.path.starts_with("/services/collector/ack") {
            let body = r#"{"acks":{"0":true}}"#;
            return (200, "", body.to_owned());
        }
        let body = r#"{"text":"Success","code":0,"ackId":0}"#;
        (
            200,
            "Set-Cookie: SERVERID=indexer-2; path=/\r\n",
            body.to_owned(),
        )
    })
    .await;
    let mut options = options(&collector.url);
    options.ack_poll_seconds_max = 1;
    emitter_with(&options).emit(&batch(&["a"])).await.unwrap();
    let calls = collector.calls();
    assert_eq!(calls[0].header("cookie"), None);
    assert_eq!(calls[1].header("cookie"), Some("SERVERID=indexer-2"));
}

#[tokio::test]
async fn a_new_finding_is_a_risk_event_too_and_a_later_revision_is_not() {
    let collector = Collector::start(|_| success()).await;
    let mut options = options(&collector.url);
    options.index.risk = Some("risk".to_owned());
    let emitter = emitter_with(&options);
    let first = finding();
    let mut second = finding();
    second.revision = 2;
    emitter
        .emit(&[finding_envelope(&first), finding_envelope(&second)])
        .await
        .unwrap();
    let events = collector.calls()[0].events();
    let sourcetypes: Vec<&str> = events
        .iter()
        .map(|event| event["sourcetype"].as_str().unwrap())
        .collect();
    assert_eq!(
        sourcetypes,
        [
            "exfilwatch:finding",
            "exfilwatch:risk",
            "exfilwatch:finding"
        ]
    );
    let risk = &events[1];
    assert_eq!(risk["index"], "risk");
    let event = &risk["event"];
    assert_eq!(event["risk_object"], json!(first.user.clone().unwrap()));
    assert_eq!(event["risk_object_type"], "user");
    assert_eq!(event["risk_score"], json!(first.risk_score));
    assert_eq!(event["risk_message"], json!(first.message));
    assert_eq!(
        event["threat_object"],
        json!(first.external_domain.clone().unwrap())
    );
    assert_eq!(
        event["annotations.mitre_attack"],
        json!(first.rule.techniques)
    );
    assert_eq!(event["finding_uid"], json!(first.uid));
}

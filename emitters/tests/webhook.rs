//! Webhooks against a receiver that answers by a script.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::collector::{Answer, Call, Collector};
use common::{finding, finding_envelope, heartbeat, office365, worst_finding};
use exfilwatch_emitters::{BuildError, EmitError, Emitter, Environment, Webhook, WebhookOptions};
use exfilwatch_model::diagnosis::Verdict;
use exfilwatch_model::{Envelope, SystemClock, UpdateReason};
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn build(more: &Value) -> Result<Webhook, BuildError> {
    let mut options = json!({ "secret": { "env": "SECRET" } });
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let options: WebhookOptions = serde_json::from_value(options).unwrap();
    let environment = Environment::new(|name| match name {
        "SECRET" => Some(SECRET.to_owned()),
        "URL" => Some("http://127.0.0.1:9/services/T0/canary".to_owned()),
        _ => None,
    });
    Webhook::new(
        "webhook.main",
        &options,
        &environment,
        Arc::new(SystemClock),
    )
}

fn webhook(collector: &Collector, format: &str) -> Webhook {
    let send = if format == "standard" {
        json!(["findings", "internal", "events"])
    } else {
        json!(["findings"])
    };
    let url = format!("{}/hook/canary", collector.url);
    build(&json!({ "url": url, "format": format, "send": send })).unwrap()
}

fn answer(status: u16) -> Answer {
    (status, "", String::new())
}

/// Whether the signature is what the standard says; worked out anew.
fn is_signed(call: &Call) -> bool {
    let header = |name| call.header(name).unwrap();
    let key = STANDARD
        .decode(SECRET.strip_prefix("whsec_").unwrap())
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let content = format!(
        "{}.{}.{}",
        header("webhook-id"),
        header("webhook-timestamp"),
        call.body
    );
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    hmac::verify(&key, content.as_bytes(), &signature).is_ok()
}

#[tokio::test]
async fn every_item_is_one_signed_event() {
    let collector = Collector::start(|_| answer(204)).await;
    let mut closed = finding();
    closed.revision = 3;
    closed.update_reason = Some(UpdateReason::Closed);
    let batch = [
        finding_envelope(&finding()),
        finding_envelope(&closed),
        heartbeat(),
        office365("a"),
    ];
    let delivered = webhook(&collector, "standard").emit(&batch).await.unwrap();
    assert!(delivered.refused.is_empty());
    let calls = collector.calls();
    assert!(calls.iter().all(is_signed) && calls.len() == 4);
    let mut forged = calls[0].clone();
    forged.body.push(' ');
    assert!(!is_signed(&forged));
    let events: Vec<Value> = calls
        .iter()
        .map(|call| serde_json::from_str(&call.body).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "exfilwatch.finding.created",
            "exfilwatch.finding.closed",
            "exfilwatch.internal",
            "exfilwatch.event"
        ]
    );
    assert_eq!(events[0]["timestamp"], "2026-11-24T02:16:00.000Z");
    assert_eq!(events[0]["data"]["class_uid"], 2004);
    assert_eq!(events[3]["data"]["Id"], "a");
    let ids: std::collections::BTreeSet<&str> = calls
        .iter()
        .map(|call| call.header("webhook-id").unwrap())
        .collect();
    assert_eq!(ids.len(), 4);
    assert!(
        ids.iter()
            .all(|id| id.starts_with("msg_") && !id.contains('.'))
    );
}

#[tokio::test]
async fn a_resend_has_the_same_id_and_body_and_leaves_out_what_was_taken() {
    let count = AtomicUsize::new(0);
    // The second request fails once.
    let collector = Collector::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        1 => (503, "Retry-After: 7\r\n", String::new()),
        _ => answer(200),
    })
    .await;
    let webhook = webhook(&collector, "standard");
    let batch: Vec<Envelope> = (0..3).map(|n| office365(&format!("n{n}"))).collect();
    let error = webhook.emit(&batch).await.unwrap_err();
    let EmitError::Retry { after, what } = error else {
        panic!("{error:?}")
    };
    assert_eq!(after, Some(std::time::Duration::from_secs(7)), "{what}");
    webhook.emit(&batch).await.unwrap();
    let calls = collector.calls();
    let ids: Vec<&str> = calls
        .iter()
        .map(|call| call.header("webhook-id").unwrap())
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!((ids[1], &calls[1].body), (ids[2], &calls[2].body));
    assert!(ids[0] != ids[1] && ids[3] != ids[2]);
}

#[tokio::test]
async fn statuses_hold_refuse_or_wait_and_no_error_shows_the_url() {
    for (status, expected) in [
        (400, "refused"),
        (413, "refused"),
        (422, "refused"),
        (301, "hold"),
        (401, "hold"),
        (403, "hold"),
        (404, "hold"),
        (410, "hold"),
        (408, "again"),
        (429, "again"),
        (500, "again"),
        (503, "again"),
    ] {
        let said = "no such hook: /hook/canary".to_owned();
        let collector = Collector::start(move |_| (status, "", said.clone())).await;
        let outcome = webhook(&collector, "standard")
            .emit(&[office365("a")])
            .await;
        let (got, words) = match outcome {
            Ok(delivered) => ("refused", delivered.refused[0].reason.clone()),
            Err(EmitError::Hold { what, .. }) => ("hold", what),
            Err(error) => ("again", error.to_string()),
        };
        assert_eq!(got, expected, "{status}");
        assert!(
            words.contains(&status.to_string()) && !words.contains("canary"),
            "{words}"
        );
        assert_eq!(
            collector.calls().len(),
            1,
            "{status}: no redirect is followed"
        );
    }
    let nobody = build(&json!({ "url_secret": { "env": "URL" } })).unwrap();
    let error = nobody
        .emit(&[finding_envelope(&finding())])
        .await
        .unwrap_err();
    assert!(matches!(error, EmitError::Retry { .. }) && !error.to_string().contains("canary"));
    let check = &nobody.diagnose().await[0];
    assert!(check.verdict == Verdict::Failed && !format!("{check:?}{nobody:?}").contains("canary"));
}

#[test]
fn what_cannot_work_is_said_when_it_is_built() {
    for (options, said) in [
        (json!({}), "url_secret"),
        (
            json!({ "url": "https://h.example", "url_secret": { "env": "URL" } }),
            "url_secret",
        ),
        (
            json!({ "url": "http://169.254.169.254/latest" }),
            "link-local",
        ),
        (json!({ "url": "http://[fd00:ec2::254]/" }), "metadata"),
        (json!({ "url": "ftp://h.example" }), "not https or http"),
        (
            json!({ "url": "https://u:p@h.example" }),
            "user and password",
        ),
        (
            json!({ "url": "https://h.example", "secret": null }),
            "name a secret",
        ),
        (
            json!({ "url": "https://h.example", "secret": { "env": "URL" } }),
            "whsec_",
        ),
        (
            json!({ "url": "https://h.example", "format": "slack", "send": ["events"] }),
            "standard",
        ),
    ] {
        let error = build(&options).unwrap_err().to_string();
        assert!(
            error.contains(said) && !error.contains("canary"),
            "{options}: {error}"
        );
    }
}

#[tokio::test]
async fn messages_for_slack_and_teams() {
    let collector = Collector::start(|_| answer(200)).await;
    for format in ["slack", "teams"] {
        webhook(&collector, format)
            .emit(&[finding_envelope(&finding())])
            .await
            .unwrap();
    }
    let calls = collector.calls();
    let pretty = |call: &Call| {
        let value: Value = serde_json::from_str(&call.body).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    insta::assert_snapshot!("slack", pretty(&calls[0]));
    insta::assert_snapshot!("teams", pretty(&calls[1]));
}

/// What Slack and Teams refuse, or would read as markup.
fn check_message(format: &str, body: &str) {
    let value: Value = serde_json::from_str(body).unwrap();
    if format == "slack" {
        let notice = value["text"].as_str().unwrap();
        assert!(!notice.contains(['<', '>']), "{notice}");
        let blocks = value["blocks"].as_array().unwrap();
        for (block, chars_max) in blocks.iter().zip([150, 3_000, 3_000]) {
            assert_eq!(block["text"]["type"], "plain_text");
            assert!(block["text"]["text"].as_str().unwrap().chars().count() <= chars_max);
        }
        assert_eq!(blocks.len(), 3);
    } else {
        assert!(body.len() < 28_000);
        let card = &value["attachments"][0]["content"];
        for block in card["body"].as_array().unwrap() {
            assert_eq!(block["type"], "RichTextBlock");
            assert!(
                block["inlines"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|run| run["type"] == "TextRun")
            );
        }
    }
}

#[tokio::test]
async fn nothing_that_a_record_says_is_markup_and_the_longest_finding_fits() {
    let collector = Collector::start(|_| answer(200)).await;
    let mut marked = finding();
    Arc::make_mut(&mut marked.rule).title = "<!channel> & <https://evil.example|click>".to_owned();
    marked.message = "[click](https://evil.example) *bold* <@U1>".to_owned();
    for format in ["slack", "teams"] {
        let batch = [
            finding_envelope(&marked),
            finding_envelope(&worst_finding()),
        ];
        webhook(&collector, format).emit(&batch).await.unwrap();
        for call in collector.calls().iter().rev().take(2) {
            check_message(format, &call.body);
        }
    }
}

/// Any text in every place: the message stays one of plain runs within the limits.
#[tokio::test]
async fn no_text_breaks_out_of_a_message() {
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;
    let collector = Collector::start(|_| answer(200)).await;
    let mut runner = TestRunner::deterministic();
    let mut texts: Vec<String> = (0..30)
        .map(|_| {
            proptest::arbitrary::any::<String>()
                .new_tree(&mut runner)
                .unwrap()
                .current()
        })
        .collect();
    texts.extend(
        [
            "<!everyone>",
            "<at>all</at> [x](https://e.example)",
            "\u{202e}\u{0}\n",
        ]
        .map(str::to_owned),
    );
    let batch: Vec<Envelope> = texts
        .iter()
        .map(|text| {
            let mut finding = finding();
            Arc::make_mut(&mut finding.rule).title.clone_from(text);
            finding.message = text.repeat(40);
            finding.user = Some(text.repeat(20));
            finding.target = Some(text.clone());
            finding_envelope(&finding)
        })
        .collect();
    for format in ["slack", "teams"] {
        webhook(&collector, format).emit(&batch).await.unwrap();
        for call in collector.calls().iter().rev().take(batch.len()) {
            check_message(format, &call.body);
            assert!(!call.body.bytes().any(|byte| byte < 0x20), "{}", call.body);
        }
    }
    assert_eq!(collector.calls().len(), 2 * batch.len());
}

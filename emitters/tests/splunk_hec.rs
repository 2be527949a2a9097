//! Splunk HEC over loopback: what arrives, and what each reply leads to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::collector::{Call, Collector, code, code_at, success};
use common::hec::{batch, emitter, emitter_with, options, refused};
use common::{event, finding, finding_envelope, google, heartbeat, office365};
use exfilwatch_emitters::{Delivered, EmitError, Emitter, Environment, Shape, SplunkHec};
use exfilwatch_model::{Envelope, Mode, SystemClock};

#[tokio::test]
async fn what_a_collector_gets() {
    let collector = Collector::scripted(vec![]).await;
    let mut backfilled = finding();
    backfilled.mode = Mode::Backfill;
    let batch = [
        office365("6f0d"),
        google(),
        finding_envelope(&finding()),
        finding_envelope(&backfilled),
        heartbeat(),
    ];
    let delivered = emitter(&collector).emit(&batch).await.unwrap();
    assert_eq!(delivered, Delivered::default());
    let calls = collector.calls();
    let [call] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(call.path, "/services/collector/event");
    assert_eq!(call.header("authorization"), Some("Splunk t0ken"));
    assert_eq!(call.header("content-encoding"), Some("gzip"));
    let channel = call.header("x-splunk-request-channel").unwrap();
    assert!(channel.parse::<uuid::Uuid>().is_ok(), "{channel}");
    assert!(
        call.body.contains(common::OFFICE365),
        "byte for byte: {}",
        call.body
    );
    let heads: Vec<String> = call
        .body
        .split("{\"time\":1")
        .skip(1)
        .map(|text| text.split(",\"event\":").next().unwrap().to_owned())
        .collect();
    insta::assert_snapshot!(heads.join("\n"), @r#"
    795486500.000,"host":"contoso","source":"exfilwatch","sourcetype":"o365:management:activity","index":"saas_contoso","fields":{"event_id":"6f0d","tenant":"contoso","connector":"office365","stream":"Audit.Exchange"}
    795486500.000,"host":"contoso","source":"exfilwatch","sourcetype":"gws:reports:drive","index":"saas_contoso","fields":{"event_id":"2026-11-24T02:15:00.000Z/-72/drive","part":0,"tenant":"contoso","connector":"google_workspace","stream":"drive"}
    795486500.000,"host":"contoso","source":"exfilwatch","sourcetype":"gws:reports:drive","index":"saas_contoso","fields":{"event_id":"2026-11-24T02:15:00.000Z/-72/drive","part":1,"tenant":"contoso","connector":"google_workspace","stream":"drive"}
    795486800.123,"host":"contoso","source":"exfilwatch","sourcetype":"exfilwatch:finding","index":"security","fields":{"finding_uid":"f8d174e7-c68f-5aa4-9528-cf0699056aa8","rule_id":"5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91","severity":"high","tenant":"contoso"}
    795486560.000,"host":"contoso","source":"exfilwatch","sourcetype":"exfilwatch:finding","index":"security","fields":{"finding_uid":"f8d174e7-c68f-5aa4-9528-cf0699056aa8","rule_id":"5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91","severity":"high","tenant":"contoso"}
    795486800.000,"host":"contoso","source":"exfilwatch","sourcetype":"exfilwatch:internal","fields":{"name":"collector.heartbeat","tenant":"contoso","connector":"office365","stream":"Audit.Exchange"}
    "#);
    let events = call.events();
    assert_eq!(events[1]["event"]["event"]["name"], "change_user_access");
    assert_eq!(events[2]["event"]["event"]["name"], "view");
    assert!(events[2]["event"]["events"].is_null());
}

#[tokio::test]
async fn the_vendors_shape_leaves_google_records_whole() {
    let collector = Collector::scripted(vec![]).await;
    let mut options = options(&collector.url);
    options.shape = Shape::Vendor;
    emitter_with(&options).emit(&[google()]).await.unwrap();
    assert!(
        collector.calls()[0]
            .body
            .ends_with(&format!("\"event\":{}}}", common::GOOGLE))
    );
}

#[tokio::test]
async fn a_hostile_record_stays_one_event_in_the_configured_index() {
    let collector = Collector::scripted(vec![]).await;
    let title = r#""},{"event":"x","index":"main"#;
    let record = serde_json::json!({ "Id": title, "ObjectId": title, "index": "main" });
    let mut envelope = event(
        "contoso/office365/Audit.Exchange",
        title,
        &record.to_string(),
    );
    envelope.id = title.to_owned();
    let none = event("contoso/office365/Audit.Exchange", "b", "");
    let delivered = emitter(&collector).emit(&[envelope, none]).await.unwrap();
    assert_eq!(refused(&delivered), [1]);
    let events = collector.calls()[0].events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["index"], "saas_contoso");
    assert_eq!(events[0]["event"], record);
}

#[tokio::test]
async fn the_prefix_is_not_doubled_and_the_suffix_not_lost() {
    let collector = Collector::scripted(vec![code_at(400, 6, 2)]).await;
    let delivered = emitter(&collector)
        .emit(&batch(&["a", "b", "c", "d", "e"]))
        .await
        .unwrap();
    assert_eq!(refused(&delivered), [2]);
    assert!(
        delivered.refused[0].reason.contains("code 6"),
        "{delivered:?}"
    );
    let ids: Vec<_> = collector.calls().iter().map(Call::ids).collect();
    assert_eq!(ids, [vec!["a", "b", "c", "d", "e"], vec!["d", "e"]]);
}

#[tokio::test]
async fn an_event_whose_fields_are_refused_goes_without_them_before_it_is_quarantined() {
    let collector = Collector::scripted(vec![code_at(400, 15, 1), code_at(400, 15, 0)]).await;
    let delivered = emitter(&collector)
        .emit(&batch(&["a", "b", "c"]))
        .await
        .unwrap();
    assert_eq!(refused(&delivered), [1]);
    let calls = collector.calls();
    assert_eq!(calls.len(), 3);
    let without = &calls[1].events()[0];
    assert!(without["fields"].is_null() && without["event"]["Operation"] == "New-InboxRule");
    assert_eq!(calls[2].ids(), ["c"]);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_halved_down_to_the_event_that_is() {
    let collector = Collector::start(|call| {
        if call.ids().contains(&"big".to_owned()) {
            (413, "", "<html>Request Entity Too Large</html>".to_owned())
        } else {
            success()
        }
    })
    .await;
    let delivered = emitter(&collector)
        .emit(&batch(&["a", "b", "big", "d"]))
        .await
        .unwrap();
    assert_eq!(refused(&delivered), [2]);
    let mut taken = Vec::new();
    for call in collector
        .calls()
        .iter()
        .filter(|call| !call.ids().contains(&"big".to_owned()))
    {
        taken.extend(call.ids());
    }
    assert_eq!(taken, ["a", "b", "d"]);
}

#[tokio::test]
async fn a_missing_index_holds_the_batch_and_what_was_taken_is_not_sent_again() {
    let collector = Collector::scripted(vec![code_at(400, 7, 3), code_at(503, 9, 1)]).await;
    let mut options = options(&collector.url);
    options.index.events = Some("saas".to_owned());
    let (emitter, batch) = (emitter_with(&options), batch(&["a", "b", "c", "d"]));
    let error = emitter.emit(&batch).await.unwrap_err();
    assert!(
        matches!(&error, EmitError::Hold { help, .. } if help.contains("index")),
        "{error:?}"
    );
    let error = emitter.emit(&batch).await.unwrap_err();
    assert!(matches!(&error, EmitError::Retry { .. }), "{error:?}");
    emitter.emit(&batch).await.unwrap();
    let ids: Vec<_> = collector.calls().iter().map(Call::ids).collect();
    assert_eq!(ids, [vec!["a", "b", "c", "d"], vec!["c", "d"], vec!["d"]]);
}

/// Of three tenants, the second twice.
fn items_of_three() -> [Envelope; 5] {
    let of = |tenant: &str, id: &str| {
        let body = format!(r#"{{"Id":"{id}"}}"#);
        event(&format!("{tenant}/office365/Audit.Exchange"), id, &body)
    };
    [
        of("contoso", "a"),
        of("fabrikam", "b"),
        of("contoso", "c"),
        of("fabrikam", "d"),
        of("woodgrove", "e"),
    ]
}

#[tokio::test]
async fn a_missing_index_that_no_event_is_named_for_is_looked_for_by_halves() {
    let seven = || code(400, 7);
    let taken = || code(200, 0);
    let replies = vec![seven(), seven(), taken(), seven(), taken()];
    let collector = Collector::scripted(replies).await;
    let items = items_of_three();
    let delivered = emitter(&collector).emit(&items).await.unwrap();
    let held: Vec<_> = delivered.held.iter().map(|held| held.index).collect();
    assert_eq!((held, refused(&delivered)), (vec![1, 3], vec![]));
    let ids: Vec<_> = collector.calls().iter().map(Call::ids).collect();
    let sent = [
        vec!["a", "b", "c", "d", "e"],
        vec!["a", "b"],
        vec!["a"],
        vec!["b"],
        vec!["c", "e"],
    ];
    assert_eq!(ids, sent);
}

#[tokio::test]
async fn a_missing_index_of_one_tenant_holds_its_items_and_the_others_go_on() {
    let collector = Collector::scripted(vec![code_at(400, 7, 2)]).await;
    let items = items_of_three();
    let delivered = emitter(&collector).emit(&items).await.unwrap();
    let held: Vec<_> = delivered.held.iter().map(|held| held.index).collect();
    assert_eq!((held, refused(&delivered)), (vec![1, 3], vec![]));
    let said = &delivered.held[0];
    assert!(said.what.contains("saas_fabrikam"), "{said:?}");
    assert!(said.help.contains("index"), "{said:?}");
    let ids: Vec<_> = collector.calls().iter().map(Call::ids).collect();
    let sent = [vec!["a", "b", "c", "d", "e"], vec!["c", "e"]];
    assert_eq!(ids, sent, "what is held is not sent for each of its events");
}

#[tokio::test]
async fn a_resend_is_the_same_bytes() {
    let busy = (503, "Retry-After: 7\r\n", String::new());
    let collector = Collector::scripted(vec![busy]).await;
    let (emitter, batch) = (emitter(&collector), batch(&["a", "b"]));
    let error = emitter.emit(&batch).await.unwrap_err();
    let wish = Some(Duration::from_secs(7));
    assert!(
        matches!(&error, EmitError::Retry { after, .. } if *after == wish),
        "{error:?}"
    );
    emitter.emit(&batch).await.unwrap();
    let calls = collector.calls();
    assert_eq!(calls[0].body, calls[1].body);
}

#[tokio::test]
async fn limits_count_uncompressed_bytes_and_a_too_large_event_is_refused() {
    let collector = Collector::scripted(vec![]).await;
    let mut options = options(&collector.url);
    options.batch_bytes_max = 10_000;
    options.event_bytes_max = 10_000;
    let large = format!(r#"{{"Id":"x","Blob":"{}"}}"#, "y".repeat(10_000));
    let mut items: Vec<Envelope> = (0..40).map(|n| office365(&n.to_string())).collect();
    items.push(event("contoso/office365/Audit.Exchange", "x", &large));
    let delivered = emitter_with(&options).emit(&items).await.unwrap();
    assert_eq!(refused(&delivered), [40]);
    let calls = collector.calls();
    assert!(calls.len() > 1);
    assert!(calls.iter().all(|call| call.body.len() <= 10_000));
    let ids: Vec<String> = calls.iter().flat_map(Call::ids).collect();
    assert_eq!(ids, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn gzip_is_switched_off_where_it_is_not_understood() {
    let html = (415, "", "<html>".to_owned());
    let collector = Collector::scripted(vec![html]).await;
    let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let batch: Vec<Envelope> = ids.iter().map(|id| office365(id)).collect();
    let emitter = emitter(&collector);
    emitter.emit(&batch).await.unwrap();
    emitter.emit(&batch).await.unwrap();
    let coded: Vec<bool> = collector
        .calls()
        .iter()
        .map(|call| call.header("content-encoding").is_some())
        .collect();
    assert_eq!(coded, [true, false, false]);
}

#[tokio::test]
async fn an_answer_that_is_not_hecs_is_no_receipt() {
    let page = |status, header| (status, header, "<html>Sign in</html>".to_owned());
    for answer in [
        page(200, ""),
        page(303, "Location: /en-US/account/login\r\n"),
        page(404, ""),
        code(404, 404),
    ] {
        let collector = Collector::scripted(vec![answer.clone()]).await;
        let error = emitter(&collector).emit(&batch(&["a"])).await.unwrap_err();
        let said = matches!(&error, EmitError::Hold { help, .. } if help.contains("URL"));
        assert!(said, "{answer:?}: {error:?}");
        assert_eq!(collector.calls().len(), 1, "a redirect is not followed");
    }
}

#[tokio::test]
async fn nobody_listening_means_try_again() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let emitter = emitter_with(&options(&format!("http://127.0.0.1:{port}")));
    let error = emitter.emit(&batch(&["a"])).await.unwrap_err();
    assert!(matches!(&error, EmitError::Retry { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_refused_token_is_tried_on_other_connections_and_read_anew() {
    let collector = Collector::start(|call| {
        if call.header("authorization") == Some("Splunk token-1") {
            success()
        } else {
            code(403, 4)
        }
    })
    .await;
    let rotated = Arc::new(AtomicBool::new(false));
    let variable = Arc::clone(&rotated);
    let environment = Environment::new(move |_| {
        let rotated = variable.load(Ordering::Relaxed);
        Some(if rotated { "token-1" } else { "token-0" }.to_owned())
    });
    let clock = Arc::new(SystemClock);
    let options = options(&collector.url);
    let emitter = SplunkHec::new("splunk_hec.main", &options, &environment, clock).unwrap();
    let error = emitter.emit(&batch(&["a"])).await.unwrap_err();
    let said = matches!(&error, EmitError::Hold { help, .. } if help.contains("token"));
    assert!(said, "{error:?}");
    let refused = collector.calls().len();
    rotated.store(true, Ordering::Relaxed);
    emitter.emit(&batch(&["a"])).await.unwrap();
    assert_eq!((refused, collector.calls().len()), (3, 4));
}

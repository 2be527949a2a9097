//! Splunk HEC over loopback: when a batch counts as delivered, and that nothing is lost or doubled.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::collector::{Answer, Call, Collector, code_at, success};
use common::hec::{batch, emitter, emitter_with, options, refused};
use exfilwatch_emitters::{Ack, EmitError, Emitter};

/// Answers sends with ack ids, and the nth question by the function.
async fn acking(mut acks: impl FnMut(u64, &Call) -> String + Send + 'static) -> Collector {
    let (mut sends, mut questions) = (0_u64, 0_u64);
    Collector::start(move |call| {
        if call.path.starts_with("/services/collector/ack") {
            questions += 1;
            (200, "", acks(questions, call))
        } else {
            sends += 1;
            let id = sends - 1;
            (
                200,
                "",
                format!(r#"{{"text":"Success","code":0,"ackId":{id}}}"#),
            )
        }
    })
    .await
}

#[tokio::test]
async fn a_batch_is_delivered_when_it_is_acknowledged_and_not_before() {
    let collector = acking(|question, call| {
        assert_eq!(call.body, r#"{"acks":[0]}"#);
        assert!(call.header("content-encoding").is_none());
        format!(r#"{{"acks":{{"0":{}}}}}"#, question >= 2)
    })
    .await;
    let mut options = options(&collector.url);
    options.ack_poll_seconds_max = 1;
    emitter_with(&options).emit(&batch(&["a"])).await.unwrap();
    let calls = collector.calls();
    let paths: Vec<&str> = calls
        .iter()
        .map(|call| call.path.split('?').next().unwrap())
        .collect();
    let ack = "/services/collector/ack";
    assert_eq!(paths, ["/services/collector/event", ack, ack]);
    let channel = calls[0].header("x-splunk-request-channel").unwrap();
    assert!(calls[1].path.ends_with(&format!("?channel={channel}")));
}

#[tokio::test]
async fn without_an_acknowledgement_the_batch_goes_out_again_on_a_new_channel() {
    let collector = acking(|_, _| r#"{"acks":{"0":false}}"#.to_owned()).await;
    let mut options = options(&collector.url);
    options.ack_timeout_seconds = 1;
    let emitter = emitter_with(&options);
    for _ in 0..2 {
        let error = emitter.emit(&batch(&["a"])).await.unwrap_err();
        assert!(matches!(&error, EmitError::Retry { .. }), "{error:?}");
    }
    let calls = collector.calls();
    let sends: Vec<&Call> = calls
        .iter()
        .filter(|call| !call.path.contains("/ack"))
        .collect();
    assert_eq!(sends.len(), 2);
    assert_eq!(sends[0].body, sends[1].body);
    let channel = |call: &Call| call.header("x-splunk-request-channel").unwrap().to_owned();
    assert_ne!(channel(sends[0]), channel(sends[1]));
}

#[tokio::test]
async fn acknowledgements_are_not_waited_for_where_they_are_off() {
    let collector = acking(|_, _| panic!("asked")).await;
    let mut options = options(&collector.url);
    options.ack = Ack::Off;
    emitter_with(&options).emit(&batch(&["a"])).await.unwrap();
    assert_eq!(collector.calls().len(), 1);
}

/// What a collector indexed, by id.
type Index = Arc<Mutex<BTreeMap<String, u32>>>;

/// A collector that answers its first send with a code at the second of three events, indexing what
/// the real one would, and takes everything after that.
async fn stumbling(status: u16, code: u64, numbered: bool, index: Index) -> Collector {
    let mut first = true;
    Collector::start(move |call| -> Answer {
        let ids = call.ids();
        let stumbles = std::mem::take(&mut first);
        let taken = match (stumbles, code) {
            (false, _) | (true, 0 | 24 | 25) => ids.len(),
            (true, 7 | 9) if numbered => 1,
            (true, 6 | 12 | 13 | 15) => 1,
            (true, _) => 0,
        };
        let mut index = index.lock().unwrap();
        for id in ids.iter().take(taken) {
            *index.entry(id.clone()).or_default() += 1;
        }
        match (stumbles, numbered, code) {
            (false, _, _) => success(),
            (true, true, 7) => code_at(status, code, 2),
            (true, true, _) => code_at(status, code, 1),
            (true, false, 413) => (413, "", String::new()),
            (true, false, _) => (status, "", format!(r#"{{"text":"words","code":{code}}}"#)),
        }
    })
    .await
}

#[tokio::test]
async fn after_every_code_each_event_is_indexed_once_or_quarantined() {
    let table = [
        (200, 0, false),
        (403, 1, false),
        (401, 2, false),
        (401, 3, false),
        (403, 4, false),
        (400, 6, true),
        (400, 7, true),
        (500, 8, false),
        (503, 9, false),
        (503, 9, true),
        (400, 10, false),
        (400, 11, false),
        (400, 12, true),
        (400, 13, true),
        (400, 15, true),
        (400, 16, false),
        (503, 18, false),
        (503, 19, false),
        (503, 20, false),
        (400, 21, false),
        (400, 22, false),
        (503, 23, false),
        (200, 24, false),
        (200, 25, false),
        (429, 26, false),
        (429, 27, false),
        (400, 28, false),
        (413, 413, false),
        (404, 404, false),
        (418, 99, false),
    ];
    let mut rows = Vec::new();
    for (status, code, numbered) in table {
        let index = Index::default();
        let collector = stumbling(status, code, numbered, index.clone()).await;
        let (emitter, mut batch) = (emitter(&collector), batch(&["a", "b", "c"]));
        let mut story = Vec::new();
        let delivered = loop {
            match emitter.emit(&batch).await {
                Ok(delivered) if delivered.held.is_empty() => break delivered,
                // As a lane does with what is one tenant's: it is sent again by itself.
                Ok(delivered) => {
                    let held = delivered.held.iter().map(|held| batch[held.index].clone());
                    batch = held.collect();
                    story.push("hold");
                }
                Err(EmitError::Retry { .. }) => story.push("retry"),
                Err(EmitError::Hold { .. }) => story.push("hold"),
                Err(other) => panic!("{other:?}"),
            }
            assert!(story.len() < 3, "code {code}: {story:?}");
        };
        let index = index.lock().unwrap().clone();
        let refused = refused(&delivered);
        for (at, id) in ["a", "b", "c"].into_iter().enumerate() {
            let indexed = index.get(id).copied().unwrap_or(0);
            let expected = u32::from(!refused.contains(&at));
            assert_eq!(
                indexed, expected,
                "code {code}: {id} of {index:?}, refused {refused:?}"
            );
        }
        let sends = collector.calls().len();
        let story = if story.is_empty() {
            "-".to_owned()
        } else {
            story.join(", ")
        };
        let number = if numbered { " (numbered)" } else { "" };
        rows.push(format!(
            "{code:>3} {status}{number:<11} lane: {story:<5} sends: {sends} quarantined: {refused:?}"
        ));
    }
    println!("{}", rows.join("\n"));
}

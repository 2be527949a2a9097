//! Splunk HEC over loopback: when a batch counts as delivered.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::collector::{Call, Collector};
use common::hec::{batch, emitter_with, options};
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

//! Splunk HEC over loopback: when a batch counts as delivered.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::collector::{Call, Collector};
use common::hec::{batch, emitter_with, options};
use common::office365;
use exfilwatch_emitters::{Ack, EmitError, Emitter, SplunkHec};
use exfilwatch_model::Envelope;
use futures::future::join_all;

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

/// The answer to a question: these ids are as they are.
fn answer(call: &Call, is: impl Fn(u64) -> bool) -> String {
    let asked: serde_json::Value = serde_json::from_str(&call.body).unwrap();
    let ids = asked["acks"].as_array().unwrap().iter();
    let acks = ids.map(|id| (id.to_string(), is(id.as_u64().unwrap())));
    serde_json::json!({ "acks": acks.collect::<BTreeMap<_, _>>() }).to_string()
}

fn is_question(call: &Call) -> bool {
    call.path.starts_with("/services/collector/ack")
}

/// As a lane does: again until it is delivered.
async fn deliver(emitter: &SplunkHec, batch: &[Envelope]) {
    const ATTEMPTS_MAX: usize = 40;
    for _ in 0..ATTEMPTS_MAX {
        match emitter.emit(batch).await {
            Ok(delivered) => return assert!(delivered.refused.is_empty()),
            Err(EmitError::Retry { .. }) => {}
            Err(hold) => panic!("{hold}"),
        }
    }
    panic!("not delivered in {ATTEMPTS_MAX} attempts");
}

/// Sends until so much is not acknowledged that no more may be; goes on when it is.
async fn no_more_is_outstanding_than(requests: usize, total: usize, record_bytes: usize) {
    let acknowledged = Arc::new(AtomicBool::new(false));
    let is = acknowledged.clone();
    let collector = acking(move |_, call| answer(call, |_| is.load(Ordering::SeqCst))).await;
    let mut options = options(&collector.url);
    options.gzip = false;
    options.ack_poll_seconds_max = 1;
    options.event_bytes_max = 8 << 20;
    options.batch_bytes_max = 8 << 20;
    let emitter = emitter_with(&options);
    let batches: Vec<_> = (0..total)
        .map(|number| {
            let mut item = office365(&format!("n{number}"));
            let filling = "x".repeat(record_bytes);
            item.payload = format!(r#"{{"Id":"n{number}","Filling":"{filling}"}}"#).into();
            [item]
        })
        .collect();
    let observed = async {
        // Questions are a second apart: two after the last send prove that no further one comes.
        loop {
            let calls = collector.calls();
            let sends = calls.iter().filter(|call| !is_question(call)).count();
            let since = calls.iter().rev().take_while(|call| is_question(call));
            if since.count() >= 2 {
                assert_eq!(sends, requests);
                acknowledged.store(true, Ordering::SeqCst);
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let delivered = join_all(batches.iter().map(|batch| deliver(&emitter, batch)));
    tokio::join!(observed, delivered);
    let calls = collector.calls();
    let sends: Vec<_> = calls.iter().filter(|call| !is_question(call)).collect();
    let ids: BTreeSet<String> = sends.iter().flat_map(|call| call.ids()).collect();
    assert_eq!((sends.len(), ids.len()), (total, total));
}

#[tokio::test]
async fn no_more_than_64_mib_wait_for_their_acknowledgement() {
    no_more_is_outstanding_than(32, 40, (2 << 20) - (8 << 10)).await;
}

#[tokio::test]
async fn no_more_than_1000_requests_wait_for_their_acknowledgement() {
    no_more_is_outstanding_than(1_000, 1_010, 10).await;
}

/// Two indexers of which a balancer takes now one, now the other, whatever the cookie. Each counts ids
/// for itself; what the second takes it loses with its queue.
#[derive(Debug, Default)]
struct Scattered {
    turn: usize,
    /// By channel, how many requests each indexer took.
    ids: [BTreeMap<String, u64>; 2],
    /// Ids of channels of which the first has what was sent.
    indexed: BTreeSet<(String, u64)>,
    events: BTreeSet<String>,
    /// The channel of each send.
    sends: Vec<String>,
}

impl Scattered {
    fn take(&mut self, call: &Call) -> String {
        self.turn += 1;
        let at = self.turn % 2;
        let channel = call.header("x-splunk-request-channel").unwrap().to_owned();
        if is_question(call) {
            return answer(call, |id| {
                at == 0 && self.indexed.contains(&(channel.clone(), id))
            });
        }
        self.sends.push(channel.clone());
        let next = self.ids[at].entry(channel.clone()).or_default();
        let id = *next;
        *next += 1;
        if at == 0 {
            self.indexed.insert((channel, id));
            self.events.extend(call.ids());
        }
        format!(r#"{{"text":"Success","code":0,"ackId":{id}}}"#)
    }
}

#[tokio::test]
async fn behind_a_balancer_that_scatters_each_request_gets_a_channel_and_only_what_is_indexed_a_receipt()
 {
    const BATCHES: usize = 8;
    let state = Arc::new(Mutex::new(Scattered::default()));
    let behind = state.clone();
    let collector =
        Collector::start(move |call| (200, "", behind.lock().unwrap().take(call))).await;
    let mut options = options(&collector.url);
    options.ack_timeout_seconds = 2;
    options.ack_poll_seconds_max = 1;
    let emitter = emitter_with(&options);
    let ids: Vec<String> = (0..2 * BATCHES).map(|n| format!("n{n}")).collect();
    // The first half teaches it, by ids that come twice; the second finds it so.
    let (first, second) = ids.split_at(BATCHES);
    for half in [first, second] {
        let before = state.lock().unwrap().sends.len();
        join_all(
            half.iter()
                .map(async |id| deliver(&emitter, &batch(&[id])).await),
        )
        .await;
        let state = state.lock().unwrap();
        for id in half {
            assert!(
                state.events.contains(id),
                "{id} has a receipt and is nowhere"
            );
        }
        let sends = &state.sends[before..];
        let channels: BTreeSet<&String> = sends.iter().collect();
        if half == second {
            assert_eq!(
                channels.len(),
                sends.len(),
                "each request has a channel of its own"
            );
        }
    }
}

//! Blobs: late, gone, broken, slow, large.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::options::Office365Options;
use exfilwatch_model::WorkItem;
use exfilwatch_simulator::microsoft::Publication;
use exfilwatch_simulator::{Endpoint, Fault, FaultRule};
use futures::StreamExt;

use crate::scene::{
    TYPE, caller, calls, fault, kind, minutes, no_fault, now, options, publish, record, script,
    seen, stage, stream,
};
use crate::support::{Caller, InProcess, Stage};

/// A blob that may be listed, and a caller that has listed it.
async fn listed(stage: &Stage, id: &str) -> (Caller, WorkItem) {
    let mut caller = caller(stage);
    caller.list(&stream()).await;
    let item = caller.open.values().find(|item| item.key == id);
    let item = item.expect("listed").clone();
    (caller, item)
}

#[tokio::test(start_paused = true)]
async fn blob_500_then_200_next_poll() {
    let stage = stage(|_| ());
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    let mut caller = caller(&stage);
    fault(&stage, Endpoint::Blob, Fault::activity("AF50000"));
    caller.poll().await;
    assert_eq!(seen(&caller, &["a"]), [0]);
    assert!(caller.open.values().any(|item| item.key == "1$a"));
    no_fault(&stage);
    stage.pass(minutes(2)).await;
    caller.poll().await;
    assert_eq!(seen(&caller, &["a"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn blob_404_then_200() {
    let stage = stage(|_| ());
    let mut blob = Publication::new(
        ("contoso", TYPE),
        "1$a",
        now() - minutes(20),
        &[&record("a")],
    );
    blob.ready = Some(now() + minutes(180));
    assert!(stage.simulator.microsoft().publish(blob));
    let mut caller = caller(&stage);
    for _ in 0..17 {
        caller.poll().await;
        assert_eq!(seen(&caller, &["a"]), [0]);
        stage.pass(minutes(10)).await;
    }
    stage.pass(minutes(20)).await;
    caller.poll().await;
    assert_eq!(seen(&caller, &["a"]), [1]);
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    // 404 without a word is no other.
    publish(&stage, "2$b", now() - minutes(1), &["b"]);
    fault(&stage, Endpoint::Blob, crate::scene::status(404, ""));
    caller.relist(minutes(600)).await;
    assert!(caller.errors.is_empty() && seen(&caller, &["b"]) == [0]);
    no_fault(&stage);
    stage.pass(minutes(5)).await;
    caller.fetch().await;
    assert_eq!(seen(&caller, &["b"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn listed_but_expired() {
    let stage = stage(|_| ());
    let mut blob = Publication::new(
        ("contoso", TYPE),
        "1$a",
        now() - minutes(20),
        &[&record("a")],
    );
    blob.expires = Some(now() - minutes(1));
    assert!(stage.simulator.microsoft().publish(blob));
    publish(&stage, "2$b", now() - minutes(20), &["b"]);
    let mut caller = caller(&stage);
    caller.poll().await;
    let [(key, error)] = &caller.errors[..] else {
        panic!("one loss: {:?}", caller.errors)
    };
    assert!(key == "1$a" && kind(error) == "gone", "{error:?}");
    assert!(
        error.to_string().contains("expired at 2026-03-04"),
        "{error}"
    );
    assert!(calls(&stage, "/audit/1$a").is_empty(), "it was asked for");
    assert_eq!(seen(&caller, &["b"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_makes_no_sense_is_seven_days() {
    let stage = stage(|_| ());
    let tenant = stage.office365_options().tenant_id.unwrap();
    let line = |id: &str, expires: &str| {
        format!(
            r#"{{"contentType":"{TYPE}","contentId":"{id}","contentUri":"http://127.0.0.1:1001/api/v1.0/{tenant}/activity/feed/audit/{id}","contentCreated":"2026-03-04T05:40:00.000Z"{expires}}}"#
        )
    };
    let body = [
        line("1$a", ""),
        line("2$a", r#","contentExpiration":"0001-01-01T00:00:00""#),
        line("3$a", r#","contentExpiration":null"#),
        line("4$a", r#","contentExpiration":"soon""#),
    ];
    let body = format!("[{}]", body.join(","));
    fault(
        &stage,
        Endpoint::ContentList,
        crate::scene::status(200, &body),
    );
    let mut caller = caller(&stage);
    caller.list(&stream()).await;
    assert_eq!(caller.open.len(), 4);
    for item in caller.open.values() {
        let expires = item.expires.expect("an expiry");
        assert_eq!(
            expires - item.from,
            chrono::TimeDelta::days(7),
            "{}",
            item.key
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_record_in_blob() {
    let stage = stage(|_| ());
    let mut blob = Publication::new(("contoso", TYPE), "1$a", now() - minutes(20), &[]);
    let (a, b) = (record("a"), record("b"));
    blob.body = format!(r#"[{a},17,"x",{{"Id":}},null,{b},[1]]"#).into();
    assert!(stage.simulator.microsoft().publish(blob));
    publish(&stage, "2$c", now() - minutes(20), &["c"]);
    let (mut caller, item) = listed(&stage, "1$a").await;
    let mut pages = caller.connector.fetch(&item).await.unwrap();
    let (mut good, mut bad) = (0, Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        // An object by its outline is a record; whether it is JSON is seen when its head is read.
        for record in &page.records {
            match caller.connector.records().head(record) {
                Ok(_) => good += 1,
                Err(error) => bad.push(error.to_string()),
            }
        }
        bad.extend(page.malformed.into_iter().map(|bad| bad.reason));
    }
    assert_eq!((good, bad.len()), (2, 5), "{bad:?}");
    caller.open.remove(&(stream(), "1$a".to_owned()));
    caller.fetch().await;
    assert_eq!(seen(&caller, &["c"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_blob_cut_short_in_gzip_or_in_json_is_tried_again() {
    // Long enough to be compressed, and one that is not.
    let many: Vec<String> = (0..200).map(|number| format!("m{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut whole = Publication::new(("contoso", TYPE), "3$c", now() - minutes(20), &[]);
    whole.body = format!("[{},", record("c")).into();
    for (ids, bytes) in [(&many[..], 900), (&["a"][..], 40)] {
        let stage = stage(|_| ());
        publish(&stage, "1$a", now() - minutes(20), ids);
        let mut caller = caller(&stage);
        fault(&stage, Endpoint::Blob, Fault::Truncate { bytes });
        caller.poll().await;
        assert!(caller.errors.is_empty() && caller.malformed.is_empty());
        assert!(caller.open.values().any(|item| item.key == "1$a"));
        no_fault(&stage);
        stage.pass(minutes(2)).await;
        caller.poll().await;
        assert!(seen(&caller, ids).iter().all(|times| *times >= 1));
        assert!(!caller.open.values().any(|item| item.key == "1$a"));
    }
    // Whole by its length, cut by its JSON.
    let stage = stage(|_| ());
    assert!(stage.simulator.microsoft().publish(whole));
    let mut caller = caller(&stage);
    caller.poll().await;
    assert!(caller.errors.is_empty() && caller.open.values().any(|item| item.key == "3$c"));
}

#[tokio::test(start_paused = true)]
async fn slow_body_60s() {
    // The simulated clock runs faster than the line is slow.
    let stage = stage(|options| options.microsoft.token_lifetime_seconds = 86_400);
    publish(&stage, "1$a", now() - minutes(20), &["a", "b", "c"]);
    let (_, item) = listed(&stage, "1$a").await;
    for slow in [
        Fault::Trickle {
            pieces: 6,
            milliseconds: 10_000,
        },
        Fault::Trickle {
            pieces: 1,
            milliseconds: 60_000,
        },
        Fault::Delay {
            milliseconds: 60_000,
        },
    ] {
        let mut other = caller(&stage);
        let key = (stream(), item.key.clone());
        other.open.insert(key, item.clone());
        let rule = FaultRule {
            path_contains: Some("audit/1$a".into()),
            ..FaultRule::new(Endpoint::Blob, slow.clone())
        };
        script(&stage, vec![rule]);
        let started = tokio::time::Instant::now();
        let before = calls(&stage, "audit/1$a").len();
        other.fetch().await;
        assert!(started.elapsed().as_secs() >= 60, "{slow:?}");
        assert_eq!(calls(&stage, "audit/1$a").len() - before, 1, "{slow:?}");
        assert_eq!(seen(&other, &["a", "b", "c"]), [1; 3], "{slow:?}");
    }
}

/// Serves blobs of any length that are made while they are read; everything else is the
/// simulator's. Counts what it has made.
#[derive(Debug)]
struct Endless {
    inner: Arc<InProcess>,
    bytes: usize,
    made: Arc<AtomicUsize>,
}

/// One piece: a hundred records of about 640 bytes.
fn piece(number: usize) -> Bytes {
    let mut text = String::new();
    for index in 0..100 {
        let sign = if number + index == 0 { '[' } else { ',' };
        let id = format!("r{number}-{index}");
        let filling = "x".repeat(500);
        text.push(sign);
        let record = record(&id);
        text.push_str(&record[..record.len() - 1]);
        text.push_str(&format!(r#","Filling":"{filling}"}}"#));
    }
    text.into()
}

#[async_trait]
impl Transport for Endless {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        if !request.uri().path().contains("/audit/1$a") {
            return self.inner.send(request).await;
        }
        let (bytes, made) = (self.bytes, self.made.clone());
        let pieces = futures::stream::unfold((0, 0), move |(number, sent)| {
            let made = made.clone();
            async move {
                let piece = match sent {
                    usize::MAX => return None,
                    sent if sent >= bytes => (Bytes::from_static(b"]"), usize::MAX),
                    sent => {
                        let piece = piece(number);
                        let sent = sent + piece.len();
                        (piece, sent)
                    }
                };
                made.fetch_add(piece.0.len(), Ordering::SeqCst);
                Some((Ok(piece.0), (number + 1, piece.1)))
            }
        });
        Ok(http::Response::new(pieces.boxed()))
    }
}

fn endless(bytes: usize) -> (Stage, Arc<AtomicUsize>) {
    let mut stage = stage(|_| ());
    publish(&stage, "1$a", now() - minutes(20), &[]);
    publish(&stage, "2$b", now() - minutes(20), &["b"]);
    let made = Arc::new(AtomicUsize::new(0));
    stage.surroundings.transport = Some(Arc::new(Endless {
        inner: stage.transport.clone(),
        bytes,
        made: made.clone(),
    }));
    (stage, made)
}

#[tokio::test(start_paused = true)]
#[allow(non_snake_case)]
async fn blob_64MiB_streams() {
    const SIZE: usize = 64 << 20;
    let (stage, made) = endless(SIZE);
    let (caller, item) = listed(&stage, "1$a").await;
    let mut pages = caller.connector.fetch(&item).await.unwrap();
    let (mut records, mut taken, mut ahead_most) = (0, 0, 0);
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        records += page.records.len();
        assert!(page.malformed.is_empty());
        // What was made and is in no page yet is all that is held besides this page.
        let ahead = made.load(Ordering::SeqCst) - taken;
        ahead_most = ahead_most.max(ahead);
        taken += page.records.iter().map(|r| r.bytes().len()).sum::<usize>();
    }
    let made = made.load(Ordering::SeqCst);
    assert!(
        made > SIZE && records > 90_000,
        "{made} bytes, {records} records"
    );
    assert!(taken + records >= made - 2, "every byte is in a record");
    assert!(
        ahead_most < 9 << 20,
        "{ahead_most} bytes are held at a time"
    );
}

#[tokio::test(start_paused = true)]
async fn blob_over_cap_is_reported() {
    let (stage, made) = endless(64 << 20);
    let mut caller = stage.office365(Office365Options {
        blob_bytes_max: Some(1 << 20),
        ..options(&stage)
    });
    caller.start(now() - minutes(60));
    caller.poll().await;
    let [(key, error)] = &caller.errors[..] else {
        panic!("one report: {:?}", caller.errors)
    };
    assert!(key == "1$a" && kind(error) == "poison", "{error:?}");
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
    assert!(
        made.load(Ordering::SeqCst) < 2 << 20,
        "it was read to its end"
    );
    assert_eq!(seen(&caller, &["b"]), [1], "its neighbour goes on");
}

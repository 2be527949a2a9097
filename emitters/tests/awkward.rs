//! What each receiver makes of a record that is large, has line ends in it, or is the one bad one among
//! many. Named after the rows of the failure table in docs/DELIVERY.md.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::collector::{Answer, Call, Collector, code_at, success};
use common::hec::{emitter, refused};
use common::{event, office365};
use exfilwatch_emitters::{Emitter, Ndjson, NdjsonOptions, Syslog, SyslogOptions};
use exfilwatch_model::Envelope;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn record(id: &str, members: &Value) -> Envelope {
    let mut record = json!({ "Id": id, "Operation": "FileDownloaded", "RecordType": 6 });
    let more = members.as_object().unwrap().clone();
    record.as_object_mut().unwrap().extend(more);
    event(
        "contoso/office365/Audit.SharePoint",
        id,
        &record.to_string(),
    )
}

fn file(path: &Path) -> Ndjson {
    let options: NdjsonOptions = serde_json::from_value(json!({ "path": path })).unwrap();
    Ndjson::new(
        "ndjson.main",
        &options,
        Arc::new(exfilwatch_model::SystemClock),
    )
    .unwrap()
}

/// What a syslog receiver on TCP gets of a batch, all of it.
async fn over_tcp(batch: &[Envelope]) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let options: SyslogOptions =
        serde_json::from_value(json!({ "address": address, "transport": "tcp" })).unwrap();
    let emitter = Syslog::new("syslog.main", &options).unwrap();
    let reading = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        BufReader::new(stream)
            .read_to_end(&mut bytes)
            .await
            .unwrap();
        bytes
    });
    let delivered = emitter.emit(batch).await.unwrap();
    assert!(delivered.refused.is_empty(), "{delivered:?}");
    drop(emitter);
    timeout(PATIENCE, reading).await.expect("the end").unwrap()
}

/// Cuts a stream by its octet counts and nothing else (RFC 6587 section 3.4.1).
fn frames(bytes: &[u8]) -> Vec<String> {
    let (mut rest, mut frames) = (bytes, Vec::new());
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').unwrap();
        let (length, from) = (&rest[..space], &rest[space + 1..]);
        let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
        frames.push(String::from_utf8(from[..length].to_vec()).unwrap());
        rest = &from[length..];
    }
    frames
}

#[tokio::test]
async fn record_300kb_to_each_sink() {
    let large = record("large", &json!({ "Blob": "y".repeat(300 << 10) }));
    let batch = [office365("before"), large.clone(), office365("after")];

    let collector = Collector::start(|_| success()).await;
    let delivered = emitter(&collector).emit(&batch).await.unwrap();
    assert!(delivered.refused.is_empty(), "{delivered:?}");
    let calls = collector.calls();
    let ids: Vec<String> = calls.iter().flat_map(Call::ids).collect();
    assert_eq!(ids, ["before", "large", "after"]);
    let whole = std::str::from_utf8(&large.payload).unwrap();
    assert!(calls.iter().any(|call| call.body.contains(whole)));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.ndjson");
    file(&path).emit(&batch).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().nth(1).unwrap(), whole);

    // A syslog line has a limit: the large member goes, which the line says, and nothing else does.
    let frames = frames(&over_tcp(&batch).await);
    assert_eq!(frames.len(), 3);
    assert!(frames[1].len() <= 8_192 && frames[1].contains("event_id=\"large\""));
    assert!(frames[1].contains("truncated=\"true\"") && frames[1].contains("FileDownloaded"));
    assert!(!frames[0].contains("truncated=") && !frames[2].contains("truncated="));
}

#[tokio::test]
async fn newline_in_subject_and_syslog_octet_counting() {
    let subject = "Invoice\r\n<134>1 2026-11-24T02:15:00Z forged exfilwatch - - - forged\n\u{0}";
    let batch = [
        record("a", &json!({ "Subject": subject })),
        record("b", &json!({ "Subject": "plain" })),
    ];
    let bytes = over_tcp(&batch).await;
    assert!(bytes.iter().all(|byte| (0x20..0x7f).contains(byte)));
    let frames = frames(&bytes);
    assert_eq!(frames.len(), 2);
    let message: Value = serde_json::from_str(&frames[0][frames[0].find('{').unwrap()..]).unwrap();
    assert_eq!(message["Subject"], subject);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.ndjson");
    file(&path).emit(&batch).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["Subject"], subject);
}

#[tokio::test]
async fn file_sink_appends_also_after_a_restart_and_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.ndjson");
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    let emitter = file(&path);
    emitter.emit(&[office365("a")]).await.unwrap();
    emitter.emit(&[office365("b")]).await.unwrap();
    drop(emitter);
    let emitter = file(&path);
    emitter.emit(&[office365("c")]).await.unwrap();
    assert_eq!(lines(&path), 3);
    let rotated = folder.path().join("out.ndjson.1");
    std::fs::rename(&path, &rotated).unwrap();
    emitter.emit(&[office365("d")]).await.unwrap();
    let all = lines(&rotated) + if path.exists() { lines(&path) } else { 0 };
    assert_eq!(all, 4, "nothing that was written is gone");
}

#[tokio::test]
async fn hec_time_is_that_of_the_event_and_not_of_its_fetch() {
    let collector = Collector::start(|_| success()).await;
    let timed = office365("timed");
    let untimed = Envelope {
        time: None,
        ..office365("untimed")
    };
    assert_ne!(timed.time, Some(timed.fetched_at));
    let expected = [timed.time.unwrap(), untimed.fetched_at];
    emitter(&collector).emit(&[timed, untimed]).await.unwrap();
    let events = collector.calls()[0].events();
    for (event, time) in events.iter().zip(expected) {
        let seconds = event["time"].as_f64().unwrap();
        let millis = time.timestamp_millis();
        #[allow(clippy::cast_possible_truncation)]
        let told = (seconds * 1_000.0).round() as i64;
        assert_eq!(told, millis, "{}", event["fields"]["event_id"]);
    }
    assert_eq!(events.len(), 2);
}

/// Takes what stands before the bad event and refuses from there, as the real one does. `base` is what
/// it calls the first event; `None` names no number.
async fn one_bad(base: Option<usize>, index: Arc<Mutex<BTreeMap<String, u32>>>) -> Collector {
    Collector::start(move |call| -> Answer {
        let ids = call.ids();
        let bad = ids.iter().position(|id| id == "n500");
        let mut index = index.lock().unwrap();
        let taken = match (bad, base) {
            (None, _) => ids.len(),
            (Some(at), Some(_)) => at,
            (Some(_), None) => 0,
        };
        for id in ids.iter().take(taken) {
            *index.entry(id.clone()).or_default() += 1;
        }
        match (bad, base) {
            (None, _) => success(),
            (Some(at), Some(base)) => code_at(400, 6, at + base),
            (Some(_), None) => (
                400,
                "",
                r#"{"text":"Invalid data format","code":6}"#.to_owned(),
            ),
        }
    })
    .await
}

#[tokio::test]
async fn hec_one_bad_of_1000() {
    for base in [Some(0), None] {
        let index = Arc::new(Mutex::new(BTreeMap::new()));
        let collector = one_bad(base, index.clone()).await;
        let batch: Vec<Envelope> = (0..1_000).map(|n| office365(&format!("n{n}"))).collect();
        let delivered = emitter(&collector).emit(&batch).await.unwrap();
        assert_eq!(refused(&delivered), [500], "{base:?}");
        let index = index.lock().unwrap();
        assert_eq!(index.len(), 999, "{base:?}");
        assert!(index.values().all(|times| *times == 1), "{base:?}");
        assert!(!index.contains_key("n500"));
        let sends = collector.calls().len();
        assert!(sends < 40, "{base:?}: {sends} sends");
    }
}

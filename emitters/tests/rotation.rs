//! Files of lines that are put aside: nothing is lost or doubled, whoever moves them and whenever it stops.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use common::{at, finding, finding_envelope, office365};
use exfilwatch_emitters::{EmitError, Emitter, Ndjson, NdjsonOptions};
use exfilwatch_model::{Clock, Envelope};
use serde_json::{Value, json};

/// A clock that stands until it is set.
#[derive(Debug, Clone)]
struct Hand(Arc<Mutex<DateTime<Utc>>>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(at("2026-11-24T22:00:00Z"))))
    }

    fn turn(&self, hours: i64) {
        *self.0.lock().unwrap() += TimeDelta::hours(hours);
    }
}

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}

fn emitter(path: &Path, more: &Value, clock: &Hand) -> Ndjson {
    let mut options = json!({ "path": path, "send": ["events"] });
    let more = more.as_object().unwrap().clone();
    options.as_object_mut().unwrap().extend(more);
    let options: NdjsonOptions = serde_json::from_value(options).unwrap();
    Ndjson::new("ndjson.main", &options, Arc::new(clock.clone())).unwrap()
}

fn batch(numbers: std::ops::Range<u32>) -> Vec<Envelope> {
    numbers.map(|n| office365(&format!("n{n:05}"))).collect()
}

/// What lies in the folder, by name: the order of age, the current file first.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let name = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    let mut files: Vec<_> = entries.map(name).collect();
    files.sort();
    files
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "zst") {
        let mut text = String::new();
        zstd::Decoder::new(&bytes[..])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        return text;
    }
    String::from_utf8(bytes).unwrap()
}

/// How often each record stands in all files; every line must be whole.
fn counted(folder: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (name, path) in files(folder) {
        for line in text(&path).lines() {
            let record: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{name}: {e}"));
            *counts
                .entry(record["Id"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    counts
}

fn each_once(folder: &Path, records: usize) {
    let counts = counted(folder);
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(counts.len(), records);
}

#[tokio::test]
async fn a_full_file_is_put_aside_and_the_oldest_go() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Hand::new());
    let path = folder.path().join("out.ndjson");
    let options = json!({ "rotate_bytes": 8_192, "files_max": 100 });
    let all = emitter(&path, &options, &clock);
    for n in 0..20 {
        all.emit(&batch(n * 10..n * 10 + 10)).await.unwrap();
    }
    each_once(folder.path(), 200);
    let before = files(folder.path());
    assert!(before.len() > 5, "{before:?}");
    for (name, path) in &before {
        assert!(fs::metadata(path).unwrap().len() <= 8_192, "{name}");
    }
    assert!(
        before[1].0.starts_with("out.ndjson.20261124T220000."),
        "{before:?}"
    );
    // A restart with fewer kept: at the next rotation the oldest are gone, and what is not ours is left.
    fs::write(folder.path().join("out.ndjson.notes"), "mine").unwrap();
    let few = emitter(
        &path,
        &json!({ "rotate_bytes": 4_096, "files_max": 3 }),
        &clock,
    );
    few.emit(&batch(200..220)).await.unwrap();
    let after = files(folder.path());
    assert_eq!(after.len(), 5, "{after:?}");
    assert!(after.contains(&(
        "out.ndjson.notes".to_owned(),
        folder.path().join("out.ndjson.notes")
    )));
    assert!(text(&path).contains("n00219") && text(&after[3].1).contains("n00199"));
}

#[tokio::test]
async fn a_file_of_an_earlier_day_is_put_aside_also_after_a_restart() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Hand::new());
    let path = folder.path().join("out.ndjson");
    let daily = json!({ "rotate_seconds": 86_400, "compress": true });
    emitter(&path, &daily, &clock)
        .emit(&batch(0..1))
        .await
        .unwrap();
    clock.turn(1);
    emitter(&path, &daily, &clock)
        .emit(&batch(1..2))
        .await
        .unwrap();
    assert_eq!(files(folder.path()).len(), 1);
    clock.turn(1);
    emitter(&path, &daily, &clock)
        .emit(&batch(2..3))
        .await
        .unwrap();
    let after = files(folder.path());
    assert_eq!(after.len(), 2, "{after:?}");
    assert_eq!(after[1].0, "out.ndjson.20261125T000000.000Z.zst");
    assert!(text(&path).contains("n00002") && !text(&path).contains("n00001"));
    each_once(folder.path(), 3);
}

#[tokio::test]
async fn somebody_else_may_move_the_file() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Hand::new());
    let path = folder.path().join("out.ndjson");
    let emitter = emitter(&path, &json!({}), &clock);
    for n in 0..5 {
        emitter.emit(&batch(n..n + 1)).await.unwrap();
        fs::rename(&path, folder.path().join(format!("out.ndjson.{n}"))).unwrap();
    }
    each_once(folder.path(), 5);
}

#[tokio::test]
async fn what_a_crash_left_is_tidied_and_nothing_is_read_twice() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Hand::new());
    let path = folder.path().join("out.ndjson");
    let options = json!({ "rotate_bytes": 4_096, "compress": true });
    let emitter = emitter(&path, &options, &clock);
    emitter.emit(&batch(0..15)).await.unwrap();
    // Torn in the middle of a line, and beside it a file compressed but not yet removed, and half of one.
    let whole = text(&path);
    fs::write(&path, format!("{whole}{{\"Id\":\"torn")).unwrap();
    let old = folder.path().join("out.ndjson.20261124T210000.000Z");
    fs::write(
        &old,
        text(&path)
            .lines()
            .next()
            .unwrap()
            .replace("n00000", "n90000")
            + "\n",
    )
    .unwrap();
    let packed = zstd::encode_all(&fs::read(&old).unwrap()[..], 1).unwrap();
    fs::write(
        folder.path().join("out.ndjson.20261124T210000.000Z.zst"),
        packed,
    )
    .unwrap();
    let half = folder
        .path()
        .join("out.ndjson.20261124T213000.000Z.zst.part");
    fs::write(half, "half").unwrap();
    emitter.emit(&batch(15..30)).await.unwrap();
    let names: Vec<String> = files(folder.path())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            "out.ndjson",
            "out.ndjson.20261124T210000.000Z.zst",
            "out.ndjson.20261124T220000.000Z.zst"
        ]
    );
    each_once(folder.path(), 31);
}

#[tokio::test]
async fn what_was_written_before_a_failure_is_not_written_again() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Hand::new());
    let path = folder.path().join("{kind}/out.ndjson");
    fs::create_dir(folder.path().join("events")).unwrap();
    let emitter = emitter(&path, &json!({ "send": ["events", "findings"] }), &clock);
    let both = [office365("a"), finding_envelope(&finding())];
    let error = emitter.emit(&both).await.unwrap_err();
    assert!(matches!(error, EmitError::Hold { .. }), "{error:?}");
    fs::create_dir(folder.path().join("findings")).unwrap();
    emitter.emit(&both).await.unwrap();
    each_once(&folder.path().join("events"), 1);
    assert_eq!(
        text(&folder.path().join("findings/out.ndjson"))
            .lines()
            .count(),
        1
    );
}

/// Two lanes of one emitter are two of them on one file; each waits for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_writers_rotate_one_file_without_loss() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Hand::new());
    let path = folder.path().join("out.ndjson");
    let options = json!({ "rotate_bytes": 4_096, "files_max": 1_000, "compress": true });
    let tasks: Vec<_> = (0..4)
        .map(|writer| {
            let emitter = emitter(&path, &options, &clock);
            tokio::spawn(async move {
                for n in 0..25 {
                    let from = writer * 1_000 + n * 4;
                    emitter.emit(&batch(from..from + 4)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    each_once(folder.path(), 400);
    assert!(files(folder.path()).len() > 10);
}

#[tokio::test]
async fn what_came_between_two_tries_of_a_batch_does_not_double_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Hand::new();
    let path = folder.path().join("{kind}/out.ndjson");
    let both = json!({ "send": ["events", "findings"] });
    let emitter = emitter(&path, &both, &clock);
    let [events, findings] = ["events", "findings"].map(|kind| folder.path().join(kind));
    fs::create_dir(&events).unwrap();
    let mut first = batch(0..3);
    first.push(finding_envelope(&finding()));
    emitter.emit(&first).await.unwrap_err();
    assert_eq!(
        counted(&events).len(),
        3,
        "they were written before it failed"
    );
    emitter.emit(&batch(3..5)).await.unwrap();
    fs::create_dir(&findings).unwrap();
    emitter.emit(&first).await.unwrap();
    let counts = counted(&events);
    assert!(
        counts.len() == 5 && counts.values().all(|n| *n == 1),
        "{counts:?}"
    );
    assert_eq!(text(&findings.join("out.ndjson")).lines().count(), 1);
}

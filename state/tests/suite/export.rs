//! Export, import, verify and show, on a state that holds something of everything.

use std::fs;

use exfilwatch_model::{JobId, Kind};
use exfilwatch_state::{
    Commit, DoneItem, FORMAT_VERSION, Options, Position, Quarantined, State, StateError,
    StateStore, Watermark, WindowChange, import,
};
use tempfile::TempDir;

use crate::support::*;

fn filled(folder: &std::path::Path) -> State {
    let options = Options {
        segment_bytes_max: 300,
        ..Options::default()
    };
    let mut state = open_with(folder, options).state;
    for number in 1..=6 {
        let ids = [format!("{number}a"), format!("{number}b")];
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        state.commit_group(vec![page(number, &ids)]).unwrap();
    }
    let mut raw = frame(Kind::Findings, "contoso", &["f"]);
    raw.items[0].payload = bytes::Bytes::from_static(b"\xFF\x00 not text");
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    // Inside the third frame.
    let inside = reader.read(state.outbox_end(), 5, 1 << 20).unwrap().next;
    let rest = Commit {
        frames: vec![raw],
        lanes: vec![
            mark(Kind::Events, inside),
            mark(Kind::Findings, state.outbox_end()),
        ],
        work: vec![item("contoso", &"k".repeat(300))],
        done: vec![DoneItem {
            stream: stream("contoso"),
            key: "done/1".to_owned(),
            forget_after: now(),
            given_up: false,
        }],
        windows: vec![WindowChange {
            job: JobId::live(),
            tenant: tenant("contoso"),
            detector: "d".to_owned(),
            key: vec![0xFF; 100],
            value: Some(vec![0, 1, 0xFE]),
        }],
        watermarks: vec![Watermark {
            job: JobId::live(),
            stream: stream("contoso"),
            at: now(),
        }],
        findings: vec![(tenant("contoso"), finding(1))],
        quarantined: vec![Quarantined {
            id: "q".to_owned(),
            stream: stream("contoso"),
            origin: "blob".to_owned(),
            reason: "no JSON".to_owned(),
            at: now(),
            bytes: bytes::Bytes::from_static(b"\xFEbad"),
            file: None,
            item: None,
            fate: exfilwatch_state::Fate::Kept,
        }],
        ..Commit::default()
    };
    state.commit_group(vec![rest]).unwrap();
    state
}

fn exported(state: &State) -> String {
    let mut out = vec![];
    let done = state.export(&mut out).unwrap();
    assert_eq!(done.damage, vec![]);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(done.lines, text.lines().count() as u64);
    text
}

#[test]
fn an_export_imported_is_the_same_state() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let state = filled(from.path());
    let text = exported(&state);
    let imported = import(to.path(), &mut text.as_bytes(), now()).unwrap();
    assert_eq!(imported.lines, text.lines().count() as u64);
    let copy = open(to.path());
    let (a, b) = (state.store(), copy.store());
    assert_eq!(a.hash_key().unwrap(), b.hash_key().unwrap());
    let of = stream("contoso");
    assert_eq!(a.cursor(&of).unwrap(), b.cursor(&of).unwrap());
    assert_eq!(a.work(&of).unwrap(), b.work(&of).unwrap());
    assert!(b.is_known(&of, "done/1").unwrap());
    let windows = |store: &dyn StateStore| store.windows(&JobId::live(), &tenant("contoso"));
    assert_eq!(windows(&*a).unwrap(), windows(&*b).unwrap());
    assert_eq!(
        a.seen(&tenant("contoso")).unwrap(),
        b.seen(&tenant("contoso")).unwrap()
    );
    assert_eq!(a.quarantined().unwrap(), b.quarantined().unwrap());
    let file = a.quarantined().unwrap()[0].file.clone().unwrap();
    let kept = fs::read(to.path().join("quarantine").join(file)).unwrap();
    assert_eq!(kept, b"\xFEbad");
    for kind in [Kind::Events, Kind::Findings] {
        let waiting = |state: &State| {
            let from = state.lane_start(&lane(kind)).unwrap();
            let mut reader = state.reader(from, all_of(kind));
            let delivery = reader.read(state.outbox_end(), 100, 1 << 20).unwrap();
            assert_eq!(delivery.damage, vec![]);
            delivery
                .items
                .into_iter()
                .map(|i| i.envelope)
                .collect::<Vec<_>>()
        };
        assert!(!waiting(&state).is_empty());
        assert_eq!(waiting(&state), waiting(&copy), "{kind:?}");
    }
    assert_eq!(copy.verify(now()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn entries_stand_sorted_and_read_by_people() {
    let folder = TempDir::new().unwrap();
    let text = exported(&filled(folder.path()));
    assert!(text.contains(
        r#"{"line":"entry","key":["cursor","contoso","office365","Audit.Exchange"],"value":{"covered_until":"2026-05-04T10:06:00Z","#
    ), "{text}");
    let families: Vec<_> = text
        .lines()
        .filter_map(|line| line.split(r#""key":[""#).nth(1)?.split('"').next())
        .collect();
    assert!(families.is_sorted(), "{families:?}");
    assert!(families.len() >= 9);
}

#[test]
fn an_import_that_cannot_be_whole_leaves_nothing() {
    let from = TempDir::new().unwrap();
    let text = exported(&filled(from.path()));
    let lines: Vec<&str> = text.lines().collect();
    let without_one = [&lines[..2], &lines[3..]].concat().join("\n");
    // Emitters would lay it into text of theirs.
    let broken = text.replacen(r#"{\"item\":\"6a\"}"#, r#"{\"item\":6}},{\"event\":6}"#, 1);
    assert_ne!(text, broken);
    let cases = [
        ("empty", String::new()),
        ("cut at a line", lines[..lines.len() - 1].join("\n")),
        ("cut inside a line", text[..text.len() / 2].to_owned()),
        ("a line is missing", without_one),
        ("no export", "{\"a\":1}\n".to_owned()),
        ("a record that is none", broken),
    ];
    for (name, text) in cases {
        let parent = TempDir::new().unwrap();
        let to = parent.path().join("state");
        let refused = import(&to, &mut text.as_bytes(), now());
        assert!(
            matches!(refused, Err(StateError::Invalid { .. })),
            "{name}: {refused:?}"
        );
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "{name}");
    }
    let (ours, theirs) = (FORMAT_VERSION, FORMAT_VERSION + 1);
    let newer = text.replace(
        &format!(r#""format":{ours}"#),
        &format!(r#""format":{theirs}"#),
    );
    let to = from.path().join("newer");
    let refused = import(&to, &mut newer.as_bytes(), now());
    assert!(matches!(refused, Err(StateError::Version { .. })));
    let refused = import(from.path(), &mut text.as_bytes(), now());
    assert!(
        matches!(refused, Err(StateError::Invalid { .. })),
        "not into a state"
    );
}

#[test]
fn verify_finds_what_does_not_fit_together() {
    let folder = TempDir::new().unwrap();
    let mut state = filled(folder.path());
    let found = state.verify(now()).unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!(found.items, 13);
    fs::write(folder.path().join("quarantine/stray.bin"), "x").unwrap();
    fs::write(folder.path().join("store/blobs/1"), "x").unwrap();
    let path = &segments(folder.path())[1];
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
    let late = Commit {
        cursors: vec![(stream("contoso"), cursor(24 * 60))],
        quarantined: vec![Quarantined {
            id: "gone".to_owned(),
            stream: stream("contoso"),
            origin: "blob".to_owned(),
            reason: "no JSON".to_owned(),
            at: now(),
            bytes: bytes::Bytes::from_static(b"x"),
            file: None,
            item: None,
            fate: exfilwatch_state::Fate::Kept,
        }],
        // Open again although done.
        work: vec![item("contoso", "done/1")],
        ..Commit::default()
    };
    state.commit_group(vec![late]).unwrap();
    let file = state.store().quarantined().unwrap().pop();
    let gone = state
        .store()
        .quarantined()
        .unwrap()
        .into_iter()
        .find(|q| q.id == "gone");
    assert!(file.is_some());
    let name = gone.unwrap().file.unwrap();
    fs::remove_file(folder.path().join("quarantine").join(name)).unwrap();
    let found = state.verify(now()).unwrap();
    for part in [
        "ahead of the clock",
        "open and done",
        "unsynced",
        "is not there",
        "outbox from",
    ] {
        let count = found.problems.iter().filter(|p| p.contains(part)).count();
        assert_eq!(count, 1, "{part}: {:?}", found.problems);
    }
    assert_eq!(found.problems.len(), 5, "{:?}", found.problems);
    assert!(found.notes.iter().any(|note| note.contains("stray.bin")));
}

#[test]
fn the_summary_counts_what_is_there() {
    let folder = TempDir::new().unwrap();
    let mut state = filled(folder.path());
    state.write_mirror(now()).unwrap();
    let summary = state.summary().unwrap();
    assert_eq!(summary.format, FORMAT_VERSION);
    assert_eq!(summary.families["cursor"].entries, 1);
    assert_eq!(summary.families["lane"].entries, 2);
    assert_eq!(
        summary.families["seen"].entries, 1,
        "small pages share a chunk"
    );
    assert!(summary.outbox_segments > 1 && summary.outbox_bytes > 300);
    assert_eq!((summary.quarantine_files, summary.quarantine_bytes), (1, 4));
    assert_eq!(summary.mirror_written_at, Some(now()));
    assert!(summary.store_bytes > 0);
}

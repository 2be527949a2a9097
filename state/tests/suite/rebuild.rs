//! A store that is newer, damaged or gone: refused, or made anew without silence.

use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use exfilwatch_model::{Gap, GapCause, GapState, JobId, Kind, Window};
use exfilwatch_state::{
    Commit, FORMAT_VERSION, JobState, MIRROR_FILE, Opened, Options, Position, State, StateError,
    StateStore, Subscription,
};
use tempfile::TempDir;

use crate::support::*;

/// Three pages, of which the lane has delivered one, and a mirror from before the last page.
fn filled(folder: &Path) -> Position {
    let mut state = open(folder);
    let first = state.commit_group(vec![page(1, &["a"])]).unwrap().end;
    let window = Window::new(now() - TimeDelta::days(2), now() - TimeDelta::days(1)).unwrap();
    let rest = Commit {
        lanes: vec![mark(Kind::Events, first)],
        work: vec![item("fabrikam", "blob")],
        cursors: vec![(stream("fabrikam"), cursor(5))],
        gaps: vec![Gap::new(
            stream("contoso"),
            window,
            (GapState::Open, GapCause::NotListed),
            "an outage",
            now(),
        )],
        subscriptions: vec![Subscription {
            stream: stream("contoso"),
            started_at: now(),
        }],
        jobs: ["job-1", "job-2"]
            .map(|job| JobState {
                job: JobId::new(job).unwrap(),
                state: "{}".to_owned(),
                finished: job == "job-1",
            })
            .to_vec(),
        ..Commit::default()
    };
    state.commit_group(vec![rest]).unwrap();
    state.write_mirror(now()).unwrap();
    state.commit_group(vec![page(2, &["b"])]).unwrap();
    state.commit_group(vec![page(3, &["c"])]).unwrap();
    first
}

fn damage_store(folder: &Path) {
    let db = folder.join("store/db");
    let bytes = fs::read(&db).unwrap();
    fs::write(&db, vec![0xAA; bytes.len()]).unwrap();
}

fn reopen(folder: &Path) -> Opened {
    open_with(folder, Options::default())
}

#[test]
fn a_damaged_store_is_moved_aside_and_made_anew() {
    let folder = TempDir::new().unwrap();
    let delivered = filled(folder.path());
    damage_store(folder.path());
    let verdicts = folder.path().join("verdicts.json");
    assert!(!verdicts.exists(), "there were none");
    let opened = reopen(folder.path());
    let report = opened.rebuilt.unwrap();
    let kept = report.moved_to.unwrap();
    assert!(kept.join("db").exists(), "{}", kept.display());
    assert!(
        kept.to_string_lossy()
            .contains("store.damaged-20260504T100000Z")
    );
    let expected = vec![
        (stream("contoso"), cursor(1).covered_until),
        (stream("fabrikam"), item("fabrikam", "blob").from),
    ];
    assert_eq!(report.restarts, expected);
    assert_eq!(report.mirror_written_at, Some(now()));
    assert_eq!(report.jobs.len(), 1, "the finished one is over");
    let state = opened.state;
    assert_eq!(ids(&state, Kind::Events), ["a", "b", "c"]);
    let store = state.store();
    assert_eq!(store.cursor(&stream("contoso")).unwrap(), None);
    let restart = store.restart_from(&stream("contoso")).unwrap();
    assert_eq!(restart, Some(cursor(1).covered_until));
    assert_eq!(state.lane_start(&lane(Kind::Events)).unwrap(), delivered);
    assert_eq!(store.gaps().unwrap().len(), 1);
    assert!(store.subscription(&stream("contoso")).unwrap().is_some());
    assert_eq!(ids_from(&state, Kind::Events, delivered), ["b", "c"]);
}

#[test]
fn verdicts_outlive_the_store_and_those_that_were_taken_back_do_not() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let commit = |verdicts: Vec<u128>, forget: Vec<u128>| Commit {
        verdicts: verdicts
            .iter()
            .map(|n| (tenant("contoso"), verdict(*n)))
            .collect(),
        forget_verdicts: forget
            .iter()
            .map(|n| (tenant("contoso"), verdict(*n).uid))
            .collect(),
        ..Commit::default()
    };
    state
        .commit_group(vec![commit(vec![1, 2], vec![])])
        .unwrap();
    state.write_mirror(now()).unwrap();
    state.commit_group(vec![commit(vec![3], vec![2])]).unwrap();
    state.write_mirror(now()).unwrap();
    drop(state);
    damage_store(folder.path());
    let opened = reopen(folder.path());
    assert!(opened.rebuilt.is_some());
    let mut known: Vec<_> = opened.state.store().verdicts().unwrap();
    known.sort_by_key(|(_, one)| one.uid);
    let expected = [1, 3].map(|n| (tenant("contoso"), verdict(n)));
    assert_eq!(known, expected);
    drop(opened);
    // A file that does not read is as good as none.
    fs::write(folder.path().join("verdicts.json"), "[{").unwrap();
    damage_store(folder.path());
    let again = reopen(folder.path());
    assert!(again.state.store().verdicts().unwrap().is_empty());
}

#[test]
fn a_value_that_turned_is_noticed_at_open() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let mut marked = finding(1);
    marked.entity = "entity-to-be-damaged@contoso.example".to_owned();
    let commit = Commit {
        findings: vec![(tenant("contoso"), marked)],
        ..page(1, &["a"])
    };
    state.commit_group(vec![commit]).unwrap();
    state.write_mirror(now()).unwrap();
    drop(state);
    let db = folder.path().join("store/db");
    let mut bytes = fs::read(&db).unwrap();
    let needle = b"entity-to-be-damaged";
    let places: Vec<_> = (0..bytes.len() - needle.len())
        .filter(|at| bytes[*at..].starts_with(needle))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&db, bytes).unwrap();
    let opened = reopen(folder.path());
    // sled drops what does not read and is then an older store; the mirror knows better.
    let report = opened.rebuilt.unwrap();
    assert!(report.moved_to.is_some());
    assert_eq!(ids(&opened.state, Kind::Events), ["a"]);
}

#[test]
fn restart_points_stay_until_a_cursor_is_committed() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    damage_store(folder.path());
    drop(reopen(folder.path()));
    let mut state = open(folder.path());
    let store = state.store();
    let low_waters = store.low_waters().unwrap();
    assert_eq!(low_waters[0], (stream("contoso"), cursor(1).covered_until));
    state.commit_group(vec![page(7, &["d"])]).unwrap();
    assert_eq!(store.restart_from(&stream("contoso")).unwrap(), None);
    assert!(store.restart_from(&stream("fabrikam")).unwrap().is_some());
}

#[test]
fn without_a_mirror_lanes_begin_with_everything_there_is() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    damage_store(folder.path());
    fs::write(folder.path().join(MIRROR_FILE), "{ torn").unwrap();
    let opened = reopen(folder.path());
    let report = opened.rebuilt.unwrap();
    assert_eq!(report.mirror_written_at, None);
    assert_eq!(report.restarts, vec![]);
    let mut state = opened.state;
    let start = state.lane_start(&lane(Kind::Events)).unwrap();
    assert_eq!(ids_from(&state, Kind::Events, start), ["a", "b", "c"]);
    assert_eq!(state.trim_outbox().unwrap().segments, 0);
    let commit = Commit {
        lanes: vec![mark(Kind::Events, start)],
        ..Commit::default()
    };
    state.commit_group(vec![commit]).unwrap();
    let late = state.lane_start(&lane(Kind::Internal)).unwrap();
    assert_eq!(late, state.outbox_end(), "a lane added later is a new one");
}

#[test]
fn a_lost_store_keeps_the_segment_up_to_its_last_whole_frame_for_any_tear() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    let path = segments(folder.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    // The three frames have the same length.
    let frame = (bytes.len() - 16) / 3;
    for cut in 0..=frame {
        fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        fs::remove_dir_all(folder.path().join("store")).unwrap();
        let opened = reopen(folder.path());
        let report = opened.rebuilt.unwrap();
        assert_eq!(report.reason, "the store was not there");
        let expected: &[&str] = if cut == 0 {
            &["a", "b", "c"]
        } else {
            &["a", "b"]
        };
        assert_eq!(ids(&opened.state, Kind::Events), expected, "cut {cut}");
    }
}

#[test]
fn a_segment_without_a_whole_frame_is_kept_under_another_name() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    let path = segments(folder.path()).pop().unwrap();
    fs::write(&path, b"EXFWSEG1........garbage").unwrap();
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    let opened = reopen(folder.path());
    assert!(opened.rebuilt.unwrap().outbox_damage.is_some());
    assert!(path.with_extension("damaged").exists());
    let mut state = opened.state;
    state.commit_group(vec![page(4, &["d"])]).unwrap();
    assert_eq!(ids(&state, Kind::Events), ["d"]);
}

#[test]
fn a_rebuild_that_is_interrupted_is_done_again() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    fs::rename(
        folder.path().join("store"),
        folder.path().join("store.damaged-x"),
    )
    .unwrap();
    // A store that was created and never filled.
    drop(sled::open(folder.path().join("store")).unwrap());
    let opened = reopen(folder.path());
    assert_eq!(opened.rebuilt.unwrap().restarts.len(), 2);
    assert_eq!(ids(&opened.state, Kind::Events), ["a", "b", "c"]);
}

#[test]
fn a_newer_state_is_refused_and_not_touched() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    fs::write(
        folder.path().join("format"),
        format!("{}\n", FORMAT_VERSION + 1),
    )
    .unwrap();
    let before = fs::read(folder.path().join("store/db")).unwrap();
    let refused = State::open(folder.path(), now(), Options::default());
    let Err(StateError::Version { found, known, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((found, known), (FORMAT_VERSION + 1, FORMAT_VERSION));
    assert_eq!(fs::read(folder.path().join("store/db")).unwrap(), before);
}

#[test]
fn the_mirror_is_written_when_due_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    assert!(state.write_mirror_when_due(now()).unwrap());
    let soon = now() + TimeDelta::seconds(9);
    assert!(!state.write_mirror_when_due(soon).unwrap());
    assert!(
        state
            .write_mirror_when_due(now() + TimeDelta::seconds(10))
            .unwrap()
    );
    assert!(
        state.write_mirror_when_due(now()).unwrap(),
        "the clock went back"
    );
    state.commit_group(vec![page(1, &["a"])]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.path()), 0o700);
    for path in ["store", "outbox", "quarantine"] {
        assert_eq!(mode(&folder.path().join(path)), 0o700, "{path}");
    }
    for path in [MIRROR_FILE, "lock", "format", "store/db", "store/conf"] {
        assert_eq!(mode(&folder.path().join(path)), 0o600, "{path}");
    }
    assert_eq!(mode(&segments(folder.path())[0]), 0o600);
}

#[test]
fn a_folder_of_the_first_format_is_brought_up_and_no_older_version_opens_it_again() {
    let folder = TempDir::new().unwrap();
    drop(open(folder.path()));
    fs::write(folder.path().join("format"), "1\n").unwrap();
    let opened = reopen(folder.path());
    assert_eq!(opened.rebuilt, None);
    let format = fs::read_to_string(folder.path().join("format")).unwrap();
    assert_eq!(format.trim(), FORMAT_VERSION.to_string());
}

//! Commits that fail or die between every two of their steps.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exfilwatch_model::Kind;
use exfilwatch_state::{Commit, Options, Quarantined, State, StateError, StateStore, Step, Steps};
use tempfile::TempDir;

use crate::support::*;

/// A group that touches everything a commit can.
fn group(number: u32) -> Vec<Commit> {
    let id = format!("id-{number}");
    let quarantined = Quarantined {
        id: id.clone(),
        stream: stream("contoso"),
        origin: "blob".to_owned(),
        reason: "not a JSON object".to_owned(),
        at: now(),
        bytes: bytes::Bytes::from_static(b"not json"),
        file: None,
        item: None,
        fate: exfilwatch_state::Fate::Kept,
    };
    let second = Commit {
        frames: vec![frame(Kind::Findings, "fabrikam", &[&id])],
        findings: vec![(tenant("fabrikam"), finding(u128::from(number)))],
        quarantined: vec![quarantined],
        ..Commit::default()
    };
    vec![page(number, &[&id]), second]
}

/// What the folder holds, as numbers of whole groups; panics when parts of a group differ.
fn whole_groups(state: &State) -> usize {
    let store = state.store();
    let counts = [
        ids(state, Kind::Events).len(),
        ids(state, Kind::Findings).len(),
        store.seen(&tenant("contoso")).unwrap().len(),
        store.findings(&tenant("fabrikam")).unwrap().len(),
        store.quarantined().unwrap().len(),
    ];
    for entry in store.quarantined().unwrap() {
        let path = state.folder().join("quarantine").join(entry.file.unwrap());
        assert_eq!(std::fs::read(path).unwrap(), b"not json");
    }
    let last = u32::try_from(counts[0]).unwrap();
    let cursor_is = store.cursor(&stream("contoso")).unwrap();
    assert_eq!(cursor_is, (last > 0).then(|| cursor(last)));
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    assert_eq!(store.outbox_end().unwrap(), state.outbox_end());
    counts[0]
}

fn stop() -> StateError {
    StateError::Io {
        action: "stopping at",
        path: "a step".into(),
        source: std::io::Error::other("as the test wants it"),
    }
}

#[test]
fn a_commit_that_fails_at_any_step_counts_wholly_or_not_at_all() {
    for step in Step::ALL {
        let folder = TempDir::new().unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&armed);
        let options = Options {
            steps: Steps::new(move |at| {
                if at == step && stops.load(Ordering::SeqCst) {
                    return Err(stop());
                }
                Ok(())
            }),
            ..Options::default()
        };
        let mut state = open_with(folder.path(), options).state;
        state.commit_group(group(1)).unwrap();
        armed.store(true, Ordering::SeqCst);
        state.commit_group(group(2)).unwrap_err();
        armed.store(false, Ordering::SeqCst);
        if step < Step::StoreApplied {
            assert_eq!(whole_groups(&state), 1, "{step:?}: memory is as before");
            state.commit_group(group(2)).unwrap();
            assert_eq!(
                whole_groups(&state),
                2,
                "{step:?}: the same group is taken later"
            );
        } else {
            let refused = state.commit_group(group(3));
            assert!(
                matches!(refused, Err(StateError::Halted { .. })),
                "{step:?}"
            );
        }
        drop(state);
        let mut state = open(folder.path());
        let whole = whole_groups(&state);
        assert!((1..=2).contains(&whole), "{step:?}: {whole}");
        state
            .commit_group(group(u32::try_from(whole).unwrap() + 1))
            .unwrap();
        assert_eq!(whole_groups(&state), whole + 1, "{step:?}");
    }
}

#[test]
fn a_process_killed_between_any_two_steps_leaves_whole_groups() {
    for step in Step::ALL {
        let folder = TempDir::new().unwrap();
        open(folder.path()).commit_group(group(1)).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crash::child_that_is_killed"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let order = format!("{}\n{}\n", step.as_str(), folder.path().display());
        child
            .stdin
            .take()
            .unwrap()
            .write_all(order.as_bytes())
            .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "{step:?}: killed by a signal");
        let mut state = open(folder.path());
        let whole = whole_groups(&state);
        let counts = step >= Step::StoreFlushed;
        assert_eq!(whole, if counts { 3 } else { 2 }, "{step:?}");
        state
            .commit_group(group(u32::try_from(whole).unwrap() + 1))
            .unwrap();
        assert_eq!(whole_groups(&state), whole + 1, "{step:?}");
    }
}

#[test]
#[ignore = "runs as a process of its own, started and killed by the test above"]
fn child_that_is_killed() {
    let mut order = std::io::stdin().lines().map_while(Result::ok);
    let (Some(step), Some(folder)) = (order.next(), order.next()) else {
        return;
    };
    let step = Step::from_name(&step).unwrap();
    let options = Options {
        steps: Steps::abort_at(step, 2),
        ..Options::default()
    };
    let mut state = open_with(folder.as_ref(), options).state;
    for number in 2..10 {
        state.commit_group(group(number)).unwrap();
    }
}

#[test]
fn two_cannot_open_one_folder() {
    let folder = TempDir::new().unwrap();
    let state = open(folder.path());
    let refused = State::open(folder.path(), now(), Options::default());
    assert!(matches!(refused, Err(StateError::Locked { .. })));
    drop(state);
    open(folder.path());
}

#[test]
fn a_group_that_is_refused_leaves_the_outbox_as_it_was() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    state.commit_group(group(1)).unwrap();
    let end = state.outbox_end();
    let mut bad = group(2);
    bad[1].findings[0].1.entity = "x".repeat(5_000);
    let refused = state.commit_group(bad);
    assert!(matches!(refused, Err(StateError::TooLarge { .. })));
    assert_eq!(state.outbox_end(), end);
    assert_eq!(whole_groups(&state), 1);
}

#[test]
fn a_full_quarantine_keeps_the_entry_and_says_that_the_bytes_are_gone() {
    let folder = TempDir::new().unwrap();
    let options = Options {
        quarantine_bytes_max: 10,
        ..Options::default()
    };
    let mut state = open_with(folder.path(), options).state;
    state.commit_group(group(1)).unwrap();
    state.commit_group(group(2)).unwrap();
    let entries = state.store().quarantined().unwrap();
    assert_eq!(entries.len(), 2);
    let kept: Vec<_> = entries
        .iter()
        .filter(|entry| entry.file.is_some())
        .collect();
    assert_eq!(kept.len(), 1);
    assert!(
        entries
            .iter()
            .any(|entry| entry.reason.contains("quarantine is full"))
    );
}

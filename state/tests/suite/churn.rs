//! What the disk does over a long time: it levels off, and sled never makes a blob.

use std::fs;
use std::io;
use std::path::Path;

use exfilwatch_model::{JobId, Kind};
use exfilwatch_state::{Commit, DoneItem, Options, StateStore, WindowChange};
use tempfile::TempDir;

use crate::support::*;

const COMMITS: u32 = 50_000;
/// Commits in a group, as under load: one batch of the store.
const GROUP: usize = 5;
/// Ten times what is live at the end, about 3 MB, and the space sled never gives back.
const DISK_BYTES_MAX: u64 = 48 << 20;

fn bytes_below(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            match entry.metadata() {
                Ok(of) if of.is_dir() => bytes_below(&entry.path()),
                Ok(of) => of.len(),
                // sled renames and removes files of its own in the background.
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => panic!("{}: {error}", entry.path().display()),
            }
        })
        .sum()
}

/// A page of a busy tenant: an item in and out, memory of keys that come again, fingerprints of a
/// day of which fourteen are kept.
fn churn(number: u32) -> Commit {
    let days = number / 500;
    let today = day("2026-01-01") + chrono::Days::new(u64::from(days));
    let fingerprints: Vec<u64> = (0..40)
        .map(|n| (u64::from(number) * 40 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .collect();
    let mut commit = Commit {
        frames: vec![frame(Kind::Events, "contoso", &["a", "b", "c"])],
        cursors: vec![(stream("contoso"), cursor(number))],
        work: vec![item("contoso", &format!("blob-{number}"))],
        seen: vec![exfilwatch_state::SeenChunk {
            tenant: tenant("contoso"),
            day: today,
            fingerprints,
        }],
        windows: (0..3)
            .map(|n| WindowChange {
                job: JobId::live(),
                tenant: tenant("contoso"),
                detector: "gws.drive.mass_share_external".to_owned(),
                key: format!("user-{}", number.wrapping_mul(7919 + n) % 3_000).into_bytes(),
                value: Some(vec![b'x'; 300]),
            })
            .collect(),
        ..Commit::default()
    };
    if number > 0 {
        commit.done.push(DoneItem {
            stream: stream("contoso"),
            key: format!("blob-{}", number - 1),
            forget_after: now() + chrono::TimeDelta::seconds(i64::from(number)),
            given_up: false,
        });
    }
    if number.is_multiple_of(500) && days > 14 {
        let before = today - chrono::Days::new(14);
        commit.forget_seen_before.push((tenant("contoso"), before));
    }
    commit
}

#[test]
fn the_disk_levels_off_and_blobs_stay_empty() {
    let folder = TempDir::new().unwrap();
    let options = Options {
        sync: false,
        segment_bytes_max: 1 << 20,
        ..Options::default()
    };
    let mut state = open_with(folder.path(), options).state;
    // Space is given back in the background, sooner or later: the most of a stretch counts, not the
    // moment. What grows with each commit has grown by two thirds from the early stretch to the late.
    let (mut early, mut late) = (0, 0);
    for first in (0..COMMITS).step_by(GROUP) {
        let mut group: Vec<_> = (first..).take(GROUP).map(churn).collect();
        if first % 100 == 0 {
            group.push(Commit {
                lanes: vec![mark(Kind::Events, state.outbox_end())],
                ..Commit::default()
            });
        }
        state.commit_group(group).unwrap();
        if first % 500 == 0 {
            state.trim_outbox().unwrap();
            let until = now() + chrono::TimeDelta::seconds(i64::from(first) - 2_000);
            state.store().forget_done(until).unwrap();
        }
        if first % 500 == 0 {
            match first / (COMMITS / 10) {
                4 | 5 => early = bytes_below(folder.path()).max(early),
                8 | 9 => late = bytes_below(folder.path()).max(late),
                _ => {}
            }
        }
    }
    println!("{early} bytes at most at about half the time, {late} towards the end");
    assert!(late <= DISK_BYTES_MAX, "{late}");
    assert!(late <= early + early / 4, "{early} grew to {late}");
    let blobs = fs::read_dir(folder.path().join("store/blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
    drop(state);
    let state = open(folder.path());
    assert_eq!(
        state
            .verify(now() + chrono::TimeDelta::days(60))
            .unwrap()
            .problems,
        Vec::<String>::new()
    );
}

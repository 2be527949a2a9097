//! What every store must do: one function a promise, each run on all stores, and on disk once more
//! after closing and opening.

use exfilwatch_model::{Gap, GapCause, GapState, JobId, Kind, Window};
use exfilwatch_state::{
    Commit, DoneItem, FileMark, JobState, MemoryStore, Options, Position, Quarantined, SledStore,
    State, StateError, StateStore, Subscription, Watermark, WindowChange,
};
use std::sync::Arc;
use tempfile::TempDir;

use crate::support::*;

/// A store under test, and how it is closed and opened again.
pub(crate) enum Subject {
    Memory(Box<MemoryStore>),
    Sled(TempDir, Option<Arc<SledStore>>),
}

impl Subject {
    pub(crate) fn all() -> Vec<Self> {
        let folder = TempDir::new().unwrap();
        let store = open_sled(&folder);
        vec![
            Self::Memory(Box::new(MemoryStore::new([7; 16]).unwrap())),
            Self::Sled(folder, Some(store)),
        ]
    }

    pub(crate) fn store(&self) -> &dyn StateStore {
        match self {
            Self::Memory(store) => &**store,
            Self::Sled(_, store) => &**store.as_ref().unwrap(),
        }
    }

    pub(crate) fn reopen(&mut self) {
        if let Self::Sled(folder, store) = self {
            drop(store.take());
            *store = Some(open_sled(folder));
        }
    }

    fn apply(&self, commit: Commit) {
        self.store().apply(&[commit], Position::default()).unwrap();
    }
}

fn open_sled(folder: &TempDir) -> Arc<SledStore> {
    let options = Options {
        hash_key: Some([7; 16]),
        ..Options::default()
    };
    let opened = State::open(folder.path(), now(), options).unwrap();
    assert_eq!(opened.rebuilt, None);
    opened.state.store()
}

/// Runs `fill`, and `check` before and after reopening.
fn on_every_store(fill: impl Fn(&Subject), check: impl Fn(&dyn StateStore)) {
    for mut subject in Subject::all() {
        fill(&subject);
        check(subject.store());
        subject.reopen();
        check(subject.store());
    }
}

pub(crate) fn window_change(
    job: &str,
    tenant_name: &str,
    key: &[u8],
    value: Option<&[u8]>,
) -> WindowChange {
    WindowChange {
        job: JobId::new(job).unwrap(),
        tenant: tenant(tenant_name),
        detector: "gws.drive.mass_share_external".to_owned(),
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    }
}

fn quarantined(id: &str, minute: &str) -> Quarantined {
    Quarantined {
        id: id.to_owned(),
        stream: stream("contoso"),
        origin: "blob-1".to_owned(),
        reason: "not a JSON object".to_owned(),
        at: at(&format!("2026-05-04T10:{minute}:00Z")),
        bytes: bytes::Bytes::new(),
        file: Some(format!("{id}.bin")),
        item: None,
        fate: exfilwatch_state::Fate::Kept,
    }
}

fn gap(state: GapState) -> Gap {
    let window = Window::new(at("2026-05-01T00:00:00Z"), at("2026-05-02T00:00:00Z"));
    Gap::new(
        stream("contoso"),
        window.unwrap(),
        (state, GapCause::NotListed),
        "the vendor no longer has it",
        now(),
    )
}

#[test]
fn gaps_that_begin_at_the_same_instant_are_both_kept_until_one_is_forgotten() {
    let other = Gap {
        id: "another".to_owned(),
        ..gap(GapState::Lost)
    };
    let forgotten = Commit {
        forget_gaps: vec![(other.stream.clone(), other.id.clone())],
        ..Commit::default()
    };
    on_every_store(
        |subject| {
            let both = Commit {
                gaps: vec![gap(GapState::Open), other.clone()],
                ..Commit::default()
            };
            subject.apply(both);
        },
        |store| {
            let mut ids: Vec<String> = store.gaps().unwrap().into_iter().map(|g| g.id).collect();
            ids.sort();
            let mut wanted = vec![gap(GapState::Open).id, other.id.clone()];
            wanted.sort();
            assert_eq!(ids, wanted);
        },
    );
    on_every_store(
        |subject| {
            let both = Commit {
                gaps: vec![gap(GapState::Open), other.clone()],
                ..Commit::default()
            };
            subject.apply(both);
            subject.apply(forgotten.clone());
        },
        |store| assert_eq!(store.gaps().unwrap(), vec![gap(GapState::Open)]),
    );
}

#[test]
fn a_new_store_is_empty_and_has_its_key() {
    on_every_store(
        |_| (),
        |store| {
            assert_eq!(store.hash_key().unwrap(), [7; 16]);
            assert_eq!(store.outbox_end().unwrap(), Position::default());
            assert_eq!(store.cursor(&stream("contoso")).unwrap(), None);
            assert_eq!(store.low_waters().unwrap(), vec![]);
            assert_eq!(store.lanes().unwrap(), vec![]);
        },
    );
}

#[test]
fn everything_committed_is_read_back() {
    let job = JobState {
        job: JobId::new("backfill-1").unwrap(),
        state: "{\"until\":3}".to_owned(),
        finished: false,
    };
    let file = FileMark {
        path: "/var/log/ü x.ndjson".to_owned(),
        digest: "d".repeat(64),
        offset: 12,
        finished: true,
    };
    let start = Subscription {
        stream: stream("contoso"),
        started_at: now(),
    };
    let end = Position {
        segment: 3,
        offset: 99,
        item: 0,
    };
    let commit = Commit {
        cursors: vec![(stream("contoso"), cursor(1))],
        work: vec![item("contoso", "blob/1"), item("contoso", "blob/2")],
        seen: vec![chunk("contoso", "2026-05-04", &[1, u64::MAX])],
        findings: vec![(tenant("contoso"), finding(1))],
        verdicts: vec![
            (tenant("contoso"), verdict(1)),
            (tenant("fabrikam"), verdict(1)),
        ],
        gaps: vec![gap(GapState::Open)],
        quarantined: vec![quarantined("q1", "00")],
        subscriptions: vec![start.clone()],
        jobs: vec![job.clone()],
        files: vec![file.clone()],
        lanes: vec![mark(Kind::Findings, end)],
        ..Commit::default()
    };
    on_every_store(
        |subject| {
            subject
                .store()
                .apply(std::slice::from_ref(&commit), end)
                .unwrap();
        },
        |store| {
            let of = stream("contoso");
            assert_eq!(store.outbox_end().unwrap(), end);
            assert_eq!(store.cursor(&of).unwrap(), Some(cursor(1)));
            assert_eq!(store.work(&of).unwrap(), commit.work);
            assert_eq!(store.work(&stream("other")).unwrap(), vec![]);
            let seen = [1, u64::MAX].map(|f| (day("2026-05-04"), f)).to_vec();
            assert_eq!(store.seen(&tenant("contoso")).unwrap(), seen);
            assert_eq!(
                store.findings(&tenant("contoso")).unwrap(),
                vec![finding(1)]
            );
            assert_eq!(store.findings(&tenant("contos")).unwrap(), vec![]);
            assert_eq!(store.tenants_with_findings().unwrap(), [tenant("contoso")]);
            assert_eq!(store.verdicts().unwrap(), commit.verdicts);
            assert_eq!(store.gaps().unwrap(), commit.gaps);
            assert_eq!(store.quarantined().unwrap(), commit.quarantined);
            assert_eq!(store.subscription(&of).unwrap().as_ref(), Some(&start));
            assert_eq!(store.jobs().unwrap(), vec![job.clone()]);
            assert_eq!(store.file(&file.digest).unwrap().as_ref(), Some(&file));
            assert_eq!(store.lanes().unwrap(), commit.lanes);
            assert_eq!(
                store.lane(&lane(Kind::Findings)).unwrap().as_ref(),
                commit.lanes.first()
            );
            assert_eq!(store.lane(&lane(Kind::Events)).unwrap(), None);
        },
    );
}

#[test]
fn a_done_item_leaves_the_work_list_and_stays_known_until_it_is_forgotten() {
    let long = "k".repeat(512);
    on_every_store(
        |subject| {
            subject.apply(Commit {
                work: vec![item("contoso", "a"), item("contoso", &long)],
                ..Commit::default()
            });
            let done = [
                ("a", "2026-05-05T00:00:00Z"),
                (&long, "2026-05-06T00:00:00Z"),
            ];
            subject.apply(Commit {
                done: done
                    .map(|(key, forget_after)| DoneItem {
                        stream: stream("contoso"),
                        key: key.to_owned(),
                        forget_after: at(forget_after),
                        given_up: key == "a",
                    })
                    .to_vec(),
                ..Commit::default()
            });
            let store = subject.store();
            assert!(store.is_known(&stream("contoso"), "a").unwrap());
            assert!(store.was_given_up(&stream("contoso"), "a").unwrap());
            assert!(!store.was_given_up(&stream("contoso"), &long).unwrap());
            assert!(!store.was_given_up(&stream("contoso"), "never").unwrap());
            assert_eq!(store.forget_done(at("2026-05-05T00:00:00Z")).unwrap(), 1);
        },
        |store| {
            assert_eq!(store.work(&stream("contoso")).unwrap(), vec![]);
            assert!(!store.is_known(&stream("contoso"), "a").unwrap());
            assert!(store.is_known(&stream("contoso"), &long).unwrap());
            assert!(!store.is_known(&stream("other"), &long).unwrap());
            assert_eq!(store.forget_done(at("2026-05-05T00:00:00Z")).unwrap(), 0);
        },
    );
}

#[test]
fn fingerprints_come_back_by_day_however_they_were_cut() {
    let expected: Vec<_> = (0..600u64)
        .map(|f| (day("2026-05-03"), f))
        .chain((1000..2000).map(|f| (day("2026-05-04"), f)))
        .collect();
    on_every_store(
        |subject| {
            let today: Vec<u64> = (1000..2000).collect();
            let yesterday: Vec<u64> = (0..600).collect();
            for part in today.chunks(7) {
                subject.apply(Commit {
                    seen: vec![chunk("contoso", "2026-05-04", part)],
                    ..Commit::default()
                });
            }
            let parts = yesterday.chunks(100);
            subject.apply(Commit {
                seen: parts.map(|p| chunk("contoso", "2026-05-03", p)).collect(),
                ..Commit::default()
            });
        },
        |store| assert_eq!(store.seen(&tenant("contoso")).unwrap(), expected),
    );
}

#[test]
fn forgotten_days_are_gone_and_only_for_their_tenant() {
    on_every_store(
        |subject| {
            let days = ["2026-04-30", "2026-05-01", "2026-05-02"];
            subject.apply(Commit {
                seen: days
                    .iter()
                    .flat_map(|day| [chunk("contoso", day, &[1]), chunk("fabrikam", day, &[2])])
                    .collect(),
                ..Commit::default()
            });
            subject.apply(Commit {
                forget_seen_before: vec![(tenant("contoso"), day("2026-05-02"))],
                ..Commit::default()
            });
        },
        |store| {
            let left = vec![(day("2026-05-02"), 1)];
            assert_eq!(store.seen(&tenant("contoso")).unwrap(), left);
            assert_eq!(store.seen(&tenant("fabrikam")).unwrap().len(), 3);
        },
    );
}

#[test]
fn detector_memory_is_apart_by_job_and_tenant_and_can_be_removed() {
    let long = [0xFF; 512];
    on_every_store(
        |subject| {
            subject.apply(Commit {
                windows: vec![
                    window_change("live", "contoso", &long, Some(&[9; 4096])),
                    window_change("live", "contoso", b"b\0", Some(b"2")),
                    window_change("live", "fabrikam", b"c", Some(b"3")),
                    window_change("job-1", "contoso", b"d", Some(b"4")),
                    window_change("job-1", "fabrikam", b"e", Some(b"5")),
                ],
                watermarks: ["live", "job-1"]
                    .map(|job| Watermark {
                        job: JobId::new(job).unwrap(),
                        stream: stream("contoso"),
                        at: now(),
                    })
                    .to_vec(),
                ..Commit::default()
            });
            subject.apply(Commit {
                windows: vec![window_change("live", "contoso", b"b\0", None)],
                ..Commit::default()
            });
            let job = JobId::new("job-1").unwrap();
            assert_eq!(subject.store().watermarks(&job).unwrap().len(), 1);
            subject.store().forget_job_windows(&job).unwrap();
        },
        |store| {
            let (live, job) = (JobId::live(), JobId::new("job-1").unwrap());
            let left = vec![window_change("live", "contoso", &long, Some(&[9; 4096]))];
            assert_eq!(store.windows(&live, &tenant("contoso")).unwrap(), left);
            assert_eq!(store.windows(&live, &tenant("fabrikam")).unwrap().len(), 1);
            let with_memory = store.tenants_with_memory(&live).unwrap();
            assert_eq!(with_memory, [tenant("contoso"), tenant("fabrikam")]);
            assert_eq!(store.tenants_with_memory(&job).unwrap(), []);
            assert_eq!(store.windows(&job, &tenant("contoso")).unwrap(), vec![]);
            assert_eq!(store.windows(&job, &tenant("fabrikam")).unwrap(), vec![]);
            assert_eq!(store.watermarks(&job).unwrap(), vec![]);
            assert_eq!(store.watermarks(&live).unwrap().len(), 1);
        },
    );
}

#[test]
fn later_commits_of_a_group_override_earlier_ones() {
    on_every_store(
        |subject| {
            let first = Commit {
                cursors: vec![(stream("contoso"), cursor(1))],
                findings: vec![
                    (tenant("contoso"), finding(1)),
                    (tenant("contoso"), finding(2)),
                ],
                verdicts: vec![
                    (tenant("contoso"), verdict(1)),
                    (tenant("contoso"), verdict(2)),
                ],
                gaps: vec![gap(GapState::Open)],
                ..Commit::default()
            };
            let second = Commit {
                cursors: vec![(stream("contoso"), cursor(2))],
                forget_findings: vec![(tenant("contoso"), finding(1).uid)],
                forget_verdicts: vec![(tenant("contoso"), finding(2).uid)],
                gaps: vec![gap(GapState::Filled)],
                ..Commit::default()
            };
            let group = [first, second];
            subject.store().apply(&group, Position::default()).unwrap();
        },
        |store| {
            assert_eq!(store.cursor(&stream("contoso")).unwrap(), Some(cursor(2)));
            assert_eq!(
                store.findings(&tenant("contoso")).unwrap(),
                vec![finding(2)]
            );
            assert_eq!(
                store.verdicts().unwrap(),
                vec![(tenant("contoso"), verdict(1))]
            );
            assert_eq!(store.gaps().unwrap(), vec![gap(GapState::Filled)]);
        },
    );
}

#[test]
fn a_group_with_one_value_too_large_leaves_nothing() {
    let mut too_large = finding(1);
    too_large.entity = "x".repeat(4096);
    let bad: Vec<(&str, Commit)> = vec![
        (
            "finding",
            Commit {
                findings: vec![(tenant("contoso"), too_large)],
                ..Commit::default()
            },
        ),
        (
            "memory",
            Commit {
                windows: vec![window_change("live", "contoso", b"k", Some(&[0; 4097]))],
                ..Commit::default()
            },
        ),
        (
            "memory key",
            Commit {
                windows: vec![window_change("live", "contoso", &[0; 513], Some(b"v"))],
                ..Commit::default()
            },
        ),
        (
            "chunk",
            Commit {
                seen: vec![chunk("contoso", "2026-05-04", &[0; 513])],
                ..Commit::default()
            },
        ),
    ];
    on_every_store(
        |subject| {
            for (name, bad) in &bad {
                let group = [page(1, &[]), bad.clone()];
                let refused = subject.store().apply(&group, Position::default());
                assert!(
                    matches!(refused, Err(StateError::TooLarge { .. })),
                    "{name}"
                );
            }
        },
        |store| {
            assert_eq!(store.cursor(&stream("contoso")).unwrap(), None);
            assert_eq!(store.seen(&tenant("contoso")).unwrap(), vec![]);
        },
    );
}

#[test]
fn positions_that_contradict_the_outbox_are_refused() {
    let end = Position {
        segment: 1,
        offset: 50,
        item: 0,
    };
    let beyond = Position { offset: 51, ..end };
    let before = Position { offset: 49, ..end };
    on_every_store(
        |subject| {
            subject.store().apply(&[Commit::default()], end).unwrap();
            let lane_beyond = Commit {
                lanes: vec![mark(Kind::Events, beyond)],
                ..Commit::default()
            };
            for (commit, end) in [(lane_beyond, end), (Commit::default(), before)] {
                let refused = subject.store().apply(&[commit], end);
                assert!(matches!(refused, Err(StateError::Invalid { .. })));
            }
        },
        |store| {
            assert_eq!(store.outbox_end().unwrap(), end);
            assert_eq!(store.lanes().unwrap(), vec![]);
        },
    );
}

#[test]
fn quarantine_lists_the_newest_last() {
    on_every_store(
        |subject| {
            subject.apply(Commit {
                quarantined: vec![quarantined("a", "30"), quarantined("b", "10")],
                ..Commit::default()
            });
        },
        |store| {
            let list = store.quarantined().unwrap();
            let ids: Vec<_> = list.iter().map(|entry| entry.id.as_str()).collect();
            assert_eq!(ids, ["b", "a"]);
        },
    );
}

#[test]
fn low_water_is_the_cursor_or_the_oldest_open_item() {
    on_every_store(
        |subject| {
            subject.apply(Commit {
                cursors: vec![(stream("a"), cursor(1)), (stream("b"), cursor(1))],
                work: vec![item("b", "x")],
                ..Commit::default()
            });
        },
        |store| {
            let expected = vec![
                (stream("a"), cursor(1).covered_until),
                (stream("b"), item("b", "x").from),
            ];
            assert_eq!(store.low_waters().unwrap(), expected);
        },
    );
}

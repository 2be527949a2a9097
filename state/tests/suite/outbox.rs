//! The outbox through the state folder: what readers see, how segments end, what a tear costs.

use std::fs;

use exfilwatch_model::{Kind, Patterns, TenantId};
use exfilwatch_state::{
    Commit, Filter, LaneId, LaneMark, Options, OutboxUsage, Position, State, Tenants,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::*;

fn with_frames(frames: Vec<exfilwatch_state::Frame>) -> Commit {
    Commit {
        frames,
        ..Commit::default()
    }
}

fn small_segments() -> Options {
    Options {
        segment_bytes_max: 400,
        ..Options::default()
    }
}

#[test]
fn a_lane_reads_its_kind_and_tenants_in_order_and_comes_to_the_end() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let group = vec![
        with_frames(vec![
            frame(Kind::Events, "contoso", &["e1", "e2", "e3"]),
            frame(Kind::Findings, "contoso", &["f1"]),
        ]),
        with_frames(vec![
            frame(Kind::Events, "fabrikam", &["e4"]),
            frame(Kind::Internal, "fabrikam", &["i1"]),
        ]),
    ];
    let end = state.commit_group(group).unwrap().end;
    assert_eq!(ids(&state, Kind::Events), ["e1", "e2", "e3", "e4"]);
    assert_eq!(ids(&state, Kind::Findings), ["f1"]);
    let filter = Filter {
        kind: Kind::Events,
        tenants: Tenants::One(tenant("fabrikam")),
    };
    let delivery = state
        .reader(Position::default(), filter)
        .read(end, 10, 1 << 20)
        .unwrap();
    let [only] = &delivery.items[..] else {
        panic!("{delivery:?}")
    };
    assert_eq!(
        only.envelope,
        envelope(Kind::Events, "fabrikam", "e4", br#"{"item":"e4"}"#)
    );
    assert_eq!(delivery.next, end);
    let mut idle = state.reader(Position::default(), all_of(Kind::Signals));
    assert_eq!(idle.read(end, 10, 1 << 20).unwrap().next, end);
}

#[test]
fn a_reader_sees_nothing_behind_the_end_it_is_given() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let first = state.commit_group(vec![page(1, &["a"])]).unwrap().end;
    state.commit_group(vec![page(2, &["b"])]).unwrap();
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    assert_eq!(reader.read(first, 10, 1 << 20).unwrap().items.len(), 1);
    assert_eq!(reader.read(first, 10, 1 << 20).unwrap().items.len(), 0);
    assert_eq!(
        reader
            .read(state.outbox_end(), 10, 1 << 20)
            .unwrap()
            .items
            .len(),
        1
    );
}

#[test]
fn reading_goes_on_after_any_item() {
    let folder = TempDir::new().unwrap();
    let all = ["a", "b", "c", "d", "e", "f"];
    let mut state = open_with(folder.path(), small_segments()).state;
    for (number, ids) in all.chunks(2).enumerate() {
        state
            .commit_group(vec![page(u32::try_from(number).unwrap(), ids)])
            .unwrap();
    }
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    let delivery = reader.read(state.outbox_end(), 100, 1 << 20).unwrap();
    for (number, pending) in delivery.items.iter().enumerate() {
        assert_eq!(
            ids_from(&state, Kind::Events, pending.after),
            all[number + 1..]
        );
    }
}

#[test]
fn segments_roll_and_are_removed_when_every_lane_is_past_them() {
    let folder = TempDir::new().unwrap();
    let mut state = open_with(folder.path(), small_segments()).state;
    for number in 0..12 {
        state.commit_group(vec![page(number, &["a", "b"])]).unwrap();
    }
    let before = segments(folder.path()).len();
    assert!(before > 3, "{before}");
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    let half = reader.read(state.outbox_end(), 12, 1 << 20).unwrap().next;
    let mut retired = mark(Kind::Signals, Position::default());
    retired.retired = true;
    let lanes = vec![
        mark(Kind::Events, half),
        mark(Kind::Findings, state.outbox_end()),
        retired,
    ];
    state
        .commit_group(vec![Commit {
            lanes,
            ..Commit::default()
        }])
        .unwrap();
    let usage = state.outbox_usage().unwrap();
    assert_eq!(usage.lanes.len(), 2);
    for (of, bytes) in usage.lanes {
        assert_eq!(bytes > 0, of.kind == Kind::Events, "{of:?} {bytes}");
    }
    let trimmed = state.trim_outbox().unwrap();
    assert!(
        trimmed.segments > 0 && trimmed.segments < before,
        "{trimmed:?}"
    );
    assert_eq!(ids_from(&state, Kind::Events, half).len(), 12);
    drop(state);
    let state = open(folder.path());
    assert_eq!(ids_from(&state, Kind::Events, half).len(), 12);
}

#[test]
fn segments_behind_a_lane_that_stands_still_are_emptied_where_they_hold_nothing_for_it() {
    let folder = TempDir::new().unwrap();
    let mut state = open_with(folder.path(), small_segments()).state;
    let lane = |route: &str, position| LaneMark {
        lane: LaneId {
            emitter: "test.receiver".into(),
            route: route.into(),
            kind: Kind::Events,
        },
        ..mark(Kind::Events, position)
    };
    let only = |name: &str| Filter {
        kind: Kind::Events,
        tenants: Tenants::Matching {
            lists: vec![Patterns::new(&[name.to_owned()])],
            except: [].into(),
        },
    };
    let start = Position::default();
    for route in ["contoso", "fabrikam"] {
        state.lane_wants(lane(route, start).lane, only(route));
    }
    let mut commit = with_frames(vec![frame(Kind::Events, "contoso", &["a", "b"])]);
    commit.lanes = vec![lane("contoso", start), lane("fabrikam", start)];
    state.commit_group(vec![commit]).unwrap();
    for number in 0..40 {
        let id = format!("f{number}");
        let frames = vec![frame(Kind::Events, "fabrikam", &[&id])];
        state.commit_group(vec![with_frames(frames)]).unwrap();
    }
    let frames = vec![frame(Kind::Events, "contoso", &["c"])];
    state.commit_group(vec![with_frames(frames)]).unwrap();
    assert_eq!(state.trim_outbox().unwrap().segments, 0, "both need theirs");
    let before = state.outbox_usage().unwrap();
    let moved = Commit {
        lanes: vec![lane("fabrikam", state.outbox_end())],
        ..Commit::default()
    };
    state.commit_group(vec![moved]).unwrap();
    let trimmed = state.trim_outbox().unwrap();
    let after = state.outbox_usage().unwrap();
    assert_eq!(after.segments, before.segments);
    assert_eq!(after.bytes + trimmed.bytes, before.bytes);
    assert!(after.bytes * 3 < before.bytes, "{before:?} {after:?}");
    let held = |usage: &OutboxUsage| usage.lanes[0].1;
    assert!(held(&after) * 3 < before.bytes, "{before:?} {after:?}");
    assert_eq!(held(&after), held(&before), "what it needs is all there");
    // Also for a process that is started anew, and knows what is there from the segments.
    drop(state);
    let mut state = open(folder.path());
    state.lane_wants(lane("contoso", start).lane, only("contoso"));
    assert_eq!(state.outbox_usage().unwrap().bytes, after.bytes);
    let end = state.outbox_end();
    let mut reader = state.reader(start, only("contoso"));
    let delivery = reader.read(end, 100, 1 << 20).unwrap();
    let ids: Vec<&str> = delivery
        .items
        .iter()
        .map(|item| &item.envelope.id[..])
        .collect();
    assert_eq!((ids, delivery.damage), (vec!["a", "b", "c"], vec![]));
}

/// A large record of a tenant that is delivered at once, and now and then a word about one whose receiver is away.
fn mixed(state: &mut State, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let id = format!("{number:03}");
        let large = envelope(Kind::Events, "fabrikam", &id, &vec![b'x'; 10_000]);
        let mut frames = vec![exfilwatch_state::Frame {
            kind: Kind::Events,
            tenant: tenant("fabrikam"),
            items: vec![large],
        }];
        if number % 20 == 7 {
            frames.push(frame(Kind::Internal, "contoso", &[&id]));
        }
        state.commit_group(vec![with_frames(frames)]).unwrap();
    }
}

#[test]
fn of_a_segment_that_holds_little_for_a_lane_that_stands_still_only_that_is_kept() {
    let folder = TempDir::new().unwrap();
    let options = Options {
        segment_bytes_max: 400_000,
        ..Options::default()
    };
    let mut state = open_with(folder.path(), options).state;
    let start = Position::default();
    let lanes = [Kind::Internal, Kind::Events];
    let marks = |state: &mut State, events| {
        let lanes = vec![mark(Kind::Internal, start), mark(Kind::Events, events)];
        let commit = Commit {
            lanes,
            ..Commit::default()
        };
        state.commit_group(vec![commit]).unwrap();
    };
    for kind in lanes {
        state.lane_wants(lane(kind), all_of(kind));
    }
    marks(&mut state, start);
    mixed(&mut state, 0..200);
    let wanted: Vec<String> = (7..200).step_by(20).map(|n| format!("{n:03}")).collect();
    let end = state.outbox_end();
    let mut reader = state.reader(start, all_of(Kind::Internal));
    let before = reader.read(end, 100, 1 << 20).unwrap();
    let mut reader = state.reader(start, all_of(Kind::Events));
    let events = reader.read(end, 200, 4 << 20).unwrap();
    assert_eq!(events.items.len(), 200);
    assert_eq!(state.trim_outbox().unwrap().segments, 0, "both need theirs");
    let full = state.outbox_usage().unwrap();

    // Who is reading meanwhile reads on.
    let mut reading = state.reader(start, all_of(Kind::Events));
    reading.read(end, 1, 1 << 20).unwrap();
    marks(&mut state, end);
    // A few at a time, each once.
    let trims = std::iter::from_fn(|| Some(state.trim_outbox().unwrap()));
    let trimmed = trims.take_while(|trimmed| trimmed.segments > 0);
    let trimmed: u64 = trimmed.map(|trimmed| trimmed.bytes).sum();
    let thinned = state.outbox_usage().unwrap();
    assert_eq!(thinned.segments, full.segments);
    assert_eq!(thinned.bytes + trimmed, full.bytes);
    // The last one is still written.
    assert!(thinned.bytes < 400_000 + 150_000, "{full:?} {thinned:?}");
    assert_eq!(reading.read(end, 1, 1 << 20).unwrap().damage, vec![]);
    assert_eq!(state.trim_outbox().unwrap().segments, 0, "once");

    // Positions are what they were, for a process that is started anew too.
    mixed(&mut state, 200..240);
    drop(state);
    let unfinished = folder.path().join("outbox/0000000000000001.thin");
    fs::write(&unfinished, b"torn").unwrap();
    let mut state = open(folder.path());
    assert!(!unfinished.exists());
    for kind in lanes {
        state.lane_wants(lane(kind), all_of(kind));
    }
    let mut reader = state.reader(start, all_of(Kind::Internal));
    assert_eq!(reader.read(end, 100, 1 << 20).unwrap(), before);
    for (number, pending) in before.items.iter().enumerate() {
        let rest = ids_from(&state, Kind::Internal, pending.after);
        assert_eq!(rest[..rest.len() - 2], wanted[number + 1..]);
    }
    // A mark that stood between two frames which are there no more finds what comes after it.
    for (number, pending) in events.items.iter().enumerate() {
        let rest = ids_from(&state, Kind::Internal, pending.after);
        let expected = wanted.iter().filter(|id| **id >= format!("{number:03}"));
        assert!(rest[..rest.len() - 2].iter().eq(expected), "{number}");
    }
    let rest = ids_from(&state, Kind::Events, end);
    assert_eq!((rest.len(), &rest[0][..]), (40, "200"));
    assert_eq!(state.verify(now()).unwrap().problems, Vec::<String>::new());
    assert_eq!(state.trim_outbox().unwrap().segments, 0);
}

#[test]
fn a_frame_of_many_bytes_is_cut_into_several() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let items = (0..50)
        .map(|n| {
            envelope(
                Kind::Events,
                "contoso",
                &format!("{n:02}"),
                &vec![b'x'; 100_000],
            )
        })
        .collect();
    let big = exfilwatch_state::Frame {
        kind: Kind::Events,
        tenant: tenant("contoso"),
        items,
    };
    state.commit_group(vec![with_frames(vec![big])]).unwrap();
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    let first = reader.read(state.outbox_end(), 1000, 250_000).unwrap();
    assert_eq!(first.items.len(), 3, "the bytes bound a read");
    assert_eq!(ids(&state, Kind::Events).len(), 50);
    let last = first.items.last().unwrap().after;
    assert_eq!(ids_from(&state, Kind::Events, last).len(), 47);
}

#[test]
fn what_lies_behind_the_committed_end_is_cut_at_every_byte_of_a_torn_frame() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    state.commit_group(vec![page(1, &["kept"])]).unwrap();
    let kept = state.outbox_end();
    drop(state);
    let path = segments(folder.path()).pop().unwrap();
    let good = fs::read(&path).unwrap();
    let frame = &good[16..];
    for torn in 0..=frame.len() {
        let tail = [&good[..], &frame[..torn]].concat();
        fs::write(&path, tail).unwrap();
        let mut state = open(folder.path());
        assert_eq!(state.outbox_end(), kept);
        assert_eq!(ids(&state, Kind::Events), ["kept"]);
        assert_eq!(fs::metadata(&path).unwrap().len(), kept.offset);
        if torn == frame.len() {
            state.commit_group(vec![page(2, &["next"])]).unwrap();
            assert_eq!(ids(&state, Kind::Events), ["kept", "next"]);
        }
    }
}

#[test]
fn a_segment_that_lost_committed_bytes_is_reported_and_work_goes_on() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    state.commit_group(vec![page(1, &["a"])]).unwrap();
    let whole = state.outbox_end();
    state.commit_group(vec![page(2, &["lost"])]).unwrap();
    drop(state);
    let path = segments(folder.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..usize::try_from(whole.offset).unwrap() + 9]).unwrap();
    let opened = open_with(folder.path(), Options::default());
    let damage = opened.outbox_damage.unwrap();
    drop(opened.state);
    let opened = open_with(folder.path(), Options::default());
    assert_eq!(opened.untold.outbox, Some(damage.reason), "not told yet");
    let mut state = opened.state;
    state.commit_group(vec![page(3, &["b"])]).unwrap();
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    let delivery = reader.read(state.outbox_end(), 10, 1 << 20).unwrap();
    let read: Vec<_> = delivery
        .items
        .iter()
        .map(|i| i.envelope.id.as_str())
        .collect();
    assert_eq!(read, ["a", "b"]);
    assert_eq!(delivery.damage.len(), 1);
    assert_eq!(delivery.next, state.outbox_end());
}

#[test]
fn a_damaged_frame_costs_its_own_items_and_says_so() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    for id in ["a", "b", "c"] {
        state.commit_group(vec![page(1, &[id])]).unwrap();
    }
    let path = segments(folder.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(12)
        .position(|w| w == br#"{"item":"b"}"#)
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    let delivery = reader.read(state.outbox_end(), 10, 1 << 20).unwrap();
    let read: Vec<_> = delivery
        .items
        .iter()
        .map(|i| i.envelope.id.as_str())
        .collect();
    assert_eq!(read, ["a", "c"]);
    assert_eq!(delivery.damage.len(), 1);
}

#[test]
fn a_segment_that_was_taken_away_is_damage_not_silence() {
    let folder = TempDir::new().unwrap();
    let mut state = open_with(folder.path(), small_segments()).state;
    for number in 0..12 {
        state.commit_group(vec![page(number, &["a", "b"])]).unwrap();
    }
    fs::remove_file(&segments(folder.path())[1]).unwrap();
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    let delivery = reader.read(state.outbox_end(), 100, 1 << 20).unwrap();
    assert!(delivery.items.len() < 24);
    assert_eq!(delivery.damage.len(), 1);
    assert_eq!(delivery.next, state.outbox_end());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_frames_come_back_whole_and_in_order(
        groups in prop::collection::vec(
            prop::collection::vec((0..4usize, 0..2usize, 0..5usize), 0..5), 1..6),
        segment_bytes_max in 100..2000u64,
    ) {
        let folder = TempDir::new().unwrap();
        let options = Options { segment_bytes_max, sync: false, ..Options::default() };
        let mut state = open_with(folder.path(), options).state;
        let mut expected: Vec<Vec<String>> = vec![vec![]; 4];
        let mut number = 0;
        for group in groups {
            let mut frames = vec![];
            for (kind, tenant, count) in group {
                let names: Vec<String> = (0..count).map(|n| format!("{number}-{n}")).collect();
                number += 1;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                frames.push(frame(Kind::ALL[kind], ["a", "b"][tenant], &names));
                expected[kind].extend(names.iter().map(|n| (*n).to_owned()));
            }
            state.commit_group(vec![with_frames(frames)]).unwrap();
        }
        for (kind, expected) in Kind::ALL.into_iter().zip(&expected) {
            prop_assert_eq!(&ids(&state, kind), expected);
        }
        drop(state);
        let opened = State::open(folder.path(), now(), Options::default()).unwrap();
        for (kind, expected) in Kind::ALL.into_iter().zip(&expected) {
            prop_assert_eq!(&ids(&opened.state, kind), expected);
        }
    }
}

#[test]
fn a_reader_leaves_out_tenants_that_no_list_takes_or_that_have_a_lane_of_their_own() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let of = |names: [&str; 3], id: &str| {
        let frames = names.map(|name| frame(Kind::Events, name, &[&format!("{id}-{name}")]));
        with_frames(frames.into())
    };
    let names = ["contoso", "fabrikam", "woodgrove"];
    let middle = state.commit_group(vec![of(names, "1")]).unwrap().end;
    let end = state.commit_group(vec![of(names, "2")]).unwrap().end;
    let filter = Filter {
        kind: Kind::Events,
        tenants: Tenants::Matching {
            lists: vec![
                Patterns::new(&["!woodgrove"]),
                Patterns::new(&["*o*", "f*"]),
            ],
            except: [(tenant("contoso"), Some(middle))].into(),
        },
    };
    let mut reader = state.reader(Position::default(), filter);
    let read = |reader: &mut exfilwatch_state::OutboxReader, items| {
        let delivery = reader.read(end, items, 1 << 20).unwrap();
        let ids = delivery.items.into_iter().map(|item| item.envelope.id);
        ids.collect::<Vec<_>>()
    };
    let all = read(&mut reader, 10);
    assert_eq!(all, ["1-fabrikam", "2-contoso", "2-fabrikam"]);
    reader.rewind(Position::default());
    assert_eq!(read(&mut reader, 1), ["1-fabrikam"]);
    reader.leave_out(tenant("fabrikam"), None);
    reader.take_again(&tenant("contoso"));
    assert_eq!(read(&mut reader, 10), ["2-contoso"]);
}

#[test]
fn what_is_left_of_a_frame_in_hand_is_left_out_with_its_tenant() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let frames = vec![
        frame(Kind::Events, "contoso", &["a", "b", "c"]),
        frame(Kind::Events, "fabrikam", &["d"]),
    ];
    let end = state.commit_group(vec![with_frames(frames)]).unwrap().end;
    let mut reader = state.reader(Position::default(), all_of(Kind::Events));
    let first = reader.read(end, 1, 1 << 20).unwrap();
    assert_eq!(first.items.len(), 1);
    reader.leave_out(tenant("contoso"), None);
    let rest = reader.read(end, 10, 1 << 20).unwrap();
    assert_eq!(rest.items.len(), 1, "{rest:?}");
    assert_eq!(rest.items[0].envelope.id, "d");
}

#[test]
fn what_is_about_no_tenant_goes_to_whoever_is_told_of_us() {
    let folder = TempDir::new().unwrap();
    let mut state = open(folder.path());
    let ours = TenantId::NONE;
    let kinds = [Kind::Internal, Kind::Events];
    let frames = kinds.map(|kind| frame(kind, ours, &["ours"]));
    state
        .commit_group(vec![with_frames(frames.into())])
        .unwrap();
    let read = |kind, tenants| {
        let filter = Filter { kind, tenants };
        let mut reader = state.reader(Position::default(), filter);
        let read = reader.read(state.outbox_end(), 10, 1 << 20).unwrap();
        read.items.len()
    };
    let contoso = || Tenants::Matching {
        lists: vec![Patterns::new(&["contoso".to_owned()])],
        except: [].into(),
    };
    assert_eq!(read(Kind::Internal, contoso()), 1);
    assert_eq!(read(Kind::Events, contoso()), 0, "records are a tenant's");
    let parted = Tenants::One(tenant("contoso"));
    assert_eq!(
        read(Kind::Internal, parted),
        0,
        "the lane it was parted from has it"
    );
}

//! Random commits to both stores: they must answer alike, also after closing and opening.

use exfilwatch_model::JobId;
use exfilwatch_state::{Commit, DoneItem, Position};
use proptest::prelude::*;

use crate::contract::{Subject, window_change};
use crate::support::*;

/// One small change, as the random test makes them.
fn any_commit() -> impl Strategy<Value = Commit> {
    let one = (0..3u8, 0..3u8, 0..8u8, any::<u64>());
    prop::collection::vec(one, 0..6).prop_map(|changes| {
        let mut commit = Commit::default();
        for (tenant_number, key, what, value) in changes {
            let name = ["a", "b", "a-b"][usize::from(tenant_number)];
            let key = key.to_string();
            match what {
                0 => commit
                    .cursors
                    .push((stream(name), cursor(u32::try_from(value % 1_000).unwrap()))),
                1 => commit.work.push(item(name, &key)),
                2 => commit.done.push(DoneItem {
                    stream: stream(name),
                    key,
                    forget_after: now(),
                    given_up: false,
                }),
                3 => commit.seen.push(chunk(
                    name,
                    &format!("2026-05-0{}", 1 + value % 4),
                    &[value],
                )),
                4 => commit
                    .forget_seen_before
                    .push((tenant(name), day(&format!("2026-05-0{}", 1 + value % 4)))),
                5 => {
                    let bytes = value.to_le_bytes();
                    let value = (value % 3 > 0).then_some(&bytes[..]);
                    commit
                        .windows
                        .push(window_change("live", name, key.as_bytes(), value));
                }
                6 => commit
                    .findings
                    .push((tenant(name), finding(u128::from(value % 4)))),
                _ => commit
                    .forget_findings
                    .push((tenant(name), finding(u128::from(value % 4)).uid)),
            }
        }
        commit
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn both_stores_answer_alike_after_any_commits(
        groups in prop::collection::vec(prop::collection::vec(any_commit(), 1..4), 1..8)
    ) {
        let mut subjects = Subject::all();
        for subject in &mut subjects {
            for group in &groups {
                subject.store().apply(group, Position::default()).unwrap();
            }
            subject.reopen();
        }
        let answers = subjects.iter().map(|subject| {
            let store = subject.store();
            ["a", "b", "a-b"].map(|name| (
                store.cursor(&stream(name)).unwrap(),
                store.work(&stream(name)).unwrap(),
                store.seen(&tenant(name)).unwrap(),
                store.windows(&JobId::live(), &tenant(name)).unwrap(),
                store.findings(&tenant(name)).unwrap(),
                store.low_waters().unwrap(),
            ))
        }).collect::<Vec<_>>();
        prop_assert_eq!(&answers[0], &answers[1]);
    }
}

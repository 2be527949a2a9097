//! What is written of it, and that neither the order of records nor a restart changes it.

use exfilwatch_state::MemoryStore;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn it_is_read_again_as_it_was_written_and_the_longest_texts_fit() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    let long = "\"\\ü".repeat(3_000);
    let addresses: Vec<String> = (0..30)
        .map(|n| format!("{n}{}@evil.example", "x".repeat(190)))
        .collect();
    let parameters = [("Name", long.as_str()), ("ForwardTo", &addresses.join(";"))];
    let mut rule = cmdlet(0, "New-InboxRule", &format!("{long}\\{long}"), &parameters);
    rule["UserId"] = json!(long);
    let members = json!({
        "ObjectId": format!("https://{long}"), "SourceFileName": long, "TargetUserOrGroupName": long,
        "TargetUserOrGroupType": "Guest", "UniqueSharingId": long, "Id": long,
    });
    for record in [
        rule,
        sharepoint(1, "AddedToSecureLink", &members),
        cmdlet(2, "Set-Mailbox", "alice", &[ALICE, SET]),
        guest(3, "AddedToSecureLink", "l1"),
    ] {
        let changed = fold(&mut inventory, &record);
        assert!(!changed.is_empty());
        write(&store, changed);
    }
    let again = Inventory::load(&store, &tenant()).unwrap();
    for room in Room::ALL {
        assert_eq!(lines(&again, room), lines(&inventory, room));
        assert_eq!(lines(&again, room).len(), 2);
    }
}

#[test]
fn what_a_failed_commit_held_is_to_be_written_again() {
    let mut inventory = Inventory::default();
    let readers = readers(&["corp.example"], &[]);
    let take = |inventory: &mut Inventory, record: &Value| {
        let record = RawRecord::new(record.to_string().into());
        let events = readers.m365.normalise(&record, at(0)).unwrap();
        inventory.fold(&events);
    };
    let first = guest(0, "AddedToSecureLink", "l1");
    take(&mut inventory, &first);
    assert_eq!(inventory.to_write(&tenant()).len(), 1);
    // It failed, and the page comes again.
    take(&mut inventory, &first);
    assert!(!inventory.is_written());
    assert_eq!(inventory.to_write(&tenant()).len(), 1);
    // While that is written something else changes.
    take(&mut inventory, &guest(1, "AddedToSecureLink", "l2"));
    inventory.written();
    assert_eq!(inventory.to_write(&tenant()).len(), 1, "the other one");
    inventory.written();
    assert!(inventory.is_written());
}

/// Records about few things, so that they meet.
fn any_record() -> impl Strategy<Value = Value> {
    (0..20_u8, 0..20_i64, 0..2_u8).prop_map(|(kind, seconds, which)| {
        let name = ["Buy", "Sell"][usize::from(which)];
        let path = format!("alice\\{name}");
        let rule = [
            ("Name", name),
            ("ForwardTo", "x@evil.example;y@evil.example"),
        ];
        let named = [("Identity", path.as_str())];
        let link_id = ["l1", "l2"][usize::from(which)];
        let mut record = match kind {
            0 => cmdlet(seconds, "Set-Mailbox", "alice", &[ALICE, SET]),
            1 => cmdlet(
                seconds,
                "Set-Mailbox",
                "alice",
                &[ALICE, ("ForwardingSmtpAddress", "")],
            ),
            2 => cmdlet(seconds, "New-InboxRule", &path, &rule),
            3 => cmdlet(seconds, "Disable-InboxRule", &path, &named),
            4 => cmdlet(seconds, "Enable-InboxRule", &path, &named),
            5 => cmdlet(seconds, "Remove-Mailbox", "alice", &[ALICE]),
            6 => guest(seconds, "AddedToSecureLink", link_id),
            7 => guest(seconds, "RemovedFromSecureLink", link_id),
            8 => sharepoint(
                seconds,
                "SecureLinkDeleted",
                &json!({"UniqueSharingId": link_id}),
            ),
            9 => sharepoint(
                seconds,
                "AnonymousLinkCreated",
                &json!({"UniqueSharingId": link_id}),
            ),
            10 => sharepoint(
                seconds,
                "AnonymousLinkUsed",
                &json!({"UserId": format!("urn:spo:anon#{which}")}),
            ),
            11 => sharepoint(seconds, "FileRecycled", &json!({})),
            12 => sharepoint(seconds, "FileRestored", &json!({})),
            13 => user_access(
                seconds,
                "bob@gmail.com",
                "none",
                "can_view",
                "shared_externally",
            ),
            14 => link(seconds, "private", "people_with_link"),
            15 => link(seconds, "people_with_link", "private"),
            16 => cmdlet(
                seconds,
                "Set-InboxRule",
                &path,
                &[
                    named[0],
                    ("ForwardTo", ""),
                    ("RedirectTo", "z@evil.example"),
                ],
            ),
            17 => cmdlet(seconds, "Remove-InboxRule", &path, &named),
            18 => cmdlet(
                seconds,
                "Set-Mailbox",
                "alice",
                &[ALICE, SET, ("ForwardingAddress", "")],
            ),
            _ => drive(seconds, "trash", "people_with_link", &[]),
        };
        // Several at the same second, each a record of its own.
        if record.get("Id").is_some() {
            record["Id"] = json!(format!("{kind}-{which}-{seconds}"));
        } else {
            record["id"]["uniqueQualifier"] = json!(format!("{kind}{which}"));
        }
        record
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_a_function_of_the_set_of_records(
        records in vec(any_record(), 1..40).prop_flat_map(|records| {
            let shuffled = Just(records.clone()).prop_shuffle();
            (Just(records), shuffled)
        }),
        restarts in vec(any::<bool>(), 40),
    ) {
        let (records, shuffled) = records;
        let first = folded(&records);
        let store = MemoryStore::new([1; 16]).unwrap();
        let mut second = Inventory::default();
        for (record, restart) in shuffled.iter().chain(&records).zip(restarts.iter().cycle()) {
            let changed = fold(&mut second, record);
            write(&store, changed);
            if *restart {
                second = Inventory::load(&store, &tenant()).unwrap();
            }
        }
        for room in Room::ALL {
            prop_assert_eq!(lines(&first, room), lines(&second, room));
        }
    }
}

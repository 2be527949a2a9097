//! What goes where there is too much.

use exfilwatch_state::MemoryStore;
use serde_json::{Value, json};

use super::super::things::{SLOTS_EACH, UNGRANTED_MAX};
use super::*;

#[test]
fn beyond_its_bound_what_stands_open_stays_longest_and_what_goes_is_counted() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    inventory.rooms.get_mut(&Room::Sharing).unwrap().slots_max = 4;
    let file = |seconds, operation: &str, name: &str| {
        let mut record = guest(seconds, operation, "l1");
        record["ObjectId"] = json!(format!("https://corp/{name}"));
        record
    };
    for record in [
        file(0, "AddedToSecureLink", "a"),
        file(1, "AddedToSecureLink", "b"),
        file(2, "AddedToSecureLink", "closed"),
        file(3, "RemovedFromSecureLink", "closed"),
        file(4, "FileRecycled", "unknown"),
        file(5, "AddedToSecureLink", "c"),
        file(6, "AddedToSecureLink", "d"),
    ] {
        let changed = fold(&mut inventory, &record);
        write(&store, changed);
    }
    let names = |inventory: &Inventory| -> Vec<String> {
        let lines = lines(inventory, Room::Sharing).into_iter();
        lines
            .map(|line| line.of.replace("https://corp/", ""))
            .collect()
    };
    assert_eq!(names(&inventory), ["d", "c", "b", "a"]);
    let changed = fold(&mut inventory, &file(7, "AddedToSecureLink", "e"));
    write(&store, changed);
    let again = Inventory::load(&store, &tenant()).unwrap();
    for inventory in [&inventory, &again] {
        assert_eq!(names(inventory), ["e", "d", "c", "b"]);
        assert_eq!(inventory.rooms[&Room::Sharing].evicted, 1);
    }
}

#[test]
fn a_thing_has_its_own_bound_and_what_is_over_goes_first() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    inventory
        .rooms
        .get_mut(&Room::Forwarding)
        .unwrap()
        .slots_each = 6;
    let mut step = |record: &Value| {
        let changed = fold(&mut inventory, record);
        write(&store, changed);
        let again = Inventory::load(&store, &tenant()).unwrap();
        for room in Room::ALL {
            assert_eq!(lines(&again, room), lines(&inventory, room));
        }
        let names = lines(&inventory, Room::Forwarding).into_iter();
        let names: Vec<_> = names.filter_map(|line| line.name).collect();
        let things = &inventory.rooms[&Room::Forwarding];
        let slots: usize = things.iter().map(|thing| thing.slots.len()).sum();
        (names.join(""), slots, things.evicted)
    };
    let new = |seconds, name: &str| {
        let rule = [("Name", name), ("BlindCopyTo", "x@evil.example")];
        cmdlet(seconds, "New-TransportRule", name, &rule)
    };
    let gone =
        |seconds, name: &str| cmdlet(seconds, "Remove-TransportRule", name, &[("Identity", name)]);
    step(&new(0, "a"));
    for round in 0..9 {
        let name = format!("churn{round}");
        step(&new(10 * round + 1, &name));
        let (names, slots, evicted) = step(&gone(10 * round + 2, &name));
        assert_eq!((names.as_str(), evicted), ("a", 0), "what is open stays");
        assert!(slots <= 6, "{slots}");
    }
    for (seconds, name) in [(100, "b"), (101, "c"), (102, "d"), (103, "e"), (104, "f")] {
        step(&new(seconds, name));
    }
    assert_eq!(step(&new(105, "g")), ("gfedcb".to_owned(), 6, 1));
}

#[test]
fn a_document_has_so_many_grantees_and_those_that_go_are_counted() {
    let store = MemoryStore::new([1; 16]).unwrap();
    let mut inventory = Inventory::default();
    assert_eq!(inventory.rooms[&Room::Sharing].slots_each, SLOTS_EACH);
    inventory.rooms.get_mut(&Room::Sharing).unwrap().slots_each = 100;
    for number in 0..300 {
        let mut record = guest(number, "AddedToSecureLink", &format!("l{}", number % 7));
        record["TargetUserOrGroupName"] = json!(format!("bob{number}@gmail.com"));
        let changed = fold(&mut inventory, &record);
        write(&store, changed);
    }
    let again = Inventory::load(&store, &tenant()).unwrap();
    for inventory in [&inventory, &again] {
        let lines = lines(inventory, Room::Sharing);
        let latest = lines.iter().all(|line| line.since >= at(200));
        assert_eq!((lines.len(), latest), (100, true));
        assert_eq!(inventory.rooms[&Room::Sharing].evicted, 200);
    }
}

#[test]
fn what_is_over_of_one_mailbox_drives_out_no_other_that_is_open() {
    let mut inventory = Inventory::default();
    let things = inventory.rooms.get_mut(&Room::Forwarding).unwrap();
    things.slots_max = 8;
    fold(
        &mut inventory,
        &cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET]),
    );
    let new = |seconds, name: &str| {
        let rule = [("Name", name), ("BlindCopyTo", "x@evil.example")];
        cmdlet(seconds, "New-TransportRule", name, &rule)
    };
    fold(&mut inventory, &new(1, "stays"));
    for round in 1..20 {
        let name = format!("churn{round}");
        fold(&mut inventory, &new(10 * round, &name));
        let gone = [("Identity", name.as_str())];
        fold(
            &mut inventory,
            &cmdlet(10 * round + 1, "Remove-TransportRule", &name, &gone),
        );
    }
    assert_eq!(
        shown(&inventory, Room::Forwarding),
        [
            "(organisation) transport_rule stays > external x@evil.example",
            "alice@corp.example smtp_address  > external x@gmail.com",
        ]
    );
    let things = &inventory.rooms[&Room::Forwarding];
    let slots: usize = things.iter().map(|thing| thing.slots.len()).sum();
    assert_eq!((slots, things.evicted), (8, 0));
}

#[test]
fn ends_of_what_was_never_granted_are_few() {
    let mut inventory = Inventory::default();
    let count = i64::try_from(UNGRANTED_MAX).unwrap() + 10;
    for number in 0..count {
        let mut record = sharepoint(number, "FileRecycled", &json!({}));
        record["ObjectId"] = json!(format!("https://corp/{number}"));
        fold(&mut inventory, &record);
    }
    let things = &inventory.rooms[&Room::Sharing];
    assert_eq!(things.iter().count(), UNGRANTED_MAX);
    assert_eq!(things.evicted, 0, "nothing that was open");
}

//! Which document is open to whom.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_guest_has_access_until_it_is_taken_back_or_the_link_or_file_is_gone() {
    let given = guest(0, "AddedToSecureLink", "l1");
    assert_eq!(open_to(std::slice::from_ref(&given)), ["bob@gmail.com"]);
    let detail = &lines(&folded(std::slice::from_ref(&given)), Room::Sharing)[0];
    assert_eq!(detail.name.as_deref(), Some("plan.docx"));
    assert_eq!(detail.class.as_deref(), Some("guest"));
    for end in [
        guest(5, "RemovedFromSecureLink", "l1"),
        sharepoint(5, "SecureLinkDeleted", &json!({"UniqueSharingId": "l1"})),
        sharepoint(5, "FileRecycled", &json!({})),
        sharepoint(5, "FileDeleted", &json!({})),
    ] {
        assert_eq!(open_to(&[given.clone(), end.clone()]), [""; 0], "{end}");
        assert_eq!(
            open_to(&[end.clone(), given.clone()]),
            [""; 0],
            "late: {end}"
        );
    }
    let other = sharepoint(5, "SecureLinkDeleted", &json!({"UniqueSharingId": "l2"}));
    let blocked = guest(5, "SharingInvitationBlocked", "l1");
    let earlier = guest(-5, "RemovedFromSecureLink", "l1");
    assert_eq!(
        open_to(&[given.clone(), other, blocked, earlier]),
        ["bob@gmail.com"]
    );
    let recycled = sharepoint(5, "FileRecycled", &json!({}));
    let restored = sharepoint(6, "FileRestored", &json!({}));
    assert_eq!(
        open_to(&[restored, given, recycled]),
        ["bob@gmail.com"],
        "it is back"
    );
}

#[test]
fn a_share_with_a_colleague_is_none_with_somebody_outside() {
    let members =
        json!({"TargetUserOrGroupName": "bob@corp.example", "TargetUserOrGroupType": "Member"});
    assert_eq!(
        open_to(&[sharepoint(0, "AddedToSecureLink", &members)]),
        [""; 0]
    );
    let inside = user_access(
        0,
        "bob@corp.example",
        "none",
        "can_edit",
        "shared_internally",
    );
    assert_eq!(open_to(&[inside]), [""; 0]);
}

#[test]
fn links_for_anyone_are_known_by_their_ids() {
    let link = |seconds, operation: &str, id: &str| {
        sharepoint(seconds, operation, &json!({"UniqueSharingId": id}))
    };
    let both = [
        link(0, "AnonymousLinkCreated", "l1"),
        link(1, "AnonymousLinkCreated", "l2"),
    ];
    assert_eq!(open_to(&both), ["anyone", "anyone"]);
    let [first, second] = both;
    let gone = link(2, "AnonymousLinkRemoved", "l1");
    assert_eq!(open_to(&[gone.clone(), first, second.clone()]), ["anyone"]);
    let gone_too = link(3, "AnonymousLinkRemoved", "l2");
    assert_eq!(open_to(&[gone, gone_too, second]), [""; 0]);
    let nameless = [
        sharepoint(0, "AnonymousLinkCreated", &json!({})),
        sharepoint(1, "AnonymousLinkRemoved", &json!({})),
    ];
    assert_eq!(open_to(&nameless), [""; 0]);
}

#[test]
fn the_last_access_from_outside_is_known_and_changes_nothing_else() {
    let made = sharepoint(0, "AnonymousLinkCreated", &json!({}));
    let used = |seconds| {
        sharepoint(
            seconds,
            "AnonymousLinkUsed",
            &json!({"UserId": "urn:spo:anon#7d8f", "UserType": 10}),
        )
    };
    let own = sharepoint(9_000, "FileAccessed", &json!({}));
    let inventory = folded(&[used(7_300), made.clone(), own, used(3_700)]);
    let line = &lines(&inventory, Room::Sharing)[0];
    assert_eq!(line.since, at(0), "a use is no change");
    assert_eq!(line.last_access, Some(at(7_200)), "by the hour");
    assert!(line.last_access_by.is_some());

    let members = json!({"UserId": "bob_gmail.com#ext#@corp.onmicrosoft.com"});
    let by_guest = sharepoint(10_900, "FileDownloaded", &members);
    let line = &lines(&folded(&[by_guest, made]), Room::Sharing)[0];
    assert_eq!(line.last_access, Some(at(10_800)));
    assert_eq!(line.last_access_by.as_deref(), Some("bob@gmail.com"));

    let opened = link(0, "private", "people_with_link");
    let view = |seconds, actor: &str| {
        let events = json!([{"type": "access", "name": "view", "parameters": [
            {"name": "doc_id", "value": "d1"}, {"name": "visibility", "value": "people_with_link"}]}]);
        google(seconds, "drive", actor, &events)
    };
    let inside = view(9_000, "carol@corp.example");
    let outside = view(3_700, "eve@evil.example");
    let line = &lines(&folded(&[inside, outside, opened]), Room::Sharing)[0];
    assert_eq!(line.last_access, Some(at(3_600)));
    assert_eq!(line.last_access_by.as_deref(), Some("eve@evil.example"));
}

#[test]
fn what_is_repeated_within_the_hour_is_not_written_again() {
    let mut inventory = Inventory::default();
    let used = |seconds| {
        sharepoint(
            seconds,
            "AnonymousLinkUsed",
            &json!({"UserId": "urn:spo:anon#7d8f", "UserType": 10}),
        )
    };
    assert!(!fold(&mut inventory, &used(1)).is_empty());
    assert!(fold(&mut inventory, &used(2)).is_empty());
    assert!(!fold(&mut inventory, &used(3_601)).is_empty());
    let given = guest(0, "AddedToSecureLink", "l1");
    assert!(!fold(&mut inventory, &given).is_empty());
    assert!(fold(&mut inventory, &given).is_empty());
}

#[test]
fn a_document_of_drive_is_closed_by_what_the_vendor_says_of_it() {
    let bob = user_access(0, "bob@gmail.com", "none", "can_view", "shared_externally");
    assert_eq!(open_to(std::slice::from_ref(&bob)), ["bob@gmail.com"]);
    let taken = user_access(5, "bob@gmail.com", "can_view", "none", "private");
    assert_eq!(open_to(&[taken, bob.clone()]), [""; 0]);
    // Somebody else's share says that nobody outside has access any more.
    let inside = user_access(
        5,
        "carol@corp.example",
        "none",
        "can_view",
        "shared_internally",
    );
    assert_eq!(open_to(&[inside, bob.clone()]), [""; 0]);
    let opened = link(1, "shared_externally", "people_with_link");
    assert_eq!(
        open_to(&[bob.clone(), opened.clone()]),
        ["anyone", "bob@gmail.com"]
    );
    let shut = link(2, "people_with_link", "shared_externally");
    assert_eq!(
        open_to(&[shut, opened.clone(), bob.clone()]),
        ["bob@gmail.com"]
    );
    let private = link(2, "people_with_link", "private");
    assert_eq!(open_to(&[private, opened.clone(), bob.clone()]), [""; 0]);
    let trash = drive(3, "trash", "people_with_link", &[]);
    assert_eq!(
        open_to(&[trash.clone(), opened.clone(), bob.clone()]),
        [""; 0]
    );
    let back = drive(4, "untrash", "people_with_link", &[]);
    assert_eq!(
        open_to(&[back, trash, opened, bob]),
        ["anyone", "bob@gmail.com"]
    );
}

#[test]
fn that_a_document_is_open_is_told_where_the_grant_was_not_seen() {
    let inside = user_access(
        0,
        "carol@corp.example",
        "none",
        "can_view",
        "shared_externally",
    );
    let lines = lines(&folded(&[inside]), Room::Sharing);
    assert_eq!(lines[0].to[0].address, "shared_externally");
    assert!(lines[0].doubt.is_some());
}

#[test]
fn of_several_links_to_a_document_each_is_open_until_it_ends() {
    let bob = "bob@gmail.com";
    let both = [
        guest(0, "AddedToSecureLink", "l1"),
        guest(1, "AddedToSecureLink", "l2"),
    ];
    let with = |end: Value| open_to(&[both[0].clone(), end, both[1].clone()]);
    assert_eq!(open_to(&both), [bob, bob]);
    assert_eq!(with(guest(2, "RemovedFromSecureLink", "l1")), [bob]);
    let deleted = sharepoint(2, "SecureLinkDeleted", &json!({"UniqueSharingId": "l2"}));
    assert_eq!(with(deleted), [bob]);

    let plain = json!({"TargetUserOrGroupName": bob, "TargetUserOrGroupType": "Guest"});
    let shared = sharepoint(1, "SharingSet", &plain);
    let ends = guest(2, "RemovedFromSecureLink", "l1");
    let of_link = [both[0].clone(), shared.clone(), ends];
    assert_eq!(open_to(&of_link), [bob], "he has it without the link too");
    let revoked = sharepoint(3, "SharingRevoked", &plain);
    assert_eq!(open_to(&[shared, revoked]), [""; 0]);
}

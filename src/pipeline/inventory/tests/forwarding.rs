//! Who forwards mail where.

use serde_json::json;

use super::*;

#[test]
fn a_mailbox_forwards_until_it_is_emptied_or_gone() {
    let set = cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET]);
    let line = "alice@corp.example smtp_address  > external x@gmail.com";
    assert_eq!(forwarding(std::slice::from_ref(&set)), [line]);
    let detail = &lines(&folded(std::slice::from_ref(&set)), Room::Forwarding)[0];
    assert_eq!(detail.by.as_deref(), Some("alice@corp.example"));
    assert_eq!((detail.since, detail.record_id.as_str()), (at(0), "m-0"));

    let emptied = cmdlet(
        9,
        "Set-Mailbox",
        "alice",
        &[ALICE, ("ForwardingSmtpAddress", "")],
    );
    assert_eq!(forwarding(&[set.clone(), emptied.clone()]), [""; 0]);
    assert_eq!(
        forwarding(&[emptied, set.clone()]),
        [""; 0],
        "the later counts"
    );
    let gone = cmdlet(9, "Remove-Mailbox", "alice", &[ALICE]);
    assert_eq!(forwarding(&[set.clone(), gone]), [""; 0]);
    let mut failed = cmdlet(
        9,
        "Set-Mailbox",
        "alice",
        &[ALICE, ("ForwardingSmtpAddress", "")],
    );
    failed["ResultStatus"] = json!("False");
    assert_eq!(
        forwarding(&[set.clone(), failed]),
        [line],
        "what failed changed nothing"
    );
    let else_ = cmdlet(
        9,
        "Set-Mailbox",
        "alice",
        &[ALICE, ("AuditEnabled", "True")],
    );
    assert_eq!(forwarding(&[set, else_]), [line]);
}

#[test]
fn a_rule_that_is_switched_off_and_on_keeps_its_destinations() {
    let two = [
        ("Name", "Buy"),
        ("ForwardTo", "x@evil.example;bob@corp.example"),
    ];
    let new = cmdlet(0, "New-InboxRule", "alice\\Buy", &two);
    let line =
        "alice@corp.example inbox_rule buy > external x@evil.example, internal bob@corp.example";
    assert_eq!(forwarding(std::slice::from_ref(&new)), [line]);
    let named = [("Identity", "alice\\Buy")];
    let off = cmdlet(1, "Disable-InboxRule", "alice\\Buy", &named);
    let on = cmdlet(2, "Enable-InboxRule", "alice\\Buy", &named);
    let gone = cmdlet(3, "Remove-InboxRule", "alice\\Buy", &named);
    assert_eq!(forwarding(&[off.clone(), new.clone()]), [""; 0]);
    assert_eq!(forwarding(&[on.clone(), new.clone(), off.clone()]), [line]);
    assert_eq!(forwarding(&[gone, new, off, on.clone()]), [""; 0]);
    assert_eq!(forwarding(&[on]), [""; 0], "it was never seen to forward");
}

#[test]
fn of_two_settings_that_are_emptied_at_once_none_is_left() {
    let object = ("ForwardingAddress", "x@evil.example");
    let none = |name| (name, "$null");
    let set = cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET, object]);
    let smtp = "alice@corp.example smtp_address  > external x@gmail.com";
    let recipient = "alice@corp.example recipient_object  > external x@evil.example";
    assert_eq!(
        forwarding(std::slice::from_ref(&set)),
        [recipient, smtp],
        "both are told"
    );
    let both = [
        ALICE,
        none("ForwardingSmtpAddress"),
        none("ForwardingAddress"),
    ];
    let both = cmdlet(1, "Set-Mailbox", "alice", &both);
    assert_eq!(forwarding(&[set.clone(), both]), [""; 0]);
    let one = [ALICE, none("ForwardingSmtpAddress"), object];
    let one = cmdlet(1, "Set-Mailbox", "alice", &one);
    assert_eq!(
        forwarding(&[set, one]),
        [recipient],
        "the other was emptied"
    );
}

#[test]
fn each_parameter_of_a_rule_has_destinations_of_its_own() {
    let name = ("Name", "Buy");
    let identity = ("Identity", "alice\\Buy");
    let cmdlet = |seconds, verb: &str, parameters: &[(&str, &str)]| {
        cmdlet(
            seconds,
            &format!("{verb}-InboxRule"),
            "alice\\Buy",
            parameters,
        )
    };
    let two = [
        name,
        ("ForwardTo", "a@evil.example"),
        ("RedirectTo", "b@evil.example"),
    ];
    let new = cmdlet(0, "New", &two);
    let line = |to: &str| format!("alice@corp.example inbox_rule buy > external {to}@evil.example");
    assert_eq!(
        forwarding(std::slice::from_ref(&new)),
        [line("a"), line("b")]
    );
    let one = cmdlet(1, "Set", &[identity, ("RedirectTo", "$null")]);
    assert_eq!(forwarding(&[new.clone(), one.clone()]), [line("a")]);
    assert_eq!(forwarding(&[one, new.clone()]), [line("a")]);
    let other = cmdlet(1, "Set", &[identity, ("RedirectTo", "c@evil.example")]);
    assert_eq!(
        forwarding(&[new.clone(), other.clone()]),
        [line("c"), line("a")]
    );

    let off = cmdlet(2, "Disable", &[identity]);
    let while_off = cmdlet(3, "Set", &[identity, ("RedirectTo", "d@evil.example")]);
    let on = cmdlet(4, "Enable", &[identity]);
    assert_eq!(forwarding(&[new.clone(), off.clone()]), [""; 0]);
    assert_eq!(
        forwarding(&[new.clone(), off.clone(), while_off.clone()]),
        [""; 0],
        "what is set of a rule that is off is off"
    );
    let all = [on, while_off, off, other, new.clone()];
    assert_eq!(forwarding(&all), [line("a"), line("d")]);
    assert_eq!(lines(&folded(&all), Room::Forwarding)[0].since, at(4));

    let gone = cmdlet(5, "Remove", &[identity]);
    let late = cmdlet(6, "Enable", &[identity]);
    assert_eq!(forwarding(&[new.clone(), gone.clone(), late]), [""; 0]);
    let anew = cmdlet(7, "New", &[name, ("RedirectTo", "e@evil.example")]);
    assert_eq!(
        forwarding(&[anew, gone.clone(), new.clone()]),
        [line("e")],
        "the old rule does not come back with its name"
    );
    let unseen = cmdlet(7, "Set", &[identity, ("RedirectTo", "f@evil.example")]);
    assert_eq!(forwarding(&[new, gone, unseen]), [line("f")]);
}

#[test]
fn outlook_replaces_what_cmdlets_have_set_of_a_rule() {
    let cmdlet = cmdlet(
        0,
        "New-InboxRule",
        "alice@corp.example\\x",
        &[("Name", "x"), ("ForwardTo", "a@evil.example")],
    );
    let sends = json!([{"ActionType": "Forward", "Recipients": ["b@evil.example"]}]);
    let moves = json!([{"ActionType": "Move", "FolderName": "Old"}]);
    let line = "alice@corp.example inbox_rule x > external b@evil.example";
    let whole = of_outlook(1, "ModifyMailboxRule", "Enabled", &sends);
    assert_eq!(forwarding(&[cmdlet.clone(), whole]), [line]);
    let whole = of_outlook(1, "ModifyMailboxRule", "Enabled", &moves);
    assert_eq!(forwarding(&[cmdlet, whole]), [""; 0]);
}

#[test]
fn a_connector_and_a_transport_rule_are_switched_off_and_on() {
    let hosts = [("Name", "Out"), ("SmartHosts", "mx.evil.example")];
    let new = cmdlet(0, "New-OutboundConnector", "Out", &hosts);
    let switch = |seconds, to| {
        let parameters = [("Identity", "Out"), ("Enabled", to)];
        cmdlet(seconds, "Set-OutboundConnector", "Out", &parameters)
    };
    let line = "(organisation) outbound_connector out > external mx.evil.example";
    assert_eq!(forwarding(&[new.clone(), switch(1, "False")]), [""; 0]);
    assert_eq!(forwarding(&[new.clone(), switch(1, "$false")]), [""; 0]);
    assert_eq!(
        forwarding(&[switch(2, "True"), new.clone(), switch(1, "False")]),
        [line]
    );
    assert_eq!(
        forwarding(&[switch(1, "True")]),
        [""; 0],
        "where to was not seen"
    );

    let made_off = [hosts[0], hosts[1], ("Enabled", "False")];
    let made_off = cmdlet(0, "New-OutboundConnector", "Out", &made_off);
    assert_eq!(forwarding(std::slice::from_ref(&made_off)), [""; 0]);
    assert_eq!(forwarding(&[made_off, switch(1, "True")]), [line]);

    let rule = [("Name", "Copy"), ("BlindCopyTo", "x@evil.example")];
    let rule = cmdlet(0, "New-TransportRule", "Copy", &rule);
    let named = [("Identity", "Copy")];
    let off = cmdlet(1, "Disable-TransportRule", "Copy", &named);
    let on = cmdlet(2, "Enable-TransportRule", "Copy", &named);
    let line = "(organisation) transport_rule copy > external x@evil.example";
    assert_eq!(forwarding(&[rule.clone(), off.clone()]), [""; 0]);
    assert_eq!(forwarding(&[rule, off, on]), [line]);
}

#[test]
fn a_rule_that_outlook_on_the_web_removes_by_its_number_is_doubted() {
    let rule = [("Name", "Buy"), ("ForwardTo", "x@evil.example")];
    let new = cmdlet(0, "New-InboxRule", "alice\\Buy", &rule);
    let number = "alice\\16402948302948302";
    let gone = cmdlet(60, "Remove-InboxRule", number, &[("Identity", number)]);
    let lines = lines(&folded(&[gone, new]), Room::Forwarding);
    assert_eq!(lines.len(), 1);
    let doubt = lines[0].doubt.as_deref().unwrap_or_default();
    assert!(doubt.contains("removed 2026-05-04T08:01Z"), "{doubt}");
}

#[test]
fn outlook_writes_the_whole_rule_each_time() {
    let sends = json!([{"ActionType": "Forward", "Recipients": ["x@evil.example"]}]);
    let moves = json!([{"ActionType": "Move", "FolderName": "Old"}]);
    let new = of_outlook(0, "AddMailboxRule", "Enabled", &sends);
    let line = "alice@corp.example inbox_rule x > external x@evil.example";
    assert_eq!(forwarding(std::slice::from_ref(&new)), [line]);
    for end in [
        of_outlook(5, "ModifyMailboxRule", "Enabled", &moves),
        of_outlook(5, "ModifyMailboxRule", "Disabled", &sends),
        of_outlook(5, "RemoveMailboxRule", "Enabled", &json!([])),
    ] {
        assert_eq!(forwarding(&[end.clone(), new.clone()]), [""; 0], "{end}");
    }
    assert_eq!(
        forwarding(&[of_outlook(0, "AddMailboxRule", "Enabled", &moves)]),
        [""; 0]
    );
}

#[test]
fn rules_of_the_organisation_stand_under_their_names() {
    let rule = [("Name", "Copy"), ("BlindCopyTo", "x@evil.example")];
    let new = cmdlet(0, "New-TransportRule", "Copy", &rule);
    let off = [
        ("Name", "Copy"),
        ("BlindCopyTo", "x@evil.example"),
        ("Enabled", "False"),
    ];
    assert_eq!(
        forwarding(&[cmdlet(0, "New-TransportRule", "Copy", &off)]),
        [""; 0]
    );
    let gone = cmdlet(1, "Remove-TransportRule", "Copy", &[("Identity", "Copy")]);
    let hosts = [("Name", "Out"), ("SmartHosts", "mx.evil.example")];
    let connector = cmdlet(2, "New-OutboundConnector", "Out", &hosts);
    let no_more = cmdlet(3, "Remove-OutboundConnector", "Out", &[("Identity", "Out")]);
    let copy = "(organisation) transport_rule copy > external x@evil.example";
    let out = "(organisation) outbound_connector out > external mx.evil.example";
    assert_eq!(forwarding(&[new.clone(), connector.clone()]), [out, copy]);
    assert_eq!(forwarding(&[gone, new, connector.clone()]), [out]);
    assert_eq!(forwarding(&[no_more, connector]), [""; 0]);
}

#[test]
fn gmail_forwards_by_accounts_and_by_monitors() {
    let out = json!([{"type": "email_forwarding_change", "name": "email_forwarding_out_of_domain",
        "parameters": [{"name": "email_forwarding_destination_address", "value": "x@outlook.com"}]}]);
    let forward = google(0, "user_accounts", "boss@corp.example", &out);
    let monitor = |seconds, name: &str| {
        let events = json!([{"type": "USER_SETTINGS", "name": name, "parameters": [
            {"name": "USER_EMAIL", "value": "Boss@corp.example"},
            {"name": "EMAIL_MONITOR_DEST_EMAIL", "value": "watch@corp.example"}]}]);
        google(seconds, "admin", "admin@corp.example", &events)
    };
    let records = [forward.clone(), monitor(1, "CREATE_EMAIL_MONITOR")];
    let account = "boss@corp.example account_setting  > external x@outlook.com";
    let copy = "boss@corp.example email_monitor watch@corp.example > internal watch@corp.example";
    assert_eq!(forwarding(&records), [account, copy]);
    let doubts = lines(&folded(&records), Room::Forwarding).into_iter();
    let doubts: Vec<bool> = doubts.map(|line| line.doubt.is_some()).collect();
    assert_eq!(doubts, [true, false], "its end stands in no record");
    let ended = [
        monitor(2, "DELETE_EMAIL_MONITOR"),
        monitor(1, "CREATE_EMAIL_MONITOR"),
        forward.clone(),
    ];
    assert_eq!(forwarding(&ended), [account]);
    let events = json!([{"type": "USER_SETTINGS", "name": "DELETE_USER",
        "parameters": [{"name": "USER_EMAIL", "value": "boss@corp.example"}]}]);
    let deleted = google(3, "admin", "admin@corp.example", &events);
    assert_eq!(forwarding(&[deleted, forward]), [""; 0]);
}

#[test]
fn what_is_asked_for_is_a_part_and_the_most_exposed_comes_first() {
    let inventory = folded(&[
        cmdlet(0, "Set-Mailbox", "alice", &[ALICE, SET]),
        cmdlet(
            9,
            "New-InboxRule",
            "alice\\In",
            &[("Name", "In"), ("ForwardTo", "bob@corp.example")],
        ),
    ]);
    let asked = |actor: Option<&str>, limit| {
        let asked = Asked {
            room: Room::Forwarding,
            tenant: None,
            actor: actor.map(str::to_owned),
            limit,
        };
        list_of(&tenant(), &inventory, &asked)
    };
    let all = asked(None, 1);
    assert_eq!(
        (all.lines[0].via.as_str(), all.left_out),
        ("smtp_address", 1)
    );
    assert_eq!(asked(Some("X@Gmail.com"), 9).lines.len(), 1);
    assert_eq!(asked(Some("alice@corp.example"), 9).lines.len(), 2);
    assert_eq!(asked(Some("dave@corp.example"), 9).lines.len(), 0);
}

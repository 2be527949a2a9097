//! Who forwards mail where: mailbox settings, inbox rules, transport and journal rules, connectors, and the
//! settings of Gmail.

use std::collections::{BTreeSet, HashMap};

use exfilwatch_model::{Event, field};

use super::Room;
use super::slot::{Destination, Said, Slot, SlotId, Version, WHOLE, facts, failed, text, texts};
use super::things::Thing;

/// Whose a rule is that is nobody's own: a transport rule.
pub(super) const ORGANISATION: &str = "(organisation)";
pub(super) const INBOX_RULE: &str = "inbox_rule";
/// What a user of Gmail sets.
const OF_GMAIL: &str = "account_setting";
/// By what Outlook on the desktop writes a rule, all of it each time: without an action that forwards it no
/// longer does.
const WHOLE_RULE: &str = "updateinboxrules";
/// The one parameter of a rule that was written so.
const OF_OUTLOOK: &str = "RuleActions";
/// Members of a group are no setting of somebody's mail.
const NOT_SETTINGS: &[&str] = &["group_member"];
/// What ends a mailbox, and with it all that it forwards.
const ENDS: &[&str] = &["remove-mailbox", "disable-mailbox", "delete_user"];

const NOUNS: &[&str] = &[
    "mailbox",
    "mailpublicfolder",
    "inboxrule",
    "transportrule",
    "journalrule",
    "outboundconnector",
    "transportconfig",
];

/// Whether a cmdlet of Exchange (or what Outlook writes instead) may say something; `may_forward` says
/// whether an event of the record may have a path of forwarding.
pub(super) fn is_of_exchange(name: &str, may_forward: impl FnOnce() -> bool) -> bool {
    match name.split_once('-') {
        Some((_, noun)) => NOUNS.iter().any(|n| n.eq_ignore_ascii_case(noun)) && may_forward(),
        None => name.eq_ignore_ascii_case(WHOLE_RULE),
    }
}

pub(super) fn is_of_google(name: &str) -> bool {
    name == "email_forwarding_out_of_domain"
        || name == "DELETE_USER"
        || name.ends_with("_EMAIL_MONITOR")
}

/// What an event says: of a rule as one, of the settings that are emptied, of where mail is sent.
pub(super) fn said(event: &Event) -> Vec<Said> {
    let operation = text(event, field::OPERATION).unwrap_or_default();
    let operation = operation.to_ascii_lowercase();
    if failed(event) {
        return Vec::new();
    }
    if ENDS.contains(&&*operation) {
        return ended(event).into_iter().collect();
    }
    let is_whole_rule = operation == WHOLE_RULE;
    let told = text(event, field::FORWARD_PATH).or_else(|| text(event, field::FORWARD_VIA));
    let forwards = told.is_some();
    let path = told.or_else(|| is_whole_rule.then(|| INBOX_RULE.to_owned()));
    let Some(path) = path.filter(|path| !NOT_SETTINGS.contains(&via_of(path))) else {
        return Vec::new();
    };
    let emptied = texts(event, field::FORWARD_EMPTIED);
    let rule = is_rule(via_of(&path)).then(|| rule(event, via_of(&path), &operation));
    let removes = event.is(field::IS_REMOVAL);
    let sends = match &rule {
        _ if event.get(field::FORWARD_TO).is_some() => true,
        Some(_) => is_whole_rule && forwards && !removes,
        None => emptied.is_empty(),
    };
    let setting = sends.then(|| {
        let slot = slot_of(event, &path);
        let slot = if is_whole_rule {
            slot.with(OF_OUTLOOK)
        } else {
            slot
        };
        let off = removes || path == "email_monitor" && operation.starts_with("delete");
        of(event, slot, !off, destinations(event, off))
    });
    let emptied = emptied
        .iter()
        .map(|path| of(event, slot_of(event, path), false, None));
    let rule = rule.flatten().into_iter();
    rule.chain(emptied).chain(setting).collect()
}

/// What all destinations of a record say is one setting.
fn of(event: &Event, slot: SlotId, on: bool, to: Option<BTreeSet<Destination>>) -> Said {
    Said {
        room: Room::Forwarding,
        slot,
        version: Version::of(event, 0),
        on,
        to,
        facts: facts(event, &[field::ACTOR, field::OPERATION]),
    }
}

/// Of a rule or connector as one: whether it is in force. It sends nothing itself, each parameter does; but
/// where it has destinations, though none, nothing that was set before holds any more.
fn rule(event: &Event, via: &str, operation: &str) -> Option<Said> {
    let enabled = is_enabled(event);
    let (on, is_anew) = match operation
        .split_once('-')
        .map_or(operation, |(verb, _)| verb)
    {
        "remove" => (false, true),
        "disable" => (false, false),
        "enable" => (true, false),
        "new" => (enabled.unwrap_or(true), true),
        // Outlook writes the whole rule each time.
        WHOLE_RULE => (
            enabled.unwrap_or(true) && !event.is(field::IS_REMOVAL),
            true,
        ),
        _ => (enabled?, false),
    };
    Some(of(
        event,
        slot_of(event, via),
        on,
        is_anew.then(BTreeSet::new),
    ))
}

fn ended(event: &Event) -> Option<Said> {
    let mailbox = text(event, field::MAILBOX).or_else(|| text(event, field::TARGET))?;
    Some(Said {
        room: Room::Forwarding,
        slot: SlotId::new(&mailbox, WHOLE, ""),
        version: Version::of(event, 0),
        on: false,
        to: None,
        facts: facts(event, &[field::ACTOR, field::OPERATION]),
    })
}

/// Whether it is said to be in force.
fn is_enabled(event: &Event) -> Option<bool> {
    let says = |name: &str, what: &str| {
        let value = event.text(name)?.to_ascii_lowercase();
        Some(value.trim_start_matches('$').starts_with(what))
    };
    let enabled = says("Parameters.Enabled", "true");
    enabled.or_else(|| says("OperationProperties.RuleState", "disabled").map(|off| !off))
}

/// Whether it is made of several settings under one name, and switched as one.
fn is_rule(via: &str) -> bool {
    via.ends_with("_rule") || via == "outbound_connector"
}

fn via_of(path: &str) -> &str {
    path.split_once('.').map_or(path, |(via, _)| via)
}

fn slot_of(event: &Event, path: &str) -> SlotId {
    let (via, parameter) = path.split_once('.').unwrap_or((path, ""));
    let mut mailbox = text(event, field::MAILBOX);
    if mailbox.is_none() && via == INBOX_RULE {
        mailbox = text(event, field::ACTOR);
    }
    let name = if via == "email_monitor" {
        // Several may be, and each is known by where it sends.
        text(event, field::FORWARD_TO)
    } else if is_rule(via) || mailbox.is_none() {
        let names = [
            field::RULE_NAME,
            "Parameters.Identity",
            "Parameters.Name",
            "ObjectId",
        ];
        names.iter().find_map(|name| text(event, name))
    } else {
        None
    };
    let mailbox = mailbox.unwrap_or_else(|| ORGANISATION.to_owned());
    let slot = SlotId::new(&mailbox, via, name.unwrap_or_default().to_lowercase());
    // What is no rule has one parameter.
    if is_rule(via) {
        slot.with(parameter)
    } else {
        slot
    }
}

fn destinations(event: &Event, off: bool) -> Option<BTreeSet<Destination>> {
    match text(event, field::FORWARD_TO) {
        Some(address) => {
            let direction = text(event, field::FORWARD_DIRECTION);
            Some(BTreeSet::from([Destination {
                direction: direction.unwrap_or_else(|| "unknown".to_owned()),
                address,
            }]))
        }
        // Without a word on where to: what was set is still known.
        None => (!off).then(BTreeSet::new),
    }
}

/// Whether a slot is a rule as one, which sends nothing by itself.
pub(super) fn is_of_rule(slot: &Slot) -> bool {
    is_rule(&slot.id.via) && slot.id.parameter.is_empty()
}

/// What forwards now.
pub(super) fn open(thing: &Thing) -> impl Iterator<Item = &Slot> {
    let is_open = opens(thing);
    thing.slots.values().filter(move |slot| is_open(slot))
}

/// Tells which slots forward. A rule that was switched on, and never seen to forward, does not.
pub(super) fn opens(thing: &Thing) -> impl Fn(&Slot) -> bool {
    let ended = thing.slot(WHOLE, "");
    let rules = thing.slots.values().filter(|slot| is_of_rule(slot));
    let rules: HashMap<_, _> = rules.map(|rule| (name_of(rule), rule)).collect();
    move |slot| {
        let sends = slot.id.via != WHOLE && !is_of_rule(slot);
        let rule = rules.get(&name_of(slot));
        sends
            && slot.on
            && slot.set.is_some()
            && !ended.is_some_and(|end| end.switched.is_behind(&slot.switched))
            && !rule.is_some_and(|rule| is_over(rule, slot))
    }
}

fn name_of(slot: &Slot) -> (&str, &str) {
    (&slot.id.via, &slot.id.name)
}

/// Whether a rule no longer does what a parameter of it says. What is set of a rule that was removed is of
/// another of this name, of which the beginning was not seen; what is set of one that is off is off.
fn is_over(rule: &Slot, setting: &Slot) -> bool {
    let begun = rule.set.as_ref();
    if begun.is_some_and(|begun| begun.is_behind(&setting.switched)) {
        return true;
    }
    let operation = rule.facts.get(field::OPERATION);
    let removed = operation.is_some_and(|name| name.to_ascii_lowercase().starts_with("remove"));
    let is_of_another = removed && setting.switched.is_behind(&rule.switched);
    !rule.on && !is_of_another
}

/// By which record a setting came into force: by its own, or by that which switched its rule on.
pub(super) fn last<'a>(thing: &'a Thing, slot: &'a Slot) -> &'a Slot {
    let rule = thing.slot(&slot.id.via, &slot.id.name);
    let later = rule.filter(|rule| rule.on && rule.switched.is_behind(&slot.switched));
    later.unwrap_or(slot)
}

/// Why it may be over all the same: Google writes no record when a user's own forwarding ends, and of an
/// inbox rule that Outlook on the web removes the record gives a number and not the name.
pub(super) fn doubt(thing: &Thing, slot: &Slot) -> Option<String> {
    match slot.id.via.as_str() {
        OF_GMAIL => {
            Some("Google does not log its end, look in the user's Gmail settings".to_owned())
        }
        INBOX_RULE => removed_by_number(thing, slot),
        _ => None,
    }
}

fn removed_by_number(thing: &Thing, slot: &Slot) -> Option<String> {
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let since = &last(thing, slot).switched;
    let removed = thing.slots.values().filter(|other| {
        other.id.via == INBOX_RULE
            && is_of_rule(other)
            && !other.on
            && is_number(&other.id.name)
            && other.switched.is_behind(since)
    });
    let last = removed.map(|other| other.switched.time).max()?;
    let at = last.format("%Y-%m-%dT%H:%MZ");
    Some(format!(
        "a rule of this mailbox was removed {at}, the record gives only its number"
    ))
}

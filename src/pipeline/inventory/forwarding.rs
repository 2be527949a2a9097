//! Who forwards mail where: mailbox settings, inbox rules, transport and journal rules, connectors, and the
//! settings of Gmail.

use std::collections::BTreeSet;

use exfilwatch_connectors::RecordReader;
use exfilwatch_model::{Claim, Event, RawRecord, field};

use super::Room;
use super::slot::{Destination, Said, Slot, SlotId, Version, WHOLE, facts, failed, text};
use super::things::Thing;

/// Whose a rule is that is nobody's own: a transport rule.
pub(super) const ORGANISATION: &str = "(organisation)";
pub(super) const INBOX_RULE: &str = "inbox_rule";
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

/// Whether a cmdlet of Exchange (or what Outlook writes instead) may say something.
pub(super) fn is_of_exchange(reader: &dyn RecordReader, record: &RawRecord, name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    match lower.split_once('-') {
        Some((_, noun)) => {
            NOUNS.contains(&noun) && reader.may_meet(record, name, Claim::Has(field::FORWARD_VIA))
        }
        None => lower == "updateinboxrules",
    }
}

pub(super) fn is_of_google(name: &str) -> bool {
    name == "email_forwarding_out_of_domain"
        || name == "DELETE_USER"
        || name.ends_with("_EMAIL_MONITOR")
}

/// What an event says of a forwarding.
pub(super) fn said(event: &Event) -> Vec<Said> {
    let operation = text(event, field::OPERATION).unwrap_or_default();
    let operation = operation.to_ascii_lowercase();
    if failed(event) {
        return Vec::new();
    }
    if ENDS.contains(&&*operation) {
        return ended(event).into_iter().collect();
    }
    // Outlook writes the whole rule: without an action that forwards it no longer does.
    let is_whole_rule = operation == "updateinboxrules";
    let via = text(event, field::FORWARD_VIA).filter(|via| !NOT_SETTINGS.contains(&&**via));
    let forwards = via.is_some();
    let Some(via) = via.or_else(|| is_whole_rule.then(|| INBOX_RULE.to_owned())) else {
        return Vec::new();
    };
    let off = event.is(field::IS_REMOVAL)
        || !forwards
        || is_switched_off(event)
        || via == "email_monitor" && operation.starts_with("delete");
    let slot = slot_of(event, &via);
    vec![Said {
        room: Room::Forwarding,
        slot,
        // All destinations of a record are one setting.
        version: Version::of(event, 0),
        on: !off,
        to: destinations(event, &operation, off),
        facts: facts(event, &[field::ACTOR, field::OPERATION]),
    }]
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

/// Made, and not in force.
fn is_switched_off(event: &Event) -> bool {
    let says = |name: &str, what: &str| {
        let value = event.text(name);
        value.is_some_and(|value| value.to_ascii_lowercase().starts_with(what))
    };
    says("Parameters.Enabled", "false") || says("OperationProperties.RuleState", "disabled")
}

fn slot_of(event: &Event, via: &str) -> SlotId {
    let mut mailbox = text(event, field::MAILBOX);
    if mailbox.is_none() && via == INBOX_RULE {
        mailbox = text(event, field::ACTOR);
    }
    let name = if via == "email_monitor" {
        // Several may be, and each is known by where it sends.
        text(event, field::FORWARD_TO)
    } else if via.ends_with("_rule") || mailbox.is_none() {
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
    SlotId::new(&mailbox, via, name.unwrap_or_default().to_lowercase())
}

fn destinations(event: &Event, operation: &str, off: bool) -> Option<BTreeSet<Destination>> {
    let keeps = operation.starts_with("enable-") || operation.starts_with("disable-");
    match text(event, field::FORWARD_TO) {
        Some(address) => {
            let direction = text(event, field::FORWARD_DIRECTION);
            Some(BTreeSet::from([Destination {
                direction: direction.unwrap_or_else(|| "unknown".to_owned()),
                address,
            }]))
        }
        // Without a word on where to: what was set is still known.
        None if off || keeps => None,
        None => Some(BTreeSet::new()),
    }
}

/// What forwards now. A rule that was switched on, and never seen to forward, is none.
pub(super) fn open(thing: &Thing) -> impl Iterator<Item = &Slot> {
    let ended = thing.slot(WHOLE, "");
    thing.slots.values().filter(move |slot| {
        let over = ended.is_some_and(|end| end.switched.is_behind(&slot.switched));
        slot.id.via != WHOLE && slot.on && slot.set.is_some() && !over
    })
}

/// Why it may be over all the same: of an inbox rule that Outlook on the web removes the record gives a
/// number and not the name.
pub(super) fn doubt(thing: &Thing, slot: &Slot) -> Option<String> {
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let removed = thing.slots.values().filter(|other| {
        other.id.via == INBOX_RULE
            && !other.on
            && is_number(&other.id.name)
            && other.switched.is_behind(&slot.switched)
    });
    let last = removed.map(|other| other.switched.time).max()?;
    (slot.id.via == INBOX_RULE).then(|| {
        let at = last.format("%Y-%m-%dT%H:%MZ");
        format!("a rule of this mailbox was removed {at}, the record gives only its number")
    })
}

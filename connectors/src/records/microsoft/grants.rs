//! Exchange cmdlets that give somebody access to a mailbox, name an address outside as a recipient
//! of the organisation, or say whose mail a rule acts on.

use exfilwatch_model::{Event, field};

use super::super::address::{self, Entry};
use super::super::outside::set_party;
use super::Body;
use super::exchange::is_others;
use super::parameters::Parameters;

/// Noun of the cmdlet, parameter that names who gets the access, and the access where the cmdlet
/// does not say it in `AccessRights`.
const GRANTS: &[(&str, &str, Option<&str>)] = &[
    ("mailboxpermission", "User", None),
    ("recipientpermission", "Trustee", None),
    ("mailboxfolderpermission", "User", None),
    ("mailbox", "GrantSendOnBehalfTo", Some("SendOnBehalf")),
];

/// Recipients of the organisation that stand for an address elsewhere.
const CONTACTS: &[&str] = &["mailcontact", "mailuser"];

/// Conditions of a rule that can hold an address, the sender first.
const CONDITIONS: &[&str] = &[
    "From",
    "FromAddressContainsWords",
    "FromAddressMatchesPatterns",
    "SentTo",
    "HeaderContainsWords",
    "BodyContainsWords",
    "SubjectOrBodyContainsWords",
    "SubjectContainsWords",
];

/// The parameter that a cmdlet which may give a role must have to give one.
pub(super) fn named_by(noun: &str) -> Option<&'static str> {
    let mut grants = GRANTS.iter();
    let (_, who, role) = grants.find(|(known, ..)| known.eq_ignore_ascii_case(noun))?;
    Some(if role.is_some() { who } else { "AccessRights" })
}

/// Sets `target` and `role` of a grant, `target` and `object_name` of a contact, `rule_sender` of a
/// rule.
pub(super) fn fill(event: &mut Event, noun: &str, record: &Body<'_>, parameters: &Parameters) {
    let is = |known: &str| known.eq_ignore_ascii_case(noun);
    if let Some((_, who, role)) = GRANTS.iter().find(|(known, ..)| is(known)) {
        if let Some(entry) = parameters.get(who).and_then(first) {
            set_target(event, record, &entry);
            let own = event
                .text(field::ACTOR)
                .and_then(|actor| is_others(&actor, &[entry.name()]))
                .map(|others| !others);
            event.set_some(field::TARGET_IS_ACTOR, own);
            let role = role.or_else(|| parameters.get("AccessRights"));
            event.set_some(field::ROLE, role.map(str::to_owned));
        }
    } else if CONTACTS.iter().any(|known| is(known)) {
        if let Some(entry) = parameters.get("ExternalEmailAddress").and_then(first) {
            set_target(event, record, &entry);
        }
        let object = record.text("ObjectId");
        let name = ["Name", "Identity"]
            .iter()
            .find_map(|name| parameters.get(name))
            .or(object.as_deref());
        let name = name.and_then(address::entry).map(|entry| entry.name());
        event.set_some(field::OBJECT_NAME, name);
    } else if is("inboxrule") || is("transportrule") {
        event.set_some(field::RULE_SENDER, rule_sender(parameters));
    }
}

fn set_target(event: &mut Event, record: &Body<'_>, entry: &Entry) {
    let party = record.domains.party(&entry.name());
    event.set(field::TARGET, party.address.as_str());
    if party.domain.is_some() {
        set_party(event, &party);
    }
}

/// The first entry of a list.
fn first(text: &str) -> Option<Entry> {
    address::entries(text).into_iter().next()
}

/// The first address in a rule's conditions.
fn rule_sender(parameters: &Parameters) -> Option<String> {
    CONDITIONS
        .iter()
        .flat_map(|name| parameters.all(name))
        .flat_map(address::entries)
        .find(|entry| matches!(entry, Entry::Smtp(_)))
        .map(|entry| entry.name())
}

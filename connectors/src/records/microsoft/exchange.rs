//! Exchange: every path by which mail is made to leave a mailbox and that names its destination.
//!
//! Cmdlets (RecordType 1) carry the destination in a parameter: see [`PATHS`]. Rules made by
//! Outlook on the desktop come as `UpdateInboxRules` (mailbox audit), see [`super::inbox_rules`].
//! One event is made per destination; an empty value takes the forwarding away.

use std::borrow::Cow;

use exfilwatch_model::{Event, Look, Party, PartyClass, Value, domains, field};

use super::super::address::{self, Entry};
use super::super::outside::set_party;
use super::parameters::{Parameters, truth};
use super::{Body, grants, inbox_rules};

/// Noun of the cmdlet, parameter, name of the path (`forward_via`). When both addresses of a
/// mailbox are set, Exchange follows ForwardingAddress; both are told all the same.
const PATHS: &[(&str, &str, &str)] = &[
    ("Mailbox", "ForwardingSmtpAddress", "smtp_address"),
    ("Mailbox", "ForwardingAddress", "recipient_object"),
    ("MailPublicFolder", "ForwardingAddress", "recipient_object"),
    ("InboxRule", "ForwardTo", "inbox_rule"),
    ("InboxRule", "ForwardAsAttachmentTo", "inbox_rule"),
    ("InboxRule", "RedirectTo", "inbox_rule"),
    ("TransportRule", "BlindCopyTo", "transport_rule"),
    ("TransportRule", "CopyTo", "transport_rule"),
    ("TransportRule", "RedirectMessageTo", "transport_rule"),
    ("TransportRule", "AddToRecipients", "transport_rule"),
    ("JournalRule", "JournalEmailAddress", "journal_rule"),
    (
        "TransportConfig",
        "JournalingReportNdrTo",
        "transport_config",
    ),
    ("OutboundConnector", "SmartHosts", "outbound_connector"),
    ("UnifiedGroupLinks", "Links", "group_member"),
    ("DistributionGroupMember", "Member", "group_member"),
];

/// Verbs whose forwarding is in a parameter alone; others (`Enable-`, `Remove-`) say more.
const SETTING_VERBS: &[&str] = &["Set", "New", "Add"];

/// Fields that a cmdlet has by a parameter for forwarding only (or, of the last two, by one that names
/// who gets a role).
const FORWARDING_FIELDS: [&str; 9] = [
    field::IS_REMOVAL,
    field::FORWARD_TO,
    field::FORWARD_VIA,
    field::FORWARD_PATH,
    field::FORWARD_EMPTIED,
    field::FORWARD_DIRECTION,
    field::FORWARD_WITHOUT_COPY,
    field::EXTERNAL_DOMAIN,
    field::EXTERNAL_IS_LOOKALIKE,
];

/// Folders in which nobody looks, lower case.
const HIDING_FOLDERS: &[&str] = &[
    "archive",
    "conversation history",
    "deleted items",
    "junk",
    "junk email",
    "junk e-mail",
    "rss",
    "rss feeds",
    "rss subscriptions",
];

/// The one that is switched by a parameter of its `Set-` cmdlet, and by no cmdlet of its own.
const CONNECTOR: &str = "OutboundConnector";
const SWITCH: &str = "Enabled";

/// Fields that are read from events here.
pub(super) const READS: &[&str] = &["ObjectId"];

/// Where mail goes, and how.
pub(super) struct Destination {
    pub(super) entry: Entry,
    pub(super) via: &'static str,
    /// The parameter that says so; of Outlook's rules there is none.
    pub(super) parameter: Option<&'static str>,
    pub(super) without_copy: Option<bool>,
}

/// What stands in the text of a record of which an event has one of our fields: a cmdlet that can set
/// forwarding has the fields of forwarding only where one of its parameters is named, and a role only
/// where it names who gets it. A quarter of a real log are such cmdlets, of the service itself.
pub(super) fn look(operation: &str, name: &str) -> Look {
    let Some((verb, noun)) = operation.split_once('-') else {
        return Look::Open;
    };
    let grant = grants::named_by(noun);
    if name == field::ROLE
        && let Some(role) = grant
    {
        return Look::word(role);
    }
    let sets = SETTING_VERBS.iter().any(|v| v.eq_ignore_ascii_case(verb));
    let of_noun = |known: &&(&str, &'static str, &str)| known.0.eq_ignore_ascii_case(noun);
    let paths = PATHS.iter().filter(of_noun);
    let parameters: Vec<&str> = paths.map(|(_, parameter, _)| *parameter).collect();
    if !sets || !FORWARDING_FIELDS.contains(&name) || parameters.is_empty() {
        return Look::Open;
    }
    let is_switch = name == field::FORWARD_PATH && noun.eq_ignore_ascii_case(CONNECTOR);
    let switch = is_switch.then_some(SWITCH);
    Look::words(parameters.into_iter().chain(grant).chain(switch))
}

/// One event per destination, or the event alone.
pub(super) fn events(mut event: Event, record: &Body<'_>) -> Vec<Event> {
    let parameters = Parameters::of(record.raw("Parameters"));
    set_mailbox(&mut event, record, &parameters);
    let (destinations, via) = match record.operation.split_once('-') {
        Some((verb, noun)) => {
            grants::fill(&mut event, noun, record, &parameters);
            cmdlet(&mut event, verb, noun, &parameters)
        }
        None if record.operation.eq_ignore_ascii_case("UpdateInboxRules") => {
            inbox_rules::destinations(&mut event, record)
        }
        None => (Vec::new(), None),
    };
    event.set_some(field::FORWARD_VIA, via);
    event.set_some(field::FORWARD_PATH, via);
    if destinations.is_empty() {
        if via.is_some() && !event.is(field::IS_REMOVAL) {
            event.set(field::FORWARD_DIRECTION, "unknown");
        }
        return vec![event];
    }
    destinations
        .iter()
        .map(|destination| forwarding(event.clone(), record, destination))
        .collect()
}

/// Destinations of a cmdlet, and the path it belongs to when it touches one.
fn cmdlet(
    event: &mut Event,
    verb: &str,
    noun: &str,
    parameters: &Parameters,
) -> (Vec<Destination>, Option<&'static str>) {
    let paths = || {
        PATHS
            .iter()
            .filter(|(known, ..)| known.eq_ignore_ascii_case(noun))
    };
    let Some((_, _, first_via)) = paths().next() else {
        return (Vec::new(), None);
    };
    let is_rule = first_via.ends_with("_rule");
    if is_rule {
        set_rule(event, noun, parameters);
    }
    let verb = verb.to_ascii_lowercase();
    if matches!(verb.as_str(), "remove" | "disable") {
        event.set(field::IS_REMOVAL, true);
        return (Vec::new(), Some(first_via));
    }
    let without_copy = parameters
        .get("DeliverToMailboxAndForward")
        .and_then(truth)
        .map(|keep| !keep);
    let mut destinations = Vec::new();
    let mut emptied = None;
    for (_, parameter, via) in paths() {
        for value in parameters.all(parameter) {
            let entries = address::entries(value);
            if entries.is_empty() {
                emptied = Some(*via);
                event.add(field::FORWARD_EMPTIED, path(via, Some(parameter)));
            }
            destinations.extend(entries.into_iter().map(|entry| Destination {
                entry,
                via,
                parameter: Some(parameter),
                without_copy: match *via {
                    "smtp_address" | "recipient_object" => without_copy,
                    _ if *parameter == "RedirectMessageTo" => Some(true),
                    _ => None,
                },
            }));
        }
    }
    if !destinations.is_empty() {
        event.set(field::IS_REMOVAL, false);
        return (destinations, None);
    }
    if emptied.is_some() {
        event.set(field::IS_REMOVAL, true);
        return (destinations, emptied);
    }
    if noun.eq_ignore_ascii_case(CONNECTOR) && parameters.get(SWITCH).is_some() {
        event.set(field::FORWARD_PATH, *first_via);
    }
    // Switching a rule on names the rule and not where it sends.
    let enabled = verb == "enable" && is_rule;
    (destinations, enabled.then_some(*first_via))
}

fn path(via: &str, parameter: Option<&str>) -> String {
    match parameter {
        Some(parameter) => format!("{via}.{parameter}"),
        None => via.to_owned(),
    }
}

/// The event of one destination.
fn forwarding(mut event: Event, record: &Body<'_>, destination: &Destination) -> Event {
    let party = party(record, destination);
    let direction = match (&destination.entry, party.class) {
        (_, class) if class.is_external() => "external",
        (Entry::Legacy(_), _) | (_, PartyClass::Internal) => "internal",
        _ => "unknown",
    };
    event.set(field::FORWARD_TO, party.address.as_str());
    event.set(field::TARGET, party.address.as_str());
    event.set(field::FORWARD_VIA, destination.via);
    let path = path(destination.via, destination.parameter);
    event.set(field::FORWARD_PATH, path);
    event.set(field::FORWARD_DIRECTION, direction);
    event.set_some(field::FORWARD_WITHOUT_COPY, destination.without_copy);
    set_party(&mut event, &party);
    event
}

/// Who a destination is. A smart host is a host name, and belongs to whoever owns its domain.
fn party(record: &Body<'_>, destination: &Destination) -> Party {
    let name = destination.entry.name();
    if destination.via == "outbound_connector" && name.contains('.') {
        let host = name.trim_matches(['[', ']']);
        let party = record.domains.party(&format!("host@{host}"));
        return Party {
            address: host.to_owned(),
            ..party
        };
    }
    record.domains.party(&name)
}

/// Name of the rule, and whether it hides mail.
fn set_rule(event: &mut Event, noun: &str, parameters: &Parameters) {
    let identity = parameters
        .get("Identity")
        .map(|identity| identity.rsplit('\\').next().unwrap_or(identity).to_owned());
    let object = event
        .text("ObjectId")
        .and_then(|object| object.rsplit_once('\\').map(|(_, rule)| rule.to_owned()));
    let name = parameters
        .get("Name")
        .map(str::to_owned)
        .or(object)
        .or(identity);
    event.set_some(field::RULE_NAME, name);
    if noun.eq_ignore_ascii_case("InboxRule") {
        let deletes = ["DeleteMessage", "SoftDeleteMessage"]
            .iter()
            .any(|name| parameters.is_true(name));
        let moves = parameters.get("MoveToFolder").is_some_and(is_hiding_folder);
        event.set(field::HIDES_MAIL, deletes || moves);
    } else if noun.eq_ignore_ascii_case("TransportRule") {
        event.set(field::HIDES_MAIL, parameters.is_true("DeleteMessage"));
    }
}

/// Whether nobody looks into a folder; its path may have the mailbox in front.
pub(super) fn is_hiding_folder(folder: &str) -> bool {
    let folder = folder.rsplit(['\\', '/', ':']).next().unwrap_or(folder);
    HIDING_FOLDERS.contains(&folder.trim().to_lowercase().as_str())
}

/// Cmdlets whose `Identity` is a mailbox.
const OF_MAILBOXES: &[&str] = &[
    "Mailbox",
    "MailboxPermission",
    "RecipientPermission",
    "MailboxFolderPermission",
    "MailboxAutoReplyConfiguration",
    "CASMailbox",
    "MailboxAuditBypassAssociation",
];

/// Whose mailbox it is. `Identity` and `ObjectId` may be an address, an alias, a GUID, a canonical
/// path, or for inbox rules `path\rule`; for a new inbox rule `Identity` is the rule's name.
fn set_mailbox(event: &mut Event, record: &Body<'_>, parameters: &Parameters) {
    let noun = record.operation.split_once('-').map(|(_, noun)| noun);
    let is = |known: &str| noun.is_some_and(|noun| noun.eq_ignore_ascii_case(known));
    let parameter = |name| parameters.get(name).map(Cow::Borrowed);
    let places = if OF_MAILBOXES.iter().any(|known| is(known)) {
        [parameter("Identity"), record.text("ObjectId"), None]
    } else if is("InboxRule") {
        let path = parameter("Identity").filter(|identity| identity.contains('\\'));
        [parameter("Mailbox"), record.text("ObjectId"), path]
    } else {
        [record.text("MailboxOwnerUPN"), None, None]
    };
    let names: Vec<String> = places
        .iter()
        .flatten()
        .filter_map(|name| mailbox_name(name))
        .collect();
    let address = names.iter().find(|name| name.contains('@'));
    let Some(mailbox) = address.or(names.first()) else {
        return;
    };
    let actor = event.text(field::ACTOR);
    let others = actor.as_deref().and_then(|actor| is_others(actor, &names));
    // One's own mailbox is named by alias in one record and by address in another; it is one.
    let own = actor.filter(|actor| others == Some(false) && actor.contains('@'));
    let mailbox = Value::from(own.as_deref().unwrap_or(mailbox));
    event.set(field::MAILBOX, mailbox);
    event.set_some(field::MAILBOX_IS_OTHERS, others);
}

fn mailbox_name(text: &str) -> Option<String> {
    // A folder stands as `mailbox:\folder`.
    let path = text
        .split('\\')
        .next()
        .unwrap_or(text)
        .trim_end_matches(':');
    let entry = address::entry(path)?;
    let name = domains::address(&entry.name());
    (!name.is_empty()).then_some(name)
}

/// Whether a mailbox or person is not the actor. The names are compared with the actor's address and its
/// local part, punctuation aside (`john.smith` is `John Smith`). GUIDs alone tell nothing.
pub(super) fn is_others(actor: &str, names: &[String]) -> Option<bool> {
    let local = actor.split('@').next().unwrap_or(actor);
    let is_own =
        |name: &String| name == actor || (!name.contains('@') && letters(name).eq(letters(local)));
    if names.iter().any(is_own) {
        return Some(false);
    }
    let tells = |name: &String| uuid::Uuid::try_parse(name).is_err();
    names.iter().any(tells).then_some(true)
}

fn letters(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| c.is_alphanumeric())
}

#[cfg(test)]
mod tests;

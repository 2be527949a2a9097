//! Which documents are open to whom outside: people and domains that were given access, links for anyone,
//! and how far the vendor says a document is open.
//!
//! In Drive each record has the visibility after it, which closes what it no longer allows; SharePoint has
//! records for each grant, and for links by their ids.

use std::collections::HashMap;

use chrono::DurationRound;
use chrono::TimeDelta;
use exfilwatch_model::{Event, Product, field};

use super::Room;
use super::slot::{Said, Slot, SlotId, Version, WHOLE, facts, failed, text};
use super::things::Thing;

/// The slot of somebody who was given access.
pub(super) const GRANT: &str = "grant";
/// The slot of the last access from outside.
pub(super) const ACCESS: &str = "access";
/// Who has a link that anyone may use, as events have it.
const ANYONE: &str = "anyone";
/// The fact by which link somebody was given access.
const LINK: &str = "UniqueSharingId";
const SECURE_LINK: &str = "secure link";

/// How exactly an access is noted: what is opened all day is written once an hour.
const ACCESS_EVERY: TimeDelta = TimeDelta::hours(1);

/// Visibilities of Drive by which somebody with the link gets in.
const BY_LINK: &[&str] = &["people_with_link", "public_on_the_web"];
const SHARED_OUTSIDE: &str = "shared_externally";

const DRIVE: &[&str] = &[
    "change_user_access",
    "change_document_visibility",
    "change_document_access_scope",
    "change_owner",
    "shared_drive_membership_change",
    "trash",
    "untrash",
    "delete",
];
const SHAREPOINT: &[&str] = &[
    "SharingSet",
    "SharingInvitationCreated",
    "SharingInvitationUpdated",
    "SharingInvitationAccepted",
    "SharingInvitationRevoked",
    "SharingRevoked",
    "AddedToSecureLink",
    "RemovedFromSecureLink",
    "SecureLinkUsed",
    "SecureLinkDeleted",
    "AnonymousLinkCreated",
    "AnonymousLinkUpdated",
    "AnonymousLinkUsed",
    "AnonymousLinkRemoved",
    "FileDeleted",
    "FileRecycled",
    "FileRestored",
    "FolderDeleted",
    "FolderRecycled",
    "FolderRestored",
];
const SHAREPOINT_ACCESS: &[&str] = &["FileAccessed", "FilePreviewed", "FileDownloaded"];
const DRIVE_ACCESS: &[&str] = &["view", "preview", "download", "copy", "print"];

/// Whether an activity of Drive may say something.
pub(super) fn is_of_drive(name: &str) -> bool {
    let plain = name.strip_suffix("_hierarchy_reconciled");
    DRIVE.contains(&plain.unwrap_or(name))
}

/// Whether an operation of SharePoint may say something.
pub(super) fn is_of_sharepoint(name: &str) -> bool {
    SHAREPOINT.contains(&name)
}

/// Whether somebody opens a document by it.
pub(super) fn is_access(product: Product, name: &str) -> bool {
    match product {
        Product::M365 => SHAREPOINT_ACCESS.contains(&name) || is_link_use(name),
        Product::GoogleWorkspace => DRIVE_ACCESS.contains(&name),
    }
}

fn is_link_use(name: &str) -> bool {
    matches!(name, "AnonymousLinkUsed" | "SecureLinkUsed")
}

/// Whether the name is one that SharePoint gives people from outside.
pub(super) fn is_guest(actor: Option<&str>) -> bool {
    actor.is_some_and(|actor| {
        let actor = actor.to_ascii_lowercase();
        ["#ext#", "urn:spo:guest#", "urn:spo:anon", "anonymous"]
            .iter()
            .any(|mark| actor.contains(mark))
    })
}

/// What an event says: of a grantee, of the document as a whole, of who opened it.
pub(super) fn said(event: &Event) -> Vec<Said> {
    let operation = text(event, field::OPERATION).unwrap_or_default();
    let is_meant = match event.product {
        Product::M365 => is_of_sharepoint(&operation) || is_access(event.product, &operation),
        Product::GoogleWorkspace => is_of_drive(&operation) || is_access(event.product, &operation),
    };
    let document = event
        .text(field::OBJECT)
        .filter(|object| !object.is_empty());
    let Some(document) = document.filter(|_| is_meant && !failed(event)) else {
        return Vec::new();
    };
    if is_access(event.product, &operation) {
        return accessed(event, &document).into_iter().collect();
    }
    let granted = grant(event, &document, &operation);
    granted
        .into_iter()
        .chain(whole(event, &document, &operation))
        .collect()
}

fn grant(event: &Event, document: &str, operation: &str) -> Option<Said> {
    let shares = event.get(field::IS_REMOVAL).is_some() && event.is(field::IS_EXTERNAL);
    let target = text(event, field::TARGET).filter(|_| shares)?;
    let link = text(event, LINK).or_else(|| {
        let secure = operation.contains("SecureLink");
        secure.then(|| SECURE_LINK.to_owned())
    });
    // Somebody may have several links to a document, and access without one.
    let name = match &link {
        Some(link) => format!("{target} {link}"),
        None => target.clone(),
    };
    let mut facts = facts(
        event,
        &[
            field::ACTOR,
            field::OPERATION,
            field::OBJECT_NAME,
            field::OWNER,
            field::ROLE,
            field::EXTERNAL_CLASS,
        ],
    );
    facts.insert(field::TARGET.to_owned(), target);
    facts.extend(link.map(|link| (LINK.to_owned(), link)));
    Some(Said {
        room: Room::Sharing,
        slot: SlotId::new(document, GRANT, name),
        version: Version::of(event, event.part),
        on: !event.is(field::IS_REMOVAL),
        to: None,
        facts,
    })
}

/// Of the document as a whole, or of one of its links.
fn whole(event: &Event, document: &str, operation: &str) -> Option<Said> {
    let visibility = text(event, field::VISIBILITY);
    let opens = |visibility: &String| is_by_link(visibility) || visibility == SHARED_OUTSIDE;
    let (scope, on) = match event.product {
        Product::M365 => match operation {
            "SecureLinkDeleted" => {
                let link = text(event, LINK);
                (link.unwrap_or_else(|| SECURE_LINK.to_owned()), false)
            }
            "FileRestored" | "FolderRestored" => (String::new(), true),
            _ if operation.starts_with("File") || operation.starts_with("Folder") => {
                (String::new(), false)
            }
            _ => return None,
        },
        Product::GoogleWorkspace => {
            let on = opens(visibility.as_ref()?);
            let is_gone = matches!(operation, "trash" | "delete");
            // That a closed document goes says nothing, and many go.
            if is_gone && !on {
                return None;
            }
            (String::new(), on && !is_gone)
        }
    };
    let names = [
        field::ACTOR,
        field::OPERATION,
        field::OBJECT_NAME,
        field::OWNER,
        field::VISIBILITY,
    ];
    Some(Said {
        room: Room::Sharing,
        slot: SlotId::new(document, WHOLE, scope),
        version: Version::of(event, 0),
        on,
        to: None,
        facts: facts(event, &names),
    })
}

fn accessed(event: &Event, document: &str) -> Option<Said> {
    let operation = text(event, field::OPERATION)?;
    let is_inside = event.is(field::ACTOR_IS_INTERNAL) && !is_link_use(&operation);
    if is_inside {
        return None;
    }
    let mut facts = facts(event, &[field::ACTOR]);
    facts
        .entry(field::ACTOR.to_owned())
        .or_insert_with(|| "anonymous".to_owned());
    let hour = event.time.duration_trunc(ACCESS_EVERY);
    Some(Said {
        room: Room::Sharing,
        slot: SlotId::new(document, ACCESS, ""),
        version: Version::at(hour.unwrap_or(event.time)),
        on: true,
        to: None,
        facts,
    })
}

fn is_by_link(visibility: &str) -> bool {
    BY_LINK.contains(&visibility)
}

/// Whether anybody outside was ever given something.
pub(super) fn was_granted(thing: &Thing) -> bool {
    let mut slots = thing.slots.values();
    slots.any(|slot| slot.id.via == GRANT || slot.id.via == WHOLE && slot.on)
}

/// What is open now: grants; where Drive says that a document is open and no grant was seen, that.
pub(super) fn open(thing: &Thing) -> impl Iterator<Item = &Slot> {
    let is_open = opens(thing);
    let grants: Vec<&Slot> = thing.slots.values().filter(|slot| is_open(slot)).collect();
    let alone = says_open(thing).filter(|_| grants.is_empty());
    grants.into_iter().chain(alone)
}

/// Tells which slots are grants that hold.
pub(super) fn opens(thing: &Thing) -> impl Fn(&Slot) -> bool {
    let said = thing.slots.values().filter(|slot| slot.id.via == WHOLE);
    let said: Wholes<'_> = said.map(|slot| (slot.id.name.as_str(), slot)).collect();
    move |slot| slot.id.via == GRANT && slot.on && !is_closed(&said, slot)
}

/// What Drive said last of the document, where that is that it is open.
pub(super) fn says_open(thing: &Thing) -> Option<&Slot> {
    let whole = thing.slot(WHOLE, "");
    whole.filter(|whole| whole.on && whole.facts.contains_key(field::VISIBILITY))
}

/// What was said of a document as a whole, under the empty name, and of its links.
type Wholes<'a> = HashMap<&'a str, &'a Slot>;

/// Whether what was said later of the document or the link leaves no room for a grant.
fn is_closed(said: &Wholes<'_>, grant: &Slot) -> bool {
    let later = |scope: &str| {
        let whole = said.get(scope);
        whole.filter(|whole| whole.switched.is_behind(&grant.switched))
    };
    let link = grant.facts.get(LINK).and_then(|link| later(link));
    let whole = later("");
    let is_anyone = grant.facts.get(field::TARGET).is_some_and(|t| t == ANYONE);
    let visibility = whole.and_then(|whole| whole.facts.get(field::VISIBILITY));
    let link_is_shut = is_anyone && visibility.is_some_and(|seen| !is_by_link(seen));
    link_is_shut || link.into_iter().chain(whole).any(|whole| !whole.on)
}

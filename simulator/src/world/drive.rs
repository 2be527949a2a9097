//! Google Drive: documents opened, created and shared, with the side effects Google logs.
//!
//! One act is often several `events[]`; what is a side effect has `primary_event` false. The
//! implicit grant of ownership at creation, taken-back access and the fan-out of a folder share
//! (`_hierarchy_reconciled`) are here so that detectors can be wrong about them.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::book::{Activity, Book, ORDINARY, one_of, qualifier};
use super::people::Person;

/// Outside shares of a person and day in ordinary life: those of two days on end are fewer than the
/// five documents that are due as a finding.
const SHARES_A_DAY_MAX: usize = 2;

/// People below this number act in scripts; the shares of those above are never part of a burst.
const FIRST_QUIET_PERSON: usize = 6;

/// A Drive document.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) id: String,
    title: String,
}

impl File {
    /// Number `number` of `owner`'s documents.
    pub(crate) fn of(owner: &Person, number: usize) -> Self {
        const TITLES: [&str; 6] = [
            "Roadmap",
            "Customer list",
            "Payroll",
            "Source export",
            "Contract",
            "Minutes",
        ];
        let title = TITLES
            .get(number % TITLES.len())
            .copied()
            .unwrap_or("Notes");
        let tail: String = owner.profile_id.chars().take(12).collect();
        Self {
            id: format!("1{tail}_{number:06}xQ-wZ"),
            title: format!("{title} {number}"),
        }
    }
}

fn text(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn many(name: &str, value: &str) -> Value {
    json!({ "name": name, "multiValue": [value] })
}

fn flag(name: &str, value: bool) -> Value {
    json!({ "name": name, "boolValue": value })
}

/// An element of `events[]`: own parameters first, then those all Drive events have.
fn event(
    (kind, name, primary): (&str, &str, bool),
    own: Vec<Value>,
    (owner, file, visibility): (&Person, &File, &str),
) -> Value {
    let mut parameters = vec![flag("primary_event", primary), flag("billable", true)];
    parameters.extend(own);
    parameters.extend([
        text("doc_id", &file.id),
        text("doc_type", "document"),
        flag("is_encrypted", false),
        text("doc_title", &file.title),
        text("visibility", visibility),
        flag("actor_is_collaborator_account", false),
        text("owner", &owner.email),
        flag("owner_is_shared_drive", false),
        flag("owner_is_team_drive", false),
    ]);
    json!({ "type": kind, "name": name, "parameters": parameters })
}

/// The element for one sharee who gets access.
pub(crate) fn grant(owner: &Person, file: &File, address: &str, first_outsider: bool) -> Value {
    let change = if first_outsider { "external" } else { "none" };
    let old_visibility = if first_outsider {
        "private"
    } else {
        "shared_externally"
    };
    event(
        ("acl_change", "change_user_access", true),
        vec![
            text("visibility_change", change),
            text("target_user", address),
            many("old_value", "none"),
            many("new_value", "can_view"),
            text("old_visibility", old_visibility),
        ],
        (owner, file, "shared_externally"),
    )
}

/// An activity of `actor` on Drive.
pub(crate) fn activity<'p>(
    actor: &'p Person,
    at: i64,
    events: Vec<Value>,
    rng: &mut StdRng,
) -> Activity<'p> {
    Activity {
        application: "drive",
        event_ms: at,
        actor: Some(actor),
        with_ip: rng.random_bool(0.67),
        qualifier: qualifier(rng),
        events,
    }
}

/// Opens a document to anyone who has the link: one item, two primary events and an edit.
pub(crate) fn open_to_anyone(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    (actor, file): (&Person, &File),
) -> String {
    let seen = "people_with_link";
    let shared = || {
        vec![
            text("visibility_change", "external"),
            text("target_domain", "all"),
            text("old_visibility", "private"),
        ]
    };
    let mut visibility = shared();
    visibility.extend([many("old_value", "private"), many("new_value", seen)]);
    let mut scope = shared();
    scope.extend([many("old_value", "none"), many("new_value", "can_view")]);
    let about = (actor, file, seen);
    let events = vec![
        event(("access", "edit", false), Vec::new(), about),
        event(
            ("acl_change", "change_document_visibility", true),
            visibility,
            about,
        ),
        event(
            ("acl_change", "change_document_access_scope", true),
            scope,
            about,
        ),
    ];
    book.google(activity(actor, at, events, rng), rng)
}

/// The link is taken back: nobody else has access.
pub(crate) fn close_link(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    (actor, file): (&Person, &File),
) -> String {
    let own = vec![
        text("visibility_change", "internal"),
        text("target_domain", "all"),
        many("old_value", "people_with_link"),
        many("new_value", "private"),
        text("old_visibility", "people_with_link"),
    ];
    let closed = event(
        ("acl_change", "change_document_visibility", true),
        own,
        (actor, file, "private"),
    );
    book.google(activity(actor, at, vec![closed], rng), rng)
}

/// One ordinary item.
pub(crate) fn ordinary(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let actor = tenant.anyone(rng);
    let file = File::of(actor, rng.random_range(0..500));
    let events = match rng.random_range(0..100) {
        0..60 => access(actor, &file, rng),
        60..75 => creation(actor, &file),
        75..88 => colleague_share(actor, &file, &tenant.anyone(rng).email),
        88..94 => taken_back(actor, &file, &tenant.at_partner("former", 0)),
        94..97 => folder_fan_out(actor, &tenant.anyone(rng).email),
        _ => {
            outside_share(book, at, rng);
            return;
        }
    };
    book.google(activity(actor, at, events, rng), rng);
}

fn access(actor: &Person, file: &File, rng: &mut StdRng) -> Vec<Value> {
    const NAMES: [&str; 5] = ["view", "view", "edit", "download", "access_item_content"];
    let name = one_of(&NAMES, rng);
    vec![event(
        ("access", name, true),
        Vec::new(),
        (actor, file, "private"),
    )]
}

/// A new file: the grant of ownership to its maker is a side effect and no share.
fn creation(actor: &Person, file: &File) -> Vec<Value> {
    let about = (actor, file, "private");
    let ownership = vec![
        text("visibility_change", "none"),
        text("target_user", &actor.email),
        many("old_value", "none"),
        many("new_value", "owner"),
        text("old_visibility", "unknown"),
    ];
    let editors = vec![many("old_value", "writers"), many("new_value", "writers")];
    vec![
        event(("access", "create", true), Vec::new(), about),
        event(
            ("acl_change", "change_user_access", false),
            ownership,
            about,
        ),
        event(("acl_change", "change_acl_editors", false), editors, about),
    ]
}

fn colleague_share(actor: &Person, file: &File, colleague: &str) -> Vec<Value> {
    vec![inside_grant(actor, file, colleague)]
}

/// The element for a sharee of the same organisation.
pub(crate) fn inside_grant(actor: &Person, file: &File, colleague: &str) -> Value {
    let own = vec![
        text("visibility_change", "internal"),
        text("target_user", colleague),
        many("old_value", "none"),
        many("new_value", "can_edit"),
        text("old_visibility", "private"),
    ];
    event(
        ("acl_change", "change_user_access", true),
        own,
        (actor, file, "shared_internally"),
    )
}

/// Access that is taken away from an outsider.
fn taken_back(actor: &Person, file: &File, outsider: &str) -> Vec<Value> {
    let own = vec![
        text("visibility_change", "internal"),
        text("target_user", outsider),
        many("old_value", "can_view"),
        many("new_value", "none"),
        text("old_visibility", "shared_externally"),
    ];
    vec![event(
        ("acl_change", "change_user_access", true),
        own,
        (actor, file, "private"),
    )]
}

/// A folder shared with a colleague: the children follow as side effects.
fn folder_fan_out(actor: &Person, colleague: &str) -> Vec<Value> {
    let folder = File::of(actor, 900);
    let mut events = colleague_share(actor, &folder, colleague);
    for number in 901..904 {
        let own = vec![
            text("visibility_change", "internal"),
            text("target_user", colleague),
            many("old_value", "none"),
            many("new_value", "can_edit"),
        ];
        let name = "change_user_access_hierarchy_reconciled";
        let child = File::of(actor, number);
        events.push(event(
            ("acl_change", name, false),
            own,
            (actor, &child, "shared_internally"),
        ));
    }
    events
}

/// A document shared with one or two people of a partner; never by the actor of a Drive script, and
/// opened instead by someone who has shared enough that day.
fn outside_share(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let actor = tenant.person(rng.random_range(FIRST_QUIET_PERSON..tenant.people.len()));
    let file = &File::of(actor, rng.random_range(0..500));
    if book.drive_shares_of(&actor.email, at) >= SHARES_A_DAY_MAX {
        let events = access(actor, file, rng);
        book.google(activity(actor, at, events, rng), rng);
        return;
    }
    let domain = one_of(&tenant.partner_domains(), rng);
    let count = rng.random_range(1..=2_usize);
    let addresses: Vec<String> = ["buyer", "legal"]
        .iter()
        .take(count)
        .map(|who| format!("{who}@{domain}"))
        .collect();
    let events = addresses
        .iter()
        .enumerate()
        .map(|(index, address)| grant(actor, file, address, index == 0))
        .collect();
    let id = book.google(activity(actor, at, events, rng), rng);
    for address in &addresses {
        book.drive_share(ORDINARY, &actor.email, address, (&id, at));
    }
}

//! Drive: who gets access to what, and how far a document is opened.
//!
//! One action comes as several events (vendor's "Drive audit activity events", seen 2026, and real
//! logs): a link for anyone is `change_document_visibility` and `change_document_access_scope` in one
//! item; a new file brings a non-primary `change_user_access` to its creator; a folder's share comes
//! back on its children as `…_hierarchy_reconciled`. `visibility` is the state *after* the event.

use exfilwatch_model::{Event, Party, Value, field};

use super::super::outside::{anyone, set_party};
use super::Reading;

const RECONCILED: &str = "_hierarchy_reconciled";

/// A document is put on the web, or taken off it.
const PUBLISH: &str = "publish_change";

/// How far a document is open; unknown words count as closed.
fn openness(visibility: &str) -> u8 {
    match visibility {
        "shared_internally" | "people_within_domain_with_link" | "public_in_the_domain" => 1,
        "shared_externally" => 2,
        "people_with_link" => 3,
        "public_on_the_web" => 4,
        _ => 0,
    }
}

/// From this on people outside can open it.
const OPEN_OUTSIDE: u8 = 2;

/// One event per person or domain that is given (or loses) access; one alone for all else.
pub(super) fn events(mut event: Event, reading: &Reading<'_>) -> Vec<Event> {
    fill(&mut event, reading);
    let change = Change::of(&event);
    if !change.is_sharing() {
        return vec![event];
    }
    event.set(field::IS_REMOVAL, change.is_removal());
    for role in &change.roles {
        event.add(field::ROLE, role.as_str());
    }
    let targets = change.targets(&event, reading);
    if targets.is_empty() {
        let raised = change.raises(None, reading);
        event.set(field::VISIBILITY_RAISED, raised);
        // The vendor says that it left the domain, and not to whom.
        event.set(field::IS_EXTERNAL, raised);
        return vec![event];
    }
    targets
        .iter()
        .map(|party| {
            let mut event = event.clone();
            event.set(field::TARGET, party.address.as_str());
            event.set(
                field::VISIBILITY_RAISED,
                change.raises(Some(party), reading),
            );
            set_party(&mut event, party);
            event
        })
        .collect()
}

/// Document, owner, and whether the event is the action itself.
fn fill(event: &mut Event, reading: &Reading<'_>) {
    let text = |event: &Event, name: &str| {
        let text = event.text(&format!("parameters.{name}"))?;
        (!text.is_empty()).then(|| text.into_owned())
    };
    let document = text(event, "doc_id");
    let url = document
        .as_ref()
        .map(|id| format!("https://drive.google.com/open?id={id}"));
    event.set_some(field::URL, url);
    event.set_some(field::OBJECT, document);
    event.set_some(field::OBJECT_NAME, text(event, "doc_title"));
    event.set_some(field::VISIBILITY, text(event, "visibility"));
    event.set_some(field::APP_ID, text(event, "originating_app_id"));
    // A shared drive's owner is the drive's name.
    if let Some(owner) = text(event, "owner").filter(|owner| owner.contains('@')) {
        let party = reading.domains.party(&owner);
        event.set(field::OWNER, party.address.as_str());
        event.set(field::OWNER_IS_INTERNAL, !party.class.is_external());
    }
    let primary = event.get("parameters.primary_event") != Some(&Value::Bool(false));
    let operation = event
        .text(field::OPERATION)
        .unwrap_or_default()
        .into_owned();
    event.set(field::IS_PRIMARY, primary);
    event.set(field::IS_RECONCILED, operation.ends_with(RECONCILED));
}

/// A change of access, in the vendor's words.
struct Change {
    kind: String,
    new: Vec<String>,
    roles: Vec<String>,
    old_visibility: Option<String>,
    visibility: Option<String>,
    /// The vendor's word on it: `external`, `internal` or `none`.
    verdict: Option<String>,
    membership: Option<String>,
}

impl Change {
    fn of(event: &Event) -> Self {
        let texts = |name: &str| list(event, name);
        let one = |name: &str| texts(name).into_iter().next();
        let operation = event.text(field::OPERATION).unwrap_or_default();
        let kind = operation
            .strip_suffix(RECONCILED)
            .unwrap_or(&operation)
            .to_owned();
        let new = texts("new_value");
        let roles = match kind.as_str() {
            "change_user_access" | "change_document_access_scope" => new.clone(),
            "change_owner" => vec!["owner".to_owned()],
            _ => texts("added_role"),
        };
        // A visibility event bears the visibility itself in its values, and one of publishing says for
        // whom, whoever else the document is shared with.
        let (old_visibility, visibility, verdict) = match kind.as_str() {
            "change_document_visibility" => (one("old_value"), one("new_value"), true),
            PUBLISH => (
                one("old_publish_visibility").or_else(|| Some("nobody".to_owned())),
                one("new_publish_visibility").or_else(|| Some("nobody".to_owned())),
                false,
            ),
            _ => (None, None, true),
        };
        Self {
            old_visibility: old_visibility.or_else(|| one("old_visibility")),
            visibility: visibility.or_else(|| one("visibility")),
            verdict: one("visibility_change").filter(|_| verdict),
            membership: one("membership_change_type"),
            kind,
            new,
            roles,
        }
    }

    fn is_sharing(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "change_user_access"
                | "change_document_visibility"
                | "change_document_access_scope"
                | "change_owner"
                | "shared_drive_membership_change"
                | "email_as_attachment"
                | PUBLISH
        )
    }

    /// Access was taken away or narrowed.
    fn is_removal(&self) -> bool {
        if let Some(membership) = &self.membership {
            return membership.starts_with("remove");
        }
        let closed = |value: &String| matches!(value.as_str(), "none" | "private");
        !self.new.is_empty() && self.new.iter().all(closed) || self.narrows()
    }

    fn narrows(&self) -> bool {
        let link = matches!(self.kind.as_str(), "change_document_visibility" | PUBLISH);
        let from = self.old_visibility.as_deref().map(openness);
        let to = self.visibility.as_deref().map(openness);
        link && from.zip(to).is_some_and(|(from, to)| to < from)
    }

    /// Whom the event names. A domain of `all` is everybody; so is the target of a link that has no
    /// domain. A domain of the tenant cannot be named by a link for anyone, so where our domains are
    /// only a guess the vendor's `external` is believed.
    fn targets(&self, event: &Event, reading: &Reading<'_>) -> Vec<Party> {
        let named = ["target_user", "target", "new_owner"];
        let people: Vec<String> = named
            .iter()
            .map(|name| list(event, name))
            .find(|people| !people.is_empty())
            .unwrap_or_default();
        if !people.is_empty() {
            return people
                .iter()
                .map(|person| reading.domains.party(person))
                .collect();
        }
        let domains = list(event, "target_domain");
        if domains.is_empty() {
            return self.link_for_anyone().then(anyone).into_iter().collect();
        }
        domains
            .iter()
            .map(|domain| match domain.as_str() {
                "all" => anyone(),
                _ => self.domain_party(domain, reading),
            })
            .collect()
    }

    fn domain_party(&self, domain: &str, reading: &Reading<'_>) -> Party {
        if self.link_for_anyone() && self.says_external() && !reading.domains_are_known {
            return anyone();
        }
        let party = reading.domains.party(&format!("anyone@{domain}"));
        Party {
            address: domain.to_lowercase(),
            ..party
        }
    }

    /// The event makes a link that works outside.
    fn link_for_anyone(&self) -> bool {
        let change = matches!(
            self.kind.as_str(),
            "change_document_visibility" | "change_document_access_scope" | PUBLISH
        );
        let open = self.visibility.as_deref().map(openness);
        change && open.is_some_and(|open| open > OPEN_OUTSIDE)
    }

    fn says_external(&self) -> bool {
        self.verdict.as_deref() == Some("external")
    }

    /// Whether the document is open to people outside who could not open it before.
    fn raises(&self, target: Option<&Party>, reading: &Reading<'_>) -> bool {
        if self.is_removal() {
            return false;
        }
        if target.is_some_and(|party| !party.class.is_external() && reading.domains_are_known) {
            return false;
        }
        match self.verdict.as_deref() {
            Some("external") => true,
            Some(_) => false,
            None => {
                let from = self.old_visibility.as_deref().map_or(0, openness);
                let to = self.visibility.as_deref().map_or(0, openness);
                to >= OPEN_OUTSIDE && to > from
            }
        }
    }
}

/// The values of a parameter that are not empty.
fn list(event: &Event, name: &str) -> Vec<String> {
    let values = match event.get(&format!("parameters.{name}")) {
        Some(Value::List(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    values
        .iter()
        .map(|value| value.text().trim().to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

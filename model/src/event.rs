//! Events: the flat form in which rules and detectors see a record.
//!
//! A record gives one or more events (google's `events[]` are split; one derived event per
//! sharee or forwarding destination). Field names come from [`field`]; vendor members keep the
//! vendor's spelling, nested ones joined by a dot (`Parameters.ForwardTo`, `parameters.doc_id`).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::names::Product;

/// The list of our field names. A rule may use these and the vendor's own.
pub mod field {
    /// What was done, in the vendor's spelling (`New-InboxRule`, `change_user_access`).
    pub const OPERATION: &str = "operation";
    /// `m365` or `google_workspace`.
    pub const PRODUCT: &str = "product";
    /// Workload (`Exchange`) or application (`drive`), as the vendor writes it.
    pub const SERVICE: &str = "service";
    /// RecordType of a Unified Audit Log record, a number.
    pub const RECORD_TYPE: &str = "record_type";
    /// Who acted: address or name, lower case. The main address of the people list, where that knows
    /// the one in the record as an alias: one person is one actor in both clouds.
    pub const ACTOR: &str = "actor";
    /// The alias under which the record has the actor, where it is not [`ACTOR`].
    pub const ACTOR_ACCOUNT: &str = "actor_account";
    /// The actor is a service or the vendor itself, not a person or app of the tenant.
    pub const ACTOR_IS_SYSTEM: &str = "actor_is_system";
    /// The actor belongs to the tenant.
    pub const ACTOR_IS_INTERNAL: &str = "actor_is_internal";
    /// Registrable domain of the actor, where the actor has an address.
    pub const ACTOR_DOMAIN: &str = "actor_domain";
    /// The people list calls the actor a VIP. Like all that follows from lists it is present where
    /// it holds and absent otherwise.
    pub const ACTOR_IS_VIP: &str = "actor_is_vip";
    /// The event lies at most `leaver_days` before the actor's last day, or after it.
    pub const ACTOR_IS_LEAVER: &str = "actor_is_leaver";
    /// The event lies after the actor's last day (UTC).
    pub const ACTOR_HAS_LEFT: &str = "actor_has_left";
    /// The people list calls the actor a program's account.
    pub const ACTOR_IS_SERVICE_ACCOUNT: &str = "actor_is_service_account";
    /// Groups of the actor by the people list, lower case.
    pub const ACTOR_GROUPS: &str = "actor_groups";
    /// Application that acted, by id.
    pub const APP_ID: &str = "app_id";
    /// Whether the app list approves the application: false where it is not in the list, absent
    /// where there is no list.
    pub const APP_IS_APPROVED: &str = "app_is_approved";
    /// Address the action came from, without port or brackets.
    pub const SOURCE_IP: &str = "source_ip";
    /// Number of the autonomous system of that address: from google's `networkInfo`, or a database.
    pub const SOURCE_ASN: &str = "source_asn";
    /// Country of that address, in two letters (`US`); from the same.
    pub const SOURCE_REGION: &str = "source_region";
    /// `success`, `failure` or `partial`; absent where the vendor says nothing.
    pub const RESULT: &str = "result";
    /// What ended the target's account: `deleted`, `suspended` or `unlicensed`.
    pub const ACCOUNT_ENDED: &str = "account_ended";
    /// google: the item of a sign-in that failed, so that a window over all sign-ins can ask how
    /// many of them did.
    pub const FAILED_SIGN_IN: &str = "failed_sign_in";
    /// Person, group or object acted upon: sharee, grantee, user.
    pub const TARGET: &str = "target";
    /// Who is given access is the actor.
    pub const TARGET_IS_ACTOR: &str = "target_is_actor";
    /// The people list calls the target a VIP.
    pub const TARGET_IS_VIP: &str = "target_is_vip";
    /// What is given or forwarded goes to the manager of the mailbox's owner, or of the actor.
    pub const TARGET_IS_MANAGER: &str = "target_is_manager";
    /// Mailbox acted upon, lower case.
    pub const MAILBOX: &str = "mailbox";
    /// The mailbox is not the actor's own.
    pub const MAILBOX_IS_OTHERS: &str = "mailbox_is_others";
    /// The people list calls the owner of the mailbox a VIP.
    pub const MAILBOX_IS_VIP: &str = "mailbox_is_vip";
    /// The owner of the mailbox is a leaver, as of [`ACTOR_IS_LEAVER`].
    pub const MAILBOX_IS_LEAVER: &str = "mailbox_is_leaver";
    /// Document or item acted upon: its id or URL.
    pub const OBJECT: &str = "object";
    /// Its title or file name.
    pub const OBJECT_NAME: &str = "object_name";
    /// Owner of the object, where known.
    pub const OWNER: &str = "owner";
    /// The owner belongs to the tenant.
    pub const OWNER_IS_INTERNAL: &str = "owner_is_internal";
    /// OneDrive: the object lies in the actor's own drive, not in somebody else's. Absent elsewhere.
    pub const OBJECT_IS_OWN: &str = "object_is_own";
    /// The target or destination of this event is outside the tenant.
    pub const IS_EXTERNAL: &str = "is_external";
    /// Registrable domain of what is outside.
    pub const EXTERNAL_DOMAIN: &str = "external_domain";
    /// Class of what is outside: see [`crate::PartyClass`].
    pub const EXTERNAL_CLASS: &str = "external_class";
    /// What is outside has a mailbox at a provider where anyone can have one, be it a guest or not.
    pub const EXTERNAL_IS_FREE_MAIL: &str = "external_is_free_mail";
    /// What is outside looks like a domain of ours, or is a free mailbox that bears its name.
    pub const EXTERNAL_IS_LOOKALIKE: &str = "external_is_lookalike";
    /// What is given or forwarded goes to a free mailbox that bears the actor's own name. Present
    /// where it holds and absent otherwise.
    pub const EXTERNAL_RESEMBLES_ACTOR: &str = "external_resembles_actor";
    /// An allow-list of the tenant names whom or what the event is about, or it goes to a partner.
    pub const IS_ALLOWED: &str = "is_allowed";
    /// Which: `partner`, `domain`, `person`, `group`, `app`, `address`.
    pub const ALLOWED_BY: &str = "allowed_by";
    /// One destination mail is forwarded to (address, lower case); one event per destination.
    pub const FORWARD_TO: &str = "forward_to";
    /// How: `smtp_address`, `recipient_object`, `inbox_rule`, `transport_rule`, `journal_rule`, …
    pub const FORWARD_VIA: &str = "forward_via";
    /// Which setting of `forward_via` a cmdlet of Exchange is about: `inbox_rule.RedirectTo`; without a
    /// parameter where it is about the rule or connector as one.
    pub const FORWARD_PATH: &str = "forward_path";
    /// The settings, as in `forward_path`, that a cmdlet of Exchange empties.
    pub const FORWARD_EMPTIED: &str = "forward_emptied";
    /// `external`, `internal` or `unknown`.
    pub const FORWARD_DIRECTION: &str = "forward_direction";
    /// Forwarding that leaves no copy in the mailbox.
    pub const FORWARD_WITHOUT_COPY: &str = "forward_without_copy";
    /// The rule hides mail from the mailbox's owner: deletes it or moves it where nobody looks.
    pub const HIDES_MAIL: &str = "hides_mail";
    /// The setting was taken away, not made.
    pub const IS_REMOVAL: &str = "is_removal";
    /// Name of the rule that was made or changed.
    pub const RULE_NAME: &str = "rule_name";
    /// Address that a mail rule's conditions name: the sender, or a word that is an address; the
    /// first of several, lower case.
    pub const RULE_SENDER: &str = "rule_sender";
    /// Visibility after the event, in the vendor's words.
    pub const VISIBILITY: &str = "visibility";
    /// The event opened the object further than before, to people outside.
    pub const VISIBILITY_RAISED: &str = "visibility_raised";
    /// Role granted.
    pub const ROLE: &str = "role";
    /// google: the event is the action itself, not a side effect of another.
    pub const IS_PRIMARY: &str = "is_primary";
    /// google: fan-out of a folder's change to its children.
    pub const IS_RECONCILED: &str = "is_reconciled";
    /// Vendor's alert: its id.
    pub const ALERT_ID: &str = "alert_id";
    /// Vendor's alert: its name.
    pub const ALERT_NAME: &str = "alert_name";
    /// Id of the record that caused a vendor's alert (`Data.reid`).
    pub const CAUSE_ID: &str = "cause_id";
    /// eDiscovery: `create`, `download` or `view` of an export.
    pub const EXPORT_STEP: &str = "export_step";
    /// Identity of the vendor's item, without the element within it: events that say one thing
    /// together share it.
    pub const ITEM: &str = "item";
    /// Web address of the object, where the vendor gives or implies one.
    pub const URL: &str = "url";

    /// All of them.
    pub const ALL: &[&str] = &[
        OPERATION,
        PRODUCT,
        SERVICE,
        RECORD_TYPE,
        ACTOR,
        ACTOR_ACCOUNT,
        ACTOR_IS_SYSTEM,
        ACTOR_IS_INTERNAL,
        ACTOR_DOMAIN,
        ACTOR_IS_VIP,
        ACTOR_IS_LEAVER,
        ACTOR_HAS_LEFT,
        ACTOR_IS_SERVICE_ACCOUNT,
        ACTOR_GROUPS,
        APP_ID,
        APP_IS_APPROVED,
        SOURCE_IP,
        SOURCE_ASN,
        SOURCE_REGION,
        RESULT,
        ACCOUNT_ENDED,
        FAILED_SIGN_IN,
        TARGET,
        TARGET_IS_ACTOR,
        TARGET_IS_VIP,
        TARGET_IS_MANAGER,
        MAILBOX,
        MAILBOX_IS_OTHERS,
        MAILBOX_IS_VIP,
        MAILBOX_IS_LEAVER,
        OBJECT,
        OBJECT_NAME,
        OWNER,
        OWNER_IS_INTERNAL,
        OBJECT_IS_OWN,
        IS_EXTERNAL,
        EXTERNAL_DOMAIN,
        EXTERNAL_CLASS,
        EXTERNAL_IS_FREE_MAIL,
        EXTERNAL_IS_LOOKALIKE,
        EXTERNAL_RESEMBLES_ACTOR,
        IS_ALLOWED,
        ALLOWED_BY,
        FORWARD_TO,
        FORWARD_VIA,
        FORWARD_PATH,
        FORWARD_EMPTIED,
        FORWARD_DIRECTION,
        FORWARD_WITHOUT_COPY,
        HIDES_MAIL,
        IS_REMOVAL,
        RULE_NAME,
        RULE_SENDER,
        VISIBILITY,
        VISIBILITY_RAISED,
        ROLE,
        IS_PRIMARY,
        IS_RECONCILED,
        ALERT_ID,
        ALERT_NAME,
        CAUSE_ID,
        EXPORT_STEP,
        ITEM,
        URL,
    ];
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Text.
    Str(Arc<str>),
    /// A whole number.
    Int(i64),
    /// Truth.
    Bool(bool),
    /// Several values; a rule that names the field is met by any of them.
    List(Vec<Value>),
}

impl Value {
    /// The value as text; a list as its first value.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Str(text) => Cow::Borrowed(text),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::List(values) => values.first().map_or(Cow::Borrowed(""), Self::text),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Self {
        Self::Str(text.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// One event. Cheap to clone: text is shared.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where it comes from.
    pub product: Product,
    /// The vendor's identity of the record (see [`crate::RecordHead::id`]).
    pub record_id: Arc<str>,
    /// Which event of the record this is: element of `events[]`, then destination or sharee.
    /// (record id, part) tells events apart, so a window counts none twice.
    pub part: u32,
    /// Event time. Records without one bear the time their page was read.
    pub time: DateTime<Utc>,
    /// The record, for evidence.
    pub raw: Bytes,
    fields: Vec<(Cow<'static, str>, Value)>,
}

impl Event {
    /// An event without fields.
    pub fn new(
        product: Product,
        record_id: Arc<str>,
        part: u32,
        time: DateTime<Utc>,
        raw: Bytes,
    ) -> Self {
        Self {
            product,
            record_id,
            part,
            time,
            raw,
            fields: Vec::with_capacity(24),
        }
    }

    /// Sets a field; a value already there is replaced.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name, value)),
        }
    }

    /// Sets a field when there is a value.
    pub fn set_some(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: Option<impl Into<Value>>,
    ) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Adds a value to a field: the second and later ones make it a list, so that nothing a
    /// vendor repeats is lost.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Value::List(values))) => values.push(value),
            Some((_, old)) => {
                let first = std::mem::replace(old, Value::Bool(false));
                *old = Value::List(vec![first, value]);
            }
            None => self.fields.push((name, value)),
        }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The value of a field as text.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(Value::text)
    }

    /// Whether a field is true.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Bool(true)))
    }

    /// All fields, in the order they were set.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields
            .iter()
            .map(|(name, value)| (name.as_ref(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new(
            Product::M365,
            "id".into(),
            0,
            DateTime::UNIX_EPOCH,
            Bytes::new(),
        )
    }

    #[test]
    fn the_list_of_field_names_is_whole() {
        let text = include_str!("event.rs");
        let named = text.lines().filter(|line| {
            line.trim_start().starts_with("pub const ") && line.contains(": &str =")
        });
        assert_eq!(named.count(), field::ALL.len());
    }

    #[test]
    fn set_replaces_and_add_collects() {
        let mut event = event();
        event.set(field::ACTOR, "a");
        event.set(field::ACTOR, "b");
        event.add("Parameters.ForwardTo", "x");
        event.add("Parameters.ForwardTo", "y");
        event.set_some(field::TARGET, None::<&str>);
        assert_eq!(event.text(field::ACTOR).as_deref(), Some("b"));
        let both = Value::List(vec!["x".into(), "y".into()]);
        assert_eq!(event.get("Parameters.ForwardTo"), Some(&both));
        assert!(event.get(field::TARGET).is_none());
    }
}

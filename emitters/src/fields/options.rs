//! `[emitters.KIND.NAME.fields]`.

use std::cmp::Ordering;

use exfilwatch_model::SecretSource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What of the personal data in findings and signals an emitter may send, by class of field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldsOptions {
    /// Key of the pseudonyms and of the ids under which findings go out, at least 32 characters. Every
    /// policy needs it.
    pub key: Option<SecretSource>,
    /// Who did it, and whose the thing is: `actor`, `owner`, `mailbox`, `actor_groups`.
    pub actor: FieldAction,
    /// To whom it was done or given: `target`, `forward_to`, `rule_sender`.
    pub target: FieldAction,
    /// Network address it came from.
    pub source_ip: FieldAction,
    /// Names, ids and addresses of documents and mail rules: `object`, `object_name`, `url`, `rule_name`.
    pub object: FieldAction,
    /// Domains of people: `external_domain`, `actor_domain`.
    pub external_domain: FieldAction,
    /// Fields that bear the vendor's own names.
    pub other: FieldAction,
}

/// What happens to a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldAction {
    /// It goes out as it is.
    #[default]
    Keep,
    /// Only so much of it: leading bits of an IPv4 address (of IPv6 twice as many), characters of what
    /// stands before the @ of a mail address, characters of any other text.
    Truncate(u8),
    /// Nothing of it.
    Drop,
    /// A keyed hash in its place: the same value gives the same, in all findings of a tenant.
    Hash,
}

/// The order in which one word about a value prevails over another: what leaves less of it, but a hash says
/// as little as nothing, and can be compared.
impl Ord for FieldAction {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |action: &Self| match action {
            Self::Keep => (0, 0),
            Self::Truncate(length) => (1, u8::MAX - length),
            Self::Drop => (2, 0),
            Self::Hash => (3, 0),
        };
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for FieldAction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FieldsOptions {
    fn actions(&self) -> [FieldAction; 6] {
        [
            self.actor,
            self.target,
            self.source_ip,
            self.object,
            self.external_domain,
            self.other,
        ]
    }

    /// Whether nothing is configured.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing is withheld.
    pub(super) fn keeps_all(&self) -> bool {
        self.strictest() == FieldAction::Keep
    }

    /// What happens to a value of which nobody knows the field.
    pub(super) fn strictest(&self) -> FieldAction {
        self.actions().into_iter().max().unwrap_or_default()
    }
}

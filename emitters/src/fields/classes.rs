//! Which field of an event belongs to which class of the policy.

use exfilwatch_model::field;

use super::options::{FieldAction, FieldsOptions};

/// Fields that say what happened and nothing of who: always sent.
const FACTS: &[&str] = &[
    field::OPERATION,
    field::PRODUCT,
    field::SERVICE,
    field::RECORD_TYPE,
    field::ACTOR_IS_SYSTEM,
    field::ACTOR_IS_INTERNAL,
    field::ACTOR_IS_VIP,
    field::ACTOR_IS_LEAVER,
    field::ACTOR_HAS_LEFT,
    field::ACTOR_IS_SERVICE_ACCOUNT,
    field::APP_ID,
    field::APP_IS_APPROVED,
    field::SOURCE_ASN,
    field::SOURCE_REGION,
    field::RESULT,
    field::ACCOUNT_ENDED,
    field::FAILED_SIGN_IN,
    field::TARGET_IS_ACTOR,
    field::TARGET_IS_VIP,
    field::TARGET_IS_MANAGER,
    field::MAILBOX_IS_OTHERS,
    field::MAILBOX_IS_VIP,
    field::MAILBOX_IS_LEAVER,
    field::OWNER_IS_INTERNAL,
    field::OBJECT_IS_OWN,
    field::IS_EXTERNAL,
    field::EXTERNAL_CLASS,
    field::EXTERNAL_IS_FREE_MAIL,
    field::EXTERNAL_IS_LOOKALIKE,
    field::EXTERNAL_RESEMBLES_ACTOR,
    field::IS_ALLOWED,
    field::ALLOWED_BY,
    field::FORWARD_VIA,
    field::FORWARD_DIRECTION,
    field::FORWARD_WITHOUT_COPY,
    field::FORWARD_PATH,
    field::FORWARD_EMPTIED,
    field::HIDES_MAIL,
    field::IS_REMOVAL,
    field::VISIBILITY,
    field::VISIBILITY_RAISED,
    field::ROLE,
    field::IS_PRIMARY,
    field::IS_RECONCILED,
    field::ALERT_ID,
    field::ALERT_NAME,
    field::CAUSE_ID,
    field::EXPORT_STEP,
    field::ITEM,
    // Of incidents and of our own alarms.
    "detection",
    "tactic",
    "reason",
];

/// What happens to the values of a field.
pub(super) fn action(options: &FieldsOptions, name: &str) -> FieldAction {
    match name {
        field::ACTOR
        | field::ACTOR_ACCOUNT
        | field::OWNER
        | field::MAILBOX
        | field::ACTOR_GROUPS => options.actor,
        field::TARGET | field::FORWARD_TO | field::RULE_SENDER => options.target,
        field::SOURCE_IP => options.source_ip,
        field::OBJECT | field::OBJECT_NAME | field::URL | field::RULE_NAME => options.object,
        field::EXTERNAL_DOMAIN | field::ACTOR_DOMAIN => options.external_domain,
        _ if FACTS.contains(&name) => FieldAction::Keep,
        _ => options.other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new field of events is of no class until somebody has thought about it.
    #[test]
    fn every_field_of_events_has_a_class_of_its_own() {
        let options = FieldsOptions {
            other: FieldAction::Drop,
            ..FieldsOptions::default()
        };
        let without: Vec<_> = field::ALL
            .iter()
            .filter(|name| action(&options, name) == FieldAction::Drop)
            .collect();
        assert!(without.is_empty(), "{without:?}");
        let of_a_vendor = action(&options, "Parameters.Identity");
        assert_eq!(of_a_vendor, FieldAction::Drop);
    }
}

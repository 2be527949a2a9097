//! The identity of a finding: content-derived, so that a live run, a backfill, a replay and a
//! second machine give the same id.

use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use crate::names::TenantId;

/// Namespace of all finding ids. Never changed.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6e1d_4c0b_9a57_4f5e_8b7c_2d5f_3a1e_7c90);

/// UUIDv5 over tenant alias, Sigma id of the rule, entity and scope. No clock, no host and no
/// rule version enters it. `scope` is the period number of a window rule or the identity fields
/// of a single-record rule.
pub fn finding_uid(
    tenant: &TenantId,
    rule_id: Uuid,
    entity_type: &str,
    entity: &str,
    scope: &str,
) -> Uuid {
    let name = [
        "v1",
        tenant.as_str(),
        &rule_id.to_string(),
        entity_type,
        &normal_entity(entity),
        scope,
    ]
    .join("\0");
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// An entity in the form in which it is compared: NFC, trimmed, lower case.
pub fn normal_entity(entity: &str) -> String {
    let mut normal = String::with_capacity(entity.len());
    push_normal_entity(&mut normal, entity);
    normal
}

/// Writes an entity in that form behind a text.
pub fn push_normal_entity(text: &mut String, entity: &str) {
    let entity = entity.trim();
    // Most are, and are in that form but for their case.
    if entity.is_ascii() {
        let start = text.len();
        text.push_str(entity);
        text.get_mut(start..).map(str::make_ascii_lowercase);
    } else {
        text.push_str(&entity.nfc().collect::<String>().to_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entity_in_any_spelling_gives_one_id() {
        let tenant = TenantId::new("contoso").unwrap();
        let rule = Uuid::from_u128(1);
        let uid = finding_uid(&tenant, rule, "user", "Andr\u{e9}@contoso.example", "3");
        assert_eq!(
            uid,
            finding_uid(&tenant, rule, "user", " ANDRE\u{301}@contoso.example", "3")
        );
        assert_ne!(
            uid,
            finding_uid(&tenant, rule, "user", "andre@contoso.example", "3")
        );
        assert_ne!(
            uid,
            finding_uid(&tenant, rule, "user", "Andr\u{e9}@contoso.example", "4")
        );
        let other = TenantId::new("fabrikam").unwrap();
        assert_ne!(
            uid,
            finding_uid(&other, rule, "user", "Andr\u{e9}@contoso.example", "3")
        );
    }

    #[test]
    fn the_id_of_a_finding_never_changes_between_versions() {
        let tenant = TenantId::new("contoso").unwrap();
        let uid = finding_uid(
            &tenant,
            Uuid::from_u128(1),
            "user",
            "alice@contoso.example",
            "3",
        );
        assert_eq!(uid.to_string(), "7c61f863-b5e8-5c78-8540-52296fdb0a5c");
    }
}

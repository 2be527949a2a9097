//! Puts on an event what is known about someone outside (or inside): one place, so that all
//! applications say it with the same fields.

use std::borrow::Cow;

use exfilwatch_model::{Domains, Event, Party, PartyClass, domains, field};

/// The domains that count as internal for one record: the configured ones, or, where none are,
/// the domains that the record itself names as its own organisation. A guest's domain and a
/// provider where anyone can have a mailbox are never taken for the organisation.
pub(crate) fn own_domains<'a, S: AsRef<str>>(
    configured: &'a Domains,
    actor: Option<&str>,
    organisations: impl IntoIterator<Item = S>,
) -> Cow<'a, Domains> {
    if !configured.is_empty() {
        return Cow::Borrowed(configured);
    }
    let actor = actor.map(|actor| configured.party(actor));
    let actor = actor
        .filter(|party| party.class == PartyClass::ForeignTenant)
        .and_then(|party| party.domain);
    let organisations = organisations.into_iter();
    let organisations = organisations.map(|name| name.as_ref().to_owned());
    let mut own = Cow::Borrowed(configured);
    for domain in actor.into_iter().chain(organisations) {
        if domain.contains('.') && !domains::is_free_mail(&domain) {
            own = Cow::Owned(own.with_internal(&domain).into_owned());
        }
    }
    own
}

/// Sets `is_external`, `external_domain`, `external_class`, `external_is_free_mail` and
/// `external_is_lookalike`.
pub(crate) fn set_party(event: &mut Event, party: &Party) {
    let external = party.class.is_external();
    event.set(field::IS_EXTERNAL, external);
    if !external {
        return;
    }
    event.set(field::EXTERNAL_CLASS, party.class.as_str());
    event.set_some(field::EXTERNAL_DOMAIN, party.registrable.clone());
    event.set(field::EXTERNAL_IS_FREE_MAIL, party.is_free_mail);
    if party.is_lookalike {
        event.set(field::EXTERNAL_IS_LOOKALIKE, true);
    }
}

/// Sets `actor` and whether the actor belongs to the tenant.
pub(crate) fn set_actor(event: &mut Event, party: &Party) {
    if party.address.is_empty() {
        return;
    }
    event.set(field::ACTOR, party.address.as_str());
    event.set(
        field::ACTOR_IS_INTERNAL,
        party.class == PartyClass::Internal,
    );
    event.set_some(field::ACTOR_DOMAIN, party.registrable.as_deref());
}

/// Everybody: a link that works for anyone.
pub(crate) fn anyone() -> Party {
    Party {
        address: "anyone".to_owned(),
        domain: None,
        registrable: None,
        class: PartyClass::Anyone,
        is_lookalike: false,
        is_free_mail: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_configuration_the_records_own_organisation_is_internal_and_nothing_else() {
        let none = Domains::default();
        let own = own_domains(
            &none,
            Some("a@contoso.example"),
            ["contoso.onmicrosoft.com"],
        );
        assert!(own.is_internal_domain("sub.contoso.example"));
        assert!(own.is_internal_domain("contoso.onmicrosoft.com"));
        assert!(!own.is_internal_domain("evil.onmicrosoft.com"));
        let own = own_domains(&none, Some("bob@gmail.com"), [""]);
        assert!(own.is_empty(), "a free mailbox is nobody's organisation");
        let guest = "bob_partner.example#EXT#@contoso.onmicrosoft.com";
        assert!(!own_domains(&none, Some(guest), [""]).is_internal_domain("partner.example"));
    }

    #[test]
    fn configured_domains_are_all_there_is() {
        let configured = Domains::new(&["contoso.example"], &[]);
        let own = own_domains(&configured, Some("a@other.example"), ["other.example"]);
        assert!(!own.is_internal_domain("other.example"));
    }
}

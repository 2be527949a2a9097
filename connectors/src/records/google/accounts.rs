//! Sign-in and account activities (`login`, `user_accounts`). The forwarding of mail out of the domain
//! comes in both applications with equal time and qualifier; `item` joins them.

use exfilwatch_model::{Event, PartyClass, field};

use super::super::outside::{set_actor, set_party};
use super::Reading;

/// Adds result, the destination of a forwarding, and the account a warning is about.
pub(super) fn fill(event: &mut Event, reading: &Reading<'_>) {
    let operation = event
        .text(field::OPERATION)
        .unwrap_or_default()
        .into_owned();
    match operation.as_str() {
        "login_failure" => {
            event.set(field::RESULT, "failure");
            let item = event.text(field::ITEM).map(std::borrow::Cow::into_owned);
            event.set_some(field::FAILED_SIGN_IN, item);
        }
        "login_success" => event.set(field::RESULT, "success"),
        "email_forwarding_out_of_domain" => forwarding(event, reading),
        _ => warning(event, reading),
    }
}

/// Warnings of the vendor (`suspicious_login`, `account_disabled_...`) name the account in a
/// parameter, and not always an actor: then the account is the actor, as it is for a sign-in.
fn warning(event: &mut Event, reading: &Reading<'_>) {
    let account = event.text("parameters.affected_email_address");
    let account = account.unwrap_or_default().into_owned();
    let has_actor = event
        .text(field::ACTOR)
        .is_some_and(|text| !text.is_empty());
    if account.is_empty() || has_actor {
        return;
    }
    set_actor(event, &reading.domains.party(&account));
    event.set(field::ACTOR_IS_SYSTEM, false);
}

fn forwarding(event: &mut Event, reading: &Reading<'_>) {
    let destination = event.text("parameters.email_forwarding_destination_address");
    let destination = destination.unwrap_or_default().into_owned();
    let party = reading.domains.party(&destination);
    let mailbox = event.text(field::ACTOR).map(std::borrow::Cow::into_owned);
    event.set_some(field::MAILBOX, mailbox);
    event.set(field::MAILBOX_IS_OTHERS, false);
    event.set(field::FORWARD_VIA, "account_setting");
    event.set(field::IS_REMOVAL, destination.is_empty());
    if destination.is_empty() {
        return;
    }
    // Our list of domains may hold more than the vendor's (other tenants of the same company).
    let direction = match party.class {
        PartyClass::Internal => "internal",
        _ => "external",
    };
    event.set(field::FORWARD_TO, party.address.as_str());
    event.set(field::TARGET, party.address.as_str());
    event.set(field::FORWARD_DIRECTION, direction);
    set_party(event, &party);
    event.set(field::IS_EXTERNAL, direction == "external");
}

//! Attacks in Google Workspace: shares in bulk, a link for anyone, mail forwarding.

use rand::rngs::StdRng;
use serde_json::json;

use super::super::book::Book;
use super::super::drive::{self, File};
use super::super::people::{FREE_MAIL, Person};
use super::super::workspace;
use super::{GOOGLE, MIDNIGHT, MINUTE_MS};

/// Four documents for 56 strangers in 24 minutes: more than 50 distinct outside targets.
pub(crate) fn fan_out(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let script = GOOGLE[0].0;
    let tenant = book.tenant;
    let actor = tenant.person(1);
    // The last domain only looks like the tenant's own.
    let lookalike = format!("not{}", tenant.domain);
    let domains: Vec<&str> = tenant
        .partner_domains()
        .into_iter()
        .chain(FREE_MAIL)
        .chain([lookalike.as_str()])
        .collect();
    let mut ids = Vec::new();
    for document in 0..4_usize {
        let at = start + i64::try_from(document).unwrap_or_default() * 8 * MINUTE_MS;
        let file = File::of(actor, 600 + document);
        let addresses: Vec<String> = (0..14)
            .map(|n| {
                let number = document * 14 + n;
                let domain = domains
                    .get(number % domains.len())
                    .copied()
                    .unwrap_or("gmail.com");
                format!("reader{number}@{domain}")
            })
            .collect();
        let events = addresses
            .iter()
            .enumerate()
            .map(|(n, address)| drive::grant(actor, &file, address, n == 0))
            .collect();
        let id = book.google(drive::activity(actor, at, events, rng), rng);
        for address in &addresses {
            book.drive_share(script, &actor.email, address, (&id, at));
        }
        ids.push((id, at));
    }
    book.due("gws.drive.suspicious_sharing", script, &actor.email, &ids);
}

/// Shares `count` documents with one address, `step_ms` apart, and says what is due.
fn share_many(
    book: &mut Book<'_>,
    (script, start, step_ms): (&str, i64, i64),
    (actor, address, count): (&Person, &str, usize),
    rng: &mut StdRng,
) {
    let mut ids = Vec::new();
    let mut at = start;
    for number in 0..count {
        let file = File::of(actor, 700 + number);
        let events = vec![drive::grant(actor, &file, address, true)];
        let id = book.google(drive::activity(actor, at, events, rng), rng);
        book.drive_share(script, &actor.email, address, (&id, at));
        ids.push((id, at));
        at += step_ms;
    }
    let entity = format!("{} -> {address}", actor.email);
    book.due("gws.drive.mass_share_external", script, &entity, &ids);
    // The shares are also many by themselves, beside the signal for the receiver's domain.
    book.due("gws.drive.external_share", script, &entity, &ids)
        .counted = Some(true);
}

/// 24 documents for one private address in half an hour.
pub(crate) fn mass_share(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let actor = book.tenant.person(2);
    let what = (actor, "weekend.archive@gmail.com", 24);
    share_many(book, (GOOGLE[1].0, start, 75_000), what, rng);
}

/// 48 documents for one address, 24 on each side of midnight UTC.
pub(crate) fn mass_share_across_midnight(book: &mut Book<'_>, midnight: i64, rng: &mut StdRng) {
    let actor = book.tenant.person(3);
    let step = 50_000;
    let what = (actor, "night.owl@proton.me", 48);
    share_many(book, (MIDNIGHT.0, midnight - 24 * step, step), what, rng);
}

/// One document for anyone who has the link.
pub(crate) fn anyone_link(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let actor = book.tenant.person(4);
    let file = File::of(actor, 800);
    let id = drive::open_to_anyone(book, start, rng, (actor, &file));
    let entity = format!("{} -> anyone, document {}", actor.email, file.id);
    book.due(
        "gws.drive.visibility_changed_external",
        GOOGLE[2].0,
        &entity,
        &[(id, start)],
    );
}

/// Forwarding out of the domain, which two applications report with one identity.
pub(crate) fn mail_forwarding(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let actor = book.tenant.person(5);
    let address = "second.inbox@outlook.com";
    let events = [json!({
        "type": "email_forwarding_change",
        "name": "email_forwarding_out_of_domain",
        "parameters": [{ "name": "email_forwarding_destination_address", "value": address }],
    })];
    let ids: Vec<(String, i64)> = workspace::in_two_applications(book, start, rng, actor, &events)
        .into_iter()
        .map(|id| (id, start))
        .collect();
    let entity = format!("{} -> {address}", actor.email);
    book.due("gws.mail.forwarding_external", GOOGLE[3].0, &entity, &ids);
}

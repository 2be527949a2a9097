//! A OneDrive that is shared out, document by document, with one private address.

use rand::rngs::StdRng;

use super::super::book::Book;
use super::super::sharepoint::{Document, share};
use super::{MINUTE_MS, OFFICE365};

/// 22 documents for one guest in 42 minutes.
pub(crate) fn mass_share(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let actor = book.tenant.person(2);
    let address = "moving.boxes@gmail.com";
    let mut ids = Vec::new();
    let mut at = start;
    for number in 0..22 {
        let document = Document::of(book, actor, 200 + number);
        let id = share(book, at, rng, (actor, &document, address));
        ids.push((id, at));
        at += 2 * MINUTE_MS;
    }
    let entity = format!("{} -> {address}", actor.email);
    book.due(
        "o365.sharepoint.mass_share_external",
        OFFICE365[7].0,
        &entity,
        &ids,
    );
}

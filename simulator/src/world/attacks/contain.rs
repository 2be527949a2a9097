//! What defenders do after an attack: the forwarding is emptied, a share and a link are taken back.

use rand::rngs::StdRng;

use super::super::book::Book;
use super::super::drive::{self, File};
use super::super::exchange::Cmdlet;
use super::super::sharepoint::{self, Document};
use super::MINUTE_MS;

/// Takes back what the first script of mail, the share of a OneDrive (its first document) and the link of
/// Drive have opened.
pub(crate) fn contain(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    if tenant.tenant_id.is_some() {
        let mailbox = tenant.person(4);
        let pairs = [
            ("Identity", mailbox.email.as_str()),
            ("ForwardingSmtpAddress", ""),
            ("DeliverToMailboxAndForward", "False"),
        ];
        Cmdlet::new("Set-Mailbox", tenant.admin(), &mailbox.local, &pairs).write(book, at, rng);

        let owner = tenant.person(2);
        let document = Document::of(book, owner, 200);
        let taken = (owner, &document, "moving.boxes@gmail.com");
        sharepoint::taken_back(book, at + MINUTE_MS, rng, taken);
    }
    if tenant.customer_id.is_some() {
        let owner = tenant.person(4);
        drive::close_link(book, at, rng, (owner, &File::of(owner, 800)));
    }
}

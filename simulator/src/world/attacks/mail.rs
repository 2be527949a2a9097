//! Attacks on mail: every path of Exchange that carries an address out, and acts that look alike.

use rand::rngs::StdRng;
use serde_json::json;

use super::super::book::{Book, ORDINARY};
use super::super::drive::{self, File};
use super::super::exchange::{CONTENT, Cmdlet};
use super::super::people::Person;
use super::{MINUTE_MS, OFFICE365};

const EXTERNAL: &str = "o365.mail.forwarding_external";
const MAILBOX: &str = "o365.mail.mailbox_forwarding_enabled";
const USER_MULTI: &str = "o365.mail.forwarding_user_multi";
const INBOX_RULE: &str = "o365.mail.inbox_rule_forwarding";
const TRANSPORT: &str = "o365.mail.transport_rule_forwarding";

/// The network the inbox rules are made from, and the firm that gets some of the mail.
const RULES_FROM: &str = "198.51.100.78";
const FIRM: &str = "harbour-partners.example";

/// Says that each of `detections` is due for one record.
fn due_each(
    book: &mut Book<'_>,
    script: &str,
    entity: &str,
    id: &str,
    at: i64,
    detections: &[&str],
) {
    for detection in detections {
        book.due(detection, script, entity, &[(id.to_owned(), at)]);
    }
}

/// Says that several mailboxes are due as one finding about what they have in common.
fn due_keyed(book: &mut Book<'_>, script: &str, keyed_on: &str, ids: &[(String, i64)]) {
    book.due(USER_MULTI, script, keyed_on, ids).keyed_on = keyed_on.into();
}

/// A user sets forwarding for the own mailbox, in Outlook on the web, and keeps no copy.
pub(crate) fn user_forwarding(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let actor = book.tenant.person(4);
    let address = "quiet.harbour@proton.me";
    let smtp = format!("smtp:{address}");
    let pairs = [
        ("Identity", actor.email.as_str()),
        ("ForwardingSmtpAddress", &smtp),
        ("DeliverToMailboxAndForward", "False"),
    ];
    let mut cmdlet = Cmdlet::new("Set-Mailbox", actor, &actor.local, &pairs);
    cmdlet.ip = "198.51.100.77".into();
    let id = cmdlet.write(book, start, rng);
    let entity = format!("{} -> {address}", actor.email);
    due_each(
        book,
        OFFICE365[0].0,
        &entity,
        &id,
        start,
        &[EXTERNAL, MAILBOX],
    );
}

/// Three users forward to one address, each from another network.
pub(crate) fn user_multi(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let script = OFFICE365[1].0;
    let address = "collector.77@gmail.com";
    // One person's prefix and case differ; it is the same address.
    let spellings = [
        "smtp:collector.77@gmail.com",
        "SMTP:Collector.77@gmail.com",
        "collector.77@gmail.com",
    ];
    let mut ids = Vec::new();
    for (number, spelling) in spellings.iter().enumerate() {
        let actor = book.tenant.person(5 + number);
        let at = start + i64::try_from(number).unwrap_or_default() * 9 * MINUTE_MS;
        let pairs = [
            ("Identity", actor.email.as_str()),
            ("ForwardingSmtpAddress", spelling),
        ];
        let id = Cmdlet::new("Set-Mailbox", actor, &actor.local, &pairs).write(book, at, rng);
        let entity = format!("{} -> {address}", actor.email);
        due_each(book, script, &entity, &id, at, &[EXTERNAL, MAILBOX]);
        ids.push((id, at));
    }
    due_keyed(book, script, address, &ids);
}

/// The administrator points three mailboxes at one recipient object, whose direction is unknown.
pub(crate) fn admin_multi(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let script = OFFICE365[2].0;
    let tenant = book.tenant;
    let recipient = format!(
        "EURPR04A009.PROD.OUTLOOK.COM/Microsoft Exchange Hosted Organizations/{}/Harbour Desk",
        tenant.onmicrosoft
    );
    let mut ids = Vec::new();
    for number in 0..3_usize {
        let mailbox = tenant.person(8 + number);
        let at = start + i64::try_from(number).unwrap_or_default() * 3 * MINUTE_MS;
        let pairs = [
            ("Identity", mailbox.email.as_str()),
            ("ForwardingAddress", &recipient),
        ];
        let cmdlet = Cmdlet::new("Set-Mailbox", tenant.admin(), &mailbox.local, &pairs);
        let id = cmdlet.write(book, at, rng);
        let entity = format!("{} -> {recipient}", mailbox.email);
        due_each(book, script, &entity, &id, at, &[MAILBOX]);
        ids.push((id, at));
    }
    book.due("o365.mail.forwarding_admin_multi", script, &recipient, &ids);
}

/// Rules in two mailboxes, from one network: by Outlook on the web in the first, by desktop Outlook
/// (`UpdateInboxRules`) in the second. Two of the addresses are of one firm.
pub(crate) fn inbox_rules(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let script = OFFICE365[3].0;
    let tenant = book.tenant;
    let actor = tenant.person(7);
    let (third, fourth) = (format!("three@{FIRM}"), format!("four@{FIRM}"));
    // One outsider among colleagues, in the shapes Exchange writes addresses.
    let list = format!(
        "{};Harbour [SMTP:harbour.one@gmail.com]",
        tenant.person(1).email
    );
    let rules = [
        (
            "New-InboxRule",
            "ForwardTo",
            list.as_str(),
            "harbour.one@gmail.com",
        ),
        (
            "Set-InboxRule",
            "RedirectTo",
            "\"Harbour\" <harbour.two@outlook.com>",
            "harbour.two@outlook.com",
        ),
        ("New-InboxRule", "ForwardAsAttachmentTo", &third, &third),
    ];
    let mut at = start;
    let mut ids = Vec::new();
    for (number, (operation, parameter, value, address)) in rules.into_iter().enumerate() {
        let name = format!("Rule {number}");
        let object = format!("{}\\{name}", actor.local);
        let pairs = [
            ("Name", name.as_str()),
            (parameter, value),
            ("StopProcessingRules", "True"),
        ];
        let mut cmdlet = Cmdlet::new(operation, actor, &object, &pairs);
        cmdlet.ip = RULES_FROM.into();
        let id = cmdlet.write(book, at, rng);
        let entity = format!("{} -> {address}", actor.email);
        due_each(book, script, &entity, &id, at, &[EXTERNAL, INBOX_RULE]);
        ids.push((id, at));
        at += 4 * MINUTE_MS;
    }
    let other = tenant.person(8);
    let id = desktop_rule(book, at, rng, (other, &fourth));
    let entity = format!("{} -> {fourth}", other.email);
    due_each(book, script, &entity, &id, at, &[EXTERNAL, INBOX_RULE]);
    ids.push((id, at));
    due_keyed(book, script, RULES_FROM, &ids);
    let of_firm = ids.split_off(2);
    due_keyed(book, script, FIRM, &of_firm);
}

/// A rule made by desktop Outlook: mailbox audit, the rule as JSON text inside a property.
fn desktop_rule(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    (actor, address): (&Person, &str),
) -> String {
    let actions = json!([{
        "ActionType": "ForwardToRecipientsAction",
        "Recipients": [{ "Values": [{ "PropertyTag": { "PropertyId": 12291 }, "Value": address }] }],
    }]);
    let organization = book.tenant.onmicrosoft.clone();
    let members = vec![
        ("Operation", json!("UpdateInboxRules")),
        ("RecordType", json!(2)),
        ("ResultStatus", json!("Succeeded")),
        ("UserKey", json!(actor.puid)),
        ("UserType", json!(0)),
        ("Workload", json!("Exchange")),
        ("ClientIP", json!(RULES_FROM)),
        ("UserId", json!(actor.email)),
        ("ClientInfoString", json!("Client=MSExchangeRPC")),
        ("ExternalAccess", json!(false)),
        ("InternalLogonType", json!(0)),
        ("LogonType", json!(0)),
        ("MailboxOwnerUPN", json!(actor.email)),
        (
            "OperationProperties",
            json!([
                { "Name": "RuleOperation", "Value": "AddMailboxRule" },
                { "Name": "RuleName", "Value": "Archive" },
                { "Name": "RuleState", "Value": "Enabled" },
                { "Name": "RuleActions", "Value": actions.to_string() },
            ]),
        ),
        ("OrganizationName", json!(organization)),
    ];
    book.office365(CONTENT, at, rng, members)
}

/// Transport rules of the administrator, by every parameter that carries an address.
pub(crate) fn transport_rules(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let script = OFFICE365[4].0;
    let admin = book.tenant.admin();
    let partner = book.tenant.at_partner("ledger.two", 0);
    let rules = [
        (
            "New-TransportRule",
            "BlindCopyTo",
            "ledger.one@gmail.com",
            true,
        ),
        ("New-TransportRule", "CopyTo", &partner, true),
        (
            "New-TransportRule",
            "RedirectMessageTo",
            "ledger.three@outlook.com",
            true,
        ),
        (
            "Set-TransportRule",
            "BlindCopyTo",
            "ledger.four@proton.me",
            false,
        ),
        (
            "New-TransportRule",
            "AddToRecipients",
            "ledger.five@gmail.com",
            false,
        ),
    ];
    let mut at = start;
    for (number, (operation, parameter, address, rule_due)) in rules.into_iter().enumerate() {
        let name = format!("Ledger {number}");
        let pairs = [
            ("Name", name.as_str()),
            (parameter, address),
            ("Mode", "Enforce"),
        ];
        let id = Cmdlet::new(operation, admin, &name, &pairs).write(book, at, rng);
        let entity = format!("{} -> {address}", admin.email);
        due_each(book, script, &entity, &id, at, &[EXTERNAL]);
        if rule_due {
            due_each(book, script, &entity, &id, at, &[TRANSPORT]);
        } else {
            book.tolerate(TRANSPORT, &id);
        }
        at += 4 * MINUTE_MS;
    }
}

/// Journal rules of the administrator.
pub(crate) fn journal_rules(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let admin = book.tenant.admin();
    let partner = book.tenant.at_partner("journal.two", 1);
    let mut at = start;
    for (operation, address) in [
        ("New-JournalRule", "journal.one@gmail.com"),
        ("Set-JournalRule", partner.as_str()),
    ] {
        let pairs = [
            ("Name", "Journal"),
            ("JournalEmailAddress", address),
            ("Scope", "Global"),
        ];
        let id = Cmdlet::new(operation, admin, "Journal", &pairs).write(book, at, rng);
        let entity = format!("{} -> {address}", admin.email);
        due_each(book, OFFICE365[5].0, &entity, &id, at, &[EXTERNAL]);
        at += 6 * MINUTE_MS;
    }
}

/// Acts that look like attacks: inside forwarding, a subdomain of the own, an internal copy.
pub(crate) fn decoys(book: &mut Book<'_>, start: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let laboratory = format!("lab@sub.{}", tenant.domain);
    if tenant.tenant_id.is_some() {
        let (leaver, manager) = (tenant.person(11), tenant.person(1));
        let pairs = [
            ("Identity", leaver.email.as_str()),
            ("ForwardingSmtpAddress", manager.email.as_str()),
            ("DeliverToMailboxAndForward", "True"),
        ];
        let id = Cmdlet::new("Set-Mailbox", tenant.admin(), &leaver.local, &pairs)
            .write(book, start, rng);
        let entity = format!("{} -> {}", leaver.email, manager.email);
        due_each(book, ORDINARY, &entity, &id, start, &[MAILBOX]);

        let at = start + MINUTE_MS;
        let pairs = [("Name", "Lab"), ("ForwardTo", laboratory.as_str())];
        let id = Cmdlet::new("New-InboxRule", leaver, "Lab", &pairs).write(book, at, rng);
        let entity = format!("{} -> {laboratory}", leaver.email);
        due_each(book, ORDINARY, &entity, &id, at, &[INBOX_RULE]);

        let at = start + 2 * MINUTE_MS;
        let records = format!("records@{}", tenant.domain);
        let pairs = [("Name", "Records"), ("BlindCopyTo", records.as_str())];
        let id = Cmdlet::new("New-TransportRule", tenant.admin(), "Records", &pairs)
            .write(book, at, rng);
        let entity = format!("{} -> {records}", tenant.admin().email);
        due_each(book, ORDINARY, &entity, &id, at, &[TRANSPORT]);
    }
    if tenant.customer_id.is_some() {
        let actor = tenant.person(10);
        let events = vec![drive::inside_grant(
            actor,
            &File::of(actor, 950),
            &laboratory,
        )];
        book.google(drive::activity(actor, start, events, rng), rng);
    }
}

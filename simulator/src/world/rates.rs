//! Ordinary life by base rates: how often the acts that look like theft happen where nobody steals.
//!
//! The rates are what practitioners saw, for a thousand seats and a day; they are experience and no
//! measurement. What they cannot say is how acts spread over people: here a small part of the staff
//! (sales, support) does most of the sharing, as everywhere.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use super::book::{Book, DAY_MS};
use super::drive::{self, File};
use super::exchange::Cmdlet;
use super::options::WorldOptions;
use super::people::{FREE_MAIL, Person, Tenant};
use super::sharepoint::{self, Document};
use super::{directory, workspace};

/// Acts for a thousand seats and a day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BaseRates {
    /// Documents shared with somebody outside.
    pub external_shares: f64,
    /// Documents opened to anyone with the link.
    pub anyone_links: f64,
    /// Shares with a domain that nobody shared with before.
    pub new_domains: f64,
    /// Inbox rules made or changed.
    pub inbox_rules: f64,
    /// Mailboxes forwarded to a colleague.
    pub internal_forwards: f64,
    /// Laptops that fetch all their owner's files.
    pub laptops: f64,
    /// Files such a laptop fetches.
    pub laptop_files: u32,
    /// Sign-ins that fail.
    pub failed_logins: f64,
}

impl Default for BaseRates {
    fn default() -> Self {
        Self {
            external_shares: 300.0,
            anyone_links: 60.0,
            new_domains: 40.0,
            inbox_rules: 15.0,
            internal_forwards: 3.0,
            laptops: 1.0,
            laptop_files: 10_000,
            failed_logins: 800.0,
        }
    }
}

/// Domains of customers and suppliers that the tenant has worked with for long.
const KNOWN_DOMAINS: usize = 400;

/// One in so many works with people outside every day, and does so much of all sharing.
const OUTGOING_STAFF: usize = 5;
const OUTGOING_SHARES: f64 = 0.8;

/// Something that happens at a time.
type Act = fn(&mut Book<'_>, i64, &mut StdRng);

/// Writes the days of the span down.
pub(crate) fn life(
    book: &mut Book<'_>,
    options: &WorldOptions,
    rates: &BaseRates,
    rng: &mut StdRng,
) {
    let mut from = options.from.timestamp_millis();
    let until = options.until.timestamp_millis();
    while from < until {
        day(book, from, (until - from).min(DAY_MS), rates, rng);
        from += DAY_MS;
    }
}

fn day(book: &mut Book<'_>, from: i64, length: i64, rates: &BaseRates, rng: &mut StdRng) {
    let seats = i32::try_from(book.tenant.people.len()).unwrap_or(i32::MAX);
    let minutes = i32::try_from(length / 60_000).unwrap_or(i32::MAX);
    let part = f64::from(seats) / 1_000.0 * f64::from(minutes) / 1_440.0;
    let acts: [(f64, Act); 5] = [
        (rates.external_shares - rates.new_domains, known_share),
        (rates.new_domains, new_domain_share),
        (rates.anyone_links, anyone_link),
        (rates.inbox_rules, inbox_rule),
        (rates.internal_forwards, internal_forward),
    ];
    for (rate, act) in acts {
        for _ in 0..times(rate * part, rng) {
            act(book, working_time(from, length, rng), rng);
        }
    }
    for _ in 0..times(rates.failed_logins * part, rng) {
        failed_login(book, working_time(from, length, rng), rng);
    }
    for _ in 0..times(rates.laptops * part, rng) {
        new_laptop(
            book,
            working_time(from, length, rng),
            rates.laptop_files,
            rng,
        );
    }
}

/// A whole number that is `mean` on average.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Rates are small and positive.
fn times(mean: f64, rng: &mut StdRng) -> u32 {
    mean as u32 + u32::from(rng.random_bool(mean.fract().clamp(0.0, 1.0)))
}

fn working_time(from: i64, length: i64, rng: &mut StdRng) -> i64 {
    super::office_time(from, from + length, rng)
}

/// Someone who shares: most often one of those whose work it is.
fn sharer<'t>(tenant: &'t Tenant, rng: &mut StdRng) -> &'t Person {
    let outgoing = tenant.people.len() / OUTGOING_STAFF;
    if rng.random_bool(OUTGOING_SHARES) {
        tenant.person(1 + rng.random_range(0..outgoing.max(1)))
    } else {
        tenant.anyone(rng)
    }
}

fn known_share(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    // Few are worked with often, many seldom.
    let mut draw = || rng.random_range(0..KNOWN_DOMAINS);
    let number = draw().min(draw()).min(draw());
    let domain = match rng.random_range(0..100) {
        0..8 => FREE_MAIL[rng.random_range(0..FREE_MAIL.len())].to_owned(),
        _ => format!("customer{number}.example.net"),
    };
    share(book, at, &domain, rng);
}

fn new_domain_share(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let domain = format!("new{:x}.example.net", rng.random::<u32>());
    share(book, at, &domain, rng);
}

fn share(book: &mut Book<'_>, at: i64, domain: &str, rng: &mut StdRng) {
    let actor = sharer(book.tenant, rng);
    let address = format!("contact{}@{domain}", rng.random_range(0..4));
    if rng.random_bool(0.5) {
        let document = Document::of(book, actor, rng.random_range(0..400));
        sharepoint::share(book, at, rng, (actor, &document, &address));
    } else {
        let file = File::of(actor, rng.random_range(0..400));
        let events = vec![drive::grant(actor, &file, &address, true)];
        book.google(drive::activity(actor, at, events, rng), rng);
    }
}

fn anyone_link(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let actor = sharer(book.tenant, rng);
    if rng.random_bool(0.5) {
        let document = Document::of(book, actor, rng.random_range(0..400));
        sharepoint::anonymous_link(book, at, rng, (actor, &document));
    } else {
        let file = File::of(actor, rng.random_range(0..400));
        drive::open_to_anyone(book, at, rng, (actor, &file));
    }
}

/// Most sort newsletters away; one in five sends something to a colleague.
fn inbox_rule(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let person = tenant.anyone(rng);
    let colleague = tenant.anyone(rng);
    let subject = ["Newsletter", "Invoices", "Build reports", "Travel"][rng.random_range(0..4)];
    let object = format!("{}\\{subject}", person.local);
    let mut pairs = vec![("Name", subject), ("SubjectContainsWords", subject)];
    pairs.push(if rng.random_bool(0.2) {
        ("ForwardTo", colleague.email.as_str())
    } else {
        ("MoveToFolder", subject)
    });
    let operation = ["New-InboxRule", "Set-InboxRule"][rng.random_range(0..2)];
    Cmdlet::new(operation, person, &object, &pairs).write(book, at, rng);
}

fn internal_forward(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let (leaver, heir) = (tenant.anyone(rng), tenant.anyone(rng));
    Cmdlet::new(
        "Set-Mailbox",
        tenant.admin(),
        &leaver.local,
        &[
            ("Identity", &leaver.email),
            ("ForwardingAddress", &heir.email),
            ("DeliverToMailboxAndForward", "True"),
        ],
    )
    .write(book, at, rng);
}

fn failed_login(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let person = book.tenant.anyone(rng);
    if rng.random_bool(0.5) {
        directory::failed_login(book, at, rng, person);
    } else {
        workspace::failed_login(book, at, rng, person);
    }
}

/// A laptop is handed out and fetches its owner's files at one a half second.
fn new_laptop(book: &mut Book<'_>, at: i64, files: u32, rng: &mut StdRng) {
    let owner = book.tenant.anyone(rng);
    let machine = json!(super::book::new_guid(rng).to_string());
    for number in 0..files {
        let document = Document::of(book, owner, usize::try_from(number).unwrap_or_default());
        let at = at + i64::from(number) * 500;
        sharepoint::synced(book, at, rng, (owner, &document, &machine));
    }
}

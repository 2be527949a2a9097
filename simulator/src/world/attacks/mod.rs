//! The scripted attacks: who does what, when, and which findings are due for it.
//!
//! Every script is a function of (book, start, rng) that writes records and, in the same breath,
//! what a correct detector must say of them. Decoys are acts that look alike and are none.

mod contain;
mod drive;
mod ediscovery;
mod library;
mod mail;
mod sharepoint;

use rand::rngs::StdRng;

use super::book::{Book, DAY_MS};
use super::options::{AttackPlan, WorldOptions};

pub(crate) use self::contain::contain;
pub use self::library::PEOPLE_MIN;
pub(crate) use self::mail::decoys;

/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;
/// No script but the one across midnight lasts longer than this.
const SCRIPT_MS_MAX: i64 = 50 * MINUTE_MS;

type Script = fn(&mut Book<'_>, i64, &mut StdRng);

const OFFICE365: [(&str, Script); 8] = [
    (
        "a user forwards all mail to a private address",
        mail::user_forwarding,
    ),
    (
        "three mailboxes forward to one private address",
        mail::user_multi,
    ),
    (
        "an administrator points three mailboxes at one recipient",
        mail::admin_multi,
    ),
    ("inbox rules send mail outside", mail::inbox_rules),
    ("transport rules copy mail outside", mail::transport_rules),
    ("journal rules copy mail outside", mail::journal_rules),
    (
        "a mailbox search is exported and downloaded",
        ediscovery::export,
    ),
    (
        "a OneDrive is shared out document by document",
        sharepoint::mass_share,
    ),
];

const GOOGLE: [(&str, Script); 4] = [
    ("one document goes to dozens of strangers", drive::fan_out),
    (
        "many documents go to one private address",
        drive::mass_share,
    ),
    (
        "a document is opened to anyone with the link",
        drive::anyone_link,
    ),
    (
        "mail is forwarded out of the domain",
        drive::mail_forwarding,
    ),
];

const MIDNIGHT: (&str, Script) = (
    "many documents go to one address across midnight",
    drive::mass_share_across_midnight,
);

/// Names of all scripts, as they stand in [`crate::DueFinding::script`].
pub const SCRIPTS: [&str; 13] = [
    OFFICE365[0].0,
    OFFICE365[1].0,
    OFFICE365[2].0,
    OFFICE365[3].0,
    OFFICE365[4].0,
    OFFICE365[5].0,
    OFFICE365[6].0,
    OFFICE365[7].0,
    GOOGLE[0].0,
    GOOGLE[1].0,
    GOOGLE[2].0,
    GOOGLE[3].0,
    MIDNIGHT.0,
];

/// Runs every script that fits the tenant, at the times of the plan.
pub(crate) fn run(book: &mut Book<'_>, options: &WorldOptions, rng: &mut StdRng) {
    let mut scripts: Vec<Script> = Vec::new();
    // The two clouds take turns, so that a watcher sees both early on.
    for number in 0..OFFICE365.len() {
        if let (true, Some(script)) = (book.tenant.tenant_id.is_some(), OFFICE365.get(number)) {
            scripts.push(script.1);
        }
        if let (true, Some(script)) = (book.tenant.customer_id.is_some(), GOOGLE.get(number)) {
            scripts.push(script.1);
        }
    }
    let (from, until) = (
        options.from.timestamp_millis(),
        options.until.timestamp_millis(),
    );
    let count = i64::try_from(scripts.len()).unwrap_or(1).max(1);
    let (first, step) = match &options.attacks {
        AttackPlan::Quiet => return,
        AttackPlan::Library { first, step } => {
            let (first, step) = (first.timestamp_millis(), step.num_milliseconds());
            return library::run(book, first, step, rng);
        }
        AttackPlan::Spread => (from + (until - from) / 20, (until - from) * 3 / 4 / count),
        AttackPlan::Stepped { first, step } => (first.timestamp_millis(), step.num_milliseconds()),
    };
    let mut start = first;
    for script in scripts {
        script(book, inside_one_day(start, until), rng);
        start += step;
    }
    let midnight = (from.div_euclid(DAY_MS) + 1) * DAY_MS;
    let room = 2 * SCRIPT_MS_MAX;
    if book.tenant.customer_id.is_some() && midnight - from > room && until - midnight > room {
        (MIDNIGHT.1)(book, midnight, rng);
    }
}

/// The middle of the span, for decoys.
pub(crate) fn middle(options: &WorldOptions) -> i64 {
    let (from, until) = (
        options.from.timestamp_millis(),
        options.until.timestamp_millis(),
    );
    inside_one_day(from + (until - from) / 2, until)
}

/// The start, moved behind midnight where the script would cross it and the span has room.
fn inside_one_day(start: i64, until: i64) -> i64 {
    let midnight = (start.div_euclid(DAY_MS) + 1) * DAY_MS;
    let crosses = start + SCRIPT_MS_MAX >= midnight;
    if crosses && midnight + SCRIPT_MS_MAX < until {
        midnight + MINUTE_MS
    } else {
        start
    }
}

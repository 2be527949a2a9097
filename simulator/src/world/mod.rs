//! The world: tenants, a span of office life, scripted attacks, and how it is all delivered.
//!
//! A world is invented whole at the start, from its options alone; the servers only decide by the
//! clock what is visible yet. The same options give the same bytes.

mod attacks;
mod book;
mod delivery;
mod directory;
mod drive;
mod exchange;
mod options;
mod people;
mod rates;
mod sharepoint;
mod workspace;

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use self::attacks::{PEOPLE_MIN, SCRIPTS};
pub(crate) use self::book::{milliseconds_with_zone, seconds_without_zone};
pub(crate) use self::delivery::{Blob, RETENTION_GOOGLE_MS, RETENTION_OFFICE365_MS};
pub use self::options::{AttackPlan, Delivery, TenantOptions, WorldOptions};
pub use self::people::{FREE_MAIL, PARTNER_DOMAINS, Person, Tenant};
pub use self::rates::BaseRates;
use crate::sheet::Sheet;

/// The five content types of the Management Activity API.
pub const CONTENT_TYPES: [&str; 5] = [
    "Audit.AzureActiveDirectory",
    "Audit.Exchange",
    "Audit.SharePoint",
    "Audit.General",
    "DLP.All",
];

/// A whole world and its answer sheet.
#[derive(Debug)]
pub struct World {
    options: WorldOptions,
    tenants: Vec<Tenant>,
    sheet: Sheet,
    /// Blobs by (tenant number, content type), in order of creation.
    pub(crate) blobs: BTreeMap<(usize, &'static str), Vec<Blob>>,
    /// Record numbers by (tenant number, application), newest first.
    pub(crate) activities: BTreeMap<(usize, String), Vec<usize>>,
}

impl World {
    /// Invents the world the options describe.
    pub fn invent(options: WorldOptions) -> Self {
        let mut rng = part_rng(options.seed, 0, 0);
        let tenants: Vec<Tenant> = options
            .tenants
            .iter()
            .map(|tenant| Tenant::invent(tenant, &mut rng))
            .collect();
        let mut world = Self {
            tenants,
            sheet: Sheet::default(),
            blobs: BTreeMap::new(),
            activities: BTreeMap::new(),
            options,
        };
        for number in 0..world.tenants.len() {
            world.live(number);
        }
        world
    }

    /// The options it was made from.
    pub fn options(&self) -> &WorldOptions {
        &self.options
    }

    /// The tenants, in the order of the options.
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// What was produced and what is due.
    pub fn sheet(&self) -> &Sheet {
        &self.sheet
    }

    /// Native records of one stream in event order, to feed `forward` and `replay`.
    pub fn records<'a>(
        &'a self,
        tenant: &'a str,
        stream: &'a str,
    ) -> impl Iterator<Item = (&'a str, Bytes)> + 'a {
        self.sheet.records_of(tenant, stream)
    }

    fn live(&mut self, number: usize) {
        let Some(tenant) = self.tenants.get(number).cloned() else {
            return;
        };
        let options = self.options.clone();
        let mut book = book::Book::new(&tenant);
        let mut rng = part_rng(options.seed, number, 1);
        ordinary_life(&mut book, &options, &mut rng);
        if let Some(rates) = &options.base_rates {
            rates::life(&mut book, &options, rates, &mut rng);
        }
        let mut rng = part_rng(options.seed, number, 2);
        attacks::decoys(&mut book, attacks::middle(&options), &mut rng);
        if number == 0 {
            attacks::run(&mut book, &options, &mut rng);
            if let Some(at) = options.contained {
                attacks::contain(&mut book, at.timestamp_millis(), &mut rng);
            }
        }
        book.close();
        self.sheet.due.append(&mut book.due);
        self.sheet.tolerated.append(&mut book.tolerated);
        let drafts = std::mem::take(&mut book.drafts);
        let mut rng = part_rng(options.seed, number, 3);
        delivery::deliver(self, (number, &tenant), drafts, &mut rng);
    }

    pub(crate) fn sheet_mut(&mut self) -> &mut Sheet {
        &mut self.sheet
    }
}

/// A source of randomness of its own for each tenant and part, so that one does not disturb another.
fn part_rng(seed: u64, tenant: usize, part: u64) -> StdRng {
    let tenant = u64::try_from(tenant).unwrap_or(u64::MAX);
    StdRng::seed_from_u64(seed ^ tenant.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (part << 56))
}

fn ordinary_life(book: &mut book::Book<'_>, options: &WorldOptions, rng: &mut StdRng) {
    let from = options.from.timestamp_millis();
    let until = options.until.timestamp_millis().max(from + 1);
    let count =
        i128::from(until - from) * i128::from(options.records_per_day) / i128::from(book::DAY_MS);
    let (office365, google) = (
        book.tenant.tenant_id.is_some(),
        book.tenant.customer_id.is_some(),
    );
    for _ in 0..count {
        let at = office_time(from, until, rng);
        let microsoft = match (office365, google) {
            (true, true) => rng.random_bool(0.6),
            (true, false) => true,
            (false, true) => false,
            (false, false) => return,
        };
        if microsoft {
            match rng.random_range(0..100) {
                0..45 => exchange::ordinary(book, at, rng),
                45..75 => sharepoint::ordinary(book, at, rng),
                75..90 => directory::entra(book, at, rng),
                90..98 => directory::general(book, at, rng),
                _ => directory::dlp(book, at, rng),
            }
        } else if rng.random_bool(0.6) {
            drive::ordinary(book, at, rng);
        } else {
            workspace::ordinary(book, at, rng);
        }
    }
}

/// A moment of the span; most are in office hours (7 to 19 o'clock UTC).
fn office_time(from: i64, until: i64, rng: &mut StdRng) -> i64 {
    let mut at = from;
    for _ in 0..8 {
        at = rng.random_range(from..until);
        let hour = at.rem_euclid(book::DAY_MS) / 3_600_000;
        if (7..19).contains(&hour) || rng.random_bool(0.25) {
            break;
        }
    }
    at
}

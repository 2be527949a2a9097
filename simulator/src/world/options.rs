//! What a world is made from: seed, span, tenants, volume, delivery habits and attacks.

use chrono::{DateTime, TimeDelta, Utc};

use super::rates::BaseRates;

/// One customer of both clouds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantOptions {
    /// Alias; names the tenant in the sheet.
    pub alias: String,
    /// Mail domain; its users live here.
    pub domain: String,
    /// Whether it has an Office 365 tenant (`<alias>.onmicrosoft.com`).
    pub office365: bool,
    /// Whether it has a Google Workspace.
    pub google: bool,
    /// Number of people, at least 12.
    pub people: usize,
}

impl TenantOptions {
    /// A tenant of both clouds with 24 people and the domain `<alias>.example`.
    pub fn new(alias: &str) -> Self {
        Self {
            alias: alias.to_owned(),
            domain: format!("{alias}.example"),
            office365: true,
            google: true,
            people: 24,
        }
    }
}

/// How the services hand records out.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Office 365: least and greatest usual delay from event to blob.
    pub blob_delay: (TimeDelta, TimeDelta),
    /// Office 365: width of a blob in time.
    pub blob_width: TimeDelta,
    /// Office 365: records a blob at most.
    pub blob_records_max: usize,
    /// Office 365: whether records stand in no order inside a blob.
    pub shuffled: bool,
    /// Office 365: share of records that come hours late.
    pub late_share: f64,
    /// Office 365: how late those are at most.
    pub late_max: TimeDelta,
    /// Office 365: share of records that come again in a later blob.
    pub twice_share: f64,
    /// Office 365: share of blobs listed a second time at a later `contentCreated`.
    pub relisted_share: f64,
    /// Office 365: share of blobs that are listed before they can be read (404 AF20050).
    pub unready_share: f64,
    /// Office 365: how long such a blob stays unreadable.
    pub unready: TimeDelta,
    /// Google: least and greatest usual lag.
    pub google_lag: (TimeDelta, TimeDelta),
    /// Google: share of items that come much later.
    pub google_late_share: f64,
    /// Google: how late those are at most.
    pub google_late_max: TimeDelta,
}

impl Default for Delivery {
    /// As the services were seen to behave.
    fn default() -> Self {
        Self {
            blob_delay: (TimeDelta::minutes(2), TimeDelta::minutes(60)),
            blob_width: TimeDelta::minutes(5),
            blob_records_max: 250,
            shuffled: true,
            late_share: 0.02,
            late_max: TimeDelta::hours(20),
            twice_share: 0.04,
            relisted_share: 0.05,
            unready_share: 0.03,
            unready: TimeDelta::minutes(4),
            google_lag: (TimeDelta::seconds(20), TimeDelta::seconds(170)),
            google_late_share: 0.02,
            google_late_max: TimeDelta::hours(3),
        }
    }
}

impl Delivery {
    /// Everything at once, once and in order: for demonstrations and plain tests.
    pub fn prompt() -> Self {
        Self {
            blob_delay: (TimeDelta::seconds(1), TimeDelta::seconds(20)),
            blob_width: TimeDelta::seconds(30),
            shuffled: false,
            late_share: 0.0,
            twice_share: 0.0,
            relisted_share: 0.0,
            unready_share: 0.0,
            google_lag: (TimeDelta::milliseconds(100), TimeDelta::seconds(5)),
            google_late_share: 0.0,
            ..Self::default()
        }
    }
}

/// When the scripted attacks happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttackPlan {
    /// None: ordinary life only.
    Quiet,
    /// All of them, evenly over the span (from 5 % to 80 % of it).
    Spread,
    /// Every act of the library in `simulator/acts/`, one for each detection that must be there, each by
    /// people of its own: a tenant needs [`super::PEOPLE_MIN`] of them.
    Library {
        /// Start of the first.
        first: DateTime<Utc>,
        /// From the start of one to the start of the next.
        step: TimeDelta,
    },
    /// All of them, the first at a time, each later one a step after the one before.
    Stepped {
        /// Start of the first.
        first: DateTime<Utc>,
        /// From the start of one to the start of the next.
        step: TimeDelta,
    },
}

/// Everything a world depends on. The same options give the same world, byte for byte.
#[derive(Debug, Clone, PartialEq)]
pub struct WorldOptions {
    /// Seed of all draws.
    pub seed: u64,
    /// Start of the span.
    pub from: DateTime<Utc>,
    /// End of the span.
    pub until: DateTime<Utc>,
    /// Ordinary records a day and tenant, over both clouds.
    pub records_per_day: u32,
    /// How often, beside those, the acts happen that look like theft; none where absent. What is due
    /// for them is not on the sheet: they measure how loud the rules are, not what they find.
    pub base_rates: Option<BaseRates>,
    /// The tenants.
    pub tenants: Vec<TenantOptions>,
    /// Delivery habits.
    pub delivery: Delivery,
    /// Attacks; the first tenant suffers all of them.
    pub attacks: AttackPlan,
    /// When the defenders take back some of what the attacks opened; never where absent.
    pub contained: Option<DateTime<Utc>>,
}

impl WorldOptions {
    /// One tenant (`contoso`), 2,000 records a day, attacks spread over the span.
    pub fn new(seed: u64, from: DateTime<Utc>, until: DateTime<Utc>) -> Self {
        Self {
            seed,
            from,
            until,
            records_per_day: 2_000,
            base_rates: None,
            tenants: vec![TenantOptions::new("contoso")],
            delivery: Delivery::default(),
            attacks: AttackPlan::Spread,
            contained: None,
        }
    }
}

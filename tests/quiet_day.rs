//! How loud the rules are where nobody steals: a day at the base rates of 5,000 seats, after a week of
//! the same, through the real readers and the real engine with default settings. A figure that must not
//! get worse unnoticed; no evidence about real tenants.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

mod offline;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_detectors::{DetectorsOptions, Engine, RuleSet};
use exfilwatch_model::{Finding, Severity};
use exfilwatch_simulator::{AttackPlan, BaseRates, TenantOptions, World, WorldOptions};
use offline::Offline;

/// Alerts that a day may raise, in all and of level high or above.
const ALERTS_MAX: usize = 100;
const HIGH_ALERTS_MAX: usize = 20;

/// Records between two looks at what there is to say, as a poller's pages are.
const PAGE_RECORDS: usize = 500;

fn world() -> World {
    let day: DateTime<Utc> = "2026-05-12T00:00:00Z".parse().unwrap();
    World::invent(WorldOptions {
        tenants: vec![TenantOptions {
            people: 5_000,
            ..TenantOptions::new("contoso")
        }],
        attacks: AttackPlan::Quiet,
        base_rates: Some(BaseRates::default()),
        records_per_day: 4_000,
        ..WorldOptions::new(5, day - TimeDelta::days(7), day + TimeDelta::days(1))
    })
}

/// Every finding that was an alert at some time and whose last event lies on the last day.
fn alerts(world: &World) -> BTreeMap<String, Finding> {
    let rules = Arc::new(RuleSet::load(&DetectorsOptions::default()).unwrap());
    let tenant = &world.tenants()[0];
    let mut offline = Offline::new(rules, tenant);
    let mut records: Vec<_> = world.sheet().records.iter().collect();
    records.sort_by_key(|record| record.event_ms);
    let mut alerts = BTreeMap::new();
    let mut hear = |engine: &mut Engine| {
        for finding in engine.collect(DateTime::UNIX_EPOCH) {
            if finding.alert {
                alerts.insert(finding.uid.to_string(), finding);
            }
        }
    };
    for page in records.chunks(PAGE_RECORDS) {
        for record in page {
            offline.observe(record);
        }
        hear(&mut offline.engine);
    }
    offline.engine.settle(DateTime::<Utc>::MAX_UTC);
    hear(&mut offline.engine);
    let day = world.options().until - TimeDelta::days(1);
    alerts.retain(|_, finding| finding.last_time >= day);
    alerts
}

#[test]
fn a_quiet_day_of_five_thousand_seats_is_quiet() {
    let world = world();
    println!("{} records", world.sheet().records.len());
    let alerts = alerts(&world);
    let mut table: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for finding in alerts.values() {
        let key = (finding.rule.detection.as_str(), finding.severity.as_str());
        *table.entry(key).or_default() += 1;
    }
    for ((detection, severity), count) in &table {
        println!("{count:>5}  {severity:<8}  {detection}");
    }
    let high = alerts
        .values()
        .filter(|finding| finding.severity >= Severity::High)
        .count();
    println!("{} alerts, {high} of them high or above", alerts.len());
    assert!(
        high <= HIGH_ALERTS_MAX,
        "{high} alerts of level high: {table:?}"
    );
    assert!(
        alerts.len() <= ALERTS_MAX,
        "{} alerts: {table:?}",
        alerts.len()
    );
}

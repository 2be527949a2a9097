//! Judges the rules by the simulator's answer sheet, offline: whole invented worlds through the real
//! readers and the real engine, at one go and in the order of the sheet. Everything that is due
//! must be found under its one id, and nothing else.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod offline;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_detectors::{DetectorsOptions, RuleSet};
use exfilwatch_model::Finding;
use exfilwatch_simulator::sheet::DETECTIONS;
use exfilwatch_simulator::world::Tenant;
use exfilwatch_simulator::{
    AttackPlan, SeenFinding, Sheet, TenantOptions, Verdict, World, WorldOptions,
};
use offline::Offline;

/// Seeds of the worlds; each plan is tried with all of them.
const SEEDS: [u64; 3] = [1, 7, 2026];

fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn rules() -> Arc<RuleSet> {
    Arc::new(RuleSet::load(&DetectorsOptions::default()).unwrap_or_else(|error| panic!("{error}")))
}

/// Two tenants; the second one's domain is among the partners the first one shares with.
fn options(seed: u64, from: &str, length: TimeDelta) -> WorldOptions {
    let from = time(from);
    WorldOptions {
        tenants: vec![
            TenantOptions::new("contoso"),
            TenantOptions::new("fabrikam"),
        ],
        ..WorldOptions::new(seed, from, from + length)
    }
}

/// The final findings of one tenant, by the way of the pipeline: look, normalise what is wanted,
/// detect.
fn findings(rules: &Arc<RuleSet>, sheet: &Sheet, tenant: &Tenant) -> Vec<Finding> {
    let mut offline = Offline::new(Arc::clone(rules), tenant);
    let own = |record: &&exfilwatch_simulator::Record| *record.tenant == *tenant.alias;
    for record in sheet.records.iter().filter(own) {
        offline.observe(record);
    }
    offline.engine.settle(DateTime::<Utc>::MAX_UTC);
    offline.engine.collect(DateTime::UNIX_EPOCH)
}

fn seen(finding: &Finding) -> SeenFinding {
    SeenFinding {
        detection: finding.rule.detection.clone(),
        tenant: finding.tenant.to_string(),
        uid: finding.uid.to_string(),
        entity: finding.entity.clone(),
        counted: Some(finding.window_seconds.is_some()),
        external_domain: finding.external_domain.clone().unwrap_or_default(),
        event_ids: finding.event_ids.clone(),
    }
}

/// What is wrong with a verdict, one line for each; the findings that name its events beside it.
fn faults(seed: u64, verdict: &Verdict, seen: &[SeenFinding]) -> Vec<String> {
    let told = |ids: &[String], detection: &str| -> Vec<&SeenFinding> {
        seen.iter()
            .filter(|finding| finding.detection == detection)
            .filter(|finding| finding.event_ids.iter().any(|id| ids.contains(id)))
            .collect()
    };
    let missing = verdict.missing.iter().map(|due| {
        let found = told(&due.event_ids, &due.detection);
        format!("seed {seed}, missing: {due:?}\n  found: {found:?}")
    });
    let split = verdict.split.iter().map(|(due, uids)| {
        let found = told(&due.event_ids, &due.detection);
        format!("seed {seed}, under {uids:?}: {due:?}\n  found: {found:?}")
    });
    let unexpected = verdict.unexpected.iter();
    let unexpected = unexpected.map(|finding| format!("seed {seed}, nobody ordered {finding:?}"));
    missing.chain(split).chain(unexpected).collect()
}

/// Invents, detects and judges each world; all faults of all of them are told at once.
fn judge(worlds: impl Iterator<Item = WorldOptions>) {
    let rules = rules();
    let mut wrong = Vec::new();
    for options in worlds {
        let seed = options.seed;
        let quiet = options.attacks == AttackPlan::Quiet;
        let world = World::invent(options);
        let seen: Vec<SeenFinding> = world
            .tenants()
            .iter()
            .flat_map(|tenant| findings(&rules, world.sheet(), tenant))
            .map(|finding| seen(&finding))
            .collect();
        let verdict = world.sheet().judge(&seen);
        wrong.extend(faults(seed, &verdict, &seen));
        let mut met: BTreeMap<&str, usize> = BTreeMap::new();
        for (due, _) in &verdict.met {
            *met.entry(&due.detection).or_default() += 1;
        }
        println!("seed {seed}, met: {met:?}");
        for detection in DETECTIONS.iter().filter(|_| !quiet) {
            if !met.contains_key(detection) {
                wrong.push(format!("seed {seed}, never met: {detection}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_week_of_spread_attacks_is_found_whole_and_nothing_beside_it() {
    judge(
        SEEDS
            .into_iter()
            .zip([600, 1_200, 2_000])
            .map(|(seed, records_per_day)| WorldOptions {
                records_per_day,
                ..options(seed, "2026-03-02T06:00:00Z", TimeDelta::days(7))
            }),
    );
}

#[test]
fn attacks_in_quick_succession_are_found_whole_and_nothing_beside_them() {
    let volumes_and_steps = [(600, 30), (2_000, 5), (4_000, 14)];
    judge(SEEDS.into_iter().zip(volumes_and_steps).map(
        |(seed, (records_per_day, step_minutes))| {
            let options = options(seed, "2026-03-03T08:00:00Z", TimeDelta::hours(8));
            let first = options.from + TimeDelta::minutes(20);
            WorldOptions {
                records_per_day,
                attacks: AttackPlan::Stepped {
                    first,
                    step: TimeDelta::minutes(step_minutes),
                },
                ..options
            }
        },
    ));
}

#[test]
fn a_tenant_that_is_a_partner_of_others_is_attacked_like_any() {
    judge(
        ["fabrikam", "litware"]
            .into_iter()
            .map(|alias| WorldOptions {
                tenants: vec![TenantOptions::new(alias)],
                ..options(3, "2026-03-02T06:00:00Z", TimeDelta::days(3))
            }),
    );
}

#[test]
fn quiet_weeks_raise_what_ordinary_life_is_due_and_no_more() {
    judge(SEEDS.into_iter().map(|seed| WorldOptions {
        attacks: AttackPlan::Quiet,
        ..options(seed, "2026-03-02T06:00:00Z", TimeDelta::days(7))
    }));
}

//! A week of two clouds in minutes, with late, doubled and reordered content and an outage of three
//! days in it; the binary is killed two dozen times on the way. In the end the receiver holds
//! every record, and each due finding under exactly one id.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::scene::{Scene, until};

/// Virtual seconds per real second: a week in two minutes.
const RATE: f64 = 5_000.0;
/// Virtual seconds per real second afterwards, while what the outage left is fetched.
const RATE_AFTERWARDS: f64 = 60.0;
/// Kills on the way.
const KILLS: i32 = 24;

fn start() -> DateTime<Utc> {
    "2026-05-04T00:00:00Z".parse().unwrap()
}

/// Everything fails for three days, and now and then one call in ten.
fn faults() -> FaultScript {
    let outage = |endpoint| {
        FaultRule::new(endpoint, Fault::Outage)
            .between(start() + TimeDelta::days(2), start() + TimeDelta::days(5))
    };
    let now_and_then = |endpoint, fault| FaultRule::new(endpoint, fault).with_probability(0.03);
    FaultScript {
        seed: 11,
        rules: vec![
            outage(Endpoint::Microsoft),
            outage(Endpoint::Google),
            now_and_then(Endpoint::Blob, Fault::Truncate { bytes: 300 }),
            now_and_then(Endpoint::Any, Fault::Reset),
            now_and_then(
                Endpoint::ContentList,
                Fault::Throttle {
                    retry_after_seconds: None,
                },
            ),
            now_and_then(
                Endpoint::Activities,
                Fault::Throttle {
                    retry_after_seconds: None,
                },
            ),
            now_and_then(Endpoint::HecEvent, Fault::ResetAfter),
        ],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_with_an_outage_and_two_dozen_kills_loses_nothing() {
    let seed = 20_260_504;
    let world = WorldOptions {
        records_per_day: 300,
        ..WorldOptions::new(seed, start(), start() + TimeDelta::days(7))
    };
    let options = SimulatorOptions {
        start: Some(start()),
        rate: RATE,
        faults: faults(),
        ..SimulatorOptions::default()
    };
    let scene = Scene::new(world, options).await;
    let clock = scene.services.simulator.clock().clone();
    let mut rng = StdRng::seed_from_u64(seed);
    let end = start() + TimeDelta::days(7);
    for kill in 0..KILLS {
        let process = scene.start();
        let next = start() + (end - start()) * (kill + 1) / (KILLS + 1);
        let next = next + TimeDelta::minutes(rng.random_range(-120..120));
        until("the next kill", || clock.now() >= next, String::new).await;
        process.kill();
    }
    // By then the last late record is out, and nothing of before the outage has expired.
    clock.set(end + TimeDelta::days(1));
    clock.set_rate(RATE_AFTERWARDS);
    scene
        .services
        .simulator
        .faults()
        .replace(FaultScript::default());
    let process = scene.start();
    until(
        "every record at the receiver",
        || scene.missing().is_empty(),
        || scene.report(),
    )
    .await;
    let sheet = scene.services.simulator.sheet();
    let judge = || {
        let seen: Vec<_> = scene.delivered().into_values().collect();
        sheet.judge_growing(&seen)
    };
    until(
        "every due finding",
        || judge().missing.is_empty(),
        || format!("{:#?}", judge().missing),
    )
    .await;
    let at_collector = || scene.at_collector().len();
    let delivered = scene.delivered().len();
    until(
        "every finding at the receiver",
        || at_collector() == delivered,
        || format!("{} of {delivered}", at_collector()),
    )
    .await;
    assert_eq!(process.terminate().await, Some(0));
    let verdict = judge();
    assert!(
        verdict.split.is_empty(),
        "under more than one id: {:#?}",
        verdict.split
    );
    assert!(
        verdict.unexpected.is_empty(),
        "nobody ordered: {:#?}",
        verdict.unexpected
    );
    let recorded = scene.services.simulator.hec().recorded();
    assert!(recorded.unknown(sheet).is_empty());
    println!(
        "{} records, {} due findings met, {} repeats at the receiver after {KILLS} kills",
        sheet.records.len(),
        verdict.met.len(),
        recorded.duplicates()
    );
    scene.services.shutdown().await;
}

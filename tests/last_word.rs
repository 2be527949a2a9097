//! The last word: a live line that saw records in any order and in many pages says in the end, once
//! nothing more can come, exactly what a replay of the same records finds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{Effects, Input, Purpose, Readers, Step, StepConfig};
use exfilwatch_detectors::{DetectorsOptions, Engine, RuleSet};
use exfilwatch_model::{Finding, JobId, Page, Product, RawRecord, StreamId, TenantId};
use exfilwatch_simulator::{World, WorldOptions};
use exfilwatch_state::{MemoryStore, Position, SeenBudget, StateStore};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

fn start() -> DateTime<Utc> {
    "2026-05-04T00:00:00Z".parse().unwrap()
}

/// Whom, how much, which records, how bad, when: what must not depend on the way.
type State = (
    String,
    u64,
    Vec<String>,
    String,
    DateTime<Utc>,
    DateTime<Utc>,
);

fn state(finding: &Finding) -> State {
    let mut ids = finding.event_ids.clone();
    ids.sort();
    let severity = finding.severity.as_str().to_owned();
    (
        finding.entity.clone(),
        finding.count,
        ids,
        severity,
        finding.first_time,
        finding.last_time,
    )
}

struct Case {
    readers: Readers,
    rules: Arc<RuleSet>,
    tenant: TenantId,
    records: Vec<(Product, RawRecord)>,
}

fn case() -> Case {
    let options = WorldOptions {
        records_per_day: 400,
        ..WorldOptions::new(21, start(), start() + TimeDelta::days(3))
    };
    let world = World::invent(options);
    let domains = world.tenants()[0].internal_domains();
    let product = |stream: &str| match stream.split_once('/') {
        Some(("office365", _)) => Product::M365,
        _ => Product::GoogleWorkspace,
    };
    let records = world.sheet().records.iter();
    let records = records
        .map(|r| (product(&r.stream), RawRecord::new(r.body.clone())))
        .collect();
    Case {
        readers: app::readers(&domains, &[]),
        rules: app::rules(&DetectorsOptions::default()).unwrap(),
        tenant: TenantId::new("contoso").unwrap(),
        records,
    }
}

fn replayed(case: &Case) -> BTreeMap<uuid::Uuid, State> {
    let job = JobId::new("replay").unwrap();
    let mut engine = Engine::new(case.rules.clone(), case.tenant.clone(), job);
    for (product, record) in &case.records {
        for event in case
            .readers
            .of(*product)
            .normalise(record, start())
            .unwrap()
        {
            engine.observe(&event);
        }
    }
    engine.settle(DateTime::<Utc>::MAX_UTC);
    engine
        .collect(start())
        .iter()
        .map(|finding| (finding.uid, state(finding)))
        .collect()
}

/// Applies what a step gave, as the pipeline would, and notes the findings.
fn apply(
    effects: Effects,
    memory: &TenantMemory,
    store: &MemoryStore,
    found: &mut BTreeMap<uuid::Uuid, State>,
) {
    store
        .apply(std::slice::from_ref(&effects.commit), Position::default())
        .unwrap();
    if let Some(plan) = effects.seen {
        memory.seen().remember(plan);
    }
    found.extend(
        effects
            .findings
            .iter()
            .map(|finding| (finding.uid, state(finding))),
    );
}

#[test]
fn a_live_line_ends_where_a_replay_ends_whatever_the_order_and_the_restarts() {
    let mut case = case();
    let wanted = replayed(&case);
    assert!(
        wanted.len() > 50,
        "{} findings are too few to prove anything",
        wanted.len()
    );
    case.records.shuffle(&mut StdRng::seed_from_u64(4));
    let store = MemoryStore::new([3; 16]).unwrap();
    let today = start().date_naive();
    let budget = SeenBudget::new(1_000_000);
    let load = || TenantMemory::load(&store, case.tenant.clone(), today, budget.clone()).unwrap();
    let config = |memory: &TenantMemory| StepConfig {
        memory: memory.clone(),
        job: JobId::live(),
        readers: case.readers.clone(),
        rules: case.rules.clone().into(),
        forwards_events: true,
        purpose: Purpose::Deliver,
        live_since: start(),
    };
    let stream: StreamId = "contoso/office365/Audit.Exchange".parse().unwrap();
    let mut memory = load();
    let mut step = Step::restore(config(&memory), &store).unwrap();
    let mut found = BTreeMap::new();
    for (number, records) in case.records.chunks(97).enumerate() {
        let products: Vec<Product> = records.iter().map(|(product, _)| *product).collect();
        let page = Page {
            stream: stream.clone(),
            item: number.to_string(),
            records: records.iter().map(|(_, record)| record.clone()).collect(),
            malformed: vec![],
            fetched_at: start() + TimeDelta::days(4),
            last: true,
        };
        apply(
            step.step(&Input::Page(&page, &products)),
            &memory,
            &store,
            &mut found,
        );
        step.flushed();
        if number % 5 == 4 {
            // A restart: everything comes back from the store.
            memory = load();
            step = Step::restore(config(&memory), &store).unwrap();
        }
    }
    let ids: Vec<_> = found.keys().copied().collect();
    assert_eq!(
        ids,
        wanted.keys().copied().collect::<Vec<_>>(),
        "the same findings already now"
    );
    let over = start() + TimeDelta::days(60);
    apply(
        step.step(&Input::Tick(over, Some(over))),
        &memory,
        &store,
        &mut found,
    );
    for (uid, wanted) in &wanted {
        assert_eq!(found.get(uid), Some(wanted), "the last word on {uid}");
    }
}

/// What a job read of the middle of bursts, the live line never saw: with the job's memory taken in,
/// each finding stands as if it had seen all.
#[test]
fn a_live_line_that_takes_in_what_a_job_remembers_ends_where_a_replay_ends() {
    let mut case = case();
    let wanted = replayed(&case);
    case.records.shuffle(&mut StdRng::seed_from_u64(9));
    let store = MemoryStore::new([3; 16]).unwrap();
    let budget = SeenBudget::new(1_000_000);
    let today = start().date_naive();
    let memory = TenantMemory::load(&store, case.tenant.clone(), today, budget).unwrap();
    let step = |job: JobId| {
        let config = StepConfig {
            memory: memory.clone(),
            job,
            readers: case.readers.clone(),
            rules: case.rules.clone().into(),
            forwards_events: true,
            purpose: Purpose::Deliver,
            live_since: start(),
        };
        Step::restore(config, &store).unwrap()
    };
    let (filler, stream) = (
        JobId::new("gap-1").unwrap(),
        "contoso/office365/Audit.Exchange".parse().unwrap(),
    );
    let (mut live, mut job) = (step(JobId::live()), step(filler.clone()));
    let mut found = BTreeMap::new();
    for (number, records) in case.records.chunks(7).enumerate() {
        let products: Vec<Product> = records.iter().map(|(product, _)| *product).collect();
        let page = Page {
            stream: StreamId::clone(&stream),
            item: number.to_string(),
            records: records.iter().map(|(_, record)| record.clone()).collect(),
            malformed: vec![],
            fetched_at: start() + TimeDelta::days(4),
            last: true,
        };
        let line = if number % 3 == 0 { &mut job } else { &mut live };
        let effects = line.step(&Input::Page(&page, &products));
        apply(effects, &memory, &store, &mut found);
        line.flushed();
    }
    let apart: Vec<_> = wanted
        .keys()
        .filter(|uid| !found.contains_key(uid))
        .collect();
    assert!(
        !apart.is_empty(),
        "nothing is missed by halves: the test proves nothing"
    );
    let now = start() + TimeDelta::days(5);
    let windows = store.windows(&filler, &case.tenant).unwrap();
    let effects = live.step(&Input::Absorb(&windows, now));
    apply(effects, &memory, &store, &mut found);
    let over = start() + TimeDelta::days(60);
    let effects = live.step(&Input::Tick(over, Some(over)));
    apply(effects, &memory, &store, &mut found);
    for (uid, wanted) in &wanted {
        let found = found
            .get(uid)
            .unwrap_or_else(|| panic!("{wanted:?} is missed"));
        assert_eq!(
            (&found.0, found.1, &found.2),
            (&wanted.0, wanted.1, &wanted.2),
            "{uid}"
        );
    }
}

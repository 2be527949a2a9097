//! Which domains are a tenant's own, asked of the simulated Graph and Directory API.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_simulator::google::{SCOPE_AUDIT, SCOPE_DOMAINS};
use exfilwatch_simulator::microsoft::{ROLE_AUDIT_ALL, ROLE_DOMAINS};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{SimulatorOptions, WorldOptions};
use support::{Stage, at};

fn stage() -> Stage {
    let from = at("2026-03-03T06:00:00Z");
    let world = WorldOptions {
        records_per_day: 100,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, from, from + TimeDelta::days(1))
    };
    let options = SimulatorOptions {
        start: Some(world.until),
        ..SimulatorOptions::default()
    };
    Stage::new(world, options)
}

async fn ask(stage: &Stage, options: AnyOptions) -> Result<Vec<String>, FetchError> {
    let source = options.own_domains(&stage.surroundings).unwrap();
    source.own_domains().await
}

fn microsoft(stage: &Stage) -> AnyOptions {
    AnyOptions::Office365(Box::new(stage.office365_options()))
}

fn google(stage: &Stage) -> AnyOptions {
    AnyOptions::GoogleWorkspace(Box::new(stage.google_options()))
}

#[tokio::test(start_paused = true)]
async fn graph_names_the_verified_domains() {
    let stage = stage();
    stage.simulator.microsoft().set_graph_roles(&[ROLE_DOMAINS]);
    let tenant = &stage.simulator.world().tenants()[0];
    let told = ask(&stage, microsoft(&stage)).await.unwrap();
    assert_eq!(told, [tenant.domain.clone(), tenant.onmicrosoft.clone()]);
}

#[tokio::test(start_paused = true)]
async fn without_the_role_graph_refuses_and_the_role_is_named() {
    let stage = stage();
    stage
        .simulator
        .microsoft()
        .set_graph_roles(&[ROLE_AUDIT_ALL]);
    let refused = ask(&stage, microsoft(&stage)).await.unwrap_err();
    let FetchError::Permission { help, .. } = refused else {
        panic!("{refused:?}");
    };
    assert!(help.contains("Domain.Read.All"), "{help}");
}

#[tokio::test(start_paused = true)]
async fn google_names_the_verified_domains_and_their_aliases() {
    let stage = stage();
    let service = stage.simulator.google();
    service.set_delegated_scopes(&[SCOPE_AUDIT, SCOPE_DOMAINS]);
    let domain = stage.simulator.world().tenants()[0].domain.clone();
    let told = ask(&stage, google(&stage)).await.unwrap();
    assert_eq!(
        told,
        [domain.clone(), format!("{domain}.test-google-a.com")]
    );
    // By the customer's id, too; and never of another customer.
    let own = stage.simulator.world().tenants()[0].customer_id.clone();
    for (customer_id, fine) in [(own, true), (Some("C0other".to_owned()), false)] {
        let mut options = stage.google_options();
        options.customer_id = customer_id;
        let answer = ask(&stage, AnyOptions::GoogleWorkspace(Box::new(options))).await;
        assert_eq!(answer.is_ok(), fine, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_not_delegated_is_named_and_fails_nothing_else() {
    let stage = stage();
    stage
        .simulator
        .google()
        .set_delegated_scopes(&[SCOPE_AUDIT]);
    let refused = ask(&stage, google(&stage)).await.unwrap_err();
    let FetchError::Auth { help, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert!(help.contains(SCOPE_DOMAINS), "{help}");
    let mut caller = stage.google(stage.google_options());
    caller.start(at("2026-03-03T06:00:00Z"));
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert!(!caller.seen.is_empty());
}

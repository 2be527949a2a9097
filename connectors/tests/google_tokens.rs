//! Tokens of a service account: clocks that differ, tokens that die half way, tenants side by side.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_simulator::Endpoint;
use exfilwatch_simulator::google::GoogleOptions;
use futures::StreamExt;
use support::quiet::{START, asked, caller, only, quiet as stage, write};
use support::{WrongClock, at};

#[tokio::test(start_paused = true)]
async fn google_clock_skew_10min_in_either_direction_costs_one_refused_assertion_and_no_record() {
    // An assertion of the past is good while it lasts; one of the future is refused.
    for (minutes, assertions) in [(-10, 1), (10, 2)] {
        let mut stage = stage(GoogleOptions::default());
        let wrong = WrongClock(stage.simulator.clock().clone(), TimeDelta::minutes(minutes));
        stage.surroundings.clock = Arc::new(wrong);
        let start = at(START);
        let mut caller = caller(&stage, &["drive"], start - TimeDelta::minutes(30));
        let mut ids = vec![write(
            &stage,
            "drive",
            start - TimeDelta::minutes(20),
            TimeDelta::zero(),
            1,
        )];
        // Inside a window that a fast clock takes for the past.
        ids.push(write(
            &stage,
            "drive",
            start + TimeDelta::seconds(30),
            TimeDelta::zero(),
            2,
        ));
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{minutes}: {:?}", caller.errors);
        assert_eq!(stage.simulator.google().tokens_issued(), 1, "{minutes}");
        assert_eq!(
            stage.simulator.faults().calls(Endpoint::GoogleToken),
            assertions,
            "{minutes}"
        );
        for _ in 0..8 {
            stage.pass(TimeDelta::minutes(2)).await;
            caller.poll().await;
        }
        for id in &ids {
            assert!(caller.seen.contains_key(id), "{minutes}: {id}");
        }
        assert!(caller.open.is_empty(), "{minutes}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_expires_mid_pages_and_the_walk_goes_on_with_the_same_parameters() {
    let stage = stage(GoogleOptions {
        page_items_max: 5,
        ..GoogleOptions::default()
    });
    let from = at(START) - TimeDelta::minutes(50);
    for n in 0..20 {
        write(
            &stage,
            "drive",
            from + TimeDelta::minutes(n),
            TimeDelta::zero(),
            n,
        );
    }
    let mut caller = caller(&stage, &["drive"], from - TimeDelta::minutes(1));
    let stream = caller.connector.streams()[0].clone();
    caller.list(&stream).await;
    let item = caller.open.values().next().unwrap().clone();
    let mut pages = caller.connector.fetch(&item).await.unwrap();
    let mut count = pages.next().await.unwrap().unwrap().records.len();
    stage.simulator.google().drop_tokens();
    while let Some(page) = pages.next().await {
        count += page.unwrap().records.len();
    }
    assert_eq!(count, 20, "every record once, none twice");
    let asked = asked(&stage, "/activity/");
    assert_eq!(
        asked[1], asked[2],
        "the refused page is asked for again as it was"
    );
    assert_eq!(stage.simulator.google().tokens_issued(), 2);
}

/// Takes every request and never answers.
#[derive(Debug)]
struct Hangs;

#[async_trait]
impl Transport for Hangs {
    async fn send(
        &self,
        _: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        tokio::time::sleep(Duration::from_hours(100)).await;
        Err(TransportError("nobody waits so long".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn slow_tenant_does_not_block_another_of_the_same_process() {
    let mut stage = stage(GoogleOptions::default());
    let from = at(START) - TimeDelta::hours(2);
    let id = write(&stage, "drive", from, TimeDelta::zero(), 1);
    let mut quick = caller(&stage, &["drive"], from - TimeDelta::minutes(1));
    // The other tenant shares clock and quotas with the first; its network does not answer.
    stage.surroundings.transport = Some(Arc::new(Hangs));
    let mut options = only(&stage, &["drive"]);
    options.tenant = Some("fabrikam".parse().unwrap());
    options.subject = Some("admin@fabrikam.example".into());
    let mut slow = stage.google(options);
    slow.start(from);
    let started = tokio::time::Instant::now();
    let hanging = tokio::spawn(async move {
        slow.poll().await;
        slow
    });
    for _ in 0..5 {
        quick.poll().await;
        stage.pass(TimeDelta::minutes(1)).await;
    }
    assert!(quick.seen.contains_key(&id) && quick.errors.is_empty());
    // Five polls of a minute each at the simulated rate, with nothing waited for besides.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert!(
        !hanging.is_finished(),
        "the other tenant still waits for its first answer"
    );
    let slow = hanging.await.unwrap();
    assert!(slow.seen.is_empty() && !slow.open.is_empty());
}

//! Against receivers that were written without knowing these emitters: the simulator's collector
//! and syslog receiver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::{at, finding, finding_envelope, google, heartbeat, office365};
use exfilwatch_emitters::{
    EmitError, Emitter, Environment, SplunkHec, SplunkHecOptions, Syslog, SyslogOptions,
};
use exfilwatch_model::{Envelope, SystemClock};
use exfilwatch_simulator::hec::{HecOptions, Recorded};
use exfilwatch_simulator::syslog::Transport;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, Running, Simulator, SimulatorOptions, World,
    WorldOptions,
};
use tokio::time::timeout;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

async fn simulator(hec: HecOptions, rules: Vec<FaultRule>) -> Running {
    let (from, until) = (at("2026-11-24T00:00:00Z"), at("2026-11-24T01:00:00Z"));
    let world = World::invent(WorldOptions::new(1, from, until));
    let options = SimulatorOptions {
        hec,
        faults: FaultScript {
            rules,
            ..FaultScript::default()
        },
        ..SimulatorOptions::default()
    };
    Simulator::new(world, options)
        .unwrap()
        .start()
        .await
        .unwrap()
}

fn hec(running: &Running) -> SplunkHec {
    let json = serde_json::json!({
        "url": running.hec_url,
        "token": { "env": "HEC_TOKEN" },
        "batch_bytes_max": 10_000,
        "ack_timeout_seconds": 10,
        "ack_poll_seconds_max": 1,
    });
    let options: SplunkHecOptions = serde_json::from_value(json).unwrap();
    let token = running.simulator.credentials().hec_token.clone();
    let environment = Environment::new(move |_| Some(token.clone()));
    SplunkHec::new(
        "splunk_hec.main",
        &options,
        &environment,
        Arc::new(SystemClock),
    )
    .unwrap()
}

fn records(count: usize) -> Vec<Envelope> {
    (0..count)
        .map(|n| office365(&format!("record-{n}")))
        .collect()
}

fn ids(running: &Running) -> BTreeSet<String> {
    let ids = |recorded: &Recorded| {
        recorded
            .record_ids()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect()
    };
    running.simulator.hec().look(ids)
}

#[tokio::test]
async fn a_collector_with_acknowledgement_gets_everything_once() {
    let running = simulator(HecOptions::default(), vec![]).await;
    let mut batch = records(100);
    batch.extend([google(), finding_envelope(&finding()), heartbeat()]);
    let delivered = hec(&running).emit(&batch).await.unwrap();
    assert!(delivered.refused.is_empty(), "{delivered:?}");
    let recorded = running.simulator.hec().recorded();
    assert_eq!(
        recorded.count(),
        100 + 2 + 1 + 1,
        "{:?}",
        recorded.by_sourcetype
    );
    assert_eq!((recorded.duplicates(), recorded.refused), (0, 0));
    assert!(recorded.requests > 1, "several requests, each acknowledged");
    let kinds: Vec<&str> = recorded.by_sourcetype.keys().map(String::as_str).collect();
    let expected = [
        "exfilwatch:finding",
        "exfilwatch:internal",
        "gws:reports:drive",
        "o365:management:activity",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(recorded.findings().len(), 1);
    running.shutdown().await;
}

#[tokio::test]
async fn an_indexer_restart_before_the_acknowledgement_is_not_taken_for_a_receipt() {
    let never = HecOptions {
        ack_never: true,
        ..HecOptions::default()
    };
    let running = simulator(never, vec![]).await;
    let emitter = hec(&running);
    let batch = records(3);
    let first = emitter.emit(&batch);
    let restart = async {
        // The send has arrived; its acknowledgement never will.
        while running.simulator.hec().look(Recorded::count) < 3 {
            tokio::task::yield_now().await;
        }
        running.simulator.hec().restart();
        running
            .simulator
            .hec()
            .configure(|options| options.ack_never = false);
        // Takes the first id again.
        emitter.emit(&records(1)).await
    };
    let (first, second) = timeout(PATIENCE, async { tokio::join!(first, restart) })
        .await
        .unwrap();
    assert!(matches!(&first, Err(EmitError::Retry { .. })), "{first:?}");
    assert!(
        matches!(&second, Err(EmitError::Retry { .. })),
        "{second:?}"
    );
    emitter.emit(&batch).await.unwrap();
    assert_eq!(ids(&running).len(), 3);
    running.shutdown().await;
}

#[tokio::test]
async fn an_outage_and_cut_connections_lose_nothing() {
    // Each rule counts the calls that no rule before it took.
    let rules = vec![
        FaultRule::new(Endpoint::HecEvent, Fault::Outage).calls(1, 2),
        FaultRule::new(Endpoint::HecEvent, Fault::Reset).calls(2, 2),
        FaultRule::new(Endpoint::HecEvent, Fault::HtmlPage { status: 502 }).calls(2, 2),
        FaultRule::new(Endpoint::HecEvent, Fault::ResetAfter).calls(3, 3),
        FaultRule::new(Endpoint::HecAck, Fault::Outage).calls(1, 1),
    ];
    let running = simulator(HecOptions::default(), rules).await;
    let (emitter, batch) = (hec(&running), records(100));
    let mut tries = 0;
    while let Err(error) = emitter.emit(&batch).await {
        assert!(matches!(&error, EmitError::Retry { .. }), "{error:?}");
        tries += 1;
        assert!(tries < 10, "{error}");
    }
    assert_eq!(tries, 5);
    assert_eq!(ids(&running).len(), 100);
    // The request whose answer was cut off went out twice, and the one whose acknowledgement could
    // then not be told from its.
    let duplicates = running.simulator.hec().look(Recorded::duplicates);
    assert!((1..=70).contains(&duplicates), "{duplicates}");
    running.shutdown().await;
}

#[tokio::test]
async fn a_disabled_token_holds_and_a_missing_index_too() {
    let only = HecOptions {
        indexes: BTreeSet::from(["main".to_owned()]),
        ..HecOptions::default()
    };
    let running = simulator(only, vec![]).await;
    let emitter = hec(&running);
    running.simulator.hec().disable_token(true);
    let error = emitter.emit(&records(1)).await.unwrap_err();
    assert!(
        matches!(&error, EmitError::Hold { help, .. } if help.contains("token")),
        "{error:?}"
    );
    running.simulator.hec().disable_token(false);
    emitter.emit(&records(1)).await.unwrap();

    let json = serde_json::json!({
        "url": running.hec_url,
        "token": { "env": "T" },
        "index": { "events": "nowhere" },
    });
    let token = running.simulator.credentials().hec_token.clone();
    let environment = Environment::new(move |_| Some(token.clone()));
    let options = serde_json::from_value(json).unwrap();
    let emitter = SplunkHec::new(
        "splunk_hec.main",
        &options,
        &environment,
        Arc::new(SystemClock),
    )
    .unwrap();
    let error = emitter.emit(&records(2)).await.unwrap_err();
    assert!(
        matches!(&error, EmitError::Hold { help, .. } if help.contains("index")),
        "{error:?}"
    );
    running.shutdown().await;
}

#[tokio::test]
async fn every_syslog_transport_delivers_whole_frames() {
    let running = simulator(HecOptions::default(), vec![]).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, &running.syslog.ca_pem).unwrap();
    let batch = [
        office365("a"),
        google(),
        finding_envelope(&finding()),
        heartbeat(),
    ];
    for (transport, name, address) in [
        (Transport::Udp, "udp", running.syslog.udp),
        (Transport::Tcp, "tcp", running.syslog.tcp),
        (Transport::Tls, "tls", running.syslog.tls),
    ] {
        let json = serde_json::json!({
            "address": address.to_string(),
            "transport": name,
            "ca_file": ca_file,
            "server_name": "localhost",
        });
        let options: SyslogOptions = serde_json::from_value(json).unwrap();
        let emitter = Syslog::new("syslog.main", &options).unwrap();
        let delivered = emitter.emit(&batch).await.unwrap();
        assert!(delivered.refused.is_empty());
        let arrived = || {
            let frames = running.simulator.syslog().frames();
            frames
                .into_iter()
                .filter(|(by, _)| *by == transport)
                .count()
        };
        let all = async {
            while arrived() < batch.len() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, all)
            .await
            .unwrap_or_else(|_| panic!("{name}: {}", arrived()));
    }
    for (_, frame) in running.simulator.syslog().frames() {
        assert!(frame.starts_with(b"<13"), "{frame:?}");
        assert!(frame.iter().all(|byte| *byte >= 0x20), "{frame:?}");
    }
    assert_eq!(running.simulator.syslog().broken(), 0);
    running.shutdown().await;
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_holds_the_lane() {
    let running = simulator(HecOptions::default(), vec![]).await;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("other.pem");
    std::fs::write(&ca_file, other.cert.pem()).unwrap();
    let good = folder.path().join("ca.pem");
    std::fs::write(&good, &running.syslog.ca_pem).unwrap();
    for (ca_file, server_name) in [(ca_file, "localhost"), (good, "elsewhere.example")] {
        let json = serde_json::json!({
            "address": running.syslog.tls.to_string(),
            "transport": "tls",
            "ca_file": ca_file,
            "server_name": server_name,
        });
        let options: SyslogOptions = serde_json::from_value(json).unwrap();
        let emitter = Syslog::new("syslog.main", &options).unwrap();
        let error = emitter.emit(&[office365("a")]).await.unwrap_err();
        let said = matches!(&error, EmitError::Hold { help, .. } if help.contains("ca_file"));
        assert!(said, "{server_name}: {error:?}");
    }
    running.shutdown().await;
}

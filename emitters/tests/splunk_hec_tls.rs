//! Whom the emitter believes to be its collector: authority, name, pinned key, anybody.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::at;
use common::hec::batch;
use exfilwatch_emitters::{EmitError, Emitter, Environment, SplunkHec};
use exfilwatch_model::SystemClock;
use exfilwatch_simulator::{Simulator, SimulatorOptions, World, WorldOptions};
use serde_json::{Value, json};

/// An emitter for the collector, with these options of TLS.
fn emitter(url: &str, token: &str, tls: &Value) -> Result<SplunkHec, String> {
    let mut options = json!({ "url": url, "token": { "env": "T" }, "ack": "off" });
    let members = tls.as_object().unwrap().clone();
    options.as_object_mut().unwrap().extend(members);
    let token = token.to_owned();
    let environment = Environment::new(move |_| Some(token.clone()));
    let options = serde_json::from_value(options).unwrap();
    let clock = Arc::new(SystemClock);
    SplunkHec::new("splunk_hec.main", &options, &environment, clock).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_collector_is_believed_by_authority_name_or_pinned_key_and_by_nothing_less() {
    let world = World::invent(WorldOptions::new(
        1,
        at("2026-11-24T00:00:00Z"),
        at("2026-11-24T00:01:00Z"),
    ));
    let options = SimulatorOptions {
        https: true,
        ..SimulatorOptions::default()
    };
    let running = Simulator::new(world, options)
        .unwrap()
        .start()
        .await
        .unwrap();
    let token = running.simulator.credentials().hec_token.clone();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &running.ca_pem).unwrap();
    let outcome = async |tls: Value| {
        let emitter = emitter(&running.hec_url, &token, &tls).unwrap();
        match emitter.emit(&batch(&["a"])).await {
            Ok(_) => Ok(()),
            Err(EmitError::Hold { what, help }) => Err((what, help)),
            Err(other) => panic!("{tls}: {other}"),
        }
    };

    assert_eq!(outcome(json!({ "ca_file": ca })).await, Ok(()));
    let named = json!({ "ca_file": ca, "server_name": "localhost" });
    assert_eq!(outcome(named).await, Ok(()));
    let (_, help) = outcome(json!({})).await.unwrap_err();
    assert!(help.contains("ca_file"), "{help}");
    let elsewhere = json!({ "ca_file": ca, "server_name": "elsewhere.example" });
    let (what, help) = outcome(elsewhere).await.unwrap_err();
    assert!(what.contains("not valid for name"), "{what}");
    assert!(help.contains("server_name"), "{help}");

    // The refusal of another key names the one that was shown.
    let other = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let (what, _) = outcome(json!({ "pin_sha256": [other] })).await.unwrap_err();
    let shown = what.split("the receiver has ").nth(1).unwrap();
    let pin = shown.trim_end_matches(')');
    assert_eq!(outcome(json!({ "pin_sha256": [other, pin] })).await, Ok(()));
    let both = json!({ "pin_sha256": [pin], "server_name": "elsewhere.example", "ca_file": ca });
    assert!(
        outcome(both).await.is_err(),
        "a pin besides a name replaces nothing"
    );
    let both = json!({ "pin_sha256": [other], "ca_file": ca });
    assert!(outcome(both).await.is_err(), "an authority replaces no pin");

    assert_eq!(
        outcome(json!({ "insecure_skip_verify": true })).await,
        Ok(())
    );
    running.shutdown().await;
}

#[test]
fn what_contradicts_itself_is_refused_at_the_start() {
    for (tls, said) in [
        (json!({ "pin_sha256": ["abc"] }), "exfilwatch doctor"),
        (
            json!({ "pin_sha256": ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="],
                 "insecure_skip_verify": true }),
            "take it away",
        ),
        (json!({ "server_name": "no name" }), "server_name"),
        (json!({ "certificate_file": "x.pem" }), "both or neither"),
    ] {
        let error = emitter("https://s.example", "t", &tls).unwrap_err();
        assert!(error.contains(said), "{tls}: {error}");
    }
}

//! What HEC and webhooks have of TLS beyond an authority: our own certificate, pins, old certificates, a
//! proxy that is spoken to over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use common::collector::Collector;
use common::office365;
use common::tls::{Front, Setup};
use exfilwatch_emitters::{EmitError, Emitter, Environment, SplunkHec, Webhook};
use exfilwatch_model::SystemClock;
use rcgen::{CertificateParams, KeyPair};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

/// The pin of no key.
const OTHER_PIN: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const KINDS: [&str; 2] = ["splunk_hec", "webhook"];

/// An emitter of the kind for `https://localhost`, with these options of TLS.
fn emitter(kind: &str, port: u16, tls: &Value) -> Box<dyn Emitter> {
    let mut options = json!({ "url": format!("https://localhost:{port}"), "send": ["events"] });
    let members = options.as_object_mut().unwrap();
    members.extend(tls.as_object().unwrap().clone());
    let secret = if kind == "webhook" { "secret" } else { "token" };
    members.insert(secret.to_owned(), json!({ "env": "SECRET" }));
    let environment =
        Environment::new(|_| Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()));
    let clock = Arc::new(SystemClock);
    if kind == "webhook" {
        let options = serde_json::from_value(options).unwrap();
        Box::new(Webhook::new("webhook.main", &options, &environment, clock).unwrap())
    } else {
        let options = serde_json::from_value(options).unwrap();
        Box::new(SplunkHec::new("splunk_hec.main", &options, &environment, clock).unwrap())
    }
}

/// Whether an item gets there, or why the lane is held: what was said, and what helps.
async fn outcome(kind: &str, port: u16, tls: Value) -> Result<(), (String, String)> {
    match emitter(kind, port, &tls).emit(&[office365("a")]).await {
        Ok(delivered) => {
            assert!(delivered.refused.is_empty() && delivered.held.is_empty());
            Ok(())
        }
        Err(EmitError::Hold { what, help }) => Err((what, help)),
        Err(other) => panic!("{kind} {tls}: {other}"),
    }
}

/// The pin that a refusal names.
async fn shown_pin(kind: &str, port: u16) -> String {
    let tls = json!({ "pin_sha256": [OTHER_PIN] });
    let (what, help) = outcome(kind, port, tls).await.unwrap_err();
    assert!(help.contains("pin_sha256"), "{help}");
    let shown = what.split("the receiver has ").nth(1).unwrap();
    shown.trim_end_matches(')').to_owned()
}

/// A certificate of ours and the options that name it.
fn identity(folder: &Path) -> (CertificateDer<'static>, Value) {
    let key = KeyPair::generate().unwrap();
    let named = CertificateParams::new(vec!["exfilwatch".to_owned()]).unwrap();
    let certificate = named.self_signed(&key).unwrap();
    let (certificate_file, key_file) = (folder.join("c.pem"), folder.join("c.key"));
    std::fs::write(&certificate_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&key_file, private).unwrap();
    let options = json!({ "certificate_file": certificate_file, "key_file": key_file });
    (certificate.der().clone(), options)
}

#[tokio::test]
async fn a_receiver_that_wants_a_certificate_gets_ours_and_holds_the_lane_without() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::scripted(vec![]).await;
    let (client, ours) = identity(folder.path());
    for version in [&TLS12, &TLS13] {
        let setup = Setup {
            client: Some(client.clone()),
            versions: vec![version],
            ..Setup::default()
        };
        let front = Front::start(&collector, folder.path(), &setup).await;
        for kind in KINDS {
            let mut with = json!({ "ca_file": front.ca_file });
            let (what, help) = outcome(kind, front.port, with.clone()).await.unwrap_err();
            assert!(what.contains("ended TLS"), "{kind}: {what}");
            assert!(help.contains("certificate_file"), "{kind}: {help}");
            let before = collector.calls().len();
            with.as_object_mut()
                .unwrap()
                .extend(ours.as_object().unwrap().clone());
            assert_eq!(outcome(kind, front.port, with).await, Ok(()), "{kind}");
            assert_eq!(collector.calls().len(), before + 1, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_webhook_is_believed_by_authority_name_or_pinned_key_and_by_nothing_less() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::scripted(vec![]).await;
    let setup = Setup {
        name: "hook.example",
        ..Setup::default()
    };
    let front = Front::start(&collector, folder.path(), &setup).await;
    let ca = &front.ca_file;
    let pin = shown_pin("webhook", front.port).await;
    for (tls, refused_with) in [
        (json!({}), "ca_file"),
        (json!({ "ca_file": ca }), "server_name"),
        (json!({ "server_name": "hook.example" }), "ca_file"),
        (json!({ "ca_file": ca, "server_name": "hook.example" }), ""),
        (json!({ "pin_sha256": [pin] }), ""),
        (json!({ "pin_sha256": [pin], "ca_file": ca }), "server_name"),
        (
            json!({ "pin_sha256": [OTHER_PIN], "ca_file": ca, "server_name": "hook.example" }),
            "pin_sha256",
        ),
    ] {
        match outcome("webhook", front.port, tls.clone()).await {
            Ok(()) => assert_eq!(refused_with, "", "{tls}"),
            Err((what, help)) => {
                assert_ne!(refused_with, "", "{tls}: {what}");
                assert!(help.contains(refused_with), "{tls}: {help}");
            }
        }
    }
    assert_eq!(collector.calls().len(), 2);
}

/// Splunk's own certificates, wherever OpenSSL 1 made them.
#[tokio::test]
async fn a_pinned_key_of_a_version_1_certificate_is_enough_and_an_authority_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::scripted(vec![]).await;
    for version in [&TLS12, &TLS13] {
        let setup = Setup {
            version_1: true,
            versions: vec![version],
            ..Setup::default()
        };
        let front = Front::start(&collector, folder.path(), &setup).await;
        for kind in KINDS {
            let before = collector.calls().len();
            let pin = shown_pin(kind, front.port).await;
            let with_ca = json!({ "ca_file": front.ca_file, "pin_sha256": [pin] });
            for tls in [json!({}), with_ca] {
                let (what, _) = outcome(kind, front.port, tls).await.unwrap_err();
                assert!(what.contains("X.509 version 1"), "{what}");
                assert!(what.contains("pin_sha256"), "{what}");
            }
            assert_eq!(collector.calls().len(), before);
            let pinned = json!({ "pin_sha256": [pin] });
            assert_eq!(outcome(kind, front.port, pinned).await, Ok(()), "{kind}");
        }
        let anybody = json!({ "insecure_skip_verify": true });
        assert_eq!(outcome("splunk_hec", front.port, anybody).await, Ok(()));
    }
}

/// A certificate is no secret: who shows it has to prove that he has its key.
#[tokio::test]
async fn a_pinned_certificate_without_its_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::scripted(vec![]).await;
    for (version, version_1) in [
        (&TLS12, false),
        (&TLS12, true),
        (&TLS13, false),
        (&TLS13, true),
    ] {
        let setup = Setup {
            version_1,
            is_impostor: true,
            versions: vec![version],
            ..Setup::default()
        };
        let front = Front::start(&collector, folder.path(), &setup).await;
        let pin = shown_pin("splunk_hec", front.port).await;
        for tls in [
            json!({ "pin_sha256": [pin] }),
            json!({ "insecure_skip_verify": true }),
        ] {
            let refused = outcome("splunk_hec", front.port, tls.clone()).await;
            let (what, _) = refused.unwrap_err();
            assert!(what.to_lowercase().contains("signature"), "{tls}: {what}");
        }
    }
    assert_eq!(collector.calls().len(), 0);
}

#[tokio::test]
async fn a_pin_is_the_receiver_s_and_its_proxy_is_believed_by_authority_and_name() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::scripted(vec![]).await;
    let front = Front::start(&collector, folder.path(), &Setup::default()).await;
    let setup = Setup {
        name: "127.0.0.1",
        ..Setup::default()
    };
    let proxy = Front::proxy(folder.path(), &setup).await;
    let both = folder.path().join("both.pem");
    let of = |front: &Front| std::fs::read(&front.ca_file).unwrap();
    std::fs::write(&both, [of(&front), of(&proxy)].concat()).unwrap();
    let proxy = format!("https://127.0.0.1:{}", proxy.port);
    for kind in KINDS {
        let pin = shown_pin(kind, front.port).await;
        let pinned = json!({ "ca_file": both, "pin_sha256": [pin], "proxy": proxy });
        assert_eq!(outcome(kind, front.port, pinned).await, Ok(()), "{kind}");
        // Whoever the proxy is, the receiver's key is looked at.
        let other = json!({ "ca_file": both, "pin_sha256": [OTHER_PIN], "proxy": proxy });
        let (what, _) = outcome(kind, front.port, other).await.unwrap_err();
        assert!(what.contains(&pin), "{kind}: {what}");
        // And the pin says nothing of the proxy.
        let unknown = json!({ "pin_sha256": [pin], "proxy": proxy });
        let (what, _) = outcome(kind, front.port, unknown).await.unwrap_err();
        assert!(what.contains("not trusted"), "{kind}: {what}");
    }
    assert_eq!(collector.calls().len(), 2);
}

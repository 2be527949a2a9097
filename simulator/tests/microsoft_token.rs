//! Microsoft's token endpoints: secrets, certificate assertions, and the code of each mistake.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use aws_lc_rs::digest::{Algorithm as Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use exfilwatch_simulator::credentials::MicrosoftApp;
use exfilwatch_simulator::{Simulator, SimulatorOptions};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use support::{Reply, form, get, post, sign, simulator};

const NOWHERE: &str = "11111111-2222-4333-8444-555555555555";
const ROOT: &str = "https://manage.office.com";

fn tenant(simulator: &Simulator) -> String {
    simulator.world().tenants()[0]
        .tenant_id
        .unwrap()
        .to_string()
}

/// Asks with a secret; `wrong` replaces one field of the form.
async fn ask(simulator: &Simulator, path: &str, wrong: (&str, &str)) -> Reply {
    let app = &simulator.credentials().microsoft;
    let scope = format!("{ROOT}/.default");
    let mut fields = [
        ("grant_type", "client_credentials"),
        ("client_id", &app.client_id),
        ("client_secret", &app.client_secret),
        ("resource", ROOT),
        ("scope", &scope),
    ];
    for field in &mut fields {
        if field.0 == wrong.0 {
            field.1 = wrong.1;
        }
    }
    post(&simulator.microsoft_router(), path, &[], form(&fields)).await
}

#[tokio::test]
async fn a_secret_gives_a_token_of_both_versions() {
    let simulator = simulator(SimulatorOptions::default());
    let tenant = tenant(&simulator);
    let v1 = format!("/{tenant}/oauth2/token");
    let v1 = ask(&simulator, &v1, ("", "")).await.json();
    assert_eq!(v1["expires_in"], "3599", "version 1 writes texts");
    let v2 = format!("/{tenant}/oauth2/v2.0/token");
    let v2 = ask(&simulator, &v2, ("", "")).await.json();
    assert_eq!(v2["expires_in"], 3599);
    let token = v2["access_token"].as_str().unwrap();
    let middle = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap());
    let claims: Value = serde_json::from_slice(&middle.unwrap()).unwrap();
    assert_eq!(claims["tid"], tenant.as_str());
    let roles = json!(["ActivityFeed.Read", "ActivityFeed.ReadDlp"]);
    assert_eq!(claims["roles"], roles);
}

#[tokio::test]
async fn each_mistake_has_its_own_code() {
    let simulator = simulator(SimulatorOptions::default());
    let tenant = tenant(&simulator);
    for (tenant, wrong, code) in [
        (&*tenant, ("client_secret", "x"), 7_000_215),
        (&tenant, ("client_id", NOWHERE), 700_016),
        (NOWHERE, ("", ""), 90_002),
        (
            &tenant,
            ("scope", "https://manage.office365.us/.default"),
            900_382,
        ),
        (
            &tenant,
            ("scope", "https://vault.azure.net/.default"),
            500_011,
        ),
        (&tenant, ("grant_type", "password"), 70_003),
    ] {
        let path = format!("/{tenant}/oauth2/v2.0/token");
        let reply = ask(&simulator, &path, wrong).await;
        assert!(reply.status.is_client_error());
        let body = reply.json();
        assert_eq!(body["error_codes"], json!([code]), "{wrong:?}");
        let text = body["error_description"].as_str().unwrap();
        assert!(text.starts_with(&format!("AADSTS{code}")), "{text}");
    }
    simulator.microsoft().expire_secret(true);
    let path = format!("/{tenant}/oauth2/v2.0/token");
    let reply = ask(&simulator, &path, ("", "")).await;
    assert_eq!(reply.json()["error_codes"], json!([7_000_222]));
}

fn thumbprint(app: &MicrosoftApp, algorithm: &'static Digest) -> String {
    let lines = app.certificate_pem.lines();
    let base64: String = lines.filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(base64).unwrap();
    URL_SAFE_NO_PAD.encode(digest(algorithm, &der))
}

async fn present(simulator: &Simulator, path: &str, assertion: &str) -> Reply {
    let client_id = &simulator.credentials().microsoft.client_id;
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_assertion_type", kind),
        ("client_assertion", assertion),
        ("scope", "https://manage.office.com/.default"),
    ]);
    post(&simulator.microsoft_router(), path, &[], body).await
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // One table of cases.
async fn a_certificate_assertion_is_checked_whole() {
    let simulator = simulator(SimulatorOptions::default());
    let app = &simulator.credentials().microsoft;
    let path = format!("/{}/oauth2/v2.0/token", tenant(&simulator));
    let (sha256, sha1) = (
        thumbprint(app, &SHA256),
        thumbprint(app, &SHA1_FOR_LEGACY_USE_ONLY),
    );
    let now = simulator.clock().now_ms() / 1000;
    #[allow(clippy::cast_precision_loss)]
    let now_seconds = now as f64;
    let claims = |jti: &str, change: (&str, Value)| {
        let mut claims = json!({
            "aud": format!("http://127.0.0.1:1{path}"), "iss": app.client_id, "sub": app.client_id,
            "jti": jti, "nbf": now - 60, "iat": now, "exp": now + 300,
        });
        claims[change.0] = change.1;
        claims
    };
    let plain = |jti: &str| claims(jti, ("ver", json!(1)));
    let current = |head: &mut Header| head.x5t_s256 = Some(sha256.clone());
    let legacy = |head: &mut Header| head.x5t = Some(sha1.clone());
    let padded = |head: &mut Header| head.x5t_s256 = Some(format!("{sha256}="));
    let bare = |_: &mut Header| ();
    let (pem, other) = (
        &app.private_key_pem,
        &simulator.credentials().google.private_key_pem,
    );
    let ps256 = |claims: &Value| sign(Algorithm::PS256, current, claims, pem);
    for (name, assertion, code) in [
        ("current", ps256(&plain("1")), 0),
        (
            "legacy",
            sign(Algorithm::RS256, legacy, &plain("2"), pem),
            0,
        ),
        (
            "padded",
            sign(Algorithm::PS256, padded, &plain("0"), pem),
            0,
        ),
        ("replayed", ps256(&plain("1")), 50_013),
        (
            "other key",
            sign(Algorithm::PS256, current, &plain("3"), other),
            700_027,
        ),
        (
            "no thumbprint",
            sign(Algorithm::PS256, bare, &plain("4"), pem),
            700_027,
        ),
        (
            "late",
            ps256(&claims("5", ("exp", json!(now - 3600)))),
            700_024,
        ),
        (
            "early",
            ps256(&claims("6", ("nbf", json!(now + 3600)))),
            700_024,
        ),
        (
            "audience",
            ps256(&claims("7", ("aud", json!("https://x.example/token")))),
            700_023,
        ),
        (
            "subject",
            ps256(&claims("8", ("sub", json!("someone")))),
            700_021,
        ),
        ("no jti", ps256(&claims("9", ("jti", Value::Null))), 50_013),
        (
            "fraction",
            ps256(&claims("10", ("exp", json!(300.5 + now_seconds)))),
            0,
        ),
        ("garbage", "a.b.c".to_owned(), 50_027),
    ] {
        let reply = present(&simulator, &path, &assertion).await;
        let codes = reply.json()["error_codes"].clone();
        let expected = if code == 0 {
            Value::Null
        } else {
            json!([code])
        };
        assert_eq!(codes, expected, "{name}: {}", reply.text());
    }
}

#[tokio::test]
async fn discovery_names_the_token_endpoint() {
    let simulator = simulator(SimulatorOptions::default());
    let tenant = tenant(&simulator);
    let path = format!("/{tenant}/v2.0/.well-known/openid-configuration");
    let reply = get(&simulator.microsoft_router(), &path, "").await.json();
    let expected = format!("http://127.0.0.1:1/{tenant}/oauth2/v2.0/token");
    assert_eq!(reply["token_endpoint"], expected);
}

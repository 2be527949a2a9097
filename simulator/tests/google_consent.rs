//! The consent page of installed applications, its codes and the life of refresh tokens.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exfilwatch_simulator::google::{GoogleOptions, Person, SCOPE_AUDIT};
use exfilwatch_simulator::{Simulator, SimulatorOptions};
use serde_json::Value;
use support::{Reply, form, get, post, simulator};

const REDIRECT: &str = "http://127.0.0.1:4711";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn with(google: GoogleOptions) -> Simulator {
    simulator(SimulatorOptions {
        google,
        ..SimulatorOptions::default()
    })
}

/// Opens the page with these parameters laid over the usual ones; an empty value leaves one out.
async fn page(simulator: &Simulator, changes: &[(&str, &str)]) -> Reply {
    let client = &simulator.credentials().google.installed_client_id;
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
    let mut query = vec![
        ("client_id", client.as_str()),
        ("redirect_uri", REDIRECT),
        ("response_type", "code"),
        ("scope", SCOPE_AUDIT),
        ("state", "s 1"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("access_type", "offline"),
    ];
    for (name, value) in changes {
        query.retain(|(known, _)| known != name);
        if !value.is_empty() {
            query.push((name, value));
        }
    }
    let query = String::from_utf8(form(&query)).unwrap();
    let path = format!("/o/oauth2/v2/auth?{query}");
    get(&simulator.google_router(), &path, "none").await
}

/// A parameter of the redirect.
fn back(reply: &Reply, name: &str) -> Option<String> {
    let place = reply.headers.get("location")?.to_str().unwrap();
    let url: url::Url = place.parse().unwrap();
    let found = url.query_pairs().find(|(known, _)| known == name);
    found.map(|(_, value)| value.into_owned())
}

async fn exchange(simulator: &Simulator, code: &str, changes: &[(&str, &str)]) -> Value {
    let app = &simulator.credentials().google;
    let mut pairs = vec![
        ("grant_type", "authorization_code"),
        ("client_id", app.installed_client_id.as_str()),
        ("client_secret", &app.installed_client_secret),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    for (name, value) in changes {
        pairs.retain(|(known, _)| known != name);
        if !value.is_empty() {
            pairs.push((name, value));
        }
    }
    let router = simulator.google_router();
    post(&router, "/token", &[], form(&pairs)).await.json()
}

async fn refresh(simulator: &Simulator, token: &str) -> Value {
    let app = &simulator.credentials().google;
    let body = form(&[
        ("grant_type", "refresh_token"),
        ("client_id", &app.installed_client_id),
        ("client_secret", &app.installed_client_secret),
        ("refresh_token", token),
    ]);
    let router = simulator.google_router();
    post(&router, "/token", &[], body).await.json()
}

async fn login(simulator: &Simulator, changes: &[(&str, &str)]) -> Value {
    let reply = page(simulator, changes).await;
    let code = back(&reply, "code").unwrap_or_else(|| panic!("{}", reply.text()));
    exchange(simulator, &code, &[]).await
}

#[tokio::test]
async fn mistakes_of_the_application_are_shown_on_the_page_and_go_to_no_redirect() {
    let simulator = with(GoogleOptions::default());
    for (changes, code) in [
        (("client_id", "other"), "invalid_client"),
        (
            ("redirect_uri", "https://evil.example/"),
            "redirect_uri_mismatch",
        ),
        (
            ("redirect_uri", "http://evil.example/"),
            "redirect_uri_mismatch",
        ),
        (("response_type", "token"), "invalid_request"),
        (("scope", ""), "invalid_request"),
        (("code_challenge_method", "S512"), "invalid_request"),
    ] {
        let reply = page(&simulator, &[changes]).await;
        assert_eq!(reply.status, 400, "{changes:?}");
        assert!(reply.text().contains(code), "{changes:?}: {}", reply.text());
        assert!(reply.headers.get("location").is_none());
    }
    let admin = simulator.world().tenants()[0].admin().email.clone();
    simulator.google().seat(&admin, Person::Declines);
    let reply = page(&simulator, &[]).await;
    assert_eq!(reply.status, 302);
    assert_eq!(back(&reply, "error").as_deref(), Some("access_denied"));
    assert_eq!(back(&reply, "state").as_deref(), Some("s 1"));
    assert_eq!(back(&reply, "code"), None);
}

#[tokio::test]
async fn a_code_needs_its_verifier_redirect_and_client_and_works_once() {
    let simulator = with(GoogleOptions::default());
    for (change, error) in [
        (("code_verifier", "another"), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (
            ("redirect_uri", "http://127.0.0.1:1"),
            "redirect_uri_mismatch",
        ),
        (("client_secret", "wrong"), "invalid_client"),
    ] {
        let reply = page(&simulator, &[]).await;
        let code = back(&reply, "code").unwrap();
        assert_eq!(
            exchange(&simulator, &code, &[change]).await["error"],
            error,
            "{change:?}"
        );
    }
    let reply = page(&simulator, &[]).await;
    let code = back(&reply, "code").unwrap();
    let answer = exchange(&simulator, &code, &[]).await;
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(
        exchange(&simulator, &code, &[]).await["error"],
        "invalid_grant"
    );
    let reply = page(&simulator, &[]).await;
    let code = back(&reply, "code").unwrap();
    simulator.clock().advance(Duration::from_secs(601));
    assert_eq!(
        exchange(&simulator, &code, &[]).await["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_refresh_token_comes_offline_and_again_only_when_consent_is_asked_for() {
    let simulator = with(GoogleOptions::default());
    let online = login(&simulator, &[("access_type", "")]).await;
    assert!(online.get("refresh_token").is_none());
    let second = login(&simulator, &[]).await;
    assert!(second.get("refresh_token").is_none(), "consented before");
    let asked = login(&simulator, &[("prompt", "consent")]).await;
    let token = asked["refresh_token"].as_str().unwrap();
    assert!(refresh(&simulator, token).await["access_token"].is_string());
}

#[tokio::test]
async fn refresh_tokens_die_in_each_of_the_documented_ways() {
    let consent = [("prompt", "consent")];
    let token_of = |answer: &Value| answer["refresh_token"].as_str().unwrap().to_owned();
    let day = Duration::from_hours(24);

    let testing = with(GoogleOptions {
        consent_in_testing: true,
        ..GoogleOptions::default()
    });
    let answer = login(&testing, &consent).await;
    assert_eq!(answer["refresh_token_expires_in"], 604_799);
    testing.clock().advance(7 * day);
    assert_eq!(
        refresh(&testing, &token_of(&answer)).await["error"],
        "invalid_grant"
    );

    let simulator = with(GoogleOptions::default());
    let first = token_of(&login(&simulator, &consent).await);
    simulator.clock().advance(170 * day);
    assert!(refresh(&simulator, &first).await["access_token"].is_string());
    simulator.clock().advance(181 * day);
    assert_eq!(refresh(&simulator, &first).await["error"], "invalid_grant");

    let oldest = token_of(&login(&simulator, &consent).await);
    for _ in 0..100 {
        login(&simulator, &consent).await;
    }
    assert_eq!(refresh(&simulator, &oldest).await["error"], "invalid_grant");

    let answer = login(&simulator, &consent).await;
    let revoke = async |token: &str| {
        let router = simulator.google_router();
        post(&router, "/revoke", &[], form(&[("token", token)])).await
    };
    assert_eq!(revoke(&token_of(&answer)).await.status, 200);
    assert_eq!(
        refresh(&simulator, &token_of(&answer)).await["error"],
        "invalid_grant"
    );
    let again = revoke(&token_of(&answer)).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["error"]),
        (400, &"invalid_token".into())
    );
    let drive = "/admin/reports/v1/activity/users/all/applications/drive";
    let access = answer["access_token"].as_str().unwrap();
    let reply = get(&simulator.google_router(), drive, access).await;
    assert_eq!(reply.status, 401, "the access token went with it");
}

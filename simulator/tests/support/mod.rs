//! Shared by the integration tests: a small world, calls to routers in process, signed assertions.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{Credentials, Simulator, SimulatorOptions, World, WorldOptions};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// A Tuesday to Thursday of two days.
pub(crate) fn options(seed: u64) -> WorldOptions {
    let from = time("2026-03-03T06:00:00Z");
    WorldOptions {
        records_per_day: 600,
        ..WorldOptions::new(seed, from, from + TimeDelta::days(2))
    }
}

/// Keys are slow to make in debug builds: the tests of one file share them.
pub(crate) fn credentials() -> Credentials {
    static SHARED: OnceLock<Credentials> = OnceLock::new();
    SHARED
        .get_or_init(|| Credentials::generate().unwrap())
        .clone()
}

pub(crate) fn simulator(options: SimulatorOptions) -> Simulator {
    let credentials = Some(options.credentials.unwrap_or_else(credentials));
    let options = SimulatorOptions {
        credentials,
        ..options
    };
    Simulator::new(World::invent(self::options(11)), options).unwrap()
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `error.code` of Microsoft's wrapper.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

pub(crate) async fn post(
    router: &Router,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Reply {
    let mut request = Request::post(path).header("host", "127.0.0.1:1");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(Body::from(body)).unwrap()).await
}

pub(crate) async fn get(router: &Router, path: &str, bearer: &str) -> Reply {
    let request = Request::get(path)
        .header("host", "127.0.0.1:1")
        .header("authorization", format!("Bearer {bearer}"));
    send(router, request.body(Body::empty()).unwrap()).await
}

pub(crate) fn form(pairs: &[(&str, &str)]) -> Vec<u8> {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
        .into_bytes()
}

/// An assertion signed with an RSA key.
pub(crate) fn sign(
    algorithm: Algorithm,
    header: impl FnOnce(&mut Header),
    claims: &Value,
    pem: &str,
) -> String {
    let mut head = Header::new(algorithm);
    header(&mut head);
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    jsonwebtoken::encode(&head, claims, &key).unwrap()
}

/// A token of Microsoft by client secret.
pub(crate) async fn microsoft_token(simulator: &Simulator) -> String {
    let tenant = simulator.world().tenants()[0].tenant_id.unwrap();
    let app = &simulator.credentials().microsoft;
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", &app.client_id),
        ("client_secret", &app.client_secret),
        ("scope", "https://manage.office.com/.default"),
    ]);
    let path = format!("/{tenant}/oauth2/v2.0/token");
    let reply = post(&simulator.microsoft_router(), &path, &[], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

/// Claims of the service account for the first tenant's administrator.
pub(crate) fn google_claims(simulator: &Simulator) -> Value {
    let now = simulator.clock().now_ms() / 1000;
    json!({
        "iss": simulator.credentials().google.client_email,
        "sub": simulator.world().tenants()[0].admin().email,
        "scope": exfilwatch_simulator::google::SCOPE_AUDIT,
        "aud": "http://127.0.0.1:1/token",
        "iat": now,
        "exp": now + 3600,
    })
}

pub(crate) async fn google_ask(simulator: &Simulator, claims: &Value) -> Reply {
    let pem = &simulator.credentials().google.private_key_pem;
    let assertion = sign(Algorithm::RS256, |_| (), claims, pem);
    let body = form(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", &assertion),
    ]);
    post(&simulator.google_router(), "/token", &[], body).await
}

pub(crate) async fn google_token(simulator: &Simulator) -> String {
    let reply = google_ask(simulator, &google_claims(simulator)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

//! The consent of an administrator for an installed application, against the simulated consent page.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use axum::body::Body;
use chrono::TimeDelta;
use exfilwatch_connectors::FetchError;
use exfilwatch_connectors::google::login::{Consent, Login, LoginError};
use exfilwatch_connectors::options::{GoogleWorkspaceOptions, RefreshTokenOptions};
use exfilwatch_model::SecretSource;
use exfilwatch_simulator::google::{GoogleOptions, Person};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use support::{Caller, GOOGLE, Stage, at};
use tower::ServiceExt;

const REDIRECT: &str = "http://127.0.0.1:5005";

fn stage(google: GoogleOptions) -> Stage {
    let from = at("2026-03-03T06:00:00Z");
    let world = WorldOptions {
        records_per_day: 100,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, from, from + TimeDelta::days(1))
    };
    let options = SimulatorOptions {
        start: Some(world.until),
        google,
        ..SimulatorOptions::default()
    };
    Stage::new(world, options)
}

fn options(stage: &Stage, file: &Path) -> GoogleWorkspaceOptions {
    let app = &stage.simulator.credentials().google;
    GoogleWorkspaceOptions {
        service_account: None,
        refresh_token: Some(RefreshTokenOptions {
            client_id: app.installed_client_id.clone(),
            client_secret: SecretSource::Env("GOOGLE_CLIENT_SECRET".into()),
            token: SecretSource::File(file.to_owned()),
        }),
        auth_uri: Some(format!("{GOOGLE}/o/oauth2/v2/auth").parse().unwrap()),
        ..stage.google_options()
    }
}

/// What a browser does with the address: it ends where Google sends it.
async fn browse(stage: &Stage, url: &str) -> (u16, String) {
    let request = http::Request::get(url).body(Body::empty()).unwrap();
    let response = stage
        .simulator
        .google_router()
        .oneshot(request)
        .await
        .unwrap();
    let place = response.headers().get("location");
    let place = place.map_or(String::new(), |place| place.to_str().unwrap().to_owned());
    (response.status().as_u16(), place)
}

async fn consented(stage: &Stage, login: &Login) -> (Consent, String) {
    let consent = login.begin(REDIRECT).unwrap();
    let (status, back) = browse(stage, consent.url.as_str()).await;
    assert_eq!(status, 302, "{}", consent.url);
    assert!(back.starts_with(REDIRECT), "{back}");
    (consent, back)
}

async fn reads(caller: &mut Caller, stage: &Stage) -> usize {
    caller.start(stage.simulator.world().options().from);
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    caller.seen.len()
}

#[tokio::test(start_paused = true)]
async fn a_consent_brings_a_token_kept_in_a_private_file_with_which_the_connector_reads() {
    let stage = stage(GoogleOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let options = options(&stage, &file);
    let login = Login::new(&options, &stage.surroundings).unwrap();
    let (consent, back) = consented(&stage, &login).await;
    let asked: Vec<(String, String)> = consent.url.query_pairs().into_owned().collect();
    let value = |name: &str| {
        asked
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(value("code_challenge_method"), Some("S256"));
    assert_eq!(value("access_type"), Some("offline"));
    assert_eq!(value("prompt"), Some("consent"));
    assert_eq!(value("redirect_uri"), Some(REDIRECT));
    assert_eq!(
        value("scope"),
        Some("https://www.googleapis.com/auth/admin.reports.audit.readonly")
    );
    login.finish(&consent, &back).await.unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
    let mut caller = stage.google(options);
    assert!(reads(&mut caller, &stage).await > 10);
    let token = std::fs::read_to_string(&file).unwrap();
    let shown = format!("{login:?} {consent:?}");
    assert!(!shown.contains(token.trim()), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_code_works_once_and_only_with_its_own_verifier_and_state() {
    let stage = stage(GoogleOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let login = Login::new(&options(&stage, &file), &stage.surroundings).unwrap();
    let (consent, back) = consented(&stage, &login).await;
    // Another login's redirect, or one that somebody made up, changes nothing.
    let (other, other_back) = consented(&stage, &login).await;
    for foreign in [other_back.as_str(), "http://127.0.0.1:5005/?code=x"] {
        let refused = login.finish(&consent, foreign).await.unwrap_err();
        assert!(matches!(refused, LoginError::NotThis(_)), "{refused}");
    }
    // The code of one login under the state of another: its verifier does not fit.
    let pairs = |text: &str| -> Vec<(String, String)> {
        let url: url::Url = text.parse().unwrap();
        url.query_pairs().into_owned().collect()
    };
    let of = |text: &str, name: &str| {
        let found = pairs(text).into_iter().find(|(known, _)| known == name);
        found.unwrap().1
    };
    let (code, state) = (of(&back, "code"), of(&other_back, "state"));
    let crossed = format!("/?code={}&state={state}", code.replace('/', "%2F"));
    let refused = login.finish(&other, &crossed).await.unwrap_err();
    assert!(refused.to_string().contains("code verifier"), "{refused}");
    assert!(matches!(
        refused,
        LoginError::Vendor(FetchError::Auth { .. })
    ));
    // That try used the code up.
    let refused = login.finish(&consent, &back).await.unwrap_err();
    assert!(refused.to_string().contains("invalid_grant"), "{refused}");
    assert!(!file.exists());
    login.finish(&other, &other_back).await.unwrap();
    let again = login.finish(&other, &other_back).await.unwrap_err();
    assert!(again.to_string().contains("invalid_grant"), "{again}");
}

#[tokio::test(start_paused = true)]
async fn a_declined_consent_and_an_open_file_are_told_and_keep_nothing() {
    let stage = stage(GoogleOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let login = Login::new(&options(&stage, &file), &stage.surroundings).unwrap();
    let admin = stage.simulator.world().tenants()[0].admin().email.clone();
    stage.simulator.google().seat(&admin, Person::Declines);
    let (consent, back) = consented(&stage, &login).await;
    let declined = login.finish(&consent, &back).await.unwrap_err();
    assert!(declined.to_string().contains("access_denied"), "{declined}");
    assert!(!file.exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = login.begin(REDIRECT).unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_dies_asks_for_a_new_login_and_is_taken_up_without_a_restart() {
    let stage = stage(GoogleOptions {
        consent_in_testing: true,
        ..GoogleOptions::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let options = options(&stage, &file);
    let login = Login::new(&options, &stage.surroundings).unwrap();
    let (consent, back) = consented(&stage, &login).await;
    login.finish(&consent, &back).await.unwrap();
    let mut caller = stage.google(options);
    assert!(reads(&mut caller, &stage).await > 10);
    // A consent screen in testing: the token lives for a week.
    stage.pass(TimeDelta::days(7)).await;
    caller.poll().await;
    let (_, error) = caller.errors.first().expect("a refusal");
    let FetchError::Auth { help, .. } = error else {
        panic!("{error:?}");
    };
    assert!(help.contains("auth login"), "{help}");
    let (consent, back) = consented(&stage, &login).await;
    login.finish(&consent, &back).await.unwrap();
    caller.errors.clear();
    stage.pass(TimeDelta::minutes(2)).await;
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
}

#[tokio::test(start_paused = true)]
async fn a_logout_takes_the_access_back_and_a_vendor_in_trouble_keeps_the_token_for_another_try() {
    let stage = stage(GoogleOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let options = options(&stage, &file);
    let login = Login::new(&options, &stage.surroundings).unwrap();
    let nothing = login.revoke().await.unwrap_err();
    assert!(nothing.to_string().contains("nothing to take back"));
    let (consent, back) = consented(&stage, &login).await;
    login.finish(&consent, &back).await.unwrap();
    let token = std::fs::read_to_string(&file).unwrap();
    stage.faults(FaultScript {
        seed: 1,
        rules: vec![FaultRule::new(Endpoint::GoogleConsent, Fault::Outage).calls(1, 1)],
    });
    let failed = login.revoke().await.unwrap_err();
    assert!(matches!(
        failed,
        LoginError::Vendor(FetchError::Retry { .. })
    ));
    assert!(file.exists());
    login.revoke().await.unwrap();
    assert!(!file.exists());
    // Google knows the token no more; taking it back twice is no failure.
    std::fs::write(&file, &token).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut caller = stage.google(options);
    caller.start(stage.simulator.world().options().from);
    caller.poll().await;
    let (_, error) = caller.errors.first().expect("a refusal");
    assert!(matches!(error, FetchError::Auth { .. }), "{error:?}");
    login.revoke().await.unwrap();
    assert!(!file.exists());
}

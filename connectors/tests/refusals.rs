//! What an operator or an administrator can get wrong: each ends in the decision and the sentence
//! that the documentation promises, and stops nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use chrono::TimeDelta;
use exfilwatch_connectors::kernel::surroundings::BuildError;
use exfilwatch_connectors::options::{
    AssertionStyle, CertificateOptions, Cloud, GoogleWorkspaceOptions, Office365Options,
    RefreshTokenOptions,
};
use exfilwatch_connectors::records::microsoft::Microsoft365Records;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_connectors::{Connector, FetchError, PageStream};
use exfilwatch_model::{Domains, SecretSource, WorkItem};
use exfilwatch_simulator::microsoft::ROLE_READ;
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use futures::StreamExt;
use support::{Caller, Stage, at};

type Expected = fn(&FetchError) -> bool;

fn world() -> WorldOptions {
    let from = at("2026-03-03T06:00:00Z");
    WorldOptions {
        records_per_day: 400,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, from, from + TimeDelta::days(1))
    }
}

/// A day has passed; everything is visible and nothing expired.
fn stage() -> Stage {
    let mut options = SimulatorOptions {
        start: Some(world().until),
        ..SimulatorOptions::default()
    };
    options.microsoft.subscribed = true;
    Stage::new(world(), options)
}

async fn poll(stage: &Stage, caller: &mut Caller) {
    caller.start(world().from);
    caller.poll().await;
    stage.pass(TimeDelta::minutes(2)).await;
}

fn only_error(caller: &Caller) -> &FetchError {
    assert!(caller.seen.is_empty());
    &caller.errors.first().expect("an error").1
}

fn help(error: &FetchError) -> &str {
    match error {
        FetchError::Auth { help, .. }
        | FetchError::Permission { help, .. }
        | FetchError::AuditingDisabled { help, .. } => help,
        other => panic!("{other:?} has no help"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_a_matter_of_credentials_and_asked_about_once_not_per_stream() {
    let stage = stage();
    stage.simulator.microsoft().set_secret("rotated away");
    let mut caller = stage.office365(stage.office365_options());
    poll(&stage, &mut caller).await;
    let error = only_error(&caller);
    assert!(matches!(error, FetchError::Auth { .. }), "{error:?}");
    assert!(error.to_string().contains("AADSTS7000215") && help(error).contains("client_secret"));
    assert_eq!(caller.errors.len(), 5);
    assert_eq!(stage.simulator.faults().calls(Endpoint::MicrosoftToken), 1);
    // Put right, it works without a new connector.
    let secret = stage
        .simulator
        .credentials()
        .microsoft
        .client_secret
        .clone();
    stage.simulator.microsoft().set_secret(&secret);
    caller.poll().await;
    assert!(!caller.seen.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_tenants_client_and_an_expired_secret_are_told_apart() {
    let stage = stage();
    let unknown = Office365Options {
        client_id: Some("11111111-2222-3333-4444-555555555555".into()),
        ..stage.office365_options()
    };
    let cross_cloud = Office365Options {
        cloud: Some(Cloud::GccHigh),
        ..stage.office365_options()
    };
    for (options, code, word) in [
        (unknown, "AADSTS700016", "client_id"),
        (cross_cloud, "AADSTS900382", "cloud"),
    ] {
        let mut caller = stage.office365(options);
        poll(&stage, &mut caller).await;
        let error = only_error(&caller);
        assert!(
            error.to_string().contains(code) && help(error).contains(word),
            "{error:?}"
        );
    }
    stage.simulator.microsoft().expire_secret(true);
    let mut caller = stage.office365(stage.office365_options());
    poll(&stage, &mut caller).await;
    assert!(help(only_error(&caller)).contains("expired"));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_signs_in_both_styles() {
    let stage = stage();
    let app = &stage.simulator.credentials().microsoft;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.pem");
    std::fs::write(
        &file,
        format!("{}\n{}", app.certificate_pem, app.private_key_pem),
    )
    .unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    for assertion in [AssertionStyle::Ps256, AssertionStyle::Rs256] {
        let mut caller = stage.office365(Office365Options {
            client_secret: None,
            certificate: Some(CertificateOptions {
                file: file.clone(),
                key_file: None,
                assertion,
            }),
            ..stage.office365_options()
        });
        poll(&stage, &mut caller).await;
        assert!(
            caller.errors.is_empty(),
            "{assertion:?}: {:?}",
            caller.errors
        );
        assert!(!caller.seen.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_dlp_role_holds_that_content_type_alone() {
    let stage = stage();
    stage.simulator.microsoft().set_roles(&[ROLE_READ]);
    let mut caller = stage.office365(stage.office365_options());
    poll(&stage, &mut caller).await;
    assert_eq!(caller.errors.len(), 1, "{:?}", caller.errors);
    let (stream, error) = &caller.errors[0];
    assert!(stream.ends_with("DLP.All") && matches!(error, FetchError::Permission { .. }));
    assert!(help(error).contains("ActivityFeed.ReadDlp"));
    assert!(!caller.seen.is_empty());
}

#[tokio::test(start_paused = true)]
async fn auditing_switched_off_is_said_and_passes_when_switched_on() {
    let stage = stage();
    stage.simulator.microsoft().set_auditing("contoso", false);
    let mut caller = stage.office365(stage.office365_options());
    poll(&stage, &mut caller).await;
    let error = only_error(&caller);
    assert!(
        matches!(error, FetchError::AuditingDisabled { .. }),
        "{error:?}"
    );
    assert!(help(error).contains("UnifiedAuditLogIngestionEnabled"));
    stage.simulator.microsoft().set_auditing("contoso", true);
    caller.poll().await;
    assert!(!caller.seen.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ten_restarts_start_a_subscription_once_and_one_turned_off_is_a_gap() {
    let options = SimulatorOptions {
        start: Some(world().until),
        ..SimulatorOptions::default()
    };
    let stage = Stage::new(world(), options);
    let mut caller = stage.office365(stage.office365_options());
    poll(&stage, &mut caller).await;
    for _ in 0..10 {
        let cursors = caller.cursors.clone();
        caller = stage.office365(stage.office365_options());
        caller.cursors = cursors;
        caller.poll().await;
        stage.pass(TimeDelta::minutes(1)).await;
    }
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    let microsoft = stage.simulator.microsoft();
    assert_eq!(microsoft.start_calls("contoso", "Audit.Exchange"), 1);
    microsoft.disable_subscription("contoso", "Audit.Exchange");
    stage.pass(TimeDelta::minutes(2)).await;
    // Too soon after the start: one clear error an attempt, no hot loop of starts.
    for _ in 0..3 {
        caller.poll().await;
    }
    assert!(
        caller
            .errors
            .iter()
            .all(|(stream, e)| stream.ends_with("Audit.Exchange")
                && matches!(e, FetchError::Retry { after: Some(_), .. }))
    );
    assert_eq!(microsoft.start_calls("contoso", "Audit.Exchange"), 1);
    stage.pass(TimeDelta::minutes(16)).await;
    caller.errors.clear();
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(microsoft.start_calls("contoso", "Audit.Exchange"), 2);
    assert_eq!(caller.gaps.len(), 1);
    assert!(caller.gaps[0].reason.contains("subscription was off"));
}

#[tokio::test(start_paused = true)]
async fn eight_days_down_is_a_gap_and_not_an_error() {
    let stage = stage();
    let mut caller = stage.office365(stage.office365_options());
    poll(&stage, &mut caller).await;
    stage.pass(TimeDelta::days(8)).await;
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(caller.gaps.len(), 5);
    assert!(
        caller
            .gaps
            .iter()
            .all(|gap| gap.window.length() < TimeDelta::hours(26))
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_down_for_ten_minutes_passes() {
    let stage = stage();
    let start = world().until;
    let down = FaultRule::new(Endpoint::MicrosoftToken, Fault::Outage)
        .between(start, start + TimeDelta::minutes(10));
    stage.faults(FaultScript {
        seed: 1,
        rules: vec![down],
    });
    let mut caller = stage.office365(stage.office365_options());
    poll(&stage, &mut caller).await;
    assert!(matches!(only_error(&caller), FetchError::Retry { .. }));
    stage.pass(TimeDelta::minutes(10)).await;
    caller.poll().await;
    assert!(!caller.seen.is_empty());
}

#[tokio::test(start_paused = true)]
async fn blobs_that_cannot_be_read_end_in_their_documented_decision() {
    let cases: [(Fault, Expected); 5] = [
        (status(404, "AF20050"), |e| {
            matches!(e, FetchError::Retry { .. })
        }),
        (status(400, "AF20051"), |e| {
            matches!(e, FetchError::Gone { .. })
        }),
        (status(400, "AF20052"), |e| {
            matches!(e, FetchError::Poison { .. })
        }),
        (
            Fault::Status {
                status: 200,
                body: r#"{"error":"x"}"#.into(),
                headers: vec![],
            },
            |e| matches!(e, FetchError::Retry { .. }),
        ),
        (
            Fault::Status {
                status: 302,
                body: String::new(),
                headers: vec![("location".into(), "https://evil.test/x".into())],
            },
            |e| matches!(e, FetchError::Retry { what, .. } if what.contains("evil.test")),
        ),
    ];
    for (fault, expected) in cases {
        let stage = stage();
        let mut caller = stage.office365(stage.office365_options());
        caller.start(world().from);
        for stream in caller.connector.streams() {
            caller.list(&stream).await;
        }
        let item = caller.open.values().next().unwrap().clone();
        let shown = format!("{fault:?}");
        stage.faults(FaultScript {
            seed: 1,
            rules: vec![FaultRule::new(Endpoint::Blob, fault)],
        });
        let error = first_error(&*caller.connector, &item).await;
        assert!(expected(&error), "{shown}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_never_came_is_gone_once_it_has_expired() {
    let stage = stage();
    let mut caller = stage.office365(stage.office365_options());
    caller.start(world().from);
    for stream in caller.connector.streams() {
        caller.list(&stream).await;
    }
    let item = caller.open.values().next().unwrap().clone();
    let rule = FaultRule::new(Endpoint::Blob, status(404, "AF20050"));
    stage.faults(FaultScript {
        seed: 1,
        rules: vec![rule],
    });
    let error = first_error(&*caller.connector, &item).await;
    assert!(matches!(error, FetchError::Retry { .. }), "{error:?}");
    stage.pass(TimeDelta::days(8)).await;
    let error = first_error(&*caller.connector, &item).await;
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
}

fn status(status: u16, code: &str) -> Fault {
    Fault::Status {
        status,
        body: format!(r#"{{"error":{{"code":"{code}","message":"words"}}}}"#),
        headers: vec![],
    }
}

async fn first_error(connector: &dyn Connector, item: &WorkItem) -> FetchError {
    match connector.fetch(item).await {
        Err(error) => error,
        Ok(pages) => error_in(pages).await,
    }
}

async fn error_in(mut pages: PageStream) -> FetchError {
    loop {
        if let Err(error) = pages.next().await.expect("an error before the end") {
            return error;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_record_between_good_ones_is_set_aside_alone() {
    let stage = stage();
    let mut caller = stage.office365(stage.office365_options());
    caller.start(world().from);
    let stream = caller.connector.streams()[0].clone();
    caller.list(&stream).await;
    let first = caller.open.keys().next().unwrap().clone();
    caller.open.retain(|key, _| *key == first);
    let body = r#"[{"Id":"a","CreationTime":"2026-03-03T10:00:00"},17,{"Id":"b"},"x",{"Id":"c"}]"#;
    let fault = Fault::Status {
        status: 200,
        body: body.into(),
        headers: vec![],
    };
    stage.faults(FaultScript {
        seed: 1,
        rules: vec![FaultRule::new(Endpoint::Blob, fault)],
    });
    caller.fetch().await;
    assert_eq!(caller.seen.len(), 3);
    assert_eq!(caller.malformed.len(), 2);
    assert!(caller.open.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_subject_without_privilege_or_delegation_is_told_what_to_do() {
    let stage = stage();
    stage.simulator.google().set_delegated_scopes(&[]);
    let mut caller = stage.google(stage.google_options());
    poll(&stage, &mut caller).await;
    let error = only_error(&caller);
    assert!(
        matches!(error, FetchError::Auth { .. }) && help(error).contains("delegate"),
        "{error:?}"
    );
    let other = stage.simulator.world().tenants()[0].person(3).email.clone();
    let fresh = self::stage();
    let mut caller = fresh.google(GoogleWorkspaceOptions {
        subject: Some(other),
        ..fresh.google_options()
    });
    poll(&fresh, &mut caller).await;
    let error = only_error(&caller);
    assert!(matches!(error, FetchError::Permission { .. }), "{error:?}");
    assert!(help(error).contains("Reports privilege"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_reads_until_it_is_revoked() {
    let stage = stage();
    let options = GoogleWorkspaceOptions {
        service_account: None,
        refresh_token: Some(RefreshTokenOptions {
            client_id: stage
                .simulator
                .credentials()
                .google
                .installed_client_id
                .clone(),
            client_secret: SecretSource::Env("GOOGLE_CLIENT_SECRET".into()),
            token: SecretSource::Env("GOOGLE_REFRESH".into()),
        }),
        ..stage.google_options()
    };
    let mut caller = stage.google(options);
    poll(&stage, &mut caller).await;
    assert!(
        caller.errors.is_empty() && !caller.seen.is_empty(),
        "{:?}",
        caller.errors
    );
    let admin = stage.simulator.world().tenants()[0].admin().email.clone();
    stage.simulator.google().revoke(&admin);
    stage.simulator.google().drop_tokens();
    stage.pass(TimeDelta::hours(2)).await;
    caller.poll().await;
    let (_, error) = caller.errors.first().expect("an error");
    assert!(matches!(error, FetchError::Auth { .. }) && help(error).contains("sign in again"));
}

#[tokio::test(start_paused = true)]
async fn options_that_cannot_work_are_refused_before_any_call() {
    let stage = stage();
    let good = stage.office365_options();
    let with = |change: fn(&mut Office365Options)| {
        let mut options = good.clone();
        change(&mut options);
        options
    };
    let cases = [
        (with(|o| o.tenant_id = None), "tenant_id"),
        (
            with(|o| o.tenant_id = Some("contoso.example".into())),
            "GUID",
        ),
        (
            with(|o| o.publisher_identifier = Some("me".into())),
            "publisher_identifier",
        ),
        (with(|o| o.client_secret = None), "certificate"),
        (
            with(|o| o.client_secret = Some(SecretSource::Env("UNSET".into()))),
            "UNSET",
        ),
        (
            with(|o| o.client_secret = Some(SecretSource::File("/nowhere/x".into()))),
            "/nowhere/x",
        ),
        (
            with(|o| o.content_types = Some(vec!["Audit.Exchnge".into()])),
            "Audit.Exchange",
        ),
        (with(|o| o.content_types = Some(vec![])), "content_types"),
        (
            with(|o| o.api_root = Some("http://evil.test".parse().unwrap())),
            "api_root",
        ),
        (
            with(|o| o.login_root = Some("http://evil.test".parse().unwrap())),
            "login_root",
        ),
        (
            with(|o| o.requests_per_minute = Some(0)),
            "requests_per_minute",
        ),
    ];
    for (options, word) in cases {
        let reader = Arc::new(Microsoft365Records::new(Arc::new(Domains::new::<&str>(
            &[],
            &[],
        ))));
        let built: Result<_, BuildError> =
            AnyOptions::Office365(Box::new(options)).build(reader, &stage.surroundings);
        let error = built.expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(stage.transport.asked.lock().unwrap().is_empty());
}

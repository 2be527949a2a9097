//! What the services give: subscriptions, auditing, content, throttling. And the set-up that is well.

use exfilwatch_simulator::fault::{Endpoint, Fault, FaultRule, FaultScript};

use crate::patient::{Patient, says};
use crate::scene::until;

const CONTENT_TYPES: [&str; 5] = [
    "Audit.AzureActiveDirectory",
    "Audit.Exchange",
    "Audit.SharePoint",
    "Audit.General",
    "DLP.All",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_up_that_is_well_is_ok_in_everything() {
    let patient = Patient::well().await;
    let seen = patient.doctor(&[]).await;
    assert_eq!(seen.code, Some(0), "{}", seen.shown());
    for check in &seen.checks {
        assert_eq!(check["verdict"], "ok", "{}", seen.shown());
    }
    for (subject, check) in [
        ("configuration", "configuration"),
        ("office365.contoso", "dns"),
        ("office365.contoso", "clock"),
        ("office365.contoso", "auditing"),
        ("google_workspace.contoso", "privilege"),
        ("tenants.contoso", "internal_domains"),
        ("splunk_hec.main", "receiver_token"),
        ("splunk_hec.main", "receiver_ack"),
        ("ndjson.findings", "receiver_file"),
        ("state", "state_write"),
        ("state", "state_lock"),
    ] {
        seen.check(subject, check);
    }
    // It only looked.
    assert!(!patient.scene.path("state").exists());
    assert!(!patient.scene.path("findings.ndjson").exists());
    let indexed = patient
        .services()
        .hec()
        .look(exfilwatch_simulator::hec::Recorded::count);
    assert_eq!(indexed, 0);
    for content_type in CONTENT_TYPES {
        let starts = patient
            .services()
            .microsoft()
            .start_calls("contoso", content_type);
        assert_eq!(starts, 0);
    }

    let table = patient.scene.output(&["doctor"]).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.ends_with("All is well.\n"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_reads_in_three_lines_what_is_wrong_and_what_to_do() {
    let patient = Patient::well().await;
    patient.services().microsoft().expire_secret(true);
    let output = patient.scene.output(&["doctor"]).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last: Vec<&str> = stdout.lines().rev().take(3).collect();
    assert_eq!(
        last[2],
        "FAILED office365.contoso token: client_secret_expired"
    );
    assert!(
        last[1].starts_with("  seen  Microsoft refused a token"),
        "{stdout}"
    );
    assert!(
        last[0].starts_with("  fix   the client secret has expired"),
        "{stdout}"
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("client_secret_expired"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_disabled() {
    let patient = Patient::well().await;
    patient
        .services()
        .microsoft()
        .disable_subscription("contoso", "Audit.Exchange");
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("subscription_disabled", 4);
    assert_eq!(check["facts"]["content_type"], "Audit.Exchange");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_was_never_started() {
    let patient = Patient::with(|options| options.microsoft.subscribed = false).await;
    let seen = patient.doctor(&[]).await;
    says(seen.warned("subscription_missing"), "fix", "exfilwatch run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auditing_is_off() {
    let patient = Patient::well().await;
    patient
        .services()
        .microsoft()
        .set_auditing("contoso", false);
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("auditing_off", 4);
    assert_eq!(check["check"], "auditing");
    says(check, "fix", "UnifiedAuditLogIngestionEnabled");
}

/// `run` has just started the subscriptions, and holds the state meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_subscription_waits_for_its_first_content_beside_a_running_poller() {
    let patient = Patient::with(|options| {
        options.microsoft.subscribed = false;
        options.microsoft.content_before_subscription = false;
    })
    .await;
    let process = patient.scene.start();
    let microsoft = patient.services().microsoft();
    until(
        "the subscriptions",
        || {
            let started = |content_type| microsoft.start_calls("contoso", content_type) > 0;
            CONTENT_TYPES.into_iter().all(started)
        },
        || patient.scene.log(),
    )
    .await;
    let seen = patient.doctor(&[]).await;
    says(seen.warned("first_content_pending"), "fix", "12 hours");
    says(seen.check("state", "state_lock"), "seen", "which answers");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_throttles() {
    let patient = Patient::well().await;
    let fault = Fault::Throttle {
        retry_after_seconds: Some(30),
    };
    patient.services().faults().replace(FaultScript {
        seed: 0,
        rules: vec![FaultRule::new(Endpoint::ContentList, fault)],
    });
    let seen = patient.doctor(&[]).await;
    says(seen.warned("throttled"), "seen", "AF429");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_above_the_limit() {
    let patient = Patient::well().await;
    let set = "connectors.office365.contoso.requests_per_minute=100000";
    patient.doctor(&[set]).await.warned("quota_above_limit");
}

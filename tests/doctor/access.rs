//! Credentials and permissions: what the vendors' token endpoints and roles say.

use std::os::unix::fs::PermissionsExt;

use exfilwatch_simulator::credentials::Credentials;
use exfilwatch_simulator::fault::{Endpoint, Fault, FaultRule, FaultScript};

use crate::patient::{Patient, says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_secret_that_is_wrong() {
    let patient = Patient::well().await;
    patient.services().microsoft().set_secret("another");
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("client_secret_wrong", 3);
    assert_eq!(check["check"], "token");
    says(check, "seen", "AADSTS7000215");
    says(check, "fix", "not its id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_secret_that_has_expired() {
    let patient = Patient::well().await;
    patient.services().microsoft().expire_secret(true);
    let seen = patient.doctor(&[]).await;
    says(
        seen.failed("client_secret_expired", 3),
        "seen",
        "AADSTS7000222",
    );
}

/// The certificate of another application, in place of the client secret.
fn with_certificate(patient: &Patient, credentials: &Credentials) {
    let app = &credentials.microsoft;
    let pem = format!("{}{}", app.certificate_pem, app.private_key_pem);
    patient.scene.write("app.pem", &pem);
    let folder = patient.scene.folder.path().display();
    patient.edit(
        &format!("client_secret = {{ file = \"{folder}/entra.secret\" }}"),
        &format!("certificate = {{ file = \"{folder}/app.pem\" }}"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_was_not_uploaded() {
    let patient = Patient::well().await;
    with_certificate(&patient, &Credentials::generate().unwrap());
    let seen = patient.doctor(&[]).await;
    says(
        seen.failed("certificate_not_uploaded", 3),
        "seen",
        "AADSTS700027",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_does_not_exist() {
    let patient = Patient::well().await;
    let set = "connectors.office365.contoso.tenant_id=00000000-1111-4222-8333-444444444444";
    says(
        patient.doctor(&[set]).await.failed("tenant_unknown", 3),
        "seen",
        "AADSTS90002",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_not_known() {
    let patient = Patient::well().await;
    let set = "connectors.office365.contoso.client_id=00000000-1111-4222-8333-444444444444";
    patient
        .doctor(&[set])
        .await
        .failed("application_unknown", 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_of_another_cloud() {
    let patient = Patient::well().await;
    let set = "connectors.office365.contoso.cloud=gcc-high";
    says(
        patient.doctor(&[set]).await.failed("cloud_wrong", 3),
        "seen",
        "AADSTS900382",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_to_read_is_missing() {
    let patient = Patient::well().await;
    let microsoft = patient.services().microsoft();
    microsoft.set_roles(&["ActivityFeed.ReadDlp"]);
    let seen = patient.doctor(&[]).await;
    // The calls are refused for the same reason; the first cause is the one to act on.
    assert!(seen.causes("failed").contains("role_missing"));
    assert_eq!(seen.code, Some(3));
    let check = seen.check("office365.contoso", "roles");
    assert_eq!(check["cause"], "role_missing");
    assert_eq!(check["facts"]["roles"][0], "ActivityFeed.ReadDlp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_for_dlp_is_missing() {
    let patient = Patient::well().await;
    let microsoft = patient.services().microsoft();
    microsoft.set_roles(&["ActivityFeed.Read"]);
    let seen = patient.doctor(&[]).await;
    seen.warned("role_dlp_missing");
    let set = "connectors.office365.contoso.content_types=[\"Audit.Exchange\"]";
    let without = patient.doctor(&[set]).await;
    assert!(without.causes("warning").is_empty(), "{}", without.shown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_are_not_needed_are_named() {
    let patient = Patient::well().await;
    let microsoft = patient.services().microsoft();
    microsoft.set_roles(&["ActivityFeed.Read", "ActivityFeed.ReadDlp", "Mail.Read"]);
    let seen = patient.doctor(&[]).await;
    says(seen.warned("roles_too_many"), "seen", "Mail.Read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_in_graph_are_looked_at_too() {
    let patient = Patient::well().await;
    let microsoft = patient.services().microsoft();
    microsoft.set_graph_roles(&[
        "AuditLogsQuery.Read.All",
        "Domain.Read.All",
        "Files.Read.All",
    ]);
    let seen = patient.doctor(&[]).await;
    says(seen.warned("roles_too_many"), "seen", "Files.Read.All");
    microsoft.set_graph_roles(&[]);
    let seen = patient.doctor(&[]).await;
    says(
        seen.warned("archive_not_permitted"),
        "seen",
        "AuditLogsQuery.Read.All",
    );
    let off = "connectors.office365.contoso.audit_search=off";
    let seen = patient.doctor(&[off]).await;
    assert!(seen.causes("warning").is_empty(), "{}", seen.shown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_file_that_others_may_read() {
    let patient = Patient::well().await;
    let path = patient.scene.path("entra.secret");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("secret_readable_by_others", 2);
    says(check, "seen", "entra.secret");
    says(check, "seen", "0644");
    let token = seen.check("office365.contoso", "token");
    assert_eq!(token["verdict"], "skipped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_not_there() {
    let patient = Patient::well().await;
    std::fs::remove_file(patient.scene.path("google.json")).unwrap();
    let seen = patient.doctor(&[]).await;
    says(seen.failed("secret_missing", 2), "seen", "google.json");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_without_delegation() {
    let patient = Patient::well().await;
    patient.services().google().set_delegated_scopes(&[]);
    let seen = patient.doctor(&[]).await;
    says(
        seen.failed("delegation_missing", 3),
        "seen",
        "unauthorized_client",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_google_does_not_know() {
    let patient = Patient::well().await;
    let set = "connectors.google_workspace.contoso.subject=nobody@contoso.example";
    patient.doctor(&[set]).await.failed("subject_unknown", 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_without_the_reports_privilege() {
    let patient = Patient::well().await;
    let tenant = &patient.services().world().tenants()[0];
    let admin = &tenant.admin().email;
    let other = tenant.people.iter().find(|p| p.email != *admin).unwrap();
    let set = format!(
        "connectors.google_workspace.contoso.subject={}",
        other.email
    );
    let seen = patient.doctor(&[&set]).await;
    let check = seen.failed("privilege_missing", 3);
    says(check, "seen", "401");
    // Each application is told by itself.
    let refused = seen.checks.iter().filter(|c| c["verdict"] == "failed");
    assert!(refused.count() > 5, "{}", seen.shown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_not_enabled() {
    let patient = Patient::well().await;
    let body = r#"{"error":{"code":403,"message":"Admin SDK API has not been used in project 1 before or it is disabled.","errors":[{"domain":"usageLimits","reason":"accessNotConfigured","message":"disabled"}],"status":"PERMISSION_DENIED"}}"#;
    let fault = Fault::Status {
        status: 403,
        body: body.to_owned(),
        headers: Vec::new(),
    };
    patient.services().faults().replace(FaultScript {
        seed: 0,
        rules: vec![FaultRule::new(Endpoint::Activities, fault)],
    });
    let seen = patient.doctor(&[]).await;
    says(seen.failed("api_not_enabled", 3), "fix", "Admin SDK");
}

/// A login service that repeats what it was sent, secret and all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_the_other_side_repeats_is_not_printed() {
    let patient = Patient::well().await;
    let secret = &patient.services().credentials().microsoft.client_secret;
    let body = format!(r#"{{"error":"invalid_request","error_description":"you sent {secret}"}}"#);
    let fault = Fault::Status {
        status: 400,
        body,
        headers: Vec::new(),
    };
    patient.services().faults().replace(FaultScript {
        seed: 0,
        rules: vec![FaultRule::new(Endpoint::MicrosoftToken, fault)],
    });
    // `doctor` itself fails the test where a secret is printed.
    let seen = patient.doctor(&[]).await;
    says(seen.check("office365.contoso", "token"), "seen", "[secret]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_check_tells_what_a_token_is_and_what_it_allows() {
    let patient = Patient::well().await;
    let command = ["auth", "check", "--output", "json"];
    let seen = patient.run(&command, &[]).await;
    assert_eq!(seen.code, Some(0), "{}", seen.shown());
    let token = seen.check("office365.contoso", "token");
    assert_eq!(token["verdict"], "ok");
    assert_eq!(token["facts"]["audience"], "https://manage.office.com");
    says(&token["facts"], "credential", "client secret from file");
    assert!(token["facts"]["expires_at"].as_str().unwrap().len() > 10);
    let roles = &seen.check("office365.contoso", "roles")["facts"]["roles"];
    assert_eq!(roles.as_array().unwrap().len(), 2);
    let scopes = &seen.check("google_workspace.contoso", "scopes")["facts"]["scopes"];
    assert_eq!(
        scopes[0],
        "https://www.googleapis.com/auth/admin.reports.audit.readonly"
    );
    // No call to the services themselves.
    assert!(seen.checks.iter().all(|c| c["check"] != "subscription"));

    patient.services().microsoft().expire_secret(true);
    let seen = patient.run(&command, &[]).await;
    seen.failed("client_secret_expired", 3);
    let one = [
        "auth",
        "check",
        "google_workspace/contoso",
        "--output",
        "json",
    ];
    let seen = patient.run(&one, &[]).await;
    assert_eq!(seen.code, Some(0), "{}", seen.shown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_known_gets_a_token() {
    let patient = Patient::well().await;
    with_certificate(&patient, patient.services().credentials());
    let seen = patient
        .run(&["auth", "check", "--output", "json"], &[])
        .await;
    assert_eq!(seen.code, Some(0), "{}", seen.shown());
    let token = seen.check("office365.contoso", "token");
    says(&token["facts"], "credential", "certificate");
}

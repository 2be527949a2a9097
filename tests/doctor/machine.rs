//! The configuration and the state folder.

use std::fs::File;

use exfilwatch_simulator::google::{SCOPE_AUDIT, SCOPE_DOMAINS};
use exfilwatch_simulator::microsoft::ROLE_AUDIT_ALL;

use crate::patient::{Patient, says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_be_used() {
    let patient = Patient::well().await;
    patient.edit("tenant_id", "tenant_di");
    let seen = patient.doctor(&[]).await;
    says(seen.failed("configuration_invalid", 2), "seen", "tenant_di");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_domains_that_nobody_named() {
    let patient = Patient::well().await;
    let domains = patient.services().world().tenants()[0].internal_domains();
    let line = format!("internal_domains = [\"{}\"]", domains.join("\", \""));
    patient.edit(&line, "internal_domains = []");
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("internal_domains_unknown", 2);
    assert_eq!(check["subject"], "tenants.contoso");
    let off = patient.doctor(&["detectors.enabled=false"]).await;
    assert_eq!(off.code, Some(0), "{}", off.shown());
}

/// `internal_domains = "auto"`: both vendors say, one says, none says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_domains_that_the_vendors_are_asked_for() {
    let patient = Patient::well().await;
    let services = patient.services();
    let domains = services.world().tenants()[0].internal_domains();
    let line = format!("internal_domains = [\"{}\"]", domains.join("\", \""));
    patient.edit(&line, "internal_domains = \"auto\"");
    services
        .google()
        .set_delegated_scopes(&[SCOPE_AUDIT, SCOPE_DOMAINS]);
    let seen = patient.doctor(&[]).await;
    assert_eq!(seen.code, Some(0), "{}", seen.shown());
    let check = seen.check("tenants.contoso", "internal_domains");
    assert_eq!(check["verdict"], "ok");
    for domain in &domains {
        says(check, "seen", domain);
    }

    services.google().set_delegated_scopes(&[SCOPE_AUDIT]);
    let seen = patient.doctor(&[]).await;
    let check = seen.warned("internal_domains_unknown");
    assert_eq!(check["subject"], "tenants.contoso");
    says(check, "seen", "not all say: google_workspace");

    services.microsoft().set_graph_roles(&[ROLE_AUDIT_ALL]);
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("internal_domains_unknown", 2);
    says(check, "seen", "office365");
    says(check, "fix", "internal_domains");

    // One that is listed beside suffices, and it is said that the others are not known.
    patient.edit("\"auto\"", "[\"auto\", \"contoso.example\"]");
    patient.doctor(&[]).await.warned("internal_domains_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tenant_is_looked_at_where_only_one_is_meant() {
    let patient = Patient::well().await;
    patient.add("\n[tenants.other]\ninternal_domains = [\"other.example\"]\n");
    let command = ["doctor", "--tenant", "other", "--output", "json"];
    let seen = patient.run(&command, &[]).await;
    assert_eq!(seen.code, Some(0), "{}", seen.shown());
    seen.check("tenants.other", "internal_domains");
    let of = |c: &&serde_json::Value| c["subject"].as_str().unwrap().ends_with("contoso");
    assert_eq!(seen.checks.iter().filter(of).count(), 0);
    let unknown = patient
        .scene
        .output(&["doctor", "--tenant", "nobody"])
        .await;
    assert_eq!(unknown.status.code(), Some(2));
}

/// Not even root can write there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_folder_that_cannot_be_written() {
    let patient = Patient::well().await;
    let seen = patient.doctor(&["state.folder=/proc"]).await;
    let failed = seen.failed("state_not_writable", 6);
    says(failed, "seen", "/proc");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_with_less_room_than_the_outbox_may_need() {
    let patient = Patient::well().await;
    patient.edit(
        "outbox_bytes_max = 16777216",
        "outbox_bytes_max = 4611686018427387904",
    );
    let seen = patient.doctor(&[]).await;
    assert_eq!(seen.warned("disk_space_low")["check"], "state_space");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_folder_that_another_process_holds() {
    let patient = Patient::well().await;
    patient.scene.write("state/lock", "");
    let held = File::open(patient.scene.path("state/lock")).unwrap();
    held.try_lock().unwrap();
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("state_locked", 6);
    assert_eq!(check["facts"]["process_id"], std::process::id());
    drop(held);
}

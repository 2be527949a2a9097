//! The way to the vendor: names, ports, proxies, certificates, the clock.

use chrono::TimeDelta;

use crate::patient::{Patient, says};
use crate::servers::{Authority, answering, closed};

const API: &str = "connectors.office365.contoso.api_root";
const LOGIN: &str = "connectors.office365.contoso.login_root";

/// Both places of the Office 365 connector moved.
fn moved(to: &str) -> Vec<String> {
    vec![format!("{API}={to}"), format!("{LOGIN}={to}")]
}

async fn doctor_at(patient: &Patient, sets: &[String]) -> crate::patient::Diagnosis {
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    patient.doctor(&sets).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_name_that_does_not_resolve() {
    let patient = Patient::well().await;
    let seen = doctor_at(&patient, &moved("https://manage.nowhere.invalid")).await;
    let check = seen.failed("name_not_resolved", 4);
    assert_eq!(check["check"], "dns");
    says(check, "seen", "manage.nowhere.invalid");
    // What comes behind is skipped, what has nothing to do with it is not.
    for skipped in ["tcp", "tls", "clock", "token"] {
        let check = seen.check("office365.contoso", skipped);
        assert_eq!(check["verdict"], "skipped", "{skipped}");
    }
    let other = seen.check("google_workspace.contoso", "token");
    assert_eq!(other["verdict"], "ok");
    // Neither are the files that are looked at without the network.
    let credential = seen.check("office365.contoso", "credential");
    assert_eq!(credential["verdict"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_closed() {
    let patient = Patient::well().await;
    let closed = closed();
    let address = closed.address;
    let seen = doctor_at(&patient, &moved(&format!("http://{address}"))).await;
    let check = seen.failed("connection_refused", 4);
    says(check, "seen", &address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_wants_a_password() {
    let patient = Patient::well().await;
    let proxy =
        answering("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await;
    let mut sets = moved("https://manage.nowhere.invalid");
    sets.push(format!("connectors.office365.contoso.proxy=http://{proxy}"));
    let seen = doctor_at(&patient, &sets).await;
    let check = seen.failed("proxy_refused", 4);
    says(check, "seen", "407");
    says(check, "seen", "CONNECT manage.nowhere.invalid:443");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_breaks_tls_open_is_named_by_its_issuer() {
    let patient = Patient::well().await;
    let authority = Authority::new("Corp Inspection CA");
    let server = authority.serve("localhost", false).await;
    let sets = moved(&format!("https://localhost:{}", server.port));
    let seen = doctor_at(&patient, &sets).await;
    let check = seen.failed("tls_intercepted", 4);
    says(check, "seen", "CN=Corp Inspection CA");
    assert_eq!(check["facts"]["issuer"], "CN=Corp Inspection CA");
    assert_eq!(server.heard(), "", "nothing goes to who is not trusted");
}

/// The same proxy, allowed by `ca_file`: named, and asked for the time without any credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_trusted_is_named_and_the_time_is_asked_behind_it() {
    let patient = Patient::well().await;
    let authority = Authority::new("Corp Inspection CA");
    patient.scene.write("ca.pem", &authority.pem());
    let server = authority.serve("localhost", false).await;
    let mut sets = moved(&format!("https://localhost:{}", server.port));
    let ca = patient.scene.path("ca.pem");
    sets.push(format!(
        "connectors.office365.contoso.ca_file={}",
        ca.display()
    ));
    let seen = doctor_at(&patient, &sets).await;
    let tls = seen.check("office365.contoso", "tls");
    assert_eq!(tls["verdict"], "ok");
    assert_eq!(tls["facts"]["issuer"], "CN=Corp Inspection CA");
    let clock = seen.check("office365.contoso", "clock");
    assert_eq!(clock["cause"], "clock_skew");
    assert_eq!(seen.code, Some(3));
    let heard = server.heard();
    assert!(heard.starts_with("HEAD / HTTP/1.1\r\n"), "{heard}");
    let (head, _) = heard.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("authorization"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_expired() {
    let patient = Patient::well().await;
    let authority = Authority::new("Known CA");
    patient.scene.write("ca.pem", &authority.pem());
    let server = authority.serve("localhost", true).await;
    let mut sets = moved(&format!("https://localhost:{}", server.port));
    let ca = patient.scene.path("ca.pem");
    sets.push(format!(
        "connectors.office365.contoso.ca_file={}",
        ca.display()
    ));
    doctor_at(&patient, &sets).await.failed("tls_expired", 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_host() {
    let patient = Patient::well().await;
    let authority = Authority::new("Known CA");
    patient.scene.write("ca.pem", &authority.pem());
    let server = authority.serve("other.example", false).await;
    let mut sets = moved(&format!("https://localhost:{}", server.port));
    let ca = patient.scene.path("ca.pem");
    sets.push(format!(
        "connectors.office365.contoso.ca_file={}",
        ca.display()
    ));
    let seen = doctor_at(&patient, &sets).await;
    let check = seen.failed("tls_wrong_name", 4);
    says(check, "seen", "localhost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_ten_minutes_wrong() {
    let patient = Patient::with(|options| {
        options.start = options.start.map(|start| start + TimeDelta::minutes(10));
    })
    .await;
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("clock_skew", 3);
    says(check, "seen", "behind the vendor's");
    let skew = check["facts"]["skew_seconds"].as_i64().unwrap();
    assert!((595..=605).contains(&skew), "{skew}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_two_minutes_wrong_is_a_warning() {
    let patient = Patient::with(|options| {
        options.start = options.start.map(|start| start - TimeDelta::minutes(2));
    })
    .await;
    let seen = patient.doctor(&[]).await;
    says(seen.warned("clock_skew"), "seen", "ahead of the vendor's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_place_of_the_login_service() {
    let patient = Patient::well().await;
    let server = answering("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>").await;
    let set = format!("{LOGIN}=http://{server}");
    let seen = patient.doctor(&[&set]).await;
    assert_eq!(seen.failed("vendor_no_answer", 4)["check"], "token");
}

//! Receivers: Splunk HEC, syslog over TLS, files.

use crate::patient::{Patient, says};
use crate::servers::{answering, closed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hec_token_that_is_wrong() {
    let patient = Patient::well().await;
    patient.services().hec().set_token("another");
    let seen = patient.doctor(&[]).await;
    says(seen.failed("hec_token_wrong", 5), "seen", "code 4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hec_token_that_is_disabled() {
    let patient = Patient::well().await;
    patient.services().hec().disable_token(true);
    patient.doctor(&[]).await.failed("hec_token_wrong", 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hec_index_that_the_token_may_not_write_to() {
    let patient = Patient::well().await;
    patient.edit(
        "send = [\"findings\", \"signals\", \"events\", \"internal\"]",
        "send = [\"findings\", \"internal\"]\nindex = { findings = \"security\", internal = \"main\" }",
    );
    let hec = patient.services().hec();
    hec.configure(|options| options.indexes = ["main".to_owned()].into());
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("hec_index_refused", 5);
    assert_eq!(check["facts"]["index"], "security");
    // Nothing was written to find out, into neither index.
    assert_eq!(hec.look(exfilwatch_simulator::hec::Recorded::count), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_is_wanted_and_not_offered() {
    let patient = Patient::with(|options| options.hec.use_ack = false).await;
    let set = "emitters.splunk_hec.main.ack=on";
    patient
        .doctor(&[set])
        .await
        .failed("hec_ack_unavailable", 5);
    let without = patient.doctor(&[]).await;
    assert_eq!(without.code, Some(0), "{}", without.shown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hec_at_which_nobody_listens() {
    let patient = Patient::well().await;
    let closed = closed();
    let set = format!("emitters.splunk_hec.main.url=http://{}", closed.address);
    let seen = patient.doctor(&[&set]).await;
    seen.failed("receiver_unreachable", 5);
    let token = seen.check("splunk_hec.main", "receiver_token");
    assert_eq!(token["verdict"], "skipped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_splunks_web_page_and_not_its_hec() {
    let patient = Patient::well().await;
    let page = "HTTP/1.1 303 See Other\r\nLocation: /en-US/\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>";
    let set = format!(
        "emitters.splunk_hec.main.url=http://{}",
        answering(page).await
    );
    patient.doctor(&[&set]).await.failed("not_a_hec", 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_syslog_receiver_whose_certificate_is_for_another_name() {
    let patient = Patient::well().await;
    let syslog = &patient.scene.services.syslog;
    patient.scene.write("syslog-ca.pem", &syslog.ca_pem);
    patient.add(&format!(
        "\n[emitters.syslog.siem]\naddress = \"{}\"\ntransport = \"tls\"\nca_file = \"{}\"\n\
         server_name = \"siem.example\"\n",
        syslog.tls,
        patient.scene.path("syslog-ca.pem").display()
    ));
    let seen = patient.doctor(&[]).await;
    let check = seen.failed("receiver_tls_wrong_name", 5);
    assert_eq!(check["subject"], "syslog.siem");
    assert_eq!(check["facts"]["expected_name"], "siem.example");
    let set = "emitters.syslog.siem.server_name=localhost";
    let well = patient.doctor(&[set]).await;
    assert_eq!(well.code, Some(0), "{}", well.shown());
    assert!(patient.services().syslog().frames().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_syslog_receiver_with_an_authority_that_is_not_trusted() {
    let patient = Patient::well().await;
    let tls = patient.scene.services.syslog.tls;
    patient.add(&format!(
        "\n[emitters.syslog.siem]\naddress = \"localhost:{}\"\ntransport = \"tls\"\n",
        tls.port()
    ));
    patient
        .doctor(&[])
        .await
        .failed("receiver_tls_untrusted", 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written() {
    let patient = Patient::well().await;
    let set = "emitters.ndjson.findings.path=/proc/findings.ndjson";
    patient.doctor(&[set]).await.failed("file_not_writable", 5);
}

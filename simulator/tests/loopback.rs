//! Over loopback: plain clients reach every service, cut connections are cut, syslog is framed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use exfilwatch_simulator::syslog::{Syslog, Transport};
use exfilwatch_simulator::{Endpoint, Fault, FaultRule, FaultScript, Running, SimulatorOptions};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use support::simulator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// One request by hand: what comes back, and whether the end was an error.
async fn raw(url: &str, request: &str) -> (String, bool) {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("{request}\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let ended = stream.read_to_end(&mut reply).await;
    (String::from_utf8_lossy(&reply).into_owned(), ended.is_err())
}

#[tokio::test]
async fn every_service_answers_and_stops_when_told() {
    let running = simulator(SimulatorOptions::default())
        .start()
        .await
        .unwrap();
    let tenant = running.simulator.world().tenants()[0].tenant_id.unwrap();
    let path = format!("GET /{tenant}/v2.0/.well-known/openid-configuration HTTP/1.1");
    let (reply, _) = raw(&running.microsoft_url, &path).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains("date: Thu, 05 Mar 2026"), "{reply}");
    assert!(
        reply.contains(&format!("{}/{tenant}", running.microsoft_url)),
        "{reply}"
    );
    let drive = "GET /admin/reports/v1/activity/users/all/applications/drive HTTP/1.1";
    assert!(
        raw(&running.google_url, drive)
            .await
            .0
            .starts_with("HTTP/1.1 401")
    );
    let health = "GET /services/collector/health HTTP/1.1";
    assert!(
        raw(&running.hec_url, health)
            .await
            .0
            .contains("\"code\":17")
    );
    let key: serde_json::Value = serde_json::from_str(&running.service_account_json()).unwrap();
    assert_eq!(key["token_uri"], format!("{}/token", running.google_url));
    let address = running.hec_url.strip_prefix("http://").unwrap().to_owned();
    running.shutdown().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_reset_sends_nothing_and_a_truncated_body_ends_early() {
    let faults = FaultScript {
        seed: 0,
        rules: vec![
            FaultRule::new(Endpoint::HecHealth, Fault::Reset).calls(1, 1),
            FaultRule::new(Endpoint::HecHealth, Fault::Truncate { bytes: 5 }).calls(1, 1),
        ],
    };
    let running = simulator(SimulatorOptions {
        faults,
        ..Default::default()
    })
    .start()
    .await
    .unwrap();
    let health = "GET /services/collector/health HTTP/1.1";
    assert_eq!(raw(&running.hec_url, health).await.0, "");
    let (cut, _) = raw(&running.hec_url, health).await;
    let (head, body) = cut.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body.len(), 5, "{body}");
    let promised: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(promised > 5);
    assert!(raw(&running.hec_url, health).await.0.contains("healthy"));
}

/// A TLS client that trusts this authority alone.
fn trusting(ca_pem: &str) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let authority = rustls_pki_types::CertificateDer::from_pem_slice(ca_pem.as_bytes());
    roots.add(authority.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

async fn wait_for(syslog: &Syslog, frames: usize) {
    for _ in 0..500 {
        if syslog.frames().len() >= frames {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("only {} frames came", syslog.frames().len());
}

#[tokio::test]
async fn syslog_frames_are_recorded_by_datagram_by_octet_count_and_by_tls() {
    let running = simulator(SimulatorOptions::default())
        .start()
        .await
        .unwrap();
    let syslog = running.simulator.syslog().clone();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(b"<131>1 - - - - - - one", running.syslog.udp)
        .await
        .unwrap();
    let mut tcp = TcpStream::connect(running.syslog.tcp).await.unwrap();
    tcp.write_all(b"5 two\nx3 thr").await.unwrap();
    let connector = trusting(&running.syslog.ca_pem);
    let stream = TcpStream::connect(running.syslog.tls).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name, stream).await.unwrap();
    tls.write_all(b"4 four").await.unwrap();
    tls.shutdown().await.unwrap();
    wait_for(&syslog, 4).await;
    let frames = syslog.frames();
    let of = |wanted: Transport| {
        frames
            .iter()
            .filter(|(t, _)| *t == wanted)
            .map(|(_, f)| f.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(Transport::Udp), [b"<131>1 - - - - - - one".to_vec()]);
    assert_eq!(of(Transport::Tcp), [b"two\nx".to_vec(), b"thr".to_vec()]);
    assert_eq!(of(Transport::Tls), [b"four".to_vec()]);
    assert_eq!(syslog.broken(), 0);
    tcp.write_all(b"<131>not counted ").await.unwrap();
    for _ in 0..500 {
        if syslog.broken() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the frame without a count was not refused");
}

/// One request over TLS by hand, to a host by that name.
async fn raw_over_tls(running: &Running, name: &'static str, path: &str) -> String {
    let address = running.microsoft_url.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    let connector = trusting(&running.ca_pem);
    let mut stream = connector.connect(name, stream).await.unwrap();
    let text = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    String::from_utf8(reply).unwrap()
}

#[tokio::test]
async fn served_over_tls_links_name_https_and_an_unknown_tenant_has_no_configuration() {
    let options = SimulatorOptions {
        https: true,
        ..SimulatorOptions::default()
    };
    let running = simulator(options).start().await.unwrap();
    assert!(running.google_url.starts_with("https://") && running.hec_url.starts_with("https://"));
    let tenant = running.simulator.world().tenants()[0].tenant_id.unwrap();
    let path = format!("/{tenant}/v2.0/.well-known/openid-configuration");
    let link = format!("\"{}/{tenant}/oauth2/v2.0/token\"", running.microsoft_url);
    for name in ["localhost", "127.0.0.1"] {
        let reply = raw_over_tls(&running, name, &path).await;
        assert!(reply.contains(&link), "{reply}");
    }
    let path = "/nobody.example/v2.0/.well-known/openid-configuration";
    let reply = raw_over_tls(&running, "localhost", path).await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    assert!(
        reply.contains("invalid_tenant") && reply.contains("AADSTS90002"),
        "{reply}"
    );
}

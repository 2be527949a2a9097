//! Syslog over TLS: how a connection ends, and receivers that ask who we are.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::office365;
use exfilwatch_emitters::{EmitError, Emitter, Syslog, SyslogOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Receiver {
    address: String,
    ca_file: PathBuf,
    /// What the first connection brought, and how it ended.
    first: JoinHandle<std::io::Result<Vec<u8>>>,
}

/// What the receiver says as soon as it has read such words: the answers of RELP.
const ANSWERS: [(&str, &[u8]); 2] = [
    (
        "1 open ",
        b"1 rsp 53 200 OK\nrelp_version=0\nrelp_software=t\ncommands=syslog\n",
    ),
    ("2 syslog ", b"2 rsp 6 200 OK\n"),
];

/// Reads to the end.
async fn read(mut stream: TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut answers = ANSWERS.iter().peekable();
    while stream.read_buf(&mut bytes).await? > 0 {
        let so_far = String::from_utf8_lossy(&bytes);
        if let Some((_, answer)) = answers.next_if(|(words, _)| so_far.contains(words)) {
            stream.write_all(answer).await?;
        }
    }
    Ok(bytes)
}

/// A receiver that wants the certificate of `client` where there is one.
async fn receiver(folder: &Path, client: Option<&CertifiedKey<rcgen::KeyPair>>) -> Receiver {
    let server = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca_file = folder.join("server.pem");
    std::fs::write(&ca_file, server.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.cert.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(server.signing_key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![server.cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let first = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        read(acceptor.accept(stream).await?).await
    });
    Receiver {
        address,
        ca_file,
        first,
    }
}

fn emitter(receiver: &Receiver, more: &serde_json::Value) -> Syslog {
    let mut options = serde_json::json!({
        "address": receiver.address, "transport": "tls", "ca_file": receiver.ca_file,
        "server_name": "localhost",
    });
    let members = options.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    let options: SyslogOptions = serde_json::from_value(options).unwrap();
    Syslog::new("syslog.main", &options).unwrap()
}

#[tokio::test]
async fn a_connection_that_is_no_longer_needed_ends_with_close_notify() {
    let folder = tempfile::tempdir().unwrap();
    for transport in ["tls", "relp_tls"] {
        let receiver = receiver(folder.path(), None).await;
        let emitter = emitter(&receiver, &serde_json::json!({ "transport": transport }));
        emitter.emit(&[office365("a")]).await.unwrap();
        drop(emitter);
        let bytes = timeout(PATIENCE, receiver.first).await.expect("an end");
        // Without close_notify rustls ends the reading with UnexpectedEof.
        let bytes = bytes.unwrap().expect("a proper end");
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("event_id=\"a\""), "{text}");
        assert_eq!(
            transport == "relp_tls",
            text.ends_with("3 close 0\n"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_receiver_that_wants_a_certificate_gets_ours_and_holds_the_lane_without() {
    let folder = tempfile::tempdir().unwrap();
    let client = generate_simple_self_signed(["exfilwatch".to_owned()]).unwrap();
    let (certificate_file, key_file) = (folder.path().join("c.pem"), folder.path().join("c.key"));
    std::fs::write(&certificate_file, client.cert.pem()).unwrap();
    std::fs::write(&key_file, client.signing_key.serialize_pem()).unwrap();
    let ours = serde_json::json!({ "certificate_file": certificate_file, "key_file": key_file });

    let with = receiver(folder.path(), Some(&client)).await;
    let mode = |bits| std::fs::Permissions::from_mode(bits);
    std::fs::set_permissions(&key_file, mode(0o640)).unwrap();
    let mut options = serde_json::json!({ "address": with.address, "transport": "tls",
        "ca_file": with.ca_file });
    let members = options.as_object_mut().unwrap();
    members.extend(ours.as_object().unwrap().clone());
    let open: SyslogOptions = serde_json::from_value(options).unwrap();
    let error = Syslog::new("syslog.main", &open).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");

    std::fs::set_permissions(&key_file, mode(0o600)).unwrap();
    let sender = emitter(&with, &ours);
    sender.emit(&[office365("a")]).await.unwrap();
    drop(sender);
    let bytes = timeout(PATIENCE, with.first).await.expect("an end");
    assert!(!bytes.unwrap().unwrap().is_empty());

    let without = receiver(folder.path(), Some(&client)).await;
    let sender = emitter(&without, &serde_json::json!({}));
    // TLS 1.3 tells the client only after its own part of the handshake.
    let mut said = String::new();
    for n in 0..50 {
        let id = format!("b{n}");
        match timeout(PATIENCE, sender.emit(&[office365(&id)]))
            .await
            .expect("an end")
        {
            Err(EmitError::Hold { help, .. }) => {
                said = help;
                break;
            }
            Ok(_) | Err(_) => tokio::task::yield_now().await,
        }
    }
    assert!(said.contains("certificate_file"), "{said}");
}

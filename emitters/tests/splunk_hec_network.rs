//! Splunk HEC through TLS and through a proxy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::collector::Collector;
use common::hec::{batch, emitter_with, options};
use exfilwatch_emitters::{EmitError, Emitter};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Most connections the TLS front takes.
const CONNECTIONS_MAX: usize = 20;

/// TLS in front of a collector, with a certificate for `localhost` of an authority of its own.
struct Front {
    port: u16,
    ca_file: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    async fn start(collector: &Collector, folder: &Path) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let ca_file = folder.join("ca.pem");
        std::fs::write(&ca_file, authority.pem()).unwrap();

        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = collector.url.strip_prefix("http://").unwrap().to_owned();
        let task = tokio::spawn(async move {
            for _ in 0..CONNECTIONS_MAX {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut behind = TcpStream::connect(&behind).await.unwrap();
                    tokio::spawn(async move {
                        drop(tokio::io::copy_bidirectional(&mut stream, &mut behind).await);
                    });
                }
            }
        });
        Self {
            port,
            ca_file,
            task,
        }
    }
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_no_other_name() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::scripted(vec![]).await;
    let front = Front::start(&collector, folder.path()).await;
    let mut trusted = options(&format!("https://localhost:{}", front.port));
    trusted.ca_file = Some(front.ca_file.clone());
    emitter_with(&trusted).emit(&batch(&["a"])).await.unwrap();
    assert_eq!(collector.calls().len(), 1);

    let mut unknown = trusted.clone();
    unknown.ca_file = None;
    let mut wrong_name = options(&format!("https://127.0.0.1:{}", front.port));
    wrong_name.ca_file = Some(front.ca_file.clone());
    for (name, options) in [("unknown authority", unknown), ("wrong name", wrong_name)] {
        let error = emitter_with(&options)
            .emit(&batch(&["b"]))
            .await
            .unwrap_err();
        let said = matches!(&error, EmitError::Hold { help, .. } if help.contains("ca_file"));
        assert!(said, "{name}: {error:?}");
    }
    assert_eq!(collector.calls().len(), 1);
}

#[tokio::test]
async fn a_proxy_gets_the_calls_and_resolves_the_name() {
    let proxy = Collector::scripted(vec![]).await;
    let mut options = options("http://hec.invalid:8088");
    options.proxy = Some(proxy.url.parse().unwrap());
    emitter_with(&options).emit(&batch(&["a"])).await.unwrap();
    let calls = proxy.calls();
    assert_eq!(
        calls[0].path,
        "http://hec.invalid:8088/services/collector/event"
    );
}

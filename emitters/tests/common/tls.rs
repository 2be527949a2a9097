//! TLS in front of a receiver that speaks plain HTTP, and an `https` proxy. Keys are made by the test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData, SigningKey,
};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ALL_VERSIONS, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::collector::Collector;

/// Most connections a front takes.
const CONNECTIONS_MAX: usize = 50;

/// What a front is like.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Name or address in its certificate.
    pub(crate) name: &'static str,
    /// Its certificate is of X.509 version 1.
    pub(crate) version_1: bool,
    /// It does not have the key of the certificate that it shows.
    pub(crate) is_impostor: bool,
    /// The client's certificate that it asks for.
    pub(crate) client: Option<CertificateDer<'static>>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            name: "localhost",
            version_1: false,
            is_impostor: false,
            client: None,
            versions: ALL_VERSIONS.to_vec(),
        }
    }
}

/// TLS with a certificate of an authority of its own.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) port: u16,
    pub(crate) ca_file: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    /// In front of a collector.
    pub(crate) async fn start(collector: &Collector, folder: &Path, setup: &Setup) -> Self {
        let behind = collector.url.strip_prefix("http://").unwrap().to_owned();
        Self::serve(folder, setup, Some(behind)).await
    }

    /// A proxy that is spoken to over TLS and lets every `CONNECT` through, to loopback.
    pub(crate) async fn proxy(folder: &Path, setup: &Setup) -> Self {
        Self::serve(folder, setup, None).await
    }

    async fn serve(folder: &Path, setup: &Setup, behind: Option<String>) -> Self {
        let (ca_pem, certificate, key) = issue(setup);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ca_file = folder.join(format!("ca-{port}.pem"));
        std::fs::write(&ca_file, ca_pem).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config(setup, certificate, &key)));
        let task = tokio::spawn(async move {
            for _ in 0..CONNECTIONS_MAX {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                tokio::spawn(join(BufReader::new(stream), behind.clone()));
            }
        });
        Self {
            port,
            ca_file,
            task,
        }
    }
}

/// Joins a connection to what is behind, or to where the client asks for.
async fn join(
    mut stream: impl AsyncRead + AsyncWrite + AsyncBufReadExt + Unpin,
    to: Option<String>,
) {
    let to = match to {
        Some(to) => to,
        None => {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream
                    .read_line(&mut head)
                    .await
                    .is_ok_and(|bytes| bytes > 0)
                {
                    continue;
                }
                return;
            }
            let port = head.split([':', ' ']).nth(2).unwrap();
            let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            format!("127.0.0.1:{port}")
        }
    };
    let mut behind = TcpStream::connect(to).await.unwrap();
    drop(tokio::io::copy_bidirectional(&mut stream, &mut behind).await);
}

/// An authority's PEM, a certificate of it, the certificate's key. One of version 1 signs itself.
fn issue(setup: &Setup) -> (String, CertificateDer<'static>, KeyPair) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = if setup.version_1 {
        version_1(setup.name, &key)
    } else {
        let named = CertificateParams::new(vec![setup.name.to_owned()]).unwrap();
        named.signed_by(&key, &authority).unwrap().der().clone()
    };
    let key = if setup.is_impostor {
        KeyPair::generate().unwrap()
    } else {
        key
    };
    (authority.pem(), certificate, key)
}

fn config(setup: &Setup, certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider.key_provider.load_private_key(key).unwrap();
    let clients = match &setup.client {
        None => Arc::new(NoClientAuth),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            verifier.build().unwrap()
        }
    };
    // Not `with_single_cert`: that reads the certificate, and takes none of version 1.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&setup.versions)
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(shown))
}

/// What `openssl x509 -req -signkey` made of a request for decades: no version, no extensions.
fn version_1(name: &str, key: &KeyPair) -> CertificateDer<'static> {
    const ECDSA_WITH_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    const COMMON_NAME: &[u8] = &[6, 3, 0x55, 4, 3];
    let algorithm = der(0x30, &[ECDSA_WITH_SHA256]);
    let common_name = der(0x30, &[COMMON_NAME, &der(0x0c, &[name.as_bytes()])]);
    let name = der(0x30, &[&der(0x31, &[&common_name])]);
    let day = |text: &str| der(0x17, &[text.as_bytes()]);
    let validity = der(0x30, &[&day("200101000000Z"), &day("490101000000Z")]);
    let to_be_signed = der(
        0x30,
        &[
            &der(2, &[&[1]]),
            &algorithm,
            &name,
            &validity,
            &name,
            &key.subject_public_key_info(),
        ],
    );
    let signature = key.sign(&to_be_signed).unwrap();
    let signature = der(3, &[&[0], &signature]);
    der(0x30, &[&to_be_signed, &algorithm, &signature]).into()
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut element = vec![tag];
    match length {
        [0, short @ 0..0x80] => element.push(short),
        [0, short] => element.extend([0x81, short]),
        long => element.extend([&[0x82], &long[..]].concat()),
    }
    element.extend(content);
    element
}

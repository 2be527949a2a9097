//! A TLS handshake that remembers the certificate it was shown.
//!
//! Verification is the very one of the normal path (the platform's verifier, or the authorities of
//! a file): a certificate that it refuses ends the handshake here, too. The only difference is that
//! what was refused can be named. Nothing but the handshake goes over such a connection before it
//! is verified, and no token ever.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use exfilwatch_model::diagnosis::Tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate;

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Issued by somebody who is not trusted.
    Untrusted,
    /// Before or after its time.
    OutOfTime,
    /// For another name.
    WrongName,
    /// Anything else.
    Other,
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) trouble: Trouble,
    /// The library's words.
    pub(super) words: String,
    /// Who issued the certificate that was shown, if one was.
    pub(super) issuer: Option<String>,
}

/// Shakes hands. With the stream comes the issuer of the certificate.
pub(super) async fn handshake<S>(
    stream: S,
    tls: &Tls,
) -> Result<(TlsStream<S>, Option<String>), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let other = |words: String| Refused {
        trouble: Trouble::Other,
        words,
        issuer: None,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let inner = verifier(tls, &provider).map_err(other)?;
    let remembering = Arc::new(Remembering {
        inner,
        shown: Mutex::default(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(remembering.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(tls.name.clone()).map_err(|e| other(e.to_string()))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match connected.await {
        Ok(stream) => Ok((stream, remembering.issuer())),
        Err(error) => Err(Refused {
            trouble: trouble(&error),
            words: words(&error),
            issuer: remembering.issuer(),
        }),
    }
}

fn verifier(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let given = match &tls.ca_file {
        Some(path) => authorities(path)?,
        None => Vec::new(),
    };
    if tls.besides_system || tls.ca_file.is_none() {
        return Verifier::new_with_extra_roots(given, provider.clone())
            .map(|verifier| Arc::new(verifier) as Arc<dyn ServerCertVerifier>)
            .map_err(|error| error.to_string());
    }
    let mut roots = RootCertStore::empty();
    for authority in given {
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(|error| error.to_string())
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("ca_file {}: {error}", path.display()))
}

/// The verifier of the normal path, and a memory of what it was shown.
#[derive(Debug)]
struct Remembering {
    inner: Arc<dyn ServerCertVerifier>,
    shown: Mutex<Option<Vec<u8>>>,
}

impl Remembering {
    fn issuer(&self) -> Option<String> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        certificate::issuer(shown.as_deref()?)
    }
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn trouble(error: &io::Error) -> Trouble {
    let library = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = library else {
        return Trouble::Other;
    };
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Trouble::OutOfTime,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Trouble::WrongName
        }
        // Self-signed ones come as `Other`: an authority's certificate in a server's place.
        _ => Trouble::Untrusted,
    }
}

fn words(error: &io::Error) -> String {
    match error.get_ref() {
        Some(inner) => {
            let inner: &dyn Error = inner;
            inner.to_string()
        }
        None => error.to_string(),
    }
}

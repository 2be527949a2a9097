//! A TLS handshake that remembers the certificate it was shown.
//!
//! Verification is the very one of the normal path (the platform's verifier, or the authorities of
//! a file): a certificate that it refuses ends the handshake here, too. The only difference is that
//! what was refused can be named. Nothing but the handshake goes over such a connection before it
//! is verified, and no token ever.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use exfilwatch_emitters::{pin_of, verifier_for};
use exfilwatch_model::diagnosis::Tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
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
    pub(super) shown: Shown,
}

/// The certificate that was shown, if one was.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Who issued it.
    pub(super) issuer: Option<String>,
    /// The pin of its key, as `pin_sha256` takes it.
    pub(super) pin: Option<String>,
}

/// Shakes hands. With the stream comes what was shown.
pub(super) async fn handshake<S>(stream: S, tls: &Tls) -> Result<(TlsStream<S>, Shown), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let other = |words: String| Refused {
        trouble: Trouble::Other,
        words,
        shown: Shown::default(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let inner = verifier_for(tls).map_err(other)?;
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
        Ok(stream) => Ok((stream, remembering.shown())),
        Err(error) => Err(Refused {
            trouble: trouble(&error),
            words: words(&error),
            shown: remembering.shown(),
        }),
    }
}

/// The verifier of the normal path, and a memory of what it was shown.
#[derive(Debug)]
struct Remembering {
    inner: Arc<dyn ServerCertVerifier>,
    shown: Mutex<Option<Vec<u8>>>,
}

impl Remembering {
    fn shown(&self) -> Shown {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = shown.as_deref();
        Shown {
            issuer: shown.and_then(certificate::issuer),
            pin: shown.and_then(pin_of),
        }
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

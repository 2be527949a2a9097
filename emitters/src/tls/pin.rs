//! What is asked of a receiver's certificate beyond, or instead of, an authority: a pinned key, another
//! name.
//!
//! A pin is the SHA-256 of the certificate's public key (`SubjectPublicKeyInfo`), in base64, as curl and
//! OpenSSL write it; it outlives a renewal of the certificate with the same key. The signature of the
//! handshake is verified in any case: it proves that the receiver has that key.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The keys a receiver may have; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pins(Vec<Pin>);

type Pin = [u8; SHA256_OUTPUT_LEN];

impl Pins {
    /// Reads them; `None` where there are none.
    pub(super) fn read(texts: &[String]) -> Result<Option<Self>, String> {
        let pin = |text: &String| -> Option<Pin> {
            let text = text.strip_prefix("sha256//").unwrap_or(text);
            STANDARD.decode(text).ok()?.try_into().ok()
        };
        let mut pins = Vec::new();
        for text in texts {
            pins.push(pin(text).ok_or_else(|| {
                format!(
                    "{text:?} is no SHA-256 in base64 (44 characters): `exfilwatch doctor` shows \
                     the receiver's"
                )
            })?);
        }
        Ok((!pins.is_empty()).then_some(Self(pins)))
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let shown = pin(certificate)?;
        if self.0.contains(&shown) {
            return Ok(());
        }
        let why = Arc::new(OtherKey(STANDARD.encode(shown)));
        Err(Error::InvalidCertificate(CertificateError::Other(
            OtherError(why),
        )))
    }
}

/// The pin of a certificate's key (DER), as it is configured.
pub fn pin_of(certificate: &[u8]) -> Option<String> {
    let pin = pin(&CertificateDer::from(certificate)).ok()?;
    Some(STANDARD.encode(pin))
}

/// The pin of a certificate's key.
fn pin(certificate: &CertificateDer<'_>) -> Result<Pin, Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let mut pin = [0; SHA256_OUTPUT_LEN];
    pin.copy_from_slice(digest(&SHA256, &key).as_ref());
    Ok(pin)
}

/// The receiver has another key than the pinned ones.
#[derive(Debug)]
struct OtherKey(String);

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0;
        write!(
            f,
            "its key is not one of pin_sha256 (the receiver has {shown})"
        )
    }
}

impl std::error::Error for OtherKey {}

/// All that is asked of a certificate.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) pins: Option<Pins>,
    /// The verification by authorities, name and dates.
    pub(super) chain: Option<Arc<dyn ServerCertVerifier>>,
    /// The name it must be for, where that is not the host's.
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(pins) = &self.pins {
            pins.check(end_entity)?;
        }
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let name = self.server_name.as_ref().unwrap_or(server_name);
        chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_sha256_in_base64() {
        let good = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let read = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            Pins::read(&texts)
        };
        assert_eq!(read(&[]), Ok(None));
        let pins = read(&[good]).unwrap().unwrap();
        assert_eq!(read(&[&format!("sha256//{good}")]), Ok(Some(pins)));
        for bad in ["", "AAAA", "not base64", &good[1..]] {
            assert!(read(&[good, bad]).is_err(), "{bad}");
        }
    }
}

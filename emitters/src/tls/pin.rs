//! What is asked of a receiver's certificate beyond, or instead of, an authority: a pinned key, another
//! name.
//!
//! A pin is the SHA-256 of the certificate's public key (`SubjectPublicKeyInfo`), in base64, as curl and
//! OpenSSL write it; it outlives a renewal of the certificate with the same key. The signature of the
//! handshake is verified in any case: it proves that the receiver has that key.
//!
//! A pin is the receiver's: an `https` proxy on the way there is believed by authority and name.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;

use super::certificate::{is_version_1, key, key_of_unreadable};

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
        let shown = pin(certificate);
        let shown = shown.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.0.contains(&shown) {
            return Ok(());
        }
        Err(refused(OtherKey(STANDARD.encode(shown))))
    }
}

/// The pin of a certificate's key (DER), as it is configured.
pub fn pin_of(certificate: &[u8]) -> Option<String> {
    pin(&CertificateDer::from(certificate)).map(|pin| STANDARD.encode(pin))
}

/// The pin of a certificate's key.
fn pin(certificate: &CertificateDer<'_>) -> Option<Pin> {
    digest(&SHA256, &key(certificate)?).as_ref().try_into().ok()
}

fn refused(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
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

/// Authority and name are asked for, and the certificate has neither in a form that can be verified.
#[derive(Debug)]
struct TooOld;

impl fmt::Display for TooOld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it is of X.509 version 1, of which neither authority nor name can be verified: give the \
             receiver one of version 3, or, for splunk_hec and webhook, set pin_sha256 without ca_file \
             and server_name",
        )
    }
}

impl std::error::Error for TooOld {}

/// The proxy on the way, of which only authority and name are asked.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: ServerName<'static>,
    pub(super) chain: Arc<dyn ServerCertVerifier>,
}

/// All that is asked of a certificate.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) pins: Option<Pins>,
    /// The verification by authorities, name and dates.
    pub(super) chain: Option<Arc<dyn ServerCertVerifier>>,
    /// The name it must be for, where that is not the host's.
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) proxy: Option<Proxy>,
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
        if let Some(proxy) = self
            .proxy
            .as_ref()
            .filter(|proxy| proxy.name == *server_name)
        {
            let chain = &proxy.chain;
            return chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        if let Some(pins) = &self.pins {
            pins.check(end_entity)?;
        }
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        if is_version_1(end_entity) {
            return Err(refused(TooOld));
        }
        let name = self.server_name.as_ref().unwrap_or(server_name);
        chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match key_of_unreadable(certificate) {
            None => verify_tls12_signature(message, certificate, signature, &self.algorithms),
            Some(key) => self.verify_tls12_with_key(message, &key, signature),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.algorithms;
        match key_of_unreadable(certificate) {
            None => verify_tls13_signature(message, certificate, signature, algorithms),
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Checks {
    /// As the library does it of a certificate that it takes.
    fn verify_tls12_with_key(
        &self,
        message: &[u8],
        key: &SubjectPublicKeyInfoDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = |what| Error::InvalidCertificate(what);
        let key =
            RawPublicKeyEntity::try_from(key).map_err(|_| bad(CertificateError::BadEncoding))?;
        let mapping = self.algorithms.mapping.iter();
        let mut algorithms = mapping
            .filter(|(scheme, _)| *scheme == signature.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter());
        let verified = algorithms.any(|algorithm| {
            key.verify_signature(*algorithm, message, signature.signature())
                .is_ok()
        });
        if verified {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(bad(CertificateError::BadSignature))
        }
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

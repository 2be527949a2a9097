//! What can be read of any certificate, also of one of X.509 version 1, which the library of TLS does
//! not take: its issuer and its key. Splunk's own ("SplunkServerDefaultCert") are of version 1 wherever
//! OpenSSL before 3.2 made them. Neither name nor authority can be verified of such a one, a pinned key can.

use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;
/// Content of the version element: an INTEGER of one byte, counted from 0.
const VERSION_1: [u8; 3] = [INTEGER, 1, 0];

/// Parts of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Name of the issuer: content of its sequence.
    pub issuer: &'a [u8],
    /// The key with its kind, whole (`SubjectPublicKeyInfo`).
    key: &'a [u8],
    is_version_1: bool,
}

impl<'a> Certificate<'a> {
    /// Reads one (DER). Nothing is verified.
    pub fn read(certificate: &'a [u8]) -> Option<Self> {
        let (whole, _) = sequence(certificate)?;
        let (mut fields, _) = sequence(whole)?;
        let mut is_version_1 = true;
        if let Some((EXPLICIT_VERSION, version, rest)) = element(fields) {
            is_version_1 = version == VERSION_1;
            fields = rest;
        }
        let (tag, _serial, fields) = element(fields)?;
        if tag != INTEGER {
            return None;
        }
        let (_algorithm, fields) = sequence(fields)?;
        let (issuer, fields) = sequence(fields)?;
        let (_validity, fields) = sequence(fields)?;
        let (_subject, fields) = sequence(fields)?;
        let (_, rest) = sequence(fields)?;
        let (key, _) = fields.split_at_checked(fields.len() - rest.len())?;
        Some(Self {
            issuer,
            key,
            is_version_1,
        })
    }
}

/// The key of a certificate, by the library's reading or, of one that it does not take, by ours.
pub(super) fn key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    match ParsedCertificate::try_from(certificate) {
        Ok(parsed) => Some(parsed.subject_public_key_info()),
        Err(_) => key_of_unreadable(certificate),
    }
}

/// The key of a certificate that the library does not take; `None` of one that it does.
pub(super) fn key_of_unreadable(
    certificate: &CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'static>> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return None;
    }
    let read = Certificate::read(certificate)?;
    Some(read.key.to_vec().into())
}

pub(super) fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    Certificate::read(certificate).is_some_and(|read| read.is_version_1)
}

/// Content of a DER sequence, and what follows.
fn sequence(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(input)?;
    (tag == SEQUENCE).then_some((content, rest))
}

/// Tag, content and what follows, of a DER element of at most 64 KiB.
pub fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    #[test]
    fn our_reading_of_the_key_is_the_library_s_and_never_a_panic() {
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = names.self_signed(&key).unwrap();
        let read = Certificate::read(certificate.der()).unwrap();
        assert_eq!(read.key, key.subject_public_key_info());
        let library = ParsedCertificate::try_from(certificate.der()).unwrap();
        assert_eq!(read.key, library.subject_public_key_info().as_ref());
        assert!(!read.is_version_1);
        for length in 0..certificate.der().len() {
            assert_eq!(Certificate::read(&certificate.der()[..length]), None);
        }
    }
}

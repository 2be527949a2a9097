//! TLS of both kinds of emitters that use it: certificates from a file, and telling a certificate
//! that is not trusted (an operator must act) from a connection that broke (try again).

use std::error::Error;
use std::io;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Largest file of certificate authorities read, in bytes.
const CA_BYTES_MAX: u64 = 4 << 20;

/// Certificates of a PEM file; at least one.
pub(crate) fn authorities(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if std::fs::metadata(path)?.len() > CA_BYTES_MAX {
        return Err(invalid(format!("{} is too large", path.display())));
    }
    let pem = std::fs::read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(format!("{} is no PEM file: {error}", path.display())))?;
    if certificates.is_empty() {
        return Err(invalid(format!("{} holds no certificate", path.display())));
    }
    Ok(certificates)
}

/// What is wrong with the receiver's certificate, if that is why the connection failed.
pub(crate) fn certificate_trouble(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = cause.downcast_ref() {
            return Some(why.to_string());
        }
        // An io::Error hides what it wraps from `source`.
        next = match cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

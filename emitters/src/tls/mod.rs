//! TLS of all emitters that use it: whom to trust (`trust`), certificates from a file, and telling a
//! certificate that is not trusted (an operator must act) from a connection that broke (try again).

mod certificate;
mod pin;
mod trust;

use std::error::Error;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use certificate::{Certificate, element};
pub use pin::pin_of;
pub use trust::verifier_for;
pub(crate) use trust::{Trust, client_config};

/// What to do about a receiver's certificate that is not trusted.
pub(crate) const TRUST_HELP: &str = "set ca_file to the authority that signed the receiver's \
                                     certificate, and server_name to the name that stands in it; \
                                     a pin_sha256 must be that of its key (exfilwatch doctor shows it)";

/// What to do about a receiver that does not take our certificate, or misses one.
pub(crate) const IDENTITY_HELP: &str =
    "set certificate_file and key_file to a certificate that the receiver accepts";

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

/// Our own certificate with those that vouch for it, and its key, which only its owner may read.
pub(crate) fn identity(
    certificate: &Path,
    key: &Path,
) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let shown = key.display();
    let place = |error: io::Error| io::Error::new(error.kind(), format!("{shown}: {error}"));
    let about = std::fs::metadata(key).map_err(place)?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(invalid(format!(
            "{shown} may be read by others (mode {mode:04o}): run chmod 600 on it"
        )));
    }
    if about.len() > CA_BYTES_MAX {
        return Err(invalid(format!("{shown} is too large")));
    }
    let pem = std::fs::read(key).map_err(place)?;
    // The parser's own words could quote the file.
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| invalid(format!("{shown} holds no private key in PEM form")))?;
    Ok((authorities(certificate)?, key))
}

/// The alert with which the receiver ended the handshake because of our certificate.
pub(crate) fn refused_by_alert(error: &(dyn Error + 'static)) -> Option<String> {
    let rustls::Error::AlertReceived(alert) = tls_error(error)? else {
        return None;
    };
    let ours = matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
    );
    ours.then(|| format!("{alert:?}"))
}

/// What is wrong with the receiver's certificate, if that is why the connection failed.
pub(crate) fn certificate_trouble(error: &(dyn Error + 'static)) -> Option<String> {
    match tls_error(error)? {
        rustls::Error::InvalidCertificate(CertificateError::Other(why)) => Some(why.to_string()),
        rustls::Error::InvalidCertificate(why) => Some(why.to_string()),
        _ => None,
    }
}

/// The error of TLS in a chain of causes.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
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

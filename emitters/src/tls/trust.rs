//! Whom an emitter believes to be its receiver, and as whom it shows itself.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use exfilwatch_model::diagnosis::Tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use url::Url;

use super::pin::{Checks, Pins, Proxy};
use super::{authorities, identity};
use crate::error::BuildError;
use crate::options::{SplunkHecOptions, SyslogOptions, WebhookOptions};

/// The options of TLS, of whichever emitter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trust<'a> {
    /// PEM file with authorities.
    pub(crate) ca_file: Option<&'a Path>,
    /// Those of the file are trusted besides the platform's, or instead.
    pub(crate) besides_system: bool,
    /// The name in the certificate, where it is not the host's.
    pub(crate) server_name: Option<&'a str>,
    /// Keys the receiver may have.
    pub(crate) pin_sha256: &'a [String],
    /// Nothing is verified.
    pub(crate) insecure_skip_verify: bool,
    /// Our own certificate and its key.
    pub(crate) certificate_file: Option<&'a Path>,
    pub(crate) key_file: Option<&'a Path>,
    /// The proxy on the way, where it has a name of its own.
    pub(crate) proxy: Option<&'a Url>,
}

impl SplunkHecOptions {
    pub(crate) fn trust(&self) -> Trust<'_> {
        let mut receivers = std::iter::once(&self.url).chain(&self.more_urls);
        Trust {
            ca_file: self.ca_file.as_deref(),
            besides_system: true,
            server_name: self.server_name.as_deref(),
            pin_sha256: &self.pin_sha256,
            insecure_skip_verify: self.insecure_skip_verify,
            certificate_file: self.certificate_file.as_deref(),
            key_file: self.key_file.as_deref(),
            proxy: self
                .proxy
                .as_ref()
                .filter(|proxy| receivers.all(|receiver| receiver.host() != proxy.host())),
        }
    }
}

impl WebhookOptions {
    pub(crate) fn trust(&self) -> Trust<'_> {
        Trust {
            ca_file: self.ca_file.as_deref(),
            besides_system: true,
            server_name: self.server_name.as_deref(),
            pin_sha256: &self.pin_sha256,
            insecure_skip_verify: false,
            certificate_file: self.certificate_file.as_deref(),
            key_file: self.key_file.as_deref(),
            proxy: self.proxy.as_ref().filter(|proxy| {
                self.url
                    .as_ref()
                    .is_none_or(|receiver| receiver.host() != proxy.host())
            }),
        }
    }
}

impl SyslogOptions {
    /// Its `server_name` is what the connection itself asks for.
    pub(crate) fn trust(&self) -> Trust<'_> {
        Trust {
            ca_file: self.ca_file.as_deref(),
            certificate_file: self.certificate_file.as_deref(),
            key_file: self.key_file.as_deref(),
            ..Trust::default()
        }
    }
}

/// What is asked of a certificate besides its authority.
struct Asked {
    pins: Option<Pins>,
    server_name: Option<ServerName<'static>>,
}

impl Trust<'_> {
    /// Whether the options go together; no file is looked at.
    pub(crate) fn check(&self, name: &str) -> Result<(), BuildError> {
        self.asked(name)?;
        if self.certificate_file.is_some() != self.key_file.is_some() {
            let why = "write both or neither";
            return Err(BuildError::option(name, "certificate_file, key_file", &why));
        }
        Ok(())
    }

    fn asked(&self, name: &str) -> Result<Asked, BuildError> {
        let pins = Pins::read(self.pin_sha256)
            .map_err(|why| BuildError::option(name, "pin_sha256", &why))?;
        if self.insecure_skip_verify && (pins.is_some() || self.ca_file.is_some()) {
            let why = "it makes ca_file and pin_sha256 useless: take it away";
            return Err(BuildError::option(name, "insecure_skip_verify", &why));
        }
        let server_name = self.server_name.map(|name| name.to_owned().try_into());
        let server_name = server_name
            .transpose()
            .map_err(|error| BuildError::option(name, "server_name", &error))?;
        Ok(Asked { pins, server_name })
    }

    /// Whether authority, name and dates are looked at: a pinned key needs nobody to vouch for it, unless
    /// that is asked for too.
    pub(crate) fn verifies_chain(&self) -> bool {
        let is_enough =
            !self.pin_sha256.is_empty() && self.ca_file.is_none() && self.server_name.is_none();
        !self.insecure_skip_verify && !is_enough
    }
}

/// The very verification of the normal path, for one who looks at the way to a receiver.
pub fn verifier_for(tls: &Tls) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trust = Trust {
        ca_file: tls.ca_file.as_deref(),
        besides_system: tls.besides_system,
        ..Trust::default()
    };
    let chain = tls.verifies.then(|| chain(&trust, &provider)).transpose()?;
    Ok(Arc::new(Checks {
        pins: Pins::read(&tls.pin_sha256)?,
        chain,
        server_name: None,
        proxy: None,
        algorithms: provider.signature_verification_algorithms,
    }))
}

/// The client's side of TLS for the emitter `name`.
pub(crate) fn client_config(name: &str, trust: &Trust<'_>) -> Result<ClientConfig, BuildError> {
    trust.check(name)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier(name, trust, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::option(name, "ca_file", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let unusable =
        |error: &dyn Display| BuildError::option(name, "certificate_file, key_file", error);
    let Some((certificate, key)) = trust.certificate_file.zip(trust.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let (certificates, key) = identity(certificate, key).map_err(|error| unusable(&error))?;
    let config = builder.with_client_auth_cert(certificates, key);
    config.map_err(|error| unusable(&error))
}

/// What the receiver's certificate has to withstand.
fn verifier(
    name: &str,
    trust: &Trust<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, BuildError> {
    let Asked { pins, server_name } = trust.asked(name)?;
    let chain = if trust.verifies_chain() {
        Some(chain(trust, provider).map_err(|why| BuildError::option(name, "ca_file", &why))?)
    } else {
        None
    };
    Ok(Arc::new(Checks {
        pins,
        chain,
        server_name,
        proxy: proxy(name, trust, provider)?,
        algorithms: provider.signature_verification_algorithms,
    }))
}

/// The name of a proxy that is spoken to over TLS, and its verification.
fn proxy(
    name: &str,
    trust: &Trust<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Proxy>, BuildError> {
    let host = trust.proxy.filter(|url| url.scheme() == "https");
    let Some(host) = host.and_then(Url::host_str) else {
        return Ok(None);
    };
    if trust.insecure_skip_verify {
        return Ok(None);
    }
    let host = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| BuildError::option(name, "proxy", &error))?;
    let chain = chain(trust, provider).map_err(|why| BuildError::option(name, "ca_file", &why))?;
    Ok(Some(Proxy { name: host, chain }))
}

/// The verification by authorities.
fn chain(
    trust: &Trust<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let given = match trust.ca_file {
        Some(path) => authorities(path).map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    if trust.besides_system || trust.ca_file.is_none() {
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

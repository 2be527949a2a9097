//! The way to a receiver: its address, its trust, and what a failed connection means.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::time::timeout;

use super::stream::Stream;
use crate::address_guard::resolve;
use crate::contract::EmitError;
use crate::error::BuildError;
use crate::options::SyslogOptions;
use crate::tls::{
    IDENTITY_HELP, TRUST_HELP, certificate_trouble, chain, client_config, refused_by_alert,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Dialer {
    /// As configured, for messages.
    pub(super) address: String,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    limit: Duration,
}

impl Dialer {
    pub(super) fn new(name: &str, options: &SyslogOptions) -> Result<Self, BuildError> {
        let (host, port) = place(name, options)?;
        let tls = if options.transport.is_tls() {
            let server = server_name(name, options, &host)?;
            Some((Arc::new(client_config(name, &options.trust())?), server))
        } else {
            None
        };
        Ok(Self {
            address: options.address.clone(),
            host,
            port,
            tls,
            limit: Duration::from_secs(options.connect_timeout_seconds),
        })
    }

    /// The receiver's addresses, without those no emitter may talk to.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        resolve(&self.host, self.port).await
    }

    /// Connects, and agrees on TLS where that is wanted.
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let connecting = async {
            let addresses = self.addresses().await?;
            match &self.tls {
                None => Stream::tcp(&addresses).await,
                Some((config, name)) => Stream::tls(&addresses, config, name).await,
            }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        timeout(self.limit, connecting).await.map_err(late)?
    }

    /// What the lane is to do after a connection failed.
    pub(super) fn failed(&self, error: &io::Error) -> EmitError {
        let hold = |what: String, help: &str| EmitError::Hold {
            what: format!("{}: {what}", self.address),
            help: help.to_owned(),
        };
        if let Some(why) = certificate_trouble(error) {
            return hold(format!("the certificate is not trusted: {why}"), TRUST_HELP);
        }
        if let Some(why) = refused_by_alert(error) {
            return hold(format!("the receiver ended TLS: {why}"), IDENTITY_HELP);
        }
        EmitError::Retry {
            what: format!("{}: {}", self.address, chain(error)),
            after: None,
        }
    }
}

/// Whether address, name and trust can be used; no file is looked at.
pub(super) fn check(name: &str, options: &SyslogOptions) -> Result<(), BuildError> {
    let (host, _) = place(name, options)?;
    if options.transport.is_tls() {
        server_name(name, options, &host)?;
        options.trust().check(name)?;
    }
    Ok(())
}

fn place(name: &str, options: &SyslogOptions) -> Result<(String, u16), BuildError> {
    host_and_port(&options.address)
        .ok_or_else(|| BuildError::option(name, "address", &"write host:port"))
}

fn server_name(
    name: &str,
    options: &SyslogOptions,
    host: &str,
) -> Result<ServerName<'static>, BuildError> {
    let server = options.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(server.to_owned())
        .map_err(|error| BuildError::option(name, "server_name", &error))
}

/// `host:port`, `[v6]:port`.
pub(crate) fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(v6) => v6,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_host_and_port() {
        let parts = |address| host_and_port(address);
        assert_eq!(parts("s.example:514"), Some(("s.example".to_owned(), 514)));
        assert_eq!(parts("[::1]:6514"), Some(("::1".to_owned(), 6514)));
        for bad in ["s.example", ":514", "::1:514", "s.example:0", "s.example:x"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}

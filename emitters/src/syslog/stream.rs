//! TCP and TLS streams whose read side is watched: a receiver that has gone shows there first.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::authorities;

/// Most chunks read from a receiver that talks although it should not, per look.
const CHATTER_MAX: usize = 16;

trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A connected stream.
pub(super) struct Stream(Box<dyn Duplex>);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    pub(super) async fn tcp(addresses: &[SocketAddr]) -> io::Result<Self> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        Ok(Self(Box::new(stream)))
    }

    pub(super) async fn tls(
        addresses: &[SocketAddr],
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(config.clone());
        Ok(Self(Box::new(
            connector.connect(name.clone(), stream).await?,
        )))
    }

    /// Writes frames and makes sure that the receiver had not gone by then.
    pub(super) async fn write(&mut self, frames: &[Vec<u8>]) -> io::Result<()> {
        for frame in frames {
            self.0.write_all(frame).await?;
        }
        self.0.flush().await?;
        if self.is_closed() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the receiver closed the connection",
            ));
        }
        Ok(())
    }

    /// Looks at the read side without waiting.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut chunk = [0; 1_024];
        for _ in 0..CHATTER_MAX {
            match self.0.read(&mut chunk).now_or_never() {
                None => return false,
                Some(Ok(0) | Err(_)) => return true,
                Some(Ok(_)) => {}
            }
        }
        false
    }
}

/// Trust in the authorities of a file, or in the platform's.
pub(super) fn tls_config(ca_file: Option<&Path>) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in authorities(path)? {
                roots.add(certificate).map_err(io::Error::other)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_platform_verifier().map_err(io::Error::other)?,
    };
    Ok(builder.with_no_client_auth())
}

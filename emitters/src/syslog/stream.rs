//! TCP and TLS streams whose read side is watched: a receiver that has gone shows there first.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Most chunks read from a receiver that talks although it should not, per look.
const CHATTER_MAX: usize = 16;
/// What our kernel may hold for a receiver; Linux doubles it for its own needs. The tail of the link
/// is larger, so that what was lost there goes out again.
const SEND_BUFFER_BYTES: u32 = 96 << 10;
/// How long the receiver's machine may stay silent about bytes it was sent: else a connection that
/// a firewall forgot would swallow lines for a quarter of an hour.
#[cfg(target_os = "linux")]
const UNCONFIRMED_MILLIS_MAX: u32 = 15_000;
/// An idle connection is looked at after so long, and then at this pace.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(30);
/// See [`KEEP_ALIVE_IDLE`].
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A stream that somebody else holds.
pub(super) type Both<'a> = &'a mut Box<dyn Duplex>;

/// A connected stream. Dropped, it says good-bye as far as that needs no waiting: TLS receivers
/// report a connection that ends without `close_notify`.
pub(super) struct Stream(Box<dyn Duplex>);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.0.shutdown().now_or_never());
    }
}

impl Stream {
    pub(super) async fn tcp(addresses: &[SocketAddr]) -> io::Result<Self> {
        Ok(Self(Box::new(connect(addresses).await?)))
    }

    pub(super) async fn tls(
        addresses: &[SocketAddr],
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
    ) -> io::Result<Self> {
        let stream = connect(addresses).await?;
        let connector = TlsConnector::from(config.clone());
        Ok(Self(Box::new(
            connector.connect(name.clone(), stream).await?,
        )))
    }

    /// Writes frames and makes sure that the receiver had not gone by then. What it says is thrown
    /// away: for receivers that have nothing to say.
    pub(super) async fn write(&mut self, frames: &[Vec<u8>]) -> io::Result<()> {
        for frame in frames {
            self.0.write_all(frame).await?;
        }
        self.0.flush().await?;
        self.gone().map_or(Ok(()), Err)
    }

    /// Looks at the read side without waiting: how the receiver ended the connection, if it did.
    pub(super) fn gone(&mut self) -> Option<io::Error> {
        let mut chunk = [0; 1_024];
        for _ in 0..CHATTER_MAX {
            match self.0.read(&mut chunk).now_or_never() {
                None => return None,
                Some(Ok(0)) => {
                    return Some(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        "the receiver closed the connection",
                    ));
                }
                Some(Err(error)) => return Some(error),
                Some(Ok(_)) => {}
            }
        }
        None
    }

    /// Both directions, for a conversation.
    pub(super) fn halves(&mut self) -> (ReadHalf<Both<'_>>, WriteHalf<Both<'_>>) {
        tokio::io::split(&mut self.0)
    }

    /// Writes without waiting; what does not go at once does not go.
    pub(super) fn write_now(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes).now_or_never());
    }
}

/// Connects to the first address that answers.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the receiver has no address");
    for address in addresses {
        match connect_to(*address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEP_ALIVE_INTERVAL)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(&stream, UNCONFIRMED_MILLIS_MAX)?;
    Ok(stream)
}

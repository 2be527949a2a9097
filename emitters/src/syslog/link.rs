//! The connection to a receiver: made when needed, watched, made again when it broke.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::stream::{self, Stream};
use crate::address_guard::resolve;
use crate::contract::EmitError;
use crate::error::BuildError;
use crate::options::{SyslogOptions, SyslogTransport};
use crate::tls::{certificate_trouble, chain};

/// Bytes of lines kept to be written again after a broken connection: more than kernels buffer
/// for a receiver by default.
const TAIL_BYTES_MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    address: String,
    host: String,
    port: u16,
    transport: Transport,
    connect_limit: Duration,
    connection: Option<Connection>,
    /// Frames written last, oldest first.
    tail: VecDeque<Vec<u8>>,
    tail_bytes: usize,
}

enum Transport {
    Udp,
    Tcp,
    Tls(Arc<ClientConfig>, ServerName<'static>),
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Udp => "Udp",
            Self::Tcp => "Tcp",
            Self::Tls(..) => "Tls",
        })
    }
}

#[derive(Debug)]
enum Connection {
    Udp(UdpSocket),
    Stream(Stream),
}

impl Link {
    pub(super) fn new(name: &str, options: &SyslogOptions) -> Result<Self, BuildError> {
        let (host, port) = host_and_port(&options.address)
            .ok_or_else(|| BuildError::option(name, "address", &"write host:port"))?;
        let transport = match options.transport {
            SyslogTransport::Udp => Transport::Udp,
            SyslogTransport::Tcp => Transport::Tcp,
            SyslogTransport::Tls => {
                let config = stream::tls_config(options.ca_file.as_deref())
                    .map_err(|error| BuildError::option(name, "ca_file", &error))?;
                let server = options.server_name.clone().unwrap_or_else(|| host.clone());
                let server = ServerName::try_from(server)
                    .map_err(|error| BuildError::option(name, "server_name", &error))?;
                Transport::Tls(Arc::new(config), server)
            }
        };
        Ok(Self {
            address: options.address.clone(),
            host,
            port,
            transport,
            connect_limit: Duration::from_secs(options.connect_timeout_seconds),
            connection: None,
            tail: VecDeque::new(),
            tail_bytes: 0,
        })
    }

    /// Writes lines; on an error none of them counts as written and the connection is closed.
    pub(super) async fn write(&mut self, lines: &[String]) -> Result<(), EmitError> {
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.try_write(lines).await;
        written.map_err(|error| {
            self.close();
            self.failed(&error)
        })
    }

    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    async fn try_write(&mut self, lines: &[String]) -> io::Result<()> {
        let frames: Vec<Vec<u8>> = match self.transport {
            Transport::Udp => lines.iter().map(|line| line.clone().into_bytes()).collect(),
            Transport::Tcp | Transport::Tls(..) => {
                lines.iter().map(|line| octet_counted(line)).collect()
            }
        };
        let mut open = self.connection.take();
        if let Some(Connection::Stream(stream)) = &mut open
            && stream.is_closed()
        {
            tracing::warn!(
                address = self.address,
                "the syslog receiver closed the connection"
            );
            open = None;
        }
        let connection = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        // Put back only when all went well: a connection that broke within a line is of no use.
        let connection = match connection {
            Connection::Udp(socket) => {
                for frame in &frames {
                    socket.send(frame).await?;
                }
                Connection::Udp(socket)
            }
            Connection::Stream(mut stream) => {
                stream.write(&frames).await?;
                self.keep_tail(frames);
                Connection::Stream(stream)
            }
        };
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> io::Result<Connection> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        timeout(self.connect_limit, self.open())
            .await
            .map_err(late)?
    }

    async fn open(&self) -> io::Result<Connection> {
        let addresses = resolve(&self.host, self.port).await?;
        let mut stream = match &self.transport {
            Transport::Udp => return Ok(Connection::Udp(udp(&addresses).await?)),
            Transport::Tcp => Stream::tcp(&addresses).await?,
            Transport::Tls(config, name) => Stream::tls(&addresses, config, name).await?,
        };
        if !self.tail.is_empty() {
            tracing::info!(
                address = self.address,
                lines = self.tail.len(),
                "connected again: the last lines go out a second time"
            );
            for frame in &self.tail {
                stream.write(std::slice::from_ref(frame)).await?;
            }
        }
        Ok(Connection::Stream(stream))
    }

    fn keep_tail(&mut self, frames: Vec<Vec<u8>>) {
        for frame in frames {
            self.tail_bytes += frame.len();
            self.tail.push_back(frame);
        }
        while self.tail_bytes > TAIL_BYTES_MAX {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= oldest.len();
        }
    }

    fn failed(&self, error: &io::Error) -> EmitError {
        match certificate_trouble(error) {
            Some(why) => EmitError::Hold {
                what: format!("{}: the certificate is not trusted: {why}", self.address),
                help: "set ca_file to the authority that signed the receiver's certificate, and \
                       server_name to the name that stands in it"
                    .to_owned(),
            },
            None => EmitError::Retry {
                what: format!("{}: {}", self.address, chain(error)),
                after: None,
            },
        }
    }
}

async fn udp(addresses: &[std::net::SocketAddr]) -> io::Result<UdpSocket> {
    let v6_only = addresses.iter().all(std::net::SocketAddr::is_ipv6);
    let socket = UdpSocket::bind(if v6_only { "[::]:0" } else { "0.0.0.0:0" }).await?;
    let usable: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|a| a.is_ipv6() == v6_only)
        .collect();
    socket.connect(usable.as_slice()).await?;
    Ok(socket)
}

/// `LEN SP MSG`, LEN in bytes.
fn octet_counted(line: &str) -> Vec<u8> {
    format!("{} {line}", line.len()).into_bytes()
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

    #[test]
    fn a_frame_counts_bytes_not_characters() {
        assert_eq!(octet_counted("aé"), "3 aé".as_bytes());
    }
}

//! A syslog receiver: UDP, TCP and TLS with octet counting, recorded frame by frame.
//!
//! The TLS certificate is signed by an authority made at start, whose PEM is exported. A frame that
//! is not octet-counted ends its connection, as syslog-ng's does, and is counted as broken.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::SimulatorError;
use crate::tls::Tls;

/// Largest frame; a longer one ends the connection.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Most digits of a frame's length.
const LENGTH_DIGITS_MAX: u64 = 8;
/// Largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// How a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// TCP, octet-counted.
    Tcp,
    /// TLS, octet-counted.
    Tls,
}

/// What a receiver got. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Syslog {
    state: Arc<Mutex<Frames>>,
}

#[derive(Debug, Default)]
struct Frames {
    frames: Vec<(Transport, Bytes)>,
    broken: u64,
}

/// Where the receiver listens.
#[derive(Debug, Clone)]
pub struct SyslogAddresses {
    /// UDP.
    pub udp: SocketAddr,
    /// TCP.
    pub tcp: SocketAddr,
    /// TLS; the certificate is for `localhost` and 127.0.0.1.
    pub tls: SocketAddr,
    /// The authority that signed the certificate, PEM.
    pub ca_pem: String,
}

impl Syslog {
    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All frames so far, in order of arrival.
    pub fn frames(&self) -> Vec<(Transport, Bytes)> {
        self.lock().frames.clone()
    }

    /// Connections that ended by a frame that was not octet-counted or was cut.
    pub fn broken(&self) -> u64 {
        self.lock().broken
    }

    fn add(&self, transport: Transport, frame: Bytes) {
        self.lock().frames.push((transport, frame));
    }

    pub(crate) async fn serve(
        &self,
        Tls { acceptor, ca_pem }: Tls,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<SyslogAddresses, SimulatorError> {
        let bind = |address| SimulatorError::Bind(address, "syslog");
        let local = "127.0.0.1:0";
        let udp = UdpSocket::bind(local).await.map_err(bind)?;
        let tcp = TcpListener::bind(local).await.map_err(bind)?;
        let tls = TcpListener::bind(local).await.map_err(bind)?;
        let addresses = SyslogAddresses {
            udp: udp.local_addr().map_err(bind)?,
            tcp: tcp.local_addr().map_err(bind)?,
            tls: tls.local_addr().map_err(bind)?,
            ca_pem,
        };
        let (receiver, cancelled) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            cancelled
                .run_until_cancelled(receiver.read_datagrams(udp))
                .await;
        });
        for (listener, acceptor) in [(tcp, None), (tls, Some(acceptor))] {
            let (receiver, cancelled, tracker) = (self.clone(), stop.clone(), tasks.clone());
            let connections = stop.clone();
            tasks.spawn(async move {
                let accepting = receiver.accept(listener, acceptor, tracker, connections);
                cancelled.run_until_cancelled(accepting).await;
            });
        }
        Ok(addresses)
    }

    async fn read_datagrams(&self, socket: UdpSocket) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while let Ok(length) = socket.recv(&mut buffer).await {
            let datagram = buffer.get(..length).unwrap_or_default();
            self.add(Transport::Udp, Bytes::copy_from_slice(datagram));
        }
    }

    async fn accept(
        &self,
        listener: TcpListener,
        acceptor: Option<TlsAcceptor>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        while let Ok((stream, _)) = listener.accept().await {
            let (receiver, acceptor, stop) = (self.clone(), acceptor.clone(), stop.clone());
            tasks.spawn(async move {
                let reading = async {
                    match acceptor {
                        None => receiver.read_frames(Transport::Tcp, stream).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => receiver.read_frames(Transport::Tls, stream).await,
                            Err(error) => {
                                tracing::debug!(%error, "syslog TLS handshake failed");
                                receiver.lock().broken += 1;
                            }
                        },
                    }
                };
                stop.run_until_cancelled(reading).await;
            });
        }
    }

    async fn read_frames(&self, transport: Transport, stream: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stream);
        loop {
            match read_frame(&mut reader).await {
                Ok(Some(frame)) => self.add(transport, frame),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "syslog frame refused");
                    self.lock().broken += 1;
                    return;
                }
            }
        }
    }
}

/// One octet-counted frame (`LEN SP MSG`); `None` at a clean end.
async fn read_frame(
    reader: &mut BufReader<impl AsyncRead + Unpin>,
) -> std::io::Result<Option<Bytes>> {
    let mut digits = Vec::new();
    let read = reader
        .take(LENGTH_DIGITS_MAX + 1)
        .read_until(b' ', &mut digits)
        .await?;
    if read == 0 {
        return Ok(None);
    }
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "not octet-counted");
    let length: usize = digits
        .strip_suffix(b" ")
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .filter(|length| (1..=FRAME_BYTES_MAX).contains(length))
        .ok_or_else(invalid)?;
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame).await?;
    Ok(Some(frame.into()))
}

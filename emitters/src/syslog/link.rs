//! The connection of a receiver that confirms nothing: made when needed, watched, made again when
//! it broke.

use std::collections::VecDeque;
use std::io;

use tokio::net::UdpSocket;

use super::dial::Dialer;
use super::stream::Stream;
use crate::contract::EmitError;
use crate::tls::refused_by_alert;

/// Bytes of lines kept to be written again after a broken connection: more than our kernel holds
/// for a receiver.
const TAIL_BYTES_MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    dialer: Dialer,
    is_udp: bool,
    connection: Option<Connection>,
    /// Frames written last, oldest first.
    tail: VecDeque<Vec<u8>>,
    tail_bytes: usize,
}

#[derive(Debug)]
enum Connection {
    Udp(UdpSocket),
    Stream(Stream),
}

impl Link {
    pub(super) fn new(dialer: Dialer, is_udp: bool) -> Self {
        Self {
            dialer,
            is_udp,
            connection: None,
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// Writes lines; on an error none of them counts as written and the connection is closed.
    pub(super) async fn write(&mut self, lines: &[String]) -> Result<(), EmitError> {
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.try_write(lines).await;
        written.map_err(|error| {
            self.close();
            self.dialer.failed(&error)
        })
    }

    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    async fn try_write(&mut self, lines: &[String]) -> io::Result<()> {
        let frames: Vec<Vec<u8>> = if self.is_udp {
            lines.iter().map(|line| line.clone().into_bytes()).collect()
        } else {
            lines.iter().map(|line| octet_counted(line)).collect()
        };
        let mut open = self.connection.take();
        if let Some(Connection::Stream(stream)) = &mut open
            && let Some(error) = stream.gone()
        {
            if refused_by_alert(&error).is_some() {
                return Err(error);
            }
            tracing::warn!(
                address = self.dialer.address, %error,
                "the syslog receiver is gone"
            );
            open = None;
        }
        let connection = match open {
            Some(connection) => connection,
            None => self.open().await?,
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

    async fn open(&self) -> io::Result<Connection> {
        if self.is_udp {
            let addresses = self.dialer.addresses().await?;
            return Ok(Connection::Udp(udp(&addresses).await?));
        }
        let mut stream = self.dialer.connect().await?;
        if !self.tail.is_empty() {
            tracing::info!(
                address = self.dialer.address,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_bytes_not_characters() {
        assert_eq!(octet_counted("aé"), "3 aé".as_bytes());
    }
}

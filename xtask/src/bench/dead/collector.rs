//! A HEC receiver of this process that may be away: its address is taken, and nobody listens there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use memchr::memmem;
use tokio::net::TcpSocket;

use super::feed::ID_PREFIX;

/// Connections that may wait.
const BACKLOG: u32 = 64;
const REPLY: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"text\":\"Success\",\"code\":0}";

/// A receiver, and which records it took.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) url: String,
    away: Mutex<Option<TcpSocket>>,
    taken: Arc<Taken>,
}

/// How often each record came, by its number.
#[derive(Debug)]
struct Taken {
    times: Mutex<Vec<u8>>,
    events: AtomicUsize,
}

impl Collector {
    /// Of so many records; away until it is told to come.
    pub(super) fn away(records: usize) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            url: format!("http://{}", socket.local_addr()?),
            away: Mutex::new(Some(socket)),
            taken: Arc::new(Taken {
                times: Mutex::new(vec![0; records]),
                events: AtomicUsize::new(0),
            }),
        })
    }

    /// It listens from now on, with a thread for each connection, all of which end with this process.
    /// To be called within a runtime.
    pub(super) fn come(&self) -> Result<()> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = away.take().context("it is there already")?;
        let listener: TcpListener = socket.listen(BACKLOG)?.into_std()?;
        listener.set_nonblocking(false)?;
        let taken = self.taken.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let taken = taken.clone();
                // A connection that ends is no error: the clients come and go.
                std::thread::spawn(move || serve(connection, &taken));
            }
        });
        Ok(())
    }

    /// Records that came, repeats included.
    pub(super) fn count(&self) -> usize {
        self.taken.events.load(Ordering::SeqCst)
    }

    /// Of the records: how many never came, and how many came more than once.
    pub(super) fn missing_and_repeated(&self) -> (usize, usize) {
        let times = self.taken.times();
        let count = |of: fn(&u8) -> bool| times.iter().filter(|times| of(times)).count();
        (count(|times| *times == 0), count(|times| *times > 1))
    }
}

impl Taken {
    fn times(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of a body, by their numbers. What is said of ourselves and findings have none.
    fn take(&self, body: &[u8]) {
        let mut times = self.times();
        let mut count = 0;
        for at in memmem::find_iter(body, ID_PREFIX) {
            let digits = body.get(at + ID_PREFIX.len()..).unwrap_or_default();
            let digits = digits.split(|byte| !byte.is_ascii_digit()).next();
            let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            let place = number.and_then(|number: usize| times.get_mut(number));
            if let Some(place) = place {
                *place = place.saturating_add(1);
                count += 1;
            }
        }
        self.events.fetch_add(count, Ordering::SeqCst);
    }
}

/// Serves a connection until it ends.
fn serve(connection: TcpStream, taken: &Taken) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, connection);
    let (mut body, mut plain) = (Vec::new(), Vec::new());
    loop {
        let (mut length, mut gzip) = (0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            gzip |= line == "content-encoding: gzip";
            if line.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        if gzip {
            plain.clear();
            GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
            taken.take(&plain);
        } else {
            taken.take(&body);
        }
        reader.get_mut().write_all(REPLY.as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_away_refuses_connections_and_who_came_counts_each_record() {
        let collector = Collector::away(3).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let post = |numbers: &[u32]| {
            let record = |number: &u32| {
                let id = String::from_utf8_lossy(ID_PREFIX);
                format!(r#"{{"event":{{{id}{number:012}"}},"fields":{{"event_id":"x"}}}}"#)
            };
            let body: String = numbers.iter().map(record).collect();
            client.post(&collector.url).body(body).send()
        };
        let refused = post(&[0]).await.unwrap_err();
        assert!(refused.is_connect(), "{refused}");
        assert_eq!(
            (collector.count(), collector.missing_and_repeated()),
            (0, (3, 0))
        );
        collector.come().unwrap();
        for numbers in [[0, 2], [2, 7]] {
            post(&numbers).await.unwrap().error_for_status().unwrap();
        }
        assert_eq!(
            (collector.count(), collector.missing_and_repeated()),
            (3, (1, 1))
        );
    }
}

//! One RELP session: `open`, then lines in a window, each confirmed by the receiver, then `close`.

use std::collections::HashMap;
use std::time::Duration;
use std::{fmt, io};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{Frame, NotRelp, TXNR_MAX, decode, encode};
use crate::progress::Fate;
use crate::syslog::stream::Stream;

/// Most lines sent and not yet confirmed: what comes twice after a broken connection. Receivers
/// allow 128 (librelp's own window).
pub(super) const WINDOW: usize = 128;
/// Bytes put together before they are written.
const OUTPUT_BYTES: usize = 64 << 10;
/// Longest piece of a receiver's words that is shown.
const WORDS_CHARS_MAX: usize = 200;

/// Why a session ended, or could not begin.
#[derive(Debug)]
pub(super) enum Ended {
    /// The connection broke.
    Io(io::Error),
    /// The receiver closed the session or the connection.
    Closed,
    /// Nothing was answered and nothing could be written for so long.
    Silent(Duration),
    /// It does not speak the protocol.
    NotRelp(NotRelp),
    /// It refuses the session, with its words.
    Refused(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed => f.write_str("the receiver closed the session"),
            Self::Silent(limit) => write!(f, "no answer within {limit:?}"),
            Self::NotRelp(error) => error.fmt(f),
            Self::Refused(words) => write!(f, "the receiver refuses the session: {words}"),
        }
    }
}

/// See the module. Dropped, it sends `close` as far as that needs no waiting.
#[derive(Debug)]
pub(super) struct Session {
    stream: Stream,
    /// Number of the next transaction.
    next: u32,
    /// Bytes read that are no whole frame yet.
    input: Vec<u8>,
    is_closed: bool,
    /// The receiver's name, as it says.
    pub(super) software: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        let mut frame = Vec::new();
        encode(self.next, "close", b"", &mut frame);
        self.stream.write_now(&frame);
    }
}

impl Session {
    /// Offers what we speak and reads the receiver's offer.
    pub(super) async fn open(mut stream: Stream, limit: Duration) -> Result<Self, Ended> {
        let offer = concat!(
            "relp_version=0\nrelp_software=exfilwatch,",
            env!("CARGO_PKG_VERSION"),
            "\ncommands=syslog"
        );
        let mut frame = Vec::new();
        encode(1, "open", offer.as_bytes(), &mut frame);
        let mut input = Vec::new();
        let answer = timeout(limit, first_answer(&mut stream, &frame, &mut input));
        let answer = answer.await.map_err(|_| Ended::Silent(limit))??;
        if answer.command == "serverclose" {
            return Err(Ended::Closed);
        }
        if answer.command != "rsp" || answer.txnr != 1 {
            return Err(Ended::NotRelp(NotRelp("open was not answered")));
        }
        let answer = Answer::of(&answer.data);
        if !answer.is_ok() {
            return Err(Ended::Refused(answer.words));
        }
        let offered = Offers::of(&answer.rest);
        if !offered.syslog {
            return Err(Ended::Refused("it does not offer syslog".to_owned()));
        }
        Ok(Self {
            stream,
            next: 2,
            input,
            is_closed: false,
            software: offered.software,
        })
    }

    /// Ends the session as the protocol says: waits until the receiver has closed its side.
    pub(super) async fn close(mut self, limit: Duration) {
        let mut frame = Vec::new();
        encode(self.next, "close", b"", &mut frame);
        let (mut reader, mut writer) = self.stream.halves();
        let ending = async {
            writer.write_all(&frame).await?;
            writer.flush().await?;
            // What is still said is of no use.
            tokio::io::copy(&mut reader, &mut tokio::io::sink()).await
        };
        // Silence is an end too.
        drop(timeout(limit, ending).await);
        self.is_closed = true;
    }

    /// Sends the lines that are open and notes those the receiver confirms. `Ok` when all were
    /// answered: then with the words of the first refusal, if there was one.
    pub(super) async fn send(
        &mut self,
        lines: &[String],
        fates: &mut [Fate],
        silence_max: Duration,
    ) -> Result<Option<String>, Ended> {
        let open: Vec<usize> = (0..lines.len())
            .filter(|index| fates.get(*index) == Some(&Fate::Open))
            .collect();
        let mut unsent = open.into_iter();
        let mut waiting: HashMap<u32, usize> = HashMap::with_capacity(WINDOW);
        let mut refused = None;
        let mut output = Output::default();
        // Broken off in the middle of a line, nothing may be written behind it: the receiver would take it
        // for the rest of the line.
        self.is_closed = true;
        let mut deadline = Instant::now() + silence_max;
        let Self {
            stream,
            next,
            input,
            is_closed,
            ..
        } = self;
        let (mut reader, mut writer) = stream.halves();
        loop {
            while waiting.len() < WINDOW && output.has_room() {
                let Some(index) = unsent.next() else { break };
                let line = lines.get(index).map_or("", String::as_str);
                encode(*next, "syslog", line.as_bytes(), &mut output.bytes);
                waiting.insert(*next, index);
                *next = if *next >= TXNR_MAX { 1 } else { *next + 1 };
                output.flushed = false;
            }
            if waiting.is_empty() {
                *is_closed = false;
                return Ok(refused);
            }
            let idle = output.pending().is_empty() && output.flushed;
            let pushing = async {
                match output.pending() {
                    [] => writer.flush().await.map(|()| None),
                    pending => writer.write(pending).await.map(Some),
                }
            };
            tokio::select! {
                pushed = pushing, if !idle => match pushed.map_err(Ended::Io)? {
                    None => output.flushed = true,
                    Some(0) => return Err(Ended::Closed),
                    Some(bytes) => {
                        output.written(bytes);
                        deadline = Instant::now() + silence_max;
                    }
                },
                read = reader.read_buf(input) => {
                    if read.map_err(Ended::Io)? == 0 {
                        return Err(Ended::Closed);
                    }
                }
                () = sleep_until(deadline) => return Err(Ended::Silent(silence_max)),
            }
            while let Some(frame) = take_frame(input)? {
                let Some(answer) = answered(&frame)? else {
                    continue;
                };
                let Some(index) = waiting.remove(&frame.txnr) else {
                    return Err(Ended::NotRelp(NotRelp(
                        "an answer to nothing that was sent",
                    )));
                };
                // Only what confirms something is progress.
                deadline = Instant::now() + silence_max;
                if answer.is_ok() {
                    if let Some(fate) = fates.get_mut(index) {
                        *fate = Fate::Taken;
                    }
                } else {
                    refused.get_or_insert(answer.words);
                }
            }
        }
    }
}

/// What is on its way out.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    at: usize,
    flushed: bool,
}

impl Output {
    fn pending(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn has_room(&self) -> bool {
        self.pending().len() < OUTPUT_BYTES
    }

    fn written(&mut self, bytes: usize) {
        self.at += bytes;
        if self.at >= self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
    }
}

/// Sends a frame and reads the first that comes back. Not by [`Stream::write`], which throws away
/// what the receiver says.
async fn first_answer(
    stream: &mut Stream,
    frame: &[u8],
    input: &mut Vec<u8>,
) -> Result<Frame, Ended> {
    let (mut reader, mut writer) = stream.halves();
    writer.write_all(frame).await.map_err(Ended::Io)?;
    writer.flush().await.map_err(Ended::Io)?;
    loop {
        if let Some(frame) = take_frame(input)? {
            return Ok(frame);
        }
        if reader.read_buf(input).await.map_err(Ended::Io)? == 0 {
            return Err(Ended::Closed);
        }
    }
}

fn take_frame(input: &mut Vec<u8>) -> Result<Option<Frame>, Ended> {
    let found = decode(input).map_err(Ended::NotRelp)?;
    Ok(found.map(|(frame, taken)| {
        input.drain(..taken);
        frame
    }))
}

/// The answer in a frame; `None` for a hint that asks for nothing.
fn answered(frame: &Frame) -> Result<Option<Answer>, Ended> {
    match (frame.command.as_str(), frame.txnr) {
        ("rsp", 1..) => Ok(Some(Answer::of(&frame.data))),
        ("serverclose", _) => Err(Ended::Closed),
        (_, 0) => Ok(None),
        _ => Err(Ended::NotRelp(NotRelp("a command that no receiver sends"))),
    }
}

/// The data of a `rsp`: `CODE [SP words] [LF rest]`.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: Option<u16>,
    /// First line, as it may be shown.
    words: String,
    rest: String,
}

impl Answer {
    fn of(data: &[u8]) -> Self {
        let text = String::from_utf8_lossy(data);
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let code = first.split(' ').next().unwrap_or_default();
        let shown = first.chars().filter(|c| !c.is_control());
        Self {
            code: code.parse().ok(),
            words: shown.take(WORDS_CHARS_MAX).collect(),
            rest: rest.to_owned(),
        }
    }

    /// Only 200 means that the line was taken.
    fn is_ok(&self) -> bool {
        self.code == Some(200)
    }
}

/// What a receiver offers: `name=value` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offers {
    software: String,
    syslog: bool,
}

impl Offers {
    fn of(text: &str) -> Self {
        let mut offers = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "relp_software" => {
                    let shown = value.chars().filter(|c| !c.is_control());
                    offers.software = shown.take(WORDS_CHARS_MAX).collect();
                }
                "commands" => offers.syslog = value.split(',').any(|c| c.trim() == "syslog"),
                _ => {}
            }
        }
        offers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_confirms_only_with_200() {
        for (data, ok) in [
            ("200 OK", true),
            ("200", true),
            ("500 error", false),
            ("2000 OK", false),
            ("OK", false),
            ("", false),
        ] {
            assert_eq!(Answer::of(data.as_bytes()).is_ok(), ok, "{data}");
        }
        assert_eq!(Answer::of(b"500 no\x07 room\nmore").words, "500 no room");
    }

    #[test]
    fn offers_are_read_as_librelp_writes_them() {
        let text = "relp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\n\
                    commands=syslog";
        let offers = Offers::of(text);
        assert!(offers.syslog && offers.software.starts_with("librelp,1.11.0"));
        assert!(!Offers::of("relp_version=0\ncommands=starttls").syslog);
        assert!(!Offers::of("").syslog);
    }
}

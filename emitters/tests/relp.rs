//! RELP against a receiver that answers, refuses, closes and breaks as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::office365;
use exfilwatch_emitters::{EmitError, Emitter, Syslog, SyslogOptions};
use exfilwatch_model::Envelope;
use exfilwatch_model::diagnosis::Verdict;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);
const OFFER: &str = "200 OK\nrelp_version=0\nrelp_software=test\ncommands=syslog";

/// What the receiver does with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Keeps it and says so.
    Confirm,
    /// Keeps it and breaks the connection before it says so.
    KeepAndBreak,
    /// Breaks the connection and forgets the line.
    Break,
    /// Closes the session as the protocol says, without the line.
    ServerClose,
    /// Answers with an error.
    Refuse,
    /// Says nothing, and reads on.
    Silent,
}

#[derive(Debug, Default)]
struct Book {
    /// Lines kept, in order.
    lines: Vec<String>,
    /// Deeds still to come; then all is confirmed.
    deeds: Vec<Deed>,
    sessions: usize,
    closed: usize,
    most_waiting: usize,
}

struct Receiver {
    address: String,
    book: Arc<Mutex<Book>>,
}

impl Receiver {
    /// Deeds are taken from the end.
    async fn start(deeds: Vec<Deed>, offer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let book = Arc::new(Mutex::new(Book {
            deeds,
            ..Book::default()
        }));
        let shared = book.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(session(stream, &shared, offer).await);
            }
        });
        Self { address, book }
    }

    fn emitter(&self, more: &serde_json::Value) -> Syslog {
        let mut options = serde_json::json!({ "address": self.address, "transport": "relp" });
        let members = options.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        let options: SyslogOptions = serde_json::from_value(options).unwrap();
        Syslog::new("syslog.main", &options).unwrap()
    }

    /// How often each event id was kept.
    fn kept(&self) -> BTreeMap<String, usize> {
        let mut kept = BTreeMap::new();
        for line in &self.book.lock().unwrap().lines {
            let id = line.split("event_id=\"").nth(1).unwrap();
            *kept
                .entry(id.split('"').next().unwrap().to_owned())
                .or_default() += 1;
        }
        kept
    }
}

async fn frame(stream: &mut BufReader<TcpStream>) -> std::io::Result<(u32, String, String)> {
    let mut head = Vec::new();
    for _ in 0..2 {
        stream.read_until(b' ', &mut head).await?;
    }
    let mut digits = Vec::new();
    let end = loop {
        match stream.read_u8().await? {
            digit if digit.is_ascii_digit() => digits.push(digit),
            end => break end,
        }
    };
    let head = String::from_utf8(head).unwrap();
    let (txnr, command) = head.trim_end().split_once(' ').unwrap();
    let length: usize = String::from_utf8(digits).unwrap().parse().unwrap();
    let mut data = vec![0; length];
    if end == b' ' {
        stream.read_exact(&mut data).await?;
        assert_eq!(
            stream.read_u8().await?,
            b'\n',
            "a frame ends with a line feed"
        );
    }
    Ok((
        txnr.parse().unwrap(),
        command.to_owned(),
        String::from_utf8(data).unwrap(),
    ))
}

async fn session(stream: TcpStream, book: &Mutex<Book>, offer: &str) -> std::io::Result<()> {
    book.lock().unwrap().sessions += 1;
    let mut stream = BufReader::new(stream);
    let (txnr, command, data) = frame(&mut stream).await?;
    assert_eq!((txnr, command.as_str()), (1, "open"));
    assert!(data.contains("relp_version=0") && data.contains("commands=syslog"));
    answer(&mut stream, 1, offer).await?;
    let mut last = 1;
    loop {
        let (txnr, command, line) = frame(&mut stream).await?;
        if command == "close" {
            book.lock().unwrap().closed += 1;
            answer(&mut stream, txnr, "").await?;
            return stream.write_all(b"0 serverclose 0\n").await;
        }
        assert_eq!((txnr, command.as_str()), (last + 1, "syslog"));
        last = txnr;
        let deed = {
            let mut book = book.lock().unwrap();
            let deed = book.deeds.pop().unwrap_or(Deed::Confirm);
            if matches!(deed, Deed::Confirm | Deed::KeepAndBreak) {
                book.lines.push(line);
            }
            deed
        };
        match deed {
            Deed::Confirm => answer(&mut stream, txnr, "200 OK").await?,
            Deed::Refuse => answer(&mut stream, txnr, "500 no room").await?,
            Deed::ServerClose => {
                stream.write_all(b"0 serverclose 0\n").await?;
                return good_bye(stream).await;
            }
            Deed::KeepAndBreak | Deed::Break => return good_bye(stream).await,
            Deed::Silent => {
                let mut book = book.lock().unwrap();
                book.most_waiting += 1;
            }
        }
    }
}

/// Ends the connection so that the answers on their way still arrive: a socket dropped with bytes
/// unread would take them along.
async fn good_bye(mut stream: BufReader<TcpStream>) -> std::io::Result<()> {
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn answer(stream: &mut BufReader<TcpStream>, txnr: u32, data: &str) -> std::io::Result<()> {
    let frame = format!("{txnr} rsp {} {data}\n", data.len());
    stream.write_all(frame.as_bytes()).await
}

fn batch(count: usize) -> Vec<Envelope> {
    (0..count).map(|n| office365(&format!("n{n}"))).collect()
}

/// Sends as a lane does: again until it is taken.
async fn until_taken(emitter: &Syslog, batch: &[Envelope]) -> usize {
    for tries in 1..1_000 {
        if timeout(PATIENCE, emitter.emit(batch))
            .await
            .expect("an end")
            .is_ok()
        {
            return tries;
        }
    }
    panic!("never taken")
}

#[tokio::test]
async fn every_line_is_confirmed_and_the_session_is_closed_in_the_end() {
    let receiver = Receiver::start(vec![], OFFER).await;
    let emitter = receiver.emitter(&serde_json::json!({}));
    let batch = batch(300);
    emitter.emit(&batch).await.unwrap();
    emitter.emit(&[office365("later")]).await.unwrap();
    let kept = receiver.kept();
    assert_eq!((kept.len(), kept.values().max()), (301, Some(&1)));
    assert_eq!(receiver.book.lock().unwrap().sessions, 1);
    drop(emitter);
    let closed = async {
        while receiver.book.lock().unwrap().closed == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, closed).await.expect("close was sent");
}

/// The receiver runs on a thread of its own, so that its answer may be there before we look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_quick_is_not_thrown_away() {
    let receiver = Receiver::start(vec![], OFFER).await;
    for n in 0..200 {
        let emitter = receiver.emitter(&serde_json::json!({ "write_timeout_seconds": 5 }));
        let sent = emitter.emit(&[office365(&format!("n{n}"))]).await;
        assert!(sent.is_ok(), "{n}: {sent:?}");
    }
    assert_eq!(receiver.kept().len(), 200);
}

#[tokio::test]
async fn a_broken_session_sends_again_what_was_not_confirmed_and_nothing_else() {
    for deed in [Deed::KeepAndBreak, Deed::Break, Deed::ServerClose] {
        let mut deeds = vec![Deed::Confirm; 5];
        deeds.insert(0, deed);
        let receiver = Receiver::start(deeds, OFFER).await;
        let emitter = receiver.emitter(&serde_json::json!({}));
        // One call: a session that got on is followed by another at once.
        emitter.emit(&batch(20)).await.unwrap();
        let kept = receiver.kept();
        assert_eq!(kept.len(), 20, "{deed:?}");
        let twice: Vec<&String> = kept
            .iter()
            .filter(|(_, n)| **n > 1)
            .map(|(id, _)| id)
            .collect();
        let expected = if deed == Deed::KeepAndBreak {
            vec!["n5"]
        } else {
            vec![]
        };
        assert_eq!(twice, expected, "{deed:?}");
        let lines = receiver.book.lock().unwrap().lines.clone();
        let distinct: std::collections::BTreeSet<&String> = lines.iter().collect();
        assert_eq!(distinct.len(), 20, "{deed:?}: a repeat is the same bytes");
    }
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_is_tried_again_by_the_lane() {
    let receiver = Receiver::start(vec![Deed::Break, Deed::Break], OFFER).await;
    let emitter = receiver.emitter(&serde_json::json!({}));
    let error = emitter.emit(&batch(3)).await.unwrap_err();
    assert!(matches!(error, EmitError::Retry { .. }), "{error:?}");
    assert_eq!(until_taken(&emitter, &batch(3)).await, 2);
    assert_eq!(receiver.kept().len(), 3);
}

#[tokio::test]
async fn a_refused_line_holds_the_lane_and_the_others_are_not_sent_twice() {
    // The third line is refused once.
    let receiver = Receiver::start(vec![Deed::Refuse, Deed::Confirm, Deed::Confirm], OFFER).await;
    let emitter = receiver.emitter(&serde_json::json!({}));
    let error = emitter.emit(&batch(10)).await.unwrap_err();
    assert!(
        matches!(&error, EmitError::Hold { what, .. } if what.contains("500 no room")),
        "{error:?}"
    );
    assert_eq!(receiver.kept().len(), 9);
    emitter.emit(&batch(10)).await.unwrap();
    let kept = receiver.kept();
    assert_eq!((kept.len(), kept.values().max()), (10, Some(&1)));
}

#[tokio::test]
async fn a_receiver_that_takes_no_syslog_or_no_session_holds_the_lane() {
    for (offer, said) in [
        (
            "200 OK\nrelp_version=0\ncommands=starttls",
            "does not offer syslog",
        ),
        ("500 go away", "500 go away"),
    ] {
        let receiver = Receiver::start(vec![], offer).await;
        let emitter = receiver.emitter(&serde_json::json!({}));
        let error = emitter.emit(&batch(1)).await.unwrap_err();
        assert!(
            matches!(&error, EmitError::Hold { what, .. } if what.contains(said)),
            "{error:?}"
        );
        let checks = emitter.diagnose().await;
        assert_eq!(checks[0].verdict, Verdict::Failed);
        assert!(receiver.book.lock().unwrap().lines.is_empty());
    }
    let receiver = Receiver::start(vec![], OFFER).await;
    let checks = receiver.emitter(&serde_json::json!({})).diagnose().await;
    assert_eq!(receiver.book.lock().unwrap().closed, 1);
    assert_eq!(
        (checks[0].verdict, checks[0].seen.as_str()),
        (Verdict::Ok, "test takes syslog")
    );
}

#[tokio::test]
async fn no_more_than_the_window_waits_for_an_answer() {
    let receiver = Receiver::start(vec![Deed::Silent; 1_000], OFFER).await;
    let emitter = receiver.emitter(&serde_json::json!({ "write_timeout_seconds": 1 }));
    let error = emitter.emit(&batch(500)).await.unwrap_err();
    assert!(error.to_string().contains("no answer within 1s"), "{error}");
    assert_eq!(receiver.book.lock().unwrap().most_waiting, 128);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_receiver_does_nothing_is_missing_and_repeats_were_never_confirmed(
        deeds in proptest::collection::vec(
            prop_oneof![
                6 => Just(Deed::Confirm), 1 => Just(Deed::KeepAndBreak), 1 => Just(Deed::Break),
                1 => Just(Deed::ServerClose), 1 => Just(Deed::Refuse),
            ],
            0..60,
        ),
        count in 1_usize..200,
    ) {
        let unconfirmed = deeds.iter().filter(|deed| **deed == Deed::KeepAndBreak).count();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let kept = runtime.block_on(async {
            let receiver = Receiver::start(deeds, OFFER).await;
            let emitter = receiver.emitter(&serde_json::json!({}));
            until_taken(&emitter, &batch(count)).await;
            receiver.kept()
        });
        prop_assert_eq!(kept.len(), count);
        let repeats: usize = kept.values().map(|times| times - 1).sum();
        prop_assert!(repeats <= unconfirmed, "{} repeats", repeats);
    }
}

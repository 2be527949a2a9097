//! A collector of its own for the tests: it answers by a script and keeps what it was sent.
//!
//! It knows HTTP/1.1 with Content-Length and nothing else, and serves a bounded number of calls.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Most connections a test may open.
const CONNECTIONS_MAX: usize = 200;

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The events of the body, in order.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        serde_json::Deserializer::from_str(&self.body)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap()
    }

    /// `event_id` of each event.
    pub(crate) fn ids(&self) -> Vec<String> {
        let id = |event: &serde_json::Value| match &event["fields"]["event_id"] {
            serde_json::Value::String(id) => id.clone(),
            _ => event["event"]["Id"].as_str().unwrap_or("?").to_owned(),
        };
        self.events().iter().map(id).collect()
    }
}

/// Status, extra header line or "", body.
pub(crate) type Answer = (u16, &'static str, String);

#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// Answers each call by the function.
    pub(crate) async fn start(answer: impl FnMut(&Call) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(Mutex::new(answer));
        let kept = calls.clone();
        let task = tokio::spawn(async move {
            for _ in 0..CONNECTIONS_MAX {
                let (stream, _) = listener.accept().await.unwrap();
                let (kept, answer) = (kept.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(call) = read(&mut stream).await {
                        kept.lock().unwrap().push(call.clone());
                        let (status, header, body) = (answer.lock().unwrap())(&call);
                        let length = body.len();
                        let reply = format!(
                            "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{header}\r\n{body}"
                        );
                        if stream.write_all(reply.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, calls, task }
    }

    /// Answers with these in turn, then with success.
    pub(crate) async fn scripted(answers: Vec<Answer>) -> Self {
        let mut answers = VecDeque::from(answers);
        Self::start(move |_| answers.pop_front().unwrap_or_else(success)).await
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

pub(crate) fn success() -> Answer {
    (200, "", r#"{"text":"Success","code":0}"#.to_owned())
}

pub(crate) fn code(status: u16, code: u64) -> Answer {
    (status, "", format!(r#"{{"text":"words","code":{code}}}"#))
}

pub(crate) fn code_at(status: u16, code: u64, at: usize) -> Answer {
    let body = format!(r#"{{"text":"words","code":{code},"invalid-event-number":{at}}}"#);
    (status, "", body)
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Call> {
    let mut first = String::new();
    if stream.read_line(&mut first).await.ok()? == 0 {
        return None;
    }
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut call = Call {
        path,
        headers,
        body: String::new(),
    };
    let length = call
        .header("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    call.body = if call.header("content-encoding") == Some("gzip") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body[..])
            .read_to_string(&mut text)
            .unwrap();
        text
    } else {
        String::from_utf8(body).unwrap()
    };
    Some(call)
}

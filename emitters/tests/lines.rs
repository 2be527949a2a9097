//! Syslog over loopback, files and standard output.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{event, finding, finding_envelope, google, heartbeat, office365};
use exfilwatch_emitters::{
    EmitError, Emitter, Ndjson, NdjsonOptions, Stdout, Syslog, SyslogOptions,
};
use exfilwatch_model::Envelope;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn syslog(address: &str, transport: &str) -> SyslogOptions {
    let json = serde_json::json!({ "address": address, "transport": transport });
    serde_json::from_value(json).unwrap()
}

fn syslog_emitter(options: &SyslogOptions) -> Syslog {
    Syslog::new("syslog.main", options).unwrap()
}

/// Reads one octet-counted frame.
async fn frame(stream: &mut BufReader<TcpStream>) -> String {
    let reading = async {
        let mut length = Vec::new();
        stream.read_until(b' ', &mut length).await.unwrap();
        let length = String::from_utf8(length).unwrap().trim().parse().unwrap();
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await.unwrap();
        String::from_utf8(frame).unwrap()
    };
    timeout(PATIENCE, reading).await.expect("a frame")
}

async fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let accepted = timeout(PATIENCE, listener.accept())
        .await
        .expect("a connection");
    BufReader::new(accepted.unwrap().0)
}

#[tokio::test]
async fn udp_sends_one_line_a_datagram() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let emitter = syslog_emitter(&syslog(&address, "udp"));
    emitter.emit(&[office365("a"), google()]).await.unwrap();
    for expected in [
        "event_id=\"a\"",
        "event_id=\"2026-11-24T02:15:00.000Z/-72/drive\"",
    ] {
        let mut datagram = vec![0; 65_536];
        let received = timeout(PATIENCE, socket.recv(&mut datagram)).await;
        let length = received.expect("a datagram").unwrap();
        let line = std::str::from_utf8(&datagram[..length]).unwrap();
        assert!(line.starts_with("<134>1 2026-11-24T02:15:00.000Z contoso exfilwatch - EVENT ["));
        assert!(line.contains(expected), "{line}");
    }
}

#[tokio::test]
async fn tcp_counts_octets_and_refuses_what_is_no_json() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let emitter = syslog_emitter(&syslog(&address, "tcp"));
    let broken = event(
        "contoso/office365/Audit.Exchange",
        "x",
        "evil\n<134>1 FORGED",
    );
    let batch = [office365("a"), broken, finding_envelope(&finding())];
    let delivered = emitter.emit(&batch).await.unwrap();
    assert_eq!(delivered.refused.len(), 1);
    assert_eq!(delivered.refused[0].index, 1);
    let mut stream = accept(&listener).await;
    assert!(frame(&mut stream).await.contains("event_id=\"a\""));
    assert!(frame(&mut stream).await.contains("FINDING"));
}

#[tokio::test]
async fn a_closed_connection_is_seen_and_the_last_lines_go_out_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let emitter = syslog_emitter(&syslog(&address, "tcp"));
    emitter.emit(&[office365("a")]).await.unwrap();
    let first = accept(&listener).await;
    drop(first);
    // Loopback tells the writer at once or at the next look; it never takes many.
    let mut again = None;
    for attempt in 0..50 {
        let id = format!("b{attempt}");
        drop(emitter.emit(&[office365(&id)]).await);
        if let Ok(Ok((stream, _))) = timeout(Duration::from_millis(100), listener.accept()).await {
            again = Some(BufReader::new(stream));
            break;
        }
    }
    let mut again = again.expect("a second connection");
    assert!(
        frame(&mut again).await.contains("event_id=\"a\""),
        "the tail comes first"
    );
}

#[tokio::test]
async fn nobody_listening_means_try_again_and_recovers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let emitter = syslog_emitter(&syslog(&address.to_string(), "tcp"));
    let error = emitter.emit(&[office365("a")]).await.unwrap_err();
    assert!(matches!(&error, EmitError::Retry { .. }), "{error:?}");
    let listener = TcpListener::bind(address).await.unwrap();
    emitter.emit(&[office365("a")]).await.unwrap();
    assert!(
        frame(&mut accept(&listener).await)
            .await
            .contains("event_id=\"a\"")
    );
}

fn ndjson(path: &std::path::Path) -> Ndjson {
    let options: NdjsonOptions =
        serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
    Ndjson::new(
        "ndjson.main",
        &options,
        Arc::new(exfilwatch_model::SystemClock),
    )
    .unwrap()
}

#[tokio::test]
async fn a_file_gets_one_line_per_item() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("{tenant}-{kind}.ndjson");
    let emitter = ndjson(&path);
    let pretty = event(
        "contoso/office365/Audit.Exchange",
        "p",
        "{\n  \"Id\": \"p\"\r\n}",
    );
    let mut broken = finding_envelope(&finding());
    broken.payload = "{}".into();
    let batch = [
        office365("a"),
        pretty,
        broken,
        finding_envelope(&finding()),
        heartbeat(),
    ];
    let delivered = emitter.emit(&batch).await.unwrap();
    assert_eq!(delivered.refused.len(), 1);
    assert_eq!(delivered.refused[0].index, 2);
    emitter.emit(&[google()]).await.unwrap();

    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let record = common::OFFICE365.replace("6f0d", "a");
    let events = read("contoso-events.ndjson");
    assert_eq!(
        events,
        format!("{record}\n{{   \"Id\": \"p\"  }}\n{}\n", common::GOOGLE)
    );
    let findings = read("contoso-findings.ndjson");
    assert_eq!(findings.lines().count(), 1);
    let document: Value = serde_json::from_str(&findings).unwrap();
    assert_eq!(document["class_uid"], 2004);
    assert_eq!(
        document["unmapped"]["exfilwatch"]["detection"],
        "gws.drive.mass_share_external"
    );
    assert_eq!(read("contoso-internal.ndjson").lines().count(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.ndjson");
    ndjson(&path).emit(&[office365("a")]).await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_vanished_folder_holds_the_lane() {
    let folder = tempfile::tempdir().unwrap();
    let emitter = ndjson(&folder.path().join("out.ndjson"));
    drop(folder);
    let error = emitter.emit(&[office365("a")]).await.unwrap_err();
    assert!(
        matches!(&error, EmitError::Hold { help, .. } if help.contains("folder")),
        "{error:?}"
    );
}

/// A writer that keeps what it gets, or is closed.
#[derive(Clone, Default)]
struct Pipe {
    kept: Arc<Mutex<Vec<u8>>>,
    closed: bool,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.kept.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn standard_output_gets_lines_and_a_closed_one_is_said_plainly() {
    let pipe = Pipe::default();
    let emitter = Stdout::new("stdout.main", pipe.clone());
    emitter.emit(&[office365("a"), heartbeat()]).await.unwrap();
    let text = String::from_utf8(pipe.kept.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 2);

    let closed = Stdout::new(
        "stdout.main",
        Pipe {
            closed: true,
            ..Pipe::default()
        },
    );
    let error = closed.emit(&[office365("a")]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "standard output was closed by its reader"
    );
    assert!(matches!(error, EmitError::Hold { .. }));
}

#[tokio::test]
async fn an_empty_batch_is_delivered_by_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let nothing: [Envelope; 0] = [];
    let file = ndjson(&folder.path().join("out.ndjson"));
    file.emit(&nothing).await.unwrap();
    Stdout::new("stdout.main", Pipe::default())
        .emit(&nothing)
        .await
        .unwrap();
    syslog_emitter(&syslog("127.0.0.1:9", "tcp"))
        .emit(&nothing)
        .await
        .unwrap();
}

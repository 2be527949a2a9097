//! The way to a place: names, connection, proxy, TLS, and the time there. No credential goes over
//! any of the connections made here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::Clock;
use exfilwatch_model::diagnosis::{Cause, Check, Endpoint, Tls, Way};
use http::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::{self, Refused, Shown, Trouble};

/// Longest wait for each step.
const WAIT: Duration = Duration::from_secs(10);
/// Largest head of an answer read, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// From here on the clock is worth a warning …
const SKEW_WARNING: TimeDelta = TimeDelta::seconds(60);
/// … and here tokens are refused.
const SKEW_FAILURE: TimeDelta = TimeDelta::minutes(5);

/// The checks in their order.
pub(super) const STEPS: [&str; 4] = ["dns", "tcp", "tls", "clock"];

/// Whose place it is: the same trouble has another name, and another exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Vendor,
    Receiver,
}

impl Side {
    fn name_not_resolved(self) -> Cause {
        match self {
            Self::Vendor => Cause::NameNotResolved,
            Self::Receiver => Cause::ReceiverNameNotResolved,
        }
    }

    fn unreachable(self) -> Cause {
        match self {
            Self::Vendor => Cause::ConnectionRefused,
            Self::Receiver => Cause::ReceiverUnreachable,
        }
    }

    fn proxy(self) -> Cause {
        match self {
            Self::Vendor => Cause::ProxyRefused,
            Self::Receiver => Cause::ReceiverUnreachable,
        }
    }

    fn tls(self, trouble: Trouble) -> Cause {
        match (self, trouble) {
            (Self::Vendor, Trouble::Untrusted) => Cause::TlsIntercepted,
            (Self::Vendor, Trouble::OutOfTime) => Cause::TlsExpired,
            (Self::Vendor, Trouble::WrongName) => Cause::TlsWrongName,
            (Self::Vendor, Trouble::Other) => Cause::TlsFailed,
            (Self::Receiver, Trouble::Untrusted) => Cause::ReceiverTlsUntrusted,
            (Self::Receiver, Trouble::OutOfTime) => Cause::ReceiverTlsExpired,
            (Self::Receiver, Trouble::WrongName) => Cause::ReceiverTlsWrongName,
            (Self::Receiver, Trouble::Other) => Cause::ReceiverTlsFailed,
        }
    }
}

/// Host and port a connection is made to.
#[derive(Debug, Clone)]
struct Hop {
    host: String,
    port: u16,
    /// It is a proxy, of which `CONNECT` is asked.
    is_proxy: bool,
    /// What the system's settings give the proxy to know us by. Never shown.
    authorization: Option<HeaderValue>,
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.is_proxy { "proxy " } else { "" };
        write!(f, "{what}{}:{}", self.host, self.port)
    }
}

/// Looks at the way to a place. Ends with the first step that fails; the rest is skipped.
pub(super) async fn look(endpoint: &Endpoint, side: Side, clock: &dyn Clock) -> Vec<Check> {
    let mut checks = Vec::new();
    let outcome = walk(endpoint, side, clock, &mut checks).await;
    if let Err(failed) = outcome {
        checks.push(failed);
    }
    let broken_at = checks
        .last()
        .filter(|check| check.stops())
        .map(|check| check.check);
    if let Some(broken_at) = broken_at {
        let expected = STEPS.iter().filter(|step| match **step {
            "tls" => endpoint.tls.is_some(),
            "clock" => endpoint.http && side == Side::Vendor,
            _ => true,
        });
        for step in expected.skip_while(|step| **step != broken_at).skip(1) {
            checks.push(Check::skipped(step, format!("{broken_at} failed")));
        }
    }
    for check in &mut checks {
        check.facts.insert("endpoint", endpoint.name.into());
        check.facts.insert(
            "host",
            format!("{}:{}", endpoint.host, endpoint.port).into(),
        );
    }
    checks
}

async fn walk(
    endpoint: &Endpoint,
    side: Side,
    clock: &dyn Clock,
    checks: &mut Vec<Check>,
) -> Result<(), Check> {
    let hop = hop(endpoint);
    let addresses = resolve(&hop, side).await?;
    checks.push(Check::ok("dns", resolved(endpoint, &hop, &addresses)));
    let mut stream = connect(&hop, &addresses, side).await?;
    let tunnel = endpoint.tls.is_some() || !endpoint.http;
    if hop.is_proxy && tunnel {
        open_tunnel(&mut stream, endpoint, &hop, side).await?;
        checks.push(Check::ok(
            "tcp",
            format!("{hop} lets the connection through"),
        ));
    } else {
        checks.push(Check::ok("tcp", format!("connected to {hop}")));
    }
    if let Some(tls) = &endpoint.tls {
        let (stream, seen) = shake_hands(stream, tls, endpoint, side).await?;
        checks.push(seen);
        if endpoint.http && side == Side::Vendor {
            checks.push(time(stream, endpoint, clock).await);
        }
    } else if endpoint.http && side == Side::Vendor && !hop.is_proxy {
        checks.push(time(stream, endpoint, clock).await);
    }
    Ok(())
}

fn hop(endpoint: &Endpoint) -> Hop {
    let direct = Hop {
        host: endpoint.host.clone(),
        port: endpoint.port,
        is_proxy: false,
        authorization: None,
    };
    let scheme = if endpoint.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let target = format!("{scheme}://{}/", authority(endpoint));
    let (uri, authorization) = match &endpoint.proxy {
        Way::Direct => return direct,
        Way::System => {
            let intercept = target
                .parse()
                .ok()
                .and_then(|target| Matcher::from_system().intercept(&target));
            match intercept {
                Some(proxy) => (proxy.uri().clone(), proxy.basic_auth().cloned()),
                None => return direct,
            }
        }
        Way::Proxy(url) => match url.parse() {
            Ok(uri) => (uri, None),
            Err(_) => return direct,
        },
    };
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    Hop {
        host: uri.host().unwrap_or_default().to_owned(),
        port,
        is_proxy: true,
        authorization,
    }
}

/// Host and port as they stand in a request; an IPv6 address in brackets.
fn authority(endpoint: &Endpoint) -> String {
    if endpoint.host.contains(':') {
        format!("[{}]:{}", endpoint.host, endpoint.port)
    } else {
        format!("{}:{}", endpoint.host, endpoint.port)
    }
}

async fn resolve(hop: &Hop, side: Side) -> Result<Vec<SocketAddr>, Check> {
    let failed = |why: String| {
        Check::failed(
            "dns",
            side.name_not_resolved(),
            format!("{}: {why}", hop.host),
        )
    };
    let host = hop.host.trim_start_matches('[').trim_end_matches(']');
    match timeout(WAIT, tokio::net::lookup_host((host, hop.port))).await {
        Err(_) => Err(failed(format!(
            "no answer from DNS within {} seconds",
            WAIT.as_secs()
        ))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(found)) => {
            let found: Vec<SocketAddr> = found.collect();
            if found.is_empty() {
                return Err(failed("the name has no address".to_owned()));
            }
            Ok(found)
        }
    }
}

fn resolved(endpoint: &Endpoint, hop: &Hop, addresses: &[SocketAddr]) -> String {
    let ips: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
    let ips = ips.join(", ");
    if hop.is_proxy {
        format!(
            "proxy {} is {ips}; {} is resolved behind it",
            hop.host, endpoint.host
        )
    } else {
        format!("{} is {ips}", hop.host)
    }
}

async fn connect(hop: &Hop, addresses: &[SocketAddr], side: Side) -> Result<TcpStream, Check> {
    let failed = |why: String| Check::failed("tcp", side.unreachable(), format!("{hop}: {why}"));
    match timeout(WAIT, TcpStream::connect(addresses)).await {
        Err(_) => Err(failed(format!(
            "no connection within {} seconds: a firewall drops it, or the host is down",
            WAIT.as_secs()
        ))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(stream)) => Ok(stream),
    }
}

async fn open_tunnel(
    stream: &mut TcpStream,
    endpoint: &Endpoint,
    hop: &Hop,
    side: Side,
) -> Result<(), Check> {
    let target = authority(endpoint);
    let failed = |why: String| {
        Check::failed(
            "tcp",
            side.proxy(),
            format!("{hop}: CONNECT {target}: {why}"),
        )
    };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(value) = &hop.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let head = timeout(WAIT, exchange(stream, &request)).await;
    let head = head
        .map_err(|_| failed("no answer".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let line = status_line(&head);
    let status = line.split_whitespace().nth(1).unwrap_or_default();
    match status {
        status if status.starts_with('2') => Ok(()),
        "407" => Err(failed(format!(
            "it wants a user name and a password ({line})"
        ))),
        _ => Err(failed(format!("answered {line:?}"))),
    }
}

async fn shake_hands(
    stream: TcpStream,
    tls: &Tls,
    endpoint: &Endpoint,
    side: Side,
) -> Result<(impl AsyncRead + AsyncWrite + Unpin + use<>, Check), Check> {
    let host = &endpoint.host;
    match timeout(WAIT, tls::handshake(stream, tls)).await {
        Ok(Ok((stream, shown))) => {
            let issuer = shown.issuer.clone();
            let issuer = issuer.unwrap_or_else(|| "an unreadable issuer".to_owned());
            let what = format!(
                "the certificate of {host} is from {issuer}{}",
                pinned(&shown)
            );
            let seen = Check::ok("tls", what).fact("issuer", issuer);
            Ok((stream, seen))
        }
        Ok(Err(refused)) => Err(not_shaken(&refused, tls, host, side)),
        Err(_) => Err(Check::failed(
            "tls",
            side.tls(Trouble::Other),
            format!(
                "{host}: the handshake did not end within {} seconds",
                WAIT.as_secs()
            ),
        )),
    }
}

/// The key that was shown, in the form in which it can be pinned.
fn pinned(shown: &Shown) -> String {
    let pin = shown.pin.as_ref();
    pin.map_or_else(String::new, |pin| format!("; pin_sha256 of its key: {pin}"))
}

fn not_shaken(refused: &Refused, tls: &Tls, host: &str, side: Side) -> Check {
    let shown = &refused.shown;
    let mut seen = match (&shown.issuer, refused.trouble) {
        (Some(issuer), Trouble::Untrusted) => {
            format!("the certificate shown for {host} is from {issuer}, which is not trusted here")
        }
        (Some(issuer), _) => format!("{host}: {} (issuer: {issuer})", refused.words),
        (None, _) => format!("{host}: {}", refused.words),
    };
    seen += &pinned(shown);
    let mut check = Check::failed("tls", side.tls(refused.trouble), seen);
    if let Some(issuer) = &shown.issuer {
        check = check.fact("issuer", issuer.clone());
    }
    if refused.trouble == Trouble::WrongName {
        check = check.fact("expected_name", tls.name.clone());
    }
    check
}

/// Asks for the time: a HEAD of the root without any credential; every server dates its answers,
/// refusals included.
async fn time<S>(mut stream: S, endpoint: &Endpoint, clock: &dyn Clock) -> Check
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "HEAD / HTTP/1.1\r\nHost: {}\r\nUser-Agent: exfilwatch/{}\r\nConnection: close\r\n\r\n",
        authority(endpoint),
        env!("CARGO_PKG_VERSION")
    );
    let head = timeout(WAIT, exchange(&mut stream, request.as_bytes())).await;
    let now = clock.now();
    let unanswered = |why: String| {
        Check::failed(
            "clock",
            Cause::VendorNoAnswer,
            format!("{}: {why}", endpoint.host),
        )
    };
    let head = match head {
        Err(_) => return unanswered("no answer to HTTP".to_owned()),
        Ok(Err(error)) => return unanswered(error.to_string()),
        Ok(Ok(head)) => head,
    };
    match date(&head) {
        Some(date) => judged(date - now),
        None => Check::ok("clock", "the answer bears no date: not compared"),
    }
}

fn judged(ahead: TimeDelta) -> Check {
    let seconds = ahead.num_seconds();
    let seen = match seconds {
        0 => "this machine's clock agrees with the vendor's".to_owned(),
        1.. => format!("this machine's clock is {seconds} s behind the vendor's"),
        _ => format!(
            "this machine's clock is {} s ahead of the vendor's",
            -seconds
        ),
    };
    let check = if ahead.abs() > SKEW_FAILURE {
        Check::failed("clock", Cause::ClockSkew, seen)
    } else if ahead.abs() > SKEW_WARNING {
        Check::warning("clock", Cause::ClockSkew, seen)
    } else {
        Check::ok("clock", seen)
    };
    check.fact("skew_seconds", seconds)
}

/// Sends a request and reads the head of the answer.
async fn exchange<S>(stream: &mut S, request: &[u8]) -> io::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let mut piece = [0; 1_024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    if head.is_empty() {
        let why = "the connection was closed without an answer";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    Ok(head)
}

/// The first line, without what could move a cursor.
fn status_line(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn date(head: &[u8]) -> Option<DateTime<Utc>> {
    String::from_utf8_lossy(head).lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let date = name.trim().eq_ignore_ascii_case("date");
        date.then(|| DateTime::parse_from_rfc2822(value.trim()).ok())?
            .map(|date| date.to_utc())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_model::diagnosis::Verdict;

    #[test]
    fn a_minute_is_a_warning_and_five_are_a_failure_in_either_direction() {
        for (seconds, verdict) in [
            (0, Verdict::Ok),
            (60, Verdict::Ok),
            (-61, Verdict::Warning),
            (300, Verdict::Warning),
            (301, Verdict::Failed),
            (-600, Verdict::Failed),
        ] {
            assert_eq!(
                judged(TimeDelta::seconds(seconds)).verdict,
                verdict,
                "{seconds}"
            );
        }
    }

    #[test]
    fn the_date_is_found_in_any_case() {
        let head = b"HTTP/1.1 404 Not Found\r\ndate: Sat, 23 May 2026 12:00:00 GMT\r\n\r\n";
        assert_eq!(
            date(head).unwrap().to_rfc3339(),
            "2026-05-23T12:00:00+00:00"
        );
        assert_eq!(date(b"HTTP/1.1 200 OK\r\nDate: soon\r\n\r\n"), None);
        assert_eq!(
            status_line(b"HTTP/1.1 407 x\x1b[2J\r\n"),
            "HTTP/1.1 407 x[2J"
        );
    }
}

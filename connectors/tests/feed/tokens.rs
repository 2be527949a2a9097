//! The token endpoint: each AADSTS number, rotation, clocks that differ, long runs.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::options::{AssertionStyle, CertificateOptions, Office365Options};
use exfilwatch_model::Clock;
use exfilwatch_simulator::credentials::MicrosoftApp;
use exfilwatch_simulator::{Credentials, Endpoint, Fault, FaultRule};

use crate::scene::{
    caller, calls, credentials, fault, help, kind, minutes, no_fault, now, options, publish,
    script, seen, stage,
};
use crate::support::{InProcess, SharedClock, Stage, at};

async fn token_error(aadsts: u32, decision: &str, word: &str) {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    fault(
        &stage,
        Endpoint::MicrosoftToken,
        Fault::TokenError { aadsts },
    );
    caller.poll().await;
    let (_, error) = &caller.errors[0];
    assert_eq!(kind(error), decision, "{error:?}");
    let told = error.to_string();
    if decision == "auth" {
        assert!(told.contains(&format!("AADSTS{aadsts}: ")), "{told}");
        assert!(told.contains("Trace ID: "), "{told}");
    }
    assert!(help(error).contains(word), "{}", help(error));
    assert!(stage.simulator.faults().calls(Endpoint::MicrosoftToken) <= 2);
    // It is put right, and the stream goes on with nothing lost.
    no_fault(&stage);
    stage.pass(minutes(15)).await;
    caller.errors.clear();
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(seen(&caller, &["a"]), [1]);
}

macro_rules! token_errors {
    ($(fn $name:ident() = $number:literal, $decision:literal, $word:literal;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            token_error($number, $decision, $word).await;
        }
    )*};
}

token_errors! {
    fn token_error_7000215() = 7_000_215, "auth", "not its id";
    fn token_error_7000222() = 7_000_222, "auth", "expired";
    fn token_error_700016() = 700_016, "auth", "client_id";
    fn token_error_90002() = 90_002, "auth", "tenant_id";
    fn token_error_700027() = 700_027, "auth", "upload the certificate";
    fn token_error_700024() = 700_024, "auth", "NTP";
    fn token_error_65001() = 65_001, "auth", "consent";
    fn token_error_900382() = 900_382, "auth", "set cloud";
    fn token_error_50196() = 50_196, "retry", "";
    fn token_error_90033() = 90_033, "retry", "";
    fn token_error_of_an_unknown_number() = 123_456, "auth", "registration";
}

#[tokio::test(start_paused = true)]
async fn token_error_without_json_passes() {
    for body in [
        Fault::HtmlPage { status: 403 },
        Fault::HtmlPage { status: 200 },
        Fault::Outage,
        Fault::Reset,
        Fault::Truncate { bytes: 9 },
    ] {
        let stage = stage(|_| ());
        let mut caller = caller(&stage);
        fault(&stage, Endpoint::MicrosoftToken, body.clone());
        caller.poll().await;
        assert_eq!(kind(&caller.errors[0].1), "retry", "{body:?}");
        no_fault(&stage);
        caller.errors.clear();
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    }
}

#[tokio::test(start_paused = true)]
async fn token_endpoint_503_for_10_min() {
    let stage = stage(|_| ());
    let down = FaultRule::new(Endpoint::MicrosoftToken, Fault::Outage);
    script(&stage, vec![down.between(now(), now() + minutes(10))]);
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    for _ in 0..5 {
        caller.poll().await;
        stage.pass(minutes(2)).await;
    }
    assert!(caller.errors.iter().all(|(_, e)| kind(e) == "retry"));
    assert_eq!((caller.errors.len(), seen(&caller, &["a"])), (5, vec![0]));
    stage.pass(minutes(1)).await;
    caller.poll().await;
    assert_eq!((caller.errors.len(), seen(&caller, &["a"])), (5, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn run_longer_than_token() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    for _ in 0..20 {
        caller.poll().await;
        stage.pass(minutes(15)).await;
    }
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    let tokens = stage.simulator.microsoft().tokens_issued();
    assert!((5..=7).contains(&tokens), "{tokens} tokens in five hours");
}

#[tokio::test(start_paused = true)]
async fn a_secret_replaced_while_it_is_refused_is_read_once_more() {
    let mut stage = stage(|_| ());
    stage.simulator.microsoft().set_secret("the new one");
    // The old one at the start and at the request, the new one when it is read again.
    let reads_left = Arc::new(AtomicUsize::new(usize::MAX));
    let left = reads_left.clone();
    let old = credentials().microsoft.client_secret;
    stage.surroundings.environment = Arc::new(move |_: &str| {
        let old_one = left.load(Ordering::SeqCst) > 0;
        left.fetch_sub(usize::from(old_one), Ordering::SeqCst);
        Some(if old_one {
            old.clone()
        } else {
            "the new one".to_owned()
        })
    });
    let mut caller = caller(&stage);
    reads_left.store(1, Ordering::SeqCst);
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(calls(&stage, "oauth2/v2.0/token").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_that_was_not_replaced_is_not_sent_twice() {
    let stage = stage(|_| ());
    stage.simulator.microsoft().set_secret("another");
    let mut caller = caller(&stage);
    caller.poll().await;
    assert_eq!(kind(&caller.errors[0].1), "auth");
    assert_eq!(calls(&stage, "oauth2/v2.0/token").len(), 1);
}

fn write(path: &Path, app: &MicrosoftApp) {
    let mut file = std::fs::File::create(path).unwrap();
    write!(file, "{}\n{}", app.certificate_pem, app.private_key_pem).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn by_certificate(stage: &Stage, file: &Path, assertion: AssertionStyle) -> Office365Options {
    Office365Options {
        client_secret: None,
        certificate: Some(CertificateOptions {
            file: file.to_owned(),
            key_file: None,
            assertion,
        }),
        ..options(stage)
    }
}

/// Replaces the certificate's file while the first token request is under way.
#[derive(Debug)]
struct Swapping {
    inner: Arc<InProcess>,
    swapped: AtomicUsize,
    file: std::path::PathBuf,
    newer: MicrosoftApp,
}

#[async_trait]
impl Transport for Swapping {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        if self.swapped.fetch_add(1, Ordering::SeqCst) == 0 {
            write(&self.file, &self.newer);
        }
        self.inner.send(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_replaced_while_it_is_refused_is_read_once_more_and_later_at_each_request() {
    let mut stage = stage(|_| ());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.pem");
    write(&file, &credentials().microsoft);
    let newer = Credentials::generate().unwrap().microsoft;
    stage.simulator.microsoft().set_certificate(&newer);
    stage.surroundings.transport = Some(Arc::new(Swapping {
        inner: stage.transport.clone(),
        swapped: AtomicUsize::new(0),
        file: file.clone(),
        newer,
    }));
    let mut caller = stage.office365(by_certificate(&stage, &file, AssertionStyle::Ps256));
    caller.start(now() - minutes(60));
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(calls(&stage, "oauth2/v2.0/token").len(), 2);
    // Back to the first one: the next token is asked for with what the file holds then.
    stage
        .simulator
        .microsoft()
        .set_certificate(&credentials().microsoft);
    write(&file, &credentials().microsoft);
    stage.pass(minutes(90)).await;
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(calls(&stage, "oauth2/v2.0/token").len(), 3);
}

/// A clock that is wrong by so much.
#[derive(Debug)]
struct Wrong(SharedClock, TimeDelta);

impl Clock for Wrong {
    fn now(&self) -> DateTime<Utc> {
        self.0.now() + self.1
    }

    fn real(&self, wait: Duration) -> Duration {
        self.0.real(wait)
    }
}

/// The ends of a listing's window.
fn window(url: &str) -> (DateTime<Utc>, DateTime<Utc>) {
    let url = url::Url::parse(url).unwrap();
    let value = |name: &str| {
        let (_, value) = url.query_pairs().find(|(key, _)| key == name).unwrap();
        at(&format!("{value}Z"))
    };
    (value("startTime"), value("endTime"))
}

#[tokio::test(start_paused = true)]
async fn clock_skew_10min_is_corrected_by_the_servers_date() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.pem");
    write(&file, &credentials().microsoft);
    // Five minutes either way are allowed for; an assertion lives from a minute ago for ten.
    for (skew, asked, style) in [
        (10, 2, AssertionStyle::Ps256),
        (-10, 1, AssertionStyle::Ps256),
        (-20, 2, AssertionStyle::Ps256),
        (10, 2, AssertionStyle::Rs256),
        (-20, 2, AssertionStyle::Rs256),
    ] {
        let mut stage = stage(|_| ());
        let clock = SharedClock(stage.simulator.clock().clone());
        stage.surroundings.clock = Arc::new(Wrong(clock, minutes(skew)));
        let mut caller = stage.office365(by_certificate(&stage, &file, style));
        // A week and more back by our wrong clock: the clamp must be cut by the right one.
        caller.start(stage.surroundings.clock.now() - TimeDelta::days(7));
        publish(&stage, "1$a", now() - minutes(20), &["a"]);
        publish(&stage, "2$b", now() - minutes(2), &["b"]);
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{skew}: {:?}", caller.errors);
        let tokens = calls(&stage, "oauth2/v2.0/token").len();
        assert_eq!(
            tokens, asked,
            "{skew}: refused by AADSTS700024 once, then taken"
        );
        assert_eq!(seen(&caller, &["a", "b"]), [1, 1], "{skew}");
        let right_now = stage.simulator.clock().now();
        for url in calls(&stage, "subscriptions/content") {
            let (start, end) = window(&url);
            assert!(
                start >= right_now - TimeDelta::days(7) && end <= right_now,
                "{url}"
            );
        }
        // A clock that is slow asks for more than there is, and is told so.
        let asked_too_far = caller.gaps.iter().map(|gap| gap.window.length()).sum();
        let most = minutes((-skew - 5).max(0) + 10);
        assert!(
            TimeDelta::zero() <= asked_too_far && asked_too_far < most,
            "{skew}: {:?}",
            caller.gaps
        );
    }
}

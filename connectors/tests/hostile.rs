//! Over real connections: a server that points elsewhere, and what must not be seen anywhere.
//!
//! A decoy listens beside the simulator. Whatever URLs and redirects the server hands out, nobody
//! may connect to it; and no secret or token may stand in a log line, an error or a `Debug`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use exfilwatch_connectors::options::{GoogleWorkspaceOptions, Office365Options};
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{StreamId, Window};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, Running, Simulator, SimulatorOptions, World,
    WorldOptions,
};
use futures::StreamExt;
use support::{Caller, RATE, Stage, at};
use tokio::net::{TcpListener, TcpStream};

fn world() -> WorldOptions {
    let from = at("2026-03-03T06:00:00Z");
    WorldOptions {
        records_per_day: 200,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(5, from, from + TimeDelta::days(1))
    }
}

/// The simulator on loopback, connectors over real HTTP, and a decoy that counts who connects.
struct Scene {
    stage: Stage,
    running: Running,
    decoy: u16,
    caught: Arc<AtomicUsize>,
}

impl Scene {
    async fn new() -> Self {
        let mut options = SimulatorOptions {
            start: Some(world().until),
            rate: RATE,
            ..SimulatorOptions::default()
        };
        options.microsoft.subscribed = true;
        let simulator = Simulator::new(World::invent(world()), options).unwrap();
        let running = simulator.clone().start().await.unwrap();
        let mut stage = Stage::around(simulator);
        stage.surroundings.transport = None;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let decoy = listener.local_addr().unwrap().port();
        let caught = Arc::new(AtomicUsize::new(0));
        let count = caught.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            stage,
            running,
            decoy,
            caught,
        }
    }

    fn office365(&self) -> Caller {
        let root = self.running.microsoft_url.parse().ok();
        self.stage.office365(Office365Options {
            api_root: root.clone(),
            login_root: root,
            ..self.stage.office365_options()
        })
    }

    fn google(&self) -> Caller {
        let root = &self.running.google_url;
        self.stage.google(GoogleWorkspaceOptions {
            api_root: root.parse().ok(),
            token_uri: format!("{root}/token").parse().ok(),
            ..self.stage.google_options()
        })
    }

    fn answer(&self, endpoint: Endpoint, status: u16, body: &str, headers: &[(&str, String)]) {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let body = body.to_owned();
        let fault = Fault::Status {
            status,
            body,
            headers,
        };
        self.stage.faults(FaultScript {
            seed: 1,
            rules: vec![FaultRule::new(endpoint, fault)],
        });
    }

    fn hostile_urls(&self) -> Vec<String> {
        let tenant = self.stage.office365_options().tenant_id.unwrap();
        let good = format!("api/v1.0/{tenant}/activity/feed/audit/1$x");
        let own = &self.running.microsoft_url;
        let host = own.strip_prefix("http://").unwrap();
        let (decoy, port) = (format!("127.0.0.1:{}", self.decoy), self.decoy);
        let mut urls: Vec<String> = [
            format!("http://{decoy}/{good}"),
            format!("https://{decoy}/{good}"),
            format!("http://localhost:{port}/{good}"),
            format!("http://[::ffff:127.0.0.1]:{port}/{good}"),
            format!("http://2130706433:{port}/{good}"),
            format!("http://0x7f.1:{port}/{good}"),
            format!("http://{host}@{decoy}/{good}"),
            format!("http://{host}:x@{decoy}/{good}"),
            format!("http://manage.office.com@{decoy}/{good}"),
            format!("http://{decoy}\\@{host}/{good}"),
            format!("http://{decoy}#{own}/{good}"),
            format!("http://{decoy}?{own}/{good}"),
            format!("http://{decoy}/{good}?x={own}"),
            format!("//{decoy}/{good}"),
            format!("http:{decoy}/{good}"),
            format!("http:///{decoy}/{good}"),
            format!("ftp://{decoy}/{good}"),
            format!("ws://{decoy}/{good}"),
            format!("HTTP://{decoy}/{good}"),
            format!(" http://{decoy}/{good}"),
        ]
        .into();
        urls.extend([
            format!("{own}/{good}/../../../../../../../x"),
            format!("{own}//{decoy}/{good}"),
            format!("{own}/redirect?to=http://{decoy}/{good}"),
            format!("{own}.evil.test/{good}"),
            format!("{own}/api/v1.0/{}/activity/feed/audit/1", uuid::Uuid::nil()),
        ]);
        urls
    }
}

impl Scene {
    /// Nobody has come to the decoy; and the decoy does notice when somebody comes.
    async fn nobody_came(&self) {
        assert_eq!(self.caught.load(Ordering::SeqCst), 0);
        let _ours = TcpStream::connect(("127.0.0.1", self.decoy)).await.unwrap();
        while self.caught.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn fetch_error(connector: &dyn Connector, caller: &Caller) -> FetchError {
    let item = caller.open.values().next().expect("an item");
    match connector.fetch(item).await {
        Err(error) => error,
        Ok(mut pages) => pages.next().await.unwrap().expect_err("a refusal"),
    }
}

#[tokio::test]
async fn urls_of_a_hostile_server_are_not_followed() {
    let scene = Scene::new().await;
    let stream: StreamId = "contoso/office365/Audit.General".parse().unwrap();
    let urls = scene.hostile_urls();
    for url in &urls {
        let mut caller = scene.office365();
        caller.start(world().from);
        let item = serde_json::json!([{
            "contentType": "Audit.General", "contentId": "1$x", "contentUri": url,
            "contentCreated": "2026-03-04T00:00:00.000Z",
            "contentExpiration": "2026-03-11T00:00:00.000Z",
        }]);
        scene.answer(Endpoint::ContentList, 200, &item.to_string(), &[]);
        caller.list(&stream).await;
        let error = fetch_error(&*caller.connector.clone(), &caller).await;
        assert!(
            matches!(error, FetchError::Poison { .. }),
            "{url}: {error:?}"
        );
        if url.is_ascii() && !url.starts_with(' ') {
            scene.answer(
                Endpoint::ContentList,
                200,
                "[]",
                &[("NextPageUri", url.clone())],
            );
            let cursor = caller.cursors[&stream].clone();
            let cursor = caller.connector.first_cursor(
                &stream,
                Window::new(
                    cursor.covered_until - TimeDelta::hours(1),
                    cursor.covered_until,
                )
                .unwrap(),
            );
            let error = caller
                .connector
                .list(&stream, &cursor)
                .await
                .expect_err(url);
            assert!(
                matches!(error, FetchError::Retry { .. }),
                "{url}: {error:?}"
            );
        }
    }
    scene.nobody_came().await;
}

#[tokio::test]
async fn redirects_are_not_followed_by_any_call() {
    let scene = Scene::new().await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://127.0.0.1:{}/x", scene.decoy);
        for endpoint in [
            Endpoint::MicrosoftToken,
            Endpoint::Subscriptions,
            Endpoint::ContentList,
        ] {
            let mut caller = scene.office365();
            caller.start(world().from);
            scene.answer(endpoint, status, "", &[("Location", location.clone())]);
            caller.poll().await;
            let (_, error) = caller.errors.first().expect("an error");
            assert!(
                matches!(error, FetchError::Retry { .. }),
                "{endpoint:?} {status}: {error:?}"
            );
        }
        for endpoint in [Endpoint::GoogleToken, Endpoint::Activities] {
            let mut caller = scene.google();
            caller.start(world().until - TimeDelta::minutes(30));
            scene.answer(endpoint, status, "", &[("Location", location.clone())]);
            caller.poll().await;
            assert!(
                caller.seen.is_empty() && !caller.open.is_empty(),
                "{endpoint:?} {status}"
            );
        }
    }
    scene.nobody_came().await;
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_and_no_token_stands_in_a_log_an_error_or_a_debug_form() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let scene = Scene::new().await;
    let mut shown = String::new();
    let faults = [
        Fault::Outage,
        Fault::HtmlPage { status: 403 },
        Fault::Throttle {
            retry_after_seconds: None,
        },
        Fault::Reset,
        Fault::Truncate { bytes: 20 },
        Fault::Status {
            status: 401,
            body: String::new(),
            headers: vec![],
        },
    ];
    for endpoint in [
        Endpoint::MicrosoftToken,
        Endpoint::ContentList,
        Endpoint::Blob,
        Endpoint::GoogleToken,
        Endpoint::Activities,
    ] {
        for fault in &faults {
            let mut callers = [scene.office365(), scene.google()];
            let rule = FaultRule::new(endpoint, fault.clone()).calls(1, 9);
            scene.stage.faults(FaultScript {
                seed: 1,
                rules: vec![rule],
            });
            for caller in &mut callers {
                caller.start(scene.stage.surroundings.clock.now() - TimeDelta::hours(2));
                caller.poll().await;
                let errors = &caller.errors;
                write!(
                    shown,
                    "{errors:?} {:?} {:?}",
                    caller.connector, caller.cursors
                )
                .unwrap();
                for (_, error) in errors {
                    write!(shown, "{error}").unwrap();
                }
            }
        }
    }
    let credentials = scene.stage.simulator.credentials();
    let key_line = credentials.google.private_key_pem.lines().nth(5).unwrap();
    let shown_and_logged = shown + &String::from_utf8_lossy(&lines.0.lock().unwrap());
    assert!(shown_and_logged.len() > 10_000, "nothing was logged");
    for secret in [
        credentials.microsoft.client_secret.as_str(),
        key_line,
        "eyJ",
        "Bearer ey",
        "access_token\":",
        "client_assertion=",
        "assertion=e",
    ] {
        assert!(!shown_and_logged.contains(secret), "{secret:.6}… was shown");
    }
}

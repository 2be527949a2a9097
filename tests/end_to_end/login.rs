//! `auth login` on the real binary: the browser comes back by itself, or its address is pasted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_simulator::{SimulatorOptions, WorldOptions};

use crate::scene::Scene;

async fn scene() -> Scene {
    let start: DateTime<Utc> = "2026-05-04T08:00:00Z".parse().unwrap();
    let world = WorldOptions {
        records_per_day: 50,
        ..WorldOptions::new(2, start, start + TimeDelta::hours(2))
    };
    let scene = Scene::new(world, SimulatorOptions::default()).await;
    let app = &scene.services.simulator.credentials().google;
    let (folder, url) = (scene.folder.path().display(), &scene.services.google_url);
    scene.write("google.secret", &app.installed_client_secret);
    let text = format!(
        "[tenants.contoso]\ninternal_domains = [\"contoso.example\"]\n\n\
         [connectors.google_workspace.contoso]\ntenant = \"contoso\"\n\
         api_root = \"{url}\"\ntoken_uri = \"{url}/token\"\nauth_uri = \"{url}/o/oauth2/v2/auth\"\n\
         refresh_token = {{ client_id = \"{}\", client_secret = {{ file = \"{folder}/google.secret\" }}, \
         token = {{ file = \"{folder}/google.token\" }} }}\n",
        app.installed_client_id
    );
    scene.write("exfilwatch.toml", &text);
    scene
}

/// Starts the login; gives the address to open.
fn start(scene: &Scene) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut command = scene.command(&["auth", "login", "contoso", "--output", "ndjson"]);
    command.args(["--timeout", "120"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = said["open"]["url"].as_str().unwrap().to_owned();
    (child, lines, url)
}

/// A GET as a browser makes it: the head and body of the answer.
fn get(url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Where Google sends the browser.
fn location(answer: &str) -> String {
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    line.unwrap_or_else(|| panic!("no redirect: {answer}"))
        .to_owned()
}

fn end(mut child: Child, mut lines: BufReader<std::process::ChildStdout>) -> (Option<i32>, String) {
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    (code, rest + &errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_by_redirect_and_one_by_pasted_address_keep_a_private_token() {
    let scene = scene().await;
    let file = scene.path("google.token");
    let private = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
    tokio::task::block_in_place(|| {
        let (child, lines, url) = start(&scene);
        let back = location(&get(&url));
        // Somebody else's page asks first: it is told off, and the login waits on.
        let port = back.split("/?").next().unwrap();
        assert!(get(&format!("{port}/?code=forged&state=guessed")).starts_with("HTTP/1.1 400"));
        let page = get(&back);
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("close this page"));
        let (code, output) = end(child, lines);
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains("google.token"), "{output}");
        assert_eq!(private(), 0o600);
        let first = std::fs::read_to_string(&file).unwrap();
        assert!(!output.contains(first.trim()));

        let (mut child, lines, url) = start(&scene);
        let back = location(&get(&url));
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "not an address\n{back}").unwrap();
        let (code, output) = end(child, lines);
        assert_eq!(code, Some(0), "{output}");
        assert_eq!(private(), 0o600);
        assert_ne!(std::fs::read_to_string(&file).unwrap(), first);
    });
    let output = scene.output(&["auth", "logout", "contoso"]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(!file.exists());
    let unknown = scene.output(&["auth", "login", "fabrikam"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(words.contains("google_workspace/contoso"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_nobody_answers_ends_with_its_limit() {
    let scene = scene().await;
    let output = scene
        .output(&["auth", "login", "contoso", "--timeout", "1"])
        .await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("within 1 seconds"), "{words}");
    assert!(!scene.path("google.token").exists());
}

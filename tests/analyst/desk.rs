//! A folder with a configuration, and the built binary.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where an analyst sits.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// An archive and a file for findings; the tenant's connector finds nobody to talk to.
    pub(crate) fn new() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let folder = desk.folder.path().display();
        fs::write(desk.path("secret"), "secret").unwrap();
        let secret = desk.path("secret");
        let mut permissions = fs::metadata(&secret).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        fs::set_permissions(&secret, permissions).unwrap();
        fs::write(
            desk.path("exfilwatch.toml"),
            format!(
                "[state]\nfolder = \"{folder}/state\"\n\n\
                 [tenants.contoso]\ninternal_domains = [\"contoso.example\"]\n\n\
                 [connectors.office365.contoso]\ntenant = \"contoso\"\n\
                 tenant_id = \"01234567-89ab-cdef-0123-456789abcdef\"\n\
                 client_id = \"01234567-89ab-cdef-0123-456789abcdef\"\n\
                 client_secret = {{ file = \"{folder}/secret\" }}\n\
                 api_root = \"http://127.0.0.1:9\"\nlogin_root = \"http://127.0.0.1:9\"\n\
                 graph_root = \"http://127.0.0.1:9\"\n\n\
                 [emitters.archive.main]\nfolder = \"{folder}/archive\"\ndays_max = 3650\n\n\
                 [emitters.ndjson.findings]\npath = \"{folder}/findings.ndjson\"\n\n\
                 [emitters.ndjson.internal]\npath = \"{folder}/internal.ndjson\"\n\
                 send = [\"internal\"]\n"
            ),
        )
        .unwrap();
        desk
    }

    /// Adds to the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let path = self.path("exfilwatch.toml");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(path, before + more).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the binary with this desk's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exfilwatch"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("exfilwatch.toml"))
            .stdin(Stdio::null())
            .env_remove("EXFILWATCH_CONFIG");
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    pub(crate) fn said(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON document a command answers with.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--output", "json"]].concat();
        serde_json::from_str(&self.said(&arguments)).unwrap()
    }

    /// Writes records to a file and gives its name.
    pub(crate) fn file(&self, name: &str, records: &[Value]) -> String {
        let lines = records.iter().fold(String::new(), |text, record| {
            text + &record.to_string() + "\n"
        });
        fs::write(self.path(name), lines).unwrap();
        self.path(name).display().to_string()
    }

    /// Forwards records as those of the tenant.
    pub(crate) fn forward(&self, name: &str, records: &[Value]) {
        let file = self.file(name, records);
        self.said(&["forward", "--tenant", "contoso", &file]);
    }

    /// `run`, up until it is dropped, and its control socket there.
    pub(crate) fn run(&self) -> Running {
        let log = fs::File::create(self.path("run.log")).unwrap();
        let mut command = self.command(&["run"]);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let running = Running(child);
        let socket = self.path("state/control.sock");
        until(
            "the control socket",
            || socket.exists(),
            || fs::read_to_string(self.path("run.log")).unwrap_or_default(),
        );
        running
    }
}

/// A process that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool, describe: impl Fn() -> String) {
    let start = Instant::now();
    while !holds() {
        let waited = start.elapsed();
        assert!(waited < PATIENCE, "in vain for {what}: {}", describe());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An Office 365 record with the members every one has.
pub(crate) fn m365(id: u64, time: &str, operation: &str, members: &Value) -> Value {
    let mut record = json!({
        "CreationTime": time.trim_end_matches('Z'),
        "Id": format!("00000000-0000-4000-8000-{id:012}"),
        "Operation": operation,
        "OrganizationId": "01234567-89ab-cdef-0123-456789abcdef",
        "OrganizationName": "contoso.example",
        "RecordType": 1, "UserType": 2, "Version": 1,
        "Workload": "Exchange", "ResultStatus": "True",
        "UserId": "alice@contoso.example", "UserKey": "10030000",
        "ClientIP": "198.51.100.7:1234",
    });
    let known = record.as_object_mut().unwrap();
    known.extend(members.as_object().unwrap().clone());
    record
}

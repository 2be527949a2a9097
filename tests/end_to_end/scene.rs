//! A scene: simulated services, a folder with configuration and credentials, and the real binary.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use exfilwatch_simulator::{
    Running, SeenFinding, Simulator, SimulatorOptions, World, WorldOptions,
};
use serde_json::Value;

/// Requests a minute: nearly what the simulated vendors allow, so that a range of a week is read in
/// little time.
pub const REQUESTS: u32 = 1_900;

/// Longest wait for anything; a condition that does not come true by then fails the test.
const PATIENCE: Duration = Duration::from_secs(180);

/// Services, folder, configuration.
pub struct Scene {
    pub services: Running,
    pub folder: tempfile::TempDir,
    /// Virtual seconds between polls: about one real second.
    poll_seconds: u64,
}

impl Scene {
    /// Starts the services and writes a configuration for all tenants of the world.
    pub async fn new(world: WorldOptions, options: SimulatorOptions) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let poll_seconds = (options.rate as u64).clamp(60, 3_600);
        let simulator = Simulator::new(World::invent(world), options).unwrap();
        let services = simulator.start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let scene = Self {
            services,
            folder,
            poll_seconds,
        };
        scene.write(
            "hec.token",
            &scene.services.simulator.credentials().hec_token,
        );
        scene.write(
            "entra.secret",
            &scene
                .services
                .simulator
                .credentials()
                .microsoft
                .client_secret,
        );
        scene.write("google.json", &scene.services.service_account_json());
        scene.write("exfilwatch.toml", &scene.configuration());
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The configuration: HEC for everything, a file with the whole findings beside it.
    pub fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let mut text = format!(
            "[run]\nfirst_read_days = 1\n\n[state]\nfolder = \"{folder}/state\"\n\n\
             [defaults.office365]\npoll_interval_seconds = {0}\nrequests_per_minute = {REQUESTS}\n\n\
             [defaults.google_workspace]\npoll_interval_seconds = {0}\nrequests_per_minute = {REQUESTS}\n\n\
             [emitters.splunk_hec.main]\nurl = \"{1}\"\ntoken = {{ file = \"{folder}/hec.token\" }}\n\
             send = [\"findings\", \"signals\", \"events\", \"internal\"]\n\n\
             [emitters.ndjson.findings]\npath = \"{folder}/findings.ndjson\"\n\
             send = [\"findings\", \"signals\"]\n",
            self.poll_seconds, self.services.hec_url
        );
        for tenant in self.services.simulator.world().tenants() {
            text.push_str(&self.tenant(tenant));
        }
        text
    }

    fn tenant(&self, tenant: &exfilwatch_simulator::world::Tenant) -> String {
        let (folder, alias) = (self.folder.path().display(), &tenant.alias);
        let client_id = &self.services.simulator.credentials().microsoft.client_id;
        let domains = tenant.internal_domains().join("\", \"");
        let mut text = format!("\n[tenants.{alias}]\ninternal_domains = [\"{domains}\"]\n");
        if let Some(tenant_id) = tenant.tenant_id {
            text.push_str(&format!(
                "\n[connectors.office365.{alias}]\ntenant = \"{alias}\"\ntenant_id = \"{tenant_id}\"\n\
                 client_id = \"{client_id}\"\nclient_secret = {{ file = \"{folder}/entra.secret\" }}\n\
                 api_root = \"{0}\"\nlogin_root = \"{0}\"\ngraph_root = \"{0}\"\n",
                self.services.microsoft_url
            ));
        }
        if tenant.customer_id.is_some() {
            text.push_str(&format!(
                "\n[connectors.google_workspace.{alias}]\ntenant = \"{alias}\"\nsubject = \"{}\"\n\
                 service_account = {{ file = \"{folder}/google.json\" }}\n\
                 api_root = \"{1}\"\ntoken_uri = \"{1}/token\"\n",
                tenant.admin().email,
                self.services.google_url
            ));
        }
        text
    }

    /// The value of the hidden flag that puts the binary on the services' clock.
    pub fn virtual_clock(&self) -> String {
        let origin = self.services.simulator.clock().origin();
        format!(
            "{},{},{}",
            origin.base_unix_ms, origin.rate, origin.real_start_unix_ms
        )
    }

    /// A command of the binary with this scene's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = exfilwatch(arguments);
        command.arg("--config").arg(self.path("exfilwatch.toml"));
        command
    }

    /// Runs a command to its end, aside of the services' threads.
    pub async fn output(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// `run` on the services' clock, its log in a file.
    pub fn start(&self) -> Process {
        self.start_with(&[])
    }

    /// As [`Scene::start`], with more flags.
    pub fn start_with(&self, flags: &[&str]) -> Process {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("run.log"))
            .unwrap();
        let mut command = self.command(&["run", "--virtual-clock", &self.virtual_clock()]);
        command.args(flags);
        Process(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("run.log")).unwrap_or_default()
    }

    /// All findings that were delivered to the file, whole, by id: the union of their revisions.
    pub fn delivered(&self) -> BTreeMap<String, SeenFinding> {
        read_findings(&self.path("findings.ndjson"))
    }

    /// What is missing, and the end of the log, for a test that waits in vain.
    pub fn report(&self) -> String {
        let missing = self.missing();
        let records = &self.services.simulator.sheet().records;
        let first = missing
            .iter()
            .take(5)
            .filter_map(|id| records.iter().find(|r| r.id == *id));
        let first: Vec<String> = first
            .map(|r| format!("{} {} visible from {}", r.stream, r.id, r.visible_from_ms))
            .collect();
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        let now = self.services.simulator.clock().now();
        format!(
            "{} of {} missing at {now}, such as {first:#?}\n{tail}",
            missing.len(),
            records.len()
        )
    }

    /// Ids of the findings the collector holds.
    pub fn at_collector(&self) -> Vec<String> {
        let hec = self.services.simulator.hec();
        hec.look(|recorded| recorded.findings().into_keys().map(str::to_owned).collect())
    }

    /// Ids of records of the sheet that the collector does not hold whole.
    pub fn missing(&self) -> Vec<String> {
        let sheet = self.services.simulator.sheet();
        self.services
            .simulator
            .hec()
            .look(|recorded| recorded.missing(sheet))
    }
}

/// A child process that does not outlive the test.
pub struct Process(pub Child);

impl Process {
    /// SIGKILL, as a power cut would.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and the exit code once it is gone.
    pub async fn terminate(mut self) -> Option<i32> {
        let id = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        tokio::task::spawn_blocking(move || self.0.wait().unwrap().code())
            .await
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, unless the test failed on its way.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The built binary.
pub fn exfilwatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exfilwatch"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("EXFILWATCH_CONFIG");
    command
}

/// Waits until a condition holds; fails with what `describe` says when it does not in time.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool, describe: impl Fn() -> String) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "waited in vain for {what}: {}",
            describe()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Findings of an NDJSON file of OCSF documents, by id: the union of their revisions.
pub fn read_findings(path: &Path) -> BTreeMap<String, SeenFinding> {
    let mut findings: BTreeMap<String, SeenFinding> = BTreeMap::new();
    let Ok(file) = fs::File::open(path) else {
        return findings;
    };
    for line in BufReader::new(file).lines() {
        let document: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let seen = finding(&document);
        let known = findings
            .entry(seen.uid.clone())
            .or_insert_with(|| seen.clone());
        for id in seen.event_ids {
            if !known.event_ids.contains(&id) {
                known.event_ids.push(id);
            }
        }
        known.event_ids.sort();
    }
    findings
}

/// What the sheet judges, out of an OCSF document.
pub fn finding(document: &Value) -> SeenFinding {
    let ours = &document["unmapped"]["exfilwatch"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    SeenFinding {
        detection: text(&ours["detection"]),
        tenant: text(&document["metadata"]["tenant_uid"]),
        uid: text(&document["finding_info"]["uid"]),
        entity: text(&ours["entity"]),
        counted: Some(ours["window_seconds"].is_number()),
        external_domain: text(&ours["external_domain"]),
        event_ids: ours["event_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect(),
    }
}

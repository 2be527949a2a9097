//! The setting of the demo: which tenants, when the attacks come, and the configuration file that
//! points the real connectors and emitters at the simulated services.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_config::{Config, Sources};
use exfilwatch_simulator::{
    AttackPlan, Delivery, Running, SimulatorOptions, TenantOptions, World, WorldOptions,
};

use crate::cli::failure::{Code, Failure};

/// Virtual time the demo goes through.
const SPAN: TimeDelta = TimeDelta::hours(8);
/// Virtual time before the first attack.
const PEACE: TimeDelta = TimeDelta::minutes(20);
/// Virtual time from one attack to the next.
const STEP: TimeDelta = TimeDelta::minutes(14);

/// Virtual seconds between polls: some real tenths, so that a disk can follow.
const POLL_SECONDS: u32 = 300;

/// What is shown.
#[derive(Debug)]
pub(super) struct Setting {
    seed: u64,
    seconds: u64,
    start: DateTime<Utc>,
}

impl Setting {
    pub(super) fn new(seed: u64, seconds: u64) -> Self {
        // A working day well inside a UTC day, so that no burst crosses midnight.
        let start = DateTime::from_timestamp(1_794_816_000, 0).unwrap_or_default();
        Self {
            seed,
            seconds,
            start: start + TimeDelta::hours(8),
        }
    }

    pub(super) fn introduction(&self) -> String {
        format!(
            "exfilwatch demo: two simulated organisations, eight hours of office life in {} seconds.\n\
             Simulated: Microsoft, Google and Splunk, on this machine. Real: connectors, detectors,\n\
             store and delivery. Nothing is kept. Findings appear as the attacks unfold.\n\n",
            self.seconds
        )
    }

    pub(super) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Virtual seconds per real second.
    pub(super) fn rate(&self) -> f64 {
        SPAN.as_seconds_f64() / self.length().as_secs_f64()
    }

    pub(super) fn world(&self) -> World {
        let options = WorldOptions {
            seed: self.seed,
            from: self.start,
            until: self.start + SPAN,
            records_per_day: 4_000,
            base_rates: None,
            contained: None,
            tenants: vec![
                TenantOptions::new("contoso"),
                TenantOptions::new("fabrikam"),
            ],
            delivery: Delivery::prompt(),
            attacks: AttackPlan::Stepped {
                first: self.start + PEACE,
                step: STEP,
            },
        };
        World::invent(options)
    }

    pub(super) fn simulator(&self) -> SimulatorOptions {
        SimulatorOptions {
            start: Some(self.start),
            rate: self.rate(),
            ..SimulatorOptions::default()
        }
    }
}

/// A temporary folder for configuration, credentials and state; removed when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the demo's folder could not be removed");
        }
    }
}

impl Folder {
    pub(super) fn make() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("exfilwatch-demo-{}", uuid::Uuid::new_v4()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                Failure::caused(Code::State, format!("making {}", path.display()), &error)
            })?;
        Ok(Self(path))
    }

    /// Writes the credentials and the configuration, and reads it as any other.
    pub(super) fn configuration(&self, running: &Running) -> Result<Config, Failure> {
        let credentials = running.simulator.credentials();
        self.private("hec.token", &credentials.hec_token)?;
        self.private("entra.secret", &credentials.microsoft.client_secret)?;
        self.private("google.json", &running.service_account_json())?;
        let text = self.text(running);
        let file = self.private("exfilwatch.toml", &text)?;
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        exfilwatch_config::load(&sources).map_err(|error| {
            Failure::caused(Code::Usage, "reading the demo's configuration", &error)
        })
    }

    fn text(&self, running: &Running) -> String {
        let folder = self.0.display();
        let mut text = format!(
            "[run]\nfirst_read_days = 0\n\n\
             [defaults.office365]\npoll_interval_seconds = {POLL_SECONDS}\n\n\
             [defaults.google_workspace]\npoll_interval_seconds = {POLL_SECONDS}\n\n[state]\nfolder = \"{folder}/state\"\n\n\
             [emitters.splunk_hec.simulated]\nurl = \"{}\"\n\
             token = {{ file = \"{folder}/hec.token\" }}\n\
             send = [\"findings\", \"signals\", \"events\", \"internal\"]\n",
            running.hec_url
        );
        let client_id = &running.simulator.credentials().microsoft.client_id;
        for tenant in running.simulator.world().tenants() {
            let alias = &tenant.alias;
            let domains = tenant.internal_domains().join("\", \"");
            let tenant_id = tenant.tenant_id.unwrap_or_default();
            text.push_str(&format!(
                "\n[tenants.{alias}]\ninternal_domains = [\"{domains}\"]\n\
                 \n[connectors.office365.{alias}]\ntenant = \"{alias}\"\n\
                 tenant_id = \"{tenant_id}\"\nclient_id = \"{client_id}\"\n\
                 client_secret = {{ file = \"{folder}/entra.secret\" }}\n\
                 api_root = \"{microsoft}\"\nlogin_root = \"{microsoft}\"\n\
                 \n[connectors.google_workspace.{alias}]\ntenant = \"{alias}\"\n\
                 subject = \"{admin}\"\nservice_account = {{ file = \"{folder}/google.json\" }}\n\
                 api_root = \"{google}\"\ntoken_uri = \"{google}/token\"\n",
                admin = tenant.admin().email,
                microsoft = running.microsoft_url,
                google = running.google_url,
            ));
        }
        text
    }

    fn private(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        write_private(&path, text).map_err(|error| {
            Failure::caused(Code::State, format!("writing {}", path.display()), &error)
        })?;
        Ok(path)
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

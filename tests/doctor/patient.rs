//! A set-up that is well, to which a test does one thing.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use exfilwatch_model::{Clock, SystemClock};
use exfilwatch_simulator::{AttackPlan, Delivery, Simulator, SimulatorOptions, WorldOptions};
use serde_json::Value;

use crate::scene::Scene;

/// Simulated services at the real time, and a configuration for them.
pub struct Patient {
    pub scene: Scene,
}

/// What `doctor --output json` said.
pub struct Diagnosis {
    pub code: Option<i32>,
    pub checks: Vec<Value>,
    pub stderr: String,
}

impl Patient {
    /// Everything as it should be.
    pub async fn well() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, but for what `change` does to the services.
    pub async fn with(change: impl FnOnce(&mut SimulatorOptions)) -> Self {
        let now = SystemClock.now();
        let world = WorldOptions {
            records_per_day: 400,
            delivery: Delivery::prompt(),
            attacks: AttackPlan::Quiet,
            ..WorldOptions::new(4, now - TimeDelta::hours(12), now)
        };
        let mut options = SimulatorOptions {
            start: Some(now),
            rate: 1.0,
            ..SimulatorOptions::default()
        };
        options.microsoft.subscribed = true;
        change(&mut options);
        let shift = options.start.map_or(TimeDelta::zero(), |start| start - now);
        let patient = Self {
            scene: Scene::new(world, options).await,
        };
        // What it took to make them is no skew.
        patient.services().clock().set(SystemClock.now() + shift);
        // The default budget may be more than a small disk has.
        patient.edit("[state]\n", "[state]\noutbox_bytes_max = 16777216\n");
        patient
    }

    pub fn services(&self) -> &Simulator {
        &self.scene.services.simulator
    }

    /// Replaces a text in the configuration, which must be there.
    pub fn edit(&self, text: &str, by: &str) {
        let path = self.scene.path("exfilwatch.toml");
        let before = std::fs::read_to_string(path).unwrap();
        assert!(before.contains(text), "{text:?} is not in\n{before}");
        self.scene
            .write("exfilwatch.toml", &before.replace(text, by));
    }

    /// Adds to the configuration.
    pub fn add(&self, text: &str) {
        let path = self.scene.path("exfilwatch.toml");
        let before = std::fs::read_to_string(path).unwrap();
        self.scene.write("exfilwatch.toml", &(before + text));
    }

    /// `doctor`, with everything it could log.
    pub async fn doctor(&self, set: &[&str]) -> Diagnosis {
        self.run(&["doctor", "--output", "json", "-vv"], set).await
    }

    /// Runs a command that prints checks; no secret may stand in anything it prints.
    pub async fn run(&self, command: &[&str], set: &[&str]) -> Diagnosis {
        let mut arguments = command.to_vec();
        for set in set {
            arguments.extend(["--set", set]);
        }
        let output = self.scene.output(&arguments).await;
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        for secret in self.secrets() {
            for (name, text) in [("output", &stdout), ("log", &stderr)] {
                assert!(!text.contains(&secret), "a secret is in the {name}: {text}");
            }
        }
        Diagnosis {
            code: output.status.code(),
            checks: serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}\n{stderr}")),
            stderr,
        }
    }

    /// What must never be printed: every secret, and how access tokens begin.
    fn secrets(&self) -> Vec<String> {
        let credentials = self.services().credentials();
        let key_line = |pem: &str| pem.lines().nth(3).unwrap().to_owned();
        vec![
            credentials.hec_token.clone(),
            credentials.microsoft.client_secret.clone(),
            key_line(&credentials.microsoft.private_key_pem),
            key_line(&credentials.google.private_key_pem),
            credentials.google.installed_client_secret.clone(),
            "eyJ".to_owned(),
            "ya29.".to_owned(),
        ]
    }
}

impl Diagnosis {
    /// Causes of the checks with this verdict.
    pub fn causes(&self, verdict: &str) -> BTreeSet<&str> {
        let checks = self.checks.iter().filter(|c| c["verdict"] == verdict);
        checks.map(|c| c["cause"].as_str().unwrap()).collect()
    }

    /// Exactly this cause fails, with this exit code.
    #[track_caller]
    pub fn failed(&self, cause: &str, code: i32) -> &Value {
        assert_eq!(
            self.causes("failed"),
            BTreeSet::from([cause]),
            "{}",
            self.shown()
        );
        assert_eq!(self.code, Some(code), "{}", self.shown());
        self.named(cause)
    }

    /// Nothing fails, and this is the one warning.
    #[track_caller]
    pub fn warned(&self, cause: &str) -> &Value {
        assert_eq!(self.causes("failed"), BTreeSet::new(), "{}", self.shown());
        assert_eq!(
            self.causes("warning"),
            BTreeSet::from([cause]),
            "{}",
            self.shown()
        );
        assert_eq!(self.code, Some(0), "{}", self.shown());
        self.named(cause)
    }

    #[track_caller]
    fn named(&self, cause: &str) -> &Value {
        let check = self.checks.iter().find(|c| c["cause"] == cause).unwrap();
        assert!(!check["seen"].as_str().unwrap().is_empty());
        assert!(!check["fix"].as_str().unwrap().is_empty());
        assert!(!check["subject"].as_str().unwrap().is_empty());
        check
    }

    /// The check of that name and subject.
    #[track_caller]
    pub fn check(&self, subject: &str, check: &str) -> &Value {
        let found = |c: &&Value| c["subject"] == subject && c["check"] == check;
        match self.checks.iter().find(found) {
            Some(check) => check,
            None => panic!("no {subject} {check} in\n{}", self.shown()),
        }
    }

    pub fn shown(&self) -> String {
        let lines = self.checks.iter().map(Value::to_string);
        format!("{}\n{}", lines.collect::<Vec<_>>().join("\n"), self.stderr)
    }
}

/// Whether a check says this.
#[track_caller]
pub fn says(check: &Value, member: &str, words: &str) {
    let text = check[member].as_str().unwrap();
    assert!(text.contains(words), "{words:?} is not in {check:#}");
}

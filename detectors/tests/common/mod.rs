//! Rules and events for the tests of this crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_detectors::{Engine, RuleSet, SourceFile};
use exfilwatch_model::{Domains, Event, Finding, JobId, Product, TenantId};

pub const RULES: &str = include_str!("rules.yml");

static SET: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
    let file = SourceFile {
        name: "rules.yml".into(),
        text: RULES.into(),
    };
    Arc::new(RuleSet::from_files(&[file], &[], &[]).unwrap())
});

pub fn rules() -> Arc<RuleSet> {
    Arc::clone(&SET)
}

pub fn engine() -> Engine {
    Engine::new(rules(), TenantId::new("corp").unwrap(), JobId::live())
}

pub fn engine_without(disabled: &[&str]) -> Engine {
    let file = SourceFile {
        name: "rules.yml".into(),
        text: RULES.into(),
    };
    let disabled: Vec<String> = disabled.iter().map(|&name| name.into()).collect();
    let rules = RuleSet::from_files(&[file], &[], &disabled).unwrap();
    Engine::new(
        Arc::new(rules),
        TenantId::new("corp").unwrap(),
        JobId::live(),
    )
}

pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A share in Google Drive.
#[derive(Debug, Clone)]
pub struct Share {
    pub id: String,
    pub time: DateTime<Utc>,
    pub target: String,
    pub part: u32,
}

impl Share {
    pub fn new(id: &str, time: &str) -> Self {
        Self {
            id: id.into(),
            time: at(time),
            target: "bob@gmail.com".into(),
            part: 0,
        }
    }

    pub fn to(mut self, target: &str, part: u32) -> Self {
        self.target = target.into();
        self.part = part;
        self
    }

    pub fn event(&self) -> Event {
        let raw = format!("{{\"id\":\"{}\"}}", self.id).into();
        let id = self.id.as_str().into();
        let mut event = Event::new(Product::GoogleWorkspace, id, self.part, self.time, raw);
        let party = Domains::new(&["corp.example"], &["partner.example"]).party(&self.target);
        event.set("operation", "change_user_access");
        event.set("service", "drive");
        event.set("actor", "alice@corp.example");
        event.set("object", "doc-1");
        event.set("object_name", "Plan");
        event.set("source_ip", "203.0.113.5");
        event.set("target", self.target.as_str());
        event.set("is_external", party.class.is_external());
        event.set("external_class", party.class.as_str());
        event.set_some("external_domain", party.registrable);
        event
    }
}

/// One share to each target, `step` seconds apart.
pub fn shares(prefix: &str, start: &str, step: i64, targets: &[&str]) -> Vec<Event> {
    let share = |(i, target): (usize, &&str)| {
        let mut share = Share::new(&format!("{prefix}{i}"), start).to(target, 0);
        share.time += TimeDelta::seconds(step * i64::try_from(i).unwrap());
        share.event()
    };
    targets.iter().enumerate().map(share).collect()
}

/// Findings as JSON, by id, without the quoted records: they are at hand only in memory.
pub fn essence(findings: &[Finding]) -> Vec<String> {
    let mut all: Vec<String> = findings
        .iter()
        .map(|finding| {
            let mut bare = finding.clone();
            bare.evidence
                .iter_mut()
                .for_each(|evidence| evidence.record = None);
            serde_json::to_string(&bare).unwrap()
        })
        .collect();
    all.sort();
    all
}

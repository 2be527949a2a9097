//! A tenant's own domains while it is polled: those the operator has listed, and with `"auto"` those
//! that the vendors name. What a vendor said last is kept in the store, so that a start while it does
//! not answer, or no longer permits the question, goes on with it.
//!
//! Order: what is listed stands; to that comes what a vendor says now, or, where it says nothing, what
//! it said last. The findings' ids do not depend on any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_connectors::OwnDomains;
use exfilwatch_model::{Domains, JobId, Lists, LiveDomains, StreamId, TenantId};
use exfilwatch_state::{Commit, JobState, StateError, StateStore};
use serde_json::json;
use tokio::sync::Notify;

use crate::pipeline::notice::Notice;
use crate::pipeline::worker::Shared;

/// Time between two questions, when all were answered.
const EVERY: Duration = Duration::from_hours(24);
/// The same when one was not.
const AGAIN: Duration = Duration::from_hours(1);
/// The same while no domain is known at all: the tenant waits for it.
const AGAIN_SOON: Duration = Duration::from_mins(5);
/// Longest wait for an answer.
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// Most bytes of names in one entry of the store, whose values are small.
const ENTRY_BYTES_MAX: usize = 3_000;
/// Most names in a notice.
const NOTICE_NAMES_MAX: usize = 100;

/// What each vendor said last, by kind.
type Told = BTreeMap<String, Vec<String>>;

/// The own domains of one tenant. Clones share what is known.
#[derive(Debug, Clone)]
pub struct TenantDomains {
    tenant: TenantId,
    configured: Arc<RwLock<Configured>>,
    sources: Vec<Arc<dyn OwnDomains>>,
    live: LiveDomains,
    asked: Arc<Notify>,
}

/// What the configuration says of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// Its own domains, as far as they are listed.
    pub listed: Vec<String>,
    /// Domains of partners.
    pub partners: Vec<String>,
    /// What is said of people, apps and others.
    pub lists: Arc<Lists>,
}

/// A vendor that did not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaid {
    /// Who was asked.
    pub kind: String,
    /// Why there was no answer, and what to do.
    pub why: String,
}

impl TenantDomains {
    /// With what is configured, and what the store remembers of `sources`.
    pub fn restore(
        tenant: TenantId,
        configured: Configured,
        sources: Vec<Arc<dyn OwnDomains>>,
        store: &dyn StateStore,
    ) -> Result<Self, StateError> {
        let told = told(store, &tenant)?;
        let domains = Self {
            tenant,
            configured: Arc::new(RwLock::new(configured)),
            sources,
            live: LiveDomains::default(),
            asked: Arc::default(),
        };
        domains.live.set(domains.put_together(&told));
        Ok(domains)
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Whether a vendor is to be asked.
    pub fn asks(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether no domain is known, so that inside and outside cannot be told.
    pub fn unknown(&self) -> bool {
        self.live.get().is_empty()
    }

    /// Waits until a domain is known.
    pub async fn known(&self) {
        loop {
            let asked = self.asked.notified();
            if !self.unknown() {
                return;
            }
            asked.await;
        }
    }

    /// Puts another configuration in place of the one so far, for records that are read from now on.
    pub fn reconfigure(
        &self,
        configured: Configured,
        store: &dyn StateStore,
    ) -> Result<(), StateError> {
        let told = told(store, &self.tenant)?;
        *self
            .configured
            .write()
            .unwrap_or_else(PoisonError::into_inner) = configured;
        self.live.set(self.put_together(&told));
        self.asked.notify_waiters();
        Ok(())
    }

    /// For the readers of records: always what is known at present.
    pub fn live(&self) -> LiveDomains {
        self.live.clone()
    }

    /// Asks the vendors, keeps what they say, and tells the receivers of a change. Gives those that
    /// did not say.
    pub async fn ask(&self, shared: &Shared) -> Vec<Unsaid> {
        let mut told = match told(&*shared.store, &self.tenant) {
            Ok(told) => told,
            Err(error) => {
                let why = error.to_string();
                let kind = "the store".to_owned();
                return vec![Unsaid { kind, why }];
            }
        };
        let before = told.clone();
        let questions = self.sources.iter().map(|source| ask_one(&**source));
        let mut unsaid = Vec::new();
        for (kind, answer) in futures::future::join_all(questions).await {
            match answer {
                Ok(domains) => {
                    told.insert(kind, domains);
                }
                Err(why) => {
                    let kept = told.get(&kind).map_or(0, Vec::len);
                    tracing::warn!(tenant = %self.tenant, vendor = %kind, %why, kept, "own domains are not told; what is known stays");
                    unsaid.push(Unsaid { kind, why });
                }
            }
        }
        if told != before {
            self.keep(&before, &told, shared).await;
        }
        self.live.set(self.put_together(&told));
        self.asked.notify_waiters();
        unsaid
    }

    /// Asks again from time to time, until shutdown.
    pub async fn keep_current(self, shared: Shared) {
        let mut all_said = self.ask(&shared).await.is_empty();
        loop {
            let wait = match (all_said, self.unknown()) {
                (true, false) => EVERY,
                (false, false) => AGAIN,
                (_, true) => AGAIN_SOON,
            };
            tokio::select! {
                () = tokio::time::sleep(shared.clock.real(wait)) => {}
                () = shared.shutdown.cancelled() => return,
            }
            all_said = self.ask(&shared).await.is_empty();
        }
    }

    fn put_together(&self, told: &Told) -> Domains {
        let configured = self.configured.read();
        let configured = configured.unwrap_or_else(PoisonError::into_inner);
        let mut internal = configured.listed.clone();
        for source in &self.sources {
            internal.extend(told.get(source.kind()).into_iter().flatten().cloned());
        }
        Domains::new(&internal, &configured.partners).with_lists(configured.lists.clone())
    }

    /// Writes what is new, with a notice.
    async fn keep(&self, before: &Told, told: &Told, shared: &Shared) {
        let now = shared.clock.now();
        let mut jobs = Vec::new();
        for (kind, domains) in told {
            let old = before.get(kind).map_or(0, |old| entries(old).len());
            jobs.extend(states(&self.tenant, kind, domains, old));
        }
        let frames = self.notice(before, told, now);
        let commit = Commit {
            frames: frames
                .map(|notice| notice.frame(&self.tenant))
                .into_iter()
                .collect(),
            jobs,
            ..Commit::default()
        };
        if let Err(error) = shared.committer.commit(commit).await {
            tracing::warn!(tenant = %self.tenant, %error, "own domains are not kept; they are asked for again");
        }
    }

    fn notice(&self, before: &Told, told: &Told, now: DateTime<Utc>) -> Option<Notice> {
        let all = |told: &Told| -> BTreeSet<String> { told.values().flatten().cloned().collect() };
        let (old, new) = (all(before), all(told));
        let names = |names: Vec<&String>| -> Vec<String> {
            names.into_iter().take(NOTICE_NAMES_MAX).cloned().collect()
        };
        let added = names(new.difference(&old).collect());
        let removed = names(old.difference(&new).collect());
        tracing::info!(tenant = %self.tenant, domains = new.len(), ?added, ?removed, "own domains");
        Some(Notice {
            stream: StreamId::new(self.tenant.clone(), "exfilwatch", "domains").ok()?,
            name: "collector.domains",
            at: now,
            facts: json!({
                "domains": new.len(), "added": added, "removed": removed,
                "help": "what is in these domains counts as internal; internal_domains in the \
                         configuration lists others",
            }),
            gap: None,
        })
    }
}

/// An answer, or why there is none. An empty list is no answer: nobody has no domain.
pub async fn ask_one(source: &dyn OwnDomains) -> (String, Result<Vec<String>, String>) {
    let answer = match tokio::time::timeout(ANSWER_WAIT, source.own_domains()).await {
        Ok(Ok(domains)) if domains.is_empty() => Err("no verified domain is named".to_owned()),
        Ok(Ok(domains)) => Ok(domains),
        Ok(Err(error)) => Err(match error.help() {
            Some(help) => format!("{error}; {help}"),
            None => error.to_string(),
        }),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WAIT.as_secs())),
    };
    (source.kind().to_owned(), answer)
}

/// What the store remembers for a tenant, whoever is asked at present.
pub fn remembered(store: &dyn StateStore, tenant: &TenantId) -> Result<Vec<String>, StateError> {
    Ok(told(store, tenant)?.into_values().flatten().collect())
}

fn told(store: &dyn StateStore, tenant: &TenantId) -> Result<Told, StateError> {
    let prefix = format!("domains:{tenant}:");
    let mut told = Told::new();
    for job in store.jobs()? {
        let Some(rest) = job.job.as_str().strip_prefix(&prefix) else {
            continue;
        };
        // Another tenant's alias may go on with a colon; kinds and numbers hold none.
        let Some((kind, _number)) = rest.split_once(':').filter(|(_, n)| !n.contains(':')) else {
            continue;
        };
        let names = job.state.split_whitespace().map(str::to_owned);
        told.entry(kind.to_owned()).or_default().extend(names);
    }
    told.retain(|_, domains| !domains.is_empty());
    for domains in told.values_mut() {
        domains.sort();
    }
    Ok(told)
}

/// Names in pieces that the store takes.
fn entries(domains: &[String]) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for domain in domains {
        match entries.last_mut() {
            Some(entry) if entry.len() + domain.len() < ENTRY_BYTES_MAX => {
                entry.push(' ');
                entry.push_str(domain);
            }
            _ => entries.push(domain.clone()),
        }
    }
    entries
}

/// The entries as they are stored, `old` of them at least: those no longer needed are emptied.
fn states(tenant: &TenantId, kind: &str, domains: &[String], old: usize) -> Vec<JobState> {
    let mut entries = entries(domains);
    entries.resize(entries.len().max(old), String::new());
    let state = |(number, state): (usize, String)| {
        let job = JobId::new(&format!("domains:{tenant}:{kind}:{number}")).ok()?;
        Some(JobState {
            job,
            state,
            finished: false,
        })
    };
    entries.into_iter().enumerate().filter_map(state).collect()
}

#[cfg(test)]
mod tests;

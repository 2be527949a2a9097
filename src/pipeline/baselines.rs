//! What the detectors of a tenant measure events against, as `learn` and `status` show it.

use chrono::{DateTime, Utc};
use exfilwatch_detectors::{Baseline, Engine, RuleSet};
use exfilwatch_model::{JobId, TenantId};
use exfilwatch_state::{StateError, StateStore};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a detection knows of a tenant's past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The tenant.
    pub tenant: TenantId,
    /// The detection.
    pub detection: String,
    /// Values (or keys) whose past is known.
    pub known: u64,
    /// The earliest event seen.
    pub since: Option<DateTime<Utc>>,
    /// From when on events are judged; before, and where there was no event yet, it learns silently.
    pub judges_from: Option<DateTime<Utc>>,
}

impl Known {
    /// Of a tenant.
    pub fn new(tenant: &TenantId, baseline: Baseline) -> Self {
        Self {
            tenant: tenant.clone(),
            judges_from: baseline.judges_from(),
            detection: baseline.detection,
            known: baseline.known,
            since: baseline.since,
        }
    }

    /// Whether it says nothing yet.
    pub fn is_learning(&self, now: DateTime<Utc>) -> bool {
        self.judges_from.is_none_or(|from| now < from)
    }
}

/// What the live line will know when it is started: what it knew, and what jobs have left for it.
pub fn at_rest(
    store: &dyn StateStore,
    tenant: &TenantId,
    rules: &RuleSet,
) -> Result<Vec<Known>, StateError> {
    let rules = Arc::new(rules.learning());
    let mut engine = Engine::new(rules, tenant.clone(), JobId::live());
    for job in [JobId::live(), JobId::lessons()] {
        for change in store.windows(&job, tenant)? {
            let Some(value) = change.value.filter(|_| engine.runs(&change.detector)) else {
                continue;
            };
            if let Err(error) = engine.restore(&change.detector, &change.key, &value) {
                tracing::debug!(%error, "detector memory was left out");
            }
        }
    }
    let baselines = engine.baselines().into_iter();
    Ok(baselines.map(|one| Known::new(tenant, one)).collect())
}

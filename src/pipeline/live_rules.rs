//! The rules of a tenant as they are at present, shared by its live line and its jobs.

use std::sync::Arc;

use exfilwatch_detectors::RuleSet;
use tokio::sync::watch;

/// Rules that may change while records are looked at. Clones share one value.
#[derive(Debug, Clone)]
pub struct LiveRules(Arc<watch::Sender<Arc<RuleSet>>>);

impl LiveRules {
    /// The rules now.
    pub fn get(&self) -> Arc<RuleSet> {
        self.0.borrow().clone()
    }

    /// Puts others in their place, for every clone.
    pub fn set(&self, rules: Arc<RuleSet>) {
        self.0.send_replace(rules);
    }

    /// Tells of changes from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<RuleSet>> {
        self.0.subscribe()
    }
}

impl From<Arc<RuleSet>> for LiveRules {
    fn from(rules: Arc<RuleSet>) -> Self {
        Self(Arc::new(watch::Sender::new(rules)))
    }
}

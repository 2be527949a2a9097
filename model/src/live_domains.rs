//! The domains of a tenant as they are known at present, shared by all who read its records.

use std::sync::{Arc, PoisonError, RwLock};

use crate::domains::Domains;

/// Domains that may become known, or change, while records are read. Clones share one value. A
/// record is read with one value throughout.
#[derive(Debug, Clone, Default)]
pub struct LiveDomains(Arc<RwLock<Arc<Domains>>>);

impl LiveDomains {
    /// The domains now.
    pub fn get(&self) -> Arc<Domains> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts others in their place, for every clone.
    pub fn set(&self, domains: Domains) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(domains);
    }
}

impl From<Arc<Domains>> for LiveDomains {
    fn from(domains: Arc<Domains>) -> Self {
        Self(Arc::new(RwLock::new(domains)))
    }
}

impl From<Domains> for LiveDomains {
    fn from(domains: Domains) -> Self {
        Arc::new(domains).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learnt_reaches_every_clone() {
        let first = LiveDomains::from(Domains::new(&["contoso.example"], &[]));
        let second = first.clone();
        let read = second.get();
        first.set(Domains::new(&["contoso.example", "fabrikam.example"], &[]));
        assert!(second.get().is_internal_domain("fabrikam.example"));
        assert!(
            !read.is_internal_domain("fabrikam.example"),
            "a read in progress keeps its value"
        );
    }
}

//! Which domains belong to a tenant, as the vendor says. Optional: where the permission is not given,
//! the caller goes on with what else is known.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::FetchError;

/// A vendor's list of a tenant's own domains.
#[async_trait]
pub trait OwnDomains: Send + Sync + Debug {
    /// Who is asked, as in the configuration (`office365`).
    fn kind(&self) -> &'static str;

    /// The verified domains, in lower case, sorted, each once. Never names a domain that is not
    /// proven to be the tenant's own: it would count as inside.
    async fn own_domains(&self) -> Result<Vec<String>, FetchError>;
}

/// Lower case, sorted, each once.
pub(crate) fn tidy(domains: impl Iterator<Item = String>) -> Vec<String> {
    let mut domains: Vec<String> = domains
        .map(|domain| domain.trim().trim_end_matches('.').to_lowercase())
        .filter(|domain| domain.contains('.'))
        .collect();
    domains.sort();
    domains.dedup();
    domains
}

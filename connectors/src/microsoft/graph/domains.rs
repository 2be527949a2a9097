//! The tenant's verified domains ("List domains", Microsoft Graph v1.0, 2026-06): `id` is the name,
//! and one that is not verified may be anybody's.

use async_trait::async_trait;
use serde::Deserialize;

use super::{Graph, Question};
use crate::FetchError;
use crate::kernel::client::broken;
use crate::microsoft::KIND;
use crate::own_domains::{OwnDomains, tidy};

const WHAT: &str = "list of the tenant's domains";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Domain {
    id: String,
    #[serde(default)]
    is_verified: bool,
}

#[async_trait]
impl OwnDomains for Graph {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn own_domains(&self) -> Result<Vec<String>, FetchError> {
        let question = Question {
            path: "/v1.0/domains",
            what: WHAT,
            permission: "Domain.Read.All",
        };
        let elements = self.collection(question).await?;
        let domains: Result<Vec<Domain>, _> = elements
            .iter()
            .map(|element| serde_json::from_str(element.get()))
            .collect();
        let domains = domains.map_err(|error| broken(WHAT, &error.to_string()))?;
        let verified = domains.into_iter().filter(|domain| domain.is_verified);
        Ok(tidy(verified.map(|domain| domain.id)))
    }
}

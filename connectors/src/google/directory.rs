//! The customer's verified domains and domain aliases ("Directory API: domains", "… domainAliases",
//! Admin SDK, 2026-04), by a token of their own scope: asked for together with the audit logs', one
//! that was not delegated would fail both.

use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::token::GoogleTokens;
use super::{API_ROOT, KIND, answer, customer_id, grant};
use crate::FetchError;
use crate::kernel::auth::TokenCache;
use crate::kernel::body::{Body, SMALL_BODY_BYTES_MAX};
use crate::kernel::client::{Ask, Client, broken, unread};
use crate::kernel::surroundings::{BuildError, Surroundings, http_settings, origin};
use crate::kernel::url_guard::Origin;
use crate::kernel::wire::Wire;
use crate::options::GoogleWorkspaceOptions;
use crate::own_domains::{OwnDomains, tidy};

/// The scope it takes.
pub const SCOPE: &str = "https://www.googleapis.com/auth/admin.directory.domain.readonly";

/// Two calls a day.
const REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// The Directory API, for one customer.
#[derive(Debug)]
pub struct Directory {
    client: Client,
    api: Origin,
    customer: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Domains {
    domains: Vec<Domain>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Domain {
    domain_name: String,
    #[serde(default)]
    verified: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Aliases {
    domain_aliases: Vec<Alias>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alias {
    domain_alias_name: String,
    #[serde(default)]
    verified: bool,
}

impl Directory {
    /// Checks the options and reads the credential once. Sends nothing.
    pub fn new(
        options: &GoogleWorkspaceOptions,
        surroundings: &Surroundings,
    ) -> Result<Self, BuildError> {
        let api = origin("api_root", options.api_root.as_ref(), API_ROOT)?;
        let (grant, quota_key) = grant(options, surroundings)?;
        let settings = http_settings(
            options.proxy.as_ref(),
            options.ca_file.as_ref(),
            api.is_loopback(),
        );
        let transport = surroundings.transport(&settings)?;
        let wire = || Arc::new(Wire::new(transport.clone(), surroundings.clock.clone()));
        let tokens = GoogleTokens {
            wire: wire(),
            grant,
            token_uri: options.token_uri.clone(),
            scope: SCOPE,
        };
        let key = format!("directory/{quota_key}");
        let quota = surroundings.quotas.quota(&key, REQUESTS_PER_MINUTE);
        let tokens = TokenCache::new(Box::new(tokens));
        let customer = customer_id(options.customer_id.as_deref())?;
        Ok(Self {
            client: Client::new(wire(), quota, tokens, answer::directory),
            api,
            customer: customer.unwrap_or_else(|| "my_customer".to_owned()),
        })
    }

    async fn get<T: DeserializeOwned>(&self, collection: &str) -> Result<T, FetchError> {
        let what = format!("list of the customer's {collection}");
        let path = format!(
            "/admin/directory/v1/customer/{}/{collection}",
            self.customer
        );
        let ask = Ask {
            method: Method::GET,
            url: self.api.at(&path),
            what: what.clone(),
            patient: true,
        };
        let response = self.client.call(&ask).await?;
        let body = match Body::new(response, SMALL_BODY_BYTES_MAX) {
            Ok(body) => body.read_all().await,
            Err(error) => Err(error),
        };
        let body = body.map_err(|error| unread(&what, &error))?;
        serde_json::from_slice(&body).map_err(|error| broken(&what, &error.to_string()))
    }
}

#[async_trait]
impl OwnDomains for Directory {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn own_domains(&self) -> Result<Vec<String>, FetchError> {
        let domains: Domains = self.get("domains").await?;
        let aliases: Aliases = self.get("domainaliases").await?;
        let domains = domains.domains.into_iter().filter(|domain| domain.verified);
        let aliases = aliases
            .domain_aliases
            .into_iter()
            .filter(|alias| alias.verified);
        Ok(tidy(
            domains
                .map(|domain| domain.domain_name)
                .chain(aliases.map(|alias| alias.domain_alias_name)),
        ))
    }
}

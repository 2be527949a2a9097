//! The application that signs in to a tenant, and the clients it signs in for: the feed and Graph,
//! each with tokens of its own audience.

use std::num::NonZeroU32;
use std::sync::Arc;

use uuid::Uuid;

use super::cloud;
use super::token::{Credential, MicrosoftTokens};
use crate::kernel::auth::TokenCache;
use crate::kernel::client::{Classify, Client};
use crate::kernel::surroundings::{
    BuildError, Surroundings, http_settings, invalid, origin, required,
};
use crate::kernel::url_guard::Origin;
use crate::kernel::wire::Wire;
use crate::options::Office365Options;

/// An API to sign in to.
#[derive(Debug)]
pub(super) struct Api<'a> {
    /// Where it is, or what stands for it.
    pub(super) origin: &'a Origin,
    /// Whom its tokens are for: the API's own origin in the cloud.
    pub(super) audience: &'static str,
    /// Requests with the same key share one quota …
    pub(super) quota_key: &'a str,
    /// … of so many a minute.
    pub(super) requests_per_minute: NonZeroU32,
    /// How its refusals are understood.
    pub(super) classify: Classify,
}

/// The tenant's GUID, as Entra writes it.
pub(super) fn tenant_id(options: &Office365Options) -> Result<String, BuildError> {
    guid("tenant_id", options.tenant_id.as_deref())
}

/// A client of an API. Reads the credential once; sends nothing.
pub(super) fn client(
    options: &Office365Options,
    api: &Api<'_>,
    surroundings: &Surroundings,
) -> Result<Client, BuildError> {
    let client_id = guid("client_id", options.client_id.as_deref())?;
    let credential = credential(options, surroundings)?;
    credential.check()?;
    let login = origin(
        "login_root",
        options.login_root.as_ref(),
        cloud::login_root(options.cloud.unwrap_or_default()),
    )?;
    let settings = http_settings(
        options.proxy.as_ref(),
        options.ca_file.as_ref(),
        api.origin.is_loopback(),
    );
    let transport = surroundings.transport(&settings)?;
    let clock = surroundings.clock.clone();
    let tokens = MicrosoftTokens {
        wire: Arc::new(Wire::new(transport.clone(), clock.clone())),
        endpoint: login.at(&format!("/{}/oauth2/v2.0/token", tenant_id(options)?)),
        client_id,
        credential,
        audience: api.audience.to_owned(),
    };
    Ok(Client::new(
        Arc::new(Wire::new(transport, clock)),
        surroundings
            .quotas
            .quota(api.quota_key, api.requests_per_minute),
        TokenCache::new(Box::new(tokens)),
        api.classify,
    ))
}

fn credential(
    options: &Office365Options,
    surroundings: &Surroundings,
) -> Result<Credential, BuildError> {
    match (&options.client_secret, &options.certificate) {
        (Some(secret), None) => Ok(Credential::Secret(surroundings.secret(secret))),
        (None, Some(certificate)) => Ok(Credential::Certificate(certificate.clone())),
        (Some(_), Some(_)) => Err(invalid(
            "certificate",
            "…",
            "give either client_secret or certificate",
        )),
        (None, None) => Err(BuildError::Missing {
            key: "client_secret",
            help: "client_secret = { file = … } | { env = … }, or certificate = { file = … }",
        }),
    }
}

/// A GUID, in lower case.
pub(super) fn guid(key: &'static str, given: Option<&str>) -> Result<String, BuildError> {
    let text = required(given.as_ref(), key, "the GUID of the tenant in Entra")?;
    Uuid::try_parse(text).map(|id| id.to_string()).map_err(|_| {
        invalid(
            key,
            text,
            "must be a GUID such as 0b3f9ef4-6d0a-4d5b-9d1e-2f1c0a9b8c7d",
        )
    })
}

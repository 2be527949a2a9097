//! The Google Workspace Reports API: one connector per customer, one stream per application.
//!
//! Listing cuts time into frozen windows and asks nobody; fetching walks all pages of a window.
//! What the service demands of a client is in spec/connectors.md section 3.

mod answer;
pub mod applications;
pub mod login;
mod page;
pub mod span;
mod token;
mod walk;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{Cursor, StreamId, TenantId, Window, WorkItem};

use self::token::{BadKeyFile, GoogleTokens, Grant, ServiceAccount, checked_override};
use self::walk::Walk;
use crate::kernel::auth::TokenCache;
use crate::kernel::client::Client;
use crate::kernel::secret::SecretError;
use crate::kernel::surroundings::{
    BuildError, Surroundings, http_settings, invalid, origin, requests_per_minute, required,
};
use crate::kernel::url_guard::Origin;
use crate::kernel::wire::Wire;
use crate::options::GoogleWorkspaceOptions;
use crate::{Connector, FetchError, Listing, PageStream, RecordReader, Schedule, Standing};

/// The kind, as in the configuration.
pub const KIND: &str = "google_workspace";

/// The API's origin.
pub const API_ROOT: &str = "https://admin.googleapis.com";
/// Activities a page, the most the service gives.
const PAGE_ITEMS: u32 = 1_000;
/// Longest span listed again: the daily reconciliation.
const RECONCILED: TimeDelta = TimeDelta::days(4);
const OVERLAP_EVERY: TimeDelta = TimeDelta::minutes(30);

const REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(600).unwrap();
const FETCH_CONCURRENCY: u32 = 4;
const POLL_INTERVAL_SECONDS: u64 = 60;

/// The connector of one customer.
#[derive(Debug)]
pub struct GoogleWorkspace {
    client: Arc<Client>,
    api: Origin,
    customer_id: Option<String>,
    streams: Vec<StreamId>,
    lags: BTreeMap<String, u32>,
    overlaps: BTreeMap<String, u32>,
    quota_key: String,
    poll_interval: Duration,
    fetch_concurrency: usize,
    records: Arc<dyn RecordReader>,
}

impl GoogleWorkspace {
    /// Checks the options and reads the credential once. Sends nothing.
    pub fn new(
        options: &GoogleWorkspaceOptions,
        records: Arc<dyn RecordReader>,
        surroundings: &Surroundings,
    ) -> Result<Self, BuildError> {
        let tenant = required(options.tenant.as_ref(), "tenant", "our alias of the tenant")?;
        let api = origin("api_root", options.api_root.as_ref(), API_ROOT)?;
        let (grant, quota_key) = grant(options, surroundings)?;
        let rpm = requests_per_minute(options.requests_per_minute, REQUESTS_PER_MINUTE)?;
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
        };
        let quota = surroundings.quotas.quota(&quota_key, rpm);
        let tokens = TokenCache::new(Box::new(tokens));
        Ok(Self {
            client: Arc::new(Client::new(wire(), quota, tokens, answer::classify)),
            api,
            customer_id: customer_id(options.customer_id.as_deref())?,
            streams: streams(tenant, options.applications.as_deref())?,
            lags: options.lag_seconds.clone().unwrap_or_default(),
            overlaps: options.overlap_seconds.clone().unwrap_or_default(),
            quota_key,
            poll_interval: Duration::from_secs(
                options
                    .poll_interval_seconds
                    .unwrap_or(POLL_INTERVAL_SECONDS)
                    .max(1),
            ),
            fetch_concurrency: options
                .fetch_concurrency
                .unwrap_or(FETCH_CONCURRENCY)
                .max(1) as usize,
            records,
        })
    }

    fn now(&self) -> DateTime<Utc> {
        self.client.wire().now()
    }

    fn lag(&self, application: &str) -> TimeDelta {
        let given = self.lags.get(application);
        given.map_or_else(
            || applications::lag(application),
            |s| TimeDelta::seconds((*s).into()),
        )
    }

    fn overlap(&self, application: &str) -> TimeDelta {
        let given = self.overlaps.get(application);
        given.map_or_else(
            || applications::overlap(application),
            |s| TimeDelta::seconds((*s).into()),
        )
    }

    fn url(&self, application: &str, window: Window) -> String {
        // Unfiltered, for all users: the quota of filtered queries is a tenth of the other.
        let mut url = self.api.at(&format!(
            "/admin/reports/v1/activity/users/all/applications/{application}\
             ?startTime={}&endTime={}&maxResults={PAGE_ITEMS}",
            span::text(window.from()),
            span::text(window.until()),
        ));
        if let Some(customer) = &self.customer_id {
            url.push_str("&customerId=");
            url.push_str(customer);
        }
        url
    }
}

#[async_trait]
impl Connector for GoogleWorkspace {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn streams(&self) -> Vec<StreamId> {
        self.streams.clone()
    }

    fn quota_key(&self) -> String {
        self.quota_key.clone()
    }

    fn schedule(&self, stream: &StreamId) -> Schedule {
        Schedule {
            // The next window itself begins so much earlier (`span::plan`).
            hot: TimeDelta::zero(),
            overlap: self.overlap(stream.name()),
            overlap_every: OVERLAP_EVERY,
            retention: RECONCILED,
            retention_every: TimeDelta::days(1),
        }
    }

    fn kept(&self, _stream: &StreamId) -> TimeDelta {
        span::REACH
    }

    fn settle(&self, _stream: &StreamId) -> TimeDelta {
        RECONCILED
    }

    fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    fn fetch_concurrency(&self) -> usize {
        self.fetch_concurrency
    }

    fn first_cursor(&self, _stream: &StreamId, window: Window) -> Cursor {
        Cursor {
            covered_until: window.from(),
            state: String::new(),
        }
    }

    async fn list(&self, stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError> {
        let now = self.now();
        let plan = span::plan(cursor.covered_until, now, self.lag(stream.name()));
        Ok(Listing {
            items: plan
                .windows
                .into_iter()
                .map(|window| span::item(stream, window, None))
                .collect(),
            cursor: Cursor {
                covered_until: plan.covered_until,
                state: String::new(),
            },
            gaps: plan
                .gap
                .map(|gap| span::gap(stream, gap, now))
                .into_iter()
                .collect(),
            standing: Standing::Flowing,
            more: plan.more,
        })
    }

    async fn relist(&self, stream: &StreamId, window: Window) -> Result<Vec<WorkItem>, FetchError> {
        let now = self.now();
        Ok(span::again(window, now)
            .into_iter()
            .map(|window| span::item(stream, window, Some(now)))
            .collect())
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        let window = span::of(item)?;
        let application = item.stream.name();
        let walk = Walk {
            client: self.client.clone(),
            url: self.url(application, window),
            what: format!("activities of {application} in {}", item.body),
        };
        Ok(walk.pages(item))
    }

    fn records(&self) -> &dyn RecordReader {
        &*self.records
    }
}

/// How access is shown, and the key of the quota it uses.
fn grant(
    options: &GoogleWorkspaceOptions,
    surroundings: &Surroundings,
) -> Result<(Grant, String), BuildError> {
    let bad = |key: &'static str| move |error: BadKeyFile| invalid(key, "…", error.0);
    if let Some(url) = &options.token_uri {
        checked_override(url).map_err(bad("token_uri"))?;
    }
    match (&options.service_account, &options.refresh_token) {
        (Some(source), None) => {
            let help = "e-mail address of the administrator for whom the service account reads";
            let subject = required(options.subject.as_ref(), "subject", help)?;
            let key = surroundings.secret(source);
            let (account, _) = ServiceAccount::read(&key).map_err(bad("service_account"))?;
            account
                .endpoint(options.token_uri.as_ref())
                .map_err(bad("service_account"))?;
            let project = match account.project_id.as_str() {
                "" => account.client_email,
                project => project.to_owned(),
            };
            let subject = subject.to_ascii_lowercase();
            let quota_key = format!("{KIND}/{project}/{subject}");
            Ok((Grant::ServiceAccount { key, subject }, quota_key))
        }
        (None, Some(refresh)) => {
            let client_secret = surroundings.secret(&refresh.client_secret);
            let token = surroundings.secret(&refresh.token);
            let secret = |error: SecretError| BuildError::Secret {
                key: "refresh_token",
                error,
            };
            client_secret.read().map_err(secret)?;
            token.read().map_err(secret)?;
            let who = options.subject.as_deref().unwrap_or("me");
            let quota_key = format!("{KIND}/{}/{who}", refresh.client_id);
            let grant = Grant::RefreshToken {
                client_id: refresh.client_id.clone(),
                client_secret,
                token,
            };
            Ok((grant, quota_key))
        }
        (Some(_), Some(_)) => Err(invalid(
            "refresh_token",
            "…",
            "give either service_account or refresh_token",
        )),
        (None, None) => Err(BuildError::Missing {
            key: "service_account",
            help: "service_account = { file = … } | { env = … }, or a refresh_token table",
        }),
    }
}

fn customer_id(given: Option<&str>) -> Result<Option<String>, BuildError> {
    let plain =
        |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match given {
        Some(id) if !plain(id) => Err(invalid("customer_id", id, "must look like C01abcdef")),
        other => Ok(other.map(str::to_owned)),
    }
}

fn streams(tenant: &TenantId, given: Option<&[String]>) -> Result<Vec<StreamId>, BuildError> {
    let key = "applications";
    let mut names: Vec<&str> = match given {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => applications::DEFAULT.to_vec(),
    };
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(invalid(key, "[]", "name at least one application"));
    }
    // Any name may come: the vendor's list grows. It becomes a part of a path, so it must be plain.
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    names
        .into_iter()
        .map(|name| {
            if !plain(name) {
                return Err(invalid(
                    key,
                    name,
                    "only letters, digits and _ stand in such a name",
                ));
            }
            StreamId::new(tenant.clone(), KIND, name).map_err(|e| invalid(key, name, e.to_string()))
        })
        .collect()
}

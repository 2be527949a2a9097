//! The Google Workspace Reports API: one connector per customer, one stream per application. Where it
//! is asked for, the Alert Center is a further stream, with a token and a quota of its own.
//!
//! Listing cuts time into frozen windows and asks nobody; fetching walks all pages of a window.
//! What the service demands of a client is in spec/connectors.md section 3.

mod alerts;
mod answer;
pub mod applications;
mod diagnosis;
pub mod directory;
mod listing;
pub mod login;
mod optional;
mod pace;
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
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Cursor, StreamId, TenantId, Window, WorkItem};

pub use self::alerts::ALERTS_ROOT;
use self::alerts::AlertCenter;
use self::applications::ALERT_CENTER;
use self::optional::Optional;
use self::pace::Pace;
pub use self::pace::SLICE_PAGES_MAX;
pub(crate) use self::token::TOKEN_URI;
use self::token::{
    BadKeyFile, GoogleTokens, Grant, SCOPE, SCOPE_ALERTS, ServiceAccount, checked_override,
};
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
use crate::{
    Connector, Cost, Depth, FetchError, Listing, PageStream, RecordReader, Schedule, Standing,
    Withheld,
};

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
    alerts: Option<AlertCenter>,
    /// Set where the Alert Center is a stream by default.
    optional: Option<Optional>,
    streams: Vec<StreamId>,
    paces: BTreeMap<StreamId, Arc<Pace>>,
    lags: BTreeMap<String, u32>,
    overlaps: BTreeMap<String, u32>,
    quota_key: String,
    requests_per_minute: NonZeroU32,
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
        let client = |scope, quota_key: &str, classify| {
            let tokens = GoogleTokens {
                wire: wire(),
                grant: grant.clone(),
                scope,
                token_uri: options.token_uri.clone(),
            };
            let quota = surroundings.quotas.quota(quota_key, rpm);
            let tokens = TokenCache::new(Box::new(tokens));
            Arc::new(Client::new(wire(), quota, tokens, classify))
        };
        // Only a service account can have the scope of the Alert Center.
        let optional = options.applications.is_none() && options.service_account.is_some();
        let streams = streams(tenant, options.applications.as_deref(), optional)?;
        let customer_id = customer_id(options.customer_id.as_deref())?;
        let alerts = if streams.iter().any(|stream| stream.name() == ALERT_CENTER) {
            if options.service_account.is_none() {
                let why = "the Alert Center is read by a service account with delegation only";
                return Err(invalid("applications", ALERT_CENTER, why));
            }
            Some(AlertCenter {
                client: client(
                    SCOPE_ALERTS,
                    &format!("{quota_key}/{ALERT_CENTER}"),
                    answer::alerts,
                ),
                root: alerts_root(options, &api)?,
                customer: customer_id
                    .as_deref()
                    .map(|id| id.strip_prefix('C').unwrap_or(id).to_owned()),
            })
        } else {
            None
        };
        Ok(Self {
            client: client(SCOPE, &quota_key, answer::reports),
            api,
            customer_id,
            alerts,
            optional: optional.then(Optional::default),
            paces: streams
                .iter()
                .map(|stream| (stream.clone(), Arc::default()))
                .collect(),
            streams,
            lags: options.lag_seconds.clone().unwrap_or_default(),
            overlaps: options.overlap_seconds.clone().unwrap_or_default(),
            quota_key,
            requests_per_minute: rpm,
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
        given(&self.lags, application).unwrap_or_else(|| applications::lateness(application).lag)
    }

    fn overlap(&self, application: &str) -> TimeDelta {
        given(&self.overlaps, application)
            .unwrap_or_else(|| applications::lateness(application).overlap)
    }

    /// How wide windows of a stream are cut.
    fn width(&self, stream: &StreamId) -> TimeDelta {
        if stream.name() == ALERT_CENTER {
            return alerts::WINDOW;
        }
        self.pace(stream).width()
    }

    /// Why the Alert Center is not read, where nobody asked for it by name.
    async fn not_granted(&self, stream: &StreamId) -> Result<Option<Withheld>, FetchError> {
        match (stream.name(), &self.optional, &self.alerts) {
            (ALERT_CENTER, Some(optional), Some(alerts)) => {
                optional.withheld(alerts, self.now()).await
            }
            _ => Ok(None),
        }
    }

    fn pace(&self, stream: &StreamId) -> Arc<Pace> {
        self.paces.get(stream).cloned().unwrap_or_default()
    }
}

fn given(table: &BTreeMap<String, u32>, application: &str) -> Option<TimeDelta> {
    table
        .get(application)
        .map(|seconds| TimeDelta::seconds((*seconds).into()))
}

/// The URL of the first page of a window. Unfiltered, for all users: the quota of filtered queries
/// is a tenth of the other.
fn url(api: &Origin, application: &str, customer: Option<&str>, window: Window) -> String {
    let mut url = api.at(&format!(
        "/admin/reports/v1/activity/users/all/applications/{application}\
         ?startTime={}&endTime={}&maxResults={PAGE_ITEMS}",
        span::text(window.from()),
        span::text(window.until()),
    ));
    if let Some(customer) = customer {
        url.push_str("&customerId=");
        url.push_str(customer);
    }
    url
}

/// The Alert Center's own origin. Where the Reports API was moved to another, a simulator's or a
/// proxy's, it is looked for there too: its token must not go to the one while the other is meant.
fn alerts_root(options: &GoogleWorkspaceOptions, api: &Origin) -> Result<Origin, BuildError> {
    match (&options.alerts_root, &options.api_root) {
        (None, Some(_)) => Ok(api.clone()),
        (given, _) => origin("alerts_root", given.as_ref(), ALERTS_ROOT),
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

    fn cost(&self, _stream: &StreamId) -> Option<Cost> {
        Some(Cost {
            requests_per_minute: self.requests_per_minute.get(),
            reach: span::REACH,
            listing_span: None,
            page_records: Some(PAGE_ITEMS.into()),
        })
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
        if let Some(withheld) = self.not_granted(stream).await? {
            return Ok(Listing {
                items: Vec::new(),
                cursor: cursor.clone(),
                gaps: Vec::new(),
                more: false,
                standing: Standing::Withheld(withheld),
            });
        }
        let now = self.now();
        let cut = span::Cut {
            lag: self.lag(stream.name()),
            width: self.width(stream),
        };
        let plan = span::plan(cursor.covered_until, now, cut);
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

    async fn withheld(&self, stream: &StreamId) -> Option<Withheld> {
        self.not_granted(stream).await.ok().flatten()
    }

    async fn relist(&self, stream: &StreamId, window: Window) -> Result<Vec<WorkItem>, FetchError> {
        let now = self.now();
        Ok(span::again(window, now, self.width(stream))
            .into_iter()
            .map(|window| span::item(stream, window, Some(now)))
            .collect())
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        let window = span::of(item)?;
        let application = item.stream.name().to_owned();
        if let (ALERT_CENTER, Some(alerts)) = (application.as_str(), &self.alerts) {
            return Ok(alerts.pages(item, window));
        }
        let what = format!("activities of {application}");
        let (api, customer) = (self.api.clone(), self.customer_id.clone());
        let walk = Walk {
            client: self.client.clone(),
            pace: self.pace(&item.stream),
            url: Box::new(move |window| url(&api, &application, customer.as_deref(), window)),
            what,
            window,
        };
        Ok(walk.pages(item))
    }

    async fn diagnose(&self, depth: Depth) -> Vec<Check> {
        self.look(depth).await
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
            token.read().map_err(|error| {
                let why = format!("{error}; exfilwatch auth login makes it");
                invalid("refresh_token.token", &format!("{token:?}"), why)
            })?;
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

fn streams(
    tenant: &TenantId,
    given: Option<&[String]>,
    alerts: bool,
) -> Result<Vec<StreamId>, BuildError> {
    let key = "applications";
    let mut names: Vec<&str> = match given {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => applications::DEFAULT.to_vec(),
    };
    if alerts {
        names.push(ALERT_CENTER);
    }
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

//! Microsoft: the token endpoints and the Management Activity API of every Office 365 tenant.
//!
//! Written from the vendor's documentation and from what clients report of the service
//! (connectors facts, section 1). State that an administrator could change (auditing, roles,
//! subscriptions, the secret) can be changed by tests through [`Microsoft`].

mod errors;
mod feed;
mod graph;
mod publication;
mod subscription;
mod token;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::Value;

use self::errors::{Problem, unauthorized};
use crate::clock::VirtualClock;
use crate::credentials::MicrosoftApp;
use crate::jwt::Assertion;
use crate::reply;
use crate::world::{CONTENT_TYPES, World};

pub(crate) use self::errors::by_code as activity_error;
pub(crate) use self::graph::throttled as graph_throttle;
pub use self::graph::{AuditDataId, GraphHabits, ROLE_AUDIT_ALL, ROLE_DOMAINS};
pub use self::publication::Publication;
pub use self::subscription::SubscriptionStatus;
pub(crate) use self::token::refusal as token_error;

/// Role that opens every content type but DLP.All.
pub const ROLE_READ: &str = "ActivityFeed.Read";
/// Role that opens DLP.All.
pub const ROLE_READ_DLP: &str = "ActivityFeed.ReadDlp";

const NIL_GUID: &str = "00000000-0000-0000-0000-000000000000";

/// Habits of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrosoftOptions {
    /// Items a listing page.
    pub page_items: usize,
    /// Requests a virtual minute and tenant; 0 means no limit.
    pub requests_per_minute: u32,
    /// Life of a token, virtual seconds.
    pub token_lifetime_seconds: i64,
    /// How much older than 7 days a window may start; the service was seen to allow an hour.
    pub window_slack_seconds: i64,
    /// Whether all content types are subscribed from the start.
    pub subscribed: bool,
    /// Whether content from before the first subscription is there.
    pub content_before_subscription: bool,
    /// How long after its start a subscription has its first content, virtual seconds, where content
    /// from before it is not there. The documentation says up to 12 hours.
    pub first_content_after_seconds: i64,
    /// Every so many listing pages an empty one comes, with a link to the next; 0 for never.
    pub empty_page_every: usize,
    /// Whether the listing is in no order.
    pub listing_shuffled: bool,
    /// Whether a window that starts with a blob's `contentCreated` lists another blob in its place that
    /// holds the later half of the records, as Filebeat's authors saw.
    pub partial_at_start: bool,
    /// Roots of the Management Activity API that belong to this cloud, besides the own address.
    pub roots: Vec<String>,
    /// Roots of Microsoft Graph that belong to this cloud, besides the own address.
    pub graph_roots: Vec<String>,
    /// Habits of Graph's audit-log search.
    pub graph: GraphHabits,
}

impl Default for MicrosoftOptions {
    fn default() -> Self {
        Self {
            page_items: 100,
            requests_per_minute: 2_000,
            token_lifetime_seconds: 3_599,
            window_slack_seconds: 3_600,
            subscribed: false,
            content_before_subscription: true,
            first_content_after_seconds: 0,
            empty_page_every: 0,
            listing_shuffled: false,
            partial_at_start: false,
            roots: ["https://manage.office.com", "https://manage-gcc.office.com"]
                .map(String::from)
                .into(),
            graph_roots: vec!["https://graph.microsoft.com".to_owned()],
            graph: GraphHabits::default(),
        }
    }
}

/// The simulated service. Clones share one state.
#[derive(Debug, Clone)]
pub struct Microsoft {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Arc<World>,
    clock: VirtualClock,
    options: MicrosoftOptions,
    app: MicrosoftApp,
    state: Mutex<ServiceState>,
}

/// What changes while the service runs.
#[derive(Debug)]
struct ServiceState {
    secret: String,
    /// The application with the certificate that is registered at present.
    certificate: MicrosoftApp,
    published: Vec<publication::Published>,
    secret_expired: bool,
    roles: BTreeSet<String>,
    auditing_off: HashSet<usize>,
    subscriptions: BTreeMap<(usize, &'static str), subscription::Subscription>,
    requests: HashMap<usize, (i64, u32)>,
    assertion_ids: HashSet<String>,
    tokens_issued: u64,
    without_publisher: u64,
    throttled: u64,
    graph: graph::GraphState,
}

impl Microsoft {
    pub(crate) fn new(
        world: Arc<World>,
        clock: VirtualClock,
        options: MicrosoftOptions,
        app: MicrosoftApp,
    ) -> Self {
        let roles = [ROLE_READ, ROLE_READ_DLP].map(String::from);
        let mut state = ServiceState {
            secret: app.client_secret.clone(),
            certificate: app.clone(),
            published: Vec::new(),
            secret_expired: false,
            roles: roles.into(),
            auditing_off: HashSet::new(),
            subscriptions: BTreeMap::new(),
            requests: HashMap::new(),
            assertion_ids: HashSet::new(),
            tokens_issued: 0,
            without_publisher: 0,
            throttled: 0,
            graph: graph::GraphState::new(options.graph.clone()),
        };
        if options.subscribed {
            for number in 0..world.tenants().len() {
                for content_type in CONTENT_TYPES {
                    let subscription = subscription::Subscription::enabled_at(i64::MIN / 2);
                    state
                        .subscriptions
                        .insert((number, content_type), subscription);
                }
            }
        }
        let inner = Inner {
            world,
            clock,
            options,
            app,
            state: Mutex::new(state),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The routes, without faults; [`crate::Simulator`] adds those.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/{tenant}/oauth2/token", post(token::v1))
            .route("/{tenant}/oauth2/v2.0/token", post(token::v2))
            .route(
                "/{tenant}/v2.0/.well-known/openid-configuration",
                get(token::discovery),
            )
            .route(
                "/api/{version}/{tenant}/activity/feed/subscriptions/start",
                post(subscription::start),
            )
            .route(
                "/api/{version}/{tenant}/activity/feed/subscriptions/stop",
                post(subscription::stop),
            )
            .route(
                "/api/{version}/{tenant}/activity/feed/subscriptions/list",
                get(subscription::list),
            )
            .route(
                "/api/{version}/{tenant}/activity/feed/subscriptions/content",
                get(feed::list),
            )
            .route(
                "/api/{version}/{tenant}/activity/feed/audit/{content_id}",
                get(feed::blob),
            )
            .merge(graph::router())
            .with_state(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, ServiceState> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches unified auditing of a tenant off or on.
    pub fn set_auditing(&self, tenant: &str, on: bool) {
        if let Some(number) = self.number_of_alias(tenant) {
            let mut state = self.state();
            if on {
                state.auditing_off.remove(&number);
            } else {
                state.auditing_off.insert(number);
            }
        }
    }

    /// Sets the roles that new tokens carry.
    pub fn set_roles(&self, roles: &[&str]) {
        self.state().roles = roles.iter().map(|role| (*role).to_owned()).collect();
    }

    /// Replaces the client secret; the old one is then wrong.
    pub fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.state().secret);
    }

    /// Registers another certificate in place of the first; assertions of the old one are refused.
    pub fn set_certificate(&self, of: &MicrosoftApp) {
        self.state().certificate = of.clone();
    }

    /// Lets the client secret expire, or not.
    pub fn expire_secret(&self, expired: bool) {
        self.state().secret_expired = expired;
    }

    /// Disables a subscription, as a tenant administrator can.
    pub fn disable_subscription(&self, tenant: &str, content_type: &str) {
        self.change_subscription(tenant, content_type, |subscription| {
            subscription.status = SubscriptionStatus::Disabled;
        });
    }

    /// Bars a subscription, which also disables it, or lets it be started again: while it is barred, a
    /// start is refused as disabled by an administrator.
    pub fn bar_subscription(&self, tenant: &str, content_type: &str, barred: bool) {
        self.change_subscription(tenant, content_type, |subscription| {
            subscription.barred = barred;
            if barred {
                subscription.status = SubscriptionStatus::Disabled;
            }
        });
    }

    fn change_subscription(
        &self,
        tenant: &str,
        content_type: &str,
        change: impl FnOnce(&mut subscription::Subscription),
    ) {
        let known = CONTENT_TYPES.iter().find(|known| **known == content_type);
        if let (Some(number), Some(content_type)) = (self.number_of_alias(tenant), known) {
            let mut state = self.state();
            let found = state.subscriptions.entry((number, *content_type));
            change(found.or_insert_with(subscription::Subscription::absent));
        }
    }

    /// How many calls forgot the PublisherIdentifier.
    pub fn calls_without_publisher(&self) -> u64 {
        self.state().without_publisher
    }

    /// How many calls were over the quota.
    pub fn calls_throttled(&self) -> u64 {
        self.state().throttled
    }

    /// How many tokens were issued.
    pub fn tokens_issued(&self) -> u64 {
        self.state().tokens_issued
    }

    /// How many starts a subscription has seen, accepted or not.
    pub fn start_calls(&self, tenant: &str, content_type: &str) -> u64 {
        let Some(number) = self.number_of_alias(tenant) else {
            return 0;
        };
        let known = CONTENT_TYPES.iter().find(|known| **known == content_type);
        known
            .and_then(|known| {
                self.state()
                    .subscriptions
                    .get(&(number, *known))
                    .map(|found| found.start_calls)
            })
            .unwrap_or(0)
    }

    fn number_of_alias(&self, alias: &str) -> Option<usize> {
        self.inner
            .world
            .tenants()
            .iter()
            .position(|tenant| tenant.alias == alias)
    }

    fn number_of_guid(&self, guid: &str) -> Option<usize> {
        let guid = guid.to_ascii_lowercase();
        self.inner
            .world
            .tenants()
            .iter()
            .position(|tenant| tenant.tenant_id.is_some_and(|id| id.to_string() == guid))
    }
}

/// A call to the activity feed that passed the checks all operations share.
#[derive(Debug)]
struct Call {
    tenant: usize,
    tenant_id: String,
    query: HashMap<String, String>,
    origin: String,
    now_ms: i64,
}

impl Microsoft {
    /// Token, tenant, publisher and quota, in the order the service checks them.
    fn admit(
        &self,
        method: &str,
        (tenant, query): (&str, Option<&str>),
        headers: &HeaderMap,
    ) -> Result<Call, Response> {
        let now_ms = self.inner.clock.now_ms();
        let query = parse_query(query);
        let roles = Self::token_roles(headers, tenant, now_ms)?;
        if uuid::Uuid::parse_str(tenant).is_err() {
            return Err(Problem::TenantNotGuid.response());
        }
        let Some(number) = self.number_of_guid(tenant) else {
            return Err(Problem::TenantUnknown(tenant.to_owned()).response());
        };
        self.check_publisher(&query)?;
        self.check_quota(number, method, &query, now_ms)?;
        if self.state().auditing_off.contains(&number) {
            return Err(Problem::AuditingOff(tenant.to_owned()).response());
        }
        let content_type = query.get("contentType").map_or("", String::as_str);
        let needed = if content_type == "DLP.All" {
            ROLE_READ_DLP
        } else {
            ROLE_READ
        };
        if !roles.iter().any(|role| role == needed) {
            return Err(Problem::RoleMissing.response());
        }
        Ok(Call {
            tenant: number,
            tenant_id: tenant.to_owned(),
            query,
            origin: reply::origin(headers),
            now_ms,
        })
    }

    fn token_roles(
        headers: &HeaderMap,
        tenant: &str,
        now_ms: i64,
    ) -> Result<Vec<String>, Response> {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(unauthorized)?;
        let token = Assertion::parse(token).ok_or_else(unauthorized)?;
        let alive = token.seconds("exp").is_some_and(|exp| exp * 1000 > now_ms);
        if !alive || token.claim("iss") != token::ISSUER {
            return Err(unauthorized());
        }
        if !token.claim("tid").eq_ignore_ascii_case(tenant) && uuid::Uuid::parse_str(tenant).is_ok()
        {
            return Err(Problem::TenantMismatch(tenant.to_owned()).response());
        }
        let roles = token.claims.get("roles").and_then(Value::as_array);
        let text = |role: &Value| role.as_str().map(ToOwned::to_owned);
        Ok(roles
            .map(|roles| roles.iter().filter_map(text).collect())
            .unwrap_or_default())
    }

    fn check_publisher(&self, query: &HashMap<String, String>) -> Result<(), Response> {
        match query.get("PublisherIdentifier") {
            None => self.state().without_publisher += 1,
            Some(publisher) if uuid::Uuid::parse_str(publisher).is_ok() => {}
            Some(publisher) => {
                let problem = Problem::WrongType(publisher.clone(), "Guid");
                return Err(problem.response());
            }
        }
        Ok(())
    }

    fn check_quota(
        &self,
        tenant: usize,
        method: &str,
        query: &HashMap<String, String>,
        now_ms: i64,
    ) -> Result<(), Response> {
        let limit = self.inner.options.requests_per_minute;
        if limit == 0 {
            return Ok(());
        }
        let minute = now_ms.div_euclid(60_000);
        let mut state = self.state();
        let (seen_minute, count) = state.requests.entry(tenant).or_insert((minute, 0));
        if *seen_minute != minute {
            (*seen_minute, *count) = (minute, 0);
        }
        *count += 1;
        if *count > limit {
            state.throttled += 1;
            let publisher = query
                .get("PublisherIdentifier")
                .map_or(NIL_GUID, String::as_str);
            return Err(crate::reply::microsoft_throttle(method, publisher));
        }
        Ok(())
    }

    /// The content type of a call, or AF20001/AF20020.
    fn content_type(call: &Call) -> Result<&'static str, Response> {
        let Some(asked) = call.query.get("contentType") else {
            return Err(Problem::MissingParameter("contentType").response());
        };
        let known = CONTENT_TYPES
            .iter()
            .find(|known| known.eq_ignore_ascii_case(asked));
        known
            .copied()
            .ok_or_else(|| Problem::ContentTypeInvalid.response())
    }
}

/// Query parameters; the last of equal names wins, `+` is a blank.
fn parse_query(query: Option<&str>) -> HashMap<String, String> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .into_owned()
        .collect()
}

type FeedPath = Path<(String, String)>;
type Service = State<Microsoft>;
type Query = RawQuery;

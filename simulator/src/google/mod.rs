//! Google: the token endpoint and `activities.list` of the Reports API, for every Workspace.
//!
//! Written from the vendor's documentation and from what clients report of the service (connectors
//! facts, section 3). What an administrator could change (delegation, privileges) can be changed by
//! tests through [`Google`].

mod alerts;
mod consent;
mod directory;
mod errors;
mod reports;
mod token;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::routing::{get, post};
use chrono::{DateTime, Utc};
use serde_json::Value;

pub use self::consent::Person;
pub use self::directory::SCOPE_DOMAINS;
use crate::clock::VirtualClock;
use crate::credentials::GoogleApp;
use crate::sheet::Record;
use crate::world::World;

/// The scope `activities.list` needs.
pub const SCOPE_AUDIT: &str = "https://www.googleapis.com/auth/admin.reports.audit.readonly";

/// The scope the Alert Center needs.
pub const SCOPE_ALERTS: &str = "https://www.googleapis.com/auth/apps.alerts";

/// Habits of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleOptions {
    /// Requests a virtual minute and subject; 0 means no limit.
    pub requests_per_minute: u32,
    /// The same for requests with a filter.
    pub filtered_requests_per_minute: u32,
    /// Status of the quota error: 403 as a rule, 429 at times.
    pub quota_status: u16,
    /// Life of a token, virtual seconds.
    pub token_lifetime_seconds: i64,
    /// Life of a page token, virtual seconds.
    pub page_token_lifetime_seconds: i64,
    /// Every so manieth page is empty and still has a `nextPageToken`; 0 means never.
    pub empty_page_every: u64,
    /// Items a page at most, below what is asked for.
    pub page_items_max: usize,
    /// The consent screen of the installed application is in testing: refresh tokens die after a
    /// week.
    pub consent_in_testing: bool,
}

impl Default for GoogleOptions {
    fn default() -> Self {
        Self {
            requests_per_minute: 2_400,
            filtered_requests_per_minute: 250,
            quota_status: 403,
            token_lifetime_seconds: 3_599,
            page_token_lifetime_seconds: 86_400,
            empty_page_every: 0,
            page_items_max: 1_000,
            consent_in_testing: false,
        }
    }
}

/// The simulated service. Clones share one state.
#[derive(Debug, Clone)]
pub struct Google {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Arc<World>,
    clock: VirtualClock,
    options: GoogleOptions,
    app: GoogleApp,
    state: Mutex<ServiceState>,
}

#[derive(Debug, Default)]
struct ServiceState {
    tokens: HashMap<String, Token>,
    delegated: BTreeSet<String>,
    revoked: BTreeSet<String>,
    requests: HashMap<(usize, bool), (i64, u32)>,
    pages: u64,
    tokens_issued: u64,
    /// Who sits at the browser, and what that person does.
    signed_in: Option<String>,
    person: Person,
    consented: BTreeSet<String>,
    codes: HashMap<String, consent::Code>,
    refresh: HashMap<String, consent::Refresh>,
    secrets_made: u64,
    /// Activities put in by hand, by tenant and application.
    written: HashMap<(usize, String), Vec<Record>>,
    api_disabled: bool,
    day_used_up: bool,
    barred: BTreeSet<String>,
    alerts: Vec<alerts::Alert>,
}

/// An access token that was issued.
#[derive(Debug, Clone)]
struct Token {
    tenant: usize,
    subject: String,
    scopes: BTreeSet<String>,
    expires_ms: i64,
    /// A service account acts for the subject.
    delegated: bool,
}

impl Google {
    pub(crate) fn new(
        world: Arc<World>,
        clock: VirtualClock,
        options: GoogleOptions,
        app: GoogleApp,
    ) -> Self {
        let administrator = world
            .tenants()
            .iter()
            .find(|tenant| tenant.customer_id.is_some())
            .map(|tenant| tenant.admin().email.clone());
        let state = ServiceState {
            delegated: BTreeSet::from([SCOPE_AUDIT.to_owned()]),
            signed_in: administrator,
            ..ServiceState::default()
        };
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
            .route("/token", post(token::token))
            .route("/o/oauth2/v2/auth", get(consent::page))
            .route("/revoke", post(consent::revoke))
            .route("/v1beta1/alerts", get(alerts::list))
            .route(
                "/admin/reports/v1/activity/users/{user}/applications/{application}",
                get(reports::list),
            )
            .route(
                "/admin/directory/v1/customer/{customer}/domains",
                get(directory::domains),
            )
            .route(
                "/admin/directory/v1/customer/{customer}/domainaliases",
                get(directory::aliases),
            )
            .with_state(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, ServiceState> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the scopes the service account is delegated, as the admin console does.
    pub fn set_delegated_scopes(&self, scopes: &[&str]) {
        self.state().delegated = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    }

    /// Puts an activity into the log by hand. Its time is that of the body's `id`, or `at` where the
    /// body has none; from `visible` on it is listed.
    pub fn write(
        &self,
        alias: &str,
        application: &str,
        body: &str,
        [at, visible]: [DateTime<Utc>; 2],
    ) {
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        let time = value.pointer("/id/time").and_then(Value::as_str);
        let time = time.and_then(|text| text.parse::<DateTime<Utc>>().ok());
        let event_ms = time.unwrap_or(at).timestamp_millis();
        let record = Record {
            tenant: alias.into(),
            stream: format!("google_workspace/{application}").into(),
            id: String::new(),
            body: body.to_owned().into(),
            event_ms,
            visible_from_ms: visible.timestamp_millis(),
            listable_until_ms: event_ms + crate::world::RETENTION_GOOGLE_MS,
            elements: 1,
        };
        let tenants = self.inner.world.tenants();
        if let Some(number) = tenants.iter().position(|tenant| tenant.alias == alias) {
            let key = (number, application.to_owned());
            self.state().written.entry(key).or_default().push(record);
        }
    }

    /// Switches the Admin SDK API of the project on or off.
    pub fn set_api_enabled(&self, enabled: bool) {
        self.state().api_disabled = !enabled;
    }

    /// The project's quota of the day is used up, or not.
    pub fn set_day_used_up(&self, used_up: bool) {
        self.state().day_used_up = used_up;
    }

    /// Takes the privilege for one application away from every administrator, or gives it back.
    pub fn bar(&self, application: &str, barred: bool) {
        let mut state = self.state();
        if barred {
            state.barred.insert(application.to_owned());
        } else {
            state.barred.remove(application);
        }
    }

    /// Seats somebody at the browser in which the consent page is opened. At the start that is the
    /// administrator of the first Workspace.
    pub fn seat(&self, subject: &str, person: Person) {
        let mut state = self.state();
        (state.signed_in, state.person) = (Some(subject.to_owned()), person);
    }

    /// Kills the refresh token of a subject; asking with it then gives `invalid_grant`.
    pub fn revoke(&self, subject: &str) {
        self.state().revoked.insert(subject.to_owned());
    }

    /// Forgets all access tokens: every call then gets 401 until it asks for a new one.
    pub fn drop_tokens(&self) {
        self.state().tokens.clear();
    }

    /// How many access tokens were issued.
    pub fn tokens_issued(&self) -> u64 {
        self.state().tokens_issued
    }

    /// Number of the tenant a subject belongs to, and whether the subject is its administrator.
    fn membership(&self, subject: &str) -> Option<(usize, bool)> {
        self.inner
            .world
            .tenants()
            .iter()
            .enumerate()
            .find_map(|(number, tenant)| {
                tenant.customer_id.as_ref()?;
                let known = tenant.people.iter().any(|person| person.email == subject);
                known.then(|| (number, tenant.admin().email == subject))
            })
    }
}
